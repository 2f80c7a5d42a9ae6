"""Any order of claims, answers, deaths, pauses, cancels and retries, against a model of a few lines."""

import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

from distllm.domain.models import ErrorClass
from distllm.domain.policy import Again, Failed
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
from distllm.store.leases import Lease, release
from tests.store.store_kit import MAX_TOKENS, MODEL, NOW, Store, add_job, assert_consistent, end

PAPERS = ["x" * length for length in (5, 50, 500)]
WINDOWS = (120, 170, 9999)
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
    available: float = 0.0
    answer: str | None = None
    cut: bool = False
    room: int = MAX_TOKENS
    refused: set[int] = field(default_factory=set)


class Coordinators(RuleBasedStateMachine):
    """Coordinators follow each other; what the dead ones had in flight may still be reported."""

    template: Path
    sent = Bundle("sent")
    ended = Bundle("ended")
    given = Bundle("given")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(shutil.copy(self.template, Path(self.folder.name) / "d.db"))
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=OFF")
        self.store = Store(path, connection)
        self.prompts: dict[int, Prompt] = {}
        self.newest: dict[int, Lease] = {}
        self.paused: set[int] = set()
        self.cancelled: set[int] = set()
        self.now = NOW
        self.answers = 0
        self.before: dict[int, str] = {}

    @initialize()
    def begin(self) -> None:
        self.me = self.store.reclaim()
        self.workers = [self.store.worker("here"), self.store.worker("there")]
        self.new_job(PAPERS[1:2], 2, 0, fresh=False)

    @precondition(lambda self: len(self.prompts) < 8)
    @rule(
        papers=st.lists(st.sampled_from(PAPERS), min_size=1, max_size=3),
        questions=st.integers(1, 2),
        priority=st.integers(0, 1),
        fresh=st.booleans(),
    )
    def new_job(self, papers: list[str], questions: int, priority: int, *, fresh: bool) -> None:
        known = {
            (each.reading, each.question): each.answer
            for _, each in sorted(self.prompts.items())
            if each.state == "done" and not each.cut
        }
        job = add_job(self.store, papers, ["findings", "limits"][:questions], priority=priority, fresh=fresh)
        for prompt, reading, question, needs in self.store.rows(
            "SELECT p.id, reading_id, name, p.tokens FROM prompts p JOIN templates t ON t.id = template_id "
            "WHERE p.job_id = ?",
            job,
        ):
            each = self.prompts[prompt] = Prompt(job, reading, question, needs)
            if (reading, question) in known and not fresh:
                each.state, each.answer = "done", known[reading, question]

    @property
    def leases(self) -> dict[int, Lease]:
        """What the live coordinator may send."""
        return {number: lease for number, lease in self.newest.items() if self.prompts[number].state == "leased"}

    def ready(self, worker: int, window: int, patience: float, held: list[int]) -> dict[int, set[int]]:
        """By reading, what this worker may have."""
        found: dict[int, set[int]] = {}
        for number, each in self.prompts.items():
            rested = not each.failures or each.worker != worker or each.available <= self.now - patience
            if (
                each.state == "pending"
                and each.available <= self.now
                and each.needs <= window
                and rested
                and worker not in each.refused
                and each.job not in self.paused
                and each.reading not in held
            ):
                found.setdefault(each.reading, set()).add(number)
        return found

    @rule(
        target=given,
        place=st.integers(0, 1),
        window=st.sampled_from(WINDOWS),
        limit=st.integers(1, 3),
        patience=st.sampled_from([0.0, 30.0]),
        shared=st.booleans(),
    )
    def claim(self, place: int, window: int, limit: int, patience: float, shared: bool) -> Any:
        worker = self.workers[place]
        held = sorted({each.reading for each in self.prompts.values() if each.state == "leased"})
        ready = self.ready(worker, window, patience, [] if shared else held)
        group = self.store.take(
            self.me,
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
            return multiple()
        could = ready[group.reading_id]
        assert {lease.prompt_id for lease in group.leases} <= could
        assert len(group.leases) == min(limit, len(could))
        best = max(
            self.store.value("SELECT priority FROM jobs WHERE id = ?", self.prompts[n].job)
            for ns in ready.values()
            for n in ns
        )
        assert any(
            self.store.value("SELECT priority FROM jobs WHERE id = ?", self.prompts[n].job) == best for n in could
        )
        for lease in group.leases:
            each = self.prompts[lease.prompt_id]
            each.lease += 1
            assert (lease.number, lease.failures) == (each.lease, each.failures)
            each.state, each.holder, each.worker = "leased", self.me, worker
            self.newest[lease.prompt_id] = lease
        return multiple(*group.leases)

    @precondition(lambda self: self.leases)
    @rule(target=sent, data=st.data(), written=st.booleans())
    def send(self, data: st.DataObject, written: bool) -> Sent:
        lease = data.draw(st.sampled_from([self.leases[number] for number in sorted(self.leases)]))
        worker = self.prompts[lease.prompt_id].worker
        assert worker is not None
        how = self.store.send if written else self.store.unwritten
        return how(self.me, worker, lease, self.now)

    def settle(self, ended: Settlement) -> Settlement:
        stale = self.store.settle(ended)
        lease = ended.sent.lease
        each = self.prompts[lease.prompt_id]
        ours = each.lease == lease.number
        kind = ended.outcome.error_class
        if kind is None:
            accepted = ours and each.state in ("leased", "pending")
            assert stale == (not accepted)
            if accepted:
                each.state, each.holder, each.answer = "done", None, ended.outcome.answer
                each.cut = ended.outcome.finish_reason == "length"
            return ended
        failed = isinstance(ended.verdict, Failed)
        if kind is ErrorClass.INPUT:
            each.refused.add(ended.sent.worker_id)
            failed = each.refused >= set(self.workers)
        if ours and each.state == "leased":
            each.state, each.holder = ("failed" if failed else "pending"), None
            each.failures += kind is ErrorClass.BROKEN
            if not failed:
                each.available = ended.verdict.at if isinstance(ended.verdict, Again) else self.now
        return ended

    @rule(target=ended, sent=consumes(sent), reason=st.sampled_from(["stop", "length"]))
    def answer(self, sent: Sent, reason: str) -> Settlement:
        self.answers += 1
        return self.settle(end(sent, answer=f"answer {self.answers}", finish_reason=reason, now=self.now))

    @rule(
        target=ended,
        sent=consumes(sent),
        kind=st.sampled_from([ErrorClass.BROKEN, ErrorClass.BUSY, ErrorClass.INPUT, ErrorClass.RELEASED]),
    )
    def fail(self, sent: Sent, kind: ErrorClass) -> Settlement:
        return self.settle(end(sent, kind, now=self.now, others=tuple(self.workers)))

    @rule(ended=ended)
    def report_again(self, ended: Settlement) -> None:
        tables = ("prompts", "attempts", "results", "job_counters", "workers", "refusals", "jobs")
        before = [self.store.rows(f"SELECT * FROM {table}") for table in tables]
        self.store.settle(ended)
        assert [self.store.rows(f"SELECT * FROM {table}") for table in tables] == before

    @rule(lease=given)
    def give_back(self, lease: Lease) -> None:
        self.store.write(lambda tx: release(tx, [lease]))
        each = self.prompts[lease.prompt_id]
        if each.state == "leased" and each.lease == lease.number:
            each.state, each.holder = "pending", None

    @rule()
    def die_and_be_followed(self) -> None:
        self.me = self.store.reclaim(self.now)
        for each in self.prompts.values():
            if each.state == "leased":
                each.state, each.holder, each.available = "pending", None, self.now
                each.losses += 1

    def job(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted({each.job for each in self.prompts.values()})))

    def of(self, job: int, *states: str) -> list[Prompt]:
        return [each for each in self.prompts.values() if each.job == job and each.state in states]

    @rule(data=st.data())
    def pause_or_go_on(self, data: st.DataObject) -> None:
        job = self.job(data)
        if job in self.paused:
            assert self.store.write(lambda tx: go_on(tx, [job]))
            self.paused.remove(job)
        elif self.store.write(lambda tx: pause(tx, job, self.now)):
            self.paused.add(job)
            assert self.of(job, "pending", "leased")
        else:
            assert job in self.cancelled or not self.of(job, "pending", "leased")

    @rule(data=st.data())
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

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job = self.job(data)
        if job in self.cancelled:
            return
        failed = self.of(job, "failed")
        assert self.store.write(lambda tx: retry_some(tx, job, self.now)) == len(failed)
        for each in failed:
            each.state, each.available, each.failures, each.losses = "pending", self.now, 0, 0
            each.refused.clear()

    @rule(data=st.data())
    def ask_for_more(self, data: st.DataObject) -> None:
        job = self.job(data)
        if job in self.cancelled:
            return
        cut = [each for each in self.of(job, "done") if each.cut]
        assert self.store.write(lambda tx: retry_truncated(tx, job, [], self.now)) == Room(len(cut), 0)
        for each in cut:
            each.state, each.available, each.failures, each.answer, each.cut = "pending", self.now, 0, None, False
            each.needs += each.room
            each.lease += 1
            each.room *= 2

    @rule(seconds=st.sampled_from([0.5, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_database_is_consistent(self) -> None:
        assert_consistent(self.store.connection, thoroughly=False)

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        rows = self.store.rows(
            "SELECT p.id, state, lease, holder, failures, losses, r.answer FROM prompts p "
            "LEFT JOIN results r ON r.prompt_id = p.id ORDER BY p.id"
        )
        assert rows == [
            (number, each.state, each.lease, each.holder, each.failures, each.losses, each.answer)
            for number, each in sorted(self.prompts.items())
        ]

    @invariant()
    def every_move_is_legal(self) -> None:
        now = dict(self.store.rows("SELECT id, state FROM prompts"))
        assert {(was, now[number]) for number, was in self.before.items()} <= LEGAL
        self.before = now

    def teardown(self) -> None:
        assert_consistent(self.store.connection)
        self.store.connection.close()
        self.folder.cleanup()


def test_whatever_happens_in_whatever_order_each_prompt_has_one_answer(template: Path) -> None:
    Coordinators.template = template
    run_state_machine_as_test(
        Coordinators,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
