"""What the judge looks at: a request as it was sent, and what was counted of it."""

from dataclasses import dataclass, replace

from distllm.dispatcher.recent import Texts
from distllm.dispatcher.station import Station
from distllm.domain.models import Call, ErrorClass, Offer, Outcome
from distllm.domain.tokens import Makeup, fewest_tokens, makeup_of
from distllm.store.attempts import Sent
from distllm.workers.base import Worker

Key = tuple[int, str, int]
"""A worker, what it calls its model, and a reading: another server may put another frame around the same reading.

In the place of a reading stands the number of a prompt, below 0, that puts answers together.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was sent: its texts, a document's or not, and what the question and the turns are made of."""

    station: Station
    sent: Sent
    document: bool
    call: Call
    texts: Texts
    own: Makeup

    @property
    def reading_id(self) -> int:
        """The reading that is asked about."""
        return self.sent.lease.reading_id

    @property
    def key(self) -> Key:
        """What its count belongs to; what puts answers together shares its text with no other, whatever its reading."""
        lease = self.sent.lease
        return self.station.id, self.call.model, -lease.prompt_id if lease.level else lease.reading_id


@dataclass(frozen=True, slots=True)
class Known:
    """The tokens of a prompt about a reading, and what was asked in it.

    `whole` if that was all of the prompt; `exact` if the server's tokenizer counted it, whatever was read.
    """

    count: int
    own: Makeup
    whole: bool
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """What is kept of an answer that is not proven, in case that more is known of its model later.

    `read` are the tokens that were counted, `told` says that those are the cached ones too; `fewest` is what the texts
    are at least, if that was looked for, `least` the fewest tokens of an earlier message, None where there is none.
    """

    sent: Sent
    key: Key
    offer: Offer
    window: int | None
    max_tokens: int
    parts: Makeup
    own: Makeup
    read: int
    told: bool
    fewest: int
    least: int | None


def read_of(asked: Asked, outcome: Outcome, offer: Offer, count: int, *, learnt: bool) -> Read:
    """What to keep of an answer, for which so many tokens were counted by a server with this `offer`.

    What is the fewest that any tokenizer counts is not looked for where that of the model is `learnt`.
    """
    call, cached = asked.call, outcome.usage.cached_tokens
    return Read(
        sent=asked.sent,
        key=asked.key,
        offer=offer,
        window=outcome.window or offer.context_length,
        max_tokens=call.max_tokens,
        parts=makeup_of(asked.texts),
        own=asked.own,
        read=count,
        told=cached is not None and cached <= count,
        fewest=0 if learnt else fewest_of(asked.texts),
        least=min((fewest_tokens(text) for _, text in call.turns), default=None),
    )


def fewest_of(texts: Texts) -> int:
    """The tokens that texts are at least, whatever the tokenizer."""
    return sum(map(fewest_tokens, texts))


def cut(worker: Worker, outcome: Outcome, read: int, fewest: int) -> Outcome:
    """No answer, since its worker has `read` less of the prompt than the `fewest` tokens that it is."""
    error = (
        f"{worker.identity}: it read only {read} tokens of a prompt of at least {fewest}: its context window "
        "cut the text"
    )
    return replace(outcome, error_class=ErrorClass.CUT_INPUT, error=error, answer="", finish_reason=None)
