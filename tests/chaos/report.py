"""What a campaign tells at its end."""

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.broken import BrokenPromiseError
from tests.chaos.driver import counted, listed
from tests.chaos.edges import REQUIRED, Hit
from tests.chaos.options import Options
from tests.chaos.victim import POISONED

LONG_RUN_EDGES = 48
"""A run with so many edge kills must have hit every edge that is required."""


@dataclass(slots=True)
class Report:
    """The figures, gathered as they come."""

    options: Options
    deaths: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    edges: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: int = 0
    left_out: list[str] = field(default_factory=list)
    databases: int = 0
    prompts: int = 0
    results: int = 0
    cancelled: int = 0
    failed: int = 0
    poisoned: int = 0
    stuck: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    in_the_air: int = 0
    most_in_the_air: int = 0
    most_losses: int = 0
    stale: int = 0
    lost: int = 0
    twice: int = 0
    looks: int = 0
    look_seconds: float = 0.0
    restarts: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def hit(self, hits: list[Hit]) -> None:
        """Count the edges of one life."""
        for hit in hits:
            if hit.side != POISONED:
                self.edges.update((hit.side, sort) for sort in hit.sorts)

    def never_hit(self) -> list[tuple[str, str]]:
        """The required edges that were not hit."""
        return [edge for edge in REQUIRED if not self.edges[edge]]

    def judge(self) -> None:
        """A long run must have been where it says it was."""
        missing = self.never_hit()
        if self.options.edges >= LONG_RUN_EDGES and missing:
            named = ", ".join(" ".join(edge) for edge in missing)
            raise BrokenPromiseError("every edge that is required is hit", named)

    def __str__(self) -> str:
        restarts = sorted(self.restarts) or [0.0]
        again, after = self.calls["again"], self.calls["again after a death"]
        lines = {
            "seed": str(self.options.seed),
            "deaths": f"{sum(self.deaths.values())}: {counted(self.deaths)}",
            "troubles": counted(self.troubles),
            "left out": "; ".join(self.left_out) or "nothing",
            "databases": f"{self.databases}, looked at {self.looks} times in {self.look_seconds:.0f} s, each whole",
            "prompts": f"{self.prompts:,}",
            "results": f"{self.results:,}",
            "calls": f"{self.calls['calls']:,}, {self.calls['spoilt']:,} of them spoilt on purpose",
            "again": f"{after:,} calls after a death, {again - after:,} after a failure of a server",
            "hedged": f"{self.calls['beside']:,} calls beside one that ran on, at another server",
            "in the air": f"{self.in_the_air:,} at all deaths, at most {self.most_in_the_air} at one",
            "duplicates": f"{self.twice} prompts done twice",
            "lost": f"{self.lost} answers that were seen are gone, or others",
            "stuck": str(self.stuck),
            "stale": f"{self.stale} answers that came too late, kept with their attempts alone",
            "cancelled": f"{self.cancelled} on purpose",
            "failed": f"{self.failed}, and {self.poisoned} planted as poison",
            "losses": f"at most {self.most_losses} of one prompt",
            "restart": f"to the first prompt sent: median {restarts[len(restarts) // 2]:.2f} s, slowest "
            f"{restarts[-1]:.2f} s",
            "seconds": f"{self.seconds:.0f}",
        }
        text = [listed(lines)]
        if self.edges:
            text.append("edges hit (a transaction counts for each thing that it does):")
            text += [f"  {side:<13} {sort:<9} {count:>4}" for (side, sort), count in sorted(self.edges.items())]
            if self.missed:
                text.append(f"  {self.missed} lives ended before their edge came")
        return "\n".join(text)
