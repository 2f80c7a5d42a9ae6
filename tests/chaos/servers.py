"""The fleet, seen from the driver: started, given commands, and ended with it."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


@dataclass(slots=True)
class Fleet:
    """The process of the fake servers; `workers` are their entries for a configuration."""

    workers: list[dict[str, Any]]
    _process: Process

    @classmethod
    async def start(cls, *, seats: int, answer_seconds: float, seed: int, log: Path) -> "Fleet":
        """Start it and wait until it listens."""
        options = {"--seats": seats, "--answer-seconds": answer_seconds, "--seed": seed, "--log": log}
        words = [str(word) for pair in options.items() for word in pair]
        # It says much of clients that leave in the midst of an answer.
        with log.with_suffix(".err").open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.fleet", *words),
                cwd=REPOSITORY,
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
            )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        return cls(json.loads(line), process)

    async def tell(self, *words: object) -> None:
        """Give a command, and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{' '.join(map(str, words))}\n".encode())
        await self._process.stdin.drain()
        answer = await asyncio.wait_for(self._process.stdout.readline(), 60)
        if answer != b"ok\n":
            raise RuntimeError(f"the fleet could not do {words}")

    async def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        # Its pipe is closed with it; the transport is closed by the loop's next turn.
        await asyncio.sleep(0)
