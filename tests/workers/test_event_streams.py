"""Lines and events, however the bytes are cut."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.workers.sse import Event, LineTooLongError, events, lines

LINES = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


async def chunked(data: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(
    texts=st.lists(LINES, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    sizes=st.lists(st.integers(0, 7), max_size=40),
)
async def test_lines_are_the_same_however_they_are_cut(texts: list[str], end: str, sizes: list[int]) -> None:
    data = "".join(f"{text}{end}" for text in texts).encode()
    assert [line.decode() async for line in lines(chunked(data, sizes))] == texts


@given(
    texts=st.lists(LINES, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    sizes=st.lists(st.integers(0, 7), max_size=40),
)
async def test_events_are_the_same_however_they_are_cut(texts: list[str], end: str, sizes: list[int]) -> None:
    stream = "".join(f": ping{end}{end}id: 1{end}data: {text}{end}{end}" for text in texts).encode()
    found = [event.data.decode() async for event in events(chunked(stream, sizes))]
    assert found == texts


async def test_names_several_lines_and_a_missing_end() -> None:
    data = b"event: chat.end\ndata:{\ndata: }\nretry: 3\n\n: c\n\ndata: [DONE]"
    found = [event async for event in events(chunked(data, []))]
    assert found == [Event(b"{\n}", "chat.end"), Event(b"[DONE]")]


async def test_what_is_no_event_comes_last() -> None:
    found = [event async for event in events(chunked(b'{"error":\n "x"}\n', [3]))]
    assert found == [Event(b'{"error":\n "x"}', stray=True)]


@pytest.mark.parametrize("data", [b"data: " + b"x" * 99, b"data: x\n" * 99, b"strayed\n" * 99])
async def test_nothing_grows_without_bound(data: bytes) -> None:
    with pytest.raises(LineTooLongError):
        _ = [event async for event in events(chunked(data, [9] * 9), longest=64)]
