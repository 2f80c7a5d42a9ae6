"""Which model a job gets: by the order of rules, or an error that lists what there is."""

import pytest

from distllm.balancer.models import Candidate, choose_model
from distllm.domain.errors import DistllmError, NoWorkerError
from distllm.domain.models import Health, Offer

ALIASES = [("llama-8b", "llama3.1:8b", "meta-llama-3.1-8b-instruct")]
DOWN = Health(healthy=False, error="no connection")


def offers(*models: str, loaded: str | None = None) -> Health:
    return Health(True, tuple(Offer(model, 4096, loaded and model == loaded) for model in models))


def candidate(model: str | None, health: Health, name: str = "w") -> Candidate:
    return Candidate(name, model, health)


def test_the_model_that_is_named_needs_no_worker() -> None:
    assert choose_model("phi", [candidate(None, DOWN)], []) == "phi"


def test_the_model_that_is_named_may_be_that_of_a_worker_which_is_away() -> None:
    for others in ([candidate(None, DOWN)], [candidate("phi", offers("a"))], [candidate(None, offers())]):
        assert choose_model("phi", [candidate(None, offers("a")), *others], []) == "phi"


def test_a_model_that_nobody_has_is_refused_where_all_are_there() -> None:
    with pytest.raises(DistllmError, match="no worker has the model phi: load it in a server, or choose from a, b"):
        choose_model("phi", [candidate(None, offers("b")), candidate(None, offers("a"))], [])


def test_every_name_that_a_server_takes_is_one_that_it_has() -> None:
    tagged = Health(True, (Offer("phi:latest", 4096, also=("phi",)), Offer("llama3.1:8b", 4096)))
    for named in ("phi", "phi:latest", "any", "llama-8b", "meta-llama-3.1-8b-instruct"):
        assert choose_model(named, [candidate(None, tagged)], ALIASES)


def test_a_name_is_said_by_the_first_of_those_that_mean_the_same() -> None:
    assert choose_model("llama3.1:8b", [], ALIASES) == "llama-8b"


def test_what_all_workers_are_configured_for_is_it_even_while_they_are_down() -> None:
    assert choose_model(None, [candidate("phi", DOWN), candidate("phi", offers("other"))], []) == "phi"


def test_two_names_of_one_model_are_one() -> None:
    there = [candidate("llama3.1:8b", DOWN), candidate("meta-llama-3.1-8b-instruct", DOWN)]
    assert choose_model(None, there, ALIASES) == "llama-8b"


def test_one_worker_without_a_model_of_its_own_leaves_it_to_what_they_offer() -> None:
    there = [candidate("phi", offers("phi")), candidate(None, offers("phi", "qwen", loaded="phi"))]
    assert choose_model(None, there, []) == "phi"


def test_the_one_that_is_loaded_comes_before_those_on_disk() -> None:
    assert choose_model(None, [candidate(None, offers("a", "b", "c", loaded="b"))], []) == "b"


def test_the_only_one_there_is() -> None:
    assert choose_model(None, [candidate(None, offers("a")), candidate(None, DOWN)], []) == "a"


def test_several_that_could_are_listed() -> None:
    with pytest.raises(DistllmError, match=r"\(a, b\).*--model"):
        choose_model(None, [candidate(None, offers("b")), candidate(None, offers("a"))], [])
    there = [candidate(None, offers("a", "b", loaded="b"), "w0"), candidate(None, offers("c", loaded="c"), "w1")]
    with pytest.raises(DistllmError, match=r"\(b, c\)"):
        choose_model(None, there, [])


def test_nobody_there_says_who_and_why() -> None:
    with pytest.raises(NoWorkerError, match=r"w0: no connection.*--model"):
        choose_model(None, [candidate(None, DOWN, "w0")], [])


def test_a_server_without_a_model_says_to_load_one() -> None:
    with pytest.raises(DistllmError, match="load one"):
        choose_model(None, [candidate(None, offers())], [])
