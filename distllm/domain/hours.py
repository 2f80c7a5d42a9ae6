"""Working hours: the ranges of the day in which workers may be asked, as the clock on the wall tells them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

from distllm.domain.errors import UsageError

DAY = 24 * 60
_TIME = re.compile(r"(\d{1,2}):(\d{2})")


@dataclass(frozen=True, slots=True)
class Hours:
    """Ranges of a day, each as minutes since midnight: from the first on, to before the second.

    A range whose end is not after its begin goes over midnight. `zone` is that of the wall; None is this machine's.
    """

    ranges: tuple[tuple[int, int], ...]
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `22:00-07:00`, or several such ranges with commas between them. Raises UsageError for what is none."""
        ranges = []
        for given in text.split(","):
            begin, dash, end = given.partition("-")
            first, last = _minute(begin), _minute(end)
            if not dash or first is None or last is None or first in (last, DAY):
                raise UsageError(
                    f"--hours: {given.strip()!r} is no range of hours: write 22:00-07:00, or several such as "
                    "12:00-13:00,22:00-07:00"
                )
            ranges.append((first, last))
        return cls(tuple(ranges))

    def __str__(self) -> str:
        return ",".join(f"{_shown(first)}-{_shown(last)}" for first, last in self.ranges)

    def are_now(self, now: float) -> bool:
        """Whether `now`, in seconds since 1970, is within one of the ranges."""
        minute = self._minute_of(self._wall(now))
        return any(
            first <= minute < last if first < last else minute >= first or minute < last for first, last in self.ranges
        )

    def next_begin(self, now: float) -> datetime:
        """When the next range begins, as the clock on the wall will tell it."""
        wall = self._wall(now)
        midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        minute = self._minute_of(wall)
        begins = sorted(first if first > minute else first + DAY for first, _ in self.ranges)
        # The date and the hour are those of the wall, whatever happens to the clock in between.
        return midnight + timedelta(minutes=begins[0])

    def _wall(self, now: float) -> datetime:
        return datetime.fromtimestamp(now, UTC).astimezone(self.zone)

    @staticmethod
    def _minute_of(wall: datetime) -> int:
        return wall.hour * 60 + wall.minute


def _minute(text: str) -> int | None:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    minute = int(found[1]) * 60 + int(found[2])
    return minute if int(found[2]) < 60 and minute <= DAY else None


def _shown(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
