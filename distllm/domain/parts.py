"""A document that no window holds: how large its parts may be, and how the answers about them are put together.

Everything is counted from above, as `estimate_tokens` counts. A question stands here as its tokens, the frame of
its message included, and the tokens that its answer may have; where answers are put together, what says how belongs
to its tokens.
"""

from collections.abc import Iterator, Sequence

READING_FRAME_TOKENS = 64
"""What the system message has beside the text of a part, the frame of the message included."""

PART_NOTE_TOKENS = 48
"""What says, before the question, which part of a document was read."""

MERGE_FRAME_TOKENS = 64
"""What a merge has beside the answers and the question, the frame of its system message included."""

LABEL_TOKENS = 24
"""What stands around each answer that is put together with others."""

LEAST_PART_TOKENS = 256
"""Parts smaller than this are not worth a question."""

FEWEST_INPUTS = 2
"""Put together one by one, answers would never become fewer."""

Question = tuple[int, int]


def part_budget(window: int, questions: Sequence[Question]) -> int | None:
    """How many tokens the text of a part may have, so that each question about it fits the window.

    None if a document cannot be split for these questions.
    """
    budget = window - READING_FRAME_TOKENS - PART_NOTE_TOKENS - max(map(sum, questions))
    return budget if budget >= LEAST_PART_TOKENS else None


def fan_in(window: int, questions: Sequence[Question]) -> int | None:
    """How many answers to any of the questions one merge may take; None if they are too few to put together."""
    room = window - MERGE_FRAME_TOKENS - max(map(sum, questions))
    inputs = room // (max(max_tokens for _, max_tokens in questions) + LABEL_TOKENS)
    return inputs if inputs >= FEWEST_INPUTS else None


def merge_needs(inputs: int, question: Question) -> int:
    """The window that a merge of so many answers to a question needs, its own answer included."""
    tokens, max_tokens = question
    return MERGE_FRAME_TOKENS + tokens + max_tokens + inputs * (max_tokens + LABEL_TOKENS)


def merges(parts: int, fan_in: int) -> list[list[range]]:
    """The merges of the answers about `parts` parts, a list for each level, the lowest first; the last has one.

    A merge is the range of its inputs in the level below. They are spread evenly, over as few levels and merges as
    `fan_in` allows, the smaller ones first. A merge of one input comes where there is one part alone, and first in
    a level where `fan_in` is 2 and the inputs are odd; there the input can go up as it is.
    """
    levels = [list(_spread(parts, fan_in))]
    while len(levels[-1]) > 1:
        levels.append(list(_spread(len(levels[-1]), fan_in)))
    return levels


def _spread(inputs: int, most: int) -> Iterator[range]:
    """`inputs` in as few ranges as hold at most so many each, as equal as can be."""
    ranges = -(-inputs // most)
    start = 0
    for i in range(ranges):
        end = start + (inputs + i) // ranges
        yield range(start, end)
        start = end
