"""A fake server as a process of its own, for tests that kill things.

    python -m tests.fakes --port 0 --seconds-per-token 0.05

Prints its address as the first line, then serves until it is ended.
"""

import argparse
import asyncio
import json
import os
import sys
import threading
from pathlib import Path

from tests.fakes.behaviour import HANGS
from tests.fakes.kinds import KINDS
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="tests.fakes", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="fake-model")
    parser.add_argument("--kind", default="llamacpp", choices=KINDS)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--seconds-per-prompt-token", type=float, default=0.0)
    parser.add_argument("--seconds-per-token", type=float, default=0.0)
    parser.add_argument("--seconds-to-load", type=float, default=0.0)
    parser.add_argument("--thinks", help="the model thinks these words before each answer")
    parser.add_argument("--answer", help="the same answer to everything; each word is a token")
    parser.add_argument("--hangs", type=int, default=0, help="give the first so many requests no token, for ever")
    parser.add_argument("--log", type=Path, help="append one line of JSON for every request")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the starting process")
    given = parser.parse_args()
    if given.until_stdin_closes:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(_serve(given))


async def _serve(given: argparse.Namespace) -> None:
    def log(seen: Seen) -> None:
        line = {"path": seen.path, "system": seen.system, "question": seen.question}
        with given.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    server = FakeServer(
        host=given.host,
        port=given.port,
        model=given.model,
        kind=given.kind,
        slots=given.slots,
        context=given.context,
        seconds_per_prompt_token=given.seconds_per_prompt_token,
        seconds_per_token=given.seconds_per_token,
        seconds_to_load=given.seconds_to_load,
        thinks=given.thinks,
        answer=None if given.answer is None else lambda _: given.answer,
        on_request=log if given.log else None,
    )
    server.behave(*[HANGS] * given.hangs)
    async with server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
