"""What the page shows of jobs, without any script."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from selectolax.lexbor import LexborHTMLParser as Html

from tests.fakes.behaviour import Behaviour
from tests.fakes.server import FakeServer
from tests.service.conftest import House, opened


async def read(house: House, path: str) -> Html:
    """A page."""
    answer = await house.ask("GET", path)
    assert answer.status == 200, answer.body
    return Html(answer.body)


def text(page: Html, selector: str) -> str:
    """What stands in the first element of a kind, with its blanks made one."""
    found = page.css_first(selector)
    assert found is not None, selector
    return " ".join(found.text().split())


def links(page: Html, selector: str = "main a") -> list[str]:
    """Where links lead."""
    return [node.attributes["href"] or "" for node in page.css(selector)]


def change(house: House, script: str) -> None:
    """Write to the database what would take long to come about."""
    with closing(sqlite3.connect(house.service.database.place)) as connection:
        connection.executescript(script)


async def test_an_empty_house_says_how_to_begin(idle: House) -> None:
    page = await read(idle, "/")
    assert "There is no job yet" in text(page, "#jobs")
    assert "/new" in links(page, "#jobs a")


async def test_a_job_is_found_from_the_list_and_its_answers_from_the_job(house: House) -> None:
    await house.submit("Bees see no red.", "Ants see little.", prompts=("What is seen?", "By whom?"))
    await house.until_ended(1)
    jobs = await read(house, "/")
    assert links(jobs, "#jobs a") == ["/jobs/1"]
    assert "4 / 4" in text(jobs, "#jobs tbody tr")
    job = await read(house, "/jobs/1")
    assert "4 of 4 answered" in text(job, "#standing")
    assert [" ".join(node.text().split()) for node in job.css("#grid thead th")] == [
        "Document",
        "what_is_seen",
        "by_whom",
    ]
    answers = [link for link in links(job, "#grid td a") if "/answers/" in link]
    assert len(answers) == 4
    walked, path = [], answers[0]
    while True:
        page = await read(house, path)
        walked.append(path)
        following = page.css_first("a[rel=next]")
        if following is None:
            break
        path = following.attributes["href"] or ""
    assert walked == answers
    assert "Answer to: By whom?" in text(await read(house, answers[-1]), "article")
    document = await read(house, "/jobs/1/documents/1")
    assert "Ants see little." in text(await read(house, "/jobs/1/documents/1/text"), ".prose")
    assert text(document, "h1") == "1.txt"
    assert len(document.css("#answers section")) == 2


async def test_lines_of_an_answer_stay_and_json_is_set_in_lines(db: Path) -> None:
    async with FakeServer(context=100_000, answer=lambda seen: "One.\n\n  Two.") as server, opened(db, server) as house:
        await house.submit("Bees.")
        await house.until_ended(1)
        prose = (await read(house, "/jobs/1/answers/1")).css_first(".prose")
        assert prose is not None
        assert prose.text() == "One.\n\n  Two."
        change(house, "UPDATE results SET data = '{\"red\": false}'")
        data = (await read(house, "/jobs/1/answers/1")).css_first("pre.data")
        assert data is not None
        assert data.text() == '{\n  "red": false\n}'


async def test_what_failed_is_told_with_its_reason_and_can_be_asked_again(db: Path) -> None:
    async with FakeServer(context=100_000) as server, opened(db, server, max_retries=0) as house:
        server.behave(Behaviour(status=400, body={"error": {"message": "the moon is full"}}))
        await house.submit("Bees.")
        await house.until_ended(1)
        job = await read(house, "/jobs/1")
        assert "the moon is full" in text(job, ".failures")
        assert "the moon is full" in text(await read(house, "/jobs/1/failures"), ".failures")
        assert "the moon is full" in text(await read(house, "/jobs/1/answers/1"), ".problem")
        again = await house.ask("POST", "/jobs/1/retry", allow_redirects=False)
        assert (again.status, again.headers["Location"]) == (303, "/jobs/1")
        assert (await house.until_ended(1))["done"] == 1


async def test_a_job_is_steered_and_cancelled_only_when_that_is_confirmed(idle: House) -> None:
    await idle.submit("Bees.")
    assert b"/jobs/1/resume" not in (await idle.ask("GET", "/jobs/1")).body
    await idle.ask("POST", "/jobs/1/pause")
    assert text(await read(idle, "/jobs/1"), "#standing .badge") == "paused"
    await idle.ask("POST", "/jobs/1/resume")
    assert text(await read(idle, "/jobs/1"), "#standing .badge") == "pending"
    await read(idle, "/jobs/1/cancel")
    assert (await idle.get("/jobs/1")).body["state"] == "pending"
    await idle.ask("POST", "/jobs/1/cancel")
    page = await read(idle, "/jobs/1")
    assert text(page, "#standing .badge") == "cancelled"
    assert not page.css(".actions form")
    assert (await idle.ask("POST", "/jobs/1/pause")).status == 409


async def test_many_documents_are_turned_page_by_page_both_ways(idle: House) -> None:
    await idle.submit(*(f"Paper {n}." for n in range(130)))
    seen, path = [], "/jobs/1"
    while True:
        page = await read(idle, path)
        seen.append([node.text() for node in page.css("#grid tbody th a")])
        following = page.css_first("#grid a[rel=next]")
        if following is None:
            break
        path = following.attributes["href"] or ""
    assert [name for names in seen for name in names] == [f"{n}.txt" for n in range(130)]
    previous = page.css_first("#grid a[rel=prev]")
    assert previous is not None
    back = await read(idle, previous.attributes["href"] or "")
    assert [node.text() for node in back.css("#grid tbody th a")] == seen[-2]
    first = await read(idle, links(back, "#grid a[rel=prev]")[0])
    assert [node.text() for node in first.css("#grid tbody th a")] == seen[0]
    assert not first.css("#grid a[rel=prev]")
    named = await read(idle, "/jobs/1?named=99")
    assert [node.text() for node in named.css("#grid tbody th a")] == ["99.txt"]
    assert "No document" in text(await read(idle, "/jobs/1?named=nosuch"), "#grid")


async def test_a_file_that_could_not_be_read_says_why(house: House) -> None:
    await house.submit("Bees.", "")
    await house.until_ended(1)
    page = await read(house, "/jobs/1")
    assert "not read" in text(page, "#grid tbody tr:last-child")
    assert text(await read(house, "/jobs/1/documents/1"), ".problem")


async def test_a_copy_of_an_earlier_file_says_so_and_shows_its_answers(house: House) -> None:
    await house.submit("Bees.", "Bees.")
    await house.until_ended(1)
    first, second = await read(house, "/jobs/1/documents/0"), await read(house, "/jobs/1/documents/1")
    assert "same content" not in text(first, "main")
    assert "same content" in text(second, "main")
    assert text(second, ".prose") == text(first, ".prose") == "Answer to: What?"


async def test_a_batch_shows_its_prompts_with_their_answers(idle: House) -> None:
    await idle.submit("Bees.")
    body = {"messages": [{"role": "user", "content": "What is <b>red</b>?"}], "max_tokens": 9, "temperature": 0}
    change(
        idle,
        f"""
        INSERT INTO jobs(id, name, request_hash, model, params, created_at) VALUES (2, 'b', 'x', 'm', '{{}}', 1.0);
        INSERT INTO prompts(job_id, reading_id, tokens, body) VALUES (2, 1, 9, '{json.dumps(body)}');
        """,
    )
    page = await read(idle, "/jobs/2")
    assert "What is <b>red</b>?" in text(page, "#grid tbody th")
    [answer] = links(page, "#grid td a")
    assert "What is <b>red</b>?" in text(await read(idle, answer), ".question")


async def test_a_job_is_taken_away_in_every_format_that_streams(house: House) -> None:
    await house.submit("Bees see no red.")
    await house.until_ended(1)
    for form in ("csv", "jsonl", "markdown", "html"):
        answer = await house.ask("GET", f"/jobs/1/download/{form}")
        assert answer.status == 200
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="job-1.')
        assert "Answer to: What?" in str(answer.body)


async def test_a_download_that_fails_midway_ends_as_broken(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.submit("Bees.")
    await house.until_ended(1)

    async def written(*given: object, **more: object) -> AsyncIterator[bytes]:
        yield b"document,answer\r\n"
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("distllm.service.page.downloads.written", written)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.service.url.rpartition(":")[2]))
    writer.write(b"GET /jobs/1/download/csv HTTP/1.0\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert await reader.read() == b"document,answer\r\n", "no second response stands in the file"
    writer.close()
    async with house.client.get("/jobs/1/download/csv") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@pytest.fixture
def sampled_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distllm.dispatcher.samples.EVERY_SECONDS", 0.2)


async def test_workers_are_shown_with_their_load_over_time(sampled_often: None, house: House) -> None:
    await house.submit("Bees.")
    await house.until_ended(1)

    async def sampled() -> bool:
        return bool((await read(house, "/workers")).css(".chart path"))

    await house.until(sampled, 20)
    page = await read(house, "/workers")
    assert "w0" in text(page, "tbody tr")
    assert "well" in text(page, "tbody tr")
    facts = dict(zip([head.text() for head in page.css("thead th")], page.css("tbody tr > *"), strict=False))
    assert float(facts["Seconds/answer"].text()) >= 0
    assert "in flight" in text(page, "figcaption")
    assert page.css("details tbody tr")
    assert (await house.ask("GET", "/workers?span=year")).status == 422


async def test_a_worker_that_is_used_since_none_is_configured_is_not_said_to_be_left_out(
    db: Path, server: FakeServer
) -> None:
    left_out = "not configured any more"
    async with opened(db, server) as house:
        await house.submit("Bees.")
        await house.until_ended(1)
    async with opened(db, workers=[], working=False) as house:
        page = text(await read(house, "/workers"), "tbody tr")
        assert "w0" in page
        assert left_out not in page
    another = {"id": "other", "type": "openai", "port": 9}
    async with opened(db, workers=[another], working=False) as house:
        assert left_out in text(await read(house, "/workers"), "tbody")


async def test_sql_is_answered_within_limits_and_changes_nothing(house: House) -> None:
    await house.submit("Bees.")
    await house.until_ended(1)
    page = await read(house, "/sql?sql=select+document,+answer+from+answers")
    assert [cell.text() for cell in page.css(".sql td")] == ["0.txt", "Answer to: What?"]
    for refused in ("delete+from+jobs", "select+nosuch", "pragma+user_version", "attach+'x'+as+y"):
        answer = await house.ask("GET", f"/sql?sql={refused}")
        assert answer.status == 422
        assert "this query cannot be run" in text(Html(answer.body), ".problem")
    many = "with recursive n(i) as (select 1 union all select i%2B1 from n) select i from n"
    page = await read(house, f"/sql?sql={many.replace(' ', '+')}")
    assert len(page.css(".sql tbody tr")) == 1_000
    assert "Only the first 1,000 rows are shown" in text(page, "main")
    assert house.rows("SELECT count(*) FROM jobs") == [(1,)]


async def test_pages_of_a_job_of_ten_thousand_papers_come_soon(idle: House) -> None:
    await idle.submit("Bees.", prompts=("One?", "Two?"))
    change(
        idle,
        """
            WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
            INSERT INTO documents(id, sha256, title, characters, created_at, text)
            SELECT i, 'sha' || i, 'On subject ' || i, 10000, 1.0, replace(hex(zeroblob(5000)), '0', 'x') FROM n;
            INSERT INTO readings(id, model, prefix_hash, document_id, tokens)
            SELECT id, 'm', 'hash' || id, id, 9 FROM documents WHERE id > 1;
            INSERT INTO job_documents(job_id, ordinal, document_id, reading_id, name, path)
            SELECT 1, id - 1, id, id, id || '.pdf', '' FROM documents WHERE id > 1;
            INSERT INTO prompts(job_id, document_id, reading_id, template_id, tokens)
            SELECT 1, d.id, d.id, t.id, 9 FROM documents d, templates t WHERE d.id > 1;
        """,
    )
    for path in ("/", "/jobs/1", "/jobs/1?after=9900", "/jobs/1?named=subject+77", "/jobs/1/answers/10001"):
        began = time.monotonic()
        await read(idle, path)
        # A bound that tells a scan of all answers from a page, on a machine that is busy.
        assert time.monotonic() - began < 3, path
