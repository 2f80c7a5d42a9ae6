"""What follows from an outcome: the one table of what costs a retry, and the limits put on a call."""

from dataclasses import dataclass
from random import Random
from typing import Literal, assert_never

from distllm.domain.models import ErrorClass, Limits, Outcome

PREFILL_RATE_UNKNOWN = 50.0
DECODE_RATE_UNKNOWN = 1.0
BETWEEN_CHUNKS_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 300.0
JITTER = 0.5
LONGEST_WAIT_SECONDS = LONGEST_BACKOFF_SECONDS * (1 + JITTER)
"""How far in the future a prompt can be due."""


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
class Failed:
    """No retry is left."""


Verdict = Done | Again | Refused | Failed


def verdict(outcome: Outcome, *, failures: int, max_retries: int, now: float, rng: Random) -> Verdict:
    """Judge one attempt of a prompt that has failed `failures` times before.

    `now` and the time in the verdict are seconds since 1970.
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
        case ErrorClass.SETUP | ErrorClass.LOST | ErrorClass.RELEASED:
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


def proof(
    *, read_tokens: int | None, fewest: int, needs: int, max_tokens: int, window: int | None
) -> Literal["proven", "unproven"]:
    """Whether it is certain that a server read all that was sent.

    It is, if the whole need fits its window, by an upper estimate and by its own count of what it read, so
    that it had no cause to cut, and the count is not below the `fewest` tokens that were sent.
    """
    if read_tokens is None or window is None or max(needs, read_tokens + max_tokens) > window:
        return "unproven"
    return "proven" if read_tokens >= fewest else "unproven"
