"""Any order of claims, answers, deaths, parts, pauses, cancels, retries and prunes, against a model of a few lines.

Two coordinators at most are live at once, as if no lock kept the second from working.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from distllm.domain.models import Ask, ErrorClass
from distllm.domain.policy import BACKOFF_SECONDS, DEATHS_TO_CONDEMN, LOSSES_TO_SUSPECT, Again, Failed, Lost
from distllm.domain.states import FINAL, MOVES
from distllm.store.attempts import Sent, Settlement
from distllm.store.control import (
    Room,
    cancel_some,
    go_on,
    pause,
    request_cancel,
    retry_some,
    retry_truncated,
    unfinished_cancels,
)
from distllm.store.leases import Lease, release, release_strangers
from distllm.store.removal import remove_some
from distllm.store.suspects import claim_suspect, next_suspect
from distllm.store.sweeps import OLD_ATTEMPTS, sweep_some
from tests.postgres_server import PostgresServer
from tests.store.store_kit import (
    MAX_TOKENS,
    MODEL,
    NOW,
    PostgresStore,
    Store,
    add_job,
    assert_agrees,
    assert_consistent,
    end,
    open_sqlite,
    split,
)

Fresh = Callable[[], AbstractContextManager[Store]]
"""Opens a new database."""

PAPERS = ["x" * length for length in (5, 50, 500)]
# Choices that are listed more than once are made more often.
WINDOWS = (120, 170, 9999, 9999, 9999, 9999)
CLAIM: dict[str, Any] = {
    "who": st.integers(0, 1),
    "place": st.integers(0, 1),
    "window": st.sampled_from(WINDOWS),
    "limit": st.integers(1, 3),
    "patience": st.sampled_from([0.0, 0.0, 30.0]),
    "shared": st.booleans(),
    "wait": st.sampled_from([0.0, 0.5, 40.0]),
}
WISHES = [*["retry"] * 4, *["more"] * 4, "pause", "go on", "go on", "cancel"]
FAILURES = [kind for kind in ErrorClass if kind not in (ErrorClass.SETUP, ErrorClass.REFUSED)]
LEGAL = {(move.source, move.target) for move in MOVES} | {(state, state) for state in (*FINAL, "pending", "leased")}


@dataclass
class Prompt:
    """What the model knows of a prompt."""

    job: int
    reading: int
    question: str
    needs: int
    state: str = "pending"
    lease: int = 0
    holder: int | None = None
    worker: int | None = None
    failures: int = 0
    losses: int = 0
    deaths: int = 0
    parent: int | None = None
    level: int = 0
    part: int | None = None
    parts: int | None = None
    made_of: int | None = None
    waits: int = 0
    in_flight: set[int] = field(default_factory=set)
    met: set[ErrorClass] = field(default_factory=set)
    available: float = 0.0
    answer: str | None = None
    cut: bool = False
    room: int = MAX_TOKENS
    refused: set[int] = field(default_factory=set)

    @property
    def suspect(self) -> bool:
        return self.losses >= LOSSES_TO_SUSPECT


class Coordinators(RuleBasedStateMachine):
    """What the dead coordinators had in flight may still be reported."""

    fresh: Fresh
    sent = Bundle("sent")
    ended = Bundle("ended")
    given = Bundle("given")

    def __init__(self) -> None:
        super().__init__()
        self.opened = ExitStack()
        self.store = self.opened.enter_context(type(self).fresh())
        self.prompts: dict[int, Prompt] = {}
        self.newest: dict[int, Lease] = {}
        self.live: list[int] = []
        self.dead: list[int] = []
        self.paused: set[int] = set()
        self.cancelled: set[int] = set()
        self.now = NOW
        self.answers = 0
        self.before: dict[int, str] = {}

    @initialize(
        losses=st.sampled_from([0, LOSSES_TO_SUSPECT - 1, LOSSES_TO_SUSPECT]),
        deaths=st.integers(DEATHS_TO_CONDEMN - 2, DEATHS_TO_CONDEMN - 1),
        whole=st.booleans(),
    )
    def begin(self, losses: int, deaths: int, whole: bool) -> None:
        self.live = [self.store.reclaim()]
        self.workers = [self.store.worker("here"), self.store.worker("there")]
        self.new_job(PAPERS[1:2], 2, 0, fresh=False)
        # What takes many steps to come to has happened already.
        if not whole:
            self.split(1, 1)
        first = max(self.prompts)
        each = self.prompts[first]
        each.losses, each.deaths = losses, deaths if losses >= LOSSES_TO_SUSPECT else 0
        self.store.rows("UPDATE prompts SET losses = ?, deaths_alone = ? WHERE id = ?", each.losses, each.deaths, first)

    def a_second_one_joins(self) -> None:
        if len(self.live) == 1:
            self.live.append(self.store.coordinator(self.now))

    def one(self, place: int) -> int:
        return self.live[place % len(self.live)]

    @precondition(lambda self: len(self.prompts) < 4)
    @rule(
        papers=st.lists(st.sampled_from(PAPERS), min_size=1, max_size=3),
        questions=st.integers(1, 2),
        priority=st.integers(0, 1),
        fresh=st.booleans(),
    )
    def new_job(self, papers: list[str], questions: int, priority: int, *, fresh: bool) -> None:
        known = {
            (each.reading, each.question): (each.answer, each.made_of)
            for _, each in sorted(self.prompts.items())
            if each.state == "done" and not each.cut and each.parent is None
        }
        job = add_job(self.store, papers, ["findings", "limits"][:questions], priority=priority, fresh=fresh)
        for prompt, reading, question, needs in self.store.rows(
            "SELECT p.id, reading_id, name, p.tokens FROM prompts p JOIN templates t ON t.id = template_id "
            "WHERE p.job_id = ?",
            job,
        ):
            each = self.prompts[prompt] = Prompt(job, reading, question, needs)
            if (reading, question) in known and not fresh:
                each.state, (each.answer, each.made_of) = "done", known[reading, question]

    def above(self, number: int) -> list[Prompt]:
        """What waits for a prompt, from the bottom up."""
        found, each = [], self.prompts[number]
        while each.parent is not None:
            each = self.prompts[each.parent]
            found.append(each)
        return found

    def below(self, number: int) -> list[Prompt]:
        return [each for _, each in sorted(self.prompts.items()) if each.parent == number]

    def untouched(self) -> list[int]:
        """What can still be split, as it is when it is built."""
        return [
            number
            for number, each in sorted(self.prompts.items())
            if each.state == "pending"
            and not each.waits
            and not each.level
            and not each.lease
            and all(other.state == "pending" for other in self.above(number))
        ]

    @precondition(lambda self: len(self.prompts) < 6 and self.untouched())
    @rule(data=st.data(), parts=st.integers(1, 2))
    def split_one(self, data: st.DataObject, parts: int) -> None:
        self.split(data.draw(st.sampled_from(self.untouched())), parts)

    def split(self, number: int, parts: int) -> None:
        parent = self.prompts[number]
        parent.waits, parent.part = parts, None
        for each in (parent, *self.above(number)):
            each.level += 1
        for part, made in enumerate(split(self.store, number, parts), start=1):
            self.prompts[made] = Prompt(
                parent.job, parent.reading, parent.question, parent.needs, parent=number, part=part, parts=parts
            )

    @property
    def leases(self) -> dict[int, Lease]:
        """What their coordinators may send."""
        return {number: lease for number, lease in self.newest.items() if self.prompts[number].state == "leased"}

    def ready(self, worker: int, window: int, patience: float, held: list[int]) -> list[set[int]]:
        """The groups that this worker may have: what is about one reading together, and each merge by itself."""
        found: dict[tuple[int, int], set[int]] = {}
        for number, each in self.prompts.items():
            rested = not each.failures or each.worker != worker or each.available <= self.now - patience
            if (
                each.state == "pending"
                and not each.waits
                and not each.suspect
                and each.available <= self.now
                and each.needs <= window
                and rested
                and worker not in each.refused
                and each.job not in self.paused
                and (each.level or each.reading not in held)
            ):
                found.setdefault((each.reading, number if each.level else 0), set()).add(number)
        return list(found.values())

    @rule(target=given, **CLAIM)
    def claim(self, **how: Any) -> Any:
        return multiple(*self.claimed(**how))

    @rule(target=sent, alone=st.booleans(), **CLAIM)
    def claim_and_send(self, alone: bool, **how: Any) -> Any:
        alone &= not self.leases
        leases = self.claimed_alone(how["who"], how["place"], how["window"]) if alone else self.claimed(**how)
        return multiple(*(self.sent_now(lease, hedge=False) for lease in leases))

    def claimed(
        self, who: int, place: int, window: int, limit: int, patience: float, shared: bool, wait: float
    ) -> tuple[Lease, ...]:
        self.now += wait
        me, worker = self.one(who), self.workers[place]
        held = sorted({each.reading for each in self.prompts.values() if each.state == "leased"})
        ready = self.ready(worker, window, patience, [] if shared else held)
        group = self.store.take(
            me,
            worker,
            now=self.now,
            held=held,
            limit=limit,
            windows={MODEL: window},
            patience=patience,
            shared=shared,
        )
        if group is None:
            assert not ready
            return ()
        [could] = [numbers for numbers in ready if group.leases[0].prompt_id in numbers]
        assert {lease.prompt_id for lease in group.leases} <= could
        assert len(group.leases) == min(limit, len(could))
        best = max(
            self.store.value("SELECT priority FROM jobs WHERE id = ?", self.prompts[n].job) for ns in ready for n in ns
        )
        assert any(
            self.store.value("SELECT priority FROM jobs WHERE id = ?", self.prompts[n].job) == best for n in could
        )
        for lease in group.leases:
            self.leased(lease, me, worker)
        return group.leases

    def leased(self, lease: Lease, me: int, worker: int) -> None:
        each = self.prompts[lease.prompt_id]
        each.lease += 1
        told = (lease.number, lease.failures, lease.losses, lease.deaths_alone, lease.parent_id, lease.alone)
        assert told == (each.lease, each.failures, each.losses, each.deaths, each.parent, each.suspect)
        assert (lease.level, lease.part, lease.parts) == (each.level, each.part, each.parts)
        assert list(lease.answers) == [part.answer for part in self.below(lease.prompt_id)]
        each.state, each.holder, each.worker = "leased", me, worker
        each.in_flight.clear()
        each.met.clear()
        self.newest[lease.prompt_id] = lease

    def claimed_alone(self, who: int, place: int, window: int) -> tuple[Lease, ...]:
        me, worker = self.one(who), self.workers[place]
        asks = [Ask(worker, {MODEL: window}, 1)]
        could = {
            number
            for number, each in self.prompts.items()
            if each.state == "pending"
            and not each.waits
            and each.suspect
            and each.available <= self.now
            and each.needs <= window
            and worker not in each.refused
            and each.job not in self.paused
        }
        suspect = self.store.write(lambda tx: next_suspect(tx, asks, self.now))
        if suspect is None:
            assert not could
            return ()
        assert suspect.prompt_id in could
        assert self.prompts[suspect.prompt_id].deaths == min(self.prompts[number].deaths for number in could)
        group = self.store.write(lambda tx: claim_suspect(tx, suspect, me, self.now))
        assert group is not None
        [lease] = group.leases
        self.leased(lease, me, worker)
        return group.leases

    @precondition(lambda self: self.leases)
    @rule(target=sent, data=st.data(), written=st.booleans(), hedge=st.booleans())
    def send(self, data: st.DataObject, written: bool, hedge: bool) -> Sent:
        """Under its lease, which may be sent already: then it is asked twice at once, of two workers."""
        lease = data.draw(st.sampled_from([self.leases[number] for number in sorted(self.leases)]))
        return self.sent_now(lease, hedge=hedge, written=written)

    def sent_now(self, lease: Lease, *, hedge: bool, written: bool = True) -> Sent:
        each = self.prompts[lease.prompt_id]
        assert each.worker is not None
        assert each.holder is not None
        worker = next(other for other in self.workers if other != each.worker) if hedge else each.worker
        if not written:
            return self.store.unwritten(each.holder, worker, lease, self.now)
        sent = self.store.send(each.holder, worker, lease, self.now)
        each.in_flight.add(sent.id)
        return sent

    def asked(self, lease: Lease) -> Prompt | None:
        """What a lease is of; None if that was pruned, and its id may be another's now."""
        each = self.prompts.get(lease.prompt_id)
        return each if each is not None and each.job == lease.job_id else None

    def settle(self, ended: Settlement) -> Settlement:
        lease = ended.sent.lease
        each = self.asked(lease)
        if each is None:
            self.changes_nothing(ended)
            return ended
        stale = self.store.settle(ended)
        ours = each.lease == lease.number
        kind = ended.outcome.error_class
        each.in_flight.discard(ended.sent.id)
        if kind is None:
            accepted = ours and each.state in ("leased", "pending")
            assert stale == (not accepted)
            if accepted:
                each.state, each.holder, each.answer = "done", None, ended.outcome.answer
                each.cut = ended.outcome.finish_reason == "length"
                each.made_of = sum(part.made_of or 0 for part in self.below(lease.prompt_id)) if each.level else 1
                if each.parent is not None:
                    self.prompts[each.parent].waits -= 1
            return ended
        if kind is ErrorClass.RELEASED and each.state == "done" and ours:
            assert self.outcome(ended) == "stale"
            return ended
        assert self.outcome(ended) == kind
        if ours:
            each.met.add(kind)
        failed = isinstance(ended.verdict, Failed)
        if kind in (ErrorClass.INPUT, ErrorClass.CUT_INPUT):
            each.refused.add(ended.sent.worker_id)
            failed = each.refused >= set(self.workers)
        if ours and each.state == "leased" and not each.in_flight:
            each.state, each.holder = ("failed" if failed else "pending"), None
            if failed:
                each.failures += isinstance(ended.verdict, Failed)
                self.fail_parent(each)
                return ended
            # What either of two attempts has met counts, once.
            each.failures += ErrorClass.BROKEN in each.met
            each.losses += ErrorClass.LOST in each.met
            each.available = ended.verdict.at if isinstance(ended.verdict, Again | Lost) else self.now
            if isinstance(ended.verdict, Lost):
                each.deaths += ended.verdict.alone
                if not ended.verdict.alone:
                    self.give_alibi()
            elif kind in (ErrorClass.BROKEN, ErrorClass.INPUT, ErrorClass.CUT_INPUT):
                each.deaths = 0
        return ended

    def outcome(self, ended: Settlement) -> str:
        return self.store.value("SELECT outcome FROM attempts WHERE id = ?", ended.sent.id)

    def give_alibi(self) -> None:
        for each in self.prompts.values():
            if each.state == "pending" and each.suspect:
                each.deaths = 0

    def fail_parent(self, part: Prompt) -> None:
        while part.parent is not None and self.prompts[part.parent].state == "pending":
            part = self.prompts[part.parent]
            part.state = "failed"

    @rule(target=ended, sent=consumes(sent), how=st.sampled_from(FAILURES))
    def fails(self, sent: Sent, how: ErrorClass) -> Settlement:
        return self.ends(sent, how)

    def ends(self, sent: Sent, how: str | ErrorClass) -> Settlement:
        if isinstance(how, ErrorClass):
            return self.settle(end(sent, how, now=self.now, others=tuple(self.workers)))
        self.answers += 1
        return self.settle(end(sent, answer=f"answer {self.answers}", finish_reason=how, now=self.now))

    @rule(target=ended, sent=consumes(sent), how=st.sampled_from(["stop", "length"]))
    def answers(self, sent: Sent, how: str) -> Settlement:
        return self.ends(sent, how)

    @rule(ended=ended)
    def report_again(self, ended: Settlement) -> None:
        # Of an attempt that was pruned nobody knows any more that it was reported.
        if self.store.rows("SELECT 1 FROM attempts WHERE id = ?", ended.sent.id):
            self.changes_nothing(ended)

    def changes_nothing(self, ended: Settlement) -> None:
        tables = ("prompts", "attempts", "results", "job_counters", "workers", "refusals", "jobs")
        before = [set(self.store.rows(f"SELECT * FROM {table}")) for table in tables]
        self.store.settle(ended)
        assert [set(self.store.rows(f"SELECT * FROM {table}")) for table in tables] == before

    @rule(lease=given)
    def give_back(self, lease: Lease) -> None:
        self.store.write(lambda tx: release(tx, [lease]))
        each = self.asked(lease)
        if each is not None and each.state == "leased" and each.lease == lease.number:
            each.state, each.holder = "pending", None

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), what=st.sampled_from(["die", "join", "wake"]))
    def a_coordinator_comes_or_goes(self, data: st.DataObject, what: str) -> None:
        match what:
            case "die":
                self.die_and_be_followed()
            case "join":
                self.a_second_one_joins()
            case _:
                self.one_that_was_taken_for_dead_wakes(data)

    def die_and_be_followed(self) -> None:
        self.dead += self.live
        self.live = [self.store.reclaim(self.now)]
        alone = [each for each in self.prompts.values() if each.state == "leased" and each.suspect and each.in_flight]
        for each in self.prompts.values():
            if each.state == "leased":
                each.state, each.holder, each.available = "pending", None, self.now
                each.losses += bool(each.in_flight)
            each.in_flight.clear()
        for each in alone:
            each.deaths += 1
            each.available += BACKOFF_SECONDS * 2**each.deaths
        if not alone:
            self.give_alibi()
        for each in self.prompts.values():
            if each.state == "pending" and each.suspect and each.deaths >= DEATHS_TO_CONDEMN:
                each.state = "failed"
                self.fail_parent(each)

    def one_that_was_taken_for_dead_wakes(self, data: st.DataObject) -> None:
        if self.dead:
            ghost = data.draw(st.sampled_from(self.dead))
            self.store.write(lambda tx: release_strangers(tx, ghost, set()))

    def job(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted({each.job for each in self.prompts.values()})))

    def of(self, job: int, *states: str) -> list[Prompt]:
        return [each for each in self.prompts.values() if each.job == job and each.state in states]

    @rule(data=st.data(), what=st.sampled_from(WISHES))
    def a_person_asks_for(self, data: st.DataObject, what: str) -> None:
        match what:
            case "retry":
                self.retry(data)
            case "more":
                self.ask_for_more(data)
            case "cancel":
                self.cancel(data)
            case "pause":
                self.pause(data)
            case _:
                self.go_on(data)

    def go_on(self, data: st.DataObject) -> None:
        job = self.job(data)
        assert self.store.write(lambda tx: go_on(tx, [job])) == (job in self.paused)
        self.paused.discard(job)

    def pause(self, data: st.DataObject) -> None:
        job = self.job(data)
        if job in self.paused:
            assert not self.store.write(lambda tx: pause(tx, job, self.now))
        elif self.store.write(lambda tx: pause(tx, job, self.now)):
            self.paused.add(job)
            assert self.of(job, "pending", "leased")
        else:
            assert job in self.cancelled or not self.of(job, "pending", "leased")

    def cancel(self, data: st.DataObject) -> None:
        job = self.job(data)
        unfinished = self.of(job, "pending", "leased")
        assert self.store.write(lambda tx: request_cancel(tx, job, self.now)) == bool(unfinished)
        if not unfinished:
            return
        assert self.store.write(unfinished_cancels) == [job]
        assert self.store.write(lambda tx: cancel_some(tx, job, self.now)) == len(unfinished)
        assert self.store.write(unfinished_cancels) == []
        self.cancelled.add(job)
        self.paused.discard(job)
        for each in unfinished:
            each.state, each.holder = "cancelled", None

    def retry(self, data: st.DataObject) -> None:
        job = self.job(data)
        if job in self.cancelled:
            return
        failed = self.of(job, "failed")
        assert self.store.write(lambda tx: retry_some(tx, job, self.now)) == len(failed)
        for each in failed:
            each.state, each.available, each.failures, each.losses, each.deaths = "pending", self.now, 0, 0, 0
            each.refused.clear()

    def ask_for_more(self, data: st.DataObject) -> None:
        job = self.job(data)
        if job in self.cancelled:
            return
        cut = [each for each in self.of(job, "done") if each.cut and each.parent is None]
        assert self.store.write(lambda tx: retry_truncated(tx, job, [], self.now)) == Room(len(cut), 0)
        for each in cut:
            each.state, each.available, each.failures, each.answer, each.made_of, each.cut = (
                "pending",
                self.now,
                0,
                None,
                None,
                False,
            )
            each.needs += each.room
            each.lease += 1
            each.room *= 2

    def ended_jobs(self) -> list[int]:
        jobs = {each.job for each in self.prompts.values()}
        return sorted(job for job in jobs if not self.of(job, "pending", "leased"))

    @precondition(lambda self: self.ended_jobs())
    @rule(data=st.data(), whole=st.booleans())
    def prune(self, data: st.DataObject, whole: bool) -> None:
        before = self.now + 1
        self.store.write(lambda tx: sweep_some(tx, OLD_ATTEMPTS, 0, before))
        # A job stays for the other rules.
        if not whole or len({each.job for each in self.prompts.values()}) == 1:
            return
        job = data.draw(st.sampled_from(self.ended_jobs()))
        while self.store.write(lambda tx: remove_some(tx, job, before)) is not None:
            assert_agrees(self.store.rows)
        for number in [number for number, each in self.prompts.items() if each.job == job]:
            del self.prompts[number], self.before[number]
            self.newest.pop(number, None)

    @invariant()
    def the_database_is_consistent(self) -> None:
        assert_agrees(self.store.rows)

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        rows = self.store.rows(
            "SELECT p.id, state, lease, holder, failures, losses, deaths_alone, waits_for, r.answer, "
            "r.parts FROM prompts p "
            "LEFT JOIN results r ON r.prompt_id = p.id ORDER BY p.id"
        )
        assert rows == [
            (
                number,
                each.state,
                each.lease,
                each.holder,
                each.failures,
                each.losses,
                each.deaths,
                each.waits,
                each.answer,
                each.made_of,
            )
            for number, each in sorted(self.prompts.items())
        ]

    @invariant()
    def every_move_is_legal(self) -> None:
        now = dict(self.store.rows("SELECT id, state FROM prompts"))
        assert {(was, now[number]) for number, was in self.before.items()} <= LEGAL
        self.before = now

    def teardown(self) -> None:
        assert_consistent(self.store)
        self.opened.close()


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Fresh:
    """What opens a new database for each example."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("template")
        return lambda: fresh_file(template)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url: str = request.getfixturevalue("emptied")
    return lambda: emptied_database(server, url)


@contextmanager
def fresh_file(template: Path) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(template, Path(folder) / "d.db"))
        with closing(open_sqlite(path)) as store:
            yield store


@contextmanager
def emptied_database(server: PostgresServer, url: str) -> Iterator[Store]:
    with closing(PostgresStore(server, url)) as store:
        try:
            yield store
        finally:
            store.empty()


def run(fresh: Fresh, examples: int) -> None:
    Coordinators.fresh = staticmethod(fresh)
    run_state_machine_as_test(
        Coordinators,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


# A step takes PostgreSQL ten times as long as a file.
@pytest.mark.parametrize(("fresh", "examples"), [("sqlite", 200), ("postgres", 25)], indirect=["fresh"])
def test_whatever_happens_in_whatever_order_each_prompt_has_one_answer(fresh: Fresh, examples: int) -> None:
    run(fresh, examples)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("fresh", "examples"), [("sqlite", 3000), ("postgres", 1000)], indirect=["fresh"])
def test_whatever_happens_in_very_many_orders_each_prompt_has_one_answer(fresh: Fresh, examples: int) -> None:
    run(fresh, examples)
