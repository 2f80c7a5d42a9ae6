"""Plain text and Markdown."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies

from distllm.documents import DocumentReader
from distllm.documents.markdown import extract_markdown
from distllm.documents.text import extract_text
from distllm.documents.tidy import tidy


@pytest.mark.parametrize(
    "data",
    [
        "Größe ½".encode(),
        "Größe ½".encode("utf-8-sig"),
        "Größe ½".encode("utf-16"),
        b"\xfe\xff" + "Größe ½".encode("utf-16-be"),
        "Größe ½".encode("utf-32"),
        "Größe ½".encode("cp1252"),
        "Gro\u0308\u00dfe ½".encode(),
    ],
)
def test_every_common_encoding_gives_the_same_text(data: bytes) -> None:
    assert extract_text(data).text == "Größe ½"


def test_a_spoilt_byte_does_not_turn_the_umlauts_of_a_text_into_rubbish() -> None:
    assert extract_text("äöüß".encode() * 10 + b"\xff.").text == "äöüß" * 10 + "\ufffd."


def test_line_ends_blanks_and_controls_are_tidied() -> None:
    data = b"\r\n one \t\r\ntwo\x07\x1b\r\r\n \n\n\nthree\tfour\x0cfive\n\n"
    assert extract_text(data).text == " one\ntwo\n\nthree\tfour\nfive"


@given(strategies.text())
def test_a_tidy_text_stays_as_it_is(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert "\n\n\n" not in once
    assert not any(line != line.rstrip() for line in once.split("\n"))


def test_mathematics_is_not_rewritten() -> None:
    formula = "x\u00b2 \u2208 \u211d, \U0001d453(x) = \ufb01"
    assert extract_text(formula.encode()).text == formula


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("some words\n\n# The *title* #\n\n# Second", "The *title*"),
        ("---\nauthor: A\ntitle: 'From the front'\n---\n# Heading", "From the front"),
        ("---\nauthor: A\n---\n\n# Heading", "Heading"),
        ("Underlined\n==========\n", "Underlined"),
        ("```sh\n# a comment\n```\n# Heading", "Heading"),
        ("## Only a section\n#hashtag", None),
    ],
)
def test_the_title_of_markdown(text: str, title: str | None) -> None:
    found = extract_markdown(text.encode())
    assert (found.title, found.text) == (title, text.strip())


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("paper.txt", b"", "is empty"),
        ("paper.md", b" \n\t\n", "is empty"),
        ("paper.txt", b"PK\x03\x04\0\0", "is binary, not a text"),
        ("paper.zip", b"PK\x03\x04\0\0", "is not a text, nor any other kind that distllm reads"),
        ("paper.pdf", b"", "is empty"),
        ("paper.pdf", b"Dear Sir, no PDF is here.", "is not a PDF, or is damaged"),
        ("paper", b"%PDF-1.7 cut off", "is not a PDF, or is damaged"),
    ],
)
async def test_what_gives_no_text_says_why(
    reader: DocumentReader, save: Callable[[str, bytes], Path], name: str, data: bytes, problem: str
) -> None:
    document = await reader.read(save(name, data))
    assert document.text == ""
    assert document.problem is not None
    assert document.problem.startswith(problem)
    assert document.sha256 == hashlib.sha256(data).hexdigest()


async def test_a_text_without_a_known_suffix_is_read(
    reader: DocumentReader, save: Callable[[str, bytes], Path]
) -> None:
    document = await reader.read(save("README", "Grüße".encode()))
    assert (document.text, document.problem, document.pages) == ("Grüße", None, None)
