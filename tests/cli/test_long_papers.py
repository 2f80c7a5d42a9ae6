"""Papers that are too long for every window, by the real command: counted before, gone on with after a kill."""

import json
import signal
from asyncio.subprocess import Process
from collections import Counter

from tests.cli.conftest import Cli, Done
from tests.cli.here import Here, serving
from tests.dispatcher.long_papers import SENTENCES, WINDOW, long_paper, mark, marks_in, server
from tests.fakes.behaviour import HELD
from tests.fakes.server import FakeServer

ASKED = ("submit", "papers", "--max-tokens", "60", "--prompt", "What was measured?", "--prompt", "What was found?")


async def kill(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.communicate()


def readings_of(fake: FakeServer) -> Counter[tuple[str, str]]:
    """How often each question was asked about each part, or each merge was made."""
    return Counter((seen.system, seen.question) for seen in fake.requests)


def assert_answered(cli: Cli, done: Done) -> None:
    assert done.code == 0, done.err
    answers = cli.rows("SELECT answer, proof FROM answers WHERE document = 'long.txt'")
    assert len(answers) == 2
    for answer, proof in answers:
        said = marks_in(answer)
        assert (said[0], said[-1], proof) == (mark(0, 0), mark(0, SENTENCES - 1), "proven")
    assert cli.rows("SELECT state FROM job_progress") == [("completed",)]
    assert cli.rows("SELECT count(*) FROM prompts WHERE state <> 'done'") == [(0,)]


def test_a_dry_run_says_how_many_requests_there_will_be_and_the_next_submit_makes_none(here: Here) -> None:
    cli = here.files
    cli.write("papers/long.txt", long_paper())
    cli.write("papers/copy.txt", long_paper())
    cli.write("papers/short.txt", long_paper(1, 5))
    fake = server()
    with serving(fake):
        cli.use(fake)
        planned = here.run(*ASKED, "--dry-run", "--json")
        assert planned.code == 0, planned.err
        assert not fake.requests
        counts = json.loads(planned.out)
        done = here.run(*ASKED)
        assert done.code == 0, done.err
        asked = len(fake.requests)
        assert asked == counts["requests"] > 4
        assert counts["longest_prompt_tokens"] <= WINDOW
        parts = counts["parts"]
        assert (counts["split_documents"], parts + counts["merges"] + 4) == (1, asked)
        assert cli.rows("SELECT DISTINCT 2 * parts FROM answers ORDER BY parts") == [(2,), (parts,)]
        told = here.run("status", "1").out
        assert f"{parts + counts['merges']} of {parts + counts['merges']} answered, to be put together in" in told
        again = here.run(*ASKED)
        assert again.code == 0, again.err
        assert len(fake.requests) == asked
        assert "put together" not in here.run("status", "2").out
        assert json.loads(here.run(*ASKED, "--dry-run", "--json").out)["requests"] == 0


async def test_killed_between_the_parts_and_what_puts_them_together(cli: Cli) -> None:
    cli.write("papers/long.txt", long_paper())
    async with server() as fake:
        fake.behave_for("PART 1 OF", HELD)
        cli.use(fake)
        process = await cli.start(*ASKED)
        await fake.until(lambda: any("PART 1 OF" in seen.question for seen in fake.requests), 30)
        await cli.until(lambda: cli.rows("SELECT count(*) FROM prompts WHERE level = 0 AND state <> 'done'") == [(0,)])
        await kill(process)
        before = len(fake.requests)
        answered = cli.rows("SELECT prompt_id, answer FROM results ORDER BY prompt_id")
        fake.release()
        done = await cli.run("resume")
        assert_answered(cli, done)
        kept = dict(cli.rows("SELECT prompt_id, answer FROM results"))
        assert {prompt: kept[prompt] for prompt, _ in answered} == dict(answered)
        assert not [seen for seen in fake.requests[before:] if marks_in(seen.system)], "no part is read again"
        assert max(readings_of(fake).values()) == 2, "the merge that was in flight"


async def test_killed_while_papers_are_split_the_same_submit_goes_on_with_the_same_plan(cli: Cli) -> None:
    for number in range(20):
        cli.write(f"papers/{number}.txt", long_paper(number, 900))
    async with server(slots=8) as fake:
        cli.use(fake)
        planned = json.loads((await cli.run(*ASKED, "--dry-run", "--json")).out)
        process = await cli.start(*ASKED)
        await cli.until(lambda: cli.rows("SELECT count(*) FROM job_parts")[:1] not in ([], [(0,)]))
        await kill(process)
        assert cli.rows('SELECT submitted_at, "window" FROM jobs') == [(None, WINDOW)]
        # Whoever goes on need not find the same fleet.
        fake.context = 4 * WINDOW
        stored = await cli.run(*ASKED, "--detach")
        assert stored.code == 0, stored.err
    assert cli.rows("SELECT count(*) FROM jobs") == [(1,)]
    assert cli.rows("SELECT count(*) FROM prompts") == [(planned["requests"],)]
    assert cli.rows("SELECT count(*) FROM job_parts") == [(0,)]
