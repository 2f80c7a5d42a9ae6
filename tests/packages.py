"""Tiny packages, installed for one test: a module, and the metadata that names its entry points."""

from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str, entry_points: Mapping[str, Mapping[str, str]]
) -> None:
    """Install a package `module` in `folder`; `entry_points` are those of each group."""
    folder.mkdir(exist_ok=True)
    folder.joinpath(f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in names.items())])
        for group, names in entry_points.items()
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
