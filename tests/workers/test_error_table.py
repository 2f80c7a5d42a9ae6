"""The one table of errors: nothing that can be raised or said is missing from it."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import client_exceptions

from distllm.domain.models import ErrorClass
from distllm.workers.errors import EXCEPTIONS, Sign, Translator, shorten
from distllm.workers.sse import LineTooLongError

BUSY, BROKEN, INPUT = ErrorClass.BUSY, ErrorClass.BROKEN, ErrorClass.INPUT
REFUSED, SETUP, LOST = ErrorClass.REFUSED, ErrorClass.SETUP, ErrorClass.LOST
PLACE = "http://10.0.0.7:8080"

# Each class: before the first byte, and after it.
CLIENT_ERRORS = {
    "ClientError": (BROKEN, BROKEN),
    "ClientConnectionError": (LOST, LOST),
    "ClientConnectionResetError": (LOST, LOST),
    "ClientOSError": (LOST, LOST),
    "ClientConnectorError": (REFUSED, REFUSED),
    "ClientConnectorDNSError": (REFUSED, REFUSED),
    "UnixClientConnectorError": (REFUSED, REFUSED),
    "ClientProxyConnectionError": (REFUSED, REFUSED),
    "ClientHttpProxyError": (REFUSED, REFUSED),
    "ClientSSLError": (SETUP, SETUP),
    "ClientConnectorSSLError": (SETUP, SETUP),
    "ClientConnectorCertificateError": (SETUP, SETUP),
    "ServerFingerprintMismatch": (SETUP, SETUP),
    "ServerConnectionError": (LOST, LOST),
    "ServerDisconnectedError": (LOST, LOST),
    "ServerTimeoutError": (BROKEN, BROKEN),
    "ConnectionTimeoutError": (REFUSED, REFUSED),
    "SocketTimeoutError": (BROKEN, BROKEN),
    "UploadAbortedError": (LOST, LOST),
    "ClientPayloadError": (LOST, LOST),
    "ClientResponseError": (BROKEN, BROKEN),
    "ContentTypeError": (BROKEN, BROKEN),
    "WSServerHandshakeError": (BROKEN, BROKEN),
    "TooManyRedirects": (SETUP, SETUP),
    "RedirectClientError": (SETUP, SETUP),
    "InvalidURL": (SETUP, SETUP),
    "InvalidUrlClientError": (SETUP, SETUP),
    "InvalidUrlRedirectClientError": (SETUP, SETUP),
    "NonHttpUrlClientError": (SETUP, SETUP),
    "NonHttpUrlRedirectClientError": (SETUP, SETUP),
}


def client_errors() -> dict[str, type[aiohttp.ClientError]]:
    found = vars(client_exceptions).values()
    return {c.__name__: c for c in found if isinstance(c, type) and issubclass(c, aiohttp.ClientError)}


def test_every_exception_of_the_client_is_known() -> None:
    assert set(client_errors()) == set(CLIENT_ERRORS)


@pytest.mark.parametrize("name", CLIENT_ERRORS)
def test_an_exception_of_the_client_is_translated(name: str) -> None:
    kind = client_errors()[name]
    error = kind.__new__(kind)
    error.args = (OSError(113, "No route to host"),)
    translator = Translator(PLACE)
    classes = tuple(translator.exception(error, heard=heard).error_class for heard in (False, True))
    assert classes == CLIENT_ERRORS[name]


@pytest.mark.parametrize(
    ("error", "classes"),
    [
        (ConnectionRefusedError(111, "Connection refused"), (REFUSED, REFUSED)),
        (ConnectionResetError(), (LOST, LOST)),
        (BrokenPipeError(), (LOST, LOST)),
        (OSError(113, "No route to host"), (REFUSED, LOST)),
        (TimeoutError(), (BROKEN, BROKEN)),
        (asyncio.IncompleteReadError(b"", 7), (LOST, LOST)),
        (LineTooLongError(), (BROKEN, BROKEN)),
        (UnicodeError("label too long"), (SETUP, BROKEN)),
        (KeyError("whatever"), (BROKEN, BROKEN)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_exceptions_are_translated(error: Exception, classes: tuple[ErrorClass, ErrorClass]) -> None:
    translator = Translator(PLACE)
    assert tuple(translator.exception(error, heard=heard).error_class for heard in (False, True)) == classes
    assert PLACE in translator.exception(error, heard=True).text


def test_no_row_of_the_table_hides_behind_another() -> None:
    kinds = [row.kind for row in EXCEPTIONS]
    for index, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:index]), kind


SAID: list[tuple[int, object, ErrorClass]] = [
    (400, {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}}, INPUT),
    (400, {"error": "Trying to keep the first 13055 tokens when context the overflows"}, INPUT),
    (400, {"error": '{"error":{"code":400,"message":"exceeds the available context size"}}'}, INPUT),
    (400, {"error": "input length (9000 tokens) exceeds the limit"}, INPUT),
    (400, {"error": "the input length exceeds the context length"}, INPUT),
    (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length"}, INPUT),
    (400, {"error": {"message": "'response_format.type' must be 'json_schema' or 'text'"}}, INPUT),
    (400, {"error": "invalid character 'x' looking for beginning of value"}, INPUT),
    (400, {"detail": [{"msg": "field required", "type": "value_error"}]}, INPUT),
    (413, b"Request Entity Too Large", INPUT),
    (422, {"detail": "bad schema"}, INPUT),
    (400, {"error": {"message": "Failed to load model. Context length 131072 needs more memory"}}, SETUP),
    (400, {"error": "No models loaded. Please load a model in the developer page"}, SETUP),
    (400, {"error": '"llama3" does not support thinking'}, SETUP),
    (400, {"error": '"nomic-embed-text" does not support chat'}, SETUP),
    (400, {"error": {"message": "Invalid model identifier 'x'.", "code": "model_not_found"}}, SETUP),
    (400, {"error": {"message": "Failed to load model 'x'", "type": "model_load_failed"}}, SETUP),
    (401, {"error": {"message": "a token is required", "type": "invalid_request", "code": "invalid_api_key"}}, SETUP),
    (401, b"", SETUP),
    (403, b"<html><h1>403 Forbidden</h1></html>", SETUP),
    (404, {"error": {"message": "File Not Found", "type": "not_found_error"}}, SETUP),
    (404, {"error": "model 'x' not found, try pulling it first"}, SETUP),
    (405, b"Method Not Allowed", SETUP),
    (308, b"", SETUP),
    (429, {"error": "slow down"}, BUSY),
    (500, {"error": {"message": "Context size has been exceeded.", "code": 500}}, BUSY),
    (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, BUSY),
    (408, b"", BROKEN),
    (500, {"error": "llama-server process has terminated: exit status 2"}, LOST),
    (500, {"error": "timed out waiting for llama-server to start: "}, BROKEN),
    (500, {"error": "token repeat limit reached"}, BROKEN),
    (499, b"", BROKEN),
    (500, {"error": "model requires more system memory than is available"}, BROKEN),
    (502, b"<html><title>502 Bad Gateway</title></html>", BROKEN),
    (504, b"upstream timed out", BROKEN),
    (204, b"", BROKEN),
]


@pytest.mark.parametrize(("status", "body", "error_class"), SAID, ids=lambda value: str(value)[:40])
def test_what_a_server_says_with_a_status(status: int, body: object, error_class: ErrorClass) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = Translator(PLACE).status(status, raw)
    assert told.error_class is error_class
    assert told.text.startswith(f"{PLACE}: HTTP {status}")


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        ("n_keep: 13055>= n_ctx: 4096", INPUT),
        ({"message": "Context size has been exceeded.", "code": 500}, BUSY),
        ({"message": "Loading model", "type": "unavailable_error"}, BUSY),
        ({"message": "who are you", "code": 401}, SETUP),
        ({"message": "Model 'x' not found", "code": "model_not_found"}, SETUP),
        ("The model has crashed without additional information", LOST),
        ("llama-server process has terminated: signal: killed", LOST),
        ("Unexpected endpoint or method. (POST /v1/chat/completions)", SETUP),
        ({"message": "Trying to keep the first 13055 tokens when context the overflows"}, INPUT),
        ('{"error":{"code":400,"message":"request exceeds the available context size","n_ctx":2048}}', INPUT),
        ({}, BROKEN),
        (None, BROKEN),
        ([1], BROKEN),
    ],
    ids=str,
)
def test_what_a_server_says_inside_a_stream(error: object, error_class: ErrorClass) -> None:
    assert Translator(PLACE).stream_error(error).error_class is error_class


def test_every_sign_has_its_words() -> None:
    details = {
        "seconds": 3.0,
        "megabytes": 4,
        "said": "x {y}",
        "tokens": 5,
        "sent": 9,
        "window": 4,
        "asked": "z",
    }
    for sign in Sign:
        told = Translator(PLACE).sign(sign, **details)
        assert told.text.startswith(PLACE)
        assert told.error_class is sign.value[0]
    assert {sign.value[0] for sign in Sign} == {BROKEN, INPUT, REFUSED, SETUP}


def test_a_line_is_one_short_line_without_control_characters() -> None:
    text = Translator(PLACE).status(500, b"\x1b[31mbad\x00\nthing\r\n\xe2\x80\xae" + b"long " * 500).text
    assert text.startswith(f"{PLACE}: HTTP 500: [31mbad thing long")
    assert len(text) == 300
    assert text.isprintable()
    assert shorten("a\n\n b", 300) == "a b"


@pytest.mark.parametrize("before", range(200, 3200, 100))
def test_not_even_half_a_secret_is_told(before: int) -> None:
    key = "sk-" + "0123456789" * 4
    text = Translator(PLACE, key).status(500, ("." * before + key).encode()).text
    assert "sk-" not in text
