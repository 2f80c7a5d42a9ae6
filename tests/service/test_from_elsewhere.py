"""The command with `--server` does on another machine what it does here."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distllm.cli.remote.client import server_url
from distllm.domain.errors import UsageError
from tests.cli.conftest import here
from tests.cli.here import Here, one_line, serving
from tests.fakes.behaviour import CUT, EMPTY
from tests.fakes.server import FakeServer
from tests.service.conftest import House, opened

__all__ = ["here"]

TOKEN = "a-token-that-nobody-guesses"


@contextmanager
def running(db: Path, server: FakeServer, **more: Any) -> Iterator[str]:
    """A service on a thread, beside a command that blocks; its address."""
    started: Future[tuple[asyncio.AbstractEventLoop, House]] = Future()
    ended = asyncio.Event()

    async def serve() -> None:
        try:
            async with server, opened(db, server, max_retries=0, **more) as house:
                started.set_result((asyncio.get_running_loop(), house))
                await ended.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    loop, house = started.result(timeout=20)
    try:
        yield house.service.url
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(timeout=20)


@pytest.fixture
def server() -> FakeServer:
    """A worker, which the service starts."""
    return FakeServer(slots=2, context=100_000)


@pytest.fixture
def far(db: Path, server: FakeServer) -> Iterator[str]:
    """The address of a service."""
    with running(db, server) as url:
        yield url


def told(here: Here, url: str, *arguments: str, code: int = 0) -> Any:
    """What a command prints for programs."""
    done = here.run("--server", url, *arguments, "--json")
    assert done.code == code, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    return lines[0] if len(lines) == 1 else lines


def test_a_folder_is_sent_followed_and_read_from_elsewhere(here: Here, far: str, server: FakeServer, db: Path) -> None:
    here.files.papers(3)
    here.files.write('papers/more/ünd "so" 100%.md', "# A title\n\nThe last paper.")
    done = here.run("--server", far, "submit", "papers", "--preset", "summary", "--name", "mine")
    assert done.code == 0, done.err
    assert "Job 1, mine: completed" in done.out
    assert "12 of 12" in done.out
    assert not (here.folder / "distllm.db").exists()
    names = {row["document"] for row in told(here, far, "results", "1")}
    assert names == {"paper0.txt", "paper1.txt", "paper2.txt", "more/ünd _so_ 100%.md"}
    assert {row["answer"][:10] for row in told(here, far, "results", "1", "--prompt", "detailed")} == {"Answer to:"}
    assert "more/ünd _so_ 100%.md: A title" in here.run("--server", far, "results", "1").out
    assert len(server.requests) == 12
    # The database of the service has it all: the same facts come from there.
    local = json.loads(here.run("--db", str(db), "status", "1", "--json").out)
    assert told(here, far, "status", "1") == local
    assert told(here, far, "status") == json.loads(here.run("--db", str(db), "status", "--json").out)
    assert "mine" in here.run("--server", far, "status").out
    assert told(here, far, "workers", "list")[0]["id"] == "w0"


def test_a_job_is_steered_from_elsewhere(here: Here, far: str, server: FakeServer) -> None:
    server.behave(EMPTY, CUT)
    here.files.papers(2)
    failed = told(here, far, "submit", "papers", "--prompt", "What?", "--max-tokens", "20", code=3)
    assert (failed["state"], failed["done"], failed["failed"]) == ("failed", 1, 1)
    assert told(here, far, "retry", "1")["again"] == 1
    assert told(here, far, "resume", "1")[0]["state"] == "completed"
    assert told(here, far, "retry", "1", "--truncated")["again"] == 1
    assert told(here, far, "resume", "1")[0]["done"] == 2
    assert one_line(here.run("--server", far, "pause", "1")) == "distllm: job 1 has ended: it is completed"
    assert one_line(here.run("--server", far, "cancel", "7")) == (
        "distllm: there is no job 7: `distllm status` lists them"
    )
    assert here.run("--server", far, "status", "7").code == 2
    watched = here.run("--server", far, "status", "1", "--watch")
    assert (watched.code, watched.out) == (0, "job 1, prompts on 2 files: completed, 2 of 2 answered\n")
    assert here.run("--server", far, "resume").out == "Nothing is unfinished.\n"


def test_a_users_own_preset_is_sent(here: Here, far: str, server: FakeServer) -> None:
    preset = {"max_tokens": 33, "temperature": 0.5, "prompts": [{"name": "aim", "text": ["What is", "the aim?"]}]}
    here.files.write("presets/own.json", json.dumps(preset))
    here.files.papers(1)
    assert told(here, far, "submit", "papers", "--preset", "own", "--detach") == {"job_id": 1}
    assert told(here, far, "resume")[0]["done"] == 1
    [seen] = server.requests
    assert (seen.question, seen.body["max_tokens"], seen.body["temperature"]) == ("What is\nthe aim?", 33, 0.5)


def test_without_the_token_nothing_is_done_and_with_it_all_is(
    here: Here, db: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(db, server, token=TOKEN) as url:
        said = one_line(here.run("--server", url, "status"))
        assert "wants its token, and DISTLLM_TOKEN is not set" in said
        monkeypatch.setenv("DISTLLM_TOKEN", "another-token-than-that")
        assert "is not the one that it wants" in one_line(here.run("--server", url, "status"))
        monkeypatch.setenv("DISTLLM_TOKEN", TOKEN)
        assert here.run("--server", url, "status").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--server", "http://127.0.0.1:9", "status"], 1, "nobody answers at http://127.0.0.1:9"),
        (["--server", "ftp://studio", "status"], 2, "'ftp://studio' is no address"),
        (["--server", "http://me:secret@studio", "status"], 2, "a user or a password"),
        (["--server", "http://studio", "query", "select 1"], 2, "query is done with a database here"),
        (["--server", "http://studio", "workers", "scan"], 2, "workers scan is done here"),
        (["status", "--server", "http://studio"], 2, "--server stands before the command"),
        (["--server", "http://studio", "submit", "--prompt", "What?"], 2, "nothing to read"),
        (["--server", "http://studio", "submit", "nosuch", "--prompt", "What?"], 2, "no such file or folder"),
    ],
)
def test_a_mistake_is_one_line(here: Here, arguments: list[str], code: int, said: str) -> None:
    done = here.run(*arguments)
    assert done.code == code
    assert said in one_line(done)
    assert "secret" not in done.err


def test_what_is_no_service_is_told_apart(here: Here, db: Path) -> None:
    with serving(server := FakeServer(port=0)):
        said = one_line(here.run("--server", server.url, "status"))
    assert f"{server.url} is no service of distllm: it answers 404" in said


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("studio", "http://studio:8470"),
        ("studio:81", "http://studio:81"),
        ("http://studio", "http://studio"),
        ("https://studio.example/", "https://studio.example"),
        ("[::1]", "http://[::1]:8470"),
    ],
)
def test_an_address_may_be_short(given: str, url: str) -> None:
    assert server_url(given) == url


@pytest.mark.parametrize(
    "given", ["", "http://", "http://studio:port", "http://studio/path", "studio?x=1", "http://a b:"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        server_url(given)
