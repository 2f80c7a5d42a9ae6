"""What is rendered only when it is sent: questions and their parameters, remembered for each job."""

import json
from dataclasses import dataclass

from distllm.domain.models import Call, Template
from distllm.presets import render_question, render_system
from distllm.store.leases import Group, Lease
from distllm.store.reads import Reader


@dataclass(frozen=True, slots=True)
class Question:
    """A template as it is sent, with its job's parameters."""

    text: str
    max_tokens: int
    temperature: float


class Texts:
    """Questions by the id of their template, read once a job."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._jobs: set[int] = set()
        self._questions: dict[int, Question] = {}

    async def learn(self, job_ids: set[int]) -> None:
        """Read the questions of jobs that are new here."""
        for job_id in job_ids - self._jobs:
            for row in await self._reader.templates(job_id):
                text = render_question(Template(row["name"], row["text"]))
                temperature = json.loads(row["params"])["temperature"]
                self._questions[row["template_id"]] = Question(text, row["max_tokens"], temperature)
            self._jobs.add(job_id)

    def question(self, lease: Lease) -> Question:
        """The question that a leased prompt asks."""
        return self._questions[lease.template_id]

    def call(self, lease: Lease, group: Group, model: str) -> Call:
        """The request for a leased prompt, to a server that calls the model `model`."""
        question = self._questions[lease.template_id]
        max_tokens = lease.max_tokens or question.max_tokens
        system = group.system if group.document is None else render_system(group.document)
        return Call(
            model=model,
            system=system or "",
            question=question.text,
            max_tokens=max_tokens,
            temperature=question.temperature,
            tokens=lease.needs - max_tokens,
        )
