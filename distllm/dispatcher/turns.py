"""The heart of the coordinator: turn by turn, one transaction writes what has ended and leases what is next."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from random import Random

from distllm.balancer.policies import Policy
from distllm.dispatcher.asker import Asker
from distllm.dispatcher.batch import Batch, announced
from distllm.dispatcher.hedges import Hedges
from distllm.dispatcher.judge import Judge
from distllm.dispatcher.placing import Placing
from distllm.dispatcher.seat import Seat
from distllm.dispatcher.station import Station
from distllm.dispatcher.texts import Texts, rendered
from distllm.domain.clock import Clock
from distllm.domain.events import Leased, Listener, Noticed
from distllm.domain.models import Ask, Paper
from distllm.store.attempts import Settlement, record_sent
from distllm.store.backlog import backlog
from distllm.store.claims import claim
from distllm.store.database import Database
from distllm.store.factors import keep_factors
from distllm.store.fleet import learn, note_work
from distllm.store.leases import Group, Lease, release, release_strangers
from distllm.store.results import prove, settle
from distllm.store.suspects import claim_suspect, next_suspect
from distllm.store.tx import StoreError, Tx

LONGEST_WAIT_SECONDS = 1.0
STRANGERS_EVERY_SECONDS = 30.0

BACKLOG_EVERY_SECONDS = 0.5
"""How old what is known of waiting papers may be, where they are placed by it."""

_SUSPECTS = (
    "prompts that were in flight whenever distllm or a server went down are asked one at a time for now, with nothing "
    "else in flight, to see whether one of them is the cause"
)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a turn's transaction did: what it leased, and the attempts that moved their prompts.

    Also whether a suspect waits for the rest, and the papers that wait.
    """

    groups: list[Group]
    moved: Set[int]
    draining: bool
    papers: Sequence[Paper]


class Turns:
    """Seats run; a turn settles what they ended and claims what they want, in one commit.

    While the database cannot be written, nothing new is leased and the answers wait here: no more than the
    leases that were taken already.
    """

    def __init__(
        self,
        *,
        database: Database,
        stations: Sequence[Station],
        policy: Policy,
        judge: Judge,
        me: int,
        request_timeout: float,
        max_retries: int,
        seats_in_all: int | None,
        may_send: Callable[[float], Awaitable[bool]],
        elsewhere: Callable[[], frozenset[int]],
        listener: Listener,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._database = database
        self._stations = {station.id: station for station in stations}
        self._policy = policy
        self._judge = judge
        self._me = me
        self._seats_in_all = seats_in_all
        self._tell = listener
        self._clock = clock
        self._rng = rng
        self._texts = Texts(database.read)
        self._wake = asyncio.Event()
        self._batch = Batch()
        self._hedges = Hedges(stations, clock)
        self._paused: Set[int] = frozenset()
        self._asker = Asker(
            self._texts,
            stations,
            self._batch,
            self._hedges,
            judge,
            self.wake,
            me=me,
            request_timeout=request_timeout,
            max_retries=max_retries,
            may_send=may_send,
            elsewhere=elsewhere,
            clock=clock,
            rng=rng,
        )
        self._models: set[str] = set()
        self._papers: Sequence[Paper] = ()
        self._backlog_due = 0.0
        self._helping: Ask | None = None
        self._planned: Set[int] = frozenset()
        self._stopping = False
        self._resting = False
        self._draining = False
        self._told_of_suspects = False
        self._leaving = False
        self._strangers_due = clock.ticks() + STRANGERS_EVERY_SECONDS
        self._write_failed = False

    @property
    def claiming(self) -> bool:
        """Whether anything more is leased."""
        return not (self._stopping or self._resting)

    @property
    def idle(self) -> bool:
        """Nothing is in flight, and nothing waits to be written."""
        return not self._batch and not any(True for station in self._stations.values() for _ in station.leases())

    def wake(self) -> None:
        """Something has changed: take the next turn at once."""
        self._wake.set()

    def stop_claiming(self) -> None:
        """Lease no more, and give back what has not been sent."""
        self._stopping = True
        self.wake()

    def rest(self, resting: bool) -> None:
        """Lease nothing while `resting`, and give back what has not been sent; what is in flight ends."""
        if resting != self._resting:
            self._resting = resting
            self.wake()

    def abort(self) -> None:
        """Stop the requests in flight; their prompts go back without a charge."""
        self._leaving = True
        self.stop_claiming()
        for station in self._stations.values():
            for seat in station.seats:
                if seat.request is not None:
                    seat.request.stop()

    def leases(self) -> set[tuple[int, int]]:
        """All leases at hand, in flight or not yet sent, as (prompt, number)."""
        return {lease.key for station in self._stations.values() for lease in station.leases()}

    def give_up(self, lost: set[tuple[int, int]], paused: set[int]) -> None:
        """Stop the requests for leases that were taken away: cancelled, or given to another.

        Nothing more is sent for those, nor for the jobs that are `paused`, whose requests in flight may end.
        """
        self._paused = paused
        for station in self._stations.values():
            for seat in station.seats:
                if seat.current is not None and seat.request is not None and seat.current.key in lost:
                    seat.request.stop()
            self._batch.returned.extend(
                station.give_up(lambda lease: lease.key in lost or lease.job_id in paused),
            )

    async def wait(self) -> None:
        """Wait until there is cause for a turn."""
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def step(self) -> int:
        """Take one turn; return how many prompts it settled or leased."""
        if not self._leaving:
            self._look_after_seats()
        self._return_unusable()
        look_at_backlog = self.claiming and self._clock.ticks() >= self._backlog_due
        if look_at_backlog:
            try:
                self._models = {job["model"] for job in await self._database.read.unfinished() if job["submitted"]}
            except StoreError as error:
                await self._wait_for_database(error)
                return 0
        # Nothing is waited for from here to the write, which puts back what it could not write.
        batch = self._batch.take()
        asks = self._asks() if self.claiming else []
        if not (batch or asks):
            self._start_seats()
            return 0
        held = self._held()
        takers = self._takers() if self.claiming else []
        at_hand = self.leases()
        known = batch.leases() | at_hand
        look_for_strangers = self._clock.ticks() >= self._strangers_due
        ended = {each.sent.id for each in batch.ended}
        under_way = [sent for sent in batch.sent if sent.id not in ended]
        now = self._clock.now()
        # Copied, since seats go on learning while the transaction runs on its thread.
        worked = [self._stations[worker_id] for worker_id in {each.sent.worker_id for each in batch.ended}]
        learnt = [(each.id, each.busy_seconds(), each.useful_seats, dict(each.rates)) for each in worked]
        factors, proven = self._judge.news
        known_papers = self._papers
        placing = self._placing() if look_at_backlog or known_papers else None

        def transaction(tx: Tx) -> _Turn:
            if look_for_strangers:
                release_strangers(tx, self._me, known)
            record_sent(tx, under_way)
            moved = settle(tx, batch.ended)
            release(tx, batch.returned)
            for worker_id, busy, seats, rates in learnt:
                note_work(tx, worker_id, busy, seats)
                for model, rate in rates.items():
                    learn(tx, worker_id, model, rate, now)
            keep_factors(tx, factors, now)
            prove(tx, proven)
            suspect = next_suspect(tx, takers, now)
            if suspect is not None:
                group = None if at_hand else claim_suspect(tx, suspect, self._me, now)
                return _Turn([] if group is None else [group], moved, draining=group is None, papers=known_papers)
            papers = backlog(tx, placing.model) if placing is not None and look_at_backlog else known_papers
            placed = asks if placing is None else placing.bounded(asks, papers)
            groups = claim(tx, placed, held, self._me, now)
            if not groups and placing is not None and placing.idle:
                # For whom the rest was left cannot have it, since it has refused it, say, or is spared.
                groups = claim(tx, asks, held, self._me, now)
            return _Turn(groups, moved, draining=False, papers=papers)

        began = self._clock.ticks()
        try:
            turn = await self._database.write(transaction)
        except StoreError as error:
            self._batch.put_back(batch)
            await self._wait_for_database(error)
            return 0
        except BaseException:
            self._batch.put_back(batch)
            raise
        groups, self._draining, self._papers = turn.groups, turn.draining, turn.papers
        leased = sum(len(group.leases) for group in groups)
        if leased:
            self._tell(Leased(leased, self._clock.ticks() - began))
        if look_at_backlog:
            self._backlog_due = self._clock.ticks() + BACKLOG_EVERY_SECONDS
        self._note_help(groups)
        self._write_failed = False
        self._asker.recorded(batch.sent)
        self._judge.written(factors, proven)
        if self._draining or any(lease.alone for group in groups for lease in group.leases):
            self._tell_of_suspects()
        if look_for_strangers:
            self._strangers_due = self._clock.ticks() + STRANGERS_EVERY_SECONDS
        try:
            await self._texts.learn({lease.job_id for group in groups for lease in group.leases})
        except StoreError as error:
            if not error.passing:
                raise
            self._batch.returned.extend(lease for group in groups for lease in group.leases)
            groups = []
        for group in groups:
            self._stations[group.worker_id].take(rendered(group))
        self._start_seats()
        if not self._draining and not self._asking_alone:
            self._help_out()
            self._hedge()
        for each in batch.ended:
            self._announce(each, moved=each.sent.id in turn.moved)
        return len(batch.ended) + leased

    def _placing(self) -> Placing | None:
        """The pace of the fleet, where it can be told: several workers, and one model for all that they can do."""
        stations = [station for station in self._stations.values() if station.taking]
        models = {model for model in self._models if any(station.serves(model) for station in stations)}
        if len(stations) < 2 or len(models) != 1:
            return None
        [model] = models
        placing = Placing(stations, model, self._clock.ticks())
        return placing if placing.places else None

    def _help_out(self) -> None:
        """Have a worker that found nothing take prompts from one that would end last; none that the policy spares."""
        idle = {
            station.id
            for station in self._stations.values()
            if station.taking and station.has_free_seat and station.id in self._planned
        }
        placing = self._placing() if idle and self.claiming and self._room() > 0 else None
        found = None if placing is None else placing.help_out(idle)
        if found is not None:
            self._helping, taken = found
            self._batch.returned.extend(taken)
            self.wake()

    def _note_help(self, groups: Sequence[Group]) -> None:
        """Who was to help and could have nothing, since it has refused that before, is not to help with it again."""
        helping, self._helping = self._helping, None
        if helping is not None and not any(
            (group.worker_id, group.reading_id) == (helping.worker_id, helping.reading) for group in groups
        ):
            assert helping.reading is not None
            self._stations[helping.worker_id].cannot_help.add(helping.reading)

    def _hedge(self) -> None:
        """Have a worker that found nothing asked what another one takes long for, where nothing unsent is left."""
        if self._helping is not None or not self.claiming or self._room() <= 0:
            return
        found = self._hedges.begin(self._paused, self._planned)
        if found is not None:
            station, seat, lease = found
            seat.task = asyncio.create_task(self._run(station, seat, lease))
            self.wake()

    @property
    def _asking_alone(self) -> bool:
        """Whether a prompt is to have nothing beside it."""
        return any(lease.alone for station in self._stations.values() for lease in station.leases())

    def _takers(self) -> list[Ask]:
        """Whoever could take a prompt that is to be asked alone."""
        return [Ask(station.id, station.windows(), limit=1) for station in self._stations.values() if station.taking]

    def _tell_of_suspects(self) -> None:
        if not self._told_of_suspects:
            self._told_of_suspects = True
            self._tell(Noticed(_SUSPECTS))

    def _asks(self) -> list[Ask]:
        if self._asking_alone:
            return []
        stations = [station for station in self._stations.values() if station.taking]
        means = [station.mean_seconds for station in stations if station.mean_seconds]
        held = self._held()
        machines = [station.view(min(means, default=None), held) for station in stations]
        asks = self._policy.plan(machines, self._rng)
        # Who is still at work now may find something in the next turn.
        self._planned = {ask.worker_id for ask in asks if self._stations[ask.worker_id].has_free_seat}
        if self._helping is not None:
            asks = [self._helping, *asks]
        return asks if self._seats_in_all is None else asks[: max(0, int(self._room()))]

    def _held(self) -> set[int]:
        """The readings that others are not to begin with: not those of a worker that may never end them."""
        return {reading for station in self._stations.values() if station.trusted for reading in station.readings()}

    def _room(self) -> float:
        """How many more seats may be at work; what is leased will be in flight too."""
        if self._seats_in_all is None:
            return math.inf
        return self._seats_in_all - sum(1 for station in self._stations.values() for _ in station.readings())

    def _return_unusable(self) -> None:
        for station in self._stations.values():
            keep = self.claiming and not self._draining and station.ours and station.trusted
            self._batch.returned.extend(station.surplus() if keep else station.unsent())

    async def _wait_for_database(self, error: StoreError) -> None:
        if not error.passing:
            raise error
        # A commit that is said to have failed may have happened: then nobody knows what it leased.
        self._strangers_due = self._clock.ticks()
        if not self._write_failed:
            self._write_failed = True
            self._tell(Noticed(f"{error} (waiting; nothing is lost)"))
        await asyncio.sleep(LONGEST_WAIT_SECONDS)

    def _start_seats(self) -> None:
        for station in self._stations.values():
            for seat in station.seats:
                if (seat.task is None or seat.task.done()) and station.may_send(seat):
                    seat.task = asyncio.create_task(self._run(station, seat))

    def _look_after_seats(self) -> None:
        """A seat that broke is a mistake of distllm's own: it ends the run loudly instead of losing a lease."""
        for station in self._stations.values():
            for seat in station.seats:
                if seat.task is not None and seat.task.done():
                    seat.task.result()

    async def _run(self, station: Station, seat: Seat, hedge: Lease | None = None) -> None:
        """One seat: what another one asks already, if that is given, and prompt after prompt until it has none."""
        if hedge is not None:
            await self._ask_too(station, seat, hedge)
            self.wake()
        while self.claiming and not self._draining and (lease := station.next_lease(seat)) is not None:
            assert seat.group is not None
            try:
                await self._asker.ask(station, seat, seat.group, lease)
            except Exception:
                # Given back by the next turn, which tells of the mistake.
                seat.current = None
                seat.leases.appendleft(lease)
                raise
            self.wake()
        self.wake()

    async def _ask_too(self, station: Station, seat: Seat, lease: Lease) -> None:
        try:
            if seat.group is not None and self.claiming and self._hedges.wanted(lease, station, seat):
                await self._asker.ask(station, seat, seat.group, lease)
        finally:
            # Whatever went wrong, the lease is the other seat's to give back.
            seat.current = None
            self._hedges.ended(lease, seat, answered=False)

    def _announce(self, each: Settlement, *, moved: bool) -> None:
        event = announced(each, self._stations[each.sent.worker_id].worker.name, moved=moved)
        if event is not None:
            self._tell(event)
