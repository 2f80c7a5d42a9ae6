"""What follows from an outcome: the one table of what costs a retry, and the limits put on a call."""

from dataclasses import dataclass
from random import Random
from typing import Literal, assert_never

from distllm.domain.factors import Bounds
from distllm.domain.models import ErrorClass, Limits, Outcome

PREFILL_RATE_UNKNOWN = 50.0
DECODE_RATE_UNKNOWN = 1.0
BETWEEN_CHUNKS_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 300.0
JITTER = 0.5
LONGEST_WAIT_SECONDS = LONGEST_BACKOFF_SECONDS * (1 + JITTER)
"""How far in the future a prompt can be due."""

LOSSES_TO_SUSPECT = 3
"""After how many deaths with it in flight, of a coordinator or of a server, a prompt is asked alone."""

DEATHS_TO_CONDEMN = 5
"""How many deaths in a row with nothing else in flight fail a prompt; one that it had no part in breaks the row."""

POISON = f"whoever was asked went down with it, {DEATHS_TO_CONDEMN} times in a row with nothing else in flight"


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is the prompt's result."""


@dataclass(frozen=True, slots=True)
class Again:
    """The prompt goes back to pending until `at`; `charged` if this cost one of its retries."""

    at: float
    charged: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """This worker can never take the prompt; another may."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody said anything of the prompt: its server went down. It goes back to pending until `at`.

    Nothing is charged, but the loss is counted; with it as a death, if the prompt was `alone`.
    """

    at: float
    alone: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """No retry is left; `why` says more than the error of the attempt, where that does not say it all."""

    why: str | None = None


Verdict = Done | Again | Refused | Lost | Failed
Proof = Literal["proven", "unproven"]


def is_suspect(losses: int) -> bool:
    """Whether a prompt with so many losses is asked alone: by themselves they condemn nobody."""
    return losses >= LOSSES_TO_SUSPECT


def verdict(
    outcome: Outcome, *, failures: int, losses: int, deaths_alone: int, max_retries: int, now: float, rng: Random
) -> Verdict:
    """Judge one attempt of a prompt by what happened to it before.

    It has failed `failures` times, was in flight at `losses` deaths of its server or coordinator, and at the last
    `deaths_alone` of these with nothing else in flight. `now` and the time in the verdict are seconds since 1970.
    """
    match outcome.error_class:
        case None:
            return Done()
        case ErrorClass.INPUT | ErrorClass.CUT_INPUT:
            return Refused()
        case ErrorClass.BROKEN:
            if failures >= max_retries:
                return Failed()
            return Again(now + backoff(failures, rng), charged=True)
        case ErrorClass.BUSY | ErrorClass.REFUSED:
            return Again(now + backoff(1, rng), charged=False)
        case ErrorClass.LOST:
            alone = is_suspect(losses)
            if alone and deaths_alone + 1 >= DEATHS_TO_CONDEMN:
                return Failed(f"{POISON}; the last time: {outcome.error}")
            return Lost(now + backoff(deaths_alone, rng), alone)
        case ErrorClass.SETUP | ErrorClass.RELEASED:
            return Again(now, charged=False)
        case unknown:
            assert_never(unknown)


def backoff(failures: int, rng: Random) -> float:
    """Seconds to wait after a failure that had `failures` before it: 0.5 * 2**failures, give or take half."""
    return min(BACKOFF_SECONDS * 2.0 ** min(failures, 64), LONGEST_BACKOFF_SECONDS) * rng.uniform(
        1 - JITTER, 1 + JITTER
    )


def limits(
    *,
    sent_tokens: int,
    max_tokens: int,
    request_timeout: float,
    prefill_rate: float | None = None,
    decode_rate: float | None = None,
) -> Limits:
    """The time limits of one call; rates in tokens a second, None until learnt.

    Silence before the first token is normal: a server may queue, load the model and read for minutes.
    """
    first = request_timeout + sent_tokens / (prefill_rate or PREFILL_RATE_UNKNOWN)
    writing = 4 * max_tokens / (decode_rate or DECODE_RATE_UNKNOWN)
    return Limits(first_token=first, between_chunks=BETWEEN_CHUNKS_SECONDS, total=first + writing)


def proof(*, read_tokens: int, bounds: Bounds, max_tokens: int, window: int | None, held: int, loss: float) -> Proof:
    """Whether it is certain that a server read all that was sent, which has tokens within `bounds`.

    It is not where the count is outside of the bounds, or where the whole need may not fit the `window`, whoever says
    so: then there is cause to cut, and a small cut would not show. It is, if the server was proven to have `held` so
    many tokens at once, or if the count is so high that not even the smallest `loss` can be missing; a loss of 0 is
    one that no count would show.
    """
    if not bounds.lower <= read_tokens <= bounds.upper:
        return "unproven"
    needs = bounds.upper + max_tokens
    if window is not None and needs > window:
        return "unproven"
    return "proven" if needs <= held or read_tokens > bounds.upper - loss else "unproven"
