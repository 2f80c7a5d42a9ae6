"""A machine that vanishes from the network: its connections neither reset nor answer."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from tests.cli.conftest import DISTLLM, Cli
from tests.cli.test_kill import assert_done_once
from tests.faults.namespaces import Machines, inside, machines
from tests.required import require

PORT = 8080
ROOT = Path(__file__).parents[2]


@pytest.fixture
def network() -> Iterator[Machines]:
    """Two machines and the cable between them."""
    require(sys.platform == "linux", "only Linux has network namespaces")
    try:
        with machines() as made:
            yield made
    except (OSError, CalledProcessError) as error:
        require(False, f"no network namespaces without root and iproute2: {error}")


@asynccontextmanager
async def serving(machine: str, log: Path, *arguments: str) -> AsyncIterator[None]:
    """A fake server on a machine, which logs its requests."""
    process = await asyncio.create_subprocess_exec(
        *inside(machine), sys.executable, "-m", "tests.fakes", "--port", str(PORT), "--log", str(log), *arguments,
        "--until-stdin-closes", cwd=ROOT, stdin=PIPE, stdout=PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline()
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def test_a_host_that_vanishes_in_the_middle_is_left_and_used_again_when_it_is_back(
    cli: Cli, network: Machines
) -> None:
    cli.papers(120, words=4)
    workers = [
        {"id": "near", "type": "openai", "host": "127.0.0.1", "port": PORT},
        {"id": "far", "type": "openai", "host": network.address, "port": PORT},
    ]
    settings = {"request_timeout": 1, "health_check_interval": 1}
    cli.write("workers.json", json.dumps({"workers": workers} | settings))
    near, far = cli.write("near.log", ""), cli.write("far.log", "")

    def asked(log: Path) -> int:
        return len(log.read_text().splitlines())

    def healthy() -> list[tuple[object, ...]]:
        return cli.rows("SELECT healthy FROM worker_stats WHERE worker = 'far'")

    slow = ("--seconds-per-token", "0.1")
    async with (
        serving(network.here, near, *slow),
        serving(network.there, far, "--host", network.address, "--hangs", "1"),
    ):
        process = await cli.start(
            "submit", "papers", "--prompt", "What?", "--model", "fake-model", program=[*inside(network.here), DISTLLM]
        )
        await cli.until(lambda: asked(far) == 1)
        network.pull()
        # Its one request ends by its own limit, and then its probe finds nobody.
        await cli.until(lambda: cli.rows("SELECT error FROM attempts WHERE outcome = 'broken'"), seconds=20)
        await cli.until(lambda: healthy() == [(0,)], seconds=20)
        [(error,)] = cli.rows("SELECT error FROM attempts WHERE outcome = 'broken'")
        assert "no token within" in error
        before = asked(near)
        await cli.until(lambda: asked(near) >= before + 2, seconds=20)
        assert asked(far) == 1
        network.plug()
        await cli.until(lambda: asked(far) >= 10, seconds=20)
        done = await cli.finish(process)
        assert done.code == 0, done.err
    assert "worker far does not answer" in done.err
    assert_done_once(cli, 120, {})
    assert cli.rows("SELECT sum(failures), sum(losses) FROM prompts") == [(1, 0)]
