"""Commands with a database on a PostgreSQL server: what they do there, what goes wrong, and no password shown."""

import asyncio
import json
import signal
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiohttp import ClientSession

from tests.cli.conftest import Cli
from tests.cli.here import Here, one_line, serving
from tests.fakes.server import FakeServer
from tests.service.test_serving import submit, told

PASSWORD = "n0-0ne-is-shown-this"


def with_password(url: str, database: str | None = None, **other: object) -> str:
    """The URL with a password, which a server that trusts everybody does not look at; to another database or port."""
    parts = urlsplit(url)
    user, port = other.get("user", parts.username), other.get("port", parts.port)
    return f"postgresql://{user}:{PASSWORD}@{parts.hostname}:{port}/{database or parts.path.removeprefix('/')}"


def test_papers_are_asked_about_and_answers_read_and_no_password_is_shown(here: Here, empty_postgres_url: str) -> None:
    url = with_password(empty_postgres_url)
    here.files.papers(2)
    with serving(server := FakeServer()):
        here.files.use(server)
        asks = ["submit", "papers", "--prompt", "What is found?"]
        commands = {
            "nothing is stored": [*asks, "--dry-run"],
            "2 of 2 prompts about 2 documents answered": asks,
            "completed": ["status"],
            '"state": "completed"': ["status", "1", "--json"],
            "Answer to: What is found?": ["results", "1"],
            "healthy": ["workers", "list"],
            "w0,1,stop,,proven": ["export", "1", "--format", "csv"],
            "Job 2 is stored": [*asks, "--prompt", "And why?", "--detach"],
            '"state": "paused"': ["pause", "2", "--json"],
            "2 of 4 (2 pending)": ["status", "2"],
            "answered": ["resume", "2"],
            "no failed prompts": ["retry", "2"],
            "would be reused": [*asks, "--prompt", "And why?", "--dry-run"],
        }
        said = []
        for words, command in commands.items():
            done = here.run("--db", url, *command)
            assert words in done.out, (command, done)
            assert done.code == 0, (command, done)
            said += [done.out, done.err]
    assert not [each for each in said if PASSWORD in each]
    kept = b"".join(file.read_bytes() for file in here.folder.rglob("*") if file.is_file())
    assert PASSWORD.encode() not in kept
    assert not here.files.database.exists()


async def test_not_even_a_traceback_shows_a_password(cli: Cli, postgres_url: str) -> None:
    for url, command in (
        (with_password(postgres_url), ["status", "9"]),
        (with_password(postgres_url, port=1), ["status"]),
        (with_password(postgres_url, database="not_made"), ["workers", "list"]),
        (with_password(postgres_url, database="template1?sslmode=nonsense"), ["status", "--watch"]),
    ):
        done = await cli.run("--log-level", "DEBUG", "--db", url, *command)
        assert done.code, command
        assert "Traceback" in done.err, command
        assert PASSWORD not in done.out + done.err


def test_a_rehearsal_makes_no_tables(here: Here, empty_postgres_url: str) -> None:
    here.files.papers(1)
    with serving(server := FakeServer()):
        here.files.use(server)
        for command in (["submit", "papers", "--prompt", "What?", "--dry-run"], ["workers", "list"]):
            assert here.run("--db", empty_postgres_url, *command).code == 0
    assert asyncio.run(tables(empty_postgres_url)) == 0
    done = here.run("--db", empty_postgres_url, "status")
    assert "is empty: `distllm submit` makes what it needs there" in one_line(done)


async def tables(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"))
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"database": "not_made"}, "createdb not_made"),
        ({"user": "nobody"}, 'role "nobody" does not exist; see the user and the password'),
        ({"port": 1}, "is out of reach: connection refused; see that the server runs"),
        ({"database": "template1?nonsense=1"}, "see the URL given with --db"),
        ({"database": "template1?sslmode=nonsense"}, "see the URL given with --db"),
    ],
)
def test_what_is_wrong_with_a_server_is_one_line(
    here: Here, empty_postgres_url: str, changed: dict[str, str], words: str
) -> None:
    here.files.papers(1)
    here.files.write("workers.json", json.dumps({"workers": [{"id": "a", "type": "ollama", "model": "m"}]}))
    for command in (["status"], ["submit", "papers", "--prompt", "What?"], ["serve", "--port", "0"]):
        done = here.run("--db", with_password(empty_postgres_url, **changed), *command)
        assert done.code == 1, command
        # How far the reading of files is may have been told before.
        said = done.err.strip().splitlines()[-1]
        assert words in said, command
        assert PASSWORD not in done.out + done.err


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}/x@studio/d",
        f"postgresql://me:x@{PASSWORD}@studio/d",
        f"postgresql://me:x@studio:{PASSWORD}/d",
        f"postgresql://me:{PASSWORD}#@studio/d",
        f"postgresql://me@[{PASSWORD}/d",
        f"mysql://me:{PASSWORD}@studio/d",
        f"postgresql+asyncpg://me:{PASSWORD}@studio/d",
    ],
)
def test_a_url_that_nobody_understands_is_not_repeated(here: Here, url: str) -> None:
    done = here.run("--db", url, "status")
    assert done.code == 2
    assert "postgresql://" in one_line(done)
    assert PASSWORD not in done.err


async def test_two_services_of_one_database_take_jobs_and_show_no_password(cli: Cli, empty_postgres_url: str) -> None:
    url = with_password(empty_postgres_url)
    async with FakeServer() as server:
        cli.use(server)
        services = [await cli.start("--db", url, "serve", "--port", "0", "--json") for _ in range(2)]
        said = [await told(process) for process in services]
        async with ClientSession(said[0]["url"]) as first, ClientSession(said[1]["url"]) as second:
            jobs = [await submit(first, "One paper."), await submit(second, "Another.")]
            for client in (first, second):
                for job in jobs:
                    await until_done(client, job)
                async with client.get("/health/ready") as response:
                    assert response.status == 200, await response.text()
            pages = ("/", "/jobs/1", "/workers", "/api/v1", "/api/v1/jobs", "/metrics", "/sql?sql=select+1")
            for page in pages:
                async with first.get(page) as response:
                    said.append(await response.text())
        for process in services:
            process.send_signal(signal.SIGTERM)
            done = await cli.finish(process)
            assert done.code == 0, done.err
            said += [done.out, done.err]
    assert PASSWORD not in json.dumps(said)


async def until_done(client: ClientSession, job: int) -> None:
    async with asyncio.timeout(30):
        while True:
            async with client.get(f"/api/v1/jobs/{job}") as response:
                if (await response.json())["state"] == "completed":
                    return
            await asyncio.sleep(0.05)


def test_a_token_for_those_from_elsewhere_must_be_given(
    here: Here, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(server := FakeServer()):
        here.files.use(server)
        monkeypatch.setenv("DISTLLM_DB", with_password(empty_postgres_url))
        done = here.run("serve", "--port", "0", "--host", "0.0.0.0")
    assert done.code == 1
    assert one_line(done).endswith("give one as DISTLLM_TOKEN")
    assert PASSWORD not in done.err
