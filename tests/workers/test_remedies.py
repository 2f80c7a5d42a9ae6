"""Whatever goes wrong with a worker, there is something to do about it."""

import pytest

from distllm.workers.errors import EXCEPTIONS
from distllm.workers.remedies import ELSE, remedy_for


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("http://a:1: no connection (Connection refused)", "is the server running"),
        ("http://a:1: no answer within 5 s", "awake"),
        ("http://a:1: its name is not known to DNS (Name or service not known)", "`host`"),
        ("http://a:1: HTTP 401: Invalid API Key", "api_key_env"),
        ("http://a:1: it answers with a web page: Router login", "`port`"),
        ("http://a:1: has no model 'x'; it has y", "`model`"),
        ("http://a:1: HTTP 503: Loading model", "in a minute"),
        ("the embedded worker has no model file; add one with: uv pip install", ""),
    ],
)
def test_the_remedy_fits_the_error(error: str, words: str) -> None:
    assert words in remedy_for(error)


def test_what_keeps_a_server_from_being_reached_has_a_remedy_of_its_own() -> None:
    without = [row.text for row in EXCEPTIONS if remedy_for(row.text) == ELSE]
    assert not any("connect" in text or "TLS" in text or "DNS" in text for text in without), without
