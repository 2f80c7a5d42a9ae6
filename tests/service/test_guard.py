"""Who may come in, and what a browser is told: nothing for pages of elsewhere."""

import asyncio
import logging
import stat
from pathlib import Path

import aiohttp
import pytest

from distllm.compose.serve import Place
from distllm.domain.errors import DistllmError
from distllm.service.guard import is_loopback
from distllm.service.session import cookie_of
from distllm.service.token import kept_token, token_file
from tests.service.conftest import SOON, House, opened

TOKEN = "a-token-that-nobody-guesses"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost:8470", 200),
        ("127.0.0.1", 200),
        ("127.0.0.9:1", 200),
        ("[::1]:8470", 200),
        ("evil.example", 403),
        ("evil.example:8470", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.20:8470", 403),
        ("localhost@evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
async def test_a_name_that_was_made_to_mean_this_machine_gets_nothing(idle: House, name: str, status: int) -> None:
    for path in ("/api/v1/jobs", "/health/live", "/api/v1/openapi.json"):
        assert (await idle.ask("GET", path, headers={"Host": name})).status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_elsewhere_changes_nothing(idle: House, headers: dict[str, str]) -> None:
    await idle.submit("A paper.")
    answer = await idle.post("/jobs/1/cancel", headers=headers)
    assert (answer.status, answer.body["detail"]) == (403, "a page of another origin may change nothing here")
    assert (await idle.get("/jobs/1")).body["state"] == "pending"
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_page_of_elsewhere_holds_no_stream_open_but_may_link_here(idle: House) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    for path in ("/events", "/jobs"):
        assert (await idle.get(path, headers=foreign)).status == 403
    assert (await idle.get("/jobs", headers=foreign | {"Sec-Fetch-Mode": "navigate"})).status == 200


async def test_its_own_page_may_change_what_it_likes(idle: House) -> None:
    await idle.submit("A paper.")
    own = {"Origin": idle.service.url, "Sec-Fetch-Site": "same-origin"}
    assert (await idle.post("/jobs/1/cancel", headers=own)).status == 200


async def test_without_its_token_nobody_gets_in(db: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(db, token=TOKEN, working=False) as house:
        for given in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
            headers = {} if given is None else {"Authorization": given}
            answer = await house.get("/jobs", headers=headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="distllm"')
        assert (await house.get(f"/jobs?token={TOKEN}")).status == 401
        assert (await house.get("/nosuch")).status == 401
        assert (await house.get("/jobs", headers={"Authorization": f"Bearer {TOKEN}"})).status == 200
        assert (await house.get("/jobs", headers={"Authorization": f"bearer {TOKEN}"})).status == 200
        assert (await house.ask("GET", "/health/live")).status == 200
    assert "GET /api/v1/jobs 401" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("header", ["Authorization: Bearer ", f"Cookie: {cookie_of(TOKEN)}="])
async def test_bytes_that_are_no_text_are_no_token(db: Path, header: str) -> None:
    async with opened(db, token=TOKEN, working=False) as house:
        # Raw, since no client sends them.
        reader, writer = await asyncio.open_connection("127.0.0.1", int(house.service.url.rpartition(":")[2]))
        writer.write(f"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n{header}".encode() + b"\xff\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), SOON)).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_every_answer_bears_headers_that_give_a_browser_nothing(idle: House) -> None:
    for path in ("/api/v1/jobs", "/api/v1/jobs/9", "/api/v1/nosuch", "/health/live", "/api/v1/openapi.json"):
        headers = (await idle.ask("GET", path)).headers
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Server"] == "distllm"
        assert not [name for name in headers if name.startswith("Access-Control")]
    assert (await idle.ask("OPTIONS", "/api/v1/jobs", headers={"Origin": "http://evil.example"})).status == 405


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_which_addresses_are_of_this_machine_alone(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def test_a_token_is_made_once_and_kept_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    db = tmp_path / "d.db"
    first = Place.of(db, "0.0.0.0", 0, None)
    assert first.new_token
    assert first.token is not None
    assert len(first.token) >= 32
    assert stat.S_IMODE(token_file(db).stat().st_mode) == 0o600
    again = Place.of(db, "192.168.1.20", 0, None)
    assert (again.token, again.new_token) == (first.token, False)
    # Here nobody else can come; who names a token wants it all the same.
    assert Place.of(db, "127.0.0.1", 0, None).token is None
    assert Place.of(db, "127.0.0.1", 0, TOKEN).token == TOKEN
    token_file(db).chmod(0o644)
    with pytest.raises(DistllmError, match="can be read by others"):
        kept_token(db)
    for bad in ("short", "with a blank in the midst", "líke-nö-töken-at-all"):
        with pytest.raises(DistllmError, match="DISTLLM_TOKEN holds no token"):
            Place.of(db, "127.0.0.1", 0, bad)


async def test_at_any_address_it_is_known_by_addresses_and_by_this_machines_name(db: Path) -> None:
    async with opened(db, host="0.0.0.0", token=TOKEN, names=("studio",), working=False) as house:
        url, headers = house.service.url, {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=headers) as client:
            for name, status in (("192.168.1.20:80", 200), ("localhost", 200), ("evil.example", 403), ("Studio", 200)):
                async with client.get(f"{url}/api/v1/jobs", headers={"Host": name}) as response:
                    assert response.status == status
