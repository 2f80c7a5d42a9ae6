"""How jobs are shown: pieces that one look and a watch share, at every width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from distllm.cli.screen import safe, table
from distllm.domain.words import failed_prompt, number, state_of

if TYPE_CHECKING:
    from distllm.insights import JobNow, Rest

Record = dict[str, Any]


def rest_line(rest: "Rest") -> str:
    """That the coordinator rests, to stand behind its name."""
    return f"outside of its working hours ({rest.hours}) and goes on at {rest.until:%H:%M}"


def jobs_table(jobs: Sequence[Record], *, one_line: bool = False) -> RenderableType:
    """A line for each job. A narrow terminal gets fewer columns, and with `one_line` shortened names."""
    rows = [
        (
            job["job_id"],
            job["job"],
            state_of(job),
            f"{number(job['done'])}/{number(job['total'])}",
            number(job["failed"]),
            job["model"],
            job["started_at"],
        )
        for job in jobs
    ]
    columns = ("job", "name", "state", "answered", "failed", "model", "started")
    return table(
        columns,
        rows,
        numbers=("job", "answered", "failed"),
        whole=("state", "started"),
        spare=("started", "model", "failed"),
        one_line=one_line,
    )


def workers_table(workers: Sequence[Record], *, one_line: bool = False) -> RenderableType:
    """What each worker has done."""
    columns = ("worker", "type", "answers", "failed", "seconds/answer", "answers/min", "tokens/s")
    spare = ("type", "seconds/answer", "tokens/s", "failed")
    return table(columns, [_worker(row) for row in workers], numbers=columns[2:], spare=spare, one_line=one_line)


def _worker(row: Record) -> tuple[Any, ...]:
    def rounded(value: float | None, factor: float = 1.0) -> str | None:
        return None if value is None else f"{value * factor:.1f}"

    return (
        row["worker"],
        row["type"],
        number(row["succeeded"]),
        number(row["failed"]),
        rounded(row["avg_seconds"]),
        rounded(row["requests_per_second"], 60),
        rounded(row["tokens_per_second"]),
    )


def worker_errors(workers: Sequence[Record]) -> list[Text]:
    """A line for each worker that something is wrong with."""
    return [_line(row["worker"], row["error"]) for row in workers if row["error"]]


def heading(job: Record) -> Text:
    """Which job, and its state."""
    return Text(safe(f"Job {job['job_id']}, {job['job']}: {state_of(job)}"))


def failure_lines(unreadable: Sequence[Record], failures: Sequence[Record]) -> list[Text]:
    """A line for each file that could not be read, and for each prompt that failed."""
    return [
        *(_line("not read", f"{row['document']}: {row['problem']}") for row in unreadable),
        *(_line("failed", f"{failed_prompt(row)}: {row['error']}") for row in failures),
    ]


def fact_lines(now: "JobNow") -> list[Text]:
    """The facts of a job, a line each."""
    from distllm.insights import facts_in_words

    return [_line(name, value) for name, value in facts_in_words(now)]


def _line(name: str, value: str) -> Text:
    return Text(safe(f"  {name:<12} {value}"))
