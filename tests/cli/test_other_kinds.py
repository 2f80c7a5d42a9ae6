"""Kinds of server: those that the configuration may name, and one that a package adds."""

import json
import re
from pathlib import Path

import pytest
from aiohttp import web

from tests.cli.conftest import Cli
from tests.fakes.server import FakeServer
from tests.packages import install

GUIDE = Path(__file__).parent.parent.parent / "docs" / "extending.md"


def shown(language: str, holding: str) -> str:
    """The block of the guide in this language that holds a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if holding in block)


async def test_the_server_of_the_guide_answers_prompts(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = re.search(r"^(parrot) = \"(.*)\"$", shown("toml", "distllm.workers"), re.MULTILINE)
    assert declared
    site = cli.folder / "site"
    install(site, monkeypatch, "my_servers", shown("python", "Parrot"), {"distllm.workers": {declared[1]: declared[2]}})
    monkeypatch.setenv("PYTHONPATH", str(site))

    async def about(_: web.Request) -> web.Response:
        return web.json_response({"model": "polly-1", "window": 4096, "slots": 1})

    async def answer(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        return web.json_response({"text": f"{asked['prompt'].split()[-1]} ({asked['limit']})"})

    app = web.Application()
    app.add_routes([web.get("/about", about), web.post("/answer", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    worker = json.loads(shown("json", "parrot"))["workers"][0]
    worker |= {"host": "127.0.0.1", "port": runner.addresses[0][1]}
    cli.write("workers.json", json.dumps({"workers": [worker]}))
    cli.papers(2)
    done = await cli.run("submit", "papers", "--prompt", "Repeat: hello", "--max-tokens", "64")
    await runner.cleanup()
    assert done.code == 0, done.err
    assert cli.rows("SELECT DISTINCT answer, model, worker FROM answers") == [("hello (64)", "polly-1", "polly")]
    assert cli.rows("SELECT type FROM workers") == [("parrot",)]


async def test_a_package_that_is_broken_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"distllm.workers": {"parrot": "my_servers:Parrot"}}
    install(cli.folder / "site", monkeypatch, "my_servers", "import nothing_that_exists\n", named)
    monkeypatch.setenv("PYTHONPATH", str(cli.folder / "site"))
    cli.write("workers.json", '{"workers": [{"id": "a", "type": "parrot"}]}')
    cli.papers(1)
    done = await cli.run("submit", "papers", "--prompt", "Why?")
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert "'parrot' of the package my_servers cannot be imported" in line
    assert "nothing_that_exists" in line


@pytest.mark.parametrize(("kind", "endpoint"), [("ollama", "chat"), ("lm_studio", "generate")])
async def test_papers_are_read_by_each_kind(kind: str, endpoint: str, cli: Cli) -> None:
    cli.papers(2)
    async with FakeServer(kind=kind, models=("paper-reader:8b",), loaded=()) as server:
        worker = {"id": "w", "type": kind, "host": server.host, "port": server.port, "endpoint": endpoint}
        cli.write("workers.json", json.dumps({"workers": [worker]}))
        done = await cli.run("submit", "papers", "--preset", "summary")
    assert done.code == 0, done.err
    assert "6 of 6 prompts about 2 documents answered" in done.out
    assert len(server.loads) == 1
    # So little was counted that nothing is known of the tokenizer yet.
    assert cli.rows("SELECT DISTINCT proof FROM answers") == [("unproven",)]
    assert cli.rows("SELECT sum(counts) FROM model_tokens") == [(2,)]
    assert [seen.cached_tokens > 40 for seen in server.requests] == 2 * [False, True, True]
    assert {seen.path for seen in server.requests} == {"/api/chat" if kind == "ollama" else "/v1/completions"}
