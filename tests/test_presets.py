"""Presets: what they ask, how they are found, what is said of a faulty one, and the papers to try them on."""

import json
import subprocess
import sys
from pathlib import Path

import pypdfium2
import pytest

from distllm.domain.errors import UsageError
from distllm.domain.models import Template
from distllm.presets import (
    MERGE,
    Preset,
    list_presets,
    load_preset,
    preset_of_prompts,
    render_merge,
    render_question,
    render_system,
)

PAPERS = Path(__file__).parents[1] / "jobs" / "quickstart" / "papers"
PROMISED = {
    "research": ["research_question", "methodology", "key_findings", "limitations", "contributions"],
    "summary": ["one_sentence", "key_points", "detailed"],
    "analysis": ["strengths", "weaknesses", "evidence"],
}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def one_question(**changes: object) -> dict[str, object]:
    return {"prompts": [{"name": "aim", "text": "What is the aim?"} | changes]}


def names(preset: Preset) -> list[str]:
    return [template.name for template in preset.templates]


@pytest.mark.parametrize("name", PROMISED)
def test_a_built_in_preset_asks_exactly_the_promised_questions(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description
    assert names(preset) == PROMISED[name]


def test_the_list_holds_the_built_in_presets_by_name() -> None:
    assert [found.name for found in list_presets()] == sorted(PROMISED)


def test_every_built_in_question_has_its_own_wording_and_room_for_its_answer() -> None:
    templates = [template for name in PROMISED for template in load_preset(name).templates]
    assert len({template.text for template in templates}) == len(templates)
    assert all(template.max_tokens is not None and template.max_tokens >= 100 for template in templates)


def test_presets_are_imported_without_pydantic() -> None:
    code = "import sys, distllm.presets; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_document_comes_first_and_the_question_last() -> None:
    preset = load_preset("research")
    system = render_system("Trees cool streets.")
    for template in preset.templates:
        question = render_question(template)
        assert question == template.text
        assert question not in system
    assert "Trees cool streets." in system


def test_the_system_message_depends_on_the_text_alone() -> None:
    frame = render_system("").encode()
    text = "  A title\n\nwith {braces}, %s, </document> and æøå \n"
    assert len(render_system(text).encode()) == len(frame) + len(text.encode())
    assert {render_system(text) for name in PROMISED for _ in load_preset(name).templates} == {render_system(text)}
    assert not any(name in render_system("") for name in PROMISED)


def test_an_unknown_preset_is_answered_with_the_nearest_and_all_there_are(tmp_path: Path) -> None:
    write(tmp_path / "mine.json", one_question())
    with pytest.raises(UsageError) as caught:
        load_preset("Reserch", [tmp_path])
    assert "did you mean 'research'?" in str(caught.value)
    assert "analysis, mine, research, summary" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_own_preset_wins_and_the_first_folder_wins_over_the_next(tmp_path: Path) -> None:
    near, far, missing = tmp_path / "near", tmp_path / "far", tmp_path / "missing"
    for folder in (near, far):
        folder.mkdir()
        write(folder / "summary.json", one_question(name=folder.name))
    assert names(load_preset("summary", [missing, near, far])) == ["near"]
    [summary] = [found for found in list_presets([near, far]) if found.name == "summary"]
    assert (summary.path, summary.built_in) == (near / "summary.json", False)
    assert isinstance(summary.preset, Preset)
    assert names(summary.preset) == ["near"]
    assert names(load_preset("research", [near, far])) == PROMISED["research"]


def test_a_question_says_how_its_answers_are_put_together_or_leaves_it_to_its_preset(tmp_path: Path) -> None:
    questions = [
        {"name": "aim", "text": "What is the aim?"},
        {"name": "data", "text": "Which data?", "merge": ["A", "B"]},
    ]
    write(tmp_path / "own.json", {"merge": "Make one of them.", "prompts": questions})
    write(tmp_path / "none.json", {"prompts": questions})
    merges = [[t.merge for t in load_preset(name, [tmp_path]).templates] for name in ("own", "none")]
    assert merges == [["Make one of them.", "A\nB"], [None, "A\nB"]]
    aim, data = load_preset("none", [tmp_path]).templates
    assert MERGE in render_merge(aim, ["To fly.", "To land."])
    assert "A\nB\n\nWhich data?" in render_merge(data, ["Wings.", "Wheels."])
    assert MERGE not in render_merge(data, ["Wings.", "Wheels."])


def test_every_built_in_question_says_how_its_answers_are_put_together() -> None:
    assert all(template.merge for name in PROMISED for template in load_preset(name).templates)


def test_a_broken_file_hides_no_other_preset(tmp_path: Path) -> None:
    write(tmp_path / "broken.json", "{")
    found = {each.name: each.preset for each in list_presets([tmp_path])}
    assert sorted(found) == ["analysis", "broken", "research", "summary"]
    assert isinstance(found["broken"], UsageError)
    assert all(isinstance(found[name], Preset) for name in PROMISED)


def test_a_path_is_read_whatever_presets_there_are(tmp_path: Path) -> None:
    content = {"name": "mine", "max_tokens": 90, "temperature": 0.5, **one_question(text=["One.", "Two."])}
    preset = load_preset(str(write(tmp_path / "mine.json", "\ufeff" + json.dumps(content))))
    assert preset == Preset("mine", "", (Template("aim", "One.\nTwo."),), 90, 0.5)


@pytest.mark.parametrize(
    ("content", "place", "remedy"),
    [
        ('{"prompts": [\n  {"name": "a" "text": "b"}]}', "line 2, column 16", "correct it there"),
        ('{"prompts": [], "prompts": []}', "'prompts'", "leave one out"),
        ("[" * 100_000, "nested", "a few levels"),
        ([], "the file", "{…}"),
        ({}, "prompts", "add it"),
        ({"prompts": []}, "prompts", "at least 1"),
        ({"prompts": ["What?"]}, "prompts[0]", "{…}"),
        (one_question() | {"temprature": 1}, "temprature", "did you mean 'temperature'?"),
        (one_question() | {"temperature": 3}, "temperature", "less than or equal to 2"),
        (one_question() | {"name": "other"}, "name", "rename one"),
        (one_question(max_token=5), "prompts[0].max_token", "did you mean 'max_tokens'?"),
        (one_question(answer=5), "prompts[0].answer", "use max_tokens, merge, name, text"),
        (one_question(max_tokens="5"), "prompts[0].max_tokens", "valid integer"),
        (one_question(max_tokens=0), "prompts[0].max_tokens", "greater than or equal to 1"),
        (one_question(name="the aim"), "prompts[0].name", "use letters, digits"),
        (one_question(text=" "), "prompts[0].text", "write the question"),
        (one_question(text="\ud800"), "prompts[0].text", "surrogate"),
        (one_question(merge=" "), "prompts[0].merge", "say how answers are put together, or leave it out"),
        (one_question() | {"merge": 5}, "merge", "valid string"),
        (one_question() | {"merg": "One."}, "merg", "did you mean 'merge'?"),
        (
            {"prompts": [{"name": "aim", "text": "1"}, {"name": "Aim", "text": "2"}]},
            "prompts[1].name",
            "rename one",
        ),
    ],
)
def test_a_faulty_file_is_told_in_one_line_with_its_place_and_the_remedy(
    tmp_path: Path, content: object, place: str, remedy: str
) -> None:
    path = write(tmp_path / "faulty.json", content)
    with pytest.raises(UsageError) as caught:
        load_preset("faulty", [tmp_path])
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert place in line
    assert remedy in line
    assert "\n" not in line


def test_a_file_that_cannot_be_read_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"description": "caf\xe9"}')
    (tmp_path / "folder.json").mkdir()
    for name, fault in (("latin", "UTF-8"), ("folder", "cannot be read"), ("absent", "no such file")):
        path = tmp_path / f"{name}.json"
        with pytest.raises(UsageError, match=fault) as caught:
            load_preset(str(path))
        assert str(path) in str(caught.value)


def test_questions_given_by_hand_are_named_after_their_first_words() -> None:
    preset = preset_of_prompts(
        [
            " What data was used?\n",
            "What data was used!",
            "Don't guess: which of the many different instruments were employed?",
            "???",
            "Was ist Wärme?",
        ]
    )
    assert names(preset) == [
        "what_data_was_used",
        "what_data_was_used_2",
        "dont_guess_which_of_the_many_different",
        "prompt_4",
        "was_ist_wärme",
    ]
    assert preset.templates[0].text == "What data was used?"
    assert preset.max_tokens == 512


@pytest.mark.parametrize(("texts", "fault"), [([], "no prompt"), (["a", " "], "prompt 2"), (["a", "a "], "prompt 2")])
def test_questions_by_hand_that_say_nothing_new_are_refused(texts: list[str], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        preset_of_prompts(texts)


def test_the_quickstart_job_names_papers_and_a_preset_that_exist() -> None:
    job = PAPERS.parent / "job.json"
    content = json.loads(job.read_text("utf-8"))
    assert [(job.parent / path).resolve() for path in content["paths"]] == [PAPERS.resolve()]
    assert load_preset(content["preset"]).name == "research"


def test_the_quickstart_papers_are_four_small_files_of_three_kinds() -> None:
    papers = sorted(PAPERS.iterdir())
    assert sorted(paper.suffix for paper in papers) == [".md", ".pdf", ".pdf", ".txt"]
    assert all(paper.stat().st_size < 60_000 for paper in papers)


def test_one_quickstart_paper_is_set_in_two_columns() -> None:
    with pypdfium2.PdfDocument(PAPERS / "urban-trees-and-summer-heat.pdf") as document:
        page = document[0]
        middle, half_way = page.get_width() / 2, page.get_height() / 2
        text = page.get_textpage()
        boxes = [text.get_rect(index) for index in range(text.count_rects())]
    lower = [(left, right) for left, bottom, right, _ in boxes if bottom < half_way]
    assert any(right < middle for _, right in lower)
    assert any(left > middle for left, _ in lower)
    assert not any(left < middle - 20 and right > middle + 20 for left, right in lower)
