"""Jobs are listed, read and steered over HTTP, with the facts that the command has."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from distllm.insights import job_now
from tests.fakes.behaviour import CUT, EMPTY, HELD
from tests.fakes.server import FakeServer
from tests.service.conftest import House, opened


async def test_a_job_has_the_facts_that_the_command_prints(house: House, server: FakeServer) -> None:
    server.behave(EMPTY)
    await house.submit("A paper.", "Another.", "", max_tokens=50)
    told = await house.until_ended(1)
    database = house.service.database
    facts = (await job_now(database.read, 1, time.time())).facts()
    assert told == json.loads(json.dumps(facts))
    assert told | {"files": 3, "unreadable": 1, "done": 2} == told
    assert told["not_read"] == [{"document": "2.txt", "problem": "is empty"}]


async def test_jobs_come_newest_first_and_page_by_page(idle: House) -> None:
    for number in range(3):
        await idle.submit(f"Paper {number}.")
    page = (await idle.get("/jobs?limit=2")).body
    assert ([job["job_id"] for job in page["jobs"]], page["next"]) == ([3, 2], 2)
    page = (await idle.get(f"/jobs?limit=2&before={page['next']}")).body
    assert ([job["job_id"] for job in page["jobs"]], page["next"]) == ([1], None)
    await idle.post("/jobs/2/pause")
    assert [job["job_id"] for job in (await idle.get("/jobs?state=paused")).body["jobs"]] == [2]


async def test_results_come_page_by_page_each_prompt_once(house: House) -> None:
    await house.submit("One.", "Two.", "Three.", prompts=("What?", "Why?"))
    await house.until_ended(1)
    rows: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await house.get(f"/jobs/1/results?limit=4{f'&cursor={cursor}' if cursor else ''}")).body
        rows += page["results"]
        cursor = page["next"]
    assert [(row["document"], row["prompt"]) for row in rows] == [
        (f"{n}.txt", prompt) for n in range(3) for prompt in ("what", "why")
    ]
    assert {row["answer"] for row in rows} == {"Answer to: What?", "Answer to: Why?"}
    one = (await house.get("/jobs/1/results?document=1.txt&prompt=why&state=done")).body
    assert [row["prompt_id"] for row in one["results"]] == [4]


async def test_what_failed_is_listed_and_asked_again(db: Path, server: FakeServer) -> None:
    async with opened(db, server, max_retries=0) as house:
        server.behave(EMPTY, EMPTY)
        await house.submit("One.", "Two.", "Three.")
        assert (await house.until_ended(1))["state"] == "failed"
        page = (await house.get("/jobs/1/failures?limit=1")).body
        rest = (await house.get(f"/jobs/1/failures?cursor={page['next']}")).body
        assert [row["document"] for row in page["failures"] + rest["failures"]] == ["0.txt", "1.txt"]
        assert rest["next"] is None
        again = await house.post("/jobs/1/retry")
        assert again.body | {"job_id": 1, "again": 2, "left": 0} == again.body
        assert (await house.until_ended(1))["state"] == "completed"
        assert (await house.post("/jobs/1/retry", {})).body["again"] == 0


async def test_answers_that_were_cut_are_asked_for_again_with_more_room(house: House, server: FakeServer) -> None:
    server.behave(CUT)
    await house.submit("One.", max_tokens=10)
    await house.until_ended(1)
    assert (await house.post("/jobs/1/retry", {"truncated": True})).body["again"] == 1
    await house.until_ended(1)
    assert [seen.body["max_tokens"] for seen in server.requests] == [10, 20]


async def test_a_job_is_paused_and_gone_on_with(house: House, server: FakeServer) -> None:
    server.behave(HELD, HELD)
    await house.submit(*(f"Paper {number}." for number in range(6)))
    await server.until(lambda: len(server.requests) == 2)
    paused = (await house.post("/jobs/1/pause")).body
    assert paused | {"job_id": 1, "state": "paused", "changed": True} == paused
    assert (await house.post("/jobs/1/pause")).body["changed"] is False
    # Noticed by the coordinator, which gives back what it has not sent.
    await house.until(lambda: _pending(house, 4))
    server.release()
    await house.until(lambda: _state(house, done=2))
    assert len(server.requests) == 2
    assert (await house.post("/jobs/1/resume")).body == {"job_id": 1, "state": "running", "changed": True}
    assert (await house.until_ended(1))["done"] == 6
    late = await house.post("/jobs/1/resume")
    assert (late.status, late.body["detail"]) == (409, "job 1 has ended: it is completed")


async def _pending(house: House, count: int) -> bool:
    return house.rows("SELECT count(*) FROM prompts WHERE state = 'pending'") == [(count,)]


async def _state(house: House, **facts: int) -> bool:
    job = (await house.get("/jobs/1")).body
    return all(job[name] == value for name, value in facts.items())


async def test_a_job_is_cancelled_and_its_requests_are_stopped(house: House, server: FakeServer) -> None:
    server.behave(HELD, HELD)
    await house.submit("One.", "Two.", "Three.")
    await server.until(lambda: len(server.requests) == 2)
    cancelled = (await house.post("/jobs/1/cancel")).body
    assert cancelled == {"job_id": 1, "state": "cancelled", "changed": True, "done": 0, "failed": 0, "cancelled": 3}
    await server.until(lambda: all(seen.ended == "disconnected" for seen in server.requests))
    assert (await house.post("/jobs/1/cancel")).body["changed"] is False
    for order in ("pause", "resume", "retry"):
        assert (await house.post(f"/jobs/1/{order}")).status == 409


@pytest.mark.parametrize("job", ["7", "0", "-1", "x", "1e3", "9" * 30, "%00", "..%2f1"])
@pytest.mark.parametrize("path", ["", "/results", "/failures", "/pause", "/resume", "/cancel", "/retry"])
async def test_a_job_that_is_not_there(idle: House, job: str, path: str) -> None:
    method = "GET" if path in ("", "/results", "/failures") else "POST"
    answer = await idle.ask(method, f"/api/v1/jobs/{job}{path}")
    assert (answer.status, answer.body["title"]) == (404, "Not Found")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/jobs?limit=0",
            "/jobs?limit=501",
            "/jobs?limit=x",
            "/jobs?before=0",
            "/jobs?state=nosuch",
            "/jobs?nosuch=1",
        ),
        *(
            "/jobs?limit=1&limit=2",
            "/jobs/1/results?cursor=1",
            "/jobs/1/results?cursor=1.2.3",
            "/jobs/1/results?limit=-1",
        ),
        *("/jobs/1/failures?cursor=-1", "/jobs/1/results?document=", "/jobs/1/results?cursor=-2.0"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(idle: House, path: str) -> None:
    answer = await idle.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (422, "application/problem+json; charset=utf-8")
    assert "\n" not in answer.body["detail"]


async def test_workers_presets_and_the_service_are_told_of(house: House) -> None:
    await house.until(lambda: _healthy(house))
    [worker] = (await house.get("/workers")).body["workers"]
    assert (worker["id"], worker["configured"], worker["models"][0]["model"]) == ("w0", True, "fake-model")
    presets = (await house.get("/presets")).body["presets"]
    assert {"research", "summary", "analysis"} <= {preset["name"] for preset in presets}
    service = (await house.get("")).body
    assert service | {"coordinating": True, "stopping": False, "hours": None} == service


async def _healthy(house: House) -> bool:
    return all(worker["healthy"] for worker in (await house.get("/workers")).body["workers"])


async def test_what_others_submit_through_the_database_is_worked_too(house: House, server: FakeServer) -> None:
    from tests.dispatcher.conftest import store_job

    await store_job(house.service.database, ["A paper."], ["What?"])
    assert (await house.until_ended(1))["done"] == 1


async def test_a_service_without_any_worker_waits_for_one_and_says_so(db: Path) -> None:
    async with FakeServer() as server:
        await server.stop()
        async with opened(db, server) as house:
            await house.submit("One.")
            await asyncio.wait_for(_said_to_be_away(house), 15)
            await server.start()
            assert (await house.until_ended(1))["done"] == 1


async def _said_to_be_away(house: House) -> None:
    while not house.events:  # noqa: ASYNC110 - a listener sets no event
        await asyncio.sleep(0.02)
