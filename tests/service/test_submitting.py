"""Texts and files come over HTTP and become a job, once; nothing else of the machine is read for it."""

import asyncio
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from distllm.documents import Source
from distllm.domain.clock import Clock
from distllm.domain.models import Document
from distllm.intake import Request, create
from distllm.presets import preset_of_prompts
from distllm.service import uploads
from distllm.service.models import Submission
from distllm.store.database import open_database
from tests.documents.pdf_writer import column, write_pdf
from tests.fakes.server import FakeServer
from tests.service.conftest import House, opened

ASKED = {"texts": [{"name": "a.txt", "text": "A paper."}], "prompts": ["What?"]}


def form(asked: Any, *files: tuple[str, bytes]) -> aiohttp.FormData:
    """A form with what is asked, and files."""
    made = aiohttp.FormData(default_to_multipart=True)
    made.add_field("request", json.dumps(asked), content_type="application/json")
    for name, data in files:
        made.add_field("files", data, filename=name)
    return made


async def test_texts_that_are_submitted_are_answered(house: House, server: FakeServer) -> None:
    answer = await house.post("/jobs", ASKED | {"prompts": ["What is asked?", "What is found?"], "name": "mine"})
    assert (answer.status, answer.headers["Location"]) == (201, "/api/v1/jobs/1")
    assert answer.body | {"job_id": 1, "job": "mine", "total": 2, "known": False} == answer.body
    ended = await house.until_ended(1)
    assert (ended["state"], ended["done"]) == ("completed", 2)
    results = (await house.get("/jobs/1/results")).body["results"]
    assert [(row["document"], row["prompt"], row["answer"]) for row in results] == [
        ("a.txt", "what_is_asked", "Answer to: What is asked?"),
        ("a.txt", "what_is_found", "Answer to: What is found?"),
    ]
    assert "A paper." in server.requests[0].system


async def test_files_that_are_sent_are_read_and_are_gone_afterwards(house: House, server: FakeServer) -> None:
    pdf = write_pdf([column(72, 700, ["Bees", "The body of a paper about bees and what they see."])])
    spoilt = b"%PDF-1.4 and no more"
    files = [("bees.pdf", pdf), ("notes/bees.md", b"# Bees\n\nThey see."), ("spoilt.pdf", spoilt)]
    answer = await house.ask("POST", "/api/v1/jobs", data=form({"preset": "summary"}, *files))
    assert answer.status == 201, answer.body
    assert [row["document"] for row in answer.body["not_read"]] == ["spoilt.pdf"]
    ended = await house.until_ended(1)
    assert (ended["state"], ended["done"], ended["files"], ended["unreadable"]) == ("completed", 6, 3, 1)
    assert {seen.system.count("bees and what they see") for seen in server.requests} == {0, 1}
    assert house.rows("SELECT DISTINCT substr(path, 1, 5) FROM job_documents") == [("sent:",)]


async def test_texts_and_files_may_come_together_and_under_one_name(idle: House) -> None:
    asked = ASKED | {"questions": [{"name": "aim", "text": "What is the aim?", "max_tokens": 7}]}
    del asked["prompts"]
    answer = await idle.ask("POST", "/api/v1/jobs", data=form(asked, ("a.txt", b"Another paper.")))
    assert answer.status == 201, answer.body
    assert idle.rows("SELECT name FROM job_documents ORDER BY ordinal") == [("a.txt",), ("a.txt (2)",)]
    assert idle.rows("SELECT name, max_tokens FROM templates") == [("aim", 7)]


async def test_fifty_that_submit_with_one_key_at_once_make_one_job(idle: House) -> None:
    answers = await asyncio.gather(*(idle.post("/jobs", ASKED, headers={"Idempotency-Key": "k"}) for _ in range(50)))
    assert sorted(answer.status for answer in answers) == [200] * 49 + [201]
    assert {answer.body["job_id"] for answer in answers} == {1}
    assert idle.rows("SELECT count(*) FROM jobs") == idle.rows("SELECT count(*) FROM prompts") == [(1,)]


async def test_a_key_is_good_for_one_request_whatever_has_become_of_its_job(house: House) -> None:
    key = {"Idempotency-Key": "k"}
    assert (await house.post("/jobs", ASKED, headers=key)).status == 201
    await house.until_ended(1)
    again = await house.post("/jobs", ASKED, headers=key)
    assert (again.status, again.body["job_id"], again.body["known"]) == (200, 1, True)
    other = await house.post("/jobs", ASKED | {"max_tokens": 5}, headers=key)
    assert other.status == 409
    assert "job 1" in other.body["detail"]
    assert (await house.post("/jobs", ASKED, headers={"Idempotency-Key": "other"})).body["job_id"] == 2
    assert (await house.post("/jobs", ASKED, headers={"Idempotency-Key": "k" * 256})).status == 422


async def test_a_key_finds_its_job_also_when_no_worker_is_left_to_name_a_model(db: Path) -> None:
    key = {"Idempotency-Key": "k"}
    async with FakeServer() as server, opened(db, server) as house:
        assert (await house.post("/jobs", ASKED, headers=key)).status == 201
        await house.until_ended(1)
    async with FakeServer(model="another-model") as server, opened(db, server) as house:
        again = await house.post("/jobs", ASKED, headers=key)
        assert (again.status, again.body["model"]) == (200, "fake-model")


async def test_without_a_key_the_same_request_is_one_job_until_that_has_ended(house: House, server: FakeServer) -> None:
    await house.submit("A paper.")
    await house.until_ended(1)
    assert (await house.submit("A paper."))["job_id"] == 2
    # What is answered already is not asked again.
    assert (await house.until_ended(2))["reused"] == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "give exactly one of `preset`, `prompts` and `questions`"),
        ({"prompts": ["What?"]}, 422, "nothing to read: give `texts`"),
        (ASKED | {"preset": "summary"}, 422, "exactly one of"),
        (ASKED | {"promts": []}, 422, "promts: unknown key; did you mean 'prompts'?"),
        (ASKED | {"prompts": ["What?", "What?"]}, 422, "prompt 2 is given twice"),
        (ASKED | {"prompts": [" "]}, 422, "prompt 1 is empty"),
        (ASKED | {"prompts": ["\ud800"]}, 400, "the body is no JSON"),
        (ASKED | {"max_tokens": 0}, 422, "max_tokens: "),
        (ASKED | {"max_tokens": "7"}, 422, "max_tokens: "),
        (ASKED | {"priority": 10**9}, 422, "priority: "),
        (ASKED | {"model": "nosuch"}, 422, "nosuch"),
        (ASKED | {"texts": [{"name": "a\nb", "text": ""}]}, 422, "texts[0].name: "),
        ({"texts": ASKED["texts"], "preset": "nosuch"}, 422, "unknown preset 'nosuch'"),
        ({"texts": ASKED["texts"], "preset": "/etc/preset.json"}, 422, "preset: '/etc/preset.json' is no name"),
        ({"texts": ASKED["texts"], "questions": [{"name": "a", "text": "?"}, {"name": "A", "text": "!"}]}, 422, "'a'"),
        ([], 422, "the file: "),
    ],
)
async def test_what_makes_no_sense_is_refused_in_one_sentence(house: House, body: Any, status: int, said: str) -> None:
    answer = await house.post("/jobs", body)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert (answer.status, answer.body["status"]) == (status, status), answer.body
    assert said in answer.body["detail"]
    assert "\n" not in answer.body["detail"]
    assert house.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_a_submission_that_was_cut_short_by_a_kill_is_built_by_the_next_service(
    db: Path, server: FakeServer
) -> None:
    text = Source(Path("sent:x"), "a.txt", 0.0, 8, document=Document("x", "A paper.", None, None, None))
    async with open_database(db) as database:
        asked = Request([text], preset_of_prompts(["What?"]), "fake-model", key="api:k")
        assert (await create(database, asked, Clock())).job_id == 1
    async with opened(db, server) as house:
        assert (await house.until_ended(1))["done"] == 1


JUNK = [None, 0, -1, 1.5, 10**30, True, "", "x", "\x00", "é" * 300, [], [[]], [{}], [None], {}, {"name": 1}, {"a": {}}]


async def test_whatever_is_submitted_the_service_makes_no_mistake(idle: House) -> None:
    names = [*Submission.model_fields, "nosuch"]
    bodies = [ASKED | {name: junk} for name in names for junk in JUNK] + JUNK
    statuses = set()
    for body in bodies:
        raw = json.dumps(body).encode()
        answer = await idle.ask("POST", "/api/v1/jobs", data=raw, headers={"Content-Type": "application/json"})
        assert answer.status in (200, 201, 422), (body, answer.body)
        assert "detail" in answer.body or "job_id" in answer.body
        statuses.add(answer.status)
    assert statuses == {200, 201, 422}


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    idle: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, writer = await asyncio.open_connection("127.0.0.1", int(idle.service.url.rpartition(":")[2]))
    writer.write(
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b'Content-Length: 9999\r\n\r\n--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        + b"half of a paper "
        * 50
    )
    await writer.drain()
    await idle.until(lambda: _any_kept(tmp_path))
    writer.close()
    await writer.wait_closed()
    await idle.until(lambda: _none_kept(tmp_path))
    assert idle.rows("SELECT count(*) FROM jobs") == [(0,)]


async def _any_kept(folder: Path) -> bool:
    return any(folder.glob("distllm-*/0/document.txt"))


async def _none_kept(folder: Path) -> bool:
    return not await _any_kept(folder)


async def test_a_body_of_another_kind_is_refused(idle: House) -> None:
    assert (
        await idle.ask("POST", "/api/v1/jobs", data=b"{", headers={"Content-Type": "application/json"})
    ).status == 400
    assert (await idle.ask("POST", "/api/v1/jobs", data=b"a=b", headers={"Content-Type": "text/plain"})).status == 415
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await idle.ask("POST", "/api/v1/jobs", data=b"no form at all", headers=broken)).status in (400, 422)
    unknown = aiohttp.FormData({"path": "/etc/passwd"}, default_to_multipart=True)
    answer = await idle.ask("POST", "/api/v1/jobs", data=unknown)
    assert (answer.status, "'path'" in answer.body["detail"]) == (422, True)


async def test_more_than_is_taken_is_refused_before_it_is_kept(idle: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LARGEST_UPLOAD", 100_000)
    monkeypatch.setattr(uploads, "LARGEST_REQUEST", 1_000)
    asked = {"prompts": ["What?"]}
    for data in (form(asked, ("a.txt", b"x" * 60_000), ("b.txt", b"y" * 60_000)), form(asked | {"name": "n" * 1_000})):
        answer = await idle.ask("POST", "/api/v1/jobs", data=data)
        assert answer.status == 413, answer.body
    huge = b'{"texts": "' + b"x" * (33 * 2**20) + b'"}'
    answer = await idle.ask("POST", "/api/v1/jobs", data=io.BytesIO(huge), headers={"Content-Type": "application/json"})
    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json; charset=utf-8")
    many = {"texts": [{"name": "a", "text": "x"}] * 2_001, "prompts": ["What?"]}
    assert (await idle.post("/jobs", many)).status == 422
    assert (await idle.get("/jobs")).body == {"jobs": [], "next": None}


@pytest.mark.parametrize("name", ["../../secret.tex", "/etc/secret.tex", "secret.tex"])
async def test_no_file_of_this_machine_is_read_by_what_is_sent(idle: House, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.tex"
    secret.write_text("the secret of this machine")
    places = [str(secret), "../secret", "secret", f"../../../../../../..{secret}", "../0/document", "/etc/passwd"]
    paper = "\\begin{document}A paper.\n" + "\n".join(f"\\input{{{place}}}" for place in places) + "\\end{document}"
    answer = await idle.ask("POST", "/api/v1/jobs", data=form({"prompts": ["What?"]}, (name, paper.encode())))
    assert answer.status == 201, answer.body
    [(text,)] = idle.rows("SELECT text FROM documents")
    assert "A paper." in text
    assert "secret of this machine" not in text
    assert "root:" not in text
