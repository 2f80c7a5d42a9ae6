"""`distllm db`: care of the database."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from distllm.cli.screen import Ticker, err, out, print_json, safe, tell
from distllm.domain.errors import DistllmError, UsageError
from distllm.domain.places import DatabasePlace, PostgresUrl, place_of
from distllm.domain.text import size_in_words
from distllm.domain.words import count
from distllm.store.backup import back_up
from distllm.store.checkup import Finding, Level, check
from distllm.store.engines import postgres
from distllm.store.locks import coordinator_lock, coordinator_pid
from distllm.store.migrate import revision_of, revisions, upgrade

EXIT_FAULTS = 1
QUIET_SECONDS = 2.0
WORTH_TELLING = 20_000_000
"""Bytes whose copying takes long enough to show how far it is."""


def show_path(db: Path, as_json: bool) -> int:
    """Print where the database is, or would be made."""
    if as_json:
        print_json({"path": str(db.absolute()), "exists": db.exists()})
        return 0
    out.print(safe(db.absolute()), soft_wrap=True)
    if not db.exists():
        err.print("it does not exist yet: `distllm submit` makes it", soft_wrap=True)
    return 0


def upgrade_schema(db: Path, as_json: bool) -> int:
    """Bring the database to the newest schema, and say what was done."""
    must_exist(db)
    before, newest = revision_of(db), revisions()[-1]
    if before != newest:
        pid = coordinator_pid(db)
        if pid is not None:
            raise DistllmError(f"process {pid} works {db}: stop it (Ctrl-C there), then upgrade")
        upgrade(db)
    if as_json:
        print_json({"path": str(db.absolute()), "before": before, "schema": newest, "changed": before != newest})
        return 0
    if before == newest:
        out.print(safe(f"{db} has the newest schema ({newest}) already."), soft_wrap=True)
        return 0
    done = f"made with schema {newest}" if before is None else f"brought from schema {before} to {newest}"
    out.print(safe(f"{db} was {done}."), soft_wrap=True)
    return 0


def check_database(db: Path, repair: bool, as_json: bool) -> int:
    """Look for faults, or mend them and look again; print a line for each finding. 1 if a fault is left."""
    must_exist(db)
    done = _repair(db) if repair else None
    findings = []
    for finding in check(db):
        findings.append(finding)
        if not as_json:
            tell(f"{finding.level:<6}{finding.about:<11} {finding.text}", hang=18)
    faults = [finding for finding in findings if finding.level is Level.FAULT]
    if as_json:
        facts = {"ok": not faults, "repaired": done, "findings": [asdict(finding) for finding in findings]}
        print_json(facts)
    elif done is not None:
        out.print(safe(f"repaired: {done}"), soft_wrap=True)
    return EXIT_FAULTS if faults else 0


def _repair(db: Path) -> str:
    """Mend what can be mended; return what was done."""
    with without_coordinator(db, "then repair"):
        before = list(check(db))
        damage = next((each for each in before if each.level is Level.FAULT and each.about == "structure"), None)
        if damage is not None:
            raise DistllmError(f"{db} is damaged, and nothing was changed: {damage.text}")
        if not any(each.repairable for each in before):
            return "nothing, since nothing was to be repaired"
        return asyncio.run(_mend(db, before))


async def _mend(db: Path, before: list[Finding]) -> str:
    from distllm.store.database import open_database
    from distllm.store.repair import repair

    async with open_database(db) as database:
        done = await database.write(lambda tx: repair(tx, time.time()))
    said = [f"{count(done.leases, 'lease')} given back"]
    if done.attempts:
        said.append(f"{count(done.attempts, 'attempt')} ended that nobody waits for")
    if done.waiting:
        said.append(f"{count(done.waiting, 'prompt')} made to wait for the right number of parts")
    wrong = sum(each.about == "counters" for each in before)
    if wrong:
        said.append(f"{count(wrong, 'counter')} counted anew")
    if done.reopened:
        said.append(f"{count(done.reopened, 'job')} reopened")
    if done.ended:
        said.append(f"{count(done.ended, 'job')} ended")
    return ", ".join(said)


@contextmanager
def without_coordinator(db: Path, remedy: str) -> Iterator[None]:
    """Be the only one who may move prompts, as a coordinator is."""
    lock = coordinator_lock(db)
    if not lock.try_acquire():
        raise DistllmError(f"process {lock.holder()} works {db}: stop it (Ctrl-C there), {remedy}")
    try:
        yield
    finally:
        lock.release()


def back_up_database(db: Path, target: Path, as_json: bool) -> int:
    """Copy the database while it is in use."""
    must_exist(db)
    if revision_of(db) is None:
        raise DistllmError(f"{db} is empty: there is nothing to copy")
    ticker = Ticker()

    def tell(done: int, total: int) -> None:
        if total >= WORTH_TELLING:
            ticker.show(f"{size_in_words(done)} of {size_in_words(total)} copied")

    try:
        size = back_up(db, target, tell)
    finally:
        ticker.clear()
    if as_json:
        print_json({"path": str(db.absolute()), "copy": str(target.absolute()), "bytes": size})
        return 0
    out.print(safe(f"{target} is a whole copy of {db} ({size_in_words(size)}), checked."), soft_wrap=True)
    return 0


def copy_to_server(db: DatabasePlace, target: str, as_json: bool) -> int:
    """Copy the database of a file to PostgreSQL, or go on with such a copy."""
    url = place_of(target)
    if isinstance(db, PostgresUrl) or not isinstance(url, PostgresUrl):
        raise UsageError("db copy goes from a file to PostgreSQL: distllm --db FILE db copy postgresql://HOST/NAME")
    must_exist(db)
    ticker = Ticker(QUIET_SECONDS)

    def show(done: str, rows: int, total: int) -> None:
        ticker.show(f"{rows:,} of {count(total, 'row')} {done}")

    try:
        with without_coordinator(db, "then copy"):
            copied = asyncio.run(postgres("copying").copy_database(db, url, show))
    finally:
        ticker.clear()
    if as_json:
        facts = {"path": str(db.absolute()), "copy": str(url), "rows": copied.rows, "changed": copied.changed}
        print_json(facts)
        return 0
    rows = count(sum(copied.rows.values()), "row")
    if not copied.changed:
        tell(f"{url} is a whole copy of {db} already ({rows}); nothing was changed.")
        return 0
    tell(f"{url} is a whole copy of {db} ({rows}), compared row by row. To go on there: distllm --db {url} resume")
    return 0


def must_exist(db: Path) -> None:
    """Raise DistllmError where there is no database: none is made to be cared for."""
    if not db.exists():
        raise DistllmError(f"there is no database {db} yet: `distllm submit` makes one, or name another with --db")
