"""A job file: what `distllm submit` is told, kept to be told again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from distllm.domain.errors import UsageError
from distllm.jsonfile import read_json_file
from distllm.presets.schema import MaxTokens, Priority, Strict, Temperature, first_fault


class _File(Strict):
    paths: Annotated[list[str], Field(min_length=1)]
    name: str | None = None
    preset: str | None = None
    prompts: Annotated[list[str], Field(min_length=1)] | None = None
    model: str | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class JobFile:
    """One job file; None where it leaves a thing open. `paths` can be opened from anywhere."""

    paths: list[Path]
    name: str | None
    preset: str | None
    prompts: list[str]
    model: str | None
    max_tokens: int | None
    temperature: float | None
    priority: int | None


def load_job(path: Path) -> JobFile:
    """Read a job file; paths in it are relative to its folder.

    Raises UsageError, in one line, if there is none or it cannot be followed.
    """
    try:
        given = _File.model_validate(read_json_file(path))
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error, [_File])}") from None
    if (given.preset is None) == (given.prompts is None):
        raise UsageError(f"{path}: give either `preset` or `prompts`")
    preset = given.preset
    if preset is not None and preset.lower().endswith(".json"):
        preset = str(path.parent / Path(preset).expanduser())
    return JobFile(
        paths=[path.parent / Path(each).expanduser() for each in given.paths],
        name=given.name,
        preset=preset,
        prompts=given.prompts or [],
        model=given.model,
        max_tokens=given.max_tokens,
        temperature=given.temperature,
        priority=given.priority,
    )
