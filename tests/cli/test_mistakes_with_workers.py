"""Workers that are down, lack the model, or are something else: one line that names them and the remedy."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.cli.here import Here, one_line, serving
from tests.fakes.server import FakeServer

SUBMIT = ["submit", "papers", "--prompt", "What?"]


@pytest.fixture
def with_papers(here: Here) -> Here:
    here.files.papers(1)
    return here


def use(here: Here, *workers: dict[str, object]) -> None:
    here.files.write("workers.json", json.dumps({"workers": workers}))


def openai(server: FakeServer, **more: object) -> dict[str, object]:
    return {"id": "studio", "type": "openai", "host": server.host, "port": server.port} | more


class WebPage(FakeServer):
    """A router's login page, at every path."""

    async def start(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            page = b"<!doctype html><title>Router login</title>"
            writer.write(
                b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
            )
            await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(answer, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()


@pytest.fixture
def web_page() -> Iterator[FakeServer]:
    with serving(page := WebPage()):
        yield page


def test_several_models_and_none_chosen(with_papers: Here) -> None:
    with serving(server := FakeServer(kind="plain", models=("one", "two"))):
        use(with_papers, openai(server))
        done = with_papers.run(*SUBMIT)
    assert done.code == 1
    assert "several models could answer (one, two); choose with --model" in one_line(done)
    assert not with_papers.files.database.exists()


def test_a_worker_that_is_down_leaves_no_model_to_choose(with_papers: Here) -> None:
    use(with_papers, openai(FakeServer(port=9)))
    done = with_papers.run(*SUBMIT)
    assert done.code == 4
    assert "studio: http://127.0.0.1:9: no connection" in one_line(done)
    assert "--model" in one_line(done)


def test_a_worker_that_is_a_web_page(with_papers: Here, web_page: FakeServer) -> None:
    use(with_papers, openai(web_page))
    done = with_papers.run(*SUBMIT)
    assert done.code == 4
    assert "web page: Router login" in one_line(done)
    checked = with_papers.run("workers", "check")
    assert checked.code == 4
    assert "another program is there: correct `port`" in checked.out
    assert "No server was found" in with_papers.run("workers", "scan", "--port", str(web_page.port)).out


def test_a_worker_without_any_model(with_papers: Here) -> None:
    with serving(server := FakeServer(kind="ollama", models=())):
        server.models = ()
        use(with_papers, openai(server, type="ollama"))
        done = with_papers.run(*SUBMIT)
        assert done.code == 1
        assert "no worker has a model" in one_line(done)
        checked = with_papers.run("workers", "check")
    assert checked.code == 4
    assert "has no model: load one in the server" in checked.out


def test_a_worker_whose_key_is_not_in_the_environment(with_papers: Here) -> None:
    use(with_papers, openai(FakeServer(port=9), api_key_env="NO_SUCH_KEY"))
    for command in (SUBMIT, ["workers", "check"]):
        done = with_papers.run(*command)
        assert done.code == 2
        assert "worker 'studio' wants its key from the variable NO_SUCH_KEY" in one_line(done)
    assert with_papers.run("workers", "list").code == 0


@pytest.mark.long
@pytest.mark.parametrize("lacking", [False, True], ids=["down", "without the model"])
def test_nobody_could_answer_in_the_first_seconds(with_papers: Here, lacking: bool) -> None:
    with serving(server := FakeServer(kind="plain", models=("other",))):
        use(with_papers, openai(server if lacking else FakeServer(port=9), model="wanted"))
        done = with_papers.run(*SUBMIT)
        assert done.code == 4
        line = done.err.strip().splitlines()[-1]
        assert line.startswith("distllm: nobody could answer in the first 30 s: studio")
        assert ("has not the model wanted" if lacking else "no connection") in line
        assert "distllm resume" in line
        assert "Traceback" not in done.err
    assert "1 pending" in with_papers.run("status", "1").out
