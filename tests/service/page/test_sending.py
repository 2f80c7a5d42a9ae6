"""Submitting by the form of the page, as a browser sends it."""

import aiohttp
from selectolax.lexbor import LexborHTMLParser as Html

from tests.service.conftest import Answer, House


def form(*files: tuple[str, bytes], **fields: str) -> aiohttp.FormData:
    """A form as a browser fills it: a file that was not chosen is an empty one without a name."""
    made = aiohttp.FormData(default_to_multipart=True)
    for name, data in files or (("", b""),):
        made.add_field("files", data, filename=name, content_type="application/octet-stream")
    for name in ("text", "preset", "questions", "model", "name", "max_tokens"):
        made.add_field(name, fields.get(name, ""))
    return made


async def send(house: House, *files: tuple[str, bytes], **fields: str) -> Answer:
    """Send the form."""
    return await house.ask("POST", "/jobs", data=form(*files, **fields), allow_redirects=False)


async def test_files_and_a_text_become_a_job_and_the_browser_goes_to_it(house: House) -> None:
    answer = await send(
        house,
        ("bees.txt", b"Bees see no red."),
        ("ants.md", b"# Ants"),
        text="A pasted text.",
        questions="What is seen?\r\n\r\nBy whom,\r\nand when?",
        name="Insects",
        max_tokens="64",
    )
    assert (answer.status, answer.headers["Location"]) == (303, "/jobs/1")
    assert (await house.until_ended(1))["done"] == 6
    assert house.rows("SELECT name FROM jobs") == [("Insects",)]
    assert house.rows("SELECT name FROM job_documents ORDER BY name") == [("ants.md",), ("bees.txt",), ("pasted text",)]
    assert house.rows("SELECT text, max_tokens FROM templates ORDER BY ordinal") == [
        ("What is seen?", 64),
        ("By whom,\nand when?", 64),
    ]


async def test_a_preset_is_asked_and_the_same_form_sent_twice_is_one_job(idle: House) -> None:
    for _ in range(2):
        answer = await send(idle, text="A paper.", preset="summary")
        assert (answer.status, answer.headers["Location"]) == (303, "/jobs/1")
    assert idle.rows("SELECT count(*) FROM templates") == [(3,)]


async def test_what_cannot_be_followed_is_said_and_what_was_written_is_kept(idle: House) -> None:
    for fields, said in (
        ({"text": "A paper."}, "nothing to ask"),
        ({"questions": "What?"}, "nothing to read"),
        ({"text": "A paper.", "questions": "What?", "preset": "summary"}, "choose one of them"),
        ({"text": "A paper.", "questions": "What?", "max_tokens": "many"}, "max_tokens"),
        ({"text": "A paper.", "preset": "nosuch"}, "nosuch"),
    ):
        answer = await send(idle, **fields)
        assert answer.status == 422, fields
        page = Html(answer.body)
        problem = page.css_first(".problem")
        assert problem is not None
        assert said in problem.text()
        kept = page.css_first("textarea[name=text]")
        assert kept is not None
        assert kept.text().strip() == fields.get("text", "")
    assert idle.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_a_body_that_is_no_form_is_refused_on_the_page(idle: House) -> None:
    for body, kind in ((b"text=a", "application/x-www-form-urlencoded"), (b"{}", "application/json"), (b"", "a/b")):
        answer = await idle.ask("POST", "/jobs", data=body, headers={"Content-Type": kind})
        assert answer.status == 415
    unbound = await idle.ask("POST", "/jobs", data=b"x", headers={"Content-Type": "multipart/form-data"})
    assert unbound.status in (400, 422)
    assert idle.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_a_page_of_elsewhere_submits_nothing(idle: House) -> None:
    foreign = {"Origin": "http://evil.example"}
    answer = await idle.ask("POST", "/jobs", data=form(text="A.", questions="B?"), headers=foreign)
    assert answer.status == 403
    assert idle.rows("SELECT count(*) FROM jobs") == [(0,)]
