"""A cluster under fire: several coordinators on one PostgreSQL, and everything that can go wrong with each of them.

    python -m tests.cluster --help

A `run` has `coordinators` (real processes of the real command, started again whenever they end) work against
`servers` that fail at random, while `faults` kill, freeze and cut them off, and crash the database. `watch` looks at
the database meanwhile, and `calls` judges at the end whether there was cause for each request.
"""
