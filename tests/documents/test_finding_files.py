"""Which files a submission means."""

import os
import sys
from pathlib import Path

import pytest

from distllm.documents import find_files, path_as_text, path_of_text
from distllm.domain.errors import DistllmError, UsageError
from tests.documents.privileges import run_without_privileges


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"some text")


def names(*paths: Path) -> list[str]:
    return [source.name for source in find_files(paths)]


def test_a_folder_is_listed_in_natural_order_with_what_is_under_it(tmp_path: Path) -> None:
    plant(tmp_path, "paper10.txt", "paper2.md", "Paper1.PDF", "more/paper007.txt", "more/paper7.txt", "more/x.text")
    assert names(tmp_path) == [
        "more/paper007.txt",
        "more/paper7.txt",
        "more/x.text",
        "Paper1.PDF",
        "paper2.md",
        "paper10.txt",
    ]


def test_hidden_files_and_other_kinds_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    plant(tmp_path, "seen.txt", ".hidden.txt", ".git/notes.txt", "figure.png", "._seen.txt", "no_suffix")
    assert names(tmp_path) == ["seen.txt"]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    plant(tmp_path, ".hidden.txt", "README")
    assert names(tmp_path / "README", tmp_path / ".hidden.txt") == ["README", ".hidden.txt"]


def test_a_source_tells_place_size_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "paper.txt")
    os.utime(tmp_path / "paper.txt", (1000, 2000))
    monkeypatch.chdir(tmp_path)
    (source,) = find_files([Path("paper.txt")])
    assert (source.path, source.size, source.mtime) == (tmp_path / "paper.txt", 9, 2000)


def test_a_file_given_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "in/a.txt", "in/b.txt")
    (tmp_path / "in/link.txt").symlink_to(tmp_path / "in/a.txt")
    monkeypatch.chdir(tmp_path)
    assert names(Path("in/b.txt"), Path("in"), tmp_path / "in") == ["b.txt", "a.txt"]


def test_files_of_one_name_are_told_apart_by_the_paths_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, "one/paper.txt", "two/paper.txt", "two/other.txt")
    monkeypatch.chdir(tmp_path)
    assert names(Path("one/paper.txt"), Path("two")) == ["one/paper.txt", "other.txt", "two/paper.txt"]


def test_a_missing_path_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder: .*nowhere\.txt$"):
        find_files([tmp_path / "nowhere.txt"])


def test_a_folder_without_any_text_is_an_error_that_names_it_and_the_kinds(tmp_path: Path) -> None:
    plant(tmp_path, "figure.png")
    with pytest.raises(DistllmError, match=rf"{tmp_path.name}: .*\.md .*\.pdf") as caught:
        find_files([tmp_path])
    assert caught.value.exit_code == 1


def test_a_link_back_to_the_folder_above_ends_there(tmp_path: Path) -> None:
    plant(tmp_path, "in/a.txt")
    (tmp_path / "in/again").symlink_to(tmp_path)
    assert names(tmp_path) == ["in/a.txt"]


def problems(*paths: Path) -> dict[str, str | None]:
    return {source.name: source.problem for source in find_files(paths)}


def test_a_link_out_of_the_folder_is_told_and_not_followed(tmp_path: Path) -> None:
    plant(tmp_path, "in/a.txt", "in/more/b.txt", "out/secret.txt", "out/more/other.txt")
    links = {"file.txt": "out/secret.txt", "folder": "out", "more/up": "out/more", "again.txt": "out/secret.txt"}
    for name, target in links.items():
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    (tmp_path / "in/figure.png").symlink_to(tmp_path / "out/secret.txt")
    found = problems(tmp_path / "in")
    assert {name for name, problem in found.items() if problem is None} == {"a.txt", "more/b.txt"}
    for name, target in links.items():
        there = str((tmp_path / target).resolve())
        assert found[name] == f"is a link to {there}, outside of what was submitted: to have that read, name it too"
    assert len(found) == 6


def test_a_link_within_what_was_named_is_followed(tmp_path: Path) -> None:
    plant(tmp_path, "in/a.txt", "in/more/b.txt", "other/c.txt", "out/d.txt", "out/e.txt")
    for name, target in {"within.txt": "in/more/b.txt", "beside": "other", "d.txt": "out/d.txt"}.items():
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    # A folder that is a link, a folder, and a file: all are named.
    (tmp_path / "door").symlink_to(tmp_path / "in")
    found = problems(tmp_path / "door", tmp_path / "other", tmp_path / "out/d.txt")
    assert found == dict.fromkeys(("a.txt", "beside/c.txt", "d.txt", "more/b.txt"))
    (tmp_path / "e.txt").symlink_to(tmp_path / "out/e.txt")
    assert problems(tmp_path / "e.txt") == {"e.txt": None}


def test_a_dangling_link_is_listed_so_that_its_problem_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["gone.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_unicode_is_given_readable(tmp_path: Path) -> None:
    plant(tmp_path, os.fsdecode(b"na\xefve.txt"))
    assert names(tmp_path) == ["na\ufffdve.txt"]


@pytest.mark.parametrize("name", [b"/papers/a b.txt", "/papers/naïve.txt".encode(), b"/papers/na\xefve.txt"])
def test_a_path_is_stored_as_text_and_found_again_whatever_its_bytes(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    path_as_text(path).encode("utf-8")
    assert path_of_text(path_as_text(path)) == path


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    plant(tmp_path, "shut/a.txt")
    (tmp_path / "shut").chmod(0)
    find = f"""
import pathlib
from distllm.documents import find_files
from distllm.domain.errors import DistllmError
try:
    find_files([pathlib.Path({str(tmp_path)!r})])
except DistllmError as error:
    print(error)
"""
    try:
        assert "shut cannot be listed: permission denied" in run_without_privileges(find)
    finally:
        (tmp_path / "shut").chmod(0o700)
