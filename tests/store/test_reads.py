"""Reading, for people and for programs: nothing that reads can change or create a database."""

from pathlib import Path

import pytest

from distllm.domain.errors import DistllmError
from distllm.domain.models import ErrorClass
from distllm.store.fleet import retire
from distllm.store.reads import open_reader
from tests.store.store_kit import NOW, Store, add_job, end, paper


async def test_looking_never_creates_a_database(tmp_path: Path) -> None:
    with pytest.raises(DistllmError, match="there is no database"):
        async with open_reader(tmp_path / "none.db"):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_jobs_figures_are_those_of_its_rows(store: Store) -> None:
    job = add_job(store, ["one", "two", "one", paper("", data=b"scan", problem="no text")], ["findings", "limits"])
    me, worker = store.coordinator(), store.worker("studio")
    leases = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, leases[0])))
    store.settle(end(store.send(me, worker, leases[1]), ErrorClass.INPUT))
    async with open_reader(store.path) as reader:
        found = await reader.job(job)
        assert found is not None
        told = ("state", "total", "pending", "leased", "done", "failed", "files", "unreadable", "copies", "submitted")
        assert [found[name] for name in told] == ["running", 4, 2, 0, 1, 1, 4, 1, 1, 1]
        assert (found["prompt_tokens"], found["cached_tokens"], found["completion_tokens"]) == (500, 400, 7)
        assert [each["job_id"] for each in await reader.jobs()] == [job]
        assert await reader.job(99) is None
        assert await reader.unreadable(job) == [{"document": "3.txt", "problem": "no text"}]
        assert [each["error"] for each in await reader.failures(job, 5)] == ["input, says the server"]
        assert [each["job_id"] for each in await reader.unfinished()] == [job]
        assert [each["document"] for each in await reader.documents(job, None)] == ["0.txt", "1.txt"]
        assert [each["document"] for each in await reader.documents(job, "1.txt")] == ["1.txt"]
        assert [each["name"] for each in await reader.templates(job)] == ["findings", "limits"]
        first = (await reader.documents(job, None))[0]["document_id"]
        answers = await reader.answers(job, first, None)
        assert {each["prompt"]: each["state"] for each in await reader.answers(job, first, "limits")}.keys() == {
            "limits"
        }
        assert len(answers) == 2


async def test_the_pace_is_that_of_the_newest_coordinator(store: Store) -> None:
    add_job(store, ["one", "two", "three"])
    old, worker = store.coordinator(), store.worker("studio")
    store.settle(end(store.send(old, worker, store.must_take(old, worker).leases[0])))
    me = store.coordinator()
    sent = [store.send(me, worker, store.must_take(me, worker).leases[0], NOW + 50 + turn) for turn in range(2)]
    store.settle(end(sent[0], now=NOW + 60))
    async with open_reader(store.path) as reader:
        assert await reader.recent_attempts() == {"ended": 1, "since": NOW + 50, "answers": 1}
        held = await reader.held(me)
        store.write(lambda tx: retire(tx, me, NOW + 70))
        assert (await reader.recent_attempts())["ended"] == 0
    assert held == {(sent[1].lease.prompt_id, 1)}
