"""Whether a server has read all that it was sent: what it counts, beside what was sent and what it counted before.

A window that a server tells is no proof, since some tell a larger one than they have. What proves is the count: of a
reading that the server's own tokenizer has counted too; or between bounds so close that any loss worth finding would
show; or of a prompt shorter than one that the same server was proven to have read whole. A server that does not tell
what it had cached may leave that out of its count: too small a count accuses it of a cut only by what is surely new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from distllm.dispatcher.recent import Recent, Texts
from distllm.dispatcher.station import Station
from distllm.domain.factors import UNLEARNT, Bounds, Factors
from distllm.domain.models import Call, ErrorClass, Offer, Outcome
from distllm.domain.policy import Proof, proof
from distllm.domain.tokens import Makeup, fewest_tokens, makeup_of, texts_of

K = TypeVar("K")

STEADY = 64
"""After so many counts of a model only surprising ones are learnt."""

SMALL_SHARE, LARGE_SHARE = 0.02, 0.5
"""A count that may leave out a small share of a prompt is learnt from; up to a large one, if nothing ever was left out.

That shows where the same server may have had more than a large share cached, and counted all the same.
"""

LEAST_LOSS = 0.1
"""The share of a prompt that a cut takes at least."""

MOST_READINGS = 10_000
"""Of how many readings it is remembered what was counted."""

MOST_MODELS = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was sent: its texts, what they are made of, and what the question and the turns alone are."""

    station: Station
    reading_id: int
    document: bool
    call: Call
    texts: Texts
    parts: Makeup
    own: Makeup

    @property
    def key(self) -> tuple[int, str, int]:
        """What its count belongs to: another server may put another frame around the same reading."""
        return self.station.id, self.call.model, self.reading_id


@dataclass(frozen=True, slots=True)
class _Known:
    """The tokens of a prompt about a reading, and what was asked in it.

    `whole` if that was all of the prompt; `exact` if the server's tokenizer counted it, whatever was read.
    """

    count: int
    own: Makeup
    whole: bool
    exact: bool = False


class Judge:
    """Judges answers by their counts, and learns from them.

    `factors` are what other runs learnt of models; `read_before` the readings that each worker was asked about.
    """

    def __init__(self, factors: Mapping[str, Factors], read_before: Mapping[int, Sequence[int]]) -> None:
        self._factors = dict(factors)
        self._changed: dict[str, Factors] = {}
        self._read_before = read_before
        self._recent: dict[int, Recent] = {}
        self._known: dict[tuple[int, str, int], _Known] = {}
        self._learnt: dict[tuple[str, int], None] = {}
        self._held: dict[tuple[int, Offer], int] = {}
        self._leaves_out: dict[int, bool] = {}

    @property
    def changed(self) -> dict[str, Factors]:
        """What was learnt of models and is not yet written."""
        return dict(self._changed)

    def kept(self, factors: Mapping[str, Factors]) -> None:
        """These are written."""
        for model, each in factors.items():
            if self._changed.get(model) is each:
                del self._changed[model]

    def asks(self, station: Station, reading_id: int, call: Call, *, document: bool) -> Asked:
        """A request is about to be sent; its texts are a document's, or a batch's."""
        texts = texts_of(call)
        own = makeup_of(texts[1:] if call.system else texts)
        asked = Asked(station, reading_id, document, call, texts, makeup_of(texts), own)
        if station.id not in self._recent:
            self._recent[station.id] = Recent(self._read_before.get(station.id, ()))
        self._recent[station.id].add(texts)
        return asked

    def wants_count(self, asked: Asked) -> bool:
        """Whether the server's tokenizer is to count this: once for each reading."""
        return asked.station.worker.counts_tokens and asked.key not in self._known

    def counted(self, asked: Asked, count: int) -> None:
        """The server's tokenizer has counted a request."""
        self._keep(asked, _Known(count, asked.own, whole=True, exact=True))

    def judge(self, asked: Asked, outcome: Outcome, offer: Offer) -> tuple[Outcome, Proof]:
        """The outcome as it stands once what was read is compared with what was sent, and what is proven.

        `offer` is what was known of the model and its window when it was asked.
        """
        read = outcome.usage.prompt_tokens
        if outcome.error_class is not None or read is None:
            return outcome, "unproven"
        model = outcome.model or asked.call.model
        factors, known = self._factors.get(model), self._known.get(asked.key)
        cached = outcome.usage.cached_tokens
        told = cached is not None and cached <= read
        bounds = _bounds(asked, factors, known, told=told)
        if read < bounds.floor:
            sure = bounds.floor if told else self._floor_of_new(asked, factors)
            if read < sure:
                return _cut(asked, outcome, read, sure), "unproven"
            self._leaves_out[asked.station.id] = True
            return outcome, "unproven"
        window = outcome.window or offer.context_length
        held = self._held.get((asked.station.id, offer), 0)
        proven = proof(
            read_tokens=read,
            bounds=bounds if factors is not None or (known is not None and known.whole) else None,
            max_tokens=asked.call.max_tokens,
            window=window,
            held=held,
            loss=_least_loss(asked, bounds),
        )
        whole = proven == "proven"
        if whole:
            self._held[asked.station.id, offer] = max(held, read + asked.call.max_tokens)
        exact = known is not None and known.exact
        if told or self._counts_all(asked):
            if known is None or (whole and not known.whole):
                self._keep(asked, _Known(read, asked.own, whole))
            if exact or (window is not None and 2 * max(asked.call.tokens, read) <= window):
                self._learn(model, asked, read)
        return outcome, proven

    def _floor_of_new(self, asked: Asked, factors: Factors | None) -> int:
        """The fewest tokens of what the server cannot have cached."""
        beginning = self._beginning(asked)
        fewest = _fewest(asked.texts) - _fewest(beginning)
        if factors is None:
            return fewest
        shared = makeup_of(beginning)
        return factors.bounds(Makeup(*(a - b for a, b in zip(asked.parts, shared, strict=True))), fewest).floor

    def _counts_all(self, asked: Asked) -> bool:
        """Whether a count that is high enough leaves out next to nothing, as far as can be seen."""
        cached = sum(map(len, self._beginning(asked))) / max(1, sum(map(len, asked.texts)))
        if cached > LARGE_SHARE:
            self._leaves_out.setdefault(asked.station.id, False)
        return cached <= (LARGE_SHARE if self._leaves_out.get(asked.station.id) is False else SMALL_SHARE)

    def _beginning(self, asked: Asked) -> Texts:
        recent = self._recent[asked.station.id]
        return recent.may_be_cached(asked.reading_id, asked.texts, document=asked.document)

    def _keep(self, asked: Asked, known: _Known) -> None:
        _forget_oldest(self._known)
        self._known[asked.key] = known

    def _learn(self, model: str, asked: Asked, read: int) -> None:
        """Learn from the first count of each reading: more of them are no further documents."""
        factors = self._factors.get(model, UNLEARNT)
        bounds = factors.bounds(asked.parts)
        steady = factors.counts >= STEADY and bounds.lower <= read <= bounds.upper
        if steady or (model, asked.reading_id) in self._learnt:
            return
        if model not in self._factors and len(self._factors) >= MOST_MODELS:
            return
        _forget_oldest(self._learnt)
        self._learnt[model, asked.reading_id] = None
        self._factors[model] = self._changed[model] = factors.learnt(asked.parts, read)


def _bounds(asked: Asked, factors: Factors | None, known: _Known | None, *, told: bool) -> Bounds:
    """Bounds of a request's tokens, by all that is known of its model and its reading.

    What was counted of the reading bounds it from below in any case, since so much of it is there, but accuses nobody
    whose count may leave out what was cached (not `told`); from above, if it was all.
    """
    fewest = _fewest(asked.texts)
    bounds = (factors or UNLEARNT).bounds(asked.parts, fewest)
    if factors is None:
        bounds = replace(bounds, lower=fewest, floor=fewest)
    if known is None:
        return bounds
    near = (factors or UNLEARNT).beside(known.count, known.own, asked.own)
    lower = near.lower if known.whole else max(bounds.lower, near.lower)
    upper = near.upper if known.whole else bounds.upper
    return Bounds(lower, max(lower, upper), max(bounds.floor, near.floor) if told else bounds.floor)


def _least_loss(asked: Asked, bounds: Bounds) -> float:
    """The tokens that are lost at least where any are: a server may also leave out an earlier message."""
    return min([LEAST_LOSS * bounds.upper, *(fewest_tokens(text) for _, text in asked.call.turns)])


def _fewest(texts: Texts) -> int:
    return sum(map(fewest_tokens, texts))


def _cut(asked: Asked, outcome: Outcome, read: int, fewest: int) -> Outcome:
    error = (
        f"{asked.station.worker.identity}: it read only {read} tokens of a prompt of at least {fewest}: its context "
        "window cut the text"
    )
    return replace(outcome, error_class=ErrorClass.CUT_INPUT, error=error, answer="", finish_reason=None)


def _forget_oldest(kept: dict[K, Any]) -> None:
    if len(kept) >= MOST_READINGS:
        del kept[next(iter(kept))]
