"""Whatever is wrong with a configuration is one line: the file, the place, and what to do."""

import json
from pathlib import Path

import pytest

from distllm.config import Config
from distllm.domain.errors import UsageError


def one_worker(**changes: object) -> dict[str, object]:
    return {"workers": [{"id": "a", "type": "ollama"} | changes]}


def complaint(content: object, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What is said of a file."""
    file = folder / "workers.json"
    file.write_bytes(
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    with pytest.raises(UsageError) as caught:
        Config.load(file, environment or {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "line 1, column 1"),
        ('{"workers": [}', "line 1, column 14"),
        ('{"workers": [],}', "line 1"),
        ("{'workers': []}", "double quotes"),
        ("null", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe{", "byte 0 is not UTF-8"),
        ('{"workers": [], "workers": []}', "'workers' stands twice"),
        ({"workers": 3}, "workers: must be a list"),
        ({"workers": {}}, "workers: must be a list"),
        ({"workers": ["studio"]}, "workers[0]: must be an object"),
        ({"workers": [{}]}, "workers[0].id: is missing"),
        ({"workers": [{"id": "a"}]}, "workers[0].type: is missing"),
        (one_worker(id=3), "workers[0].id: must be text in quotes, not 3"),
        (one_worker(id=""), "workers[0].id: is empty"),
        (one_worker(type=3), "workers[0].type: must be the name"),
        (one_worker(type="olama"), "did you mean 'ollama'?"),
        (one_worker(type="LM Studio"), "did you mean 'lm_studio'?"),
        (one_worker(type="llama.cpp"), "'openai' speaks to it"),
        (one_worker(host=3), "workers[0].host: must be text"),
        (one_worker(host=""), "workers[0].host: must be a name or an address"),
        (one_worker(host="http://studio"), "`scheme` and `port` are settings of their own"),
        (one_worker(host="studio:8080"), "`scheme` and `port` are settings of their own"),
        (one_worker(host="[::1]"), "such as studio.local or fe80::1"),
        (one_worker(max_concurrent_requests=10**30), "max_concurrent_requests: must be at most 1000000000"),
        (one_worker(context_length=10**30), "workers[0].context_length: must be at most 1000000000"),
        ({"max_retries": 10**30}, "max_retries: must be at most 1000000000"),
        ({"max_concurrent_batch": 10**30}, "max_concurrent_batch: must be at most 1000000000"),
        (one_worker(port="x"), "workers[0].port: must be a whole number, not 'x'"),
        (one_worker(port=0.5), "workers[0].port: must be a whole number, not 0.5"),
        (one_worker(port=-1), "workers[0].port: must be at least 0, not -1"),
        (one_worker(port=70000), "workers[0].port: must be at most 65535, not 70000"),
        (one_worker(type="openai"), "workers[0].port: is missing"),
        (one_worker(scheme="ftp"), "workers[0].scheme: must be 'http' or 'https', not 'ftp'"),
        (one_worker(endpoint="chats"), "did you mean 'chat'?"),
        (one_worker(model=3), "workers[0].model: must be text"),
        (one_worker(model=""), "workers[0].model: is empty"),
        (one_worker(max_concurrent_requests=0), "must be at least 1, not 0"),
        (one_worker(max_concurrent_requests="many"), "must be a whole number, not 'many'"),
        (one_worker(context_length=-5), "workers[0].context_length: must be at least 1"),
        (one_worker(api_key=5), "workers[0].api_key: must be text"),
        (one_worker(api_key_env=7), "workers[0].api_key_env: must be text"),
        (one_worker(path=3), "workers[0].path: must be text"),
        (one_worker(extra=[]), "workers[0].extra: must be an object"),
        (one_worker(prot=8080), "workers[0].prot: is not a setting that distllm knows; did you mean 'port'?"),
        (one_worker(max_concurrent=4), "did you mean 'max_concurrent_requests'?"),
        (one_worker(zzz=4), "check its spelling or remove it"),
        ({"workers": [{"id": "a", "type": "ollama"}] * 2}, "workers[1].id: 'a' is the id of workers[0] too"),
        ({"wokers": []}, "wokers: is not a setting that distllm knows; did you mean 'workers'?"),
        ({"timeout": 3}, "did you mean 'request_timeout'?"),
        ({"health_check_interval": 0}, "health_check_interval: must be more than 0"),
        ({"health_check_interval": "often"}, "health_check_interval: must be a number, not 'often'"),
        ({"request_timeout": None}, "request_timeout: must be a number"),
        ('{"request_timeout": Infinity}', "request_timeout: must be a number, not inf"),
        ({"max_retries": -1}, "max_retries: must be at least 0"),
        ({"max_retries": 1.5}, "max_retries: must be a whole number"),
        ({"max_concurrent_batch": 0}, "max_concurrent_batch: must be at least 1"),
        ({"policy": "afinity"}, "policy: must be one of affinity, weighted (did you mean 'affinity'?)"),
        ({"policy": 3}, "policy: must be text"),
        ({"metrics": "file"}, "metrics: must be a list"),
        ({"metrics": ["no_such_sink"]}, "metrics[0]: must be"),
        ({"enable_metrics": "perhaps"}, "enable_metrics: must be true or false, not 'perhaps'"),
        ({"leave_out_references": "some"}, "leave_out_references: must be true or false, not 'some'"),
        ({"leave_out_reference": True}, "did you mean 'leave_out_references'?"),
        ({"models": []}, "models: must be an object"),
        ({"models": {"a": "b"}}, "models.a: must be a list"),
        ({"models": {"a": [3]}}, "models.a[0]: must be text"),
    ],
)
def test_a_mistake_in_the_file_names_file_place_and_remedy(content: object, words: str, tmp_path: Path) -> None:
    said = complaint(content, tmp_path)
    assert said.startswith("workers.json: ")
    assert words in said


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HEALTH_CHECK_INTERVAL", "often", "must be a number, not 'often'"),
        ("REQUEST_TIMEOUT", "0", "must be more than 0"),
        ("MAX_RETRIES", "1.5", "must be a whole number"),
        ("MAX_CONCURRENT_BATCH", "none", "must be a whole number, not 'none'"),
        ("ENABLE_METRICS", "maybe", "must be true or false, not 'maybe'"),
        ("LEAVE_OUT_REFERENCES", "some", "must be true or false, not 'some'"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, words: str, tmp_path: Path) -> None:
    said = complaint({}, tmp_path, {name: value})
    assert said.startswith(f"the environment: {name}: ")
    assert words in said


def test_the_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    file.write_text('{"max_retries": 5, "request_timeout": 9}')
    config = Config.load(file, {"MAX_RETRIES": "2", "REQUEST_TIMEOUT": ""})
    assert (config.max_retries, config.request_timeout) == (2, 9)


def test_references_are_left_out_only_where_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    for content, environment, left_out in (
        ("{}", {}, False),
        ('{"leave_out_references": true}', {}, True),
        ("{}", {"LEAVE_OUT_REFERENCES": "1"}, True),
        ('{"leave_out_references": true}', {"LEAVE_OUT_REFERENCES": "false"}, False),
    ):
        file.write_text(content)
        assert Config.load(file, environment).leave_out_references == left_out


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    for worker in (
        one_worker(api_key=["sk-secret"]),
        one_worker(api_key={"a": "sk-secret"}),
        one_worker(api_kee="sk-secret"),
        one_worker(host="http://user:sk-secret@studio"),
        one_worker(host="sk-secret@studio"),
        one_worker(scheme="http://user:sk-secret@studio"),
        one_worker(port="user:sk-secret@studio"),
    ):
        assert "sk-secret" not in complaint(worker, tmp_path)


def test_a_key_that_the_environment_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [worker] = Config.of(one_worker(api_key_env="A_KEY"), "here", {}).workers
    with pytest.raises(UsageError, match="worker 'a' wants its key from the variable A_KEY"):
        worker.spec()
    assert worker.keyless().api_key is None
    monkeypatch.setenv("A_KEY", "k")
    assert worker.spec().api_key == "k"
    monkeypatch.setenv("A_KEY", "sk-secret\n")
    with pytest.raises(UsageError, match="A_KEY has a blank or a line end around it") as caught:
        worker.spec()
    assert "sk-secret" not in str(caught.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(UsageError, match="there is no such configuration file"):
            Config.load(path, {})
    with pytest.raises(UsageError, match=r"gone\.json"):
        Config.load(None, {"DISTLLM_CONFIG": "gone.json"})
