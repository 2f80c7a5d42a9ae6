"""The JSON of requests. Papers and questions, which many requests have in common, are encoded once."""

import json
from collections.abc import Mapping
from functools import lru_cache

from distllm.domain.models import Call
from distllm.domain.tokens import TEXTS_IN_USE


def splice(call: Call, fields: Mapping[str, object], *, raw: bool) -> bytes:
    """Build one request: what to read as `messages`, or where `raw` as one `prompt`, and then `fields`."""
    tail = json.dumps(fields).encode()[1:]
    if raw:
        parts = [text for _, text in call.turns] + [call.question]
        asked = json.dumps("\n\n".join([""] * bool(call.system) + parts)).encode()
        return b"".join((b'{"prompt": ', _encoded(call.system)[:-1], asked[1:], b", ", tail))
    said = [("system", call.system)] * bool(call.system) + [*call.turns, ("user", call.question)]
    messages = (b'{"role": %b, "content": %b}' % (json.dumps(role).encode(), _encoded(text)) for role, text in said)
    return b"".join((b'{"messages": [', b", ".join(messages), b"], ", tail))


def passed_through(extra: tuple[tuple[str, object], ...]) -> dict[str, object]:
    """The fields of `extra`, without what would replace the text to read."""
    return {name: value for name, value in extra if name not in ("messages", "prompt")}


@lru_cache(maxsize=TEXTS_IN_USE)
def _encoded(text: str) -> bytes:
    return json.dumps(text).encode()
