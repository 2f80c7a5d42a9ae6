"""What a server was sent last, since it may have the beginnings cached, and not every server counts those."""

from collections import deque
from collections.abc import Collection
from itertools import zip_longest

MOST_TEXTS = 32
"""How many requests are looked back on."""

A_LOOK = 4096
"""Characters after which most texts have shown that they differ."""

Texts = tuple[str, ...]
"""All that one request sends, message by message."""


class Recent:
    """The last requests to one server; `before` are the readings that it was asked about by other runs."""

    def __init__(self, before: Collection[int]) -> None:
        self._before = frozenset(before)
        self._sent: deque[Texts] = deque(maxlen=MOST_TEXTS)

    def add(self, texts: Texts) -> None:
        """A request is sent."""
        self._sent.append(texts)

    def may_be_cached(self, reading_id: int, texts: Texts, *, document: bool) -> Texts:
        """The beginning of a request that the server may have cached, its last message perhaps in part.

        All of it, where another run asked about the same; or about anything, and this is no `document`, which
        begins like no other.
        """
        if reading_id in self._before or (self._before and not document):
            return texts
        beginnings = [_common(texts, other) for other in self._sent if other is not texts]
        return max(beginnings, key=lambda each: sum(map(len, each)), default=())


def _common(texts: Texts, other: Texts) -> Texts:
    """What both begin with."""
    found = []
    for text, theirs in zip_longest(texts, other, fillvalue=""):
        if text != theirs:
            found.append(_beginning(text, theirs))
            break
        found.append(text)
    return tuple(found)


def _beginning(text: str, other: str) -> str:
    """What two different texts begin with; found by halving."""
    same, end = 0, min(len(text), len(other))
    if end > A_LOOK and text[:A_LOOK] != other[:A_LOOK]:
        end = A_LOOK
    while same < end:
        middle = (same + end + 1) // 2
        if text[same:middle] == other[same:middle]:
            same = middle
        else:
            end = middle - 1
    return text[:same]
