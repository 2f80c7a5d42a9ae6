"""What may stand in the configuration, and how it is read."""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from distllm.balancer.policies import GROUP as POLICY_GROUP
from distllm.balancer.policies import POLICIES
from distllm.domain.errors import UsageError
from distllm.domain.models import WorkerSpec, WorkerType
from distllm.jsonfile import read_json_file
from distllm.metrics import GROUP as SINK_GROUP
from distllm.plugins import installed, suggestion
from distllm.workers.kinds import default_port, find_kind

_ENVIRONMENT = (
    "HEALTH_CHECK_INTERVAL",
    "REQUEST_TIMEOUT",
    "MAX_RETRIES",
    "MAX_CONCURRENT_BATCH",
    "ENABLE_METRICS",
    "LEAVE_OUT_REFERENCES",
)

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Some = Annotated[int, Field(ge=1, le=1_000_000_000)]


def _only_host(host: str) -> str:
    if "@" in host:
        # Not repeated: what stands before it may be a password.
        raise ValueError(
            "must be a name or an address alone, without a user or a password; give a key as `api_key_env`"
        )
    if not host or host != host.strip() or re.search(r"[\s/\[\]]|^[^:]*:[^:]*$", host):
        raise ValueError(
            f"must be a name or an address alone, such as studio.local or fe80::1, not {host!r}; "
            "`scheme` and `port` are settings of their own"
        )
    return host


Host = Annotated[str, AfterValidator(_only_host)]
Words = Annotated[str, Field(min_length=1)]


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

    id: Words
    type: Annotated[WorkerType | str, BeforeValidator(_kind)]
    host: Host = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    scheme: Literal["http", "https"] = "http"
    endpoint: Literal["chat", "completions", "generate"] = "chat"
    """With the model's template, or raw; each kind of server has only one of the raw ones, whichever is named."""
    model: Words | None = None
    max_concurrent_requests: Some | None = None
    context_length: Some | None = None
    api_key: SecretStr | None = None
    api_key_env: Words | None = None
    path: Words | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    def spec(self) -> WorkerSpec:
        """The same as plain values; the key is taken from the environment where the file says so.

        Raises UsageError where the environment does not have it.
        """
        key = self.api_key.get_secret_value() if self.api_key else None
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
            if not key:
                raise UsageError(
                    f"worker {self.id!r} wants its key from the variable {self.api_key_env} (api_key_env), which the "
                    f"environment does not have; run: export {self.api_key_env}=..."
                )
        if key is not None and (key != key.strip() or not key.isprintable()):
            name = self.api_key_env or "api_key"
            raise UsageError(f"worker {self.id!r}: its key in {name} has a blank or a line end around it; take it away")
        return self._spec(key)

    def keyless(self) -> WorkerSpec:
        """The same without its key, for those who only want to know who the worker is."""
        return self._spec(None)

    def _spec(self, key: str | None) -> WorkerSpec:
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
    max_retries: int = Field(default=3, ge=0, le=1_000_000_000)
    max_concurrent_batch: Some | None = None
    policy: Annotated[str, AfterValidator(_policy)] = "affinity"
    metrics: tuple[Annotated[str, AfterValidator(_sink)], ...] = ()
    enable_metrics: bool = True
    leave_out_references: bool = False
    """Where a document is split."""
    models: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the file named, else the one found, else none. Raises UsageError with file, place and remedy."""
        file = find_file(path, environment)
        values: Any = {} if file is None else read_json_file(file)
        return cls.of(values, str(file) if file else "the environment", environment)

    @classmethod
    def of(cls, values: object, where: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Judge what was read from `where`; see `load`."""
        if not isinstance(values, dict):
            raise UsageError(f'{where}: must be a JSON object such as {{"workers": []}}')
        overrides = {name.lower(): environment[name] for name in _ENVIRONMENT if environment.get(name)}
        try:
            config = cls.model_validate(values | overrides)
        except ValidationError as error:
            raise UsageError(_explain(where, error, overrides)) from None
        seen: dict[str, int] = {}
        for index, worker in enumerate(config.workers):
            place = f"{where}: workers[{index}]"
            if worker.id in seen:
                raise UsageError(
                    f"{place}.id: {worker.id!r} is the id of workers[{seen[worker.id]}] too; give each its own"
                )
            if not worker.port and default_port(worker.type) is None:
                raise UsageError(f"{place}.port: is missing; give the port the server listens on")
            seen[worker.id] = index
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


def find_file(path: str | Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file named, which must exist, else the one found, else None."""
    named = path or environment.get("DISTLLM_CONFIG")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"{named}: there is no such configuration file")
        return Path(named)
    found = (Path("workers.json"), user_folder() / "workers.json")
    return next((file for file in found if file.is_file()), None)


def _explain(where: str, error: ValidationError, overrides: Mapping[str, str]) -> str:
    """One line about the first thing that is wrong: its place, what it is, and the remedy."""
    fault = error.errors(include_url=False)[0]
    steps = [step for step in fault["loc"] if step not in _INNER]
    place = _place(steps)
    if place in overrides:
        where, place = "the environment", place.upper()
    match fault["type"]:
        case "extra_forbidden":
            return f"{where}: {place}: is not a setting that distllm knows; {_nearest(steps)}"
        case "missing":
            return f"{where}: {place}: is missing; add it"
        case "value_error":
            return f"{where}: {place}: {fault['ctx']['error']}"
        case "string_too_short":
            return f"{where}: {place}: is empty; fill it in or leave it out"
        case kind:
            said = (
                _must_be(kind, fault.get("ctx", {}), fault["input"]) or f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
            )
    secret = isinstance(fault["input"], dict | list) or "key" in place or "@" in str(fault["input"])
    given = "" if secret else f", not {_shown(fault['input'])}"
    return f"{where}: {place}: {said}{given}"


def _must_be(kind: str, bounds: Mapping[str, Any], given: object) -> str | None:
    """What a value must be, in the words of JSON; None for a fault that nobody has met yet."""
    match kind:
        case "model_type" | "dict_type":
            return "must be an object in braces, {…}"
        case "tuple_type" | "list_type":
            return "must be a list in brackets, […]"
        case "string_type":
            return "must be text in quotes"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "must be a number"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "greater_than":
            return f"must be more than {bounds['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {bounds['ge']}"
        case "less_than_equal":
            return f"must be at most {bounds['le']}"
        case "literal_error":
            near = get_close_matches(str(given).casefold(), re.findall(r"'(\w+)'", bounds["expected"]), 1)
            return f"must be {bounds['expected']}{f' (did you mean {near[0]!r}?)' if near else ''}"
    return None


_INNER = frozenset({"function-before", "[key]"})
"""Steps of a place that are pydantic's own."""


def _place(steps: Sequence[int | str]) -> str:
    """`workers[2].port`, counting from 0 as JSON tools do."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")


def _nearest(steps: Sequence[int | str]) -> str:
    model: type[BaseModel] = WorkerConfig if steps[0] == "workers" else Config
    near = get_close_matches(str(steps[-1]).casefold(), list(model.model_fields), 1)
    return f"did you mean {near[0]!r}?" if near else "check its spelling or remove it"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
