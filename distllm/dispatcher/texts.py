"""What is rendered only when it is sent: a reading once for all its prompts, questions once for each job."""

import json
from dataclasses import replace

from distllm.domain.models import Call, StoredRequest, Template
from distllm.presets import render_question, render_system
from distllm.store.leases import Group, Lease
from distllm.store.reads import Reader


class Texts:
    """Questions by the id of their template, read once a job; other prompts bring their own."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._jobs: set[int] = set()
        self._questions: dict[int, StoredRequest] = {}

    async def learn(self, job_ids: set[int]) -> None:
        """Read the questions of jobs that are new here."""
        for job_id in job_ids - self._jobs:
            for row in await self._reader.templates(job_id):
                text = render_question(Template(row["name"], row["text"]))
                temperature = json.loads(row["params"])["temperature"]
                self._questions[row["template_id"]] = StoredRequest(text, row["max_tokens"], temperature)
            self._jobs.add(job_id)

    def question(self, lease: Lease) -> StoredRequest:
        """The question that the template of a leased prompt asks."""
        assert lease.template_id is not None
        return self._questions[lease.template_id]

    def call(self, lease: Lease, group: Group, model: str) -> Call:
        """The request for a leased prompt of a `rendered` group, to a server that calls the model `model`."""
        asked = self.question(lease) if lease.body is None else StoredRequest.from_json(lease.body)
        max_tokens = lease.max_tokens or asked.max_tokens
        return Call(
            model=model,
            system=group.system or "",
            question=asked.question,
            max_tokens=max_tokens,
            temperature=asked.temperature,
            tokens=lease.needs - max_tokens,
            turns=asked.turns,
        )


def rendered(group: Group) -> Group:
    """The same prompts, with their document as the system message that it is sent as."""
    return group if group.document is None else replace(group, document=None, system=render_system(group.document))
