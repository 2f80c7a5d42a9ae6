"""The presets there are, and what they ask."""

import json

import pytest

from distllm.config import user_folder
from tests.cli.here import Here, one_line

MINE = (
    '{"description": "Two of mine", "prompts": [{"name": "a", "text": "What?"}, {"name": "b", "text": ["Why,", "O?"]}]}'
)


def test_the_list_tells_questions_and_where_each_is_from(here: Here) -> None:
    here.files.write("presets/mine.json", MINE)
    folder = user_folder() / "presets"
    assert folder.is_relative_to(here.folder / "home")
    folder.mkdir(parents=True)
    (folder / "far.json").write_text(MINE)
    for command in (["presets"], ["presets", "list"]):
        done = here.run(*command)
        assert (done.code, done.err) == (0, "")
        lines = {line.split()[1]: line for line in done.out.splitlines() if line.startswith("│")}
        assert "5 │" in lines["research"]
        assert "built-in" in lines["research"]
        assert "2 │ Two of mine" in lines["mine"]
        assert "./presets/mine.json" in lines["mine"]
        assert "far.json" in lines["far"]
    facts = {row["name"]: row for row in json.loads(here.run("presets", "--json").out)}
    assert facts["mine"]["questions"] == ["a", "b"]
    assert (facts["mine"]["built_in"], facts["summary"]["built_in"]) == (False, True)


def test_a_broken_file_is_named_and_hides_no_other(here: Here) -> None:
    here.files.write("presets/mine.json", MINE)
    here.files.write("presets/broken.json", '{"promts": []}')
    done = here.run("presets")
    assert done.code == 1
    assert "broken.json" in one_line(done)
    assert "mine" in done.out
    assert "research" in done.out
    assert {row["name"] for row in json.loads(here.run("presets", "--json").out)} >= {"mine", "research"}


def test_a_preset_is_shown_readable_and_as_its_file(here: Here) -> None:
    here.files.write("presets/mine.json", f"\ufeff{MINE}\n")
    shown = here.run("presets", "show", "mine")
    assert shown.code == 0
    assert "mine: Two of mine" in shown.out
    assert [line.rstrip() for line in shown.out.splitlines()[-4:]] == ["", "b at most 512 tokens", "  Why,", "  O?"]
    assert here.run("presets", "show", "mine", "--json").out == f"{MINE}\n"
    assert here.run("presets", "show", "presets/mine.json", "--json").out == f"{MINE}\n"


def test_how_answers_about_parts_are_put_together_is_shown_where_it_is_said(here: Here) -> None:
    here.files.write(
        "presets/mine.json",
        '{"prompts": [{"name": "a", "text": "What?", "merge": "Make one list."}, {"name": "b", "text": "Who?"}]}',
    )
    shown = [line.rstrip() for line in here.run("presets", "show", "mine").out.splitlines()]
    assert shown[-6:] == [
        "a at most 512 tokens",
        "  What?",
        "  Answers about parts: Make one list.",
        "",
        "b at most 512 tokens",
        "  Who?",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [("sumary", "did you mean 'summary'?"), ("nowhere.json", "there is no such file"), ("broken", "broken.json")],
)
def test_a_preset_that_cannot_be_shown(here: Here, name: str, words: str) -> None:
    here.files.write("presets/broken.json", "[]")
    done = here.run("presets", "show", name)
    assert done.code == 2
    assert words in one_line(done)
