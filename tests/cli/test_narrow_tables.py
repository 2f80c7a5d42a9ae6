"""Tables that fit where they are printed."""

from rich.cells import cell_len

from tests.cli.conftest import Cli
from tests.cli.terminal import on_terminal, plain
from tests.cli.test_watching import many_jobs


async def lines_of(cli: Cli, *arguments: str, columns: int) -> list[str]:
    """What a command prints on a terminal of that width."""
    async with on_terminal(cli, *arguments, columns=columns) as terminal:
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
