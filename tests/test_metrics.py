"""Rolling figures agree with the events of their window, and sinks harm nothing."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.config import Config
from distllm.domain.errors import UsageError
from distllm.domain.events import Answered, Event, Noticed, TriedInVain
from distllm.domain.models import ErrorClass, Usage
from distllm.metrics import SLICES, Metrics, Rolling, open_sinks
from tests.packages import install

WIDTH = 5.0


def answered(at: float, seconds: float = 2.0, tokens: int | None = 10, first: float | None = 0.5) -> Answered:
    usage = Usage(prompt_tokens=100, cached_tokens=90, completion_tokens=tokens)
    return Answered(1, "w", at, seconds, first, "m", usage, "stop")


def failed(at: float, why: ErrorClass = ErrorClass.BROKEN) -> TriedInVain:
    return TriedInVain(1, "w", at, 1.0, why, "it broke", False)


ENDS = st.lists(
    st.tuples(
        st.floats(0, 900, width=32),
        st.one_of(
            st.tuples(st.floats(0.125, 60, width=32), st.integers(0, 500), st.none() | st.floats(0.125, 9, width=32)),
            st.sampled_from(list(ErrorClass)),
        ),
    ),
    max_size=80,
)


@given(ENDS, st.floats(0, 400, width=32))
def test_the_figures_are_those_of_the_events_in_the_window(ends: list[Any], later: float) -> None:
    rolling = Rolling(0.0, WIDTH * SLICES)
    events: list[Answered | TriedInVain] = [
        answered(at, *how) if isinstance(how, tuple) else failed(at, how)
        for at, how in sorted(ends, key=lambda e: e[0])
    ]
    for event in events:
        rolling.count(event)
    now = max((event.at for event in events), default=0.0) + later
    figures = rolling.figures(now)
    oldest = (now // WIDTH - SLICES + 1) * WIDTH
    inside = [event for event in events if event.at >= oldest]
    answers = [event for event in inside if isinstance(event, Answered)]
    faults = [
        event
        for event in inside
        if isinstance(event, TriedInVain) and event.error_class in (ErrorClass.BROKEN, ErrorClass.REFUSED)
    ]
    assert (figures.requests, figures.succeeded, figures.failed) == (len(inside), len(answers), len(faults))
    if answers or faults:
        assert figures.success_rate == pytest.approx(len(answers) / (len(answers) + len(faults)))
    if answers:
        seconds = [event.seconds for event in answers]
        assert (figures.min_seconds, figures.max_seconds) == (min(seconds), max(seconds))
        assert figures.avg_seconds == pytest.approx(sum(seconds) / len(seconds))
    firsts = [event.first_token_seconds for event in answers if event.first_token_seconds is not None]
    assert figures.first_token_seconds == (pytest.approx(sum(firsts) / len(firsts)) if firsts else None)
    span = max(WIDTH, now - max(0.0, oldest))
    assert span <= WIDTH * SLICES
    assert figures.requests_per_second == pytest.approx(len(inside) / span)
    written = sum(event.usage.completion_tokens or 0 for event in answers)
    assert figures.tokens_per_second == pytest.approx(written / span)


@given(st.lists(st.floats(0, 1e6, width=32), max_size=200))
def test_a_window_holds_as_many_tallies_whatever_comes_and_in_whatever_order(times: list[float]) -> None:
    rolling = Rolling(0.0, WIDTH * SLICES)
    for at in times:
        rolling.count(answered(at))
        assert len(rolling._slices) <= SLICES


def test_workers_are_told_apart_and_other_events_change_nothing() -> None:
    metrics = Metrics()
    metrics.observe(answered(10.0))
    metrics.observe(TriedInVain(1, "other", 11.0, 1.0, ErrorClass.BUSY, "busy", False))
    metrics.observe(Noticed("the disk is full"))
    figures = metrics.figures(12.0)
    assert set(figures) == {"w", "other"}
    assert (figures["w"].succeeded, figures["w"].success_rate) == (1, 1.0)
    assert (figures["other"].requests, figures["other"].failed, figures["other"].success_rate) == (1, 0, None)


SINKS = """
class Good:
    seen = []
    def observe(self, event): self.seen.append(event)
    def close(self): self.seen.append("closed")

class Bad:
    def observe(self, event): raise LookupError("no network")
    def close(self): raise LookupError("still none")

class Unmade:
    def __init__(self): raise OSError("no file")
"""
NAMES = {
    "good": "my_sinks:Good",
    "bad": "my_sinks:Bad",
    "unmade": "my_sinks:Unmade",
    "gone": "my_sinks:Gone",
}


@pytest.fixture
def sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "my_sinks", SINKS, {"distllm.metrics": NAMES})
    monkeypatch.delitem(__import__("sys").modules, "my_sinks", raising=False)


@pytest.mark.usefixtures("sinks")
def test_a_sink_that_raises_is_logged_once_and_the_others_hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "distllm.metrics"):
        opened = open_sinks(["bad", "unmade", "gone", "good"])
        heard: list[Event] = [answered(1.0), failed(2.0), Noticed("hm")]
        for event in heard:
            opened.observe(event)
        opened.close()
    import my_sinks  # type: ignore[import-not-found]  # installed by the fixture

    assert my_sinks.Good.seen == [*heard, "closed"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "'unmade'" in said[0]
    assert "no file" in said[0]
    assert "'gone' of the package my_sinks cannot be imported" in said[1]
    assert "'bad' failed (LookupError: no network)" in said[2]


@pytest.mark.usefixtures("sinks")
def test_the_configuration_knows_the_sinks_that_are_installed(tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    file.write_text('{"metrics": ["good"]}')
    assert Config.load(file).metrics == ("good",)
    file.write_text('{"metrics": ["good", "godo"]}')
    with pytest.raises(UsageError, match=r"workers.json: metrics\[1\]: must be one of .*did you mean 'good'.*'godo'"):
        Config.load(file)


@pytest.mark.parametrize("off", ["0", "false", "off", "OFF"])
def test_metrics_are_on_unless_the_file_or_the_environment_says_otherwise(tmp_path: Path, off: str) -> None:
    file = tmp_path / "workers.json"
    file.write_text("{}")
    assert Config.load(file, {}).enable_metrics
    assert not Config.load(file, {"ENABLE_METRICS": off}).enable_metrics
    file.write_text('{"enable_metrics": false}')
    assert not Config.load(file, {}).enable_metrics
    assert Config.load(file, {"ENABLE_METRICS": "1"}).enable_metrics
    with pytest.raises(UsageError, match="the environment: ENABLE_METRICS"):
        Config.load(file, {"ENABLE_METRICS": "perhaps"})
