"""Which kinds of server there are, and what a configuration may say of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from distllm.config import Config
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.models import WorkerType
from distllm.workers.base import Worker
from distllm.workers.kinds import adapter, default_port
from tests.packages import install

CODE = """
from distllm.workers.openai import OpenAIWorker
class Parrot(OpenAIWorker):
    default_port = 7000
class Portless(OpenAIWorker):
    default_port = 0
nothing = print
"""


@pytest.fixture
def _added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that adds kinds of server."""
    kinds = {"parrot": "Parrot", "portless": "Portless", "none": "nothing", "gone": "Gone", "ollama": "Parrot"}
    entries = {name: f"more_servers:{value}" for name, value in kinds.items()}
    install(tmp_path / "site", monkeypatch, "more_servers", CODE, {"distllm.workers": entries})


def load(tmp_path: Path, **worker: Any) -> Config:
    file = tmp_path / "workers.json"
    file.write_text(json.dumps({"workers": [{"id": "a"} | worker]}))
    return Config.load(file, {})


@pytest.mark.parametrize(("kind", "port"), [("ollama", 11434), ("lm_studio", 1234), ("embedded", 0)])
def test_a_port_left_out_is_the_one_of_the_kind(kind: str, port: int, tmp_path: Path) -> None:
    spec = load(tmp_path, type=kind).workers[0].spec()
    assert (spec.type, spec.port) == (WorkerType(kind), port)
    assert load(tmp_path, type=kind, port=9).workers[0].spec().port == 9


def test_where_the_kind_has_none_it_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"workers\[0\].port: is missing"):
        load(tmp_path, type="openai")


@pytest.mark.usefixtures("_added")
def test_packages_add_kinds_but_replace_none(tmp_path: Path) -> None:
    assert load(tmp_path, type="parrot").workers[0].spec().port == 7000
    assert load(tmp_path, type="portless").workers[0].spec().port == 0
    assert adapter("parrot").__name__ == "Parrot"
    assert adapter(load(tmp_path, type="ollama").workers[0].spec().type).__name__ == "OllamaWorker"


@pytest.mark.parametrize("kind", WorkerType)
def test_every_kind_has_an_adapter(kind: WorkerType) -> None:
    assert issubclass(adapter(kind), Worker)
    assert default_port(kind) in (11434, 1234, None, 0)


@pytest.mark.usefixtures("_added")
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("parot", "gone, lm_studio, none, ollama, openai, parrot, portless (did you mean 'parrot'?)"),
        ("olama", "did you mean 'ollama'?"),
        ("LM-Studio", "did you mean 'lm_studio'?"),
        ("llama.cpp", "'openai' speaks to it"),
        ("vLLM", "'openai' speaks to it"),
        ("chatgpt", "is called 'chatgpt': one of embedded, "),
        (7, "must be the name of a kind"),
    ],
)
def test_an_unknown_kind_names_what_was_probably_meant(written: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        load(tmp_path, type=written)
    assert str(told.value).startswith(f"{tmp_path / 'workers.json'}: workers[0].type: ")
    assert said in str(told.value)


@pytest.mark.usefixtures("_added")
@pytest.mark.parametrize(
    ("kind", "said"), [("none", "is no Worker"), ("gone", "no attribute 'Gone'"), ("new", "'new'")]
)
def test_what_a_package_adds_may_be_no_adapter(kind: str, said: str) -> None:
    with pytest.raises(DistllmError) as told:
        adapter(kind)
    assert said in str(told.value)


@pytest.mark.parametrize("endpoint", ["completions", "generate"])
@pytest.mark.parametrize("kind", ["ollama", "lm_studio"])
def test_both_words_for_a_raw_prompt_mean_the_one_that_the_kind_has(kind: str, endpoint: str, tmp_path: Path) -> None:
    assert load(tmp_path, type=kind, endpoint=endpoint).workers[0].spec().endpoint == endpoint
    with pytest.raises(UsageError, match=r"workers\[0\].endpoint: must be"):
        load(tmp_path, type=kind, endpoint="embeddings")
