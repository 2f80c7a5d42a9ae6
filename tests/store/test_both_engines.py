"""The same is done to a database on each engine, and each question is answered the same by both."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from distllm.domain.models import ErrorClass, Health, Offer, Rates
from distllm.store import batches, depth, exports, files, loads, looks, pages, removal
from distllm.store.control import go_on, pause, request_cancel, retry_truncated
from distllm.store.fleet import learn, note_health, note_work, retire
from distllm.store.reads import Reader, open_reader
from distllm.store.samples import Sample, add_samples
from distllm.store.submissions import create_job
from tests.store.store_kit import (
    MODEL,
    NOW,
    PostgresStore,
    SqliteStore,
    Store,
    add_job,
    add_long_job,
    end,
    paper,
    request,
)
from tests.store.test_requests import asked, batch

MODULES = (batches, depth, exports, files, loads, looks, pages, removal)
FAR = NOW + 10**6

Ask = Callable[[Reader], Awaitable[Any]]


@dataclass(frozen=True)
class Named:
    """What differs between two databases of the same life: names by random keys, and documents, in their order.

    The numbers of documents have gaps where PostgreSQL counted one that was there already.
    """

    keys: Mapping[str, str]
    documents: list[int]


def lived(store: Store) -> Named:
    """Have a database lived in."""
    studio, mini = store.worker("studio"), store.worker("mini")
    offers = [Offer(MODEL, 8192, loaded=True, digest="sha256:1"), Offer("other", None)]
    store.write(lambda tx: note_health(tx, studio, Health(True, tuple(offers), 4), "closed", NOW))
    store.write(lambda tx: note_health(tx, mini, Health(False, (), None, "connection refused"), "open", NOW))
    store.write(lambda tx: learn(tx, studio, MODEL, Rates(512.5, 31.25, 4.0), NOW))
    store.write(lambda tx: note_work(tx, studio, 12.5, 3))
    papers = [
        paper("Ein Aufsatz über Wärme"),
        "a paper",
        "a paper",
        paper("", data=b"scan", problem="no text"),
        "x" * 90,
    ]
    add_job(store, papers, ["findings", "limits"])
    add_long_job(store, ["y" * 900, "a short one"], merge="Put these together: {answers}")
    add_job(store, ["a paper", "another"], ["findings"], params={"temperature": 0.5})
    batch(store, "numbers", ["one", "two", "three"])
    earlier = store.coordinator()
    for lease in store.must_take(earlier, studio, limit=2).leases:
        store.settle(end(store.send(earlier, studio, lease), answer="naïve\nanswer", digest="sha256:1"))
    store.write(lambda tx: retire(tx, earlier, NOW + 5))
    me = store.coordinator(NOW + 5)
    ends = [{"finish_reason": "length"}, {"error": ErrorClass.INPUT}, {"error": ErrorClass.BROKEN}, {}, {}]
    for how in ends:
        lease = store.must_take(me, studio, now=NOW + 6, limit=1).leases[0]
        store.settle(end(store.send(me, studio, lease, NOW + 6), now=NOW + 9, digest="sha256:1", **how))
    for turn in range(6):
        lease = store.must_take(me, mini, now=NOW + 10, limit=1).leases[0]
        store.settle(end(store.send(me, mini, lease, NOW + 10), now=NOW + 10.5 + turn, digest="sha256:1"))
    store.write(lambda tx: retry_truncated(tx, 1, [MODEL], NOW + 20))
    store.send(me, studio, store.must_take(me, studio, now=NOW + 30, limit=1).leases[0], NOW + 30)
    add_job(store, ["cancelled"])
    store.write(lambda tx: request_cancel(tx, 5, NOW))
    add_job(store, ["paused"])
    store.write(lambda tx: pause(tx, 6, NOW))
    # What has an answer is reused.
    add_job(store, papers, ["findings", "limits"], digests=["sha256:1"])
    store.write(lambda tx: create_job(tx, request(["unread.txt"]), NOW))
    store.write(lambda tx: pause(tx, 1, NOW) and go_on(tx, [1]))
    samples = [Sample(worker, worker == studio, 2, 9, 8, 1, 70, 3.5) for worker in (studio, mini)]
    for at in (NOW, NOW + 29, NOW + 31, NOW + 95.5):
        store.write(partial(add_samples, samples=samples, now=at))
    keys = openai_batches(store)
    return Named(keys, [number for (number,) in store.rows("SELECT id FROM documents ORDER BY id")])


def openai_batches(store: Store) -> dict[str, str]:
    keys = {}
    for name, purpose in (("in.jsonl", "batch"), ("notes.txt", "user_data"), ("half.jsonl", "batch")):
        number = store.write(partial(files.begin_file, new=files.NewFile(name, purpose, NOW)))
        for ordinal, data in enumerate((b"\x00one\xff", b"two")):
            store.write(partial(files.add_chunk, file_id=number, ordinal=ordinal, data=data))
        if name != "half.jsonl":
            keys[name] = store.write(partial(files.end_file, file_id=number, size=8, expires_at=FAR))
    for name in ("done", "begun", "failed", "new"):
        wanted = batches.Wanted("/v1/chat/completions", keys["in.jsonl"], '{"of": "mine"}', 60.0, NOW, FAR)
        keys[name] = store.write(partial(batches.create_batch, wanted=wanted))
    for number in (1, 2):
        accept = partial(batches.accept_batch, batch_id=number, model="m", job_model=MODEL, lines=3, now=NOW)
        job = store.write(accept)
        lines = [
            batches.NewLine(0, "first", asked(f"first of {number}"), None),
            batches.NewLine(1, "second", None, '{"error": "no model"}'),
            batches.NewLine(2, "third", asked("one"), None),
        ]
        store.write(partial(batches.add_lines, batch_id=number, lines=lines, digests=["sha256:1"], now=NOW))
        store.write(partial(batches.begin_batch, batch_id=number, job_id=job, now=NOW + 1))
    ended = batches.Ended("completed", keys["in.jsonl"], None, 2, 1, '{"total_tokens": 9}')
    store.write(lambda tx: batches.end_batch(tx, 1, ended, NOW + 60))
    store.write(lambda tx: batches.fail_batch(tx, 3, [{"code": "no"}], NOW + 2))
    return {key: name for name, key in keys.items()}


def questions(named: Named) -> dict[str, list[Ask]]:
    """What is asked, by the function or the reader's own method that asks it; `named` are the keys of this database."""
    keys, papers = {name: key for key, name in named.keys.items()}, named.documents
    jobs = range(1, 11)
    places = [pages.START, (0, 2), (1, 4)]

    def each(ask: Callable[..., Awaitable[Any]], *given: tuple[Any, ...], **more: Any) -> list[Ask]:
        return [lambda reader, values=values: ask(reader, *values, **more) for values in given]

    async def gathered(asked: AsyncIterator[Any]) -> list[Any]:
        return [page async for page in asked]

    def streamed(ask: Callable[..., AsyncIterator[Any]], *given: tuple[Any, ...]) -> list[Ask]:
        return [lambda reader, values=values: gathered(ask(reader, *values)) for values in given]

    of_jobs = [(job,) for job in (*jobs, 99)]
    return {
        "jobs": each(Reader.jobs, ()),
        "job": each(Reader.job, *of_jobs),
        "held": each(Reader.held, (1,), (2,)),
        "paused": each(Reader.paused, ()),
        "unfit": each(Reader.unfit, (MODEL, 50, [1, 2]), (MODEL, 10**6, [1]), ("none", 1, [])),
        "unreadable": each(Reader.unreadable, *of_jobs),
        "failures": each(Reader.failures, *((job, 5) for job in jobs)),
        "workers": each(Reader.workers, ()),
        "worker_models": each(Reader.worker_models, ()),
        "recent_attempts": each(Reader.recent_attempts, ()),
        "costs": each(Reader.costs, *of_jobs),
        "speeds": each(Reader.speeds, (MODEL,), ("none",)),
        "unfinished": each(Reader.unfinished, ()),
        "documents": each(Reader.documents, *((job, name) for job in jobs for name in (None, "1.txt"))),
        "answers": each(
            Reader.answers, *((job, paper, name) for job in jobs for paper in papers for name in (None, "limits"))
        ),
        "sources": each(Reader.sources, *of_jobs),
        "templates": each(Reader.templates, *of_jobs),
        "text": each(Reader.text, *((paper,) for paper in papers)),
        "any_answer": each(Reader.any_answer, ()),
        "requests": each(Reader.requests, (4, 0), (4, 10**9), (1, 0)),
        "job_page": each(pages.job_page, *((before, 3, state) for before in (5, 10**9) for state in (None, "running"))),
        "lively_jobs": each(pages.lively_jobs, ([1, 2], 0), ([], 3), ([4], 10**9)),
        "answer_page": [
            ask
            for document in (None, "0.txt")
            for prompt in (None, "limits")
            for state in (None, "done", "failed")
            for ask in each(
                pages.answer_page,
                *((job, place, 3) for job in jobs for place in places),
                document=document,
                prompt=prompt,
                state=state,
            )
        ],
        "failure_page": each(pages.failure_page, *((job, 0, 9) for job in jobs)),
        "model_of_key": each(pages.model_of_key, ("numbers",), ("none",)),
        "files_after": each(
            looks.files_after, *((job, at, 3, named) for job in jobs for at in (-1, 1) for named in NAMED)
        ),
        "files_before": each(looks.files_before, *((job, 3, 2, named) for job in jobs for named in NAMED)),
        "cells": each(looks.cells, *((job, papers[1:]) for job in jobs)),
        "loose_cells": each(looks.loose_cells, *((job, 0, 9) for job in jobs)),
        "file_of": [
            *each(looks.file_of, *((job, at) for job in jobs for at in (0, 3))),
            *each(files.file_of, (keys["in.jsonl"],), ("none",)),
        ],
        "text_of": each(looks.text_of, (1, 0, 4, 9), (1, 0, 0, 10**6), (1, 99, 0, 1)),
        "answer_of": each(looks.answer_of, *((job, prompt) for job in (1, 2, 4) for prompt in range(1, 40))),
        "answers_about": each(looks.answers_about, *((job, document) for job in jobs for document in papers)),
        "attempts_of": each(looks.attempts_of, *((prompt,) for prompt in range(1, 40))),
        "beside": each(looks.beside, (1, 0, 1), (1, 1, 3), (1, 4, 9), (4, -1, 2), (4, -1, 10**9)),
        "file_pages": streamed(exports.file_pages, *of_jobs),
        "prompts_of_files": each(exports.prompts_of_files, *((job, 0, 9) for job in jobs)),
        "loose_prompt_pages": streamed(exports.loose_prompt_pages, *of_jobs),
        "failure_pages": streamed(exports.failure_pages, *of_jobs),
        "unreadable_pages": streamed(exports.unreadable_pages, *of_jobs),
        "load_steps": each(loads.load_steps, (NOW - 1, 30.0), (NOW, 7.0), (FAR, 60.0)),
        "depth": each(depth.depth, ()),
        "batch_of": each(batches.batch_of, *((key,) for key in (*named.keys, "none"))),
        "batch_page": each(batches.batch_page, (None, 2), (keys["failed"], 9), ("none", 9)),
        "unended_batches": each(batches.unended_batches, ()),
        "line_page": each(batches.line_page, (1, -1, 9), (2, 0, 1), (9, -1, 9)),
        "file_page": [
            ask
            for newest_first in (True, False)
            for ask in each(
                files.file_page,
                *((after, 9, why) for after in (None, keys["in.jsonl"]) for why in (None, "batch")),
                newest_first=newest_first,
            )
        ],
        "chunks_of": streamed(files.chunks_of, (1,), (99,)),
        "ended_jobs": each(removal.ended_jobs, (FAR,), (0,)),
    }


NAMED = ("", "WÄRME", "1.txt", "title", "%")


async def told(store: Store, named: Named) -> dict[str, list[Any]]:
    """The answers to all questions, in a form that tells numbers from truths, and texts from bytes."""
    async with open_reader(store.place) as reader:
        return {name: [_plain(await ask(reader), named) for ask in asked] for name, asked in questions(named).items()}


def _plain(value: Any, named: Named) -> Any:
    match value:
        case dict():
            # Programs are told columns in their order.
            return [
                (key, named.documents.index(each) if key == "document_id" and each else _plain(each, named))
                for key, each in value.items()
            ]
        case list() | tuple():
            return [_plain(each, named) for each in value]
        case set():
            return sorted(_plain(each, named) for each in value)
        case float():
            return ("float", pytest.approx(value, rel=1e-9))
        case str():
            for key, name in named.keys.items():
                value = value.replace(key, name)
            return value
        case int() | bytes() | None:
            return (type(value).__name__, value)
        case _:
            return _plain([getattr(value, name) for name in value.__slots__], named)


async def test_each_question_has_the_same_answer_on_both_engines(
    sqlite_store: SqliteStore, postgres_store: PostgresStore
) -> None:
    here, there = [await told(store, lived(store)) for store in (sqlite_store, postgres_store)]
    for name, answers in here.items():
        assert any(answers), name
        for ours, theirs in zip(answers, there[name], strict=True):
            assert theirs == ours, name


def test_no_question_is_left_out() -> None:
    everything = {name for module in MODULES for name in _asking(module)}
    everything |= {name for name in _asking(Reader) if name not in ("rows", "row", "changes", "coordinator")}
    assert questions(Named({name: name for name in ("in.jsonl", "failed")}, [])).keys() == everything


def _asking(whose: ModuleType | type) -> set[str]:
    return {
        name
        for name, each in vars(whose).items()
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each))
        and each.__module__ == (whose.__name__ if isinstance(whose, ModuleType) else whose.__module__)
    }
