"""Papers, answers and names are strangers' words: whatever they hold is shown, and nothing of it is obeyed."""

import re
from pathlib import Path
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser as Html

from tests.fakes.behaviour import Behaviour
from tests.fakes.server import FakeServer
from tests.service.conftest import House, opened

HOSTILE = (
    "<script>window.owned = 1</script>",
    '"><img src=x onerror="window.owned = 1">',
    "</title></textarea></svg><script>window.owned = 1</script>",
    "'onmouseover='window.owned=1' x='",
    "{{ 7 * 7 }}{% raw %}",
)


async def pages(house: House, *more: str) -> dict[str, Html]:
    """The pages of a house with one job, by their paths."""
    prompts = [row[0] for row in house.rows("SELECT id FROM prompts ORDER BY id LIMIT 20")]
    paths = (
        *("/", "/new", "/workers", "/sql", "/jobs/1", "/jobs/1/failures", "/jobs/1/cancel", *more),
        *(f"/jobs/1/documents/{n}" for n in range(5)),
        *(f"/jobs/1/documents/{n}/text" for n in range(5)),
        *(f"/jobs/1/answers/{prompt}" for prompt in prompts),
    )
    found = {}
    for path in paths:
        answer = await house.ask("GET", path)
        assert answer.status == 200, path
        found[path] = Html(answer.body)
    return found


def refuse_what_could_run(path: str, page: Html) -> None:
    """Nothing but the page's own script and style, no handler, and no address of elsewhere."""
    scripts = page.css("script")
    assert [re.sub(r"\?v=\w+", "", script.attributes["src"] or "") for script in scripts] == ["/static/page.js"], path
    assert all(not script.text() for script in scripts)
    assert page.css_first("img, iframe, object, embed, style, base, [style]") is None, path
    for node in page.css("*"):
        assert not [name for name in node.attributes if name.startswith("on")], (path, node.html)
        for name in ("href", "src", "action"):
            given = node.attributes.get(name)
            assert given is None or re.match(r"[/?#](?!/)", given), (path, node.html)


async def test_whatever_papers_questions_and_answers_hold_is_shown_as_text(db: Path) -> None:
    hostile = "\n".join(HOSTILE)
    async with FakeServer(answer=lambda seen: hostile, thinks=hostile, context=100_000) as server:
        server.model = HOSTILE[0]
        async with opened(db, server) as house:
            body = {
                "name": HOSTILE[1],
                "texts": [{"name": each, "text": f"{each} {n}"} for n, each in enumerate(HOSTILE)],
                "questions": [{"name": f"q{n}", "text": each} for n, each in enumerate(HOSTILE[:2])],
            }
            answer = await house.post("/jobs", body)
            assert answer.status == 201, answer.body
            await house.until_ended(1)
            found = await pages(house, "/sql?sql=select+*+from+answers")
            for path, page in found.items():
                refuse_what_could_run(path, page)
            prose = next(page for path, page in found.items() if "/answers/" in path).css_first("article .prose")
            assert prose is not None
            assert prose.text().split() == hostile.split()
            text = found["/jobs/1/documents/0/text"].css_first(".prose")
            assert text is not None
            assert text.text() == f"{HOSTILE[0]} 0"
            title = found["/jobs/1"].css_first("h1")
            assert title is not None
            assert HOSTILE[1] in title.text()
            cells = [cell.text() for cell in found["/sql?sql=select+*+from+answers"].css("td")]
            assert set(HOSTILE) <= set(cells)


async def test_what_servers_say_of_their_failures_is_shown_as_text(db: Path) -> None:
    async with FakeServer(context=100_000) as server:
        server.behave(*[Behaviour(status=400, body={"error": {"message": each}}) for each in HOSTILE])
        async with opened(db, server, max_retries=0) as house:
            await house.submit(*HOSTILE)
            await house.until_ended(1)
            found = await pages(house)
            for path, page in found.items():
                refuse_what_could_run(path, page)
            body = found["/jobs/1/failures"].body
            assert body is not None
            assert HOSTILE[0] in body.text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nosuch", 404),
        ("GET", "/jobs/9", 404),
        ("GET", "/jobs/x", 404),
        ("GET", "/jobs/1/answers/99", 404),
        ("GET", "/jobs/1/answers/9999999999999999999", 404),
        ("GET", "/jobs/1/documents/99", 404),
        ("GET", "/jobs/1/documents/99/text", 404),
        ("GET", "/jobs/1/download/exe", 404),
        ("GET", "/jobs/9/download/csv", 404),
        ("GET", "/static/../page.py", 404),
        ("GET", "/static/secret", 404),
        ("GET", "/?before=x", 422),
        ("GET", "/jobs/1?named=" + "x" * 300, 422),
        ("POST", "/jobs/9/cancel", 404),
        ("POST", "/jobs/1/nosuch", 404),
        ("POST", "/", 405),
    ],
)
async def test_what_is_not_there_is_said_on_a_page(idle: House, method: str, path: str, status: int) -> None:
    await idle.submit("A paper.")
    answer = await idle.ask(method, path)
    assert answer.status == status
    page = Html(answer.body)
    refuse_what_could_run(path, page)
    said = page.css_first(".problem")
    assert said is not None
    assert said.text()


async def test_the_policy_of_every_page_lets_nothing_run_but_its_own_script(idle: House) -> None:
    await idle.submit("A paper.")
    for path in ("/", "/new", "/workers", "/sql", "/jobs/1", "/nosuch", "/jobs/1/answers/1", "/login"):
        headers: Any = (await idle.ask("GET", path, allow_redirects=False)).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
        assert {policy[name] for name in ("base-uri", "frame-ancestors")} == {"'none'"}
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"
