"""What it gains that a paper is read once: distllm beside LiteLLM's Router on real llama.cpp servers.

    uv run --group bench python -m benchmarks.read_once
    uv run --group bench python -m benchmarks.read_once --documents 2 --document-tokens 200 --questions 2 --lanes 1
    uv run python -m benchmarks.read_once --kill

Two servers with the small model, one slot and one thread each, new for each contender. The questions of the research
preset are asked about made-up papers of real words: by distllm's own run; by LiteLLM's Router with the document first,
as distllm sends it; and with the question first. LiteLLM takes the requests in the same order, on as many lanes for
each server as `--lanes` says; its best number counts.

Tokens read anew are what the servers count. The bound is what two servers need to read each document once and each
question once, and to write every answer that the contender was given, without a pause, at the rates of that very run:
those of the better server on the whole, and (for distllm) the best that any request had.

`--kill` has distllm alone work, kills one server with SIGKILL amid a document, and starts it again on its port: one
more reading of that document is right, more are not, and then the exit code is 1.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.kill import finish_after_kill
from benchmarks.llama import Work, fewest_tokens, llama_servers, model_of, work_of
from benchmarks.processes import require_litellm
from benchmarks.prompts import Prompt, prompts_of, research
from benchmarks.readings import best_rates
from benchmarks.through_distllm import store_job, work
from distllm.metrics import Metrics
from distllm.presets import Preset

SERVERS = 2
CHARACTERS_PER_TOKEN = 5.1
"""Of the made-up papers, with the small model."""

STRATEGIES = ("simple-shuffle", "least-busy")


@dataclass(frozen=True, slots=True)
class Shelf:
    """A stored job, and what must be read for it."""

    database: Path
    preset: Preset
    prompts: list[Prompt]
    model: str
    max_tokens: int
    context: int
    fewest: int


class Finding(NamedTuple):
    """One contender's run; `best` are the best rates that any request had, where they are known."""

    seconds: float
    did: tuple[Work, ...]
    best: tuple[float, float] | None = None

    @property
    def read(self) -> int:
        """Tokens that were read anew."""
        return round(sum(each.read for each in self.did))

    @property
    def written(self) -> int:
        """Tokens of the answers."""
        return round(sum(each.written for each in self.did))

    def bound(self, fewest: int) -> float:
        """The seconds that the servers need at least, at the rates of the better one."""
        reading = max(each.reading_rate for each in self.did)
        writing = max(each.writing_rate for each in self.did)
        return self._at(fewest, reading, writing)

    def strictest_bound(self, fewest: int) -> float | None:
        """The same at the best rates that any request had."""
        return None if self.best is None else self._at(fewest, *self.best)

    def _at(self, fewest: int, reading: float, writing: float) -> float:
        return (fewest / reading + self.written / writing) / len(self.did)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.read_once", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=8, help="(8)")
    parser.add_argument("--document-tokens", type=int, default=1000, help="about so many each (1000)")
    parser.add_argument("--questions", type=int, default=5, help="the first of the preset's five (5)")
    parser.add_argument("--max-tokens", type=int, default=48, help="of an answer (48)")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2], help="LiteLLM's, for each server (1 2)")
    parser.add_argument("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="LiteLLM's (simple-shuffle)")
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--kill", action="store_true", help="kill a server amid the run, and start it again")
    parser.add_argument("--away", type=float, default=0.0, help="seconds until it is started again (0)")
    given = parser.parse_args()
    if not 1 <= given.questions <= len(research().templates):
        parser.error(f"--questions must be 1 to {len(research().templates)}")
    if min(given.documents, given.document_tokens, given.max_tokens, *given.lanes) < 1:
        parser.error("--documents, --document-tokens, --max-tokens and --lanes must be at least 1")
    if given.kill and (given.questions < 2 or given.documents <= SERVERS):
        parser.error(f"--kill needs at least 2 questions and {SERVERS + 1} documents")
    if not (given.kill or given.without_litellm):
        require_litellm(parser)
    preset = replace(research(), templates=research().templates[: given.questions])
    with tempfile.TemporaryDirectory() as folder:
        shelf = _shelf(Path(folder), preset, given.documents, given.document_tokens, given.max_tokens)
        asked = (
            f"{given.documents} documents of about {given.document_tokens} tokens, {len(preset.templates)} questions"
        )
        print(f"{asked}, answers of at most {given.max_tokens} tokens; {SERVERS} llama.cpp servers, 1 slot, 1 thread")
        if given.kill:
            sys.exit(_kill(shelf, given.away))
        found = {"distllm": _distllm(shelf)}
        _show("distllm", found["distllm"], shelf.fewest)
        if not given.without_litellm:
            for name in ("document first", "question first"):
                runs = {lanes: _litellm(shelf, name, lanes, given.strategy) for lanes in given.lanes}
                for lanes, run in runs.items():
                    _show(f"LiteLLM, {name}, {lanes} a server", run, shelf.fewest)
                found[name] = min(runs.values(), key=lambda run: run.seconds)
    print(f"each document once and each question once: {shelf.fewest:,} tokens")
    mine = found.pop("distllm")
    for name, run in found.items():
        times, tokens = run.seconds / mine.seconds, run.read / mine.read
        print(f"distllm is {times:.2f} x as fast as LiteLLM, {name}, at its best; that read {tokens:.2f} x the tokens")


def _shelf(folder: Path, preset: Preset, documents: int, tokens: int, max_tokens: int) -> Shelf:
    context = 2 * tokens + max_tokens + 1024
    database = folder / "job.db"
    with llama_servers(1, context) as (server,):
        model = model_of(server.port)
        characters = round(tokens * CHARACTERS_PER_TOKEN)
        asyncio.run(store_job(database, preset, documents, characters, model, max_tokens))
        prompts = prompts_of(database, preset.templates)
        fewest = fewest_tokens(server.port, prompts, SERVERS)
    return Shelf(database, preset, prompts, model, max_tokens, context, fewest)


def _distllm(shelf: Shelf) -> Finding:
    metrics = Metrics()
    with _fresh(shelf, "distllm") as (ports, before):
        seconds = asyncio.run(work(shelf.database, ports, metrics.observe))
        return Finding(seconds, _done(ports, before), best_rates(shelf.database))


def _litellm(shelf: Shelf, order: str, lanes: int, strategy: str) -> Finding:
    from benchmarks.litellm_router import ask_all, document_first, question_first

    make = document_first if order == "document first" else question_first
    requests = [make(prompt) for prompt in shelf.prompts]
    with _fresh(shelf, f"LiteLLM, {order}, {lanes} a server") as (ports, before):
        seconds = asyncio.run(ask_all(ports, requests, lanes * SERVERS, shelf.model, shelf.max_tokens, strategy))
        return Finding(seconds, _done(ports, before))


def _kill(shelf: Shelf, away: float) -> int:
    _say("distllm, with a server that is killed")
    questions = len(shelf.preset.templates)
    documents = len(shelf.prompts) // questions
    with llama_servers(SERVERS, shelf.context) as servers:
        found = asyncio.run(finish_after_kill(shelf.database, servers, shelf.context, documents, questions, away))
    print(
        f"killed after {found.answers_before} of {len(shelf.prompts)} answers, amid {found.begun} document; "
        f"back after {found.seconds_away:.1f} s, and {found.answers_of_returned} more answers are its own"
    )
    print(f"{found.readings} readings of {documents} documents: {found.readings - documents} more than one each")
    right = found.readings <= documents + found.begun
    print("right: one more for each document that it had begun" if right else "wrong: more than one for each begun")
    return 0 if right else 1


@contextmanager
def _fresh(shelf: Shelf, name: str) -> Iterator[tuple[list[int], list[Work]]]:
    """The ports of new servers, and what they did before the contender came."""
    _say(f"{time.strftime('%H:%M:%S')} {name}")
    with llama_servers(SERVERS, shelf.context) as servers:
        ports = [server.port for server in servers]
        yield ports, [work_of(port) for port in ports]


def _done(ports: list[int], before: list[Work]) -> tuple[Work, ...]:
    return tuple(work_of(port).since(then) for port, then in zip(ports, before, strict=True))


def _show(name: str, run: Finding, fewest: int) -> None:
    bound, strictest = run.bound(fewest), run.strictest_bound(fewest)
    line = f"{name:>36}: {run.seconds:6.1f} s, {run.seconds / bound:.2f} x the bound of {bound:.1f} s"
    if strictest is not None:
        line += f" ({run.seconds / strictest:.2f} at the best rates of any request)"
    print(f"{line}; {run.read:,} tokens read anew, {run.read / fewest:.2f} x; {run.written:,} written", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
