"""What a run tells at its end."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from tests.chaos.driver import counted, listed
from tests.cluster.calls import Calls
from tests.cluster.options import Options
from tests.cluster.servers import SERVERS, SLOTS
from tests.cluster.watch import TAKEN_BACK_WITHIN_SECONDS


@dataclass(slots=True)
class Report:
    """The figures."""

    options: Options
    calls: Calls = field(default_factory=Calls)
    faults: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    within: int = 0
    away: list[float] = field(default_factory=list)
    taken_back: list[float] = field(default_factory=list)
    excused: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    looks: int = 0
    seconds: float = 0.0
    ended_within: float = 0.0

    def __str__(self) -> str:
        how = Counter(call.how or "open" for call in self.calls.made)
        states = self.states
        back = f"{len(self.taken_back)} times, {self.excused} more with the database away"
        if self.taken_back:
            back = (
                f"median {median(self.taken_back):.2f} s, slowest {max(self.taken_back):.2f} s "
                f"(at most {TAKEN_BACK_WITHIN_SECONDS:.0f}), {back}"
            )
        away = f", {self.within} frozen within a transaction"
        away += f", away for {max(self.away):.1f} s at most" if self.away else ""
        lines = {
            "seed": str(self.options.seed),
            "coordinators": f"{self.options.coordinators} at a time, {self.lives} processes",
            "faults": f"{sum(self.faults.values())}: {counted(self.faults)}; {self.cut} connections cut{away}",
            "prompts": f"{sum(states.values()):,}: {counted(states)}",
            "calls": f"{len(self.calls.made):,}: {counted(how)}",
            "again": counted(self.calls.causes),
            "in the air": f"{self.calls.in_the_air:,} calls at all faults",
            "taken back": back,
            "busiest": f"{max(self.calls.most.values(), default=0)} requests at one of {SERVERS} servers, of {SLOTS}",
            "looks": f"{self.looks} at all of the database, each sound",
            "seconds": f"{self.seconds:.0f}, the coordinators ended {self.ended_within:.1f} s after their job",
        }
        return listed(lines)
