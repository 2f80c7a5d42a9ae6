"""`distllm export`, as a person runs it: into files and pipes, with mistakes, and interrupted."""

import asyncio
import csv
import json
import os
import pty
import signal
import sqlite3
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import closing
from pathlib import Path

import pytest

from distllm.cli.app import run
from distllm.domain.models import ErrorClass
from distllm.store.submissions import create_job
from tests.cli.conftest import DISTLLM, Cli, Done
from tests.export.export_kit import answer
from tests.store.store_kit import NOW, SqliteStore, add_job, paper, request, save_all

OLD = b"what was there before"


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    """A new database file."""
    return sqlite_store


@pytest.fixture
def small(store: SqliteStore) -> Path:
    """Two papers and one that cannot be read; two answers, one failure, one in flight."""
    add_job(store, ["one", "two", paper("", data=b"scan", problem="no text")], ["findings", "limits"])
    answer(
        store,
        {
            ("0.txt", "findings"): "- twelve rooms",
            ("0.txt", "limits"): ErrorClass.INPUT,
            ("1.txt", "limits"): "x" * 40_000 + "\x1b[2J",
        },
    )
    return store.path


def export(path: Path, *arguments: str, capfd: pytest.CaptureFixture[str]) -> Done:
    """Run the command in this process."""
    code = run(["--db", str(path), "export", *arguments])
    out, err = capfd.readouterr()
    return Done(code, out, err)


def one_line(done: Done) -> str:
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("distllm: ")
    return done.err


def test_to_a_file_whose_name_says_the_format(small: Path, in_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = export(small, "1", "--wide", "-o", "answers.csv", capfd=capfd)
    assert done.code == 0
    assert done.out == "2 answers of job 1 written to answers.csv\n"
    with Path("answers.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["document"] for row in rows] == ["0.txt", "1.txt", "2.txt"]
    assert done.err.splitlines() == [
        "1 answer still missing: job 1 is running",
        '1 prompt failed: distllm query "select * from failures where job_id = 1"',
        "1 file could not be read: distllm status 1",
        "1 cell longer than the 32,767 characters that Excel keeps: --format jsonl or html for all of it elsewhere",
    ]
    assert [each.name for each in in_folder.iterdir()] == ["answers.csv"]


@pytest.mark.parametrize("output", [[], ["-o", "-"]])
def test_to_standard_output(small: Path, output: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    done = export(small, "1", "--format", "jsonl", *output, capfd=capfd)
    assert done.code == 0
    assert [json.loads(line)["document"] for line in done.out.splitlines()] == ["0.txt", "1.txt"]
    assert "1 answer still missing" in done.err


def test_a_report_says_itself_what_failed(small: Path, in_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = export(small, "1", "-o", "report.html", capfd=capfd)
    assert "1 prompt failed: listed at the end" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["7", "--format", "csv"], ["there is no job 7", "distllm status"]),
        (["1"], ["--format", "jsonl, csv, markdown, html, parquet"]),
        (["1", "-o", "answers.xlsx"], ["'answers.xlsx' does not say a format", "--format"]),
        (["1", "--format", "xml"], ["xml", "--help"]),
        (["1", "--format", "csv", "-o", "."], ["is a folder"]),
        (["1", "-o", "none/a.csv"], ["none does not exist"]),
        (["1", "-o", "../d.db", "--format", "csv"], ["belongs to the database"]),
        (["1", "-o", "../d.db-wal", "--format", "csv"], ["belongs to the database"]),
        (["one", "--format", "csv"], ["JOB", "--help"]),
    ],
)
def test_a_mistake_is_one_line(
    small: Path, in_folder: Path, arguments: list[str], words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = small.read_bytes()
    done = export(small, *arguments, capfd=capfd)
    assert done.code == 2
    assert all(word in one_line(done) for word in words), done.err
    assert small.read_bytes() == before
    assert list(in_folder.iterdir()) == []


def test_a_job_that_is_still_being_built(store: SqliteStore, capfd: pytest.CaptureFixture[str]) -> None:
    job_id = store.write(lambda tx: create_job(tx, request(["a.txt", "b.txt"]), NOW))
    save_all(store, job_id, [paper("one")])
    done = export(store.path, "1", "--format", "jsonl", "--wide", capfd=capfd)
    assert done.code == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["document"], row["note"]) for row in rows] == [("a.txt", "not asked yet"), ("b.txt", "not read yet")]
    assert done.err == "job 1 is still being built: files that are not read yet are missing\n"


def test_an_export_never_makes_a_database(in_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = export(Path("none.db"), "1", "--format", "csv", capfd=capfd)
    assert done.code == 1
    assert "distllm submit" in one_line(done)
    assert list(in_folder.iterdir()) == []


def test_parquet_without_pyarrow_names_the_command_that_adds_it(
    small: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Path("a.parquet").write_bytes(OLD)
    done = export(small, "1", "-o", "a.parquet", capfd=capfd)
    assert done.code == 1
    assert "uv sync --extra parquet" in one_line(done)
    assert Path("a.parquet").read_bytes() == OLD


async def on_a_terminal(*command: str | Path) -> tuple[int, str, str]:
    """Run a command whose standard output is a terminal: its code, what the terminal got, and stderr."""
    controller, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=terminal, stderr=PIPE)
    os.close(terminal)
    shown = bytearray()

    def read() -> None:
        # A terminal whose last user has gone is an error on Linux and an end on macOS.
        try:
            while data := os.read(controller, 4096):
                shown.extend(data)
        except OSError:
            pass

    async with asyncio.timeout(30):
        _, (_, err) = await asyncio.gather(asyncio.to_thread(read), process.communicate())
    os.close(controller)
    assert process.returncode is not None
    return process.returncode, shown.decode(), err.decode()


async def test_a_terminal_gets_no_parquet_and_no_words_that_it_would_obey(small: Path) -> None:
    command = (DISTLLM, "--db", small, "export", "1", "--format")
    code, shown, err = await on_a_terminal(*command, "parquet")
    assert (code, shown) == (2, "")
    assert "-o FILE" in err
    code, shown, _ = await on_a_terminal(*command, "csv")
    assert code == 0
    assert shown.startswith("job_id,job,document")
    assert "[2J" in shown
    assert "\x1b" not in shown


async def test_a_reader_that_goes_away_ends_it_quietly(cli: Cli, twenty_thousand: Path) -> None:
    process = await cli.start("--db", str(twenty_thousand), "export", "1", "--format", "jsonl")
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b'{"job_id": 1')
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `head -1` does
    assert process.stderr is not None
    async with asyncio.timeout(30):
        assert await process.stderr.read() == b""
        assert await process.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that Linux alone has")
async def test_a_full_disk_behind_standard_output_is_one_line(cli: Cli, small: Path) -> None:
    for command in ("export 1 --format jsonl", "query --format json 'select 1'"):
        shell = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"'{DISTLLM}' --db '{small}' {command} > /dev/full", stdout=PIPE, stderr=PIPE
        )
        done = await cli.finish(shell)
        assert done.code == 1
        assert "standard output could not be written: No space left on device" in one_line(done)


async def test_a_disk_that_is_full_leaves_the_old_file_whole(cli: Cli, twenty_thousand: Path) -> None:
    target = cli.folder / "a.jsonl"
    target.write_bytes(OLD)
    # 512 bytes a block: room for what SQLite keeps beside the database, not for the answers.
    command = f"ulimit -f 4096 && exec '{DISTLLM}' --db '{twenty_thousand}' export 1 -o '{target}'"
    shell = await asyncio.create_subprocess_exec("/bin/sh", "-c", command, stdout=PIPE, stderr=PIPE)
    done = await cli.finish(shell)
    assert done.code == 1
    assert "a.jsonl could not be written: File too large; nothing was changed" in one_line(done)
    assert target.read_bytes() == OLD
    assert list(cli.folder.glob(".*")) == []


async def stopped_in_the_middle(cli: Cli, database: Path, number: signal.Signals) -> Done:
    """Start an export over an old file, and send a signal once its new content is on its way."""
    (cli.folder / "a.html").write_bytes(OLD)
    # On a busy machine whoever sends the signal must come before it ends.
    slow = ("nice", "-n", "19", DISTLLM)
    process = await cli.start("--db", str(database), "export", "1", "-o", "a.html", program=slow)
    await cli.until(lambda: any(file.stat().st_size for file in cli.folder.glob(".distllm-*.part")))
    process.send_signal(number)
    return await cli.finish(process)


async def test_a_kill_leaves_the_old_file_whole(cli: Cli, twenty_thousand: Path) -> None:
    done = await stopped_in_the_middle(cli, twenty_thousand, signal.SIGKILL)
    assert done.code == -signal.SIGKILL
    assert (cli.folder / "a.html").read_bytes() == OLD
    [left] = cli.folder.glob(".distllm-*")
    done = await cli.run("--db", str(twenty_thousand), "export", "1", "--wide", "-o", "b.html")
    assert done.code == 0
    assert left.exists(), "it may be another program's that writes to a.html"
    done = await cli.run("--db", str(twenty_thousand), "export", "1", "-o", "a.html")
    assert done.code == 0
    assert (cli.folder / "a.html").read_bytes().endswith(b"</html>\n")
    assert list(cli.folder.glob(".distllm-*")) == []


async def test_standard_output_may_be_called_by_its_name(cli: Cli, small: Path) -> None:
    done = await cli.run("--db", str(small), "export", "1", "--format", "csv", "-o", "/dev/stdout")
    assert done.code == 0
    assert done.out.startswith("\ufeffjob_id,job,document")
    assert "written" not in done.out
    assert "2 answers of job 1 written to /dev/stdout" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_stop_leaves_the_old_file_and_no_other(cli: Cli, twenty_thousand: Path, number: signal.Signals) -> None:
    done = await stopped_in_the_middle(cli, twenty_thousand, number)
    assert done.code == 130
    assert done.err == "interrupted; a.html is as it was\n"
    assert (cli.folder / "a.html").read_bytes() == OLD
    assert list(cli.folder.glob(".*")) == []


async def test_a_run_that_goes_on_is_exported_as_far_as_it_is(cli: Cli, small: Path) -> None:
    with closing(sqlite3.connect(small, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE results SET answer = 'changed'")
        done = await cli.run("--db", str(small), "export", "1", "--format", "jsonl")
        writer.execute("ROLLBACK")
    assert done.code == 0
    assert "changed" not in done.out
    assert len(done.out.splitlines()) == 2


def test_its_help_has_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    assert "distllm export 1 --wide -o answers.csv" in capfd.readouterr().out
