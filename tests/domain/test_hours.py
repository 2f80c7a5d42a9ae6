"""Working hours, as people write them and as the clock on the wall tells them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from distllm.domain.errors import UsageError
from distllm.domain.hours import Hours

EAST = timezone(timedelta(hours=5, minutes=30))


def at(clock: str, zone: timezone = UTC) -> float:
    """A moment, by the clock on a wall."""
    hour, minute = map(int, clock.split(":"))
    return datetime(2026, 11, 24, hour, minute, tzinfo=zone).timestamp()


def hours(text: str, zone: timezone = UTC) -> Hours:
    return Hours(Hours.parse(text).ranges, zone)


@pytest.mark.parametrize(
    ("text", "within", "outside"),
    [
        ("09:00-17:00", ["09:00", "16:59"], ["08:59", "17:00", "00:00"]),
        ("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "21:59", "12:00"]),
        ("12:00-13:00, 22:00-7:00", ["12:30", "03:00"], ["13:00", "07:00"]),
        ("00:00-24:00", ["00:00", "23:59"], []),
        ("22:00-24:00", ["23:59"], ["00:00", "21:59"]),
    ],
)
def test_hours_are_ranges_of_a_day_which_may_go_over_midnight(text: str, within: list[str], outside: list[str]) -> None:
    assert [each for each in within if not hours(text).are_now(at(each))] == []
    assert [each for each in outside if hours(text).are_now(at(each))] == []


def test_hours_are_those_of_the_wall_and_not_of_greenwich() -> None:
    night = hours("22:00-07:00", EAST)
    assert night.are_now(at("22:00", EAST))
    assert night.are_now(at("16:30", UTC))
    assert not night.are_now(at("22:00", UTC) + 3.5 * 3600)


@pytest.mark.parametrize(
    ("text", "now", "begins"),
    [
        ("22:00-07:00", "12:00", "24 22:00"),
        ("22:00-07:00", "23:00", "25 22:00"),
        ("12:00-13:00,22:00-07:00", "07:30", "24 12:00"),
        ("12:00-13:00,22:00-07:00", "13:00", "24 22:00"),
    ],
)
def test_the_next_begin_is_told(text: str, now: str, begins: str) -> None:
    assert hours(text).next_begin(at(now)).strftime("%d %H:%M") == begins


@pytest.mark.parametrize("text", ["", "22-07", "22:00", "22:00-", "25:00-07:00", "22:60-07:00", "07:00-07:00", "a-b"])
def test_what_is_no_range_is_refused_in_one_line_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no range of hours: write 22:00-07:00"):
        Hours.parse(text)


def test_hours_are_shown_as_they_are_written() -> None:
    assert str(Hours.parse("12:00-13:00, 22:00-7:00")) == "12:00-13:00,22:00-07:00"
