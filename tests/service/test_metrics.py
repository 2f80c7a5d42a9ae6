"""What Prometheus is told agrees with what was done, and Prometheus itself reads it and finds no fault."""

import asyncio
import re
import socket
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.behaviour import BREAKS_OFF
from tests.fakes.server import FakeServer
from tests.faults.conftest import succeeds
from tests.required import require
from tests.service.conftest import SOON, House, opened

DOCS = Path(__file__).parents[2] / "docs/service.md"
TOKEN = "a-token-that-is-long-enough"


async def test_what_was_asked_and_answered_is_counted(house: House, server: FakeServer) -> None:
    server.behave(BREAKS_OFF)
    job = await house.submit("One.", "Two.", prompts=("What?", "Why?"))
    await house.until_ended(job["job_id"])
    figures = await scraped(house)
    [[done, asked, answered, read, cached, written]] = house.rows(
        "SELECT sum(state = 'done'), (SELECT count(*) FROM attempts), (SELECT count(*) FROM results), "
        "(SELECT sum(prompt_tokens - coalesce(cached_tokens, 0)) FROM results), "
        "(SELECT sum(coalesce(cached_tokens, 0)) FROM results), (SELECT sum(completion_tokens) FROM results) "
        "FROM prompts"
    )
    assert (done, asked, answered) == (4, 5, 4)
    assert figures["distllm_prompts", "whole", "done"] == 4
    assert figures["distllm_prompts", "whole", "pending"] == figures["distllm_prompts", "part", "done"] == 0
    assert figures["distllm_attempts_total", "done", "w0"] == 4
    assert figures["distllm_attempts_total", "broken", "w0"] == 1
    assert figures["distllm_answer_seconds_count", "w0"] == figures["distllm_first_token_seconds_count", "w0"] == 4
    assert [figures["distllm_tokens_total", kind, "w0"] for kind in ("read", "cached", "written")] == [
        read,
        cached,
        written,
    ]
    assert figures["distllm_worker_healthy", "w0"] == figures["distllm_worker_breaker", "closed", "w0"] == 1
    assert figures["distllm_worker_breaker", "open", "w0"] == 0
    # Every lease is a commit, and so is every answer.
    assert 1 <= figures[("distllm_lease_seconds_count",)] < figures[("distllm_commit_seconds_count",)]
    assert not [name for name, *_ in figures if name.endswith("_created")]


async def test_a_service_that_works_nothing_tells_what_waits(idle: House) -> None:
    await idle.submit("One.", "Two.")
    figures = await scraped(idle)
    assert figures["distllm_prompts", "whole", "pending"] == 2
    assert not [name for name, *_ in figures if name.startswith("distllm_attempts")]


async def test_switched_off_there_are_none(db: Path, server: FakeServer) -> None:
    async with opened(db, server, enable_metrics=False) as house:
        job = await house.submit("One.")
        await house.until_ended(job["job_id"])
        assert (await house.ask("GET", "/metrics")).status == 404


async def test_the_token_is_wanted(db: Path) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        assert (await house.ask("GET", "/metrics")).status == 401


async def test_prometheus_scrapes_a_service_as_the_documentation_shows(
    db: Path, server: FakeServer, tmp_path: Path
) -> None:
    require(succeeds("prometheus", "--version"), "Prometheus is not installed: get Debian's package `prometheus`")
    async with opened(db, server, token=TOKEN) as house:
        house.client.headers["Authorization"] = f"Bearer {TOKEN}"
        job = await house.submit("One.", "Two.")
        await house.until_ended(job["job_id"])
        address = house.service.url.removeprefix("http://")
        [shown] = re.findall(r"```yaml\n(scrape_configs:.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
        config = shown.replace("127.0.0.1:8470", address).replace("TOKEN", TOKEN)
        async with prometheus("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n" + config, tmp_path) as ask:
            await house.until(lambda: ask('up{job="distllm"} == 1'))
            [found] = await ask('distllm_prompts{state="done", kind="whole"}')
            assert found["value"][1] == "2"
            [found] = await ask("histogram_quantile(1, sum by (le) (distllm_answer_seconds_bucket))")
            assert 0 < float(found["value"][1]) <= 1800


async def test_promtool_finds_no_fault(house: House, server: FakeServer) -> None:
    require(succeeds("promtool", "--version"), "promtool is not installed: get Debian's package `prometheus`")
    server.behave(BREAKS_OFF)
    job = await house.submit("One.")
    await house.until_ended(job["job_id"])
    text = (await house.ask("GET", "/metrics")).body
    checking = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(checking.communicate(text), SOON)
    assert (checking.returncode, out, err) == (0, b"", b"")


async def scraped(house: House) -> dict[tuple[str, ...], float]:
    """All figures, by name and the values of their labels, which stand in the order of the labels' names."""
    answer = await house.ask("GET", "/metrics")
    assert answer.status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


@asynccontextmanager
async def prometheus(config: str, folder: Path) -> AsyncIterator[Any]:
    """A Prometheus of its own; what is yielded asks it for the result of an expression."""
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={address}",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        async with aiohttp.ClientSession(f"http://{address}") as client:

            async def ask(expression: str) -> list[Any]:
                try:
                    async with client.get("/api/v1/query", params={"query": expression}) as response:
                        return list((await response.json())["data"]["result"]) if response.ok else []
                except aiohttp.ClientConnectionError:
                    return []

            yield ask
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), SOON)
