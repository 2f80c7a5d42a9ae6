"""The configuration: one JSON file, what the environment overrides, and the defaults, read once."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from distllm.balancer.policies import GROUP as POLICY_GROUP
from distllm.balancer.policies import POLICIES
from distllm.domain.errors import UsageError
from distllm.domain.models import WorkerSpec, WorkerType
from distllm.metrics import GROUP as SINK_GROUP
from distllm.plugins import installed, suggestion
from distllm.workers.kinds import default_port, find_kind

_ENVIRONMENT = ("HEALTH_CHECK_INTERVAL", "REQUEST_TIMEOUT", "MAX_RETRIES", "MAX_CONCURRENT_BATCH", "ENABLE_METRICS")

Seconds = Annotated[float, Field(gt=0)]


def _kind(name: object) -> WorkerType | str:
    if not isinstance(name, str):
        raise ValueError(f'must be the name of a kind of worker, such as "ollama", not {name!r}')
    return find_kind(name)


def _policy(name: str) -> str:
    if name not in POLICIES and name not in (others := installed(POLICY_GROUP)):
        raise PydanticCustomError("policy", "must be {known}", {"known": suggestion(name, [*POLICIES, *others])})
    return name


def _sink(name: str) -> str:
    if name not in (known := installed(SINK_GROUP)):
        raise PydanticCustomError("sink", "must be {known}", {"known": suggestion(name, known)})
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkerConfig(_Strict):
    """One server, as the file names it."""

    id: str = Field(min_length=1)
    type: Annotated[WorkerType | str, BeforeValidator(_kind)]
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    scheme: Literal["http", "https"] = "http"
    endpoint: Literal["chat", "completions", "generate"] = "chat"
    """With the model's template, or raw; each kind of server has only one of the raw ones, whichever is named."""
    model: str | None = None
    max_concurrent_requests: int | None = Field(default=None, ge=1)
    context_length: int | None = Field(default=None, ge=1)
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    path: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    def spec(self) -> WorkerSpec:
        """The same as plain values; the key is taken from the environment where the file says so."""
        key = self.api_key.get_secret_value() if self.api_key else None
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
        return WorkerSpec(
            name=self.id,
            type=self.type,
            scheme=self.scheme,
            host=self.host,
            port=self.port or default_port(self.type) or 0,
            endpoint=self.endpoint,
            model=self.model,
            api_key=key,
            slots=self.max_concurrent_requests,
            context_length=self.context_length,
            path=self.path,
            extra=tuple(self.extra.items()),
        )


class Config(_Strict):
    """All settings. Times are seconds."""

    workers: tuple[WorkerConfig, ...] = ()
    health_check_interval: Seconds = 30.0
    request_timeout: Seconds = 300.0
    max_retries: int = Field(default=3, ge=0)
    max_concurrent_batch: int | None = Field(default=None, ge=1)
    policy: Annotated[str, AfterValidator(_policy)] = "affinity"
    metrics: tuple[Annotated[str, AfterValidator(_sink)], ...] = ()
    enable_metrics: bool = True
    models: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the file named, else the one found, else none. Raises UsageError with file, place and remedy."""
        file = _find(path, environment)
        values: Any = {} if file is None else _read(file)
        where = str(file) if file else "the environment"
        if not isinstance(values, dict):
            raise UsageError(f'{where}: must be a JSON object such as {{"workers": []}}')
        overrides = {name.lower(): environment[name] for name in _ENVIRONMENT if environment.get(name)}
        try:
            config = cls.model_validate(values | overrides)
        except ValidationError as error:
            raise UsageError(_explain(where, error, overrides)) from None
        seen: set[str] = set()
        for index, worker in enumerate(config.workers):
            if worker.id in seen:
                raise UsageError(f"{where}: workers[{index}].id: {worker.id!r} is used twice; give each its own")
            if not worker.port and default_port(worker.type) is None:
                raise UsageError(f"{where}: workers[{index}].port: is missing; give the port the server listens on")
            seen.add(worker.id)
        return config

    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names that mean one model, each beginning with the name to show."""
        return tuple((name, *others) for name, others in self.models.items())


def user_folder() -> Path:
    """The folder for a user's own configuration and presets."""
    import typer

    return Path(typer.get_app_dir("distllm"))


def preset_folders() -> list[Path]:
    """Where a user's own presets are, the strongest first."""
    return [Path("presets"), user_folder() / "presets"]


def _find(path: str | Path | None, environment: Mapping[str, str]) -> Path | None:
    named = path or environment.get("DISTLLM_CONFIG")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"{named}: there is no such configuration file")
        return Path(named)
    found = (Path("workers.json"), user_folder() / "workers.json")
    return next((file for file in found if file.is_file()), None)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{file}: line {error.lineno}, column {error.colno}: {error.msg}; the file must be JSON"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from None


def _explain(where: str, error: ValidationError, overrides: Mapping[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    if place in overrides:
        where, place = "the environment", place.upper()
    if first["type"] == "extra_forbidden":
        return f"{where}: {place}: is not a setting that distllm knows; check its spelling or remove it"
    if first["type"] == "missing":
        return f"{where}: {place}: is missing; add it"
    if first["type"] == "value_error":
        return f"{where}: {place}: {first['ctx']['error']}"
    given = "" if isinstance(first["input"], dict | list) or "key" in place else f", not {first['input']!r}"
    return f"{where}: {place}: {first['msg'][0].lower()}{first['msg'][1:]}{given}"
