"""Signing in: the token once, a cookie from then on, and nothing at the word of another page."""

import re
import shutil
import time
from pathlib import Path

import aiohttp
import pytest

from distllm.service.session import cookie_of
from tests.service.conftest import House, opened

TOKEN = "a-token-that-nobody-guesses"


async def sign_in(house: House, token: str = TOKEN) -> aiohttp.ClientResponse:
    """Send the form as a browser does; cookies are kept by hand, since those of addresses are not kept."""
    origin = {"Origin": house.service.url}
    async with house.client.post("/login", data={"token": token}, headers=origin, allow_redirects=False) as answer:
        await answer.read()
        return answer


async def test_who_is_not_signed_in_is_sent_to_the_form_and_a_program_is_refused(db: Path) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        for path in ("/", "/jobs/1", "/sql?sql=select+1", "/nosuch"):
            answer = await house.ask("GET", path, allow_redirects=False)
            assert (answer.status, answer.headers["Location"]) == (303, "/login")
        assert (await house.get("/jobs")).status == 401
        form = await house.ask("GET", "/login")
        assert form.status == 200
        assert b'type="password"' in form.body
        [style] = re.findall(rb'href="(/static/page.css[^"]*)"', form.body)
        styled = await house.ask("GET", style.decode())
        assert (styled.status, styled.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
        assert "immutable" in styled.headers["Cache-Control"]


async def test_the_right_token_gets_a_cookie_that_opens_the_page_the_api_and_the_events(db: Path) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        answer = await sign_in(house)
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        given = answer.headers["Set-Cookie"]
        assert "HttpOnly" in given
        assert "SameSite=Strict" in given
        assert "Path=/" in given
        assert TOKEN not in given
        cookie = {"Cookie": given.partition(";")[0]}
        for path in ("/", "/workers", "/api/v1/jobs"):
            assert (await house.ask("GET", path, headers=cookie)).status == 200
        async with house.client.get("/api/v1/events", headers=cookie) as events:
            assert events.status == 200
        assert b"Sign out" in (await house.ask("GET", "/", headers=cookie)).body
        left = await house.ask("POST", "/logout", headers=cookie | {"Origin": house.service.url}, allow_redirects=False)
        assert "Max-Age=0" in left.headers["Set-Cookie"]


async def test_a_cookie_changes_nothing_but_from_a_page_of_this_service(db: Path) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        await house.post("/jobs", {"texts": [{"name": "a", "text": "b"}], "prompts": ["c?"]}, headers=bearer)
        cookie = {"Cookie": (await sign_in(house)).headers["Set-Cookie"].partition(";")[0]}
        for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):
            answer = await house.ask("POST", "/jobs/1/cancel", headers=cookie | origin, allow_redirects=False)
            assert answer.status in (303, 403)
            assert answer.headers.get("Location") in (None, "/login")
            assert house.rows("SELECT cancel_requested_at FROM jobs") == [(None,)]
        own = cookie | {"Origin": house.service.url}
        done = await house.ask("POST", "/jobs/1/cancel", headers=own, allow_redirects=False)
        assert (done.status, done.headers["Location"]) == (303, "/jobs/1")


@pytest.mark.parametrize("cookie", ["", "x", TOKEN, "é"])
async def test_no_other_cookie_opens_anything(db: Path, cookie: str) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        answer = await house.get("/jobs", headers={"Cookie": f"{cookie_of(TOKEN)}={cookie}"})
        assert answer.status == 401


async def test_a_wrong_token_is_told_and_takes_its_time(db: Path) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        began = time.monotonic()
        answer = await sign_in(house, TOKEN[:-1])
        assert time.monotonic() - began >= 1
        assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)
        foreign = {"Origin": "http://evil.example"}
        assert (await house.ask("POST", "/login", data={"token": TOKEN}, headers=foreign)).status == 403
        assert (await house.ask("POST", "/login", data={"token": "x" * 5_000})).status == 413


async def test_where_no_token_is_wanted_nobody_is_asked_for_one(idle: House) -> None:
    answer = await idle.ask("GET", "/login", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert b"Sign out" not in (await idle.ask("GET", "/")).body
    of_another = {"Cookie": f"{cookie_of(TOKEN)}=x"}
    assert b"Sign out" not in (await idle.ask("GET", "/", headers=of_another)).body


async def test_two_services_of_one_host_leave_each_others_sessions_alone(db: Path, tmp_path: Path) -> None:
    other_db = Path(shutil.copy(db, tmp_path / "other.db"))
    async with opened(db, token=TOKEN, working=False) as one, opened(other_db, token="another", working=False) as other:
        kept: dict[str, str] = {}
        for house, token in ((one, TOKEN), (other, "another")):
            kept |= {name: cookie.value for name, cookie in (await sign_in(house, token)).cookies.items()}
        both = {"Cookie": "; ".join(f"{name}={value}" for name, value in kept.items())}
        for house in (one, other):
            assert b"Sign out" in (await house.ask("GET", "/", headers=both)).body
        own = both | {"Origin": other.service.url}
        left = await other.ask("POST", "/logout", headers=own, allow_redirects=False)
        gone = left.headers["Set-Cookie"].partition("=")[0]
        rest = {"Cookie": "; ".join(f"{name}={value}" for name, value in kept.items() if name != gone)}
        assert (await one.get("/jobs", headers=rest)).status == 200
        assert (await other.get("/jobs", headers=rest)).status == 401
