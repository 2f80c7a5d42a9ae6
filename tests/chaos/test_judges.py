"""The judges notice what they are there for, and the edges are told by distllm's own statements."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from distllm.store.migrate import upgrade
from tests.chaos.broken import BrokenPromiseError
from tests.chaos.calls import HEDGED, Calls
from tests.chaos.checks import DONE_ONCE, EMPTY, NO_ANSWER_IS_LOST, Ledger, Snapshot
from tests.chaos.edges import BUILD, CLAIM, RECLAIM, SETTLE, sort_of
from tests.store.store_kit import SqliteStore, Store, add_job, end

KEY = "paper000001/What are its o"
ANSWER = f"{KEY}#1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "distllm.db"
    upgrade(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield SqliteStore(path, connection)


@pytest.fixture
def ledger(store: Store) -> Iterator[Ledger]:
    """A ledger that has seen one answer."""
    add_job(store, ["paper000001 is short"], ["one"])
    me, worker = store.coordinator(), store.worker("w")
    (lease,) = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, lease), answer=ANSWER))
    ledger = Ledger(store.path)
    snapshot = ledger.look()
    assert (snapshot.states, snapshot.leases, snapshot.new_answers) == ({KEY: "done"}, {KEY: 1}, [KEY])
    yield ledger
    ledger.close()


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        ("UPDATE results SET answer = 'another'", NO_ANSWER_IS_LOST),
        ("UPDATE prompts SET lease = lease + 1", "only the newest lease ends a prompt"),
        ("UPDATE prompts SET state = 'pending', finished_at = NULL", "the database agrees with itself"),
        ("UPDATE job_counters SET done = 2", "the database agrees with itself"),
        (
            "INSERT INTO attempts SELECT 7, prompt_id, lease, worker_id, coordinator_id, started_at, finished_at, "
            "0, 1, 1, 0, 1, 0, 0, outcome, NULL, NULL FROM attempts",
            DONE_ONCE,
        ),
    ],
)
def test_what_is_amiss_in_a_database_is_noticed(store: Store, ledger: Ledger, change: str, promise: str) -> None:
    store.connection.execute(change)
    with pytest.raises(BrokenPromiseError, match=promise):
        ledger.look()
    assert ledger.count(NO_ANSWER_IS_LOST) == (promise == NO_ANSWER_IS_LOST)
    assert ledger.count(DONE_ONCE) == (promise == DONE_ONCE)


def test_a_lease_of_a_dead_coordinator_is_noticed_once_another_one_works(store: Store) -> None:
    add_job(store, ["paper000001 is short"], ["one"])
    store.must_take(store.coordinator(), store.worker("w"))
    ledger = Ledger(store.path)
    assert ledger.look().states == {KEY: "leased"}
    store.coordinator()
    with pytest.raises(BrokenPromiseError, match="every lease has a live holder"):
        ledger.look()
    assert ledger.look(also_alive=1).states == {KEY: "leased"}
    ledger.close()


def test_another_prompts_answer_is_noticed(store: Store) -> None:
    add_job(store, ["paper000001 is short"], ["one"])
    me, worker = store.coordinator(), store.worker("w")
    (lease,) = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, lease), answer="paper000002/What are its o#1"))
    ledger = Ledger(store.path)
    with pytest.raises(BrokenPromiseError, match="an answer is its own prompt's"):
        ledger.look()
    ledger.close()


def test_there_is_nothing_to_say_before_there_is_a_database(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "none.db")
    assert ledger.look() == EMPTY
    ledger.close()
    assert not (tmp_path / "none.db").exists()


def seen(state: str, lease: int, *, at: float, answered: bool = False) -> Snapshot:
    return Snapshot(at, {"p/q": state}, {"p/q": lease}, ["p/q"] if answered else [], {}, 0, [], 1, 0)


def calls_of(folder: Path, *lines: str) -> Calls:
    log = folder / "calls.log"
    with log.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    calls = Calls(log)
    calls.refresh()
    return calls


def test_a_death_excuses_the_next_call_and_is_counted(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, "begin 1 p/q one a 10.0", "end 1 disconnected 11.0", "begin 2 p/q one b 12.0")
    calls.judge(seen("leased", 2, at=13.0))
    calls.bury("a", 11.0, seen("leased", 2, at=13.0), excused=False)
    assert (calls.total, calls.counts["again after a death"], calls.in_the_air) == (2, 1, 1)


def test_what_a_follower_has_had_answered_already_was_in_the_air_too(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, "begin 1 p/q one a 10.0", "end 1 disconnected 11.0", "begin 2 p/q one b 12.0")
    calls.bury("a", 11.0, seen("done", 2, at=13.0), excused=False)
    assert calls.in_the_air == 1


@pytest.mark.parametrize(
    ("lines", "lease", "promise"),
    [
        (["begin 1 p/q one a 10.0"], 0, "a lease is in the database before its prompt is sent"),
        (["begin 1 p/q one a 10.0", "end 1 answered 10.5", "begin 2 p/q one a 11.0"], 2, "nothing is done twice"),
    ],
)
def test_a_call_without_cause_is_noticed(tmp_path: Path, lines: list[str], lease: int, promise: str) -> None:
    with pytest.raises(BrokenPromiseError, match=promise):
        calls_of(tmp_path, *lines).judge(seen("leased", lease, at=20.0))


@pytest.mark.parametrize("how", ["spoilt", "disconnected"])
def test_a_call_that_came_to_nothing_excuses_the_next(tmp_path: Path, how: str) -> None:
    calls = calls_of(tmp_path, "begin 1 p/q one a 10.0", f"end 1 {how} 10.5", "begin 2 p/q one a 11.0")
    calls.judge(seen("leased", 2, at=20.0))
    assert (calls.counts["again"], calls.counts["again after a death"]) == (1, 0)


FIRST = "begin 1 p/q one a 10.0"
SECOND = "begin 2 p/q two a 15.0"


@pytest.mark.parametrize(
    "ends",
    [
        [],
        ["end 2 answered 17.0", "end 1 disconnected 17.0"],
        ["end 1 answered 17.0", "end 2 disconnected 17.0"],
        ["end 1 spoilt 17.0", "end 2 answered 18.0"],
        ["end 2 answered 15.1", "end 1 disconnected 15.1"],
    ],
)
def test_a_second_call_beside_the_first_is_a_hedge(tmp_path: Path, ends: list[str]) -> None:
    calls = calls_of(tmp_path, FIRST, SECOND, *ends)
    calls.judge(seen("leased", 1, at=20.0))
    assert (calls.counts["beside"], calls.counts["again"]) == (1, 0)


def test_after_both_have_failed_it_is_asked_and_hedged_again(tmp_path: Path) -> None:
    ends = ["end 1 spoilt 16.4", "end 2 spoilt 16.5"]
    again = ["begin 3 p/q one a 17.0", "begin 4 p/q two a 20.0"]
    calls = calls_of(tmp_path, FIRST, SECOND, *ends, *again)
    calls.judge(seen("leased", 2, at=30.0))
    assert (calls.counts["beside"], calls.counts["again"]) == (2, 1)


@pytest.mark.parametrize(
    ("lines", "promise"),
    [
        (["begin 2 p/q one a 15.0"], HEDGED),
        ([SECOND, "begin 3 p/q three a 16.0"], HEDGED),
        ([SECOND, "end 2 spoilt 16.0", "begin 3 p/q two a 16.5"], HEDGED),
        ([SECOND, "end 2 answered 16.0", "begin 3 p/q two a 16.5"], "nothing is done twice"),
        (["end 1 answered 14.0", SECOND], "nothing is done twice"),
        ([SECOND, "end 1 answered 16.0", "end 2 disconnected 16.0", "begin 3 p/q two a 17.0"], "nothing is done twice"),
    ],
)
def test_what_no_hedge_explains_is_noticed(tmp_path: Path, lines: list[str], promise: str) -> None:
    with pytest.raises(BrokenPromiseError, match=promise):
        calls_of(tmp_path, FIRST, *lines).judge(seen("leased", 1, at=20.0))


def test_a_call_for_what_is_answered_is_noticed(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, "begin 1 p/q one a 10.0", "end 1 answered 10.5")
    calls.judge(seen("done", 1, at=11.0, answered=True))
    with (tmp_path / "calls.log").open("a") as file:
        file.write("begin 2 p/q one b 12.0\n")
    calls.refresh()
    with pytest.raises(BrokenPromiseError, match="what is answered is not asked again"):
        calls.judge(seen("done", 2, at=13.0))


def test_an_answer_that_was_not_written_in_time_is_noticed(tmp_path: Path) -> None:
    calls = calls_of(tmp_path, "begin 1 p/q one a 10.0", "end 1 answered 10.5")
    calls.bury("a", 11.0, seen("leased", 1, at=20.0), excused=False)
    calls = calls_of(tmp_path)
    with pytest.raises(BrokenPromiseError, match="no answer is lost"):
        calls.bury("a", 19.0, seen("leased", 1, at=20.0), excused=False)


def test_transactions_are_told_by_distllms_own_statements(store: Store) -> None:
    told: list[str | None] = []
    store.connection.set_trace_callback(lambda statement: told.append(sort_of(statement)))

    def sorts() -> set[str]:
        found = {sort for sort in told if sort is not None}
        told.clear()
        return found

    add_job(store, ["paper000001 is short"], ["one"])
    assert sorts() == {"job", "document", BUILD}
    me, worker = store.coordinator(), store.worker("w")
    (lease,) = store.must_take(me, worker).leases
    assert sorts() == {CLAIM}
    heir = store.reclaim()
    assert sorts() == {RECLAIM}
    (lease,) = store.must_take(heir, worker).leases
    sent = store.send(heir, worker, lease)
    sorts()
    store.settle(end(sent))
    assert sorts() == {SETTLE}
