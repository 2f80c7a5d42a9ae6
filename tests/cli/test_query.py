"""`distllm query`: what it prints can be read by what it is meant for, and Ctrl-C ends it at once."""

import asyncio
import base64
import csv
import io
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from distllm.cli.app import run
from distllm.store.migrate import upgrade
from tests.cli.conftest import Cli, Done

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select {} from n"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database."""
    path = tmp_path_factory.mktemp("query") / "new.db"
    upgrade(path)
    return path


def query(path: Path, *arguments: str, capfd: pytest.CaptureFixture[str]) -> Done:
    """Run the command in this process."""
    code = run(["--db", str(path), "query", *arguments])
    out, err = capfd.readouterr()
    return Done(code, out, err)


def test_json_is_valid_whatever_the_values(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sql = "select 1 a, 2 a, null b, x'00ff' c, 9e999 d, -9e999 e, 'line\n\"\u2028' f, 0.1 g, 9223372036854775807 h"
    done = query(empty, "--json", sql, capfd=capfd)
    [row] = json.loads(done.out, parse_constant=pytest.fail)
    assert row == {
        "a": 1,
        "a_2": 2,
        "b": None,
        "c": {"$base64": True, "encoded": base64.b64encode(b"\0\xff").decode()},
        "d": float("inf"),
        "e": float("-inf"),
        "f": 'line\n"\u2028',
        "g": 0.1,
        "h": 2**63 - 1,
    }


@pytest.mark.parametrize("count", [0, 1, 200, 201, 1000])
def test_json_is_one_array_over_all_pages(empty: Path, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    sql = f"select * from (select value from json_each(?) limit {count})".replace("?", f"'{list(range(1000))}'")
    done = query(empty, "--format", "json", sql, capfd=capfd)
    assert json.loads(done.out) == [{"value": number} for number in range(count)]


def test_csv_is_for_spreadsheets(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(empty, "--format", "csv", "select '=1+1' a, x'00ff' b, null c, 'x\ny' d, -5 e", capfd=capfd)
    assert list(csv.reader(io.StringIO(done.out, newline=""))) == [
        ["a", "b", "c", "d", "e"],
        ["'=1+1", "x'00ff'", "", "x\ny", "-5"],
    ]


def test_a_cell_of_megabytes_does_not_break_the_table(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(empty, "select replace(hex(zeroblob(1500000)), '0', 'x') a, zeroblob(5000) b", capfd=capfd)
    assert done.code == 0
    assert len(done.out) < 20_000
    assert "3,000,000 characters" in "".join(done.out.replace("│", "").split("\n")).replace("  ", "")
    assert "(5,000 bytes)" in done.out


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (["--format", "json", "--limit", "3"], 3),
        (["--format", "json"], 1_200),
        (["--format", "csv", "--limit", "250"], 251),
    ],
)
def test_rows_are_limited_and_it_is_said(
    empty: Path, arguments: list[str], rows: int, capfd: pytest.CaptureFixture[str]
) -> None:
    done = query(empty, *arguments, ENDLESS.format("i") + " limit 1200", capfd=capfd)
    assert done.code == 0
    got: list[Any] = json.loads(done.out) if "json" in arguments else done.out.splitlines()
    assert len(got) == rows
    assert ("--limit" in done.err) == ("--limit" in arguments)


def test_a_limit_that_is_just_enough_is_not_mentioned(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for count in (3, 200):
        done = query(empty, "--json", "--limit", str(count), f"{ENDLESS.format('i')} limit {count}", capfd=capfd)
        assert (len(json.loads(done.out)), done.err) == (count, "")


def test_a_table_shows_a_thousand_rows(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(empty, ENDLESS.format("i"), capfd=capfd)
    assert "only the first 1,000 rows are shown; --limit N shows more" in done.err
    assert "1000" in done.out
    assert "1001" not in done.out


def test_names_of_columns_are_not_obeyed_by_a_terminal(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(empty, 'select 1 as "\x1b[2Jname"', capfd=capfd)
    assert "[2Jname" in done.out
    assert "\x1b" not in done.out


def test_a_query_without_end_is_one_line(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = query(empty, "--timeout", "0.2", ENDLESS.format("sum(i)"), capfd=capfd)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("distllm: the query was stopped after 0.2 s: ")
    assert done.err.count("\n") == 1


def test_a_query_may_have_all_the_time_there_is(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert json.loads(query(empty, "--json", "--timeout", "inf", "select 1 a", capfd=capfd).out) == [{"a": 1}]


async def test_what_cannot_be_interrupted_is_left_behind(cli: Cli, empty: Path) -> None:
    """One call of a function takes as long as it takes: the command ends nevertheless."""
    shutil.copy(empty, cli.database)
    slow = "select length(replace(replace(hex(zeroblob(15000000)), '0', 'ab'), 'b', 'c'))"
    hopeless = f"select {' || '.join([slow.removeprefix('select ')] * 40)}"
    began = time.monotonic()
    done = await cli.run("query", "--timeout", "0.2", hopeless, seconds=30)
    assert done.code == 1
    assert "stopped after 0.2 s" in done.err
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("how", ["csv", "table"])
async def test_ctrl_c_ends_a_query_at_once(cli: Cli, empty: Path, how: str) -> None:
    shutil.copy(empty, cli.database)
    process = await cli.start("query", "--format", how, f"{ENDLESS.format('i')} where i < 300 or i > 1e15")
    assert process.stdout is not None
    if how == "csv":
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"i\r\n"
    else:
        await cli.until(lambda: (cli.folder / "distllm.db-shm").exists())
    process.send_signal(signal.SIGINT)
    done = await cli.finish(process, 10)
    assert done.code == 130
    assert done.err.count("\n") == 1
    assert "interrupted" in done.err


async def test_a_reader_that_goes_away_ends_it_quietly(cli: Cli, empty: Path) -> None:
    shutil.copy(empty, cli.database)
    process = await cli.start("query", "--format", "csv", ENDLESS.format("i"))
    assert process.stdout is not None
    assert await process.stdout.readline() == b"i\r\n"
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `head -1` does
    assert process.stderr is not None
    async with asyncio.timeout(30):
        assert await process.stderr.read() == b""
        assert await process.wait() == 0
