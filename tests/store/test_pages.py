"""Pages follow one another by place, in the order of submission, and none costs more than another."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distllm.store import pages
from distllm.store.pages import START, answer_page, failure_page, job_page, model_of_key
from distllm.store.reads import Reader, open_reader
from distllm.store.submissions import KeyTakenError, create_job
from tests.store.store_kit import MODEL, NOW, SqliteStore, Store, add_job, request, split


def read(store: Store, asked: Callable[[Reader], Any]) -> Any:
    """Ask through a reader."""

    async def ask() -> Any:
        async with open_reader(store.place) as reader:
            return await asked(reader)

    return asyncio.run(ask())


def test_the_answers_of_a_job_come_in_the_order_of_its_files_and_questions_page_by_page(store: Store) -> None:
    add_job(store, ["an early paper", "x"])
    # A paper that is known already keeps its older id: the files' order counts all the same.
    job = add_job(store, ["first", "x", "last"], ("findings", "limits"))
    split(store, 3, 2)

    async def all_pages(reader: Reader) -> list[tuple[str, str, str]]:
        rows, place = [], START
        while page := await answer_page(reader, job, place, 2, document=None, prompt=None, state=None):
            assert len(page) <= 2
            rows += page
            place = page[-1]["ordinal"], page[-1]["prompt_id"]
        return [(row["document"], row["prompt"], row["state"]) for row in rows]

    names = [(f"{n}.txt", question) for n in range(3) for question in ("findings", "limits")]
    assert [row[:2] for row in read(store, all_pages)] == names

    async def some(reader: Reader) -> list[str]:
        rows = await answer_page(reader, job, START, 9, document="1.txt", prompt="limits", state="pending")
        none = await answer_page(reader, job, START, 9, document=None, prompt=None, state="failed")
        return [row["document"] for row in rows + none]

    assert read(store, some) == ["1.txt"]
    store.rows("DELETE FROM prompts WHERE parent_id IS NOT NULL")
    store.rows("UPDATE prompts SET waits_for = 0")
    store.rows("DELETE FROM job_counters WHERE part = 1")


def test_failures_and_jobs_come_in_pages_too(store: Store) -> None:
    job = add_job(store, ["a", "b", "c"])
    other = add_job(store, ["d"])
    store.rows("UPDATE prompts SET state = 'failed', finished_at = 1, error = 'no' WHERE job_id = ?", job)
    store.rows("UPDATE job_counters SET failed = pending, pending = 0 WHERE job_id = ?", job)
    store.rows("UPDATE jobs SET finished_at = 1 WHERE id = ?", job)

    async def look(reader: Reader) -> None:
        first = await failure_page(reader, job, 0, 2)
        rest = await failure_page(reader, job, first[-1]["prompt_id"], 2)
        assert [row["document"] for row in first + rest] == ["0.txt", "1.txt", "2.txt"]
        assert [row["job_id"] for row in await job_page(reader, 2**62, 1, None)] == [other]
        assert [row["job_id"] for row in await job_page(reader, other, 5, None)] == [job]
        assert [row["job_id"] for row in await job_page(reader, 2**62, 5, "failed")] == [job]

    read(store, look)


@pytest.mark.parametrize("statement", [pages._ANSWERS, pages._BATCH_ANSWERS, pages._FAILURES])
def test_no_page_goes_through_all_prompts(sqlite_store: SqliteStore, statement: str) -> None:
    values = dict.fromkeys(("job", "ordinal", "after", "limit", "document", "prompt", "state"), None)
    steps = [row[3] for row in sqlite_store.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert [step for step in steps if step.startswith(("SCAN p", "SCAN f", "SCAN r")) or "TEMP B-TREE" in step] == []


def test_a_key_makes_one_job_for_ever_and_is_taken_for_any_other_request(store: Store) -> None:
    asked = replace(request(["a"], same="r"), key="k")
    first = store.write(lambda tx: create_job(tx, asked, NOW))
    assert store.write(lambda tx: create_job(tx, asked, NOW)) == first
    # Who bears no key goes on with what has not ended; another key is another job.
    assert store.write(lambda tx: create_job(tx, request(["a"], same="r"), NOW)) == first
    assert store.write(lambda tx: create_job(tx, replace(asked, key="other"), NOW)) > first
    with pytest.raises(KeyTakenError, match="job 1"):
        store.write(lambda tx: create_job(tx, replace(request(["b"]), key="k"), NOW))
    store.rows("UPDATE jobs SET finished_at = 1, submitted_at = 1")
    assert store.write(lambda tx: create_job(tx, asked, NOW)) == first
    assert read(store, lambda reader: model_of_key(reader, "k")) == MODEL
    assert read(store, lambda reader: model_of_key(reader, "unknown")) is None
