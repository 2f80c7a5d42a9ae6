"""What waits for a worker that does not answer: said once, and given up if that worker never did."""

from collections.abc import Sequence

from distllm.balancer.models import ANY_MODEL
from distllm.dispatcher.station import Station
from distllm.domain.errors import NoWorkerError
from distllm.domain.events import Listener, Noticed
from distllm.store.reads import Reader

SAY_AFTER_SECONDS = 30.0


class Waits:
    """Minds the models and windows that only workers which are away may have.

    Who was there once in this run may come back, and is waited for; so is who refuses a model that it has answered for.
    Who never was, or never did, is waited for until `limit` seconds have gone by, everything else is done, and another
    look has found it no better: it may have come up since the last one, or be loading its model for longer than that.
    """

    def __init__(self, stations: Sequence[Station], reader: Reader, limit: float, listener: Listener) -> None:
        self._stations = stations
        self._reader = reader
        self._limit = limit
        self._tell = listener
        self._seen: set[tuple[int, str]] = set()
        self._said: set[tuple[str, int]] = set()
        self._looks: dict[int, int] | None = None

    def note(self) -> None:
        """Remember who has what now."""
        for station in self._stations:
            if station.well:
                self._seen.update((station.id, model) for model in station.windows())

    async def mind(self, models: set[str], seconds: float, *, idle: bool) -> None:
        """Look at the `models` of unfinished jobs, `seconds` after the start; `idle` if nothing is in flight.

        Raises NoWorkerError if all that is left is for workers that have not answered in this run.
        """
        found = {model: await self._waiting_for(model) for model in sorted(models)}
        if self._looks is None and seconds >= self._limit:
            self._looks = {station.id: station.looks for station in self._stations}
        if seconds < min(self._limit, SAY_AFTER_SECONDS):
            return
        hopeless = bool(found) and all(stuck and not self._may_come_back(model) for model, (_, stuck) in found.items())
        if hopeless and idle and self._looked_again():
            texts = "; ".join(dict.fromkeys(text for text, _ in found.values()))
            raise NoWorkerError(
                f"nobody could answer in the first {self._limit:.0f} s: {texts}; "
                "nothing is lost: mend it and run `distllm resume`"
            )
        for model, (text, stuck) in found.items():
            self._say(model, text, stuck)

    def _looked_again(self) -> bool:
        """Whether the limit has passed, and everybody who was away then was looked at since."""
        looks = self._looks
        return looks is not None and all(
            station.well or station.looks > looks[station.id] for station in self._stations
        )

    def _say(self, model: str, text: str, stuck: bool) -> None:
        for other in (True, False):
            if other != stuck or not text:
                self._said.discard((model, other))
        if text and (model, stuck) not in self._said:
            self._said.add((model, stuck))
            self._tell(Noticed(f"waiting, since nobody can answer now: {text}"))

    async def _waiting_for(self, model: str) -> tuple[str, bool]:
        """What to say of the prompts for a model that wait for a worker, and whether nothing else is left of it."""
        able = self._able(model)
        if not able:
            reasons = [_why_not(station, model) for station in self._stations]
            return "; ".join(reasons) or "no worker is configured", True
        away = self._away(model)
        if not away:
            return "", False
        window = max(station.windows()[model] for station in able)
        count, largest, others = await self._reader.unfit(model, window, [station.id for station in able])
        if not count:
            return "", False
        prompts = "1 prompt needs" if count == 1 else f"{count} prompts need"
        reasons = [_why_not(station, model) for station in away]
        return f"{prompts} up to {largest} tokens of a window, here are {window}; {'; '.join(reasons)}", not others

    def _able(self, model: str) -> list[Station]:
        return [station for station in self._stations if _can_answer(station, model)]

    def _may_come_back(self, model: str) -> bool:
        """Whether somebody who is missed had the model at some time in this run, and was not found to be no use."""
        missed = self._away(model) if self._able(model) else self._stations
        return any(
            (station.id, model) in self._seen and (station.why_refused(model) is None or station.has_answered(model))
            for station in missed
        )

    def _away(self, model: str) -> list[Station]:
        """Who may have a model and cannot be asked now."""
        return [each for each in self._stations if each.may_have(model) and not _can_answer(each, model)]


def _can_answer(station: Station, model: str) -> bool:
    """Whether it may be asked, and did not refuse when it was asked last."""
    return station.well and station.serves(model) and station.why_refused(model) is None


def _why_not(station: Station, model: str) -> str:
    name = station.worker.name
    if not station.well:
        error = station.health.error if station.health else "it has not answered yet"
        return f"{name}: {error}"
    if why := station.why_refused(model):
        return f"{name}: {why}"
    has = ", ".join(sorted(station.windows().keys() - {ANY_MODEL})) or "none"
    return f"{name} has not the model {model} (it has: {has})"
