"""Workers as a person meets them: listed, tried, added, removed."""

import json
from dataclasses import replace

import pytest

from distllm.domain.models import Health
from tests.cli.conftest import Cli
from tests.cli.here import Here, one_line, serving
from tests.fakes.behaviour import Behaviour
from tests.fakes.server import FakeServer

SECRET = "sk-never-to-be-seen"


def facts(here: Here, *arguments: str) -> dict[str, dict[str, object]]:
    """What a command says of each worker."""
    return {row["id"]: row for row in json.loads(here.run("workers", *arguments, "--json").out)}


def test_the_list_tells_what_was_configured_seen_and_learnt_and_contacts_nobody(here: Here) -> None:
    here.files.papers(3)
    with serving(server := FakeServer(slots=2, seconds_per_token=0.005, seconds_per_prompt_token=0.0001)):
        here.files.use(server)
        before = facts(here)["w0"]
        assert (before["configured"], before["healthy"], before["answers"]) == (True, None, 0)
        assert here.run("submit", "papers", "--prompt", "What is found, and how sure is it?").code == 0
        probes = server.probes
        for command in (["workers"], ["workers", "list"]):
            done = here.run(*command)
            assert done.code == 0
            row = next(line for line in done.out.splitlines() if "│ w0" in line)
            assert [cell.strip() for cell in row.split("│")[2:8]] == [
                "openai",
                server.url,
                "fake-model",
                "8,192",
                "2",
                "healthy",
            ]
            assert row.split("│")[10].strip() == "3"
        after = facts(here)["w0"]
        assert server.probes == probes
    [model] = after["models"]  # type: ignore[misc]
    assert (model["model"], model["context_length"]) == ("fake-model", 8192)
    assert model["decode_rate"] > 0
    here.files.write("workers.json", "{}")
    gone = here.run("workers")
    assert "not configured" in next(line for line in gone.out.splitlines() if "│ w0" in line)
    assert "No worker is configured" in gone.out


def test_a_list_without_workers_says_how_to_get_some(here: Here) -> None:
    done = here.run("workers")
    assert done.code == 0
    assert "distllm workers scan" in done.out
    assert json.loads(here.run("workers", "--json").out) == []
    assert not here.files.database.exists()


@pytest.mark.parametrize(("well", "code"), [(2, 0), (1, 1), (0, 4)])
def test_a_check_ends_with_how_many_can_be_used(here: Here, well: int, code: int) -> None:
    with serving(*(servers := [FakeServer(slots=3), FakeServer(kind="ollama", loaded=("fake-model",))])):
        here.files.use(*(replaced(server, up=number < well) for number, server in enumerate(servers)))
        text = (
            (here.folder / "workers.json")
            .read_text()
            .replace('"id": "w1", "type": "openai"', '"id": "w1", "type": "ollama"')
        )
        here.files.write("workers.json", text)
        done = here.run("workers", "check")
    assert done.code == code
    assert [line.split()[0] for line in done.out.splitlines() if not line.startswith(" ")] == ["ok"] * well + [
        "bad"
    ] * (2 - well)
    if well < 2:
        assert "no connection" in done.out
        assert "is the server running" in done.out
    if well:
        assert "fake-model (8,192 tokens); 3 at once" in done.out


def replaced(server: FakeServer, *, up: bool) -> FakeServer:
    """The server, or one at an address where nobody listens."""
    return server if up else FakeServer(port=9)


def test_a_check_names_a_model_that_is_not_there_and_a_web_page(here: Here) -> None:
    with serving(server := FakeServer(kind="plain", models=("a", "b"))):
        here.files.use(server)
        text = (here.folder / "workers.json").read_text()
        here.files.write("workers.json", text.replace("fake-model", "c"))
        done = here.run("workers", "check")
        assert done.code == 4
        assert "has no model 'c'; it has a, b; load the model in the server, or correct `model`" in done.out
        assert facts(here, "check")["w0"]["remedy"] == "load the model in the server, or correct `model`"


def test_only_a_token_proves_that_a_model_answers(here: Here) -> None:
    with serving(server := FakeServer()):
        here.files.use(server)
        server.behave_always(Behaviour(status=500, body={"error": "the model runner has crashed"}))
        assert here.run("workers", "check").code == 0
        assert not server.requests
        done = here.run("workers", "check", "--generate")
        assert done.code == 4
        assert "fake-model does not answer" in done.out
        server.behave_always(Behaviour())
        done = here.run("workers", "check", "w0", "--generate")
        assert done.code == 0
        assert "its model answers" in done.out
        assert server.requests[-1].body["max_tokens"] == 1
        # A model that thinks spends the token on a thought: it is alive.
        server.behave_always(Behaviour(thinking="Hm", answer=""))
        assert here.run("workers", "check", "--generate").code == 0


def test_a_check_of_a_worker_that_is_not_there_suggests_one(here: Here) -> None:
    here.files.write("workers.json", json.dumps({"workers": [{"id": "studio", "type": "ollama"}]}))
    done = here.run("workers", "check", "stduio")
    assert done.code == 2
    assert "did you mean 'studio'?" in one_line(done)


def test_a_worker_is_added_tried_and_removed(here: Here) -> None:
    with serving(server := FakeServer()):
        added = here.run("workers", "add", f"127.0.0.1:{server.port}", "--type", "openai", "--id", "mine")
        assert (added.code, added.err) == (0, "")
        assert "workers.json: worker 'mine' was added" in added.out
        assert here.run("workers", "check", "mine").code == 0
        again = here.run("workers", "add", f"http://127.0.0.1:{server.port}", "--type", "openai", "--id", "other")
        assert again.code == 2
        assert "'mine' is at" in one_line(again)
        taken = here.run("workers", "add", "studio", "--type", "ollama", "--id", "mine")
        assert taken.code == 2
        assert "give another --id" in one_line(taken)
    assert here.run("workers", "remove", "mine").code == 0
    assert json.loads((here.folder / "workers.json").read_text()) == {"workers": []}
    nobody = here.run("workers", "remove", "mine")
    assert nobody.code == 2
    assert "has no worker 'mine'" in one_line(nobody)


def test_all_options_reach_the_file_and_ids_are_made_of_hosts(here: Here) -> None:
    options = ["--model", "m", "--max-concurrent", "4", "--context-length", "9000", "--endpoint", "completions"]
    for address, more in (
        ("https://Studio.local:8443", [*options, "--api-key-env", "KEY"]),
        ("studio.local:8080", []),
        ("[fe80::1]:8080", []),
        ("192.168.1.20:8080", []),
    ):
        assert here.run("workers", "add", address, "--type", "openai", *more).code == 0
    workers = json.loads((here.folder / "workers.json").read_text())["workers"]
    assert workers[0] == {
        "id": "Studio",
        "type": "openai",
        "host": "Studio.local",
        "port": 8443,
        "scheme": "https",
        "endpoint": "completions",
        "model": "m",
        "max_concurrent_requests": 4,
        "context_length": 9000,
        "api_key_env": "KEY",
    }
    assert [worker["id"] for worker in workers[1:]] == ["studio", "fe80::1", "192.168.1.20"]
    assert facts(here)["fe80::1"]["address"] == "http://[fe80::1]:8080"


def test_a_server_tells_what_it_is_where_the_type_is_left_out(here: Here) -> None:
    with serving(ollama := FakeServer(kind="ollama"), studio := FakeServer(kind="lm_studio")):
        for server in (ollama, studio):
            assert here.run("workers", "add", f"127.0.0.1:{server.port}").code == 0
    kinds = {row["type"] for row in json.loads((here.folder / "workers.json").read_text())["workers"]}
    assert kinds == {"ollama", "lm_studio"}
    silent = here.run("workers", "add", "127.0.0.1:9")
    assert silent.code == 1
    assert "--type" in one_line(silent)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["studio"], "no server"),
        (["studio", "--type", "olama"], "did you mean 'ollama'?"),
        (["studio", "--type", "openai"], "port: is missing"),
        (["studio:0", "--type", "openai"], "a port is a number"),
        (["stu dio", "--type", "ollama"], "is no address"),
        (["studio", "--type", "ollama", "--endpoint", "chatt"], "endpoint"),
        (["studio", "--type", "ollama", "--id", ""], "id"),
    ],
)
def test_an_addition_that_makes_no_sense_leaves_no_file(here: Here, arguments: list[str], words: str) -> None:
    done = here.run("workers", "add", *arguments)
    assert done.code in (1, 2)
    assert words in one_line(done)
    assert not (here.folder / "workers.json").exists()


def test_the_file_in_use_is_the_one_that_is_edited(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.files.write("mine.json", "{}")
    here.files.write("workers.json", "{}")
    assert here.run("--config", "mine.json", "workers", "add", "a", "--type", "ollama").code == 0
    assert here.run("--config", "made.json", "workers", "add", "b", "--type", "ollama").code == 0
    monkeypatch.setenv("DISTLLM_CONFIG", "mine.json")
    assert here.run("workers", "add", "c", "--type", "ollama").code == 0
    assert '"a"' in (text := (here.folder / "mine.json").read_text())
    assert '"c"' in text
    assert '"b"' in (here.folder / "made.json").read_text()
    assert (here.folder / "workers.json").read_text() == "{}"


def test_a_key_is_never_shown(here: Here) -> None:
    with serving(server := FakeServer(api_key="another")):
        worker = {"id": "a", "type": "openai", "port": server.port, "api_key": SECRET}
        here.files.write("workers.json", json.dumps({"workers": [worker]}))
        said = []
        for command in (["list"], ["check"], ["check", "--json"], ["list", "--json"], ["scan"], ["remove", "b"]):
            done = here.run("--log-level", "DEBUG", "workers", *command)
            said.append(done.out + done.err)
        here.files.write("workers.json", json.dumps({"workers": [worker | {"api_key": [SECRET]}]}))
        said.append(here.run("workers").err)
        assert "api_key" in said[-1]
    assert "give its key with api_key_env" in said[1]
    assert SECRET not in "".join(said)


def test_a_check_fits_a_worker_of_each_kind() -> None:
    """The words that a check shows are those of a health that anything may be missing from."""
    from distllm.cli.workers import described, seats

    health = Health(healthy=True)
    assert described(health) == "no model"
    assert seats(None, health) == "1 at once (it does not tell its slots)"
    assert seats(None, replace(health, slots=3)) == "3 at once"
    assert seats(2, replace(health, slots=3)) == "2 at once (configured)"


async def test_the_workers_fit_a_narrow_terminal(cli: Cli) -> None:
    from rich.cells import cell_len

    from tests.cli.test_narrow_tables import lines_of

    workers = [
        {"id": "studio-in-the-cellar", "type": "lm_studio", "host": "studio-in-the-cellar.local", "model": "m" * 40}
    ]
    cli.write("workers.json", json.dumps({"workers": workers}))
    lines = await lines_of(cli, "workers", columns=60)
    assert max(map(cell_len, lines)) <= 60
    assert any("never seen" in line for line in lines)
