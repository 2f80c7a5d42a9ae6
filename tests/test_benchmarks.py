"""Benchmarks are never timed here, but they must measure what they say."""

import asyncio
import sys
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks import dispatch, read_once, restart
from benchmarks.llama import Work
from benchmarks.processes import serving
from benchmarks.prompts import made_up_paper, prompts_of, research, vocabulary
from benchmarks.read_once import Finding
from benchmarks.through_distllm import store_job
from distllm.domain.models import WorkerSpec, WorkerType
from distllm.workers import make_worker
from distllm.workers.session import open_session

PAPERS = 3


async def test_the_stub_passes_for_llama_cpp() -> None:
    with serving("benchmarks.stub", "--slots", 7) as stub:
        async with open_session() as session:
            worker = make_worker(WorkerSpec(name="stub", type=WorkerType.OPENAI, port=stub.port), session)
            health = await worker.probe()
    assert (health.healthy, health.slots, health.error) == (True, 7, None)
    assert [offer.model for offer in health.offers] == ["stub"]


@pytest.mark.parametrize("closing", [[], ["--close"]])
def test_both_ways_get_all_their_answers_and_ask_no_more(tmp_path: Path, closing: list[str]) -> None:
    database = tmp_path / "job.db"
    asyncio.run(store_job(database, research(), PAPERS, 500, "stub", 10))
    shelf = dispatch.Shelf(database, prompts_of(database, research().templates))
    assert len(shelf.prompts) == len(set(shelf.prompts)) == PAPERS * 5
    with serving("benchmarks.stub", "--slots", 4, *closing) as stub:
        for run in (dispatch.run_bare, dispatch.run_distllm):
            before = dispatch.answers_of([stub.port])
            timing = run([stub.port], shelf, 4)
            assert timing.prompts == PAPERS * 5
            assert dispatch.answers_of([stub.port]) - before == PAPERS * 5


def test_made_up_papers_differ_from_their_first_words_on() -> None:
    words = vocabulary()
    papers = [made_up_paper(words, number, 400) for number in range(20)]
    assert {len(paper) for paper in papers} == {400}
    assert all(one.split()[:3] != other.split()[:3] for one, other in combinations(papers, 2))


def test_the_bound_is_what_two_servers_need_at_the_rates_of_the_better_one() -> None:
    did = Work(read=600, read_seconds=6.0, written=50, written_seconds=2.0), Work(400, 2.0, 50, 5.0)
    run = Finding(9.0, did, best=(400.0, 50.0))
    assert (run.read, run.written) == (1000, 100)
    # 200 tokens a second are read by the second, 25 are written by the first.
    assert run.bound(fewest=800) == (800 / 200 + 100 / 25) / 2
    assert run.strictest_bound(fewest=800) == (800 / 400 + 100 / 50) / 2


@pytest.mark.parametrize("program", [dispatch, read_once, restart])
def test_every_benchmark_explains_itself(
    program: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit) as ended:
        program.main()  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert "uv run" in capsys.readouterr().out
