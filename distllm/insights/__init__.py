"""What people ask about their jobs, answered by reading alone: for the command line and all that follows."""

from distllm.insights.jobs import (
    NEWEST_FAILURES,
    JobNow,
    OwnPrompt,
    Paper,
    Progress,
    Reading,
    Rest,
    job_now,
    own_prompts,
    papers,
    progress,
    reading,
    resting,
    time_left,
)
from distllm.insights.telling import facts_in_words, read_once

__all__ = [
    "NEWEST_FAILURES",
    "JobNow",
    "OwnPrompt",
    "Paper",
    "Progress",
    "Reading",
    "Rest",
    "facts_in_words",
    "job_now",
    "own_prompts",
    "papers",
    "progress",
    "read_once",
    "reading",
    "resting",
    "time_left",
]
