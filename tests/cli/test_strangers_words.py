"""Poison everywhere: whatever a paper, a file's name, a model or a server says, no command lets a terminal obey it."""

import asyncio
import json
import re
import sys

from tests.cli.conftest import Cli
from tests.cli.here import Here, serving
from tests.cli.several import one_after_another, outputs
from tests.cli.terminal import on_terminal
from tests.fakes.behaviour import Behaviour
from tests.fakes.server import FakeServer

POISON = (
    "EVIL\x1b[31337mred\x1b]8;;mailto:evil\x07link\x1b]8;;\x1b\\\x1b]52;c;RVZJTA==\x07\x1bP$q\x1b\\"
    "\x9b31337m\x9d0;title\x9c\u202egnp.exe\u202c\u2066in\u2069\x08\x08\x08\rOVERWRITTEN\U000e0045\U000e0056"
)
BROKEN = "what a server chokes on"
# Rich itself colours, moves and clears; a terminal is told nothing else.
OBEYED = re.compile(
    r"\x1b\[31337|\x1b[^\[]|\rOVER|[\x00\x07\x08\x80-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)


def poisoned(cli: Cli) -> None:
    """Papers, a preset and a configuration that say nothing else."""
    cli.write(f"papers/{POISON}.md", f"# {POISON}\n\n{POISON}")
    cli.write(f"papers/{POISON}.txt", BROKEN)
    cli.write(f"papers/empty {POISON}.txt", "")
    questions = [{"name": "q", "text": f"What? {POISON}"}]
    cli.write("presets/bad.json", json.dumps({"description": POISON, "prompts": questions}))
    # Half of what a terminal obeys may stand in JSON as it is.
    raw = json.dumps({"description": POISON[POISON.index("\x9b") :], "prompts": questions}, ensure_ascii=False)
    cli.write("presets/raw.json", re.sub(r"[\x00-\x1f]", "", raw).replace("What?", "EVIL"))
    cli.write("presets/broken.json", json.dumps({"prompts": questions, POISON: 1}))


# Each with its exit code.
LOOKING = [
    (["status"], 0),
    (["status", "1"], 0),
    (["status", "1", "--json"], 0),
    (["status", "1", "--watch"], 0),
    (["status", "1", "--watch", "--json"], 0),
    (["results", "1"], 0),
    (["results", "1", "--json"], 0),
    (["results", "1", "--document", f"no {POISON}"], 2),
    (["results", "1", "--prompt", POISON], 2),
    (["query", "SELECT * FROM answers"], 0),
    (["query", "SELECT answer, title FROM answers"], 0),
    (["query", "SELECT text, title FROM documents"], 0),
    (["query", "--format", "json", "SELECT * FROM answers"], 0),
    (["query", "--format", "csv", "SELECT * FROM answers"], 0),
    (["query", "SELECT * FROM failures"], 0),
    (["query", f'SELECT "{POISON}"."x"'], 2),
    *((["export", "1", "--format", form], 0) for form in ("jsonl", "csv", "markdown", "html")),
    *((["export", "1", "--wide", "--format", form], 0) for form in ("jsonl", "csv", "markdown", "html")),
    (["export", "1", "--format", "csv", "-o", f"{POISON}.csv"], 0),
    (["export", "1", "--format", "csv", "-o", f"no/{POISON}/x.csv"], 2),
    (["workers"], 0),
    (["workers", "list", "--json"], 0),
    (["workers", "check"], 1),
    (["workers", "check", "--json"], 1),
    (["workers", "check", POISON], 2),
    (["workers", "remove", POISON], 2),
    (["workers", "add", POISON, "--type", "openai"], 2),
    (["presets", "show", "bad"], 0),
    (["presets", "show", "bad", "--json"], 0),
    (["presets", "show", "raw", "--json"], 0),
    (["presets", "show", POISON], 2),
    (["presets"], 1),
    (["submit", POISON, "--preset", "bad"], 2),
    (["submit", "papers", "--job", f"{POISON}.json"], 2),
    (["submit", "papers", f"--{POISON}"], 2),
    (["--config", f"{POISON}.json", "workers"], 2),
    (["--db", f"{POISON}.db", "status"], 1),
    (["--db", f"{POISON}.db", "db", "path"], 0),
    (["--db", f"{POISON}.db", "db", "check"], 1),
    (["db", "backup", f"{POISON}.backup"], 0),
    (["--log-level", "DEBUG", "--db", f"{POISON}.db", "results", "1"], 1),
]


async def test_no_command_lets_a_terminal_obey_what_strangers_wrote(cli: Cli) -> None:
    poisoned(cli)
    async with FakeServer(model=POISON, kind="plain", answer=lambda _: POISON) as server:
        server.behave_for(BROKEN, Behaviour(status=400, body={"error": {"message": POISON}}))
        workers = [
            {"id": "w0", "type": "openai", "port": server.port},
            {"id": f"w1{POISON}", "type": "openai", "host": "localhost", "port": server.port, "model": "none"},
        ]
        cli.write("workers.json", json.dumps({"workers": workers}))
        asked = ["submit", "papers", "--preset", "bad", "--model", POISON, "--name", POISON]
        commands = [
            ([*asked, "--dry-run"], 0),
            (asked, 3),
            *LOOKING,
            (["workers", "scan", "127.0.0.1/32", "--port", str(server.port)], 0),
            (["workers", "scan", "127.0.0.1/32", "--port", str(server.port), "--json"], 0),
            (["--log-level", "DEBUG", *asked], 3),
        ]
        program = one_after_another(cli, [arguments for arguments, _ in commands])
        async with on_terminal(cli, *program, program=sys.executable, columns=100) as terminal:
            async with asyncio.timeout(60):
                assert await terminal.process.wait() == 0, terminal.text[-2000:]
            await terminal.end()
    for (arguments, code), (ended, text) in zip(commands, outputs(terminal.text), strict=True):
        assert ended == code, (arguments, text)
        # It was there to be obeyed.
        assert "EVIL" in text, (arguments, text)
        assert OBEYED.findall(text) == [], arguments


def test_what_is_taken_away_keeps_every_character(here: Here) -> None:
    here.files.papers(1)
    with serving(server := FakeServer(answer=lambda _: POISON)):
        here.files.use(server)
        assert here.run("submit", "papers", "--prompt", "What?").code == 0
    for form in ("jsonl", "csv"):
        assert here.run("export", "1", "-o", f"a.{form}").code == 0
        text = (here.folder / f"a.{form}").read_bytes().decode("utf-8-sig")
        assert POISON in (json.loads(text)["answer"] if form == "jsonl" else text)
