"""Readings: what a server must read before it can answer, shared by all jobs."""

from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.store.tables import readings
from distllm.store.tx import Tx


@dataclass(frozen=True, slots=True)
class NewReading:
    """What a server will read of a text: the hash of the whole system message, and its tokens."""

    prefix_hash: str
    tokens: int


@dataclass(frozen=True, slots=True)
class NewPart:
    """The characters from `first` up to `last` of a stored text, and what a server will read of them."""

    first: int
    last: int
    reading: NewReading


# All jobs share a reading: the same model and the same system message, whoever asked first.
_SAVE = (
    upsert_into(readings)
    .values({name: bindparam(name) for name in ("model", "prefix_hash", "document_id", "first", "last", "tokens")})
    .on_conflict_do_nothing()
)
_ID = select(readings.c.id).where(
    readings.c.model == bindparam("model_is"), readings.c.prefix_hash == bindparam("hash")
)


def save_reading(tx: Tx, model: str, document_id: int, part: NewPart) -> int:
    """The id of the reading of a part of a document, or of all of it, which is added if it is new."""
    row = {
        "model": model,
        "prefix_hash": part.reading.prefix_hash,
        "document_id": document_id,
        "first": part.first,
        "last": part.last,
        "tokens": part.reading.tokens,
    }
    reading_id = None
    # One that nobody else needs may be pruned between the two.
    while reading_id is None:
        tx.run(_SAVE, row)
        reading_id = tx.value(_ID, {"model_is": model, "hash": part.reading.prefix_hash})
    return int(reading_id)
