"""Benchmarks are never timed here, but they must measure what they say."""

import asyncio
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks import dispatch, read_once, restart, several
from benchmarks.fleet import __main__ as fleet
from benchmarks.fleet.cases import POLICIES, Case, run
from benchmarks.fleet.cluster import Cluster, Costs, lines, measured
from benchmarks.fleet.least import least
from benchmarks.fleet.servers import Request, Server
from benchmarks.fleet.work import QUESTION, Task, Trouble
from benchmarks.llama import Work
from benchmarks.places import Files
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
    files = Files(tmp_path)
    database = files.new("job")
    asyncio.run(store_job(database, research(), PAPERS, 500, "stub", 10))
    shelf = dispatch.Shelf(files, database, prompts_of(database, research().templates))
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


@pytest.mark.parametrize("program", [dispatch, fleet, read_once, restart, several])
def test_every_benchmark_explains_itself(
    program: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit) as ended:
        program.main()  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert "uv run" in capsys.readouterr().out


# Four papers for each worker: three seeds are enough to tell the policies apart, and take a second.
@pytest.mark.parametrize(
    "case",
    [Case(8, 32, 1), Case(8, 32, 1, troubles=True), Case(4, 24, 1, recorded=True), Case(4, 32, 1, slots=4, gain=0.5)],
    ids=str,
)
def test_distllm_beats_every_choice_at_random_in_the_simulation(case: Case) -> None:
    times = {
        policy: sorted(run(case, policy, seed) for seed in range(3))[1] for policy in ("prompts", "papers", "product")
    }
    assert 0.95 < times["product"] < min(times["prompts"], times["papers"])


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers_everything_whatever_happens_to_the_servers(policy: str) -> None:
    assert run(Case(8, 16, 1, troubles=True), policy, seed=5) > 0.95


def test_the_least_is_all_work_over_all_speed() -> None:
    tasks = [Task(number, 1000 - QUESTION, (50.0,)) for number in range(30)]
    # 15 s a paper on the one, 7.5 s on the other.
    servers = [Server(0, 100.0, 10.0), Server(1, 200.0, 20.0)]
    assert least(servers, tasks, [], 1.0) == pytest.approx(30 * 5.0, rel=1e-3)
    # The fast one is away for the whole of it, and for the first 100 s.
    assert least(servers, tasks, [Trouble(1, "die", 0.0, 9.0)], 100.0) == pytest.approx(450.0, rel=1e-3)
    assert least(servers, tasks, [Trouble(1, "late", 0.0, 1.0)], 100.0) == pytest.approx(650 / 3, rel=1e-3)
    assert least(servers, tasks, [Trouble(1, "slow", 0.0, 9.0)], 100.0) == pytest.approx(450 / (1 + 2 / 3), rel=1e-3)


def test_a_cluster_stops_at_what_is_full_first() -> None:
    costs = Costs(0.01, 0.0, 0.001, 0.0, 0.01, 0.0, 0.0)
    # Ten milliseconds of one core for each prompt; then one of eight cores.
    assert Cluster(100, 2, 8).most(costs) == pytest.approx(160, abs=0.1)
    assert Cluster(100, 2, 8).first(costs, 160)[0] == "coordinators"
    assert Cluster(100, 1000, 8).most(costs) == pytest.approx(6400, abs=0.1)
    assert Cluster(100, 1000, 8).first(costs, 6400)[0] == "server"
    # A disk that takes ten milliseconds: what ends while a transaction lasts goes with the next one.
    slow = replace(costs, prompt=0.0, server_prompt=0.0, fsync=0.01)
    assert Cluster(1, 1, 8).shares(slow, 50)["commits"] == pytest.approx(0.5)
    assert Cluster(1, 1, 8).shares(slow, 1000)["commits"] == pytest.approx(1.0)
    # Workers that are looked at are a burden without any answer.
    assert Cluster(100, 1, 8).most(replace(costs, worker=0.01)) < 0.01
    assert len(list(lines(1000, 4, measured()))) > 10


def test_a_made_up_server_reads_a_paper_once_and_shares_itself_between_its_slots() -> None:
    server = Server(0, prefill=100.0, decode=10.0, slots=2, gain=0.5)
    one, two = (Task(number, 1000 - QUESTION, (30.0, 30.0)) for number in range(2))
    first, second = Request(one, 0, None, 1.0, 0.0), Request(two, 0, None, 1.0, 0.0)
    server.take(first, 0.0)
    server.take(second, 0.0)
    assert server.next_change() == 20.0
    assert server.step(20.0) == []
    # Two write half as much again as one would.
    assert server.next_change() == pytest.approx(4.0)
    assert server.step(24.0) == [first, second]
    assert first.usage(24.0).cached_tokens == 0
    again = Request(one, 1, None, 1.0, 24.0)
    server.take(again, 24.0)
    assert server.step(24.0 + server.next_change()) == []
    assert server.step(24.0 + 3.4) == [again]
    assert again.usage(27.4).cached_tokens == one.tokens
    assert server.die(28.0) == []
    assert not server.up
