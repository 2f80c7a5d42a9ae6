"""Tables that fit where they are printed."""

import shlex
from pathlib import Path

from rich.cells import cell_len

from tests.cli.conftest import DISTLLM, Cli
from tests.cli.terminal import on_terminal, plain
from tests.cli.test_watching import many_jobs
from tests.fakes.server import FakeServer


async def lines_of(cli: Cli, *arguments: str, columns: int, program: Path | str = DISTLLM) -> list[str]:
    """What a command prints on a terminal of that width."""
    async with on_terminal(cli, *arguments, columns=columns, program=program) as terminal:
        assert await terminal.process.wait() == 0
        await terminal.end()
    return plain(terminal.text).splitlines()


async def test_the_jobs_fit_a_narrow_terminal_with_whole_numbers_and_states(cli: Cli) -> None:
    many_jobs(cli, 5)
    for columns, there in ((80, "model"), (60, "answered")):
        lines = await lines_of(cli, "status", columns=columns)
        assert max(map(cell_len, lines)) <= columns
        assert there in lines[1]
        assert sum(" completed │" in line for line in lines) == 3
        assert sum(" 1/1 │" in line for line in lines) == 3


async def test_rows_too_wide_for_a_table_are_printed_column_below_column(cli: Cli) -> None:
    many_jobs(cli, 2)
    lines = await lines_of(cli, "query", "select * from job_progress", columns=60)
    assert max(map(cell_len, lines)) <= 60
    assert [line.split()[:2] for line in lines if line.startswith("row")] == [["row", "1"], ["row", "2"]]
    assert ["state", "completed"] in [line.split() for line in lines]
    narrow = await lines_of(cli, "query", "select job_id, state from job_progress", columns=60)
    assert any(line.split("│")[1:3] == [" 1      ", " completed "] for line in narrow)


async def test_what_is_said_in_lines_breaks_no_word_on_a_narrow_terminal(cli: Cli) -> None:
    cli.papers(1)
    async with FakeServer(seconds_per_token=0.2) as server:
        cli.use(server)
        said = await lines_of(cli, "submit", "papers", "--prompt", "What?", columns=40)
        told = await lines_of(cli, "workers", "check", columns=40)
    assert max(map(cell_len, said + told)) <= 40
    assert "  1 of 1 prompt about 1 document" in said
    assert any(line.startswith("    answered, in ") for line in said)
    facts = (await cli.run("status", "1")).out.partition("┏")[0].split()
    narrow = "\n".join(await lines_of(cli, "status", "1", columns=40)).partition("┏")[0]
    assert max(map(cell_len, narrow.splitlines())) <= 40
    assert narrow.split() == facts


async def test_a_table_that_goes_through_a_pager_is_as_wide_as_the_terminal(cli: Cli) -> None:
    many_jobs(cli, 2)
    asked = [str(DISTLLM), "query", "select job, job as again, job as more from job_progress"]
    drawn = await lines_of(cli, "-c", f"{shlex.join(asked)} | cat", columns=50, program="sh")
    assert drawn
    assert max(map(cell_len, drawn)) <= 50


async def test_a_reader_that_leaves_is_no_failure(cli: Cli) -> None:
    many_jobs(cli, 2)
    for looking in (["results", "1"], ["status"], ["query", "select * from jobs"]):
        line = f"{shlex.join([str(DISTLLM), *looking])}; echo it was $? >&2"
        async with on_terminal(cli, "-c", f"( {line} ) | true", program="sh") as terminal:
            await terminal.until("it was ")
            await terminal.end()
        assert plain(terminal.text).strip() == "it was 0", looking
