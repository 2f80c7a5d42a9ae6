"""From files to prompts: what is shared, and what survives a submit that dies."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from distllm.domain.models import Document
from distllm.store.control import request_cancel
from distllm.store.database import open_database
from distllm.store.submissions import (
    CHUNK_DOCUMENTS,
    build_prompts,
    create_job,
    save_document,
    unfinished_builds,
    unread_files,
)
from distllm.store.tx import Tx
from tests.store.store_kit import (
    MAX_TOKENS,
    MODEL,
    NOW,
    QUESTION_TOKENS,
    Store,
    add_job,
    build_all,
    paper,
    reading,
    request,
    save_all,
)


def test_a_job_has_a_prompt_for_each_document_and_question(store: Store) -> None:
    job = add_job(store, ["one", "three"], ["findings", "limits"])
    needs = store.rows("SELECT tokens FROM prompts WHERE job_id = ? ORDER BY id", job)
    assert needs == [(3 + QUESTION_TOKENS + MAX_TOKENS,)] * 2 + [(5 + QUESTION_TOKENS + MAX_TOKENS,)] * 2
    assert store.rows("SELECT total, pending, state FROM job_progress") == [(4, 4, "pending")]


def test_the_same_bytes_are_one_document_for_all_jobs(store: Store) -> None:
    add_job(store, ["a paper"])
    add_job(store, ["a paper"])
    assert store.value("SELECT count(*) FROM documents") == 1
    assert store.value("SELECT count(*) FROM prompts") == 2


def test_a_file_with_the_bytes_of_another_of_its_job_is_asked_about_once(store: Store) -> None:
    job = add_job(store, ["a paper", "another", "a paper"], ["findings", "limits"])
    assert store.rows("SELECT copy FROM job_documents WHERE job_id = ? ORDER BY ordinal", job) == [(0,), (0,), (1,)]
    assert store.value("SELECT count(*) FROM prompts") == 4


def test_two_documents_of_different_bytes_but_one_text_share_a_reading(store: Store) -> None:
    add_job(store, [paper("the text", data=b"a pdf"), paper("the text", data=b"a text file")])
    assert store.value("SELECT count(*) FROM documents") == 2
    assert store.value("SELECT count(*) FROM readings") == 1
    assert store.value("SELECT count(*) FROM prompts") == 2


def test_two_jobs_over_the_same_documents_and_model_share_readings(store: Store) -> None:
    add_job(store, ["one", "two"], ["findings"])
    add_job(store, ["two", "one"], ["strengths"])
    assert store.value("SELECT count(*) FROM readings") == 2
    assert store.rows("SELECT count(*) FROM prompts GROUP BY reading_id") == [(2,), (2,)]


def test_another_model_reads_for_itself(store: Store) -> None:
    add_job(store, ["one"])
    add_job(store, ["one"], model="qwen-4b")
    assert store.rows("SELECT model FROM readings ORDER BY id") == [(MODEL,), ("qwen-4b",)]


def test_reading_goes_on_where_a_killed_submit_stopped(store: Store, second_connection: Callable[[], Store]) -> None:
    job = store.write(lambda tx: create_job(tx, request(["0", "1", "2", "3"], same="r"), NOW))
    save_all(store, job, [paper("zero"), paper("one")])
    later = second_connection()
    assert later.write(unfinished_builds) == [job]
    assert later.write(lambda tx: create_job(tx, request(["0", "1", "2", "3"], same="r"), NOW)) == job
    assert later.write(lambda tx: unread_files(tx, job)) == [(2, "/papers/2"), (3, "/papers/3")]
    save_all(later, job, [paper("two"), paper("three")], first=2)
    build_all(later, job)
    assert later.write(unfinished_builds) == []
    assert store.value("SELECT count(*) FROM prompts") == 8
    assert store.value("SELECT count(*) FROM job_documents") == 4


def test_building_goes_on_where_a_killed_submit_stopped(store: Store, second_connection: Callable[[], Store]) -> None:
    total = 2 * CHUNK_DOCUMENTS + 7
    papers = [paper(f"paper {place % (total - 3)}") for place in range(total)]
    job = store.write(lambda tx: create_job(tx, request([str(place) for place in range(total)]), NOW))
    save_all(store, job, papers)
    assert not store.write(lambda tx: build_prompts(tx, job, NOW))
    assert store.value("SELECT count(*) FROM prompts") == 2 * CHUNK_DOCUMENTS
    later = second_connection()
    assert not later.write(lambda tx: build_prompts(tx, job, NOW))
    assert later.write(lambda tx: build_prompts(tx, job, NOW))
    assert later.write(lambda tx: build_prompts(tx, job, NOW)), "once more changes nothing"
    assert store.rows("SELECT total, pending FROM job_progress") == [(2 * (total - 3), 2 * (total - 3))]
    assert len(store.rows("SELECT DISTINCT document_id, template_id FROM prompts")) == 2 * (total - 3)


def test_the_same_request_is_the_same_job_until_that_has_ended(store: Store) -> None:
    first = store.write(lambda tx: create_job(tx, request(["a"], same="r"), NOW))
    assert store.write(lambda tx: create_job(tx, request(["a"], same="r"), NOW + 5)) == first
    assert store.write(lambda tx: create_job(tx, request(["a"], same="other"), NOW)) != first
    save_all(store, first, [paper("a")])
    build_all(store, first)
    assert store.write(lambda tx: create_job(tx, request(["a"], same="r"), NOW + 7)) == first
    assert store.write(lambda tx: request_cancel(tx, first, NOW + 8))
    assert store.write(lambda tx: create_job(tx, request(["a"], same="r"), NOW + 9)) > first


async def test_fifty_that_submit_the_same_request_at_once_make_one_job(store: Store) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_database(store.place)) for _ in range(50)]
        asked = request(["a", "b"], same="r")
        made = await asyncio.gather(*(each.write(lambda tx: create_job(tx, asked, NOW)) for each in opened))
        assert len(set(made)) == 1

        def build(tx: Tx) -> bool:
            for ordinal, _ in unread_files(tx, made[0]):
                save_document(tx, made[0], ordinal, paper(f"paper {ordinal}"), reading, NOW)
            return build_prompts(tx, made[0], NOW)

        assert all(await asyncio.gather(*(each.write(build) for each in opened)))
    assert store.rows("SELECT count(*) FROM jobs") == [(1,)]
    assert store.rows("SELECT count(*) FROM job_documents") == [(2,)]
    assert store.rows("SELECT total, pending FROM job_progress") == [(4, 4)]


def test_nothing_of_a_job_that_is_still_being_built_is_leased(store: Store) -> None:
    total = CHUNK_DOCUMENTS + 1
    job = store.write(lambda tx: create_job(tx, request([str(place) for place in range(total)]), NOW))
    save_all(store, job, [paper(f"paper {place}") for place in range(total)])
    store.write(lambda tx: build_prompts(tx, job, NOW))
    me, worker = store.coordinator(), store.worker("studio")
    assert store.take(me, worker) is None
    build_all(store, job)
    assert store.take(me, worker) is not None


def test_a_job_with_no_readable_file_ends_at_once_as_completed(store: Store) -> None:
    job = add_job(store, [paper("", data=b"%PDF scan", problem="no text in it")])
    assert store.rows("SELECT state, total, finished_at IS NOT NULL FROM job_progress") == [("completed", 0, 1)]
    assert store.rows("SELECT problem FROM documents") == [("no text in it",)]
    assert store.states(job) == {}


def test_files_that_cannot_even_be_opened_are_a_document_each(store: Store) -> None:
    gone = Document(None, "", None, None, "it is gone")
    add_job(store, [gone, gone, "a paper"])
    assert store.value("SELECT count(*) FROM documents WHERE sha256 IS NULL") == 2
    assert store.value("SELECT count(*) FROM job_documents WHERE copy = 1") == 0
    assert store.value("SELECT count(*) FROM prompts") == 1


def test_a_document_that_could_not_be_read_before_gets_its_text_when_it_can(store: Store) -> None:
    add_job(store, [paper("", data=b"bytes", problem="no text in it")])
    add_job(store, [paper("read at last", data=b"bytes")])
    assert store.rows("SELECT text, characters, problem FROM documents") == [("read at last", 12, None)]
    assert store.value("SELECT count(*) FROM prompts") == 1


def test_what_was_read_once_is_not_lost_when_it_cannot_be_read_again(store: Store) -> None:
    add_job(store, [paper("read", data=b"bytes")])
    add_job(store, [paper("", data=b"bytes", problem="out of memory")])
    assert store.rows("SELECT text, problem FROM documents") == [("read", None)]


def test_bytes_that_a_newer_distllm_reads_differently_are_asked_about_whole(store: Store) -> None:
    add_job(store, [paper("a he-\nader and the whole long text", data=b"a pdf")])
    second = add_job(store, [paper("the whole long text", data=b"a pdf")])
    me, worker = store.coordinator(), store.worker("studio")
    texts: dict[int, str | None] = {}
    while (group := store.take(me, worker)) is not None:
        texts |= dict.fromkeys((lease.job_id for lease in group.leases), group.document)
    assert texts[second] in ("the whole long text", "a he-\nader and the whole long text")


def test_a_file_that_two_processes_read_is_stored_once(store: Store, second_connection: Callable[[], Store]) -> None:
    job = store.write(lambda tx: create_job(tx, request(["a"]), NOW))
    for process in (store, second_connection()):
        document = paper("the text")
        process.write(lambda tx, document=document: save_document(tx, job, 0, document, reading, NOW))
    build_all(store, job)
    assert store.value("SELECT count(*) FROM documents") == 1
    assert store.value("SELECT count(*) FROM prompts") == 2


def test_a_job_whose_files_another_machine_has_is_gone_on_with_there(store: Store) -> None:
    job = store.write(lambda tx: create_job(tx, request(["here.txt"]), NOW))
    assert store.write(unfinished_builds) == [job]
    store.rows("UPDATE jobs SET host = 'another'")
    assert store.write(unfinished_builds) == []
