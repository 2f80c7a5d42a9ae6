"""The inside of a fake server: tokens, and slots that each keep the prefix they read last."""

import asyncio
import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[A-Za-z]{1,6}|\d|[^\sA-Za-z\d]")


def tokenize(text: str) -> list[str]:
    """Cut a text into what the fake counts as tokens: of the order of real counts, and never far below."""
    return _TOKEN.findall(text)


@dataclass(slots=True)
class Slot:
    """One request at a time, and the tokens of the last one."""

    index: int
    tokens: list[str] = field(default_factory=list)
    busy: bool = False
    used: int = 0
    """When it was taken last, counted in requests."""

    def shared(self, tokens: list[str]) -> int:
        """How many tokens at the beginning are cached."""
        for at, (mine, new) in enumerate(zip(self.tokens, tokens, strict=False)):
            if mine != new:
                return at
        return min(len(self.tokens), len(tokens))


class Slots:
    """The slots of a server, with the rules of llama.cpp but without its cache in memory.

    A request takes the free slot with the longest common beginning, if that is more than a tenth of the
    prompt, else the one unused for longest; or it queues without a sign. Busy slots share nothing.
    """

    def __init__(self, count: int) -> None:
        self._slots = [Slot(index) for index in range(count)]
        self._free = asyncio.Semaphore(count)
        self._taken = 0

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return sum(slot.busy for slot in self._slots)

    async def take(self, tokens: list[str]) -> tuple[Slot, int]:
        """Wait for a slot; also return how many of `tokens` it has cached."""
        await self._free.acquire()
        free = [slot for slot in self._slots if not slot.busy]
        slot = max(free, key=lambda s: s.shared(tokens))
        if slot.shared(tokens) <= len(tokens) / 10:
            slot = min(free, key=lambda s: s.used)
        self._taken += 1
        slot.busy, slot.used = True, self._taken
        cached = slot.shared(tokens)
        slot.tokens = tokens
        # llama.cpp computes at least the last token anew.
        return slot, min(cached, max(0, len(tokens) - 1))

    def give_back(self, slot: Slot) -> None:
        """Let the next request have the slot; its cache stays."""
        slot.busy = False
        self._free.release()
