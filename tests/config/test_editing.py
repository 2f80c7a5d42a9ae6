"""Workers come into a configuration file and leave it, and nothing else in it changes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distllm.config import Config
from distllm.config.edit import add_worker, file_to_edit, remove_worker
from distllm.domain.errors import DistllmError, UsageError

NEW = {"id": "new", "type": "ollama", "host": "studio"}

COMPACT = """{"request_timeout":  600,
 "workers": [{"id": "a", "type": "openai", "port": 1},
             {"id": "b", "type": "openai", "port": 2}],
 "models": {"x": ["y"]}}
"""
SPREAD = """{
\t"workers": [
\t\t{
\t\t\t"id": "a",
\t\t\t"type": "openai",
\t\t\t"port": 1
\t\t}
\t],
\t"max_retries": 5
}"""


def written(folder: Path, text: str) -> Path:
    file = folder / "workers.json"
    file.write_bytes(text.encode())
    return file


def read(file: Path) -> str:
    return file.read_bytes().decode()


def test_a_new_worker_stands_as_its_neighbours_do_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    file = written(tmp_path, COMPACT)
    add_worker(file, NEW)
    line = '{"id": "b", "type": "openai", "port": 2}'
    added = f'{line},\n             {{"id": "new", "type": "ollama", "host": "studio"}}'
    assert read(file) == COMPACT.replace(line, added)
    remove_worker(file, "new")
    assert read(file) == COMPACT


def test_a_worker_on_lines_of_its_own_gets_a_neighbour_on_lines(tmp_path: Path) -> None:
    file = written(tmp_path, SPREAD)
    add_worker(file, NEW)
    lines = '\t\t{\n\t\t\t"id": "new",\n\t\t\t"type": "ollama",\n\t\t\t"host": "studio"\n\t\t}'
    assert read(file) == SPREAD.replace("\t\t}\n\t]", f"\t\t}},\n{lines}\n\t]")
    remove_worker(file, "new")
    assert read(file) == SPREAD
    remove_worker(file, "a")
    assert json.loads(read(file)) == {"workers": [], "max_retries": 5}


def test_line_ends_byte_order_mark_and_letters_stay(tmp_path: Path) -> None:
    text = "\ufeff" + SPREAD.replace('"a"', '"Büro"').replace("\n", "\r\n")
    file = written(tmp_path, text)
    add_worker(file, NEW)
    assert read(file).count("\r\n") == read(file).count("\n") > text.count("\n")
    remove_worker(file, "new")
    assert read(file) == text


@pytest.mark.parametrize(
    "text", ["{}", " { } ", '{"max_retries": 1}', '{"workers": []}', '{"workers": [ ], "models": {}}']
)
def test_a_file_without_workers_gets_its_first(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    add_worker(file, NEW)
    assert json.loads(read(file)) == json.loads(text) | {"workers": [NEW]}
    remove_worker(file, "new")
    assert json.loads(read(file)) == json.loads(text) | {"workers": []}


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    add_worker(file, NEW)
    assert Config.load(file).workers[0].id == "new"
    assert file.stat().st_mode & 0o077 == 0o044


def test_the_mode_and_a_link_are_kept_and_nothing_is_left_beside(tmp_path: Path) -> None:
    file = written(tmp_path, COMPACT)
    file.chmod(0o600)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    add_worker(file_to_edit(link, create=True), NEW)
    assert link.is_symlink()
    assert Config.load(link).workers[-1].id == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link.json", "workers.json"]


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        (NEW | {"id": "a"}, "workers[2].id"),
        (NEW | {"port": 70000}, "workers[2].port"),
        (NEW | {"type": "olama"}, "did you mean 'ollama'?"),
        ({"id": "new", "type": "openai"}, "workers[2].port: is missing"),
    ],
)
def test_what_would_make_no_sense_is_not_written(tmp_path: Path, worker: dict[str, object], words: str) -> None:
    file = written(tmp_path, COMPACT)
    with pytest.raises(UsageError) as caught:
        add_worker(file, worker)
    assert words in str(caught.value)
    assert read(file) == COMPACT


def test_a_file_that_makes_no_sense_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path, '{"wrokers": []}')
    with pytest.raises(UsageError, match="did you mean 'workers'"):
        add_worker(file, NEW)
    with pytest.raises(UsageError, match="did you mean 'workers'"):
        remove_worker(file, "a")
    assert read(file) == '{"wrokers": []}'


def test_a_worker_that_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    file = written(tmp_path, COMPACT.replace('"a"', '"studio"'))
    with pytest.raises(UsageError, match=r"no worker 'stduio': did you mean 'studio'\? it has studio, b"):
        remove_worker(file, "stduio")
    with pytest.raises(UsageError, match="has no worker 'x'"):
        remove_worker(tmp_path / "missing.json", "x")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DistllmError, match="cannot be written"):
        add_worker(tmp_path / "no" / "such" / "workers.json", NEW)


_strings = st.text(st.characters(codec="utf-8"), max_size=8)
_extra = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | _strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_strings, inner, max_size=3),
    max_leaves=6,
)


@given(extras=st.lists(_extra, min_size=0, max_size=4), indent=st.sampled_from([None, 1, 4]), gone=st.integers(0, 4))
def test_whatever_stands_in_a_file_only_the_worker_changes(
    tmp_path_factory: pytest.TempPathFactory, extras: list[object], indent: int | None, gone: int
) -> None:
    workers = [
        {"id": f"w{i}", "type": "openai", "port": i + 1, "extra": {"[{": extra, "]": "}"}}
        for i, extra in enumerate(extras)
    ]
    values = {"models": {"]": ["workers", "["]}, "workers": workers, "max_retries": 2}
    file = written(tmp_path_factory.mktemp("edit"), json.dumps(values, indent=indent))
    before = read(file)
    add_worker(file, NEW)
    assert json.loads(read(file)) == values | {"workers": [*workers, NEW]}
    remove_worker(file, "new")
    assert json.loads(read(file)) == values
    assert read(file) == before or not workers
    if gone < len(workers):
        remove_worker(file, f"w{gone}")
        assert json.loads(read(file))["workers"] == workers[:gone] + workers[gone + 1 :]
