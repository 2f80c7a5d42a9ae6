"""Where a job stands, in words: those of the command line and of the page."""

from distllm.domain.words import count, number, span
from distllm.insights.jobs import JobNow, Reading


def read_once(reading: Reading, *, files: bool) -> str:
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


def facts_in_words(now: JobNow) -> list[tuple[str, str]]:
    """The facts of a job, each with its name."""
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
