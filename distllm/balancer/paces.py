"""How fast each worker is taken to be, also before it has told: then like the others, and slower while it is silent."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from distllm.domain.models import Paper, Rates
from distllm.domain.policy import DECODE_RATE_UNKNOWN, PREFILL_RATE_UNKNOWN

QUESTION_TOKENS = 50.0
"""What is read anew for each question, about."""

ANSWER_TOKENS_UNKNOWN = 200.0

OVERDUE_SHARE = 0.5
"""What is overdue is taken to need as much again, by this share, as it has had: so nobody is waited for for ever."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a seat of a worker works, in tokens a second, and how long the answers are, in tokens."""

    prefill: float
    decode: float
    question_tokens: float
    answer_tokens: float

    def reading(self, tokens: int) -> float:
        """Seconds to read so many tokens."""
        return tokens / self.prefill

    def answering(self, prompts: int) -> float:
        """Seconds for so many prompts about what has been read."""
        return prompts * (self.question_tokens / self.prefill + self.answer_tokens / self.decode)

    def seconds(self, paper: Paper) -> float:
        """Seconds to read a paper and answer its prompts."""
        return self.reading(paper.tokens) + self.answering(paper.prompts)


@dataclass(frozen=True, slots=True)
class Flight:
    """A request in flight: the tokens that its seat reads first, and how many seconds ago it was sent."""

    reads: int
    passed: float

    def expected(self, pace: Pace) -> float:
        """Seconds that it should take in all."""
        return pace.reading(self.reads) + pace.answering(1)

    def left(self, pace: Pace) -> float:
        """Seconds that it will still take."""
        return overdue(self.expected(pace), self.passed)


def overdue(expected: float, passed: float) -> float:
    """Seconds that something will still take which was `expected` to take so long and has taken `passed`."""
    return max(expected - passed, OVERDUE_SHARE * (passed - expected))


def told(rates: Rates | None, answer_tokens: float) -> Pace | None:
    """The pace of a worker that has told how fast it reads and writes; None before."""
    if rates is None or not rates.prefill or not rates.decode:
        return None
    return Pace(rates.prefill, rates.decode, QUESTION_TOKENS, answer_tokens)


def usual(paces: Collection[Pace], answer_tokens: float) -> Pace:
    """The pace of a worker of which nothing is known, beside those of others."""
    return Pace(
        fmean(pace.prefill for pace in paces) if paces else PREFILL_RATE_UNKNOWN,
        fmean(pace.decode for pace in paces) if paces else DECODE_RATE_UNKNOWN,
        QUESTION_TOKENS,
        answer_tokens,
    )


def slowed(pace: Pace, flights: Iterable[Flight]) -> Pace:
    """The same pace, or a slower one that explains why `flights` have not ended."""
    times = max(((flight.passed + flight.left(pace)) / flight.expected(pace) for flight in flights), default=1.0)
    return pace if times <= 1 else replace(pace, prefill=pace.prefill / times, decode=pace.decode / times)
