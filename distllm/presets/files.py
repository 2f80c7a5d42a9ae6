"""Where preset files are found, and how they are read."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distllm.domain.errors import UsageError
from distllm.domain.models import Template
from distllm.jsonfile import read_json_file
from distllm.presets.preset import Preset

_BUILT_IN = Path(__file__).parent


def load_preset(name_or_path: str, folders: Sequence[Path] = ()) -> Preset:
    """The preset of that name, or of that path to a .json file.

    A user's own file `NAME.json` in one of `folders` wins over the built-in preset; the first folder wins.
    Raises UsageError, in one line, if there is none or its file cannot be followed.
    """
    return _read(preset_file(name_or_path, folders))


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a name stands for, and what it holds: a preset, or the one line that says why it is none."""

    name: str
    path: Path
    built_in: bool
    preset: Preset | UsageError


def list_presets(folders: Sequence[Path] = ()) -> list[Found]:
    """Every preset that can be called by name, also those whose files cannot be followed, in the order of names."""
    return [_look(name, path) for name, path in sorted(_find(folders).items())]


def _look(name: str, path: Path) -> Found:
    preset: Preset | UsageError
    try:
        preset = _read(path)
    except UsageError as error:
        preset = error
    return Found(name, path, path.parent == _BUILT_IN, preset)


def preset_file(name_or_path: str, folders: Sequence[Path] = ()) -> Path:
    """The file that `load_preset` reads; raises what it raises for a name that is none."""
    if name_or_path.lower().endswith(".json"):
        return Path(name_or_path)
    found = _find(folders)
    if name_or_path in found:
        return found[name_or_path]
    names = sorted(found)
    near = difflib.get_close_matches(name_or_path.casefold(), names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        f"unknown preset {name_or_path!r}: {hint}there are {', '.join(names)}, or give a path to a .json file"
    )


def _find(folders: Sequence[Path]) -> dict[str, Path]:
    """Each name with its file, the strongest where there are several."""
    return {path.stem: path for folder in (_BUILT_IN, *reversed(folders)) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> Preset:
    from pydantic import ValidationError

    from distllm.presets.schema import PresetFile, PromptEntry, first_fault

    try:
        content = PresetFile.model_validate(read_json_file(path))
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error, [PresetFile, PromptEntry])}") from None
    if content.name not in (None, path.stem):
        raise UsageError(f"{path}: name: the file's name makes it {path.stem!r}, not {content.name!r}; rename one")
    names = [entry.name for entry in content.prompts]
    for second, first in _repeated(names):
        raise UsageError(
            f"{path}: prompts[{second}].name: {names[second]!r} is the name of prompts[{first}] too; rename one"
        )
    return Preset(
        name=path.stem,
        description=content.description,
        templates=tuple(
            Template(entry.name, entry.text, entry.max_tokens, entry.merge or content.merge)
            for entry in content.prompts
        ),
        max_tokens=content.max_tokens,
        temperature=content.temperature,
    )


def _repeated(names: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where a name comes again, with where it came first, whatever its case."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if (earlier := first.setdefault(name.casefold(), index)) != index:
            yield index, earlier
