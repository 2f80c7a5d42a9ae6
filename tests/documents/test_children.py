"""The child processes: what becomes of them, and of the files that they read."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distllm.documents import DocumentReader
from distllm.documents.splitting import split
from distllm.domain.errors import DistllmError
from distllm.domain.tokens import estimate_tokens
from tests.documents.pdf_writer import column, write_pdf, write_slow_pdf
from tests.documents.privileges import run_without_privileges
from tests.processes import children_of, is_alive

Save = Callable[[str, bytes], Path]
PAGES_FOR_MINUTES = 5000


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        # Another process's life and death cannot be awaited from here.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
def slow(save: Save) -> Path:
    """A PDF that would take minutes."""
    return save("slow.pdf", write_slow_pdf(PAGES_FOR_MINUTES))


_others: set[int] = set()


@pytest.fixture(autouse=True)
def _know_others() -> None:
    """Other tests of this process may have started what lives on, such as a database server."""
    _others.clear()
    _others.update(children_of(os.getpid()))


def children() -> list[int]:
    """The processes that this test has started."""
    return [child for child in children_of(os.getpid()) if child not in _others]


async def test_a_child_that_is_killed_takes_one_file_with_it(reader: DocumentReader, save: Save, slow: Path) -> None:
    reading = asyncio.create_task(reader.read(slow))
    # It has told the hash, so it is at the text.
    await until(lambda: any(child.sha256 for child in reader._busy))
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    lost = await reading
    assert lost.problem == "broke the process that read it: it is damaged, or takes more than 2 GiB of memory"
    assert lost.sha256 == hashlib.sha256(slow.read_bytes()).hexdigest()
    assert (await reader.read(save("next.txt", b"The next one."))).text == "The next one."
    assert child not in children()


async def test_a_file_that_takes_too_long_is_given_up(save: Save, slow: Path) -> None:
    async with DocumentReader(children=1, seconds=1.5) as reader:
        document = await reader.read(slow)
        assert document.problem is not None
        assert document.problem.startswith("took longer than 1.9")
        assert document.sha256 is not None
        assert (await reader.read(save("next.txt", b"The next one."))).problem is None


async def test_a_child_that_stands_still_is_given_up(save: Save) -> None:
    async with DocumentReader(children=1, seconds=1.5) as reader:
        path = save("a.txt", b"A text.")
        assert (await reader.read(path)).problem is None
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        assert (await reader.read(path)).problem == "took longer than 1.5 s to read"
        assert (await reader.read(path)).problem is None


async def test_a_child_that_died_between_two_files_costs_none(reader: DocumentReader, save: Save) -> None:
    path = save("a.txt", b"A text.")
    await reader.read(path)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    await until(lambda: not is_alive(child))
    assert (await reader.read(path)).problem is None


async def test_a_file_that_takes_too_much_memory_is_given_up(save: Save) -> None:
    async with DocumentReader(children=1, memory=400 << 20) as reader:
        large = await reader.read(save("large.txt", "many \U0001d453 words ".encode() * 3_500_000))
        assert large.problem == "took more than 0.391 GiB of memory to read"
        assert large.sha256 is not None
        assert (await reader.read(save("next.txt", b"The next one."))).problem is None


async def test_a_text_that_is_too_large_is_hashed_but_not_taken(reader: DocumentReader, save: Save) -> None:
    data = b"x" * 64_000_001
    document = await reader.read(save("large.txt", data))
    assert document.problem == "is larger than 64 MB"
    assert document.sha256 == hashlib.sha256(data).hexdigest()


async def test_a_text_of_megabytes_comes_through_whole(reader: DocumentReader, save: Save) -> None:
    text = "\n".join(f"Line {number}: Größe ½ \U0001d453(x)." for number in range(120_000))
    assert len(text.encode()) > 3_000_000
    assert (await reader.read(save("long.md", text.encode()))).text == text


async def test_the_same_bytes_give_the_same_text_in_every_child(save: Save) -> None:
    data = write_pdf([column(50, 700, [f"Some words of line {number}" for number in range(30)])] * 3)
    paths = [save(f"{number}.pdf", data) for number in range(6)]
    async with DocumentReader(children=2) as reader:
        documents = await asyncio.gather(*(reader.read(path) for path in paths))
        assert len(children()) == 2
    assert len(set(documents)) == 1
    assert documents[0].text


async def test_what_is_no_file_to_read_is_a_problem_and_no_error(reader: DocumentReader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path, problem in (
        (tmp_path / "pipe.txt", "could not be read: it is not a regular file"),
        (tmp_path, "could not be read: is a directory"),
        (tmp_path / "nowhere.txt", "could not be read: no such file or directory"),
        (tmp_path / "a\0b.txt", "could not be read: embedded null byte"),
    ):
        document = await reader.read(path)
        assert (document.problem, document.sha256) == (problem, None)


def test_a_file_that_may_not_be_read_says_so(save: Save) -> None:
    path = save("secret.txt", b"secret")
    path.chmod(0)
    read = f"""
import asyncio, pathlib
from distllm.documents import DocumentReader
async def main():
    async with DocumentReader(children=1) as reader:
        print((await reader.read(pathlib.Path({str(path)!r}))).problem)
asyncio.run(main())
"""
    assert run_without_privileges(read) == "could not be read: permission denied"


async def test_a_folder_of_papers_cannot_slip_its_own_modules_in(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("json.py", b"raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    async with DocumentReader(children=1) as reader:
        assert (await reader.read(save("a.txt", b"A text."))).text == "A text."


async def test_cancelling_a_read_ends_its_child_alone(save: Save, slow: Path) -> None:
    async with DocumentReader(children=1) as reader:
        reading = asyncio.create_task(reader.read(slow))
        await until(lambda: children())
        (child,) = children()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await reader.read(save("next.txt", b"The next one."))).problem is None
        assert not is_alive(child)


async def test_closing_ends_what_is_being_read_and_leaves_no_child(save: Save, slow: Path) -> None:
    async with DocumentReader(children=2) as reader:
        readings = [asyncio.create_task(reader.read(slow)) for _ in range(3)]
        await until(lambda: len(children()) == 2)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert children() == []
    ends = await asyncio.gather(*readings, return_exceptions=True)
    # One that had not been handed to a child yet is refused, the others are told as a problem.
    assert all("closed" in str(getattr(end, "problem", end)) for end in ends), ends
    assert isinstance(ends[-1], DistllmError)
    with pytest.raises(DistllmError, match="closed"):
        await reader.read(slow)


async def test_no_child_outlives_a_parent_that_is_killed(slow: Path) -> None:
    program = """
        import asyncio, sys
        from pathlib import Path
        from distllm.documents import DocumentReader

        async def main():
            async with DocumentReader(children=2) as reader:
                await asyncio.gather(*(reader.read(Path(sys.argv[1])) for _ in range(2)))

        asyncio.run(main())
    """
    arguments = ("-c", textwrap.dedent(program), str(slow))
    parent = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    await until(lambda: len(children_of(parent.pid)) == 2)
    children = children_of(parent.pid)
    await asyncio.sleep(0.5)
    assert all(is_alive(child) for child in children)
    parent.kill()
    await parent.wait()
    await until(lambda: not any(is_alive(child) for child in children), seconds=1.0)


def test_importing_the_room_is_cheap() -> None:
    heavy = "{'asyncio', 'pypdfium2', 'aiohttp', 'sqlalchemy'}"
    for module in ("distllm.documents", "distllm.documents.child"):
        code = f"import sys, {module}; sys.exit(bool({heavy} & set(sys.modules)))"
        subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, distllm.documents.reader; sys.exit('pypdfium2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_text_is_split_by_a_child_as_it_would_be_here(reader: DocumentReader) -> None:
    text = "\n\n".join(f"Paragraph {number} \N{EM DASH} says a little of much.\nIt ends." for number in range(20_000))
    assert len(text) > 10 * 65_536
    spans = await reader.split(text, 5_000, references=True)
    assert spans == split(text, 5_000, estimate_tokens)
    assert len(spans) > 20


async def test_a_text_that_breaks_its_child_is_an_error_and_the_next_one_is_split(reader: DocumentReader) -> None:
    assert len(await reader.split("One. Two.", 100, references=True)) == 1
    # No part of no tokens holds anything.
    with pytest.raises(DistllmError, match="a text of 9 characters broke the process that split it"):
        await reader.split("One. Two.", 0, references=True)
    assert len(await reader.split("One. Two.", 100, references=True)) == 1


async def test_a_split_that_takes_too_long_ends_with_its_time() -> None:
    async with DocumentReader(children=1, seconds=0.0) as hasty:
        with pytest.raises(DistllmError, match=r"a text of 9 characters took longer than 0\.0 s to split"):
            await hasty.split("One. Two.", 100, references=True)
