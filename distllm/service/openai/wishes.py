"""The bodies of requests, understood: what is asked, or what of it cannot be done here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distllm.batches import Asked
from distllm.domain.models import Extra
from distllm.presets.schema import first_fault
from distllm.service.openai.faults import FaultError

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ENDPOINTS = (CHAT, COMPLETIONS)

DEFAULT_MAX_TOKENS = 1_024
"""Of an answer for which none are given: servers want a limit, and a small model may not end by itself."""

DEFAULT_TEMPERATURE = 1.0
"""What OpenAI documents."""

LARGEST_MAX_TOKENS = 10_000_000

_WITHOUT_EFFECT = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
    | {"parallel_tool_calls"}
)
"""What changes no answer that is given here."""

_AS_BY_DEFAULT: Mapping[str, object] = {
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "best_of": (1,),
    "verbosity": ("medium",),
}
"""What asks for nothing beyond what is given in any case."""

_ROLES = {"developer": "system"}


class StreamOptions(BaseModel):
    """What a stream tells beside the answer."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None


class ResponseFormat(BaseModel):
    """The form of an answer."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]


class Sampling(BaseModel):
    """What servers are given as it is."""

    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0, le=10)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None


class Body(Sampling):
    """What a request of either kind may have."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=500)]
    messages: list[dict[str, Any]] | None = None
    prompt: Any = None
    max_tokens: Annotated[int, Field(ge=1, le=LARGEST_MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=LARGEST_MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """One request: the model by the name that it was called, what is asked, and how."""

    model: str
    asked: Asked
    max_tokens: int
    temperature: float
    extra: Extra
    stream: bool
    include_usage: bool


def wish_of(endpoint: str, given: Mapping[str, Any]) -> Wish:
    """Understand the body of a request to `endpoint`. Raises FaultError for what cannot be done here."""
    try:
        body = Body.model_validate(given)
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        raise FaultError(400, first_fault(error, [Body]), param=str(place[0]) if place else None) from None
    if body.n not in (None, 1):
        raise FaultError(400, "n: one answer is given to a request; ask it so many times", param="n")
    for name, value in (body.model_extra or {}).items():
        if value and name not in _WITHOUT_EFFECT and value not in _AS_BY_DEFAULT.get(name, ()):  # type: ignore[operator]
            raise FaultError(
                400, f"{name}: cannot be done here; leave it out", param=name, code="unsupported_parameter"
            )
    return Wish(
        model=body.model,
        asked=_chat(body.messages) if endpoint == CHAT else _completion(body.prompt),
        max_tokens=body.max_completion_tokens or body.max_tokens or DEFAULT_MAX_TOKENS,
        temperature=DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        extra=_extra(body),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


def _extra(body: Body) -> Extra:
    told = body.model_dump(include=set(Sampling.model_fields), exclude_none=True)
    if isinstance(told.get("stop"), str):
        told["stop"] = [told["stop"]]
    if told.get("response_format") == {"type": "text"}:
        del told["response_format"]
    return tuple(sorted(told.items()))


def _completion(prompt: object) -> Asked:
    match prompt:
        case str() | [str()]:
            text = prompt if isinstance(prompt, str) else prompt[0]
            return _asked([{"role": "user", "content": text}], "prompt")
        case _:
            raise FaultError(400, "prompt: must be one text; ask each in a request of its own", param="prompt")


def _chat(messages: list[dict[str, Any]] | None) -> Asked:
    if not messages:
        raise FaultError(400, "messages: there is none; give at least the user's", param="messages")
    return _asked([_message(message, f"messages[{place}]") for place, message in enumerate(messages)], "messages")


def _asked(messages: list[dict[str, str]], param: str) -> Asked:
    try:
        return Asked.of(messages, 0)
    except ValueError as error:
        _, _, what = str(error).partition("]")
        raise FaultError(400, f"{param}{what}", param=param) from None


def _message(message: dict[str, Any], place: str) -> dict[str, str]:
    strange = [name for name, value in message.items() if name not in ("role", "content") and value]
    if strange:
        raise FaultError(400, f"{place}.{strange[0]}: cannot be done here; leave it out", param="messages")
    role = message.get("role")
    return {"role": _ROLES.get(str(role), str(role)), "content": _content(message.get("content"), place)}


def _content(content: object, place: str) -> str:
    match content:
        case str():
            return content
        case list():
            return "".join(_part(part, place) for part in content)
        case _:
            raise FaultError(400, f"{place}.content: must be a text", param="messages")


def _part(part: object, place: str) -> str:
    match part:
        case {"type": "text", "text": str(text), **more} if not any(more.values()):
            return text
        case _:
            raise FaultError(400, f"{place}.content: only parts of text can be read here", param="messages")
