"""Whether a server has read all that it was sent: what it counts, beside what was sent and what it counted before.

A window that a server tells is no proof, since some tell a larger one than they have. What proves is the count: of a
reading that the server's own tokenizer has counted too; or between bounds so close that any loss worth finding would
show; or of a prompt shorter than one that the same server was proven to have read whole. A server that does not tell
what it had cached may leave that out of its count: too small a count accuses it of a cut only by what is surely new.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from distllm.dispatcher.asked import Asked, Key, Known, Read, cut, fewest_of, read_of
from distllm.dispatcher.lessons import STEADY, Lessons
from distllm.dispatcher.recent import Recent, Texts
from distllm.dispatcher.station import Station
from distllm.domain.factors import UNLEARNT, Bounds, Factors, around
from distllm.domain.models import Call, Offer, Outcome
from distllm.domain.policy import Proof, proof
from distllm.domain.tokens import Makeup, fewest_tokens, makeup_of, texts_of
from distllm.store.attempts import Sent

K = TypeVar("K")

SMALL_SHARE, LARGE_SHARE = 0.02, 0.5
"""A count that may leave out a small share of a prompt is learnt from; up to a large one, if nothing ever was left out.

That shows where the same server may have had more than a large share cached, and counted all the same.
"""

LEAST_LOSS = 0.1
"""The share of a prompt that a cut takes at least."""

MOST_READINGS = 10_000
"""Of how many readings it is remembered what was counted."""

MOST_MODELS = 1_000

MOST_DOUBTS = 500
"""How many answers of a model are looked at again once more is known of it."""

FEW_DOUBTS, SELDOM = 60, 8
"""So few are looked at after each count, and more of them after so many counts each time."""

LOOKS = 3
"""How often they are looked at then, since what proves one may prove another."""


class Judge:
    """Judges answers by their counts, and learns from them.

    `factors` are what other runs learnt of models; `read_before` the readings that each worker was asked about.
    """

    def __init__(self, factors: Mapping[str, Factors], read_before: Mapping[int, Sequence[int]]) -> None:
        self._lessons = {model: Lessons(each) for model, each in factors.items()}
        self._changed: dict[str, Factors] = {}
        self._read_before = read_before
        self._recent: dict[int, Recent] = {}
        self._known: dict[Key, Known] = {}
        self._learnt: dict[tuple[str, int], None] = {}
        self._held: dict[tuple[int, Offer], int] = {}
        self._leaves_out: dict[int, bool] = {}
        self._apart: dict[tuple[Makeup, Makeup], tuple[Factors, float, float]] = {}
        self._doubts: dict[str, deque[Read]] = {}
        self._proven: list[Sent] = []

    @property
    def news(self) -> tuple[dict[str, Factors], list[Sent]]:
        """What is not yet written: what was learnt of models, and the answers that are proven by that."""
        return dict(self._changed), list(self._proven)

    def written(self, factors: Mapping[str, Factors], proven: Sequence[Sent]) -> None:
        """These are written."""
        for model, each in factors.items():
            if self._changed.get(model) is each:
                del self._changed[model]
        del self._proven[: len(proven)]

    def asks(self, station: Station, sent: Sent, call: Call, *, document: bool) -> Asked:
        """A request is about to be sent; its texts are a document's, or a batch's."""
        texts = texts_of(call)
        own = makeup_of(texts[1:] if call.system else texts)
        if station.id not in self._recent:
            self._recent[station.id] = Recent(self._read_before.get(station.id, ()))
        self._recent[station.id].add(texts)
        return Asked(station, sent, document, call, texts, own)

    def wants_count(self, asked: Asked) -> bool:
        """Whether the server's tokenizer is to count this: once for each reading."""
        return asked.station.worker.counts_tokens and asked.key not in self._known

    def counted(self, asked: Asked, count: int) -> None:
        """The server's tokenizer has counted a request."""
        self._keep(asked.key, Known(count, asked.own, whole=True, exact=True))

    def judge(self, asked: Asked, outcome: Outcome, offer: Offer) -> tuple[Outcome, Proof]:
        """The outcome as it stands once what was read is compared with what was sent, and what is proven.

        `offer` is what was known of the model and its window when it was asked.
        """
        count = outcome.usage.prompt_tokens
        if outcome.error_class is not None or count is None:
            return outcome, "unproven"
        model, known = outcome.model or asked.call.model, self._known.get(asked.key)
        if known is not None and known.whole and self._is_next(asked, outcome, offer, model, known):
            return outcome, "proven"
        read = read_of(asked, outcome, offer, count, learnt=self._taught(model).counts > 0)
        bounds = self._bounds(model, read)
        if count < bounds.floor:
            least = bounds.floor if read.told else self._floor_of_new(asked, model)
            if count < least:
                return cut(asked.station.worker, outcome, count, least), "unproven"
            self._leaves_out[asked.station.id] = True
            return outcome, "unproven"
        proven = self._prove(model, read, bounds)
        if read.told or self._counts_all(asked):
            if known is None:
                self._keep(read.key, Known(count, read.own, whole=proven == "proven"))
            if read.window is not None and 2 * max(asked.call.tokens, count) <= read.window:
                self._learn(model, read)
        if proven == "unproven":
            self._doubts.setdefault(model, deque(maxlen=MOST_DOUBTS)).append(read)
        return outcome, proven

    def _is_next(self, asked: Asked, outcome: Outcome, offer: Offer, model: str, known: Known) -> bool:
        """Whether an answer is proven by what is known of its reading, as almost all are: so it is found out first."""
        call, count = asked.call, outcome.usage.prompt_tokens
        assert count is not None
        bounds = self._beside(model, known, asked.own)
        loss = min([LEAST_LOSS * bounds.upper, *(fewest_tokens(text) for _, text in call.turns)])
        window, place = outcome.window or offer.context_length, (asked.station.id, offer)
        needs, held = count + call.max_tokens, self._held.get(place, 0)
        said = proof(read_tokens=count, bounds=bounds, max_tokens=call.max_tokens, window=window, held=held, loss=loss)
        if said == "proven":
            self._held[place] = max(held, needs)
            if known.exact and (model, asked.key[2]) not in self._learnt:
                read = read_of(asked, outcome, offer, count, learnt=True)
                self._learn(model, read, certain=True)
        return said == "proven"

    def _beside(self, model: str, known: Known, own: Makeup) -> Bounds:
        """Bounds beside what was counted of the reading; the same questions are asked about many."""
        factors = self._taught(model)
        found = self._apart.get((known.own, own))
        if found is None or found[0] is not factors:
            _forget_oldest(self._apart)
            found = self._apart[known.own, own] = factors, *factors.apart(known.own, own)
        return around(known.count, *found[1:])

    def _bounds(self, model: str, read: Read) -> Bounds:
        """Bounds of a request's tokens, by all that is known of its model and its reading.

        What was counted of the reading bounds it from below in any case, since so much of it is there; from above, if
        it was all.
        """
        known, factors = self._known.get(read.key), self._taught(model)
        near = None if known is None else self._beside(model, known, read.own)
        if near is not None and known is not None and known.whole:
            return near
        bounds = factors.bounds(read.parts, read.fewest)
        if not factors.counts:
            bounds = replace(bounds, lower=read.fewest, floor=read.fewest)
        if near is not None:
            lower = max(bounds.lower, near.lower)
            bounds = Bounds(lower, max(lower, bounds.upper), max(bounds.floor, near.floor))
        return bounds

    def _prove(self, model: str, read: Read, bounds: Bounds) -> Proof:
        """What is proven of an answer; what is read whole shows that its server holds as much, and what its text is."""
        known, place = self._known.get(read.key), (read.key[0], read.offer)
        loss = LEAST_LOSS * bounds.upper if read.least is None else min(LEAST_LOSS * bounds.upper, read.least)
        held = self._held.get(place, 0)
        if known is None or not known.whole:
            trusted = self._lessons[model].about(read.parts) if model in self._lessons else None
            if trusted is None and read.read + read.max_tokens > held:
                # Only what was held would prove it: so no bounds are needed.
                return "unproven"
            upper = max(bounds.upper, (trusted or UNLEARNT).bounds(read.parts).upper)
            bounds, loss = replace(bounds, upper=upper), loss if trusted else 0
        proven = proof(
            read_tokens=read.read,
            bounds=bounds,
            max_tokens=read.max_tokens,
            window=read.window,
            held=held,
            loss=loss,
        )
        if proven == "proven":
            self._held[place] = max(held, read.read + read.max_tokens)
            if known is not None and not known.whole:
                self._keep(read.key, Known(read.read, read.own, whole=True))
        return proven

    def _taught(self, model: str) -> Factors:
        """What all counts of a model have taught."""
        return self._lessons[model].all if model in self._lessons else UNLEARNT

    def _look_again(self, model: str) -> None:
        """Try the answers that are not proven by what is known now."""
        doubts = self._doubts.get(model, deque())
        for _ in range(LOOKS):
            judged = [(read, self._prove(model, read, self._bounds(model, read))) for read in doubts]
            self._proven += [read.sent for read, proven in judged if proven == "proven"]
            left = deque((read for read, proven in judged if proven == "unproven"), maxlen=MOST_DOUBTS)
            if len(left) == len(doubts):
                return
            doubts = self._doubts[model] = left

    def _floor_of_new(self, asked: Asked, model: str) -> int:
        """The fewest tokens of what the server cannot have cached."""
        beginning, factors = self._beginning(asked), self._taught(model)
        fewest = fewest_of(asked.texts) - fewest_of(beginning)
        if not factors.counts:
            return fewest
        shared = makeup_of(beginning)
        return factors.bounds(
            Makeup(*(a - b for a, b in zip(makeup_of(asked.texts), shared, strict=True))), fewest
        ).floor

    def _counts_all(self, asked: Asked) -> bool:
        """Whether a count that is high enough leaves out next to nothing, as far as can be seen."""
        cached = sum(map(len, self._beginning(asked))) / max(1, sum(map(len, asked.texts)))
        if cached > LARGE_SHARE:
            self._leaves_out.setdefault(asked.station.id, False)
        return cached <= (LARGE_SHARE if self._leaves_out.get(asked.station.id) is False else SMALL_SHARE)

    def _beginning(self, asked: Asked) -> Texts:
        recent = self._recent[asked.station.id]
        return recent.may_be_cached(asked.reading_id, asked.texts, document=asked.document)

    def _keep(self, key: Key, known: Known) -> None:
        _forget_oldest(self._known)
        self._known[key] = known

    def _learn(self, model: str, read: Read, *, certain: bool = False) -> None:
        """Learn from the first count of each reading: more of them are no further documents."""
        factors, reading_id = self._taught(model), read.key[2]
        if (model, reading_id) in self._learnt or (model not in self._lessons and len(self._lessons) >= MOST_MODELS):
            return
        _forget_oldest(self._learnt)
        self._learnt[model, reading_id] = None
        lessons = self._lessons.setdefault(model, Lessons(None))
        bounds = factors.bounds(read.parts)
        if lessons.full or (factors.counts >= STEADY and bounds.lower <= read.read <= bounds.upper):
            return
        lessons.add(read.parts, read.read, certain=certain)
        self._changed[model] = lessons.all
        if lessons.all.counts % SELDOM == 0 or len(self._doubts.get(model, ())) <= FEW_DOUBTS:
            self._look_again(model)


def _forget_oldest(kept: dict[K, Any]) -> None:
    if len(kept) >= MOST_READINGS:
        del kept[next(iter(kept))]
