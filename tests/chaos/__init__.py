"""Chaos: the real command broken for real, again and again, to see that nothing is lost and nothing done twice.

    python -m tests.chaos --help

`campaign` leads the `rounds` of a seeded `plan`: a `victim` (the real `distllm` behind a launcher) works against a
`fleet` of fake servers until it dies, and `checks` and `calls` then judge the database and what the servers were
asked. `plants` takes one of distllm's own safeguards out, to see that the judges notice.
"""
