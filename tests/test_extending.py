"""What docs/extending.md shows is installed as a package, configured and run."""

import asyncio
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from aiohttp import web

from distllm import Config, LoadBalancer
from tests.fakes.server import FakeServer
from tests.packages import install

TEXT = Path(__file__).parent.parent.joinpath("docs/extending.md").read_text(encoding="utf-8")


def blocks(heading: str) -> dict[str, str]:
    """The code blocks of a section, by their language."""
    section = re.split(r"^## ", TEXT.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    return dict(re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def installed(heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Install the package of a section; return the configuration that names it."""
    shown = blocks(heading)
    code = [line for line in shown["python"].splitlines() if line.strip()]
    assert len(code) <= 20
    groups = tomllib.loads(shown["toml"])["project"]["entry-points"]
    [module] = {value.split(":")[0] for names in groups.values() for value in names.values()}
    monkeypatch.delitem(sys.modules, module, raising=False)
    install(folder / "site", monkeypatch, module, shown["python"], groups)
    return dict(json.loads(shown["json"]))


def configured(folder: Path, settings: dict[str, object], **servers: FakeServer) -> Config:
    workers = [
        {"id": name, "type": "openai", "host": server.host, "port": server.port} for name, server in servers.items()
    ]
    file = folder / "workers.json"
    file.write_text(json.dumps(settings | {"workers": workers}), encoding="utf-8")
    return Config.load(file, {})


class Late(FakeServer):
    """Is found well a while after the others."""

    async def probed(self, request: web.Request) -> web.Response | None:
        await asyncio.sleep(0.5)
        return await super().probed(request)


async def test_the_policy_spares_the_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = installed("A policy", tmp_path, monkeypatch)
    # Long enough that the laptop stands idle beside it for most of the time.
    async with Late() as laptop, FakeServer(slots=1, seconds_per_token=0.02) as studio:
        config = configured(tmp_path, settings, laptop=laptop, studio=studio)
        async with LoadBalancer(config) as balancer:
            results = await balancer.process_batch([f"Question {n}?" for n in range(20)])
        assert {result.worker for result in results} == {"studio"}
        assert laptop.probes
        assert not laptop.requests


async def test_the_sink_writes_a_line_for_each_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = installed("A metrics sink", tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    async with FakeServer() as server, LoadBalancer(configured(tmp_path, settings, studio=server)) as balancer:
        results = await balancer.process_batch(["one?", "two?"])
    lines = [json.loads(line) for line in tmp_path.joinpath("answers.jsonl").read_text().splitlines()]
    assert [line["worker"] for line in lines] == ["studio"] * 2
    assert sorted(line["seconds"] for line in lines) == sorted(result.seconds for result in results)
    assert sum(line["tokens"] for line in lines) == sum(result.completion_tokens or 0 for result in results)


async def test_the_weight_of_a_worker_is_a_programs_to_set(tmp_path: Path) -> None:
    async with FakeServer() as one, FakeServer() as two:
        config = configured(tmp_path, {"policy": "weighted"}, one=one, two=two)
        async with LoadBalancer(config) as balancer:
            assert {worker.api_endpoint for worker in balancer.workers} == {
                f"{server.url}/v1/chat/completions" for server in (one, two)
            }
            assert {worker.health_endpoint for worker in balancer.workers} == {
                f"{server.url}/v1/models" for server in (one, two)
            }
            for worker in balancer.workers:
                worker.weight = 1e-9 if worker.name == "two" else 1.0
            # One prompt in flight at a time, so that the choice is the policy's.
            await balancer.process_batch([f"Question {n}?" for n in range(12)], max_concurrent=1)
        assert len(two.requests) <= 1
