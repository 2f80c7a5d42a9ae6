"""Lines and events, however the bytes are cut."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.workers.sse import LONGEST_LINE, Event, Events, Lines, LineTooLongError

LINES = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


def chunked(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def lines(chunks: Iterator[bytes]) -> list[bytes]:
    parser = Lines()
    return [*(line for chunk in chunks for line in parser.feed(chunk)), *parser.end()]


def events(chunks: Iterator[bytes], longest: int = LONGEST_LINE) -> list[Event]:
    parser = Events(longest)
    return [*(event for chunk in chunks for event in parser.feed(chunk)), *parser.end()]


@given(
    texts=st.lists(LINES, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    sizes=st.lists(st.integers(0, 7), max_size=40),
)
def test_lines_are_the_same_however_they_are_cut(texts: list[str], end: str, sizes: list[int]) -> None:
    data = "".join(f"{text}{end}" for text in texts).encode()
    assert [line.decode() for line in lines(chunked(data, sizes))] == texts


@given(
    texts=st.lists(LINES, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    sizes=st.lists(st.integers(0, 7), max_size=40),
)
def test_events_are_the_same_however_they_are_cut(texts: list[str], end: str, sizes: list[int]) -> None:
    stream = "".join(f": ping{end}{end}id: 1{end}data: {text}{end}{end}" for text in texts).encode()
    found = [event.data.decode() for event in events(chunked(stream, sizes))]
    assert found == texts


def test_names_several_lines_and_a_missing_end() -> None:
    data = b"event: chat.end\ndata:{\ndata: }\nretry: 3\n\n: c\n\ndata: [DONE]"
    found = events(chunked(data, []))
    assert found == [Event(b"{\n}", "chat.end"), Event(b"[DONE]")]


def test_what_is_no_event_comes_last() -> None:
    found = events(chunked(b'{"error":\n "x"}\n', [3]))
    assert found == [Event(b'{"error":\n "x"}', stray=True)]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 99, b"data: x\n" * 99, b"strayed\n" * 99])
def test_nothing_grows_without_bound(data: bytes) -> None:
    with pytest.raises(LineTooLongError):
        events(chunked(data, [9] * 9), longest=64)
