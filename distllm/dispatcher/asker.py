"""One prompt asked of one worker: its call, its limits, its attempt on record, and the verdict on what came back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random

from distllm.dispatcher.asked import Asked
from distllm.dispatcher.batch import Batch, released
from distllm.dispatcher.hedges import Hedges
from distllm.dispatcher.judge import Judge
from distllm.dispatcher.seat import Seat
from distllm.dispatcher.station import Station
from distllm.dispatcher.stoppable import Stoppable
from distllm.dispatcher.texts import Texts
from distllm.domain.clock import Clock
from distllm.domain.models import Limits, Outcome
from distllm.domain.policy import Refused, limits, verdict
from distllm.store.attempts import Sent, Settlement
from distllm.store.leases import Group, Lease


class Asker:
    """Asks, and puts into `batch` what the next transaction has to write; `wake` is called when that is urgent.

    `may_send` tells whether a request may be in flight for so many seconds, once that is certain; `elsewhere` are the
    workers that only other coordinators know.
    """

    def __init__(
        self,
        texts: Texts,
        stations: Sequence[Station],
        batch: Batch,
        hedges: Hedges,
        judge: Judge,
        wake: Callable[[], None],
        *,
        me: int,
        request_timeout: float,
        max_retries: int,
        may_send: Callable[[float], Awaitable[bool]],
        elsewhere: Callable[[], frozenset[int]],
        clock: Clock,
        rng: Random,
    ) -> None:
        self._texts = texts
        self._stations = stations
        self._batch = batch
        self._hedges = hedges
        self._judge = judge
        self._wake = wake
        self._me = me
        self._request_timeout = request_timeout
        self._max_retries = max_retries
        self._may_send = may_send
        self._elsewhere = elsewhere
        self._clock = clock
        self._rng = rng
        self._attempts = 0
        self._unrecorded: dict[int, asyncio.Future[None]] = {}

    def recorded(self, attempts: Iterable[Sent]) -> None:
        """These are on disk: what waited for that is sent now."""
        for sent in attempts:
            waiting = self._unrecorded.pop(sent.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def ask(self, station: Station, seat: Seat, group: Group, lease: Lease) -> None:
        """Send one prompt, and put what became of it into the batch."""
        offer = station.offer(group.model)
        call = self._texts.call(lease, group, offer.model)
        rates = station.rates.get(group.model)
        bounds = limits(
            sent_tokens=call.tokens,
            max_tokens=call.max_tokens,
            request_timeout=self._request_timeout,
            prefill_rate=rates.prefill if rates else None,
            decode_rate=rates.decode if rates else None,
        )
        sent = Sent(self._new_id(), lease, station.id, self._me, self._clock.now(), call.tokens)
        asked = self._judge.asks(station, sent, call, document=lease.template_id is not None)
        self._batch.sent.append(sent)
        station.begin(seat, lease)
        began = self._clock.ticks()
        seat.request = Stoppable()
        outcome = await seat.request.wait(self._send(sent, asked, bounds))
        if outcome is None:
            outcome = released(self._clock.ticks() - began)
        seat.request = None
        outcome, proven = self._judge.judge(asked, outcome, offer)
        station.end(seat, group.model, outcome)
        self._hedges.ended(lease, seat, answered=outcome.error_class is None)
        now = self._clock.now()
        judged = verdict(
            outcome,
            failures=lease.failures,
            losses=lease.losses,
            deaths_alone=lease.deaths_alone,
            max_retries=self._max_retries,
            now=now,
            rng=self._rng,
        )
        others: tuple[int, ...] = ()
        if isinstance(judged, Refused):
            others = *(other.id for other in self._stations if other.may_have(group.model)), *self._elsewhere()
        self._batch.ended.append(Settlement(sent, outcome, judged, proven, now, others, offer.digest))

    async def _send(self, sent: Sent, asked: Asked, bounds: Limits) -> Outcome:
        if not await self._may_send(bounds.total):
            return released(0.0)
        if sent.lease.number > 1:
            # It may be what coordinators die of: then the next one must find that it was in flight.
            recorded = self._unrecorded[sent.id] = asyncio.get_running_loop().create_future()
            self._wake()
            await recorded
        worker = asked.station.worker
        if not self._judge.wants_count(asked):
            return await worker.ask(asked.call, bounds)
        async with asyncio.TaskGroup() as both:
            # While the server reads, which takes it longer.
            counting = both.create_task(worker.count(asked.call))
            asking = both.create_task(worker.ask(asked.call, bounds))
        if (count := counting.result()) is not None:
            self._judge.counted(asked, count)
        return asking.result()

    def _new_id(self) -> int:
        self._attempts += 1
        return (self._me << 32) + self._attempts
