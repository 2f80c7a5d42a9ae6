"""A folder that is submitted again costs only what is new in it."""

import json

from tests.cli.conftest import Cli
from tests.fakes.behaviour import CUT, GOOD, HANGS
from tests.fakes.server import FakeServer


def asked(server: FakeServer) -> set[tuple[str, str]]:
    """The cells that were asked, as (paper, question)."""
    return {(seen.system.split("paper")[1].split("word")[0], seen.question) for seen in server.requests}


async def test_a_second_submit_of_the_same_folder_makes_no_call(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        first = ("submit", str(cli.papers(3)), "--prompt", "What?", "--prompt", "How?")
        assert (await cli.run(*first)).code == 0
        assert len(server.requests) == 6
        done = await cli.run(*first)
        assert done.code == 0
        assert len(server.requests) == 6
    assert "6 answers reused from job 1 and not asked again (--fresh asks anew)" in done.out
    assert cli.rows("SELECT count(*), min(reused_from), max(reused_from) FROM answers WHERE job_id = 2") == [(6, 1, 1)]
    assert "6 answers of earlier jobs" in (await cli.run("status", "2")).out


async def test_a_submit_that_was_interrupted_is_gone_on_with_by_the_same_submit(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        submit = ("submit", str(cli.papers(4)), "--prompt", "What?")
        server.behave(GOOD, HANGS)
        working = await cli.start(*submit)
        await server.until(lambda: len(server.requests) == 2, seconds=20)
        working.kill()
        await working.wait()
        await cli.run("pause", "1")
        done = await cli.run(*submit)
        assert done.code == 0
        assert "job 1 asks exactly this and has not ended: going on with it" in done.err
        assert len(server.requests) == 5
    assert cli.rows("SELECT state, done FROM job_progress") == [("completed", 4)]
    done = await cli.run(*submit)
    assert "4 answers reused from job 1" in done.out


async def test_only_what_changed_is_asked(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        await cli.run("submit", str(cli.papers(2)), "--prompt", "What?", "--prompt", "How?")
        server.requests.clear()
        await cli.run("submit", str(cli.papers(4)), "--prompt", "What?", "--prompt", "Why?")
        cells = {("2", "What?"), ("3", "What?"), *((paper, "Why?") for paper in "0123")}
        assert asked(server) == cells
        assert len(server.requests) == 6
    assert cli.rows("SELECT count(*), count(reused_from) FROM answers WHERE job_id = 2") == [(8, 2)]


async def test_another_model_and_a_fresh_job_are_asked_everything(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        submit = ("submit", str(cli.papers(2)), "--prompt", "What?")
        await cli.run(*submit)
        await cli.run(*submit, "--fresh")
        assert len(server.requests) == 4
    async with FakeServer(model="another") as server:
        cli.use(server)
        await cli.run(*submit)
        assert len(server.requests) == 2


async def test_what_would_be_asked_is_told_without_a_database(cli: Cli) -> None:
    async with FakeServer(answer=lambda _: "many words " * 10) as server:
        cli.use(server)
        submit = ("submit", str(cli.papers(2)), "--prompt", "What?", "--prompt", "How?")
        cli.write("papers/broken.pdf", "no pdf")
        done = await cli.run(*submit, "--dry-run")
        assert done.code == 0
        assert "4 prompts about 2 files" in done.out
        assert "2 texts to read, about " in done.out
        assert "not read: broken.pdf: " in done.out
        assert not cli.database.exists()
        (cli.folder / "papers/broken.pdf").unlink()
        await cli.run(*submit)
        facts = json.loads((await cli.run(*submit, "--prompt", "Why?", "--dry-run", "--json")).out)
        assert len(server.requests) == 4
    assert (facts["prompts"], facts["reused"], facts["documents_to_read"]) == (6, 4, 2)
    assert facts["seconds"] is not None
    assert cli.rows("SELECT count(*) FROM jobs") == [(1,)]


async def test_a_job_that_is_only_stored_tells_programs_its_number(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer() as server:
        cli.use(server)
        done = await cli.run("submit", "papers", "--prompt", "What?", "--detach", "--json")
        assert (done.code, json.loads(done.out)) == (0, {"job_id": 1})
        assert not server.requests


async def test_a_job_file_says_all_that_the_command_line_leaves_open(cli: Cli) -> None:
    cli.papers(2)
    job = {"paths": ["../papers"], "prompts": ["What?"], "name": "nightly", "max_tokens": 7, "priority": 3}
    file = cli.write("jobs/nightly.json", json.dumps(job))
    async with FakeServer() as server:
        cli.use(server)
        assert (await cli.run("submit", "--job", str(file), "--max-tokens", "9")).code == 0
        assert [seen.body["max_tokens"] for seen in server.requests] == [9, 9]
    assert cli.rows("SELECT name, priority FROM jobs") == [("nightly", 3)]


async def test_a_job_file_that_makes_no_sense_is_one_line(cli: Cli) -> None:
    for text, fault in (
        ('{"paths": ["x"], "preset": "summary", "promts": []}', "promts: unknown key; did you mean 'prompts'?"),
        ('{"paths": ["x"]}', "give either `preset` or `prompts`"),
        ('{"paths": [], "preset": "summary"}', "paths: "),
        ('{"paths": ["x"], "preset": "summary", "priority": 9999999999999999999}', "priority: input should be less"),
        ("{", "line 1, column 2"),
    ):
        file = cli.write("job.json", text)
        done = await cli.run("submit", "--job", str(file))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"{file}: {fault}" in done.err


async def test_an_answer_that_was_cut_is_asked_again_with_more_room(cli: Cli) -> None:
    async with FakeServer() as server:
        cli.use(server)
        server.behave(CUT)
        submit = ("submit", str(cli.papers(2)), "--prompt", "What?", "--max-tokens", "40")
        assert "1 answer cut at the token limit" in (await cli.run(*submit)).out
        done = await cli.run("retry", "1", "--truncated")
        assert done.out == "1 prompt of job 1 waits to be asked again; run: distllm resume 1\n"
        assert (await cli.run("resume")).code == 0
        assert server.requests[-1].body["max_tokens"] == 80
        done = await cli.run("retry", "1", "--truncated")
        assert done.out == "Job 1 has no answers that were cut at their token limit.\n"
    assert cli.rows("SELECT attempts, finish_reason FROM answers ORDER BY attempts") == [(1, "stop"), (2, "stop")]
