"""Which model a job gets: fixed when it is submitted, one for the whole job."""

from collections.abc import Sequence
from dataclasses import dataclass

from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.domain.models import Health

ANY_MODEL = "any"
"""The model of a job that takes each worker's own."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may answer a job: the model it is configured for, if any, and what a probe found."""

    name: str
    model: str | None
    health: Health


def choose_model(wanted: str | None, candidates: Sequence[Candidate], aliases: Sequence[Sequence[str]]) -> str:
    """The model named, else the one all workers are configured for, else the one loaded, else the only one.

    One that is named may be that of a worker which is away; where all are there, one of them must have it.

    Raises DistllmError listing the models if that leaves several or none, NoWorkerError if nobody answered.
    """
    if wanted is not None:
        named = _canonical(wanted, aliases)
        _refuse_unknown(named, candidates, aliases)
        return named
    configured = {_canonical(candidate.model, aliases) for candidate in candidates if candidate.model}
    if len(configured) == 1 and all(candidate.model for candidate in candidates):
        return configured.pop()
    healthy = [candidate for candidate in candidates if candidate.health.healthy]
    if not healthy:
        reasons = "; ".join(f"{each.name}: {each.health.error}" for each in candidates)
        raise NoWorkerError(f"no worker answered, so the model is unknown ({reasons}); start one, or give --model")
    offers = [offer for candidate in healthy for offer in candidate.health.offers]
    for names in (
        {_canonical(offer.model, aliases) for offer in offers if offer.loaded},
        {_canonical(offer.model, aliases) for offer in offers},
    ):
        if len(names) == 1:
            return names.pop()
        if names:
            raise DistllmError(
                f"several models could answer ({', '.join(sorted(names))}); choose with --model, or "
                "make them one under `models` of the configuration"
            )
    raise DistllmError("no worker has a model: load one in your server, then submit again")


def _refuse_unknown(named: str, candidates: Sequence[Candidate], aliases: Sequence[Sequence[str]]) -> None:
    offers = [offer for candidate in candidates for offer in candidate.health.offers]
    there = all(candidate.health.healthy and candidate.health.offers for candidate in candidates)
    taken = {_canonical(name, aliases) for offer in offers for name in (offer.model, *offer.also)}
    taken.update(_canonical(candidate.model, aliases) for candidate in candidates if candidate.model)
    if there and candidates and named not in taken | {ANY_MODEL}:
        names = ", ".join(sorted({_canonical(offer.model, aliases) for offer in offers}))
        raise DistllmError(f"no worker has the model {named}: load it in a server, or choose from {names}")


def _canonical(name: str, aliases: Sequence[Sequence[str]]) -> str:
    return next((group[0] for group in aliases if name in group), name)
