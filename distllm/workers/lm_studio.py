"""LM Studio: OpenAI's API for questions, and its own for what is loaded."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distllm.domain.models import Call, ErrorClass, Health, Limits, Offer, Outcome, WorkerSpec
from distllm.workers.errors import Sign, Translator
from distllm.workers.exchange import Parser, Piece
from distllm.workers.openai import OpenAIParser, OpenAIWorker
from distllm.workers.sse import Event
from distllm.workers.told import count, fields, objects, text

if TYPE_CHECKING:
    import aiohttp

PATIENCE = 2.0
"""Seconds that an answer waits for the window it met."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What LM Studio tells of one name: the model it stands for, and of what is loaded window and slots."""

    key: str
    instance: bool
    loaded: bool
    embeds: bool
    window: int | None = None
    parallel: int | None = None


class LMStudioWorker(OpenAIWorker):
    """`/v1` for questions, `/api/v1/models` (before 0.4 `/api/v0/models`) for windows, slots and what is loaded.

    A model that is only on disk is offered as not loaded: LM Studio loads it when it is asked for.
    """

    def __init__(self, spec: WorkerSpec, session: "aiohttp.ClientSession") -> None:
        super().__init__(spec, session)
        self._known: dict[str, _Known] = {}
        self._offered: dict[str, Offer] = {}
        self._looked_at: set[str] = set()

    async def ask(self, call: Call, limits: Limits) -> Outcome:
        """Ask one question and wait for the whole answer; see `Worker.ask`."""
        outcome = await super().ask(call, limits)
        heard = outcome.error_class in (None, ErrorClass.INPUT)
        known = self._offered.get(call.model)
        if not heard or (known and known.window_told) or call.model in self._looked_at:
            return outcome
        # It may have been loaded just now.
        self._looked_at.add(call.model)
        await self.probe(PATIENCE)
        known = self._offered.get(call.model)
        return replace(outcome, window=known.context_length if known and known.window_told else None)

    async def _look(self) -> Health:
        self._known = dict(_instances(await self._server.ask_if_told("/api/v1/models")))
        if not self._known:
            self._known = dict(_states(await self._server.ask_if_told("/api/v0/models")))
        health = await super()._look()
        offers = tuple(self._offers(health.offers))
        slots = [known.parallel for each in offers if (known := self._known.get(each.model)) and known.parallel]
        self._offered = {each.model: each for each in offers}
        return replace(health, offers=offers, slots=min(slots, default=health.slots))

    def _offers(self, listed: tuple[Offer, ...]) -> Iterator[Offer]:
        """The models that write, each once, though it may be loaded several times."""
        keys = set()
        for offer in sorted(
            listed, key=lambda each: each.model in self._known and not self._known[each.model].instance
        ):
            known = self._known.get(offer.model)
            if known is None:
                yield offer
                continue
            if self.spec.model is None and (known.embeds or known.key in keys):
                continue
            keys.add(known.key)
            lengths = [length for length in (known.window, self.spec.context_length) if length]
            yield Offer(offer.model, min(lengths, default=None), known.loaded, window_told=known.window is not None)

    def _parser(self, call: Call) -> Parser:
        return _Parser(self._translator, self, call)

    def complain_of_overflow(self, call: Call) -> None:
        """A prompt that its window does not hold may end without any text, or any error."""
        offer = self._offered.get(call.model)
        window = offer.context_length if offer else None
        if window is not None and call.tokens >= window:
            raise self._translator.sign(Sign.SWALLOWED, sent=call.tokens, window=window)

    def means(self, asked: str, told: str) -> bool:
        """Whether an answer is of the model that was asked, though the name has more or less around it.

        Before 0.4 whatever is loaded answers to any name.
        """
        if asked in self._known and told in self._known:
            return self._known[asked].key == self._known[told].key
        (one, variant), (other, another) = _bare(asked), _bare(told)
        return one == other and (variant == another or not (variant and another))


class _Parser(OpenAIParser):
    """Also looks who answers, and whether anything is said at all."""

    def __init__(self, translator: Translator, worker: LMStudioWorker, call: Call) -> None:
        super().__init__(translator)
        self._worker = worker
        self._call = call
        self._believed: str | None = None
        self._silent = True

    def end(self) -> Iterator[Piece]:
        yield from super().end()
        self._hear_nothing()

    def _pieces(self, events: Iterable[Event]) -> Iterator[Piece]:
        for piece in super()._pieces(events):
            if piece.model is not None and piece.model != self._believed:
                if not self._worker.means(self._call.model, piece.model):
                    raise self._translator.sign(Sign.WRONG_MODEL, said=piece.model, asked=self._call.model)
                self._believed = piece.model
            self._silent = self._silent and not (piece.text or piece.thinking)
            if piece.ended:
                self._hear_nothing()
            yield piece

    def _hear_nothing(self) -> None:
        if self._silent:
            self._worker.complain_of_overflow(self._call)


def _bare(name: str) -> tuple[str, str]:
    """The name without its publisher and the number of an instance, and its variant (`@q4_k_m`)."""
    name = re.sub(r":\d+$", "", name.casefold()).rpartition("/")[2]
    name, _, variant = name.partition("@")
    return name, variant


def _instances(told: object) -> Iterator[tuple[str, _Known]]:
    """Read `/api/v1/models`: the key of every model, and the name of every instance that is loaded."""
    for model in objects(fields(told).get("models")):
        key, embeds = text(model.get("key")), model.get("type") == "embedding"
        instances = [(text(each.get("id")), fields(each.get("config"))) for each in _loaded(model)]
        # The key itself may be answered by any of them.
        for name, configs in [(key, [c for _, c in instances]), *((name, [config]) for name, config in instances)]:
            windows = [n for config in configs if (n := count(config.get("context_length")))]
            slots = [n for config in configs if (n := count(config.get("parallel")))]
            yield (
                name,
                _Known(
                    key,
                    instance=any(name == one for one, _ in instances),
                    loaded=bool(configs),
                    embeds=embeds,
                    window=min(windows, default=None),
                    parallel=min(slots, default=None),
                ),
            )


def _loaded(model: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(model.get("loaded_instances"))


def _states(told: object) -> Iterator[tuple[str, _Known]]:
    """Read `/api/v0/models`, which tells the window of what is loaded only in its newer versions."""
    for model in objects(fields(told).get("data")):
        name, loaded = text(model.get("id")), model.get("state") == "loaded"
        window = count(model.get("loaded_context_length")) if loaded else None
        yield name, _Known(name, loaded, loaded, model.get("type") == "embeddings", window or None)
