"""Addresses as people write them."""

import pytest

from distllm.config.address import Address, parse_address
from distllm.domain.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("studio", Address("studio", None, None)),
        ("studio.local:8080", Address("studio.local", 8080, None)),
        ("192.168.1.20:1234", Address("192.168.1.20", 1234, None)),
        ("https://studio:8443/", Address("studio", 8443, "https")),
        ("::1", Address("::1", None, None)),
        ("[fe80::1]:8080", Address("fe80::1", 8080, None)),
        ("http://[::1]", Address("::1", None, "http")),
    ],
)
def test_an_address_is_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "a b", "studio:", "studio:port", "studio:0", "studio:70000", "[studio]:1", "ftp://x", "a/b"]
)
def test_what_is_no_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="no user and no password") as caught:
        parse_address("http://user:sk-secret@studio:8080")
    assert "sk-secret" not in str(caught.value)
