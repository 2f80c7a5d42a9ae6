"""A check finds what is wrong with a database, and a repair mends what can be mended."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from distllm.store import checkup
from distllm.store.checkup import Finding, Level, check, sqlite_finding
from distllm.store.locks import coordinator_lock
from distllm.store.repair import Repaired, repair
from tests.store.store_kit import NOW, SqliteStore, add_job, assert_consistent, end, open_sqlite, split


@pytest.fixture
def used(path: Path) -> Iterator[SqliteStore]:
    """A database in use: an answer, one that was cut, a failure, parts, and two prompts that nobody asked yet."""
    with closing(open_sqlite(path)) as store:
        me, worker = store.coordinator(), store.worker("w")
        add_job(store, ["one", "the second", "the third paper"], ["findings", "limits"])
        first = store.must_take(me, worker, limit=2)
        for lease, reason in zip(first.leases, ("stop", "length"), strict=True):
            store.settle(end(store.send(me, worker, lease), finish_reason=reason))
        second = store.must_take(me, worker, limit=1, reading=None)
        [waiting] = store.rows("SELECT max(id) FROM prompts WHERE state = 'pending'")
        split(store, waiting[0], 2)
        store.send(me, worker, second.leases[0])
        yield store


def faults(path: Path) -> dict[str, str]:
    return {each.about: each.text for each in check(path) if each.level is Level.FAULT}


def mend(store: SqliteStore) -> Repaired:
    return store.write(lambda tx: repair(tx, NOW))


def test_a_sound_database_has_no_fault(path: Path) -> None:
    findings = list(check(path))
    assert [each.about for each in findings if each.level is Level.FAULT] == []
    assert {"disk", "SQLite", "schema", "structure", "counters", "prompts", "leases"} <= {
        each.about for each in findings
    }


def test_leases_are_fine_while_their_coordinator_lives(used: SqliteStore) -> None:
    with coordinator_lock(used.path):
        assert faults(used.path) == {}
    left = faults(used.path)
    assert list(left) == ["leases"]
    assert "1 prompts are leased and 1 attempts open" in left["leases"]


def test_a_repair_gives_leases_back_and_changes_no_counter(used: SqliteStore) -> None:
    before = used.rows("SELECT * FROM job_progress")
    assert mend(used) == Repaired(leases=1, attempts=1, waiting=0, reopened=0, ended=0)
    after = used.rows("SELECT * FROM job_progress")
    assert after != before
    assert used.value("SELECT leased FROM job_progress") == 0
    assert faults(used.path) == {}
    assert_consistent(used)
    assert mend(used) == Repaired(leases=0, attempts=0, waiting=0, reopened=0, ended=0)
    assert used.rows("SELECT * FROM job_progress") == after


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("done", "done 9, in truth 2"),
        ("pending", "pending 9, in truth 4"),
        ("prompt_tokens", "prompt_tokens 9, in truth 1000"),
        ("cached_tokens", "cached_tokens 9, in truth 800"),
        ("completion_tokens", "completion_tokens 9, in truth 14"),
        ("truncated", "truncated 9, in truth 1"),
        ("unproven", "unproven 9, in truth 0"),
        ("reused", "reused 9, in truth 0"),
    ],
)
def test_a_counter_that_is_off_is_named_and_counted_anew(used: SqliteStore, column: str, said: str) -> None:
    mend(used)
    right = used.rows("SELECT * FROM job_counters ORDER BY part")
    used.rows(f"UPDATE job_counters SET {column} = 9 WHERE part = 0")
    assert said in faults(used.path)["counters"]
    mend(used)
    assert used.rows("SELECT * FROM job_counters ORDER BY part") == right
    assert faults(used.path) == {}


def test_counters_that_are_gone_are_made_again(used: SqliteStore) -> None:
    used.rows("DELETE FROM job_counters")
    assert "counters" in faults(used.path)
    mend(used)
    assert faults(used.path) == {}
    assert_consistent(used)


def test_a_job_that_ended_too_early_goes_on_and_one_too_late_ends(used: SqliteStore) -> None:
    empty = add_job(used, [])
    used.rows("UPDATE jobs SET finished_at = ? WHERE id = 1", NOW)
    used.rows("UPDATE jobs SET finished_at = NULL WHERE id = ?", empty)
    assert f"jobs 1, {empty} ended too early or too late" in faults(used.path)["jobs"]
    done = mend(used)
    assert (done.reopened, done.ended) == (1, 1)
    assert faults(used.path) == {}


def test_an_attempt_that_a_dead_coordinator_left_open_is_found_and_ended(used: SqliteStore) -> None:
    mend(used)
    used.rows("UPDATE attempts SET outcome = NULL, finished_at = NULL WHERE outcome = 'lost'")
    assert "0 prompts are leased and 1 attempts open" in faults(used.path)["leases"]
    assert mend(used) == Repaired(leases=0, attempts=1, waiting=0, reopened=0, ended=0)
    assert faults(used.path) == {}
    assert used.value("SELECT count(*) FROM attempts WHERE outcome = 'lost'") == 1


@pytest.mark.parametrize("waits_for", [0, 1, 7])
def test_a_prompt_that_waits_for_the_wrong_number_of_parts_is_named_and_set_right(
    used: SqliteStore, waits_for: int
) -> None:
    mend(used)
    [(parent,)] = used.rows("SELECT id FROM prompts WHERE waits_for = 2")
    used.rows("UPDATE prompts SET waits_for = ? WHERE id = ?", waits_for, parent)
    assert f"prompt {parent} waits for another number of parts" in faults(used.path)["parts"]
    assert mend(used).waiting == 1
    assert used.prompt(parent, "waits_for") == (2,)
    assert faults(used.path) == {}


def test_a_prompt_without_parts_that_waits_for_some_is_asked_again(used: SqliteStore) -> None:
    mend(used)
    used.rows("UPDATE prompts SET waits_for = 7 WHERE state = 'pending' AND parent_id IS NULL AND waits_for = 0")
    assert mend(used).waiting > 0
    assert used.take(used.coordinator(), used.worker("w"), now=NOW + 99) is not None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM results WHERE prompt_id = (SELECT min(prompt_id) FROM results)", "done without a result"),
        ("UPDATE results SET reused_from = 1", "both a source and an attempt"),
        ("UPDATE attempts SET outcome = 'stale' WHERE outcome = 'done'", "were not given by their attempt"),
    ],
)
def test_a_broken_promise_is_named_with_the_prompts(used: SqliteStore, damage: str, said: str) -> None:
    used.rows(damage)
    assert said in faults(used.path)["prompts"]


def test_a_row_that_points_nowhere_is_found(used: SqliteStore) -> None:
    used.rows("PRAGMA foreign_keys=OFF")
    used.rows("DELETE FROM templates")
    assert "prompts to templates" in faults(used.path)["references"]


def test_a_damaged_file_is_one_fault_with_the_remedy(used: SqliteStore) -> None:
    page = used.value("SELECT rootpage FROM sqlite_master WHERE name = 'ix_attempts_prompt_id'")
    used.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    used.connection.close()
    with used.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xaa" * 4096)
    found = faults(used.path)
    assert list(found) == ["structure"]
    assert "db backup" in found["structure"]


def test_an_older_schema_is_a_fault_that_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert list(check(path))[-1] == Finding(Level.FAULT, "schema", faults(path)["schema"])
    assert "distllm db upgrade" in faults(path)["schema"]
    assert path.stat().st_size == 0


def test_a_long_log_is_told_of(used: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    size = {each.about: each for each in check(used.path)}["size"]
    assert size.level is Level.FINE
    monkeypatch.setattr(checkup, "LONG_WAL_BYTES", 1_000)
    size = {each.about: each for each in check(used.path)}["size"]
    assert size.level is Level.NOTE
    assert "write-ahead log; a program that reads for long keeps it from being emptied: close it" in size.text


def test_a_version_of_sqlite_that_can_damage_a_file_is_told_of(path: Path) -> None:
    bad = sqlite_finding(path, (3, 46, 1))
    assert bad.level is Level.NOTE
    assert "3.46.1 can damage a file that two programs write at once" in bad.text
    assert sqlite_finding(path, (3, 51, 3)) == Finding(Level.FINE, "SQLite", "3.51.3")
