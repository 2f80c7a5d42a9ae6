"""The benchmark of scale is not timed here, but it must measure what it says."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.exporting import export, store_answers
from benchmarks.figures import Figure, as_mb, as_ms, as_rate, at_least, megabytes_more, percentile, table, times
from benchmarks.large_job import submit, write_papers
from benchmarks.queue_turns import BATCH, SEATS, coordinating, writing_beside
from distllm.export.formats import Format


def test_a_large_job_is_worked_by_the_turn_of_a_coordinator(tmp_path: Path) -> None:
    papers, database = write_papers(tmp_path / "papers", 10), tmp_path / "job.db"
    stored = submit(database, papers, 20, "stub")
    assert min(stored) > 0
    with coordinating(database, "stub") as hand:
        turns = hand.turns(3)
    assert all(min(turn) > 0 for turn in turns)
    with closing(sqlite3.connect(database)) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM prompts GROUP BY state"))
        [seats] = connection.execute("SELECT count(DISTINCT reading_id) FROM prompts WHERE state = 'done'").fetchone()
    # What is leased in one turn is sent in the next, and answered in the one after.
    assert states == {"done": BATCH, "leased": 2 * BATCH, "pending": 200 - 3 * BATCH}
    assert seats == SEATS


def test_a_job_is_exported_while_another_is_worked(tmp_path: Path) -> None:
    database, target = tmp_path / "answers.db", tmp_path / "answers.jsonl"
    store_answers(database, 3, 2, "stub", others=10)
    with writing_beside(database, "stub", 0.0) as turns:
        export(database, Format.JSONL, target)
    assert len(target.read_bytes().splitlines()) == 6
    assert turns[0].log > 0


def test_a_goal_is_met_or_missed_by_the_largest_size_beside_the_smallest() -> None:
    kept = Figure("lease", (0.002, 0.005, 0.0024), as_ms, times(1.3))
    grown = Figure("memory", (80e6, 81e6, 112e6), as_mb, megabytes_more(30))
    slow = Figure("rate", (200_000.0, 99_000.0), as_rate, at_least(100_000, "100,000/s"))
    assert [each.missed for each in (kept, grown, slow)] == [False, True, True]
    assert kept.cells() == ["lease", "2.00 ms", "5.00 ms", "2.40 ms", "1.20", "≤ 1.3 x met"]
    assert table([1, 2, 3], [kept, grown]).splitlines()[-1].endswith("≤ + 30 MB MISSED")
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(range(1000)), 0.99) == 989


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--help", 0, "uv run"),
        ("--sizes 10050", 2, "multiples of the 100"),
        ("--sizes 0", 2, "at least 1"),
        ("--sizes 1000", 2, "more than the smallest size"),
        ("--only turn", 2, "no part is called turn"),
    ],
)
def test_it_explains_itself_and_refuses_what_cannot_be_measured(
    arguments: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        scale.main()
    assert ended.value.code == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
