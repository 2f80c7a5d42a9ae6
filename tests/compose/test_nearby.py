"""With nothing configured, what runs on this machine is used before the embedded worker is."""

from distllm.compose.fleet import open_fleet
from distllm.config import Config
from tests.fakes.server import FakeServer


async def test_servers_at_their_usual_ports_are_used() -> None:
    async with FakeServer(kind="ollama") as ollama, FakeServer(kind="lm_studio") as studio:
        nearby = [(server.host, server.port) for server in (ollama, studio)]
        async with open_fleet(Config(), nearby) as fleet:
            assert [(worker.name, worker.type) for worker, _ in fleet.workers] == [
                ("ollama", "ollama"),
                ("lm_studio", "lm_studio"),
            ]
            assert not fleet.embedded
            assert fleet.notice is not None
            assert f"{ollama.url} and {studio.url}" in fleet.notice


async def test_one_without_a_model_does_not_count() -> None:
    async with FakeServer(kind="ollama", models=("m",)) as empty:
        empty.models = ()
        async with open_fleet(Config(), [(empty.host, empty.port)]) as fleet:
            assert fleet.embedded
            assert fleet.notice is not None
            assert "embedded" in fleet.notice


async def test_nothing_there_leaves_the_embedded_worker() -> None:
    async with FakeServer() as gone:
        place = (gone.host, gone.port)
    async with open_fleet(Config(), [place]) as fleet:
        assert fleet.embedded


async def test_what_is_configured_is_all_that_is_asked() -> None:
    config = Config.of({"workers": [{"id": "a", "type": "openai", "port": 9}]}, "test", {})
    async with FakeServer(kind="ollama") as nearby, open_fleet(config, [(nearby.host, nearby.port)]) as fleet:
        assert [worker.name for worker, _ in fleet.workers] == ["a"]
        assert fleet.notice is None
        assert nearby.probes == 0
