"""What is rendered only when it is sent: a reading once for all its prompts, questions once for each job."""

import json
from dataclasses import dataclass, replace

from distllm.domain.models import Call, StoredRequest, Template
from distllm.domain.tokens import FRAME_TOKENS, estimate_tokens
from distllm.presets import MERGE_SYSTEM, render_merge, render_part_question, render_question, render_system
from distllm.store.leases import Group, Lease
from distllm.store.reads import Reader


@dataclass(frozen=True, slots=True)
class _Asked:
    """A template of a job, and what it asks about a whole text."""

    template: Template
    request: StoredRequest


class Texts:
    """Questions by the id of their template, read once a job; other prompts bring their own."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._jobs: set[int] = set()
        self._asked: dict[int, _Asked] = {}

    async def learn(self, job_ids: set[int]) -> None:
        """Read the questions of jobs that are new here."""
        for job_id in job_ids - self._jobs:
            for row in await self._reader.templates(job_id):
                template = Template(row["name"], row["text"], row["max_tokens"], row["merge"])
                temperature = json.loads(row["params"])["temperature"]
                request = StoredRequest(render_question(template), row["max_tokens"], temperature)
                self._asked[row["template_id"]] = _Asked(template, request)
            self._jobs.add(job_id)

    def call(self, lease: Lease, group: Group, model: str) -> Call:
        """The request for a leased prompt of a `rendered` group, to a server that calls the model `model`."""
        asked = self._request(lease)
        max_tokens = lease.max_tokens or asked.max_tokens
        system, tokens = group.system or "", lease.needs - max_tokens
        if lease.level:
            # The answers to be put together are known by now, and are rarely as long as they might have been.
            system = MERGE_SYSTEM
            sent = estimate_tokens(system) + estimate_tokens(asked.question) + 2 * FRAME_TOKENS
            tokens = min(tokens, sent)
        return Call(
            model=model,
            system=system,
            question=asked.question,
            max_tokens=max_tokens,
            temperature=asked.temperature,
            tokens=tokens,
            turns=asked.turns,
            extra=asked.extra,
        )

    def _request(self, lease: Lease) -> StoredRequest:
        if lease.body is not None:
            return StoredRequest.from_json(lease.body)
        assert lease.template_id is not None
        asked = self._asked[lease.template_id]
        if lease.level:
            return replace(asked.request, question=render_merge(asked.template, lease.answers))
        if lease.part is not None and lease.parts is not None:
            return replace(asked.request, question=render_part_question(asked.template, lease.part, lease.parts))
        return asked.request


def rendered(group: Group) -> Group:
    """The same prompts, with their document as the system message that it is sent as."""
    return group if group.document is None else replace(group, document=None, system=render_system(group.document))
