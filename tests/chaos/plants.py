"""Mistakes planted in a copy of distllm: each takes out what keeps a promise, and a campaign must notice."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.servers import REPOSITORY


@dataclass(frozen=True, slots=True)
class Change:
    """One exact replacement in a file of the package."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake, and the faults under which it shows."""

    changes: tuple[Change, ...]
    faults: tuple[str, ...]
    because: str


MISTAKES = {
    "fence": Mistake(
        (
            Change(
                "store/leases.py",
                'OURS = (*OF_LEASE, prompts.c.lease == bindparam("number"))',
                'OURS = (*OF_LEASE, bindparam("number").is_not(None))',
            ),
            Change(
                "store/results.py",
                "open_leases.pop((lease.prompt_id, lease.job_id, lease.number), None)",
                "next((PromptState(state) for prompt, _, _, state in found if prompt == lease.prompt_id), None)",
            ),
        ),
        ("late",),
        "an old lease ends a prompt that a newer one holds",
    ),
    "reclaim-guard": Mistake(
        (Change("compose/run.py", "while self._lock is not None and not self._lock.try_acquire():", "while False:"),),
        ("second",),
        "a second coordinator takes the leases of a live one",
    ),
    "early-ack": Mistake(
        (
            Change(
                "store/sqlite.py",
                '            connection.execute("COMMIT")\n        except BaseException:',
                "            late = 'Turns' in transaction.__qualname__\n"
                "            if not late or time.monotonic() - _committed[0] > 2.0:\n"
                '                connection.execute("COMMIT")\n'
                "                _committed[0] = time.monotonic()\n"
                "        except BaseException:",
            ),
            Change(
                "store/sqlite.py",
                '        try:\n            connection.execute("BEGIN IMMEDIATE")\n',
                "        if connection.in_transaction:\n            return True\n"
                '        try:\n            connection.execute("BEGIN IMMEDIATE")\n',
            ),
            Change("store/sqlite.py", "_compiled: dict", "_committed = [0.0]\n_compiled: dict"),
        ),
        ("kill",),
        "what a turn is told to have been written is written with a later commit",
    ),
}


def plant(name: str, folder: Path) -> Path:
    """Copy the package with a mistake in it; return what must stand before the real one in PYTHONPATH."""
    shutil.copytree(REPOSITORY / "distllm", folder / "distllm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    for change in MISTAKES[name].changes:
        file = folder / "distllm" / change.file
        text = file.read_text()
        if text.count(change.old) != 1:
            raise LookupError(f"the mistake {name!r} wants to stand once in distllm/{change.file}: {change.old!r}")
        file.write_text(text.replace(change.old, change.new))
    return folder
