"""What the servers were asked, and whether there was cause for each call."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.broken import BrokenPromiseError, few
from tests.chaos.checks import Snapshot

WRITTEN_WITHIN_SECONDS = 3.0
"""By then an answer that a server gave is in the database, where nothing holds up the writing."""

CUT_WITHIN_SECONDS = 3.0
"""An answer that was sent so shortly before the connections were cut may not have arrived."""


NOTICED_WITHIN_SECONDS = 1.0
"""By then a server has noticed that nobody waits for its answer any more."""

HEDGED = "a prompt is asked twice at once of two workers, once a lease"


@dataclass(slots=True)
class Call:
    """One request, as a server saw it; `ended` is None while it runs.

    It is a `hedge` if another for its prompt, by the same coordinator, surely ran on beside it.
    """

    number: int
    key: str
    server: str
    life: str
    began: float
    hedge: bool = False
    ended: float | None = None
    how: str | None = None

    def ends_after(self, at: float, snapshot: Snapshot) -> bool:
        """Whether it still ran at a time, or at the snapshot, if that was before."""
        return (self.ended or snapshot.at) > at


@dataclass(slots=True)
class Calls:
    """The fleet's log, read as it grows. `lives` has the first call of each life."""

    path: Path
    by_key: dict[str, list[Call]] = field(default_factory=dict)
    lives: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    in_the_air: int = 0
    """Calls whose prompt had no answer in the database when their coordinator had died, over all deaths."""
    most_in_the_air: int = 0
    _open: dict[int, Call] = field(default_factory=dict)
    _new: list[Call] = field(default_factory=list)
    _of_life: dict[str, list[Call]] = field(default_factory=dict)
    _cuts: list[float] = field(default_factory=list)
    _answered_at: dict[str, float] = field(default_factory=dict)
    _read: int = 0

    @property
    def total(self) -> int:
        """All calls so far."""
        return self.counts["calls"]

    def forget(self) -> None:
        """Begin anew, for another database."""
        self.by_key.clear()
        self._of_life.clear()
        self._answered_at.clear()
        self._new.clear()

    def refresh(self) -> None:
        """Read what is new in the log."""
        if not self.path.exists() or self.path.stat().st_size == self._read:
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            self._take(line.split())

    def _take(self, words: list[str]) -> None:
        match words:
            case ["begin", number, key, server, life, at]:
                call = Call(int(number), key, server, life, float(at))
                self._open[call.number] = call
                self._new.append(call)
                self.by_key.setdefault(key, []).append(call)
                self._of_life.setdefault(life, []).append(call)
                self.lives.setdefault(life, call.began)
                self.counts["calls"] += 1
            case ["end", number, how, at]:
                call = self._open.pop(int(number))
                call.how, call.ended = how, float(at)
                self.counts[how] += 1
            case ["cut", _, at]:
                self._cuts.append(float(at))
            case _:
                raise ValueError(f"no such line in the log of the fleet: {words}")

    def running(self, life: str) -> int:
        """How many calls of a life the servers have not seen the end of."""
        return sum(call.life == life for call in self._open.values())

    def judge(self, snapshot: Snapshot) -> None:
        """Look at all calls since the last time, in the light of the database as it was when they had been read."""
        new, self._new = self._new, []
        unleased = []
        for key in {call.key for call in new}:
            calls = self.by_key[key]
            if len({call.life for call in calls}) > snapshot.leases.get(key, 0):
                unleased.append(key)
        if unleased:
            raise BrokenPromiseError("a lease is in the database before its prompt is sent", few(sorted(unleased)))
        for call in new:
            answered = self._answered_at.get(call.key)
            if answered is not None and call.began > answered:
                raise BrokenPromiseError("what is answered is not asked again", f"{call.key} by {call.life}")
            self._had_cause(call, snapshot)
        for key in snapshot.new_answers:
            self._answered_at[key] = snapshot.at

    def _had_cause(self, call: Call, snapshot: Snapshot) -> None:
        """A call is the first of its prompt, those before it came to nothing, or it is the second under a lease."""
        before = [each for each in self.by_key[call.key] if each.number < call.number]
        if not before:
            return
        mine = [each for each in before if each.life == call.life]
        answered = (each.ended for each in mine if each.how == "answered" and each.ended is not None)
        if any(ended <= call.began and not self._was_cut(ended) for ended in answered):
            raise BrokenPromiseError(
                "nothing is done twice", f"{call.key} was asked again by {call.life} after an answer"
            )
        beside = [each for each in mine if each.ends_after(call.began, snapshot)]
        surely = [each for each in beside if each.ends_after(call.began + NOTICED_WITHIN_SECONDS, snapshot)]
        if surely:
            call.hedge = True
            self._is_hedge(call, surely, snapshot)
        if any(each.server != call.server for each in beside):
            self.counts["beside"] += 1
            return
        self.counts["again"] += 1
        self.counts["again after a death"] += not mine

    def _is_hedge(self, call: Call, others: list[Call], snapshot: Snapshot) -> None:
        if len(others) > 1 or others[0].server == call.server:
            servers = ", ".join(each.server for each in [*others, call])
            raise BrokenPromiseError(HEDGED, f"{call.key} was asked by {call.life} at once of {servers}")
        hedges, leases = sum(each.hedge for each in self.by_key[call.key]), snapshot.leases.get(call.key, 0)
        if hedges > leases:
            raise BrokenPromiseError(HEDGED, f"{call.key} was hedged {hedges} times under {leases} leases")

    def _was_cut(self, ended: float) -> bool:
        return any(0 <= cut - ended + 0.5 <= CUT_WITHIN_SECONDS for cut in self._cuts)

    def bury(self, life: str, died: float, snapshot: Snapshot, *, excused: bool) -> None:
        """A coordinator has died: count what it had in the air, and find the answers that it kept to itself.

        `excused` where something held up its writing.
        """
        # Where another one has followed at once, it may have been asked again and answered by now.
        lost = [
            call
            for call in self._of_life.pop(life, [])
            if snapshot.states.get(call.key) not in ("done", "cancelled") or self.by_key[call.key][-1].life != life
        ]
        self.in_the_air += len(lost)
        self.most_in_the_air = max(self.most_in_the_air, len(lost))
        overdue = [
            call.key
            for call in lost
            if call.how == "answered"
            and snapshot.states.get(call.key) != "done"
            and call.ended is not None
            and call.ended < died - WRITTEN_WITHIN_SECONDS
            and not self._was_cut(call.ended)
        ]
        if overdue and not excused:
            shown = (
                f"answers given more than {WRITTEN_WITHIN_SECONDS:.0f} s before the death are not there: {few(overdue)}"
            )
            raise BrokenPromiseError("no answer is lost", shown)
