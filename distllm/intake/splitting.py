"""Documents that no window of the fleet holds: which they are for a job, and what parts they are read in."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from distllm.documents import DocumentReader
from distllm.documents.splitting import Span
from distllm.domain.parts import Question, fan_in, part_budget
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.presets import render_system
from distllm.store.readings import NewPart, NewReading


def reading_of(text: str) -> NewReading:
    """What a server will read of a text."""
    system = render_system(text)
    prefix_hash = hashlib.sha256(system.encode("utf-8")).hexdigest()
    return NewReading(prefix_hash, estimate_tokens(system) + FRAME_TOKENS)


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits what is longer than `longest` tokens into parts whose texts have at most `budget`."""

    longest: int
    budget: int
    references: bool

    @classmethod
    def of(
        cls, window: int | None, questions: Sequence[Question], merges: Sequence[Question], *, references: bool
    ) -> Self | None:
        """What splits the documents of a job; None where no window is known, or it has no room for parts.

        `merges` are what puts together the answers to each of the `questions`. Without `references`, those of a
        document are left out.
        """
        budget = None if window is None else part_budget(window, questions)
        if window is None or budget is None or fan_in(window, merges) is None:
            return None
        return cls(window - max(map(sum, questions)), budget, references)

    async def split(self, text: str, reader: DocumentReader) -> Sequence[NewPart]:
        """The parts of a text, made by a child of the reader: a long one takes seconds, and others need the loop."""
        spans = await reader.split(text, self.budget, references=self.references)
        return await asyncio.to_thread(_parts, text, spans)


def _parts(text: str, spans: Sequence[Span]) -> list[NewPart]:
    return [NewPart(span.first, span.last, reading_of(text[span.first : span.last])) for span in spans]
