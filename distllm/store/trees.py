"""Long documents, built as trees of prompts that wait for each other, from the plans of their parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from sqlalchemy import bindparam, delete, select, update

from distllm.domain.parts import PART_NOTE_TOKENS, fan_in, merge_needs, merges
from distllm.store.parts import terms
from distllm.store.sql import PENDING, insert_row
from distllm.store.tables import job_documents, job_parts, prompts, readings, templates
from distllm.store.tx import Tx

_PLANNED = (
    select(job_parts.c.ordinal, job_documents.c.document_id, job_parts.c.reading_id, readings.c.tokens)
    .join_from(
        job_parts,
        job_documents,
        (job_documents.c.job_id == job_parts.c.job_id) & (job_documents.c.ordinal == job_parts.c.ordinal),
    )
    .join(readings, readings.c.id == job_parts.c.reading_id)
    .where(
        job_parts.c.job_id == bindparam("job"),
        job_parts.c.ordinal >= bindparam("first_place"),
        job_parts.c.ordinal < bindparam("end_place"),
    )
    .order_by(job_parts.c.ordinal, job_parts.c.part)
)
_BUILT = delete(job_parts).where(
    job_parts.c.job_id == bindparam("job"),
    job_parts.c.ordinal >= bindparam("first_place"),
    job_parts.c.ordinal < bindparam("end_place"),
)
# What no earlier job has answered.
_TOPS = (
    select(
        prompts.c.id,
        prompts.c.reading_id,
        templates.c.id,
        templates.c.tokens,
        templates.c.merge_tokens,
        templates.c.max_tokens,
    )
    .join_from(prompts, templates, templates.c.id == prompts.c.template_id)
    .where(
        prompts.c.job_id == bindparam("job"),
        prompts.c.document_id == bindparam("document"),
        prompts.c.parent_id.is_(None),
        prompts.c.state == PENDING,
    )
    .order_by(prompts.c.id)
)
_RAISE = (
    update(prompts)
    .where(prompts.c.id == bindparam("prompt"))
    .values(level=bindparam("height"), waits_for=bindparam("inputs"), tokens=bindparam("needs"))
)
_SHARED = ("job_id", "document_id", "reading_id", "template_id", "parent_id", "tokens")
_NEW_MERGE = insert_row(prompts, *_SHARED, "level", "waits_for").returning(prompts.c.id)
_NEW_PART = insert_row(prompts, *_SHARED, "part", "parts")


@dataclass(frozen=True, slots=True)
class _Top:
    """A prompt about a whole document, and its question."""

    id: int
    reading_id: int
    template_id: int
    tokens: int
    merge_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class _Part:
    reading_id: int
    tokens: int


def build_trees(tx: Tx, job_id: int, first: int, end: int) -> tuple[int, int]:
    """Have the prompts about the split documents of a job from place `first` to `end` wait for prompts about parts.

    Returns how many wait so, and how many prompts were added. What an earlier job has answered waits for nothing.
    """
    chunk = {"job": job_id, "first_place": first, "end_place": end}
    planned = tx.rows(_PLANNED, chunk)
    if not planned:
        return 0, 0
    job = terms(tx, job_id)
    most = None if job.window is None else fan_in(job.window, job.merges)
    assert most is not None, "what cannot be put together is not split"
    wait = added = 0
    for (_, document_id), rows in groupby(planned, key=itemgetter(0, 1)):
        parts = [_Part(reading_id, tokens) for _, _, reading_id, tokens in rows]
        tops = [_Top(*row) for row in tx.rows(_TOPS, {"job": job_id, "document": document_id})]
        levels = merges(len(parts), most)
        for top in tops:
            tree = _Tree(tx, job_id, document_id, top, parts, levels)
            tree.grow()
            wait, added = wait + 1, added + tree.added
    tx.run(_BUILT, chunk)
    return wait, added


class _Tree:
    """What one prompt waits for, written from the top down, and each one's inputs in the order of the document."""

    def __init__(
        self,
        tx: Tx,
        job_id: int,
        document_id: int,
        top: _Top,
        parts: Sequence[_Part],
        levels: Sequence[Sequence[range]],
    ) -> None:
        self.added = 0
        self._tx = tx
        self._top = top
        self._parts = parts
        self._levels = levels
        self._common = {"job_id": job_id, "document_id": document_id, "template_id": top.template_id}

    def grow(self) -> None:
        """Write all of it."""
        height = len(self._levels)
        [inputs] = self._levels[-1]
        row = {"prompt": self._top.id, "height": height, "inputs": len(inputs), "needs": self._needs(inputs)}
        self._tx.run(_RAISE, row)
        self._add_inputs(self._top.id, height, inputs)

    def _add_inputs(self, parent_id: int, level: int, inputs: range) -> None:
        for place in inputs:
            below, at = self._passed_up(level - 1, place)
            if below == 0:
                self._add_part(parent_id, at)
            else:
                more = self._levels[below - 1][at]
                self._add_inputs(self._add_merge(parent_id, below, more), below, more)

    def _passed_up(self, level: int, place: int) -> tuple[int, int]:
        """What stands there in truth: the one input of a merge goes up as it is."""
        while level and len(self._levels[level - 1][place]) == 1:
            level, place = level - 1, self._levels[level - 1][place][0]
        return level, place

    def _add_merge(self, parent_id: int, level: int, inputs: range) -> int:
        self.added += 1
        row = {
            "reading_id": self._top.reading_id,
            "parent_id": parent_id,
            "tokens": self._needs(inputs),
            "level": level,
            "waits_for": len(inputs),
        }
        return int(self._tx.value(_NEW_MERGE, self._common | row))

    def _add_part(self, parent_id: int, place: int) -> None:
        self.added += 1
        part = self._parts[place]
        row = {
            "reading_id": part.reading_id,
            "parent_id": parent_id,
            "tokens": part.tokens + self._top.tokens + PART_NOTE_TOKENS + self._top.max_tokens,
            "part": place + 1,
            "parts": len(self._parts),
        }
        self._tx.run(_NEW_PART, self._common | row)

    def _needs(self, inputs: range) -> int:
        return merge_needs(len(inputs), (self._top.merge_tokens, self._top.max_tokens))
