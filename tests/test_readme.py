"""What the README shows is run, with the real model, and what it draws is what the code does."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from distllm.cli.root import ORDER
from distllm.domain.states import FINAL, MOVES, PromptState

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DISTLLM = Path(sys.executable).parent / "distllm"


@pytest.mark.first
@pytest.mark.timeout(500)
def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    printed: dict[str, list[str]] = {}

    def run(example: Example) -> None:
        for line in example.parsed.splitlines():
            command = shlex.split(line.removeprefix("$ "))
            if command[:3] != ["uv", "run", "distllm"]:
                assert command == ["uv", "run", "--group", "test", "pytest"], "this one is running now"
                continue
            environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "COLUMNS": "120"}
            done = subprocess.run(
                [DISTLLM, *command[3:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
            printed.setdefault(" ".join(command[3:]), []).append(done.stdout)

    for example in Sybil([CodeBlockParser("console", run)]).parse(README).examples():
        example.evaluate()

    first, again = printed["submit --preset research jobs/quickstart/papers"]
    assert "20 of 20 prompts about 4 documents answered" in first
    assert "x reading each document once" in first
    assert "20 answers reused from job 1" in again
    assert "completed" in printed["status 1"][0]
    assert printed["resume"] == ["Nothing is unfinished.\n"]
    assert printed["results 1 --prompt key_findings"][0].count("key_findings") == 4
    [table] = printed["query select document, prompt, answer from answers"]
    for paper in (ROOT / "jobs/quickstart/papers").iterdir():
        assert paper.name in re.sub(r"\W", "", table) or paper.name in table
    assert len((tmp_path / "answers.csv").read_text(encoding="utf-8-sig").splitlines()) > 4
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_picture_of_the_states_is_the_table_of_moves() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+):", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert drawn == {(move.source.value, move.target.value) for move in MOVES}
    assert {target for _, target in drawn} >= FINAL
    assert {state for pair in drawn for state in pair} == {state.value for state in PromptState}


@pytest.mark.parametrize("command", ORDER)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    done = subprocess.run([DISTLLM, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert f"distllm {command}" in done.stdout.split("Example:")[1]


def test_every_command_is_in_the_general_help() -> None:
    done = subprocess.run([DISTLLM, "--help"], capture_output=True, text=True, check=False)
    for command in ORDER:
        assert re.search(rf"^.\s+{command}\s", done.stdout, re.MULTILINE)
