"""How many requests a worker is sent: what it tells is believed, what it does not is found out, and busy is heeded."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.balancer.concurrency import FIRST_REST, Concurrency, Sent, Work, most_at_once
from tests.balancer.simulated import Fleet, Server, shelf


def gpu(writing: int) -> float:
    return writing**0.8


def cpu(writing: int) -> float:
    return {1: 1.0, 2: 1.1, 3: 1.22}.get(writing, 1.35)


class Fixed(Concurrency):
    """All seats at all times."""

    @property
    def _climb(self) -> None:
        return None


def answer(model: str = "m", written: int = 100, seconds: float = 1.0) -> Work:
    return Work(model, 0, written, seconds)


class Hand:
    """Keeps all seats busy with answers that take a second."""

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.now = 0.0
        self.in_flight: list[Sent] = []
        self.fill()

    def fill(self) -> None:
        while len(self.in_flight) < self.concurrency.allowed:
            self.in_flight.append(self.concurrency.sent(self.now))

    def answered(self, times: int, model: str = "m") -> None:
        """So many times: every seat's request ends with an answer, and another one is sent."""
        for _ in range(times):
            self.now += 1.0
            ended, self.in_flight = self.in_flight, []
            for sent in ended:
                self.concurrency.ended(sent, self.now, answer(model))
            self.fill()

    def busy(self) -> None:
        """The server is too busy for all that it was sent."""
        self.now += 0.1
        ended, self.in_flight = self.in_flight, []
        for sent in ended:
            self.concurrency.ended(sent, self.now, None)
            self.concurrency.busy(sent)
        self.fill()


def test_who_tells_neither_slots_nor_has_a_limit_is_asked_one_thing_at_a_time() -> None:
    concurrency = Concurrency(None)
    Hand(concurrency).answered(200)
    assert (concurrency.most, concurrency.allowed, concurrency.useful) == (1, 1, None)


@pytest.mark.parametrize(("limit", "slots", "seats"), [(None, 4, 4), (8, 4, 4), (2, 4, 2), (8, 1, 1), (1, 8, 1)])
def test_slots_that_are_told_are_believed_and_the_lower_limit_holds(limit: int | None, slots: int, seats: int) -> None:
    concurrency = Concurrency(limit, known=1)
    concurrency.told(slots)
    Hand(concurrency).answered(200)
    assert (concurrency.most, concurrency.allowed, concurrency.useful) == (seats, seats, None)
    concurrency.told(None)
    assert concurrency.allowed == seats


def test_a_limit_without_end_is_no_army_of_seats() -> None:
    assert Concurrency(10**9).most == 1024


@pytest.mark.parametrize("limit", [2, 4, 8])
def test_a_server_with_one_slot_is_soon_asked_one_thing_at_a_time(limit: int) -> None:
    papers = shelf(100, seed=limit)
    least = Fleet(Server(1, gpu), Fixed(1)).work(papers)
    assert Fleet(Server(1, gpu), Fixed(limit)).work(papers) > 2.2 * least
    concurrency = Concurrency(limit)
    assert Fleet(Server(1, gpu), concurrency).work(papers) < 1.5 * least
    assert concurrency.useful == 1


@pytest.mark.parametrize(("slots", "limit"), [(2, 4), (3, 4), (4, 8)])
def test_a_server_with_fewer_slots_than_seats_is_asked_about_as_many_papers_as_it_keeps(slots: int, limit: int) -> None:
    papers = shelf(200, seed=slots)
    least = Fleet(Server(slots, gpu), Fixed(slots)).work(papers)
    assert Fleet(Server(slots, gpu), Fixed(limit)).work(papers) > 2.5 * least
    concurrency = Concurrency(limit)
    assert Fleet(Server(slots, gpu), concurrency).work(papers) < 1.5 * least
    assert concurrency.useful is not None
    assert abs(concurrency.useful - slots) <= 1


@pytest.mark.parametrize("gain", [gpu, cpu])
@pytest.mark.parametrize("limit", [2, 4, 8, 32])
def test_a_server_that_has_the_slots_loses_little_by_the_trials(gain: Callable[[int], float], limit: int) -> None:
    papers = shelf(200, seed=limit)
    least = Fleet(Server(limit, gain), Fixed(limit)).work(papers)
    assert Fleet(Server(limit, gain), Concurrency(limit)).work(papers) < 1.1 * least


def test_a_small_job_has_all_the_seats_that_are_configured() -> None:
    papers = shelf(6, seed=1)
    fleet = Fleet(Server(4, gpu), Concurrency(4))
    assert fleet.work(papers) == Fleet(Server(4, gpu), Fixed(4)).work(papers)
    assert fleet.most == 4


def test_what_was_found_is_where_the_next_run_starts() -> None:
    papers = shelf(100, seed=5)
    first = Concurrency(4)
    Fleet(Server(1, gpu), first).work(papers)
    again = Fleet(Server(1, gpu), Concurrency(4, known=first.useful))
    assert again.concurrency.allowed == 1
    assert again.work(papers) < 1.15 * Fleet(Server(1, gpu), Fixed(1)).work(papers)


def test_a_lack_of_work_is_not_taken_for_slowness() -> None:
    # One paper at a time leaves three of four seats without work.
    concurrency = Concurrency(4)
    fleet = Fleet(Server(4, gpu), concurrency)
    for paper in shelf(40, seed=7):
        fleet.work([paper])
    assert concurrency.useful is None
    assert concurrency.allowed == 4


def test_the_answers_of_two_models_are_not_compared() -> None:
    concurrency = Concurrency(4)
    hand = Hand(concurrency)
    for _ in range(50):
        hand.answered(2, "small")
        hand.answered(2, "large")
    assert concurrency.useful is None
    hand.answered(50, "large")
    assert concurrency.useful is not None


def test_a_burst_of_busy_halves_the_seats_once() -> None:
    concurrency = Concurrency(8)
    hand = Hand(concurrency)
    hand.busy()
    assert concurrency.allowed == concurrency.finishing == 4
    hand.busy()
    assert concurrency.allowed == 2
    hand.busy()
    hand.busy()
    hand.busy()
    assert concurrency.allowed == 1


@pytest.mark.parametrize("told", [True, False])
def test_after_busy_the_seats_come_back_one_by_one(told: bool) -> None:
    concurrency = Concurrency(4)
    if told:
        concurrency.told(4)
    hand = Hand(concurrency)
    hand.busy()
    seats = []
    for _ in range(2 * FIRST_REST):
        seats.append(concurrency.allowed)
        hand.answered(1)
    assert seats == [2] * FIRST_REST + [3] * FIRST_REST
    assert concurrency.allowed == concurrency.finishing == 4


def test_a_server_that_is_busy_again_is_given_twice_the_rest() -> None:
    concurrency = Concurrency(4)
    concurrency.told(4)
    hand, waited = Hand(concurrency), []
    for _ in range(4):
        hand.busy()
        rounds = 0
        while concurrency.allowed < 3:
            hand.answered(1)
            rounds += 1
        waited.append(rounds)
    assert waited == [FIRST_REST * 2**n for n in range(4)]
    # A window in order, with all seats, and all is forgotten.
    hand.answered(500)
    hand.busy()
    hand.answered(2 * FIRST_REST)
    assert concurrency.allowed == 4


def test_a_server_that_is_busy_when_asked_for_more_keeps_what_it_had() -> None:
    concurrency = Concurrency(8, known=4)
    hand = Hand(concurrency)
    while concurrency.allowed == 4:
        hand.answered(1)
    assert concurrency.allowed == 5
    hand.busy()
    assert concurrency.allowed == 4


def test_spans_that_only_touch_do_not_overlap() -> None:
    assert most_at_once([]) == 0
    assert most_at_once([(0.0, 1.0), (1.0, 2.0)]) == 1
    assert most_at_once([(0.0, 2.0), (1.0, 3.0), (1.5, 1.75), (2.5, 4.0)]) == 3


@given(
    limit=st.none() | st.integers(1, 12),
    known=st.none() | st.integers(1, 20),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "answer", "fail", "busy", "told"]), st.integers(0, 20), st.floats(0.0, 100.0)
        ),
        max_size=200,
    ),
)
def test_whatever_happens_there_is_a_seat_and_never_one_beyond_the_limit(
    limit: int | None, known: int | None, steps: list[tuple[str, int, float]]
) -> None:
    concurrency, now, slots = Concurrency(limit, known), 0.0, None
    in_flight: list[Sent] = []
    for what, number, seconds in steps:
        now += seconds
        if what == "told":
            slots = number or slots
            concurrency.told(number or None)
        elif what == "send":
            in_flight.append(concurrency.sent(now))
        elif in_flight:
            sent = in_flight.pop(number % len(in_flight))
            concurrency.ended(sent, now, answer(seconds=seconds) if what == "answer" else None)
            if what == "busy":
                concurrency.busy(sent)
        bounds = [bound for bound in (limit, slots) if bound is not None]
        assert 1 <= concurrency.allowed <= concurrency.most <= min(bounds, default=1)
        assert concurrency.allowed <= concurrency.finishing <= concurrency.most
