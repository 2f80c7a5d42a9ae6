"""The page in a real browser: with its script and its policy, live, and by keyboard."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Request, expect
from playwright.async_api import TimeoutError as NothingCameError

from tests.fakes.behaviour import HELD, Behaviour
from tests.fakes.server import FakeServer
from tests.service.conftest import House, opened
from tests.service.page.browser import browser, wide_by
from tests.service.page.test_reading import change

SCRIPT = "<script>document.title = 'owned'</script>"
TOKEN = "a-token-that-nobody-guesses"
SOON = 15_000
pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A browser of the test's own."""
    async with browser() as running:
        yield running


async def opened_page(chromium: Browser, house: House, path: str = "/") -> Page:
    """A page at which every complaint of the browser, its policy's too, is an error of the test's."""
    page = await chromium.new_page(base_url=house.service.url)
    page.set_default_timeout(SOON)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.complaints = complaints  # type: ignore[attr-defined]  # kept with what it is about
    await page.goto(path)
    return page


async def test_papers_are_sent_watched_read_and_cancelled(chromium: Browser, db: Path, tmp_path: Path) -> None:
    papers = [tmp_path / "bees.txt", tmp_path / "ants.txt"]
    papers[0].write_text(f"Bees see no red. {SCRIPT}")
    papers[1].write_text("Ants see little.")
    async with FakeServer(slots=1, context=100_000) as server, opened(db, server) as house:
        slow = Behaviour(answer="One after another.", first_token_after=2.0)
        server.behave(Behaviour(answer=f"No red. {SCRIPT}"), slow, HELD, HELD)
        page = await opened_page(chromium, house)
        await page.get_by_role("link", name="New job").first.click()
        await page.get_by_label("Papers").set_input_files(papers)
        await page.get_by_label("Questions of my own").last.fill("What is seen?\n\nBy whom?")
        await page.get_by_role("button", name="Submit").click()
        await page.wait_for_url("**/jobs/1")

        standing = page.locator("#standing")
        await expect(standing).to_contain_text("1 of 4 answered", timeout=SOON)
        await expect(standing).to_contain_text("2 of 4 answered", timeout=SOON)

        await page.get_by_role("link", name="No red.").click()
        await expect(page.locator("article")).to_have_text(f"No red. {SCRIPT}")
        assert await page.title() != "owned"
        await page.keyboard.press("j")
        await page.wait_for_url(lambda url: "/answers/" in url and not url.endswith("/answers/1"))
        texts = []
        for ordinal in (0, 1):
            await page.goto(f"/jobs/1/documents/{ordinal}/text")
            texts.append(await page.locator(".prose").inner_text())
            assert await page.title() != "owned"
        assert f"Bees see no red. {SCRIPT}" in texts

        await page.goto("/jobs/1")
        await page.get_by_role("link", name="Cancel…").click()
        await page.get_by_role("button", name="Cancel the job").click()
        await expect(page.locator("#standing .badge").first).to_have_text("cancelled")
        assert house.rows("SELECT state, count(*) FROM prompts GROUP BY 1 ORDER BY 1") == [
            ("cancelled", 2),
            ("done", 2),
        ]
        assert page.complaints == []  # type: ignore[attr-defined]
        server.release()


async def test_a_lost_connection_is_shown_and_mends_by_itself(chromium: Browser, house: House) -> None:
    page = await opened_page(chromium, house)
    await expect(page.locator("#connection")).to_be_empty()
    await page.context.set_offline(True)
    await page.evaluate("stream.close(); stream = null; listen()")
    await expect(page.locator("#connection")).to_contain_text("The connection is lost")
    await house.submit("Bees.")
    await page.context.set_offline(False)
    await expect(page.locator("#connection")).to_be_empty(timeout=SOON)
    await expect(page.locator("#jobs")).to_contain_text("prompts on 0.txt", timeout=SOON)


def is_of_the_script(request: Request) -> bool:
    """Whether the page asks for itself anew."""
    return request.resource_type == "fetch"


async def up_to_date(chromium: Browser, house: House, path: str) -> Page:
    """A page that has looked once more after it began to listen, and asks for nothing until something happens."""
    page = await opened_page(chromium, house, "/new")
    async with page.expect_request(is_of_the_script) as seen:
        await page.goto(path)
    await (await seen.value).response()
    return page


async def refuse_to_ask(page: Page, milliseconds: float) -> None:
    """A page asks for nothing for a while."""
    with pytest.raises(NothingCameError):
        await page.wait_for_event("request", is_of_the_script, timeout=milliseconds)


async def test_who_watches_a_job_end_is_shown_what_to_take_away(chromium: Browser, db: Path) -> None:
    async with FakeServer(slots=1, context=100_000) as server, opened(db, server) as house:
        server.behave(HELD)
        await house.submit("Bees.")
        page = await up_to_date(chromium, house, "/jobs/1")
        taken = page.get_by_role("link", name="csv")
        await expect(taken).to_have_count(0)
        server.release()
        await expect(taken).to_be_visible(timeout=SOON)


async def test_what_is_read_of_a_document_is_shown_as_soon_as_it_is(chromium: Browser, idle: House) -> None:
    await idle.submit("Bees.")
    change(idle, "UPDATE job_documents SET document_id = NULL")
    page = await up_to_date(chromium, idle, "/jobs/1/documents/0")
    await expect(page.locator("main")).to_contain_text("not read yet")
    change(idle, "UPDATE job_documents SET document_id = 1")
    await idle.post("/jobs/1/pause")
    await expect(page.get_by_role("link", name="the text that was read")).to_be_visible(timeout=SOON)


async def test_a_page_of_one_job_asks_for_nothing_when_another_changes(chromium: Browser, idle: House) -> None:
    await idle.submit("Bees.")
    await idle.submit("Ants.")
    page = await up_to_date(chromium, idle, "/jobs/1")
    await idle.post("/jobs/2/pause")
    await refuse_to_ask(page, 3_000)
    await idle.post("/jobs/1/pause")
    await expect(page.locator("#progress .badge")).to_have_text("paused", timeout=SOON)


async def test_while_a_text_is_selected_it_stays_and_the_page_asks_seldom(chromium: Browser, idle: House) -> None:
    await idle.submit("Bees.")
    page = await up_to_date(chromium, idle, "/jobs/1")
    await page.evaluate("getSelection().selectAllChildren(document.getElementById('progress'))")
    async with page.expect_request(is_of_the_script):
        await idle.post("/jobs/1/pause")
    await refuse_to_ask(page, 3_000)
    await expect(page.locator("#progress .badge")).to_have_text("pending")
    await page.evaluate("getSelection().empty()")
    await expect(page.locator("#progress .badge")).to_have_text("paused", timeout=SOON)


async def test_one_who_signs_in_is_let_in_until_signing_out(chromium: Browser, db: Path) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        page = await opened_page(chromium, house, "/jobs/1")
        await page.wait_for_url("**/login")
        await page.get_by_label("Token of this service").fill(TOKEN)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#jobs")).to_contain_text("There is no job yet")
        body = {"texts": [{"name": "bees.txt", "text": "Bees."}], "prompts": ["What?"]}
        await house.post("/jobs", body, headers={"Authorization": f"Bearer {TOKEN}"})
        await page.get_by_role("link", name="prompts on bees.txt").click(timeout=SOON)
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#progress .badge")).to_have_text("paused")
        assert page.complaints == []  # type: ignore[attr-defined]
        await page.get_by_role("button", name="Sign out").click()
        await page.goto("/jobs/1")
        await page.wait_for_url("**/login")


async def test_it_reads_by_keyboard_and_without_a_script(chromium: Browser, house: House) -> None:
    await house.submit("Bees.", "Ants.")
    await house.until_ended(1)
    page = await opened_page(chromium, house, "/jobs/1")
    await page.keyboard.press("/")
    await expect(page.get_by_label("Documents whose name or title has")).to_be_focused()
    await page.keyboard.type("1.t")
    await page.keyboard.press("Enter")
    await expect(page.locator("#grid tbody tr")).to_have_count(1)
    await page.goto("/sql")
    await page.get_by_label("A query that only reads").fill("select document from answers order by 1")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".sql td").first).to_have_text("0.txt")
    assert page.complaints == []  # type: ignore[attr-defined]
    plain = await chromium.new_page(base_url=house.service.url, java_script_enabled=False)
    await plain.goto("/new")
    await plain.get_by_label("… or a text").fill("Wasps.")
    await plain.get_by_label("What is asked").select_option("summary")
    await plain.get_by_role("button", name="Submit").click()
    await house.until_ended(2)
    await plain.reload()
    await expect(plain.locator("#standing")).to_contain_text("3 of 3 answered")


@pytest.mark.parametrize("width", [360, 1400])
async def test_no_page_is_wider_than_its_window(chromium: Browser, db: Path, width: int) -> None:
    unbroken = "x" * 2_000
    async with FakeServer(context=100_000, answer=lambda seen: unbroken) as server, opened(db, server) as house:
        body = {"name": "n" * 255, "texts": [{"name": "d" * 250, "text": unbroken}], "prompts": ["q" * 300, "r", "s"]}
        await house.post("/jobs", body)
        await house.until_ended(1)
        page = await chromium.new_page(base_url=house.service.url, viewport={"width": width, "height": 800})
        for path in (
            *("/", "/new", "/workers", "/sql?sql=select+*+from+answers", "/jobs/1", "/jobs/1/answers/1"),
            *("/jobs/1/documents/0", "/jobs/1/documents/0/text", "/jobs/1/cancel", "/jobs/1/failures", "/nosuch"),
        ):
            await page.goto(path)
            assert await wide_by(page) <= 0, path
