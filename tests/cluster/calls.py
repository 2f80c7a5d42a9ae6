"""What the servers were asked, what befell those who asked, and whether there was cause for each call."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos.broken import BrokenPromiseError, few

WRITTEN_WITHIN_SECONDS = 3.0
"""By then an answer is in the database, if nothing befalls who has it."""


@dataclass(slots=True, eq=False)
class Call:
    """One request, as a server saw it; `ended` is None while it runs, and `how` is `answered`, `spoilt` (on purpose,
    or by a server that went away) or `left` (by who had asked). LIFE is whose key it came with."""

    number: int
    key: str
    server: int
    life: str
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    how: str | None = None

    def beside(self, other: "Call") -> bool:
        """Whether both ran at one time."""
        return self.began < (other.ended or time.monotonic()) and other.began < (self.ended or time.monotonic())

    def __str__(self) -> str:
        span = f"{self.began:.2f} to {'now' if self.ended is None else format(self.ended, '.2f')}"
        return f"call {self.number} of {self.key} by {self.life} at server {self.server}, {span}, {self.how}"


@dataclass(slots=True)
class Fault:
    """What befell a life, or all of them where that is None; `until` is None while it lasts."""

    kind: str
    life: str | None
    since: float = field(default_factory=time.monotonic)
    until: float | None = None

    def excuses(self, call: Call) -> bool:
        """Whether the answer to a call may have come to nothing by it."""
        if self.life not in (None, call.life):
            return False
        over = self.until is not None and call.began > self.until + WRITTEN_WITHIN_SECONDS
        return not over and (call.ended is None or call.ended + WRITTEN_WITHIN_SECONDS > self.since)


@dataclass(slots=True)
class Calls:
    """All calls of a run, and all faults. `in_the_air` were under way when a fault hit who had asked."""

    made: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    most: Counter[int] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    in_the_air: int = 0

    def begin(self, key: str, server: int, life: str) -> Call:
        """A server is asked."""
        call = Call(len(self.made), key, server, life)
        self.made.append(call)
        return call

    def hit(self, kind: str, life: str | None) -> Fault:
        """A fault begins."""
        fault = Fault(kind, life)
        self.faults.append(fault)
        self.in_the_air += sum(call.ended is None and life in (None, call.life) for call in self.made)
        return fault

    def judge(self, answered_by: Mapping[str, int]) -> None:
        """Every call but the one that gave the answer, told by its number, has come to nothing for a cause."""
        by_key: dict[str, list[Call]] = {}
        for call in self.made:
            by_key.setdefault(call.key, []).append(call)
        unknown = [key for key in answered_by if key not in by_key]
        if unknown:
            raise BrokenPromiseError("an answer was given by a server", few(unknown))
        unexplained = []
        for calls in by_key.values():
            for call in calls:
                if call.number == answered_by.get(call.key):
                    continue
                cause = self._cause(call, calls)
                self.causes[cause or "unexplained"] += 1
                if cause is None:
                    unexplained.append("; ".join(map(str, calls)))
        if unexplained:
            raise BrokenPromiseError("nothing is asked twice without a cause", "\n  ".join(["", *unexplained[:5]]))

    def _cause(self, call: Call, calls: list[Call]) -> str | None:
        if call.how == "spoilt":
            return "failed"
        for fault in self.faults:
            if fault.excuses(call):
                return f"{'waited for' if call.how == 'left' else 'answered'} at a {fault.kind}"
        if any(each is not call and each.life == call.life and each.beside(call) for each in calls):
            return "hedged"
        return None
