"""Whatever is sent over a socket, the service answers it or closes, says nothing of itself, and goes on."""

import asyncio
import logging

import pytest

from tests.service.conftest import SOON, House

HOST = b"Host: localhost\r\n"
POST = b"POST /api/v1/jobs HTTP/1.1\r\n" + HOST
FORM = POST + b"Content-Type: multipart/form-data; boundary=x\r\n"


def form(body: bytes) -> bytes:
    """A form that is the body given."""
    return FORM + b"Content-Length: %d\r\n\r\n" % len(body) + body


def part(headers: bytes, body: bytes = b"{}") -> bytes:
    """A form of one part."""
    return form(b"--x\r\n" + headers + b"\r\n\r\n" + body + b"\r\n--x--\r\n")


FILE = b'Content-Disposition: form-data; name="files"; filename="a.txt"'

STRANGE = {
    "no HTTP": (b"\x00\x01\x02\r\n\r\n", 400),
    "two hosts": (b"GET /api/v1 HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n", 400),
    "no host": (b"GET /api/v1 HTTP/1.0\r\n\r\n", 403),
    "a path out of the API": (b"GET /api/v1/../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "the same in other letters": (b"GET /api/v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a long header": (b"GET /api/v1 HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 400),
    "a NUL in the query": (b"GET /api/v1/jobs/1/results?document=%00 HTTP/1.1\r\n" + HOST + b"\r\n", 422),
    "a key that is no text": (POST + b"Idempotency-Key: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}", 422),
    "a compressed body": (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415),
    "two lengths": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "brackets without end": (
        POST + b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
        400,
    ),
    "a form without a boundary": (POST + b"Content-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\na", 400),
    "an empty form": (form(b"--x--\r\n"), 422),
    "a form in a form": (part(b"Content-Type: multipart/mixed; boundary=y", b"--y\r\n\r\na\r\n--y--"), 422),
    "a part without a name": (part(b"X: y"), 422),
    "a part that is not known": (part(b'Content-Disposition: form-data; name="path"', b"/etc/passwd"), 422),
    "a file without a name": (part(b'Content-Disposition: form-data; name="files"'), 422),
    "a file in base64": (part(FILE + b"\r\nContent-Transfer-Encoding: base64", b"SGVsbG8="), 415),
    "a part with a header that HTTP does not allow": (part(b'Content-Disposition: form-data; name="\x07"'), 400),
    "a compressed file": (part(FILE + b"\r\nContent-Encoding: gzip"), 415),
    "a form that breaks off": (form(b"--x\r\n" + FILE + b"\r\n\r\nhalf of it"), 400),
    "nothing asked": (part(FILE), 422),
}


@pytest.mark.parametrize("what", STRANGE)
async def test_what_is_strange_is_refused_and_nothing_is_kept(
    idle: House, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sent, status = STRANGE[what]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(idle.service.url.rpartition(":")[2]))
    writer.write(sent)
    async with asyncio.timeout(SOON):
        head = await reader.readuntil(b"\r\n\r\n")
    assert int(head.split()[1]) == status, head
    writer.close()
    assert idle.rows("SELECT count(*) FROM jobs") == [(0,)]
    assert "Traceback" not in caplog.text
    assert (await idle.ask("GET", "/health/live")).status == 200
