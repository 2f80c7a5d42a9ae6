"""A key is sent, and is to be found nowhere else, though servers say it back in every way that they have."""

import asyncio
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing

from tests.cli.conftest import Cli
from tests.cli.several import one_after_another, outputs
from tests.fakes.behaviour import Behaviour, fails_inside
from tests.fakes.flood import Flood, flooding, head
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

KEY = "sk-0123456789-never-to-be-seen"
OTHER = "sk-another-9876543210-of-the-environment"
SPOILT = "the paper that a server does not like"
SAID = f"You sent Authorization: Bearer {KEY}"
FORMATS = ("jsonl", "csv", "md", "html")


async def test_a_key_is_in_no_log_no_error_no_answer_and_no_file(cli: Cli) -> None:
    cli.papers(2)
    cli.write("papers/spoilt.txt", SPOILT)
    on_disk = []

    def look(_: Seen) -> None:
        """What is being written meanwhile has it neither."""
        on_disk.append(b"".join(file.read_bytes() for file in cli.folder.glob("distllm.db*")))

    refusal = json.dumps({"error": {"message": f"Incorrect API key provided: {OTHER}"}}).encode()
    refusing = Flood([head("401 No", f"Content-Length: {len(refusal)}"), refusal])
    elsewhere = Flood([head("302 Found", f"Location: http://127.0.0.1:1/?key={KEY}", f"X-Key: {KEY}"), SAID.encode()])
    server = FakeServer(
        api_key=KEY, kind="plain", answer=lambda seen: f"{seen.headers['Authorization']} it was", on_request=look
    )
    async with server, flooding(refusing), flooding(elsewhere):
        server.behave_for(SPOILT, Behaviour(status=400, body={"error": {"message": SAID}}))
        server.behave(
            Behaviour(status=500, body={"detail": SAID}),
            fails_inside({"message": SAID}),
            Behaviour(answer=f"<think>{SAID}</think>{SAID}"),
        )
        ports = {"w0": server.port, "w1": refusing.port, "w2": elsewhere.port}
        keys = {"w0": {"api_key": KEY}, "w1": {"api_key_env": "A_KEY"}, "w2": {"api_key": KEY}}
        workers = [{"id": name, "type": "openai", "port": ports[name]} | keys[name] for name in ports]
        cli.write("workers.json", json.dumps({"workers": workers[:1]}))
        cli.write("all.json", json.dumps({"workers": workers}))
        commands = [
            ["submit", "papers", "--prompt", "What is found?", "--prompt", "How is it known?", "--model", "fake-model"],
            ["--config", "all.json", "workers", "list", "--json"],
            ["--config", "all.json", "workers", "check", "--generate"],
            ["--config", "all.json", "workers", "check", "--json"],
            ["status", "1"],
            ["results", "1"],
            ["query", "--json", "SELECT * FROM attempts"],
            *(["export", "1", "-o", f"answers.{form}"] for form in FORMATS),
            ["db", "backup", "copy.db"],
            ["db", "check"],
            # Shows a traceback.
            ["--db", "missing.db", "results", "1"],
        ]
        commands = [["--log-level", "DEBUG", *command] for command in commands]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *one_after_another(cli, commands),
            cwd=cli.folder,
            env={"HOME": str(cli.folder / "home"), "A_KEY": OTHER, "PYTHONWARNINGS": "error"},
            stdout=PIPE,
            stderr=PIPE,
        )
        cli.processes.append(process)
        done = await cli.finish(process)
        sent = {seen.headers["Authorization"] for seen in server.requests}
    codes = [code for code, _ in outputs(done.out)]
    assert codes == [3, 0, 1, 1, *[0] * (len(commands) - 5), 1], done.out + done.err
    # All of it came back, and was seen to be a key.
    assert sent == {f"Bearer {KEY}"}
    assert "Traceback" in done.err
    assert "DEBUG " in done.err
    assert "Incorrect API key provided: ***" in done.out
    with closing(sqlite3.connect(cli.database)) as connection:
        errors = "\n".join(
            error for (error,) in connection.execute("SELECT error FROM attempts WHERE error IS NOT NULL")
        )
        answers = connection.execute("SELECT answer, thinking FROM answers").fetchall()
    assert errors.count("Bearer ***") >= 4
    assert max(answers) == ("You sent Authorization: Bearer ***", "You sent Authorization: Bearer ***")
    assert ("Bearer *** it was", None) in answers
    files = {
        file: file.read_bytes()
        for file in cli.folder.rglob("*")
        if file.is_file() and file.name not in ("workers.json", "all.json")
    }
    assert {f"answers.{form}" for form in FORMATS} | {"distllm.db", "copy.db"} <= {file.name for file in files}
    assert any(b"SQLite" in each for each in on_disk)
    for key in (KEY, OTHER):
        assert key not in done.out
        assert key not in done.err
        assert not [file for file, data in files.items() if key.encode() in data]
        assert not any(key.encode() in each for each in on_disk)
