"""The lines of a batch's input: looked through first, and then made into prompts."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from distllm.batches import new_request
from distllm.domain.models import StoredRequest
from distllm.service.openai.faults import Fault, FaultError, error_body
from distllm.service.openai.wishes import Wish, wish_of
from distllm.store.batches import NewLine

LARGEST_LINE = 32 * 2**20
LONGEST_CUSTOM_ID = 1_000
MOST_LINES = 50_000
MOST_FAULTS = 100
"""How many faults of a batch are told."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its number from 0, its text, or None where it is too long."""

    ordinal: int
    text: bytes | None


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Line]]:
    """The lines of a file that are not empty, as its chunks complete them."""
    ordinal, begun, too_long = 0, bytearray(), False
    async for chunk in chunks:
        found: list[Line] = []
        *ended, rest = chunk.split(b"\n")
        for end in ended:
            begun += end
            if too_long or begun.strip():
                found.append(Line(ordinal, None if too_long or len(begun) > LARGEST_LINE else bytes(begun)))
            ordinal += 1
            begun, too_long = bytearray(), False
        begun += rest
        if len(begun) > LARGEST_LINE:
            begun, too_long = bytearray(), True
        if found:
            yield found
    if too_long or begun.strip():
        yield [Line(ordinal, None if too_long else bytes(begun))]


class Inspector:
    """Looks through the lines of a batch. With any of its `faults`, nothing of the batch is asked."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._seen: set[bytes] = set()
        self.faults: list[Json] = []
        self.count = 0
        self.model: str | None = None

    def look(self, lines: Iterable[Line]) -> None:
        """Look at the next lines."""
        for line in lines:
            self.count += 1
            if len(self.faults) < MOST_FAULTS and (fault := self._fault(line)) is not None:
                self.faults.append(fault)

    def end(self) -> None:
        """There are no more."""
        if not self.count:
            self.faults.append(_told("empty_file", "the file has no line: give one request a line", None))

    def _fault(self, line: Line) -> Json | None:
        if self.count == MOST_LINES + 1:
            return _told("too_many_tasks", f"the file has more than {MOST_LINES:,} lines: split it", None)
        try:
            given = _parsed(line)
            custom_id = given.get("custom_id")
            if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= LONGEST_CUSTOM_ID:
                return _told(
                    "missing_required_parameter" if custom_id is None else "invalid_custom_id",
                    f"custom_id: give each line a text of its own, of at most {LONGEST_CUSTOM_ID:,} characters",
                    line,
                    "custom_id",
                )
        except ValueError as error:
            return _told("invalid_json_line", f"this line is no request in JSON: {error}", line)
        if given.get("method") != "POST":
            return _told("invalid_method", "method: must be POST", line, "method")
        if given.get("url") != self._endpoint:
            return _told("url_mismatch", f"url: must be the batch's endpoint, {self._endpoint}", line, "url")
        body = given.get("body")
        if not isinstance(body, dict):
            return _told("invalid_request", "body: must be the body of a request", line, "body")
        mark = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if mark in self._seen:
            return _told("duplicate_custom_id", "custom_id: another line has the same", line, "custom_id")
        self._seen.add(mark)
        return self._fault_of_model(line, body.get("model"))

    def _fault_of_model(self, line: Line, model: object) -> Json | None:
        if not isinstance(model, str):
            return None
        if self.model is not None and model != self.model:
            return _told("model_mismatch", f"model: must be that of the lines before, {self.model}", line, "model")
        self.model = model
        return None


class Maker:
    """Makes prompts of lines that are sound; the same request again wants another answer."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._copies: dict[bytes, int] = {}

    def make(self, lines: Iterable[Line]) -> list[NewLine]:
        """What the next lines ask, or the error of each that cannot be asked."""
        return list(self._made(lines))

    def _made(self, lines: Iterable[Line]) -> Iterator[NewLine]:
        for line in lines:
            given = _parsed(line)
            custom_id, body = given["custom_id"], given["body"]
            try:
                wish = wish_of(self._endpoint, body)
                if wish.stream:
                    raise FaultError(400, "stream: a batch is not streamed; leave it out", param="stream")
            except FaultError as error:
                yield NewLine(line.ordinal, custom_id, None, json.dumps(_error(error)))
            else:
                asked = replace(wish.asked, copy=self._copy(wish))
                request = new_request(asked, wish.max_tokens, wish.temperature, wish.extra)
                yield NewLine(line.ordinal, custom_id, request, None)

    def _copy(self, wish: Wish) -> int:
        asked = wish.asked
        stored = StoredRequest(asked.question, wish.max_tokens, wish.temperature, asked.turns, 0, wish.extra)
        mark = hashlib.blake2b(f"{asked.system}\0{stored.to_json()}".encode(), digest_size=16).digest()
        before = self._copies.get(mark, 0)
        self._copies[mark] = before + 1
        return before


def _error(error: FaultError) -> Json:
    fault = error.refused
    assert isinstance(fault, Fault)
    return error_body(fault.status, fault.detail, param=fault.param, code=fault.code)


def _parsed(line: Line) -> Json:
    if line.text is None:
        raise ValueError(f"it is longer than {LARGEST_LINE // 2**20} MiB")
    found = from_json(line.text.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _told(code: str, message: str, line: Line | None, param: str | None = None) -> Json:
    return {"code": code, "message": message, "param": param, "line": None if line is None else line.ordinal + 1}
