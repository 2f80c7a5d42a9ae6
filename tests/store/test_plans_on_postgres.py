"""What is run for every prompt costs the same at a million of them on PostgreSQL too: plans, and rows that were read.

Each statement's plan is told by PostgreSQL itself as it runs, for the values that the store gave it.
"""

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import asyncpg
import pytest

from distllm.domain.models import Ask
from distllm.store import exports, looks, pages
from distllm.store.claims import claim
from distllm.store.depth import depth
from distllm.store.leases import reclaim
from distllm.store.postgres.questions import _ASKING
from distllm.store.postgres.words import question_of
from distllm.store.reads import PostgresReader
from distllm.store.removal import remove_some
from distllm.store.suspects import condemn, next_suspect
from distllm.store.sweeps import DOCUMENTS, OLD_ATTEMPTS, READINGS, SAMPLES, sweep_some
from tests.postgres_server import PostgresServer
from tests.store.store_kit import HUGE, MODEL, NOW, PostgresStore, add_job
from tests.store.test_plans import begin, manage, read_in_parts, work

LARGE = {"prompts", "attempts", "results", "readings", "documents", "job_documents"}
MOST_ROWS = 3_000
"""More than any step reads of these, and far less than there are."""

QUESTIONS = 5
SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan"}


class Watched(PostgresStore):
    """A store that tells the plan of each statement of the real functions, with what it read.

    At most `most` rows of any large table, by an index, are not `costly`.
    """

    def __init__(self, server: PostgresServer, url: str, most: float) -> None:
        super().__init__(server, url)
        self.most = most
        self.told: list[dict[str, Any]] = []
        self.write(lambda tx: None)
        self._asking = server.wait_for(asyncpg.connect(url, server_settings=_ASKING))
        for connection in (self._writer._connection, self._asking):
            server.wait_for(self._watch(connection))

    def close(self) -> None:
        self.server.wait_for(self._asking.close())
        super().close()

    async def _watch(self, connection: asyncpg.Connection) -> None:
        await connection.execute(
            "LOAD 'auto_explain'; SET client_min_messages = log; SET auto_explain.log_min_duration = 0;"
            "SET auto_explain.log_format = json; SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off;"
            "SET auto_explain.log_nested_statements = on"
        )
        connection.add_log_listener(lambda _, said: self._hear(said.message))

    def _hear(self, message: str) -> None:
        if "plan:" in message:
            self.told.append(json.loads(message[message.index("{") :]))

    def ask(self, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """What a reader asks."""
        text, names = question_of(statement)
        found = self.server.wait_for(self._asking.fetch(text, *(values[name] for name in names)))
        return [dict(row) for row in found]

    def costly(self) -> list[str]:
        """The statements that read much of a large table, each with the scans that did."""
        self.server.wait_for(asyncio.sleep(0))
        found = []
        for each in self.told:
            if many := [said for node in nodes(each["Plan"]) if (said := reads_much(node, self.most))]:
                found.append(f"{each['Query Text']}\n    {'; '.join(many)}")
        return found


class WatchedReader(PostgresReader):
    """Asks on a connection that tells its plans."""

    def __init__(self, store: Watched) -> None:
        self.place = store.place
        self._store = store

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        return self._store.ask(statement, values)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def reads_much(node: dict[str, Any], most: float) -> str | None:
    """What a scan of a large table reads, if that is more than `most` rows, or without an index."""
    if node["Node Type"] not in SCANS or node["Relation Name"] not in LARGE:
        return None
    unwanted = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    rows = (node["Actual Rows"] + unwanted) * node["Actual Loops"]
    if rows > most or (node["Node Type"] == "Seq Scan" and node["Actual Loops"]):
        return f"{node['Node Type']} of {rows} {node['Relation Name']} {node.get('Index Name', '')}"
    return None


_GROW = """
INSERT INTO documents (sha256, title, characters, created_at, text)
SELECT 'many ' || i, 'Paper ' || i, 2000, 0, repeat('words ', 333) FROM generate_series(1, {papers}) i;
INSERT INTO readings (model, prefix_hash, document_id, tokens)
SELECT '{model}', sha256, id, 1 + id % 20 FROM documents WHERE sha256 LIKE 'many %';
INSERT INTO jobs (name, request_hash, model, params, priority, created_at, submitted_at, started_at, finished_at)
VALUES ('old', 'old', '{model}', '{{}}', -1, 0, 0, 0, {now}), ('batch', 'batch', '{model}', '{{}}', -1, 0, 0, 0, {now}),
       ('new', 'new', '{model}', '{{}}', -1, 0, 0, 0, NULL);
INSERT INTO templates (job_id, ordinal, max_tokens, tokens, name, text)
SELECT j.id, i, 100, 10, 'question ' || i, 'What is ' || i || '?'
  FROM jobs j, generate_series(1, {questions}) i WHERE j.name IN ('old', 'new');
INSERT INTO job_documents (job_id, ordinal, document_id, reading_id, name, path)
SELECT j.id, row_number() OVER (PARTITION BY j.id ORDER BY r.id) - 1, r.document_id, r.id, r.id || '.txt', '/x.txt'
  FROM jobs j, readings r WHERE j.name IN ('old', 'new') AND r.prefix_hash LIKE 'many %';
INSERT INTO prompts (job_id, document_id, reading_id, template_id, tokens, state, worker_id, finished_at, lease, error)
SELECT f.job_id, f.document_id, f.reading_id, t.id, r.tokens + 110, s.state, 1,
       CASE s.state WHEN 'pending' THEN NULL ELSE {now} - f.ordinal END, CAST(s.state <> 'pending' AS INTEGER),
       CASE s.state WHEN 'failed' THEN 'no' END
  FROM job_documents f JOIN jobs j ON j.id = f.job_id AND j.name IN ('old', 'new')
  JOIN templates t ON t.job_id = j.id JOIN readings r ON r.id = f.reading_id
 CROSS JOIN LATERAL (SELECT CASE WHEN f.ordinal < 100 THEN 'failed' WHEN j.name = 'old' OR f.ordinal % 2 = 0
                                 THEN 'done' ELSE 'pending' END AS state) s
 ORDER BY f.job_id, f.ordinal, t.ordinal;
INSERT INTO readings (model, prefix_hash, tokens, system) VALUES ('{model}', 'batch', 5, 'Be brief.');
INSERT INTO prompts (job_id, reading_id, tokens, max_tokens, body, state, worker_id, finished_at, lease)
SELECT j.id, r.id, 115, 100, '{{}}', 'done', 1, {now}, 1
  FROM jobs j, readings r, generate_series(1, {papers}) WHERE j.name = 'batch' AND r.prefix_hash = 'batch';
INSERT INTO attempts (id, prompt_id, lease, worker_id, coordinator_id, started_at, finished_at, sent_tokens, outcome)
SELECT (CAST(1 AS BIGINT) << 32) + 1000000 + p.id, p.id, 1, 1, 1, {now}, {now}, 9,
       CASE p.state WHEN 'done' THEN 'done' ELSE 'broken' END
  FROM prompts p JOIN jobs j ON j.id = p.job_id AND j.priority < 0 WHERE p.state IN ('done', 'failed');
INSERT INTO results (prompt_id, attempt_id, worker_id, parts, seconds, finished_at, finish_reason, proof, model, answer)
SELECT prompt_id, id, 1, 1, 2.5, {now}, 'stop', 'proven', '{model}', repeat('answer ', 50)
  FROM attempts a WHERE a.outcome = 'done' AND a.id > (CAST(1 AS BIGINT) << 32) + 1000000;
INSERT INTO job_counters (job_id, coordinator_id, part, pending, done, failed)
SELECT p.job_id, 0, 0, count(*) FILTER (WHERE p.state = 'pending'), count(*) FILTER (WHERE p.state = 'done'),
       count(*) FILTER (WHERE p.state = 'failed')
  FROM prompts p JOIN jobs j ON j.id = p.job_id AND j.priority < 0 GROUP BY p.job_id
"""


@pytest.fixture(
    scope="module", params=[50_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def large(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database in which one job is ended and one is half done, beside what the real functions made."""
    papers = request.param // (2 * QUESTIONS)
    with postgres_server.database("template") as url:
        with closing(PostgresStore(postgres_server, url)) as store:
            begin(store)
        name = url.rpartition("/")[2]
        postgres_server.execute(_GROW.format(papers=papers, model=MODEL, now=NOW, questions=QUESTIONS), name)
        yield name


@pytest.fixture(params=["custom", pytest.param("generic", marks=pytest.mark.long)])
def planned(request: pytest.FixtureRequest, postgres_server: PostgresServer, large: str) -> Iterator[str]:
    """A copy. Its statements are planned for their values, or for any: which of both, PostgreSQL chooses as it goes."""
    with postgres_server.database(large) as url:
        name = url.rpartition("/")[2]
        postgres_server.execute(f"ALTER DATABASE {name} SET plan_cache_mode = force_{request.param}_plan")
        yield name


@pytest.fixture(params=["never analysed", "analysed"])
def watched(request: pytest.FixtureRequest, postgres_server: PostgresServer, planned: str) -> Iterator[Watched]:
    """A store on it. In a database that was never analysed, as in its first minute, any index has to do."""
    if request.param == "analysed":
        postgres_server.execute("ANALYZE", planned)
    most = MOST_ROWS if request.param == "analysed" else math.inf
    with closing(Watched(postgres_server, postgres_server.url(planned), most)) as store:
        yield store


def test_reading_much_is_noticed(watched: Watched) -> None:
    watched.ask("SELECT count(*) FROM prompts WHERE error = :error", {"error": "no"})
    watched.ask("SELECT count(*) FROM prompts WHERE id > :first", {"first": 0})
    without_index, all_of_an_index = (*watched.costly(), "")[:2]
    assert "Seq Scan of" in without_index
    assert ("Scan of" in all_of_an_index) == (watched.most == MOST_ROWS)


def test_nothing_that_a_coordinator_does_reads_much(watched: Watched) -> None:
    work(watched)
    me, worker = watched.coordinator(NOW + 110), watched.worker("studio")
    watched.write(lambda tx: reclaim(tx, me, NOW + 110))
    watched.write(lambda tx: next_suspect(tx, [Ask(worker, {MODEL: 9999}, 1)], NOW + 110))
    watched.write(lambda tx: condemn(tx, NOW + 110))
    while group := watched.take(me, worker, now=NOW + 120, windows={MODEL: 128}, limit=50):
        if len(watched.told) > 400:
            break
        assert group.leases
    assert len(watched.told) > 50
    assert not (found := watched.costly()), "\n".join(found)


def test_what_others_hold_is_found_once_however_many_seats_ask(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    seats = 20
    with closing(Watched(postgres_server, postgres_url, MOST_ROWS)) as store:
        add_job(store, [f"paper {n}" for n in range(3 * seats)], [f"question {n}" for n in range(4)])
        ask = Ask(store.worker("studio"), {MODEL: HUGE}, limit=2)
        here, there = store.coordinator(), store.coordinator()
        theirs = store.write(lambda tx: claim(tx, [ask] * seats, [], there, NOW))
        store.told.clear()
        ours = store.write(lambda tx: claim(tx, [ask] * seats, [], here, NOW))
        assert len({group.reading_id for group in [*ours, *theirs]}) == 2 * seats
        assert 0 < len(store.told) < 20 * seats


def test_nothing_that_people_do_to_a_job_reads_those_of_others(watched: Watched) -> None:
    manage(watched)
    assert not (found := watched.costly()), "\n".join(found)


def test_no_step_of_pruning_reads_much(watched: Watched) -> None:
    watched.rows("UPDATE jobs SET finished_at = ? WHERE id = 1", NOW)
    while watched.write(lambda tx: remove_some(tx, 1, NOW + 1)) is not None:
        pass
    for sweep in (OLD_ATTEMPTS, SAMPLES, READINGS, DOCUMENTS):
        watched.write(lambda tx, sweep=sweep: sweep_some(tx, sweep, 0, NOW + 1))
    # The few questions of a job that goes are looked for in all prompts.
    found = [each for each in watched.costly() if '"template_id"' not in each]
    assert not found, "\n".join(found)


def test_nothing_that_a_book_takes_reads_the_prompts_of_others(watched: Watched) -> None:
    read_in_parts(watched)
    assert not (found := watched.costly()), "\n".join(found)


async def test_looking_at_a_job_reads_no_more_than_is_shown(watched: Watched) -> None:
    reader = WatchedReader(watched)
    new = watched.value("SELECT max(id) FROM jobs")
    middle = (
        watched.value("SELECT max(p.id) FROM prompts p JOIN jobs j ON j.id = p.job_id WHERE j.name = 'batch'") - 500
    )
    watched.told.clear()
    await reader.jobs()
    await reader.held(1)
    await reader.paused()
    await reader.workers()
    await reader.recent_attempts()
    await reader.unfinished()
    await reader.speeds(MODEL)
    await depth(reader)
    for job in (1, new - 2, new - 1, new):
        await reader.costs(job)
        await reader.failures(job, 5)
        await reader.templates(job)
        await pages.job_page(reader, 2**62, 50, None)
        await pages.lively_jobs(reader, [job], 2)
        for place in (pages.START, (2_000, 0)):
            await pages.answer_page(reader, job, place, 50, document=None, prompt=None, state=None)
        for after in (0, middle):
            await reader.requests(job, after)
            await looks.loose_cells(reader, job, after, 50)
            await pages.answer_page(reader, job, (-1, after), 50, document=None, prompt=None, state=None)
            await pages.failure_page(reader, job, after, 50)
        async for _ in exports.loose_prompt_pages(reader, job):
            break
        files = await looks.files_after(reader, job, 200, 50, "")
        await looks.files_before(reader, job, 200, 50, "")
        documents = [row["document_id"] for row in files if row.get("document_id")]
        await looks.cells(reader, job, documents)
        await looks.file_of(reader, job, 200)
        await looks.text_of(reader, job, 200, 0, 100)
        prompt = watched.value("SELECT min(id) FROM prompts WHERE job_id = ?", job)
        await looks.answer_of(reader, job, prompt)
        await looks.attempts_of(reader, prompt)
        await looks.beside(reader, job, 200, prompt)
        await exports.prompts_of_files(reader, job, 200, 250)
    assert not (found := watched.costly()), "\n".join(found)
