"""The rules of the house that machines can check: format, lint, types, import contracts, packaging."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=["format", "lint", "types", "imports"],
)
def test_the_house_rules_hold(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_carries_its_migrations_and_never_names_the_model_package(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    assert uv is not None
    build = [uv, "build", "--wheel", "--quiet", "--out-dir", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    for path in ROOT.joinpath("migrations").rglob("*.py"):
        assert f"distllm/{path.relative_to(ROOT)}" in names
    data = ("presets/*.json", "export/templates/*", "service/page/templates/*", "service/page/static/*")
    for path in (path for pattern in data for path in ROOT.glob(f"distllm/{pattern}")):
        assert str(path.relative_to(ROOT)) in names
    assert "Name: distllm-queue" in metadata
    assert "smollm2" not in metadata
    assert "Provides-Extra: local" in metadata


def test_the_command_needs_nothing_but_what_it_declares(tmp_path: Path) -> None:
    """The environment of the tests has more than a user's: what is missing there is seen only outside of it."""
    uv = shutil.which("uv")
    assert uv is not None
    alone = [uv, "run", "--project", ROOT, "--locked", "--no-default-groups"]
    environment = os.environ | {"UV_PROJECT_ENVIRONMENT": str(tmp_path / "venv")}
    for arguments, code, said in (
        (["--help"], 0, ""),
        (["nosuch"], 2, "distllm: No such command 'nosuch'; see: distllm --help\n"),
        (["--db", "new.db", "resume"], 1, "there is no database new.db"),
        (["submit", "--preset", "summary", ROOT / "LICENSE"], 4, "no worker is configured"),
    ):
        done = subprocess.run(
            [*alone, "distllm", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert said in done.stderr


def test_help_costs_no_http_client_orm_or_migration_tool() -> None:
    code = (
        "import sys; from distllm.cli.app import run; run(['--help']);"
        "print([name for name in ('aiohttp', 'sqlalchemy', 'alembic', 'aiosqlite', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_distllm_costs_nothing_and_its_names_come_when_they_are_used() -> None:
    code = (
        "import sys, distllm; before = set(sys.modules);"
        "print([name for name in before if name.startswith('distllm.') or name in ('aiohttp', 'sqlalchemy')]);"
        "print([name for name in distllm.__all__ if name not in dir(distllm) or not hasattr(distllm, name)]);"
        "print(hasattr(distllm, 'nosuch'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "False"]
