"""The bodies of answers: a chat completion, a text completion, and the pieces of both."""

from typing import Any

from distllm.service.openai.wishes import CHAT

Json = dict[str, Any]


def usage_of(prompt: int | None, cached: int | None, completion: int | None) -> Json:
    """What an answer took; what its server did not tell counts as nothing."""
    return {
        "prompt_tokens": prompt or 0,
        "completion_tokens": completion or 0,
        "total_tokens": (prompt or 0) + (completion or 0),
        "prompt_tokens_details": {"cached_tokens": cached or 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def answer_body(
    endpoint: str,
    key: str,
    created: float,
    model: str,
    text: str,
    thinking: str | None,
    finish_reason: str,
    usage: Json,
) -> Json:
    """A whole answer. What a model thought before is beside it, as `reasoning_content`."""
    choice: Json = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
    if endpoint == CHAT:
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        choice["message"] = message | ({"reasoning_content": thinking} if thinking else {})
    else:
        choice["text"] = text
    return _body(endpoint, key, created, model, "chat.completion") | {"choices": [choice], "usage": usage}


class Pieces:
    """The pieces of one streamed answer. With `told`, all but the last have a `usage` that is null."""

    def __init__(self, endpoint: str, key: str, created: float, model: str, *, told: bool) -> None:
        self._chat = endpoint == CHAT
        self._body = _body(endpoint, key, created, model, "chat.completion.chunk") | ({"usage": None} if told else {})

    def first(self) -> Json:
        """Who speaks."""
        return self._choice({"role": "assistant", "content": ""}, "")

    def piece(self, text: str, thinking: str) -> Json:
        """What was said or thought."""
        delta = ({"content": text} if text else {}) | ({"reasoning_content": thinking} if thinking else {})
        return self._choice(delta, text)

    def last(self, finish_reason: str) -> Json:
        """Why nothing more comes."""
        return self._choice({}, "", finish_reason)

    def usage(self, usage: Json) -> Json:
        """What it took."""
        return self._body | {"choices": [], "usage": usage}

    def _choice(self, delta: Json, text: str, finish_reason: str | None = None) -> Json:
        said: Json = {"delta": delta} if self._chat else {"text": text}
        return self._body | {"choices": [{"index": 0, "logprobs": None, "finish_reason": finish_reason} | said]}


def _body(endpoint: str, key: str, created: float, model: str, kind: str) -> Json:
    chat = endpoint == CHAT
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{key}",
        "object": kind if chat else "text_completion",
        "created": int(created),
        "model": model,
        "system_fingerprint": None,
    }
