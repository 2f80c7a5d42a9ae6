"""The circuit breaker: what opens it, and that one request decides whether it closes."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.breaker import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    PROMPTS_TO_OPEN,
    Breaker,
    BreakerState,
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for prompt in range(PROMPTS_TO_OPEN):
        breaker.failed(prompt, now)
    return breaker


def test_three_prompts_that_fail_in_a_row_open_it() -> None:
    breaker = Breaker()
    for prompt in range(2):
        breaker.failed(prompt, 0.0)
        assert breaker.admits(5, 0.0)
    breaker.failed(2, 0.0)
    assert breaker.state(0.0) is BreakerState.OPEN
    assert not breaker.admits(0, 0.0)


def test_one_prompt_that_fails_over_and_over_accuses_itself() -> None:
    breaker = Breaker()
    for second in range(20):
        breaker.failed(7, float(second))
    assert breaker.state(20.0) is BreakerState.CLOSED


def test_an_answer_in_between_acquits_the_worker() -> None:
    breaker = Breaker()
    for prompt in range(20):
        breaker.failed(prompt, 0.0)
        if prompt % 2:
            breaker.succeeded()
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_after_its_pause_one_request_goes_through_and_no_more() -> None:
    breaker = opened()
    assert breaker.state(FIRST_PAUSE_SECONDS) is BreakerState.HALF_OPEN
    assert breaker.admits(0, FIRST_PAUSE_SECONDS)
    assert not breaker.admits(1, FIRST_PAUSE_SECONDS)
    breaker.succeeded()
    assert breaker.admits(9, FIRST_PAUSE_SECONDS)


def test_a_trial_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(9):
        until = breaker.reopens_at()
        assert until is not None
        pauses.append(until - now)
        now = until
        breaker.failed(99, now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_who_cannot_be_reached_is_left_alone_at_once() -> None:
    breaker = Breaker()
    breaker.refused(0.0)
    assert breaker.state(0.0) is BreakerState.OPEN


def test_many_that_fail_while_it_is_open_are_one_failure() -> None:
    breaker = opened()
    until = breaker.reopens_at()
    for prompt in range(50):
        breaker.failed(prompt, 0.5)
        breaker.refused(0.5)
    assert breaker.reopens_at() == until


@dataclass
class Model:
    """The breaker in the plainest words: a list of who failed since the last answer, and when it may be tried."""

    since_answer: list[int] = field(default_factory=list)
    pauses: int = 0
    closed: bool = True
    until: float = 0.0

    def answer(self) -> None:
        self.since_answer, self.pauses, self.closed = [], 0, True

    def fail(self, prompt: int | None, now: float) -> None:
        if prompt is not None:
            self.since_answer.append(prompt)
        accused = prompt is None or not self.closed or len(set(self.since_answer)) >= PROMPTS_TO_OPEN
        if accused and (self.closed or now >= self.until):
            self.closed = False
            self.until = now + min(FIRST_PAUSE_SECONDS * 2**self.pauses, LONGEST_PAUSE_SECONDS)
            self.pauses += 1

    def admits(self, in_flight: int, now: float) -> bool:
        return self.closed or (now >= self.until and in_flight == 0)


STEPS = st.tuples(
    st.sampled_from(["answer", "fail", "refuse"]),
    st.integers(0, 4),
    st.floats(0, 40, allow_nan=False),
)


@given(st.lists(STEPS, max_size=60))
def test_it_does_what_its_description_says(steps: list[tuple[str, int, float]]) -> None:
    breaker, model, now = Breaker(), Model(), 0.0
    for what, prompt, seconds in steps:
        now += seconds
        if what == "answer":
            breaker.succeeded()
            model.answer()
        elif what == "fail":
            breaker.failed(prompt, now)
            model.fail(prompt, now)
        else:
            breaker.refused(now)
            model.fail(None, now)
        for in_flight in (0, 1, 5):
            assert breaker.admits(in_flight, now) == model.admits(in_flight, now)
        assert (breaker.state(now) is BreakerState.CLOSED) == model.closed
