"""A mistake is answered with one line that says what is wrong and what to do, and the right exit code."""

import pytest

from tests.cli.here import Here, one_line, serving
from tests.fakes.server import FakeServer


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit", "nowhere", "--preset", "research"], 2, "nowhere"),
        (["submit", "--preset", "research"], 2, "name files or folders"),
        (["submit", "empty", "--preset", "research"], 1, "no file to read in empty"),
        (["submit", "pictures", "--preset", "research"], 1, "no file to read in pictures"),
        (["submit", "papers", "--preset", "reserch"], 2, "did you mean 'research'?"),
        (["submit", "papers", "--preset", "mine.json"], 2, "mine.json: there is no such file"),
        (["submit", "papers"], 2, "--preset"),
        (["submit", "papers", "--prompt", ""], 2, "is empty"),
        (["submit", "papers", "--prompt", "Why?", "--prompt", "Why?"], 2, "given twice"),
        (["submit", "papers", "--prompt", "Why\udcff?"], 2, "'Why??' is not UTF-8"),
        (["submit", "papers", "--prompt", "Why?", "--preset", "summary"], 2, "exclude each other"),
        (["submit", "papers", "--prompt", "Why?", "--max-tokens", "0"], 2, "--max-tokens"),
        (["submit", "papers", "--prompt", "Why?", "--max-tokens", "few"], 2, "--max-tokens"),
        (["submit", "papers", "--prompt", "Why?", "--temperature", "-1"], 2, "--temperature"),
        (["submit", "papers", "--prompt", "Why?", "--max-tokens", "9" * 30], 2, "--max-tokens"),
        (["submit", "papers", "--prompt", "Why?", "--temperature", "inf"], 2, "--temperature"),
        (["submit", "papers", "--prompt", "Why?", "--temperature", "nan"], 2, "--temperature"),
        (["submit", "papers", "--prompt", "Why?", "--priority", "9" * 30], 2, "--priority"),
        (["status", "9" * 30], 2, "JOB"),
        (["status", "0"], 2, "JOB"),
        (["resume", "1", "9" * 30], 2, "JOB"),
        (["cancel", "9" * 30], 2, "JOB"),
        (["export", "9" * 30, "--format", "csv"], 2, "JOB"),
        (["submit", "papers", "--promt", "Why?"], 2, "--prompt"),
        (["--config", "gone.json", "submit", "papers", "--prompt", "Why?"], 2, "gone.json"),
        (["--db", "no/such/folder/d.db", "submit", "papers", "--prompt", "Why?"], 1, "no/such/folder does not exist"),
        (["--db", "mysql://me:secret@studio/d", "status"], 2, "an address of another kind"),
        (["submitt"], 2, "submitt"),
        (["--loglevel", "DEBUG", "status"], 2, "--log-level"),
        (["--log-level", "LOUD", "status"], 2, "LOUD"),
        (["status", "one"], 2, "valid integer"),
        (["workers", "chek"], 2, "chek"),
        (["workers", "remove"], 2, "ID"),
        (["workers", "--json", "list"], 2, "--json stands behind the command"),
        (["presets", "--json", "show", "summary"], 2, "--json stands behind the command"),
        (["db", "backup"], 2, "FILE"),
    ],
)
def test_a_command_that_makes_no_sense(here: Here, arguments: list[str], code: int, words: str) -> None:
    here.files.papers(1)
    (here.folder / "empty").mkdir()
    here.files.write("pictures/figure.png", "no text")
    done = here.run(*arguments)
    assert done.code == code
    assert words in one_line(done)
    assert "secret" not in done.err
    assert not here.files.database.exists()


def test_a_folder_where_every_file_fails_names_them_and_is_not_done(here: Here) -> None:
    here.files.write("papers/empty.txt", "")
    here.files.write("papers/broken.pdf", "%PDF-1.4 and nothing more")
    with serving(server := FakeServer()):
        here.files.use(server)
        done = here.run("submit", "papers", "--prompt", "What?")
        assert not server.requests
    assert done.code == 3
    assert "Traceback" not in done.out + done.err
    assert "not read: broken.pdf: " in done.out
    assert "not read: empty.txt: " in done.out


def test_what_a_link_out_of_a_folder_leads_to_is_named_and_sent_to_nobody(here: Here) -> None:
    here.files.papers(2)
    secret = here.files.write("elsewhere/key.txt", "a secret of this machine")
    (here.folder / "papers" / "notes.txt").symlink_to(secret)
    (here.folder / "papers" / "more").symlink_to(secret.parent)
    line = f"notes.txt: is a link to {secret.resolve()}, outside of what was submitted: to have that read, name it too"
    with serving(server := FakeServer()):
        here.files.use(server)
        asked = ("submit", "papers", "--prompt", "What?")
        rehearsed = here.run(*asked, "--dry-run")
        assert (rehearsed.code, "2 prompts about 2 files" in rehearsed.out) == (0, True)
        # Another process goes on with it: it may not read what the first one has refused.
        assert here.run(*asked, "--detach").code == 0
        done = here.run("resume")
        assert done.code == 3
        for text in (rehearsed.out, done.out):
            assert f"  not read: {line}\n" in text
            assert "  not read: more: is a link to " in text
        assert f"not read     {line}\n" in here.run("status", "1").out
        assert not any("secret" in seen.system for seen in server.requests)
        both = here.run(*asked, "elsewhere")
        assert both.code == 0
        assert "3 of 3 prompts about 3 documents answered" in both.out
        assert server.requests[-1].system.count("secret") == 1


def test_a_bad_configuration_stops_every_command_that_uses_one(here: Here) -> None:
    here.files.papers(1)
    here.files.write("workers.json", '{"wokers": []}')
    for command in (["submit", "papers", "--preset", "research"], ["workers"], ["workers", "check"], ["resume"]):
        done = here.run(*command)
        assert done.code == 2, command
        assert "did you mean 'workers'?" in one_line(done)


def test_an_environment_that_makes_no_sense_names_the_variable(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.files.papers(1)
    monkeypatch.setenv("MAX_RETRIES", "three")
    done = here.run("submit", "papers", "--preset", "research")
    assert done.code == 2
    assert one_line(done) == "distllm: the environment: MAX_RETRIES: must be a whole number, not 'three'"


def test_files_that_may_not_be_read_are_named(here: Here) -> None:
    here.files.papers(2)
    here.files.write("workers.json", '{"workers": [{"id": "a", "type": "ollama", "model": "m"}]}')
    (here.folder / "papers" / "paper0.txt").chmod(0)
    done = here.run_without_privileges("submit", "--detach", "papers", "--prompt", "What?")
    assert done.code == 0, done.err
    assert "paper0.txt: could not be read: permission denied" in here.run("status", "1").out
    (here.folder / "papers").chmod(0)
    try:
        done = here.run_without_privileges("submit", "--detach", "papers", "--prompt", "What?")
    finally:
        (here.folder / "papers").chmod(0o755)
    assert done.code in (1, 2)
    assert "papers" in one_line(done)
    (here.folder / "workers.json").chmod(0)
    done = here.run_without_privileges("workers")
    assert done.code == 2
    assert "workers.json: cannot be read: Permission denied" in one_line(done)


def test_an_option_of_the_whole_command_behind_a_command_is_told_its_place(here: Here) -> None:
    done = here.run("submit", "papers", "--preset", "summary", "--db", "x.db")
    assert done.code == 2
    assert one_line(done) == "distllm: --db stands before the command: distllm --db … submit …"
