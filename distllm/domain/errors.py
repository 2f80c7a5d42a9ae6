"""Errors that a person sees as one line.

DistllmError            something is wrong; exit code 1
+-- UsageError          what was asked for makes no sense; exit code 2
|   +-- NoJobError      there is no job of that number
+-- NoWorkerError       nobody is there to answer; exit code 4
"""


class DistllmError(Exception):
    """A line for people: what is wrong, where, and what to do about it."""

    exit_code = 1


class UsageError(DistllmError):
    """The command or its configuration cannot be followed as given."""

    exit_code = 2


class NoJobError(UsageError):
    """There is no job of that number."""

    def __init__(self, job_id: int) -> None:
        super().__init__(f"there is no job {job_id}: `distllm status` lists them")


class NoWorkerError(DistllmError):
    """No worker is healthy, or there is none."""

    exit_code = 4
