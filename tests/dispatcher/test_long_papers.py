"""A paper that no window holds: read in parts, each where it fits, and answered whole."""

import asyncio
from pathlib import Path

from distllm.presets import MERGE_SYSTEM
from distllm.store.control import retry_some
from tests.dispatcher.conftest import Bench
from tests.dispatcher.long_papers import SENTENCES, WINDOW, long_paper, mark, marks_in, server, submit
from tests.fakes.behaviour import BAD_SCHEMA, HELD, Behaviour
from tests.fakes.server import FakeServer
from tests.fakes.stream import Seen

QUESTIONS = ["What was asked?", "What was done?", "What was found?", "What is weak?", "What is new?"]


async def test_one_answer_is_made_of_all_parts(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()])
    async with server() as fake:
        await bench.work(fake)
    [(answer, parts, proof)] = bench.rows("SELECT answer, parts, proof FROM answers")
    said = marks_in(answer)
    assert (said[0], said[-1]) == (mark(0, 0), mark(0, SENTENCES - 1))
    assert proof == "proven"
    assert len(said) == 2 * parts
    read = [marks_in(seen.system) for seen in about_parts(fake)]
    assert parts == len(read) > 3
    assert {each for part in read for each in part} == {mark(0, place) for place in range(SENTENCES)}
    assert all(seen.prompt_tokens + 60 <= WINDOW for seen in fake.requests)
    bench.assert_consistent()


async def test_each_part_says_which_it_is_after_what_all_questions_share(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()])
    async with server() as fake:
        await bench.work(fake)
    parts = sorted(about_parts(fake), key=lambda seen: _first(seen.system))
    for number, seen in enumerate(parts, start=1):
        assert f"part {number} of {len(parts)} " in seen.question
        assert seen.question.endswith("What was measured?")
        assert "part" not in seen.system.split("DOCUMENT")[0]


def about_parts(fake: FakeServer) -> list[Seen]:
    return [seen for seen in fake.requests if MERGE_SYSTEM not in seen.system]


def _first(text: str) -> int:
    return int(marks_in(text)[0].partition("x")[2].rstrip("y"))


async def test_many_answers_are_put_together_over_two_levels(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()], max_tokens=120)
    async with server() as fake:
        await bench.work(fake)
    assert bench.rows("SELECT max(level) FROM prompts") == [(2,)]
    assert [seen for seen in fake.requests if MERGE_SYSTEM in seen.system][-1] is fake.requests[-1]
    said = marks_in(bench.rows("SELECT answer FROM answers")[0][0])
    starts = said[::2]
    assert starts == sorted(starts, key=_first), "in the order of the document"
    assert len(starts) == bench.rows("SELECT parts FROM answers")[0][0]


async def test_five_questions_read_each_part_once(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()], QUESTIONS)
    async with server() as fake:
        await bench.work(fake)
    asked = about_parts(fake)
    parts = len({seen.system for seen in asked})
    assert len(asked) == 5 * parts
    read_anew = [seen for seen in asked if seen.cached_tokens < seen.prompt_tokens / 2]
    assert len(read_anew) == parts
    assert bench.rows("SELECT count(*), min(parts), max(parts) FROM answers") == [(5, parts, parts)]


async def test_parts_go_only_where_they_fit(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper(), long_paper(1, 10)])
    async with server() as large, server(512) as small:
        await bench.work(large, small)
    assert bench.rows("SELECT count(*) FROM answers") == [(2,)]
    assert all(seen.prompt_tokens + 60 <= 512 for seen in small.requests)
    longest = max(seen.prompt_tokens for seen in large.requests)
    assert longest > 512
    assert bench.rows("SELECT count(*) FROM attempts WHERE outcome <> 'done'") == [(0,)]


async def test_a_part_that_cannot_be_answered_fails_the_whole_and_a_retry_mends_it(
    bench: Bench, tmp_path: Path
) -> None:
    job = await submit(bench.database, tmp_path / "papers", [long_paper()])
    async with server() as fake:
        fake.behave_for(f"{mark(0, 100)} ", BAD_SCHEMA)
        await bench.work(fake)
        [(reason,)] = bench.rows("SELECT error FROM failures")
        assert reason.startswith("part 3 of 7: ")
        assert "invalid schema" in reason
        asked = len(fake.requests)
        fake.behave_for(f"{mark(0, 100)} ", fake._always)
        while await bench.database.write(lambda tx: retry_some(tx, job, 0.0)):
            pass
        await bench.work(fake)
    assert bench.rows("SELECT parts FROM answers") == [(7,)]
    again = fake.requests[asked:]
    assert [mark(0, 100) in marks_in(seen.system) for seen in again] == [True, *[False] * (len(again) - 1)]
    bench.assert_consistent()


async def test_an_answer_is_unproven_where_a_part_is(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()])
    async with server() as fake:
        fake.behave(Behaviour(usage=False))
        await bench.work(fake)
    assert bench.rows("SELECT proof FROM answers") == [("unproven",)]
    assert bench.rows("SELECT count(*) FROM results WHERE proof = 'proven'")[0][0] > 5


async def test_references_are_read_or_left_out_as_it_is_set(bench: Bench, tmp_path: Path) -> None:
    references = "\n\nReferences\n\n" + "\n".join(
        f"[{number}] A. Author. A title of {mark(9, number)}. Journal of Things, 2019." for number in range(60)
    )
    read = []
    for with_references in (True, False):
        folder = tmp_path / f"papers {with_references}"
        await submit(bench.database, folder, [long_paper(sentences=60) + references], references=with_references)
        async with server() as fake:
            await bench.work(fake)
        read.append({each for seen in fake.requests for each in marks_in(seen.system)})
    assert read[0] - read[1] == {mark(9, number) for number in range(60)}
    assert len(read[1]) == 60


async def test_what_cannot_be_split_fails_with_the_figures(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()], max_tokens=600)
    async with server() as fake:
        await bench.work(fake)
    assert fake.requests == []
    [(reason,)] = bench.rows("SELECT error FROM failures")
    assert reason.startswith("needs a context window of ")
    assert "holds 1024" in reason


async def test_every_free_seat_puts_answers_together(bench: Bench, tmp_path: Path) -> None:
    await submit(bench.database, tmp_path / "papers", [long_paper()], QUESTIONS)
    merging: list[str] = []
    all_at_once = asyncio.Event()

    def came(seen: Seen) -> None:
        if MERGE_SYSTEM in seen.system:
            merging.append(seen.question)
        if len(merging) == 4:
            all_at_once.set()

    async with server(slots=4, on_request=came) as fake:
        fake.behave_for(MERGE_SYSTEM, HELD)
        work = asyncio.create_task(bench.work(fake))
        async with asyncio.timeout(20):
            await all_at_once.wait()
        fake.release()
        await work
    assert len(set(merging)) == len(merging)
    assert bench.rows("SELECT count(*) FROM answers") == [(5,)]
