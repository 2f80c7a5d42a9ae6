"""What the tests of exports share: answers put where the real functions put them."""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from typing import cast

from distllm.domain.models import ErrorClass
from distllm.domain.places import DatabasePlace
from distllm.export.formats import Format, written
from distllm.export.source import Source, open_source
from distllm.store.reads import open_reader
from tests.store.store_kit import NOW, Store, end

Answers = Mapping[tuple[str, str], str | ErrorClass]


def answer(store: Store, given: Answers, *, cut: Collection[str] = ()) -> None:
    """Answer prompts by (document, question); those that are not given stay leased. Those of `cut` are cut."""
    me, worker = store.coordinator(), store.worker("studio")
    names = {
        prompt: (document, question)
        for prompt, document, question in store.rows(
            "SELECT p.id, f.name, t.name FROM prompts p JOIN templates t ON t.id = p.template_id "
            "JOIN job_documents f ON f.job_id = p.job_id AND f.document_id = p.document_id AND f.copy = 0"
        )
    }
    while group := store.take(me, worker):
        for lease in group.leases:
            said = given.get(names[lease.prompt_id])
            if said is None:
                continue
            sent = store.send(me, worker, lease)
            if isinstance(said, ErrorClass):
                store.settle(end(sent, said))
            else:
                store.settle(end(sent, answer=said, finish_reason="length" if said in cut else "stop"))


async def exported(
    place: DatabasePlace,
    job: int,
    form: Format,
    *,
    wide: bool = False,
    keep: Callable[[Source], None] = lambda source: None,
) -> bytes:
    """A job as the bytes of a format."""
    async with open_reader(place) as reader:
        source = await open_source(reader, job, wide)
        keep(source)
        pieces = written(source, form, wide)
        async with aclosing(cast("AsyncGenerator[bytes, None]", pieces)) as all_pieces:
            return b"".join([piece async for piece in all_pieces])


def fill(connection: sqlite3.Connection, papers: int, questions: int, characters: int) -> None:
    """A finished job, written straight into the tables: the real functions would take minutes for so many."""
    run = connection.execute
    run("BEGIN")
    run("INSERT INTO coordinators (id, host, pid, started_at) VALUES (1, 'here', 1, ?)", (NOW,))
    run("INSERT INTO workers (id, identity, name, type) VALUES (1, 'http://a:1', 'a', 'openai')")
    run(
        "INSERT INTO jobs (id, name, request_hash, model, params, created_at, submitted_at, started_at, finished_at) "
        "VALUES (1, 'large', 'x', 'llama', '{}', :now, :now, :now, :now)",
        {"now": NOW},
    )
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
    run(
        "INSERT INTO templates (id, job_id, ordinal, max_tokens, tokens, name, text) "
        + numbers
        + "SELECT i, 1, i - 1, 100, 10, 'question_' || i, 'What is it?' FROM n",
        (questions,),
    )
    run(
        "INSERT INTO documents (id, sha256, title, characters, created_at, text) "
        + numbers
        + "SELECT i, 'hash ' || i, 'Paper ' || i, 9, 0, 'text' FROM n",
        (papers,),
    )
    run(
        "INSERT INTO readings (id, model, prefix_hash, document_id, tokens) "
        "SELECT id, 'llama', sha256, id, 9 FROM documents"
    )
    run(
        "INSERT INTO job_documents (job_id, ordinal, document_id, reading_id, name, path) "
        "SELECT 1, id - 1, id, id, id || '.txt', id || '.txt' FROM documents"
    )
    run(
        "INSERT INTO prompts (job_id, document_id, reading_id, template_id, tokens, state, finished_at) "
        "SELECT 1, d.id, d.id, t.id, 9, 'done', ? FROM documents d, templates t ORDER BY d.id, t.id",
        (NOW,),
    )
    run(
        "INSERT INTO attempts (prompt_id, lease, worker_id, coordinator_id, started_at, finished_at, sent_tokens, "
        "outcome) SELECT id, 1, 1, 1, ?, ?, 9, 'done' FROM prompts",
        (NOW, NOW),
    )
    run(
        "INSERT INTO results (prompt_id, attempt_id, worker_id, parts, seconds, finished_at, finish_reason, proof, "
        "model, answer) SELECT id, id, 1, 1, 2.5, ?, 'stop', 'proven', 'llama', "
        "id || ' ' || substr(printf('%.*c', ?, 'x'), 1) FROM prompts",
        (NOW, characters),
    )
    run("INSERT INTO job_counters (job_id, coordinator_id, part, done) SELECT 1, 1, 0, count(*) FROM prompts")
    run("COMMIT")
