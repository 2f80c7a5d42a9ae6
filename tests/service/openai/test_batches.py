"""Batches, by the official client: made, answered, cancelled, and what is wrong with them."""

import asyncio
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from distllm.domain.clock import Clock
from distllm.service.openai.lines import Line, Maker
from distllm.store.batches import NewLine, accept_batch, line_page
from distllm.store.database import Database, open_database
from distllm.store.files import add_chunk
from distllm.store.prune import prune
from distllm.store.reads import Reader, Record
from distllm.store.removal import ended_jobs
from distllm.store.tx import StoreError, Tx
from tests.fakes.behaviour import HELD, Behaviour
from tests.fakes.server import FakeServer
from tests.service.conftest import SOON, opened
from tests.service.openai.conftest import Program, line, program_of


async def test_a_file_of_twenty_requests_becomes_twenty_answers(program: Program, server: FakeServer) -> None:
    made = await program.batch(*(line(n) for n in range(20)), metadata={"for": "a test"})
    assert (made.status, made.object, made.completion_window) == ("validating", "batch", "24h")
    assert made.expires_at == made.created_at + 86_400
    assert made.output_file_id is made.error_file_id is made.errors is None
    done = await program.until(made.id, "completed")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
    assert (done.error_file_id, done.metadata, done.model) == (None, {"for": "a test"}, "fake-model")
    assert None not in (done.in_progress_at, done.finalizing_at, done.completed_at)
    lines = await program.lines(done.output_file_id)
    assert {each["custom_id"] for each in lines} == {f"c{n}" for n in range(20)}
    assert len({each["id"] for each in lines}) == 20
    for each in lines:
        response = each["response"]
        assert (each["error"], response["status_code"]) == (None, 200)
        answer = openai.types.chat.ChatCompletion.model_validate(response["body"])
        assert answer.choices[0].message.content == f"Answer to: Question {each['custom_id'][1:]}?"
        assert answer.choices[0].finish_reason == "stop"
    assert done.usage is not None
    used = [each["response"]["body"]["usage"] for each in lines]
    assert done.usage.total_tokens == sum(each["total_tokens"] for each in used) > 0
    assert len(server.requests) == 20
    file = await program.client.files.retrieve(str(done.output_file_id))
    assert (file.purpose, file.status) == ("batch_output", "processed")
    # It is a job as any other.
    assert program.house.rows("SELECT state, done FROM job_progress") == [("completed", 20)]


async def test_text_completions_are_answered_in_their_own_form(program: Program) -> None:
    url = "/v1/completions"
    body = {"model": "fake-model", "prompt": "Say it.", "max_tokens": 9}
    made = await program.batch({"custom_id": "a", "method": "POST", "url": url, "body": body}, endpoint=url)
    done = await program.until(made.id, "completed")
    [one] = await program.lines(done.output_file_id)
    answer = openai.types.Completion.model_validate(one["response"]["body"])
    assert (answer.object, answer.choices[0].text) == ("text_completion", "Answer to: Say it.")


async def test_a_line_that_cannot_be_asked_is_answered_with_its_error_and_the_others_are_asked(
    program: Program, server: FakeServer
) -> None:
    made = await program.batch(
        line(0),
        line(1, n=2),
        line(2, tools=[{"type": "function", "function": {"name": "f"}}]),
        line(3, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]),
        line(4, stream=True),
        line(5, messages=[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]),
        line(6, logprobs=True),
        line(7, temperature=9),
        line(8, model=None),
        line(9, user="me", store=False, n=1, logprobs=False, tools=[], top_p=None),
    )
    done = await program.until(made.id, "completed")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 10, "completed": 2, "failed": 8}
    errors = {each["custom_id"]: each for each in await program.lines(done.error_file_id)}
    assert set(errors) == {f"c{n}" for n in range(1, 9)}
    for each in errors.values():
        assert (each["error"], each["response"]["status_code"]) == (None, 400)
        assert each["response"]["body"]["error"]["type"] == "invalid_request_error"
    params = [errors[f"c{n}"]["response"]["body"]["error"]["param"] for n in range(1, 9)]
    assert params == ["n", "tools", "messages", "stream", "messages", "logprobs", "temperature", "model"]
    assert {each["custom_id"] for each in await program.lines(done.output_file_id)} == {"c0", "c9"}
    assert len(server.requests) == 2


async def test_where_none_can_be_asked_the_batch_is_completed_without_output(program: Program) -> None:
    done = await program.until((await program.batch(line(0, n=2))).id, "completed")
    assert done.output_file_id is None
    assert len(await program.lines(done.error_file_id)) == 1


@pytest.mark.parametrize(
    ("code", "at", "lines"),
    [
        ("invalid_json_line", 2, [line(0), b"{not JSON"]),
        ("invalid_json_line", 1, [b"[]"]),
        ("duplicate_custom_id", 2, [line(0), line(0, "Another?")]),
        ("url_mismatch", 1, [line(0, url="/v1/completions")]),
        ("model_mismatch", 2, [line(0), line(1, model="another")]),
        ("invalid_method", 1, [line(0) | {"method": "GET"}]),
        ("empty_file", None, [b"\n"]),
        ("missing_required_parameter", 1, [{"method": "POST"}]),
    ],
)
async def test_a_batch_with_a_bad_line_fails_and_says_which(
    early: Program, code: str, at: int | None, lines: list[dict[str, object] | bytes]
) -> None:
    failed = await early.until((await early.batch(*lines)).id, "failed")
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(each.code, each.line) for each in failed.errors.data] == [(code, at)]
    assert failed.failed_at is not None
    assert failed.output_file_id is failed.error_file_id is None
    assert early.house.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_more_lines_than_allowed_fail_the_batch(early: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distllm.service.openai.lines.MOST_LINES", 3)
    failed = await early.until((await early.batch(*(line(n) for n in range(4)))).id, "failed")
    assert failed.errors is not None
    assert [each.code for each in failed.errors.data or ()] == ["too_many_tasks"]


async def test_a_model_that_nobody_has_fails_the_batch(program: Program) -> None:
    failed = await program.until((await program.batch(line(0, model="nobody-has-it"))).id, "failed")
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert failed.errors.data[0].code == "model_not_found"
    assert "fake-model" in (failed.errors.data[0].message or "")


async def test_a_batch_that_is_cancelled_keeps_what_was_answered(program: Program, server: FakeServer) -> None:
    for text in ("Question 2", "Question 3"):
        server.behave_for(text, HELD)
    made = await program.batch(*(line(n) for n in range(4)))

    async def two_are_answered() -> bool:
        counts = (await program.client.batches.retrieve(made.id)).request_counts
        return counts is not None and counts.completed == 2

    await program.house.until(two_are_answered)
    cancelling = await program.client.batches.cancel(made.id)
    assert (cancelling.status, cancelling.output_file_id) == ("cancelling", None)
    assert cancelling.cancelling_at is not None
    done = await program.until(made.id, "cancelled")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 0}
    assert {each["custom_id"] for each in await program.lines(done.output_file_id)} == {"c0", "c1"}
    assert (done.error_file_id, done.completed_at) == (None, None)
    assert (await program.client.batches.cancel(made.id)).status == "cancelled"
    await server.until(lambda: all(seen.ended for seen in server.requests))
    assert program.house.rows("SELECT state FROM job_progress") == [("cancelled",)]


async def test_whoever_cancels_its_job_cancels_a_batch(program: Program, server: FakeServer) -> None:
    server.behave_always(HELD)
    made = await program.batch(*(line(n) for n in range(4)))
    await server.until(lambda: len(server.requests) == 2)
    assert (await program.house.post("/jobs/1/cancel")).status == 200
    done = await program.until(made.id, "cancelled")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 4, "completed": 0, "failed": 0}
    assert done.output_file_id is done.error_file_id is None


async def test_whoever_cancels_its_job_while_its_lines_are_written_cancels_a_batch(
    program: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distllm.service.openai.clerk.CHUNK_REQUESTS", 2)
    make = Maker.make
    written, cancelled = threading.Event(), threading.Event()

    def slowly(maker: Maker, lines: Sequence[Line]) -> list[NewLine]:
        if b"c4" in b"".join(each.text or b"" for each in lines):
            written.set()
            assert cancelled.wait(SOON)
        return make(maker, lines)

    monkeypatch.setattr(Maker, "make", slowly)
    made = await program.batch(*(line(n) for n in range(6)))
    assert await asyncio.to_thread(written.wait, SOON)
    assert (await program.house.post("/jobs/1/cancel")).status == 200
    cancelled.set()
    done = await program.until(made.id, "cancelled")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 6, "completed": 0, "failed": 0}
    assert done.output_file_id is done.error_file_id is None
    assert server.requests == []


@dataclass
class Writing:
    """The writing of results, which waits once its first lines are read until it may go on."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def page(self, reader: Reader, batch_id: int, after: int, limit: int) -> list[Record]:
        """Some lines, as the store gives them."""
        rows = await line_page(reader, batch_id, after, limit)
        self.begun.set()
        await self.may_go_on.wait()
        return rows


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Writing:
    """Has the results of batches wait."""
    found = Writing()
    monkeypatch.setattr("distllm.service.openai.results.line_page", found.page)
    return found


async def test_what_is_retried_while_the_results_are_written_is_waited_for(
    db: Path, server: FakeServer, writing: Writing
) -> None:
    server.behave_for("Question 1", Behaviour(status=500, body={"error": {"message": "out of luck"}}))
    async with opened(db, server, max_retries=0) as house:
        program = program_of(house)
        made = await program.batch(line(0), line(1))
        await asyncio.wait_for(writing.begun.wait(), SOON)
        server.behave_for("Question 1", HELD)
        assert (await house.post("/jobs/1/retry")).body["again"] == 1
        writing.may_go_on.set()
        again = await program.until(made.id, "in_progress", "completed", "cancelled")
        assert (again.status, again.finalizing_at) == ("in_progress", None)
        assert house.rows("SELECT count(*) FROM files WHERE purpose = 'batch_output'") == [(0,)]
        server.release()
        done = await program.until(made.id, "completed", "cancelled")
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 2, "completed": 2, "failed": 0}
        assert {each["custom_id"] for each in await program.lines(done.output_file_id)} == {"c0", "c1"}
        assert (done.status, done.error_file_id) == ("completed", None)
        await program.client.close()


async def test_a_batch_that_is_cancelled_while_its_results_are_written_ends_cancelled_with_all_of_them(
    program: Program, writing: Writing
) -> None:
    made = await program.batch(line(0), line(1))
    await asyncio.wait_for(writing.begun.wait(), SOON)
    assert (await program.client.batches.cancel(made.id)).status == "cancelling"
    writing.may_go_on.set()
    done = await program.until(made.id, "cancelled", "completed")
    assert (done.status, done.completed_at) == ("cancelled", None)
    assert {each["custom_id"] for each in await program.lines(done.output_file_id)} == {"c0", "c1"}


async def test_what_a_full_disk_leaves_of_results_is_gone_once_they_are_written(
    program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("distllm.service.openai.clerk.AFTER_A_FAULT_SECONDS", 0.05)
    write, refused = Database.write, 0

    async def onto_a_full_disk(database: Database, work: Callable[[Tx], Any]) -> Any:
        """Refuses the content of a file, and then that the file is dropped."""
        nonlocal refused
        of_a_file = isinstance(work, partial)
        if refused < 2 and of_a_file and (refused or work.func is add_chunk):  # type: ignore[attr-defined]
            refused += 1
            raise StoreError(f"the disk is full, refusal {refused}", passing=True)
        return await write(database, work)

    made = await program.batch(line(0))
    monkeypatch.setattr(Database, "write", onto_a_full_disk)
    await program.until(made.id, "completed")
    assert program.house.rows("SELECT count(*) FROM files WHERE bytes IS NULL") == [(0,)]
    assert refused == 2
    assert "batches wait: StoreError: the disk is full, refusal 1" in caplog.text


async def test_what_has_ended_cannot_be_cancelled_and_the_client_does_not_try_again(program: Program) -> None:
    made = await program.batch(line(0))
    await program.until(made.id, "completed")
    with pytest.raises(openai.ConflictError) as refused:
        await program.client.batches.cancel(made.id)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_the_same_line_twice_in_a_batch_has_two_answers_and_in_another_batch_it_is_not_asked_again(
    program: Program, server: FakeServer
) -> None:
    lines = line("a", "The same?"), line("b", "The same?"), line("c", "The same?", seed=7)
    for _ in range(2):
        done = await program.until((await program.batch(*lines)).id, "completed")
        assert len(await program.lines(done.output_file_id)) == 3
    assert len(server.requests) == 3


async def test_what_changes_an_answer_reaches_the_server(program: Program, server: FakeServer) -> None:
    asked = {"top_p": 0.5, "stop": ["END"], "seed": 3, "presence_penalty": 0.1, "logit_bias": {"5": -1.0}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    made = await program.batch(line(0, temperature=0.25, response_format=schema, **asked))
    await program.until(made.id, "completed")
    [seen] = server.requests
    assert seen.body == seen.body | asked | {"temperature": 0.25, "max_tokens": 50, "response_format": schema}


async def test_batches_and_files_are_listed_page_by_page(early: Program) -> None:
    made = [(await early.batch(b"{}")).id for _ in range(5)]
    assert [batch.id async for batch in early.client.batches.list(limit=2)] == made[::-1]
    files = [file.id async for file in early.client.files.list(limit=2, order="asc", purpose="batch")]
    assert len(files) == 5
    page = await early.client.files.list(limit=2, order="asc")
    assert (page.first_id, page.last_id, page.has_more) == (files[0], files[1], True)  # type: ignore[attr-defined]
    assert [file.id async for file in early.client.files.list(purpose="batch_output")] == []


async def test_a_long_file_comes_back_as_it_was_sent_until_it_is_deleted(early: Program) -> None:
    data = b"".join(b'{"n": %d}\n' % n for n in range(300_000))
    file = await early.client.files.create(
        file=("long.jsonl", data), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600}
    )
    assert (file.bytes, file.filename, file.object) == (len(data), "long.jsonl", "file")
    assert file.expires_at == file.created_at + 3_600
    assert (await early.client.files.content(file.id)).content == data
    assert early.house.rows("SELECT max(length(data)) FROM file_chunks") == [(2**20,)]
    deleted = await early.client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    with pytest.raises(openai.NotFoundError):
        await early.client.files.retrieve(file.id)
    assert early.house.rows("SELECT count(*) FROM file_chunks") == [(0,)]


async def test_a_download_breaks_off_when_its_file_is_deleted(early: Program) -> None:
    data = b"{}\n" * 10_000_000
    file = await early.client.files.create(file=("long.jsonl", data), purpose="batch")
    async with early.house.client.get(f"/v1/files/{file.id}/content") as response:
        await response.content.readexactly(1)
        await early.client.files.delete(file.id)
        async with asyncio.timeout(SOON):
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_a_file_of_another_kind_is_refused(early: Program) -> None:
    with pytest.raises(openai.BadRequestError, match="jsonl"):
        await early.send(b"{}", name="in.txt")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        await early.client.files.create(file=("a.jsonl", b"{}" * 2**20), purpose="fine-tune")
    assert early.house.rows("SELECT (SELECT count(*) FROM files), count(*) FROM file_chunks") == [(0, 0)]
    with pytest.raises(openai.BadRequestError, match="no file"):
        await early.client.batches.create(
            input_file_id="file-gone", endpoint="/v1/chat/completions", completion_window="24h"
        )
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        await early.client.batches.create(input_file_id="file-gone", endpoint="/v1/embeddings", completion_window="24h")


@pytest.mark.parametrize(
    ("headers", "status"),
    [(b'X: "\x07"', 400), (b"Content-Transfer-Encoding: base64", 415), (b"Content-Encoding: gzip", 415)],
)
async def test_a_file_whose_bytes_cannot_be_taken_as_they_are_is_refused_and_not_kept(
    early: Program, headers: bytes, status: int
) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n%b\r\n\r\ne30=\r\n--x--\r\n'
    ) % headers
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    refused = await early.house.ask("POST", "/v1/files", data=form, headers=kind)
    assert (refused.status, refused.body["error"]["type"]) == (status, "invalid_request_error")
    assert early.house.rows("SELECT count(*) FROM files") == [(0,)]


async def test_a_batch_that_is_not_answered_in_a_day_expires_and_keeps_what_was(db: Path, server: FakeServer) -> None:
    ahead = 0.0
    clock = Clock(now=lambda: time.time() + ahead)
    server.behave_for("Question 2", HELD)
    async with opened(db, server, clock=clock) as house:
        program = program_of(house)
        made = await program.batch(*(line(n) for n in range(3)), line(3, n=2))

        async def two_are_answered() -> bool:
            counts = (await program.client.batches.retrieve(made.id)).request_counts
            return counts is not None and (counts.completed, counts.failed) == (2, 1)

        await house.until(two_are_answered)
        ahead = 86_400.0
        done = await program.until(made.id, "expired")
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 2}
        assert done.expired_at is not None
        assert {each["custom_id"] for each in await program.lines(done.output_file_id)} == {"c0", "c1"}
        late, refused = await program.lines(done.error_file_id)
        assert (late["custom_id"], late["response"], late["error"]["code"]) == ("c2", None, "batch_expired")
        assert (refused["custom_id"], refused["error"], refused["response"]["status_code"]) == ("c3", None, 400)
        await program.client.close()


async def test_what_is_asked_in_vain_is_among_the_errors(db: Path, server: FakeServer) -> None:
    server.behave_for("Question 1", Behaviour(status=500, body={"error": {"message": "out of luck"}}))
    async with opened(db, server, max_retries=0) as house:
        program = program_of(house)
        done = await program.until((await program.batch(line(0), line(1))).id, "completed")
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
        [failed] = await program.lines(done.error_file_id)
        assert (failed["custom_id"], failed["error"], failed["response"]["status_code"]) == ("c1", None, 500)
        assert "out of luck" in failed["response"]["body"]["error"]["message"]
        await program.client.close()


async def test_a_line_that_no_window_holds_is_the_clients_fault_and_the_others_are_answered(db: Path) -> None:
    async with FakeServer(context=500) as server, opened(db, server) as house:
        program = program_of(house)
        done = await program.until((await program.batch(line(0), line(1, "word " * 2_000))).id, "completed")
        [failed] = await program.lines(done.error_file_id)
        assert (failed["custom_id"], failed["error"], failed["response"]["status_code"]) == ("c1", None, 400)
        assert failed["response"]["body"]["error"]["code"] == "context_length_exceeded"
        assert "500" in failed["response"]["body"]["error"]["message"]
        assert [each["custom_id"] for each in await program.lines(done.output_file_id)] == ["c0"]
        await program.client.close()


async def test_while_no_worker_is_there_a_batch_is_validating_and_begins_once_one_is(
    db: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distllm.compose.serve.LOOKS_LAST_SECONDS", 0.2)
    await server.stop()
    async with opened(db, server) as house:
        program = program_of(house)
        made = await program.batch(line(0))
        bad = await program.batch(line(0), line(0))
        # They are taken in turn: the first was looked at before the second failed.
        await program.until(bad.id, "failed")
        assert (await program.client.batches.retrieve(made.id)).status == "validating"
        with pytest.raises(openai.ConflictError):
            await program.client.files.delete(made.input_file_id)
        await server.start()
        await program.until(made.id, "completed")
        await program.client.files.delete(made.input_file_id)
        await program.client.close()


async def test_a_batch_that_fails_after_its_lines_were_begun_ends_its_job_too(db: Path, server: FakeServer) -> None:
    # As a service leaves it that is killed while it writes the lines.
    async with opened(db, working=False) as house:
        program = program_of(house)
        made = await program.batch(line(0))
        await program.client.close()
    async with open_database(db, references=False) as database:
        job_id = await database.write(lambda tx: accept_batch(tx, 1, "fake-model", "fake-model", 1, time.time()))
    day_later = Clock(now=lambda: time.time() + 86_400)
    async with opened(db, clock=day_later, working=False) as house:
        program = program_of(house)
        failed = await program.until(made.id, "failed")
        assert failed.errors is not None
        assert [each.code for each in failed.errors.data or ()] == ["batch_expired"]
        assert (await house.get(f"/jobs/{job_id}")).body["state"] == "cancelled"
        await program.client.close()


async def test_a_file_goes_when_it_has_had_its_time(db: Path) -> None:
    for ahead in (0.0, 3_601.0):
        clock = Clock(now=lambda ahead=ahead: time.time() + ahead)  # type: ignore[misc]  # a lambda's default
        async with opened(db, clock=clock, working=False) as house:
            program = program_of(house)
            if not ahead:
                await program.client.files.create(
                    file=("a.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600}
                )
            else:

                async def gone() -> bool:
                    return house.rows("SELECT (SELECT count(*) FROM files), count(*) FROM file_chunks") == [(0, 0)]

                await house.until(gone)
            await program.client.close()


async def test_the_job_of_a_batch_is_pruned_only_once_its_results_are_told(db: Path, server: FakeServer) -> None:
    async with opened(db, server) as house:
        program = program_of(house)
        done = await program.until((await program.batch(line(0), line(1, n=2))).id, "completed")
        await program.client.close()
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE batches SET ended_at = NULL, status = NULL")
        connection.commit()
        assert await ended_jobs_of(db) == 0
        connection.execute("UPDATE batches SET ended_at = 1, status = 'completed'")
        connection.commit()
    assert await ended_jobs_of(db) == 1
    async with open_database(db, references=False) as database:
        doomed = await ended_jobs(database.read, math.inf)
        await prune(database, math.inf, doomed, lambda _: None)
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT count(*) FROM batch_lines").fetchall() == [(0,)]
    async with opened(db, server) as house:
        program = program_of(house)
        kept = await program.client.batches.retrieve(done.id)
        assert kept.request_counts == done.request_counts
        assert len(await program.lines(kept.output_file_id)) == 1
        await program.client.close()


async def ended_jobs_of(db: Path) -> int:
    """How many jobs may be pruned."""
    async with open_database(db, references=False) as database:
        return len(await ended_jobs(database.read, math.inf))
