"""How jobs are shown: pieces that one look and a watch share, at every width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from distllm.cli.screen import count, failed_prompt, number, safe, span, table

if TYPE_CHECKING:
    from distllm.insights import JobNow, Reading, Rest

Record = dict[str, Any]


def state_of(job: Record) -> str:
    """A job's state as people are told it."""
    state: str = job["state"] if job["submitted"] else "being built"
    return state


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
    return [_line(name, value) for name, value in _facts(now)]


def read_once(reading: "Reading", *, files: bool) -> str:
    """What reading cost a job beside the least that it could; `files` tells whether it is about documents."""
    if not reading.read + reading.found:
        return "not known: its server does not tell what it found cached"
    said = f"{number(reading.read)} tokens anew, {number(reading.found)} found cached"
    if reading.untold:
        return f"{said}; of {count(reading.untold, 'answer')} the server does not tell"
    if reading.ratio is None:
        return said
    said += f": {reading.ratio:.2f} x reading {'each document' if files else 'what prompts share'} once"
    return f"{said}; some was cached before" if round(reading.ratio, 2) < 1 else said


def _line(name: str, value: str) -> Text:
    return Text(safe(f"  {name:<12} {value}"))


def _facts(now: "JobNow") -> list[tuple[str, str]]:
    job, reading, eta, live = now.job, now.reading, now.eta, now.live
    counts = ", ".join(
        f"{number(job[state])} {state}" for state in ("pending", "leased", "failed", "cancelled") if job[state]
    )
    facts = [("answered", f"{number(job['done'])} of {number(job['total'])}" + (f" ({counts})" if counts else ""))]
    if job["parts"]:
        levels = count(job["levels"] or 1, "level")
        parts = f"{number(job['parts_done'])} of {number(job['parts'])} answered, to be put together in {levels}"
        if job["parts_truncated"]:
            parts += f"; {number(job['parts_truncated'])} cut at the token limit"
        facts.append(("parts", parts))
    if job["files"]:
        read = job["files"] - job["unreadable"] - job["copies"]
        facts.append(("documents", f"{number(read)} read of {number(job['files'])} files"))
    facts.append(("model", job["model"]))
    if job["prompt_tokens"]:
        facts.append(
            ("tokens", f"{number(job['prompt_tokens'])} asked about, {number(job['completion_tokens'])} written")
        )
    if reading is not None:
        facts.append(("read", read_once(reading, files=bool(job["files"]))))
    if job["reused"]:
        facts.append(("reused", f"{count(job['reused'], 'answer')} of earlier jobs, not asked again"))
    if job["truncated"]:
        facts.append(("cut", f"{count(job['truncated'], 'answer')} at the token limit"))
    if job["unproven"]:
        facts.append(("unproven", f"{count(job['unproven'], 'answer')}: not certain that all that was sent was read"))
    if job["started_at"]:
        facts.append(("started", job["started_at"]))
    if job["finished_at"]:
        took = span(job["ended"] - job["began"]) if job["began"] else ""
        facts.append(("finished", f"{job['finished_at']}{f', after {took}' if took else ''}"))
    elif not job["submitted"] and not job["files"]:
        facts.append(("left", "its program goes on with it when it makes the same batch again"))
    elif live is None:
        facts.append(("coordinator", f"none is live; go on with: distllm resume {job['job_id']}"))
    else:
        facts.append(("coordinator", f"process {live}"))
        if now.rests is not None:
            facts.append(("waits", f"for the working hours: goes on at {now.rests.until:%H:%M}"))
        facts.append(("left", f"about {span(eta)}" if eta is not None else "not known yet"))
    return facts
