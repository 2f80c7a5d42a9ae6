"""One worker at work: its seats, what they hold, and what is known of its health and speed."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace

from distllm.balancer.breaker import Breaker, BreakerState
from distllm.balancer.concurrency import Concurrency, Work
from distllm.balancer.models import ANY_MODEL
from distllm.balancer.policies import Machine
from distllm.balancer.rates import learnt
from distllm.balancer.weights import weigh
from distllm.dispatcher.seat import Seat
from distllm.domain.clock import Clock
from distllm.domain.models import ErrorClass, Health, Offer, Outcome, Rates, Usage
from distllm.domain.tokens import estimate_tokens
from distllm.store.fleet import Knowledge
from distllm.store.leases import Group, Lease
from distllm.workers.base import Worker

UNTOLD_WINDOW = 2**31
"""For a server that does not tell its window: everything is offered to it, and no answer is proven."""


class Station:
    """A worker with its seats. `aliases` are groups of names that mean one model.

    `limit` is the number of seats that is configured, None to believe the server, or one. It is `silent` if it missed
    a probe with requests in flight and has answered nothing since. While it is not `ours`, another coordinator may be
    asking its worker: nothing is sent. One that is `leaving` ends what was leased for it, and is another's then. It
    `cannot_help` with the readings of which it could have nothing when it was to help another with them.
    """

    def __init__(
        self,
        worker_id: int,
        worker: Worker,
        limit: int | None,
        aliases: Sequence[Sequence[str]],
        known: Knowledge,
        clock: Clock,
    ) -> None:
        self.id = worker_id
        self.worker = worker
        self.breaker = Breaker()
        self.health: Health | None = None
        self.looks = 0
        self.silent = False
        self.ours = True
        self.leaving = False
        self.rates = dict(known.rates)
        self.ready: deque[Group] = deque()
        self.seats: list[Seat] = []
        self.cannot_help: set[int] = set()
        self._limit = limit
        self._warm = deque(known.read_last)
        self._sent = set(known.read_last)
        self._answered: dict[str, float] = {}
        self._concurrency = Concurrency(limit, known.seats)
        self._aliases = aliases
        self._refusals: dict[str, str] = {}
        self._withheld: set[str] = set()
        self._served: dict[str, Offer] = {}
        self._answers = self._failures = 0
        self._answer_seconds = 0.0
        self._written = known.written
        self._clock = clock
        self._busy_since: float | None = None
        self._busy = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that have been sent and not ended."""
        return sum(seat.current is not None for seat in self.seats)

    @property
    def busy(self) -> bool:
        """Whether any request is in flight."""
        return any(seat.current is not None for seat in self.seats)

    @property
    def well(self) -> bool:
        """Whether the newest look at it found it healthy."""
        return self.health is not None and self.health.healthy

    @property
    def trusted(self) -> bool:
        """Whether what was leased for it is its own until it is sent.

        A probe that a busy worker misses proves little; prompts that have failed there do, until it is tried again.
        """
        return self.usable or any(
            seat.current is not None and not self.breaker.opened_since(seat.began) for seat in self.seats
        )

    @property
    def usable(self) -> bool:
        """Whether it may be sent anything now."""
        return (
            self.ours
            and self.well
            and (self.breaker.closed or self.breaker.admits(self.in_flight, self._clock.ticks()))
        )

    @property
    def taking(self) -> bool:
        """Whether more may be leased for it now."""
        return self.usable and not self.leaving

    @property
    def mean_seconds(self) -> float | None:
        """The mean time of its answers in this run; None before the first."""
        return self._answer_seconds / self._answers if self._answers else None

    @property
    def written(self) -> tuple[int, int]:
        """Its answers so far, in other runs too, and the tokens that it wrote for them."""
        return self._written

    def take_over(self, known: Knowledge) -> None:
        """It is ours from now on, after it was another coordinator's; nothing is in flight."""
        self.ours, self.leaving = True, False
        self.rates = dict(known.rates)
        self._written = known.written
        self._warm = deque(known.read_last)
        self._sent.update(known.read_last)
        self._concurrency = Concurrency(self._limit, known.seats)
        self.breaker = Breaker()
        if known.breaker != BreakerState.CLOSED:
            self.breaker.refused(self._clock.ticks())
        self.seats.clear()
        if self.health is not None and self.health.healthy:
            self._concurrency.told(self.health.slots)
            self._set_up_seats()

    def note(self, health: Health) -> None:
        """Take in what a probe found."""
        self.health = health
        self.looks += 1
        self.silent = False
        if not health.healthy:
            return
        self._withheld.clear()
        self._concurrency.told(health.slots)
        self._served = {}
        for offer in health.offers:
            own = {offer.model, *offer.also}
            names = own.union(*(group for group in self._aliases if own & set(group)))
            self._served |= dict.fromkeys(names, offer)
        if health.offers:
            self._served[ANY_MODEL] = next((offer for offer in health.offers if offer.loaded), health.offers[0])
        self._set_up_seats()

    def _set_up_seats(self) -> None:
        while len(self.seats) < self._concurrency.allowed:
            self.seats.append(Seat(len(self.seats), self._warm.popleft() if self._warm else None))

    def windows(self) -> dict[str, int]:
        """The models that jobs may name for this worker, with the tokens that its window holds."""
        return {
            name: offer.context_length or UNTOLD_WINDOW
            for name, offer in self._served.items()
            if name not in self._withheld
        }

    @property
    def refusing(self) -> bool:
        """Whether it is not offered some model for now, so that its windows say nothing final."""
        return bool(self._withheld)

    def serves(self, model: str) -> bool:
        """Whether it may be asked for a model now."""
        return model in self._served and model not in self._withheld

    def may_have(self, model: str) -> bool:
        """Whether it serves a model, or may do so once it is well: then nothing is final without it."""
        return not self.well or self.refusing or self.serves(model)

    def offer(self, model: str) -> Offer:
        """What this worker calls a job's model, and its window."""
        return self._served[model]

    def _learn_window(self, model: str, window: int) -> None:
        """Believe what a call has met; the next probe would tell it too, but only then."""
        offer = self._served.get(model)
        if offer is not None and not offer.window_told:
            told = replace(offer, context_length=window, window_told=True)
            self._served |= {name: told for name, each in self._served.items() if each.model == offer.model}

    def refuse(self, model: str, why: str) -> None:
        """Stop offering this worker for a model until a probe has looked again."""
        self._refusals[model] = why
        self._withheld.add(model)

    def why_refused(self, model: str) -> str | None:
        """What the server said that refused a model when it was asked last; None if it answered, or was not asked."""
        return self._refusals.get(model)

    def has_answered(self, model: str) -> bool:
        """Whether it has given any answer for a model in this run."""
        return model in self._answered

    def view(self, best_seconds: float | None, held: Set[int]) -> Machine:
        """This worker as a policy sees it: a seat wants work once nothing unsent is left for it.

        What an idle seat has read is no more its own if it is `held` by another, who reads it now.
        """
        wanting = [seat for seat in self.open_seats() if seat.wanting] if self.taking else []
        wanting = wanting[: max(0, len(wanting) - len(self.ready))]
        asked = self._answers + self._failures
        weight = weigh(
            availability=max(0.0, 1 - self.in_flight / self._concurrency.allowed),
            success_rate=self._answers / asked if asked else 1.0,
            seconds=self.mean_seconds,
            best_seconds=best_seconds,
        )
        readings = tuple(
            seat.reading if seat.current is not None or seat.reading not in held else None for seat in wanting
        )
        return Machine(self.id, self.windows(), weight * self.worker.weight, readings, self.worker.name)

    @property
    def has_free_seat(self) -> bool:
        """Whether a seat has nothing to do, and nothing waits for it."""
        return not self.ready and any(seat.wanting and seat.current is None for seat in self.open_seats())

    def open_seats(self) -> Sequence[Seat]:
        """The seats that may take something new now."""
        return self.seats[: self._concurrency.allowed]

    @property
    def useful_seats(self) -> int | None:
        """How many seats were found to be of use; None where the server tells its slots, or nothing was tried."""
        return self._concurrency.useful

    def take(self, group: Group) -> None:
        """Accept leased prompts: on the seat that has read them, or for whichever is free next.

        What puts answers together is for any seat, whatever the reading that it is counted with.
        """
        for seat in () if group.leases[0].level else self.open_seats():
            if seat.group is not None and seat.group.reading_id == group.reading_id and not seat.leases:
                # Its text too: what is pruned leaves its id to another.
                seat.group = group
                seat.leases.extend(group.leases)
                return
        self.ready.append(group)

    def next_lease(self, seat: Seat) -> Lease | None:
        """The next prompt for a seat, of its own reading first; None if there is none to send now."""
        if not self.may_send(seat):
            return None
        if not seat.leases:
            seat.group = self.ready.popleft()
            seat.leases.extend(seat.group.leases)
        if seat.group is None or not self.serves(seat.group.model):
            return None
        return seat.leases.popleft()

    def may_send(self, seat: Seat) -> bool:
        """Whether there is something that this seat may send now: one that is closed ends what it holds.

        A server that is too busy may have all that it can take from seats that are closed since.
        """
        finishing = self._concurrency.finishing
        held = bool(seat.leases) and seat.place < finishing
        begins = bool(self.ready) and seat.place < self._concurrency.allowed
        return self.usable and (held or begins) and self.in_flight < finishing

    def readings(self) -> Iterator[int]:
        """The readings that are this worker's for now."""
        yield from (group.reading_id for group in self.ready)
        for seat in self.seats:
            if seat.group is not None and (seat.leases or seat.current):
                yield seat.group.reading_id

    def unsent(self) -> list[Lease]:
        """All leases that have not been sent; they are this worker's no more."""
        leases = [lease for group in self.ready for lease in group.leases]
        self.ready.clear()
        for seat in self.seats:
            leases.extend(seat.leases)
            seat.leases.clear()
        return leases

    def give_up(self, unwanted: Callable[[Lease], bool]) -> list[Lease]:
        """The `unwanted` leases that have not been sent; they are this worker's no more."""
        groups = [
            replace(group, leases=tuple(lease for lease in group.leases if not unwanted(lease))) for group in self.ready
        ]
        leases = [lease for group in self.ready for lease in group.leases if unwanted(lease)]
        self.ready = deque(group for group in groups if group.leases)
        for seat in self.seats:
            leases.extend(lease for lease in seat.leases if unwanted(lease))
            seat.leases = deque(lease for lease in seat.leases if not unwanted(lease))
        return leases

    def surplus(self) -> list[Lease]:
        """The leases on seats that are no longer allowed, or for a model that it has no longer.

        They are this worker's no more.
        """
        leases: list[Lease] = []
        for seat in self.seats:
            lost = seat.group is not None and not self.serves(seat.group.model)
            if lost or seat.place >= self._concurrency.finishing:
                leases.extend(seat.leases)
                seat.leases.clear()
        for group in [group for group in self.ready if not self.serves(group.model)]:
            self.ready.remove(group)
            leases.extend(group.leases)
        return leases

    def leases(self) -> Iterator[Lease]:
        """All leases, sent or not."""
        for group in self.ready:
            yield from group.leases
        for seat in self.seats:
            yield from seat.leases
            if seat.current is not None:
                yield seat.current

    def begin(self, seat: Seat, lease: Lease) -> None:
        """A request is sent."""
        now = self._clock.ticks()
        if self._busy_since is None:
            self._busy_since = now
        seat.current, seat.sent = lease, self._concurrency.sent(now)
        seat.began, seat.reads = now, 0 if seat.cached == lease.reading_id and not lease.level else lease.needs
        # A merge reads none of its document.
        seat.cached = None if lease.level else lease.reading_id
        seat.fresh = bool(lease.level) or lease.reading_id not in self._sent
        if not lease.level:
            self._sent.add(lease.reading_id)

    def end(self, seat: Seat, model: str, outcome: Outcome) -> None:
        """A request has ended: learn from it."""
        lease, seat.current = seat.current, None
        assert lease is not None
        assert seat.sent is not None
        now = self._clock.ticks()
        if outcome.window is not None:
            self._learn_window(model, outcome.window)
        if self._busy_since is not None and not self.busy:
            self._busy += now - self._busy_since
            self._busy_since = None
        if outcome.error_class is not None:
            self._concurrency.ended(seat.sent, now, None)
        match outcome.error_class:
            case None:
                self.silent = False
                self.breaker.succeeded()
                self._answers += 1
                self._answer_seconds += outcome.seconds
                answers, tokens = self._written
                self._written = answers + 1, tokens + (outcome.usage.completion_tokens or 0)
                self.rates[model] = learnt(self.rates.get(model, Rates()), self._cost(seat, lease, model, outcome))
                self._answered.setdefault(model, now)
                self._refusals.pop(model, None)
                self._concurrency.ended(seat.sent, now, _work(seat, model, outcome))
                self._set_up_seats()
            case ErrorClass.BROKEN:
                self.breaker.failed(lease.prompt_id, now)
                self._failures += 1
            case ErrorClass.LOST:
                seat.forget()
                self._failures += 1
                if not lease.alone:
                    self.breaker.failed(lease.prompt_id, now)
            case ErrorClass.REFUSED:
                seat.forget()
                self.breaker.refused(now)
            case ErrorClass.BUSY:
                self._concurrency.busy(seat.sent)
                if not self.busy:
                    self.breaker.refused(now)
            case ErrorClass.SETUP:
                self.refuse(model, outcome.error or "")
            case _:
                pass

    def _cost(self, seat: Seat, lease: Lease, model: str, outcome: Outcome) -> Usage:
        """What an answer cost, by the clock of its stream where the server tells no times.

        Without the time to read what may have been cached, or for which a model may have been loaded, untold.
        """
        usage = outcome.usage
        prefill, decode = usage.prefill_seconds, usage.decode_seconds
        if prefill is None and decode is None and outcome.writing_seconds is not None:
            decode = outcome.writing_seconds
            # Requests of others may begin alike, and what was sent before the first answer waited for the loading.
            own = lease.template_id is not None and self._answered.get(model, math.inf) <= seat.began
            prefill = outcome.first_token_seconds if own else None
        if usage.cached_tokens is None and not seat.fresh:
            prefill = None
        return replace(usage, prefill_seconds=prefill, decode_seconds=decode)

    def busy_seconds(self) -> float:
        """Time with a request in flight since this was asked last."""
        now = self._clock.ticks()
        busy, self._busy = self._busy, 0.0
        if self._busy_since is not None:
            busy += now - self._busy_since
            self._busy_since = now
        return busy


def _work(seat: Seat, model: str, outcome: Outcome) -> Work:
    writing = outcome.seconds - (outcome.first_token_seconds or 0.0)
    written = outcome.usage.completion_tokens or estimate_tokens(outcome.answer)
    return Work(model, seat.reads, written, writing)
