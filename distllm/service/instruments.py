"""What the service counts for Prometheus, made from events, the store's commits and the database."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics_core import Metric

from distllm.balancer.breaker import BreakerState
from distllm.domain.events import Answered, Event, Leased, TriedInVain
from distllm.domain.models import Usage
from distllm.domain.states import PromptState
from distllm.store.reads import Record

_ANSWERING = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
"""Seconds: from a cached question to a long paper on a small machine."""

_WRITING = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Instruments:
    """Counts since the start of this process, of the `workers` named alone."""

    def __init__(self, version: str, workers: Collection[str]) -> None:
        self._workers = workers
        own = self._registry = CollectorRegistry()
        self._prompts = Gauge("distllm_prompts", "Prompts of all jobs by state.", ["state", "kind"], registry=own)
        self._attempts = Counter(
            "distllm_attempts", "Requests that ended: done, or why not.", ["worker", "outcome"], registry=own
        )
        self._first_token = Histogram(
            "distllm_first_token_seconds", "Until the first token.", ["worker"], registry=own, buckets=_ANSWERING
        )
        self._answer = Histogram(
            "distllm_answer_seconds", "Until the whole answer.", ["worker"], registry=own, buckets=_ANSWERING
        )
        self._tokens = Counter(
            "distllm_tokens",
            "What servers tell of answers: tokens read anew, found cached, and written.",
            ["worker", "kind"],
            registry=own,
        )
        self._lease = Histogram(
            "distllm_lease_seconds",
            "From asking for prompts to having leased them, committed.",
            registry=own,
            buckets=_WRITING,
        )
        self._commit = Histogram(
            "distllm_commit_seconds", "How long the disk takes for a COMMIT.", registry=own, buckets=_WRITING
        )
        self._healthy = Gauge("distllm_worker_healthy", "1 if its last probe was answered.", ["worker"], registry=own)
        self._breaker = Gauge(
            "distllm_worker_breaker", "1 for the state at its last probe.", ["worker", "state"], registry=own
        )
        Info("distllm_build", "The version of distllm.", registry=own).info({"version": version})

    def observe(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case Answered():
                self._attempts.labels(event.worker, "done").inc()
                self._answer.labels(event.worker).observe(event.seconds)
                if event.first_token_seconds is not None:
                    self._first_token.labels(event.worker).observe(event.first_token_seconds)
                self._count_tokens(event.worker, event.usage)
            case TriedInVain():
                self._attempts.labels(event.worker, event.error_class).inc()
            case Leased():
                self._lease.observe(event.seconds)
            case _:
                pass

    def observe_commit(self, seconds: float) -> None:
        """Take in how long a COMMIT took. May be called from any thread."""
        self._commit.observe(seconds)

    def show(self, depth: Sequence[Record], workers: Sequence[Record]) -> bytes:
        """All figures in Prometheus' text format, with the rows of `store.depth` and of `Reader.workers`."""
        for row in depth:
            for state in PromptState:
                self._prompts.labels(state, "part" if row["part"] else "whole").set(row[state])
        for row in workers:
            if row["worker"] in self._workers:
                self._healthy.labels(row["worker"]).set(row["healthy"] or 0)
                for breaker in BreakerState:
                    self._breaker.labels(row["worker"], breaker).set(row["breaker"] == breaker)
        return generate_latest(_WithoutBirthdays(self._registry))

    def _count_tokens(self, worker: str, usage: Usage) -> None:
        cached = usage.cached_tokens or 0
        counts = {
            "read": max(0, (usage.prompt_tokens or 0) - cached),
            "cached": cached,
            "written": usage.completion_tokens or 0,
        }
        for kind, count in counts.items():
            self._tokens.labels(worker, kind).inc(count)


@dataclass(frozen=True, slots=True)
class _WithoutBirthdays:
    """A registry that leaves out when each series began, which would be as many series again."""

    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
