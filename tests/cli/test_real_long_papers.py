"""Real papers that are longer than the window of a real server: read whole, in parts, as its own counts prove.

    uv run --group test pytest -n 0 -s -m long tests/cli/test_real_long_papers.py

takes twenty minutes and what tests/documents/real_papers.py needs. It prints the answers, which are those of a model
of 135 million parameters.
"""

import json
import signal
import urllib.request
from itertools import groupby

import pytest

from distllm.presets import render_system
from tests.cli.conftest import Cli
from tests.cli.test_whole_fleet import llama_server
from tests.documents.real_papers import PAPERS, Shelf

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

LONG = [paper for paper in PAPERS if paper.tokens > 20_000][:3]
QUESTION = "What is the main result?"
ASKED = ("submit", "papers", "--prompt", QUESTION, "--max-tokens", "96")
ANSWERED = "SELECT count(*) FROM prompts WHERE level = 0 AND state = 'done'"
READ = "SELECT count(*) FROM attempts a JOIN prompts p ON p.id = a.prompt_id WHERE p.level = 0"
PARTS = """
SELECT d.id, d.text, r.first, r.last, a.prompt_tokens, a.proof
  FROM prompts p JOIN readings r ON r.id = p.reading_id JOIN documents d ON d.id = r.document_id
  JOIN results a ON a.prompt_id = p.id
 WHERE p.level = 0 ORDER BY d.id, r.first
"""


def tokens(port: int, text: str) -> int:
    """What the server's own tokenizer makes of a text."""
    body = json.dumps({"content": text}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(json.load(answer)["tokens"])


@pytest.mark.parametrize("window", [2048, 8192])
async def test_long_papers_are_read_whole_and_answered_by_who_takes_over(cli: Cli, shelf: Shelf, window: int) -> None:
    (cli.folder / "papers").mkdir()
    for paper in LONG:
        (cli.folder / "papers" / paper.name).write_bytes(shelf.get(paper.package, paper.path))
    async with llama_server(context=window) as (_, port):
        cli.write("workers.json", json.dumps({"workers": [{"id": "real", "type": "openai", "port": port}]}))
        planned = json.loads((await cli.run(*ASKED, "--dry-run", "--json")).out)
        assert planned["split_documents"] == len(LONG)

        process = await cli.start(*ASKED)
        await cli.until(lambda: cli.rows(ANSWERED) == [(planned["parts"],)], seconds=3000)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        read = cli.rows(READ)
        resumed = await cli.run("resume", seconds=600)
        assert resumed.code == 0, resumed.err

        # Nothing that the dead one had is asked again.
        assert cli.rows(READ) == read
        answers = cli.rows("SELECT document, answer, parts, proof FROM answers ORDER BY document")
        assert len(answers) == len(LONG)
        assert {proof for *_, proof in answers} == {"proven"}
        parts = cli.rows(PARTS)
        assert len(parts) == planned["parts"] == sum(count for _, _, count, _ in answers)
        assert cli.rows("SELECT count(*) FROM prompts") == [(planned["requests"],)]
        for (_, text), of_paper in groupby(parts, key=lambda part: part[:2]):
            reached = 0
            for _, _, first, last, counted, proof in of_paper:
                assert proof == "proven"
                assert tokens(port, render_system(text[first:last])) + tokens(port, QUESTION) <= counted <= window
                assert not text[reached:first].strip(), "something between two parts was not read"
                reached = last
            assert not text[reached:].strip()
    for name, answer, count, _ in answers:
        print(f"\n{name}, window {window}, {count} parts: {answer}")
