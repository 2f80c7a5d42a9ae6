"""What was sent is read whole, or nobody says that it was: on servers that cut in every way that is known.

Each story ends with the truth, which only the fake knows: what it read of each prompt, beside all that was sent.
"""

from collections.abc import Sequence
from random import Random

import pytest

from distllm.domain.models import StoredRequest
from distllm.domain.tokens import estimate_tokens
from distllm.store.requests import NewBatch, NewRequest, add_requests, open_batch, submit_batch
from tests.dispatcher.conftest import MODEL, Bench, store_job
from tests.fakes.behaviour import A_TENTH_LOST, GOOD, Caching, Cut
from tests.fakes.server import OWN, FakeServer, all_text
from tests.fakes.slots import tokenize
from tests.fakes.stream import Seen

VOCABULARY = (
    "the of and to in is that was for with dam river water town house broke March lost forty lower measured found "
    "results method concentration experiment significantly between temperature however because therefore study"
)
QUESTIONS = ["What was found in the end?", "Which method was used, and what are its limits? Be brief."]
WINDOW = 2048


def prose(number: int, words: int) -> str:
    """A text like no other from its first words on."""
    random, vocabulary = Random(number), VOCABULARY.split()
    sentences = []
    for _ in range(words // 12):
        sentences.append(" ".join(random.choices(vocabulary, k=12)).capitalize() + ".")
    return f"Paper {number}. " + " ".join(sentences)


SMALL = [prose(n, 250 + 80 * n) for n in range(5)]
LARGE = [prose(20 + n, 1700 + 250 * n) for n in range(3)]


def whole(seen: Seen) -> bool:
    """Whether the fake read all of a prompt."""
    return seen.prompt_tokens >= len(tokenize(all_text(seen.body)))


def outcomes(bench: Bench) -> dict[tuple[str, str], tuple[str, str | None]]:
    """By text and question, how the last attempt ended, and what is said of the answer."""
    rows = bench.rows(
        "SELECT d.text, t.text, a.outcome, r.proof FROM prompts p JOIN documents d ON d.id = p.document_id "
        "JOIN templates t ON t.id = p.template_id JOIN attempts a ON a.prompt_id = p.id "
        "LEFT JOIN results r ON r.prompt_id = p.id ORDER BY a.id"
    )
    return {(text, question): (outcome, proof) for text, question, outcome, proof in rows}


def judged(bench: Bench, *servers: FakeServer) -> dict[bool, list[tuple[str, str | None]]]:
    """What became of the prompts that were read whole, and of those that were not."""
    found: dict[bool, list[tuple[str, str | None]]] = {True: [], False: []}
    ended = outcomes(bench)
    for server in servers:
        for seen in server.requests:
            if seen.prompt_tokens:
                [text] = [text for text, question in ended if text in seen.system and question == seen.question]
                found[whole(seen)].append(ended[text, seen.question])
    return found


def assert_just(found: dict[bool, list[tuple[str, str | None]]]) -> None:
    """No cut prompt passes for proven, and no whole one is called cut."""
    assert [each for each in found[False] if each[1] == "proven"] == []
    assert [each for each in found[True] if each[0] == "cut input"] == []


VARIANTS = [
    ("llamacpp", Caching.TOLD),
    ("vllm", Caching.COUNTED),
    ("plain", Caching.COUNTED),
    ("plain", Caching.LEFT_OUT),
    ("lm_studio", Caching.COUNTED),
    ("lm_studio", Caching.LEFT_OUT),
    ("ollama", Caching.COUNTED),
    ("ollama", Caching.LEFT_OUT),
]


CUTS = [
    pytest.param(Cut.HALF, 8 * WINDOW, id="half, far too large a window told"),
    pytest.param(Cut.TENTH, 8 * WINDOW, id="a tenth, far too large a window told"),
    pytest.param(Cut.TENTH, 2 * WINDOW, id="a tenth, too large a window told"),
    pytest.param(Cut.HALF, None, id="half, no window told"),
    pytest.param(Cut.TENTH, None, id="a tenth, no window told"),
    pytest.param(Cut.TENTH, OWN, id="nothing, its own window told"),
]


@pytest.mark.parametrize(("cuts", "tells"), CUTS)
@pytest.mark.parametrize(("kind", "caching"), VARIANTS)
async def test_no_cut_prompt_is_proven_and_no_whole_one_is_called_cut(
    kind: str, caching: Caching, cuts: Cut, tells: int | None, bench: Bench
) -> None:
    await store_job(bench.database, SMALL + LARGE, QUESTIONS)
    loaded = (MODEL,)
    async with FakeServer(
        kind=kind, context=WINDOW, tells=tells, cuts=cuts, caching=caching, tokenizes=False, loaded=loaded
    ) as server:
        await bench.work(server, max_retries=0, health_check_interval=60.0)
        found = judged(bench, server)
    assert_just(found)
    assert len(found[True]) == 2 * len(SMALL)
    assert all(outcome == "done" for outcome, _ in found[True])
    if cuts is Cut.HALF:
        firsts = [outcome for outcome, _ in found[False]]
        assert firsts.count("cut input") >= len(firsts) / 2
    bench.assert_consistent()


@pytest.mark.parametrize("kind", ["llamacpp", "lm_studio", "ollama", "plain"])
async def test_an_answer_without_text_to_a_prompt_that_was_swallowed_is_none(kind: str, bench: Bench) -> None:
    await store_job(bench.database, [LARGE[0]], QUESTIONS[:1])
    server = FakeServer(kind=kind, context=WINDOW, tells=4 * WINDOW, cuts=Cut.SWALLOWS, loaded=(MODEL,))
    async with server:
        await bench.work(server, max_retries=0)
    assert bench.rows("SELECT state FROM prompts") == [("failed",)]
    bench.assert_consistent()


async def test_what_the_servers_own_tokenizer_counts_proves_the_first_answer(bench: Bench) -> None:
    await store_job(bench.database, SMALL[:2], QUESTIONS)
    async with FakeServer() as server:
        await bench.work(server)
        assert server.counts == 2
    assert bench.rows("SELECT DISTINCT proof FROM answers") == [("proven",)]
    assert bench.rows("SELECT model, counts FROM model_tokens") == [(MODEL, 2)]


async def test_what_the_servers_own_tokenizer_counts_finds_a_small_cut(bench: Bench) -> None:
    await store_job(bench.database, [LARGE[0]], QUESTIONS)
    async with FakeServer(context=WINDOW, tells=4 * WINDOW, cuts=Cut.TENTH) as server:
        await bench.work(server)
        sent = [seen.prompt_tokens for seen in server.requests]
    assert {outcome for outcome, _ in outcomes(bench).values()} == {"cut input"}
    for error, read in zip(bench.rows("SELECT error FROM failures ORDER BY error"), sorted(sent), strict=True):
        assert f"it read only {read} tokens of a prompt of at least" in error[0]
    assert bench.rows("SELECT count(*) FROM model_tokens") == [(0,)]


@pytest.mark.parametrize("kind", ["vllm", "lm_studio", "ollama"])
async def test_what_was_learnt_of_a_model_proves_the_next_job(kind: str, bench: Bench) -> None:
    await store_job(bench.database, SMALL, QUESTIONS)
    async with FakeServer(kind=kind, context=4 * WINDOW, loaded=(MODEL,), caching=Caching.COUNTED) as server:
        await bench.work(server)
        counts = len(SMALL)
        assert bench.rows("SELECT model, counts FROM model_tokens") == [(MODEL, counts)]
        await store_job(bench.database, [prose(9, 700)], QUESTIONS, name="next")
        await bench.work(server)
    assert bench.rows("SELECT DISTINCT proof FROM answers WHERE job = 'next'") == [("proven",)]
    bench.assert_consistent()


@pytest.mark.parametrize("window", [None, 600])
async def test_nothing_is_learnt_from_what_may_be_cut(window: int | None, bench: Bench) -> None:
    await store_job(bench.database, SMALL[:2], QUESTIONS)
    async with FakeServer(kind="plain") as server:
        await bench.work(server, context_length=window)
    assert bench.rows("SELECT count(*) FROM model_tokens") == [(0,)]
    assert {proof for _, proof in outcomes(bench).values()} <= {"unproven", None}


async def test_of_two_questions_about_a_paper_the_one_that_was_cut_is_found(bench: Bench) -> None:
    await store_job(bench.database, [prose(1, 900)], QUESTIONS)
    async with FakeServer(kind="vllm") as server:
        server.behave(GOOD, A_TENTH_LOST)
        await bench.work(server)
    assert sorted(outcome for outcome, _ in outcomes(bench).values()) == ["cut input", "done"]


async def test_a_paper_that_another_run_had_cached_is_not_called_cut(bench: Bench) -> None:
    async with FakeServer(kind="plain", caching=Caching.LEFT_OUT) as server:
        await store_job(bench.database, [SMALL[0]], QUESTIONS[:1])
        await bench.work(server)
        await store_job(bench.database, [SMALL[0]], QUESTIONS[1:], name="next")
        await bench.work(server)
        first, second = server.requests
        assert second.cached_tokens > 0.9 * first.prompt_tokens
    assert list(outcomes(bench).values()) == [("done", "unproven")] * 2


def conversation(number: int, *, early: int) -> NewRequest:
    """A prompt with an earlier message of so many words, and a question about another."""
    turns = (("user", prose(number, early)), ("assistant", "I have read it."), ("user", prose(number + 50, 600)))
    request = StoredRequest("Which of the two is better?", 50, 0.0, (*turns, ("assistant", "I have read this too.")))
    tokens = sum(estimate_tokens(text) + 16 for _, text in request.turns) + 30
    return NewRequest(f"request {number}", "", tokens, tokens + 50, 50, request.to_json())


async def store_batch(bench: Bench, requests: Sequence[NewRequest]) -> None:
    batch = NewBatch("batch", MODEL, {"temperature": 0.0, "max_tokens": 50}, 0, "batch 1", fresh=False)
    job_id, _ = await bench.database.write(lambda tx: open_batch(tx, batch, (), 1.0))
    await bench.database.write(lambda tx: add_requests(tx, job_id, 0, requests, (), 1.0))
    await bench.database.write(lambda tx: submit_batch(tx, job_id, 2.0))


@pytest.mark.parametrize("tells", [4 * WINDOW, None], ids=["wrong window", "no window"])
@pytest.mark.parametrize("kind", ["ollama", "lm_studio", "plain"])
async def test_an_earlier_message_that_was_lost_does_not_pass(kind: str, tells: int | None, bench: Bench) -> None:
    await store_batch(bench, [conversation(number, early=200 + 100 * number) for number in range(5)])
    server = FakeServer(kind=kind, context=1000, tells=tells, cuts=Cut.MESSAGES, loaded=(MODEL,))
    async with server:
        await bench.work(server)
        lost = sum(not whole(seen) for seen in server.requests)
    assert lost > 0
    assert bench.rows("SELECT count(*) FROM results WHERE proof = 'proven'")[0][0] <= len(server.requests) - lost
    told = bench.rows("SELECT a.prompt_tokens, r.proof FROM results r JOIN attempts a ON a.id = r.attempt_id")
    cut = {seen.prompt_tokens for seen in server.requests if not whole(seen)}
    assert [proof for read, proof in told if read in cut and proof == "proven"] == []
