"""The results of a batch: two files of lines, what was answered and what was not."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distllm.domain.models import ErrorClass
from distllm.domain.states import PromptState
from distllm.service.openai.answers import answer_body, usage_of
from distllm.service.openai.faults import error_body
from distllm.service.openai.writing import KEPT_SECONDS, FileWriter
from distllm.store.batches import Ended, end_batch, line_page, wait_again
from distllm.store.database import Database
from distllm.store.files import NewFile, drop_file, drop_half_written, end_file
from distllm.store.reads import PAGE_ROWS, Record
from distllm.store.tx import StoreError, Tx

Json = dict[str, Any]
PURPOSE = "batch_output"


@dataclass
class Results:
    """Writes what came of a batch, and then ends it as `completed`, `expired` or `cancelled`.

    Killed before the end it has done nothing that anybody sees; called again, it begins anew.
    """

    database: Database
    batch: Record
    now: float
    completed: int = 0
    failed: int = 0
    left: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    _files: dict[str, FileWriter] = field(default_factory=dict)

    async def write(self) -> str:
        """Do it; the state of the batch then, which is `in_progress` again if its job was retried meanwhile."""
        try:
            return await self._write()
        except Exception:
            for which in self._files:
                # What is told is what went wrong first; whoever writes next drops what stays.
                with suppress(StoreError):
                    await self._drop(which)
            raise

    async def _write(self) -> str:
        for which in ("output", "error"):
            await self._drop(which)
        expired = self._too_late()
        after = -1
        while rows := await line_page(self.database.read, self.batch["id"], after, PAGE_ROWS):
            for row in rows:
                await self._line(row, expired=expired)
            after = rows[-1]["ordinal"]
        for writer in self._files.values():
            await writer.flush()
        return await self.database.write(self._end)

    def _too_late(self) -> bool:
        began = self.batch["finalizing_at"]
        return self.batch["cancelling_at"] is None and began is not None and began >= self.batch["expires_at"]

    async def _line(self, row: Record, *, expired: bool) -> None:
        if row["refused"] is not None:
            self.failed += 1
            await self._put("error", row, self._response(row, 400, json.loads(row["refused"])))
        elif row["state"] == PromptState.DONE:
            self.completed += 1
            await self._put("output", row, self._response(row, 200, self._answer(row)))
        elif row["state"] == PromptState.FAILED:
            self.failed += 1
            # What no window holds fails without being asked.
            code = "context_length_exceeded" if row["unasked"] else None
            status = 400 if row["unasked"] or row["outcome"] == ErrorClass.INPUT else 500
            message = row["error"] or "it was asked in vain"
            await self._put("error", row, self._response(row, status, error_body(status, message, code=code)))
        else:
            self.left += 1
            if expired:
                self.failed += 1
                message = "This request could not be executed before the completion window expired."
                error = {"code": "batch_expired", "message": message}
                await self._put("error", row, {"response": None, "error": error})

    def _answer(self, row: Record) -> Json:
        self.prompt_tokens += row["prompt_tokens"] or 0
        self.cached_tokens += row["cached_tokens"] or 0
        self.completion_tokens += row["completion_tokens"] or 0
        return answer_body(
            self.batch["endpoint"],
            self._key(row),
            row["finished_at"],
            row["model"],
            row["answer"],
            row["thinking"],
            row["finish_reason"],
            usage_of(row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]),
        )

    def _response(self, row: Record, status: int, body: Json) -> Json:
        response = {"status_code": status, "request_id": f"req_{self._key(row)}", "body": body}
        return {"response": response, "error": None}

    def _key(self, row: Record) -> str:
        """Of a line: the same whenever its results are written."""
        return f"{self.batch['key'].removeprefix('batch_')}{row['ordinal']:06x}"

    async def _put(self, which: str, row: Record, came: Json) -> None:
        if which not in self._files:
            new = NewFile(self._name(which), PURPOSE, self.now)
            self._files[which] = await FileWriter.begin(self.database, new)
        line = {"id": f"batch_req_{self._key(row)}", "custom_id": row["custom_id"]} | came
        await self._files[which].write(json.dumps(line).encode() + b"\n")

    async def _drop(self, which: str) -> None:
        await self.database.write(partial(drop_half_written, filename=self._name(which), purpose=PURPOSE))

    def _name(self, which: str) -> str:
        return f"{self.batch['key']}_{which}.jsonl"

    def _end(self, tx: Tx) -> str:
        cancelling, expired = self.batch["cancelling_at"] is not None, self._too_late()
        if not (cancelling or expired) and wait_again(tx, self.batch["id"], self.batch["job_finished_at"]):
            for writer in self._files.values():
                drop_file(tx, writer.file_id)
            return "in_progress"
        status = "completed"
        if cancelling or self.left:
            status = "expired" if expired else "cancelled"
        until = self.now + (self.batch["output_seconds"] or KEPT_SECONDS)
        keys = {which: end_file(tx, writer.file_id, writer.size, until) for which, writer in self._files.items()}
        usage = {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        ended = Ended(status, keys.get("output"), keys.get("error"), self.completed, self.failed, json.dumps(usage))
        return end_batch(tx, self.batch["id"], ended, self.now)
