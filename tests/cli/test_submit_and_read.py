"""The main job, as a person does it: submit, look, read, ask in SQL."""

import asyncio
import csv
import io
import json
import os
import signal
import sys

import pytest

from tests.cli.conftest import Cli
from tests.fakes.behaviour import HELD, Behaviour
from tests.fakes.server import FakeServer

RESEARCH = ["research_question", "methodology", "key_findings", "limitations", "contributions"]


async def test_a_folder_of_papers_becomes_rows(cli: Cli) -> None:
    cli.papers(3)
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run("submit", "--preset", "research", "papers")
        assert done.code == 0, done.err
        assert len(server.requests) == 15
    assert "15 of 15 prompts about 3 documents answered" in done.out
    assert "distllm results 1" in done.out
    assert "\x1b" not in done.out + done.err
    rows = cli.rows("SELECT document, prompt, model, worker, proof, attempts FROM answers")
    assert {row[0] for row in rows} == {"paper0.txt", "paper1.txt", "paper2.txt"}
    assert {row[1] for row in rows} == set(RESEARCH)
    assert {row[2:] for row in rows} == {("fake-model", "w0", "proven", 1)}

    status = await cli.run("status", "1")
    assert status.code == 0
    assert "completed" in status.out
    assert "15 of 15" in status.out
    [job] = json.loads((await cli.run("status", "--json")).out)
    assert (job["state"], job["done"], job["total"]) == ("completed", 15, 15)

    read = await cli.run("results", "1", "--document", "paper1.txt", "--prompt", "methodology")
    assert "paper1.txt" in read.out
    assert "methodology" in read.out
    assert "Answer to:" in read.out
    assert "limitations" not in read.out
    as_json = [json.loads(line) for line in (await cli.run("results", "1", "--json")).out.splitlines()]
    assert [row["prompt"] for row in as_json] == RESEARCH * 3

    sql = "select document, prompt, answer from answers order by document, prompt"
    table = await cli.run("query", sql)
    assert "paper2.txt" in table.out
    assert len(list(csv.reader(io.StringIO((await cli.run("query", sql, "--format", "csv")).out)))) == 16
    assert len(json.loads((await cli.run("query", sql, "--json")).out)) == 15


async def test_questions_of_ones_own(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run("submit", "papers/paper0.txt", "--prompt", "What data was used?", "--prompt", "By whom?")
        assert done.code == 0, done.err
        assert sorted(seen.question for seen in server.requests) == ["By whom?", "What data was used?"]
    assert cli.rows("SELECT prompt FROM answers ORDER BY prompt") == [("by_whom",), ("what_data_was_used",)]


async def test_options_reach_the_server(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", "papers", "--prompt", "What?", "--max-tokens", "7", "--temperature", "0.5")
        assert server.requests[0].body["max_tokens"] == 7
        assert server.requests[0].body["temperature"] == 0.5


async def test_a_document_comes_through_a_pipe(cli: Cli) -> None:
    words = " ".join(f"word{index}" for index in range(80))
    page = f"<!doctype html><title>On trees</title><h1>Trees</h1><p>{words}".encode()
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        submit = ("submit", "-", "papers", "--prompt", "What?")
        done = await cli.finish(await cli.start(*submit, piped=True), stdin=page)
        assert done.code == 0, done.err
        stored = ("submit", "--detach", "-", "--prompt", "Why?")
        done = await cli.finish(await cli.start(*stored, piped=True), stdin=words.encode())
        assert done.code == 0, done.err
        assert (await cli.run("resume")).code == 0
    assert sorted(cli.rows("SELECT job_id, document, title FROM answers")) == [
        (1, "paper0.txt", None),
        (1, "stdin", "On trees"),
        (2, "stdin", None),
    ]
    assert cli.rows("SELECT text FROM documents WHERE title = 'On trees'") == [
        (f"# Trees\n\n{words}",),
    ]


async def test_a_submit_that_is_killed_while_it_waits_for_its_pipe_leaves_no_job(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        process = await cli.start("submit", "-", "--prompt", "What?", piped=True)
        assert process.stdin is not None
        process.stdin.write(b"The first half")
        await process.stdin.drain()
        process.kill()
        await process.communicate()
    assert cli.rows("SELECT * FROM jobs") == []


async def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(cli: Cli) -> None:
    cli.papers(2)
    cli.write("papers/empty.txt", "")
    (cli.folder / "papers" / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing more")
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run("submit", "papers", "--prompt", "What?")
    assert done.code == 3
    assert "empty.txt" in done.out
    assert "broken.pdf" in done.out
    assert cli.rows("SELECT count(*) FROM answers") == [(2,)]
    assert cli.rows("SELECT count(*) FROM documents WHERE problem IS NOT NULL") == [(2,)]
    assert "broken.pdf" in (await cli.run("status", "1")).out


async def test_a_stored_job_is_run_by_resume(cli: Cli) -> None:
    cli.papers(2)
    async with FakeServer() as server:
        cli.use(server)
        stored = await cli.run("submit", "--detach", "papers", "--prompt", "What?")
        assert stored.code == 0
        assert not server.requests
        assert "pending" in (await cli.run("status")).out
        resumed = await cli.run("resume")
        assert resumed.code == 0, resumed.err
        assert len(server.requests) == 2
        assert (await cli.run("resume")).out.strip() == "Nothing is unfinished."


async def test_a_second_submit_follows_the_first_and_both_end(cli: Cli) -> None:
    cli.papers(4)
    async with FakeServer() as server:
        cli.use(server)
        server.behave_always(HELD)
        first = await cli.start("submit", "papers", "--prompt", "What is asked here?", "--prompt", "What is found?")
        await server.until(lambda: len(server.requests) >= 1, 30)
        second = await cli.start("submit", "papers", "--prompt", "What is weak?")
        assert second.stderr is not None
        async with asyncio.timeout(30):
            while f"process {first.pid}".encode() not in await second.stderr.readline():
                assert second.returncode is None
        server.release()
        both = await asyncio.gather(cli.finish(first), cli.finish(second))
        assert [done.code for done in both] == [0, 0]
        assert len(server.requests) == 12
    assert cli.rows("SELECT DISTINCT state FROM job_progress") == [("completed",)]


async def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(cli: Cli) -> None:
    cli.papers(6)
    async with FakeServer(seconds_per_token=0.1) as server:
        cli.use(server)
        process = await cli.start("submit", "papers", "--prompt", "What is asked here?")
        await server.until(lambda: len(server.requests) >= 2, 20)
        process.send_signal(signal.SIGINT)
        done = await cli.finish(process)
        assert done.code == 130
        assert done.err.strip().splitlines()[-1].endswith("distllm resume")
        answered = cli.rows("SELECT count(*) FROM results")[0][0]
        assert answered == len(server.requests)
        assert cli.rows("SELECT count(*) FROM prompts WHERE state = 'leased'") == [(0,)]
        server.seconds_per_token = 0.0
        assert (await cli.run("resume")).code == 0
        assert len(server.requests) == 6


async def test_words_that_a_terminal_would_obey_are_not_passed_on(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        server.behave_always(Behaviour(answer="\x1b[2J\x1b]0;owned\x07wiped \x9b31mred"))
        cli.use(server)
        await cli.run("submit", "papers", "--prompt", "What?")
    for command in (["results", "1"], ["query", "select answer from answers"]):
        shown = (await cli.run(*command)).out
        assert "wiped" in shown
        assert not set(shown) & {"\x1b", "\x07", "\x9b"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
async def test_a_name_that_is_no_unicode_does_not_stop_the_others(cli: Cli) -> None:
    cli.papers(1)
    cli.write(os.fsdecode(b"papers/na\xefve.txt"), "another text")
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run("submit", "papers", "--prompt", "What?")
    assert done.code == 0, done.err
    assert cli.rows("SELECT document FROM answers ORDER BY 1") == [("na\ufffdve.txt",), ("paper0.txt",)]
