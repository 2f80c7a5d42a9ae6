"""The main job with the real model: what its server counted proves what was read."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

PAPERS = Path(__file__).parents[2] / "jobs" / "quickstart" / "papers"


@pytest.mark.first
async def test_two_jobs_over_the_same_papers_have_each_read_once(cli: Cli) -> None:
    for name in ("spaced-quizzes-in-evening-courses.txt", "batched-radio-in-greenhouse-sensors.md"):
        cli.write(f"papers/{name}", (PAPERS / name).read_text(encoding="utf-8"))
    for preset in ("research", "analysis"):
        stored = await cli.run("submit", "--detach", "--preset", preset, "--max-tokens", "4", "papers")
        assert stored.code == 0, stored.err
    done = await cli.run("resume", seconds=110)
    assert done.code == 0, done.err
    assert cli.rows("SELECT state, done FROM job_progress") == [("completed", 10), ("completed", 6)]
    assert cli.rows("SELECT count(*) FROM readings") == [(2,)]
    assert cli.rows("SELECT DISTINCT proof, attempts FROM answers") == [("proven", 1)]
    per_paper = cli.rows(
        "SELECT min(prompt_tokens), sum(prompt_tokens - cached_tokens), count(*) FROM answers GROUP BY document"
    )
    for paper, read_anew, questions in per_paper:
        assert questions == 8
        # The paper once, and the questions, which are at most 120 tokens each.
        assert paper <= read_anew + 40
        assert read_anew < paper + 8 * 120
        assert read_anew < 2 * paper
