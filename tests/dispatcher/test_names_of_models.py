"""A model has more names than the one that a server lists it under."""

import pytest

from tests.dispatcher.conftest import Bench, paper, store_job
from tests.fakes.server import FakeServer


@pytest.mark.parametrize("named", ["llama3.1", "llama3.1:latest", "llama"])
async def test_ollama_takes_a_name_without_its_tag_for_the_latest(named: str, bench: Bench) -> None:
    await store_job(bench.database, [paper(1)], ["Why?"], model=named)
    async with FakeServer(kind="ollama", models=("llama3.1:latest", "llama3.1:70b")) as server:
        await bench.work(server, aliases=[("llama", "llama3.1")])
    assert [seen.body["model"] for seen in server.requests] == ["llama3.1:latest"]
    bench.assert_consistent()
