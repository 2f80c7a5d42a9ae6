"""What other programs make of it: pandas reads the Parquet, Datasette serves the database.

Needs the group `tables`: `uv run --group test --group tables pytest -m long tests/export`.
"""

import asyncio
import json
import socket
import sys
import urllib.request
from asyncio.subprocess import PIPE
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from distllm.domain.models import ErrorClass
from distllm.export.formats import Format, written
from distllm.export.parquet import GROUP_ROWS
from distllm.export.source import open_source
from distllm.export.target import save
from distllm.store.exports import ANSWER_COLUMNS
from distllm.store.reads import open_reader
from tests.cli.conftest import Cli
from tests.export.export_kit import answer, exported
from tests.store.store_kit import SqliteStore, add_job, paper

pytestmark = pytest.mark.long


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    """A new database file."""
    return sqlite_store


@pytest.fixture
def job(store: SqliteStore) -> int:
    """Two papers and one that cannot be read; two answers and two failures."""
    job_id = add_job(store, ["one", "two", paper("", data=b"scan", problem="no text")], ["findings", "limits"])
    said = "=1+1 \u2028 \x00 a thing"
    answer(
        store,
        {
            ("0.txt", "findings"): said,
            ("0.txt", "limits"): ErrorClass.INPUT,
            ("1.txt", "findings"): ErrorClass.INPUT,
            ("1.txt", "limits"): "Few rooms.",
        },
    )
    return job_id


async def test_pandas_reads_the_parquet_with_its_types(store: SqliteStore, job: int) -> None:
    import pandas

    frame = pandas.read_parquet(BytesIO(await exported(store.path, job, Format.PARQUET)))
    assert list(frame.columns) == list(ANSWER_COLUMNS)
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    for name in ("job_id", "attempts", "parts", "prompt_tokens", "completion_tokens"):
        assert types[name] == "int64", name
    assert types["seconds"] == "float64"
    assert types["finished_at"] == "datetime64[us, UTC]"
    assert types["answer"] == "str"
    assert list(frame["answer"]) == ["=1+1 \u2028 \x00 a thing", "Few rooms."]
    assert frame["finished_at"].iloc[0] == pandas.Timestamp("2027-01-15T08:00:03Z")
    assert frame["data"].isna().all()
    means = frame.groupby("prompt")["seconds"].mean()
    assert dict(means) == {"findings": 3.0, "limits": 3.0}


async def test_pandas_reads_the_wide_parquet_the_csv_and_the_jsonl(store: SqliteStore, job: int) -> None:
    import pandas

    wide = pandas.read_parquet(BytesIO(await exported(store.path, job, Format.PARQUET, wide=True)))
    assert list(wide.columns) == ["document", "title", "pages", "findings", "limits", "note"]
    assert list(wide["note"].notna()) == [True, True, True]
    assert list(wide["limits"].isna()) == [True, False, True]
    table = pandas.read_csv(BytesIO(await exported(store.path, job, Format.CSV)))
    assert list(table.columns) == list(ANSWER_COLUMNS)
    assert list(table["answer"].str[:2]) == ["'=", "Fe"]
    lines = pandas.read_json(BytesIO(await exported(store.path, job, Format.JSONL)), lines=True)
    assert list(lines["prompt_tokens"]) == [500, 500]


async def test_an_empty_job_is_a_table_without_rows(store: SqliteStore) -> None:
    import pandas

    job_id = add_job(store, ["one"], ["findings"])
    assert len(pandas.read_parquet(BytesIO(await exported(store.path, job_id, Format.PARQUET)))) == 0
    assert len(pandas.read_parquet(BytesIO(await exported(store.path, job_id, Format.PARQUET, wide=True)))) == 1


async def test_a_large_parquet_has_row_groups(twenty_thousand: Path, tmp_path: Path) -> None:
    from pyarrow.parquet import ParquetFile

    async with open_reader(twenty_thousand) as reader:
        await save(written(await open_source(reader, 1, False), Format.PARQUET, False), tmp_path / "a.parquet")
    with ParquetFile(tmp_path / "a.parquet") as file:
        assert file.metadata.num_rows == 20_000
        groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    assert groups == [GROUP_ROWS, GROUP_ROWS]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


async def test_datasette_serves_the_views_and_a_canned_query(store: SqliteStore, job: int, cli: Cli) -> None:
    about = {"sql": "select document, answer from answers where prompt = :prompt order by document"}
    cli.write("metadata.json", json.dumps({"databases": {"d": {"queries": {"by_question": about}}}}))
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).parent / "datasette", "serve", store.path, "--metadata", cli.folder / "metadata.json"),
        *("--host", "127.0.0.1", "--port", str(port), "--setting", "default_allow_sql", "on"),
        stdout=PIPE,
        stderr=PIPE,
    )
    cli.processes.append(server)
    assert server.stderr is not None
    async with asyncio.timeout(60):
        while b"running on" not in (line := await server.stderr.readline()):
            assert line, "datasette ended"
    base = f"http://127.0.0.1:{port}/d"
    views = await asyncio.to_thread(fetched, f"{base}.json")
    assert {view["name"] for view in views["views"]} >= {"answers", "failures", "job_progress", "worker_stats"}
    for view, rows in (("answers", 2), ("failures", 2), ("job_progress", 1), ("worker_stats", 1)):
        assert len(await asyncio.to_thread(fetched, f"{base}/{view}.json?_shape=array")) == rows, view
    found = await asyncio.to_thread(fetched, f"{base}/by_question.json?_shape=array&prompt=limits")
    assert found == [{"document": "1.txt", "answer": "Few rooms."}]
