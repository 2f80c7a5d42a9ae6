"""`distllm db`: care of the database."""

import asyncio
import shlex
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
from distllm.store.checkup import check
from distllm.store.engines import postgres
from distllm.store.findings import Finding, Level
from distllm.store.locks import coordinator_lock, coordinator_pid
from distllm.store.migrate import revision_of, revisions, upgrade

EXIT_FAULTS = 1
QUIET_SECONDS = 2.0
WORTH_TELLING = 20_000_000
"""Bytes whose copying takes long enough to show how far it is."""


def show_path(db: DatabasePlace, as_json: bool) -> int:
    """Print where the database is, or would be made. Whether there is one on a server is not looked at."""
    exists = None if isinstance(db, PostgresUrl) else db.exists()
    if as_json:
        print_json({"path": whole(db), "exists": exists})
        return 0
    out.print(safe(whole(db)), soft_wrap=True)
    if exists is False:
        err.print("it does not exist yet: `distllm submit` makes it", soft_wrap=True)
    return 0


def whole(db: DatabasePlace) -> str:
    """A place as programs are told it: the whole path, or the URL without its password."""
    return str(db) if isinstance(db, PostgresUrl) else str(db.absolute())


def upgrade_schema(db: DatabasePlace, as_json: bool) -> int:
    """Bring the database to the newest schema, and say what was done."""
    must_exist(db)
    before, newest = _revision(db), revisions()[-1]
    if before != newest:
        pids = _working(db)
        if pids:
            raise DistllmError(f"process {pids[0]} works {db}: stop it (Ctrl-C there), then upgrade")
        _upgrade(db)
    if as_json:
        print_json({"path": whole(db), "before": before, "schema": newest, "changed": before != newest})
        return 0
    if before == newest:
        out.print(safe(f"{db} has the newest schema ({newest}) already."), soft_wrap=True)
        return 0
    done = f"made with schema {newest}" if before is None else f"brought from schema {before} to {newest}"
    out.print(safe(f"{db} was {done}."), soft_wrap=True)
    return 0


def _revision(db: DatabasePlace) -> str | None:
    if isinstance(db, PostgresUrl):
        revision: str | None = asyncio.run(postgres("schema").server_revision(db))
        return revision
    return revision_of(db)


def _working(db: DatabasePlace) -> list[int]:
    if isinstance(db, PostgresUrl):
        pids: list[int] = postgres("checkup").working(db)
        return pids
    pid = coordinator_pid(db)
    return [] if pid is None else [pid]


def _upgrade(db: DatabasePlace) -> None:
    if isinstance(db, PostgresUrl):
        asyncio.run(postgres("schema").upgrade_server(db))
    else:
        upgrade(db)


def check_database(db: DatabasePlace, repair: bool, as_json: bool) -> int:
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


def _repair(db: DatabasePlace) -> str:
    """Mend what can be mended; return what was done."""
    with without_coordinator(db, "then repair"):
        before = list(check(db))
        damage = next((each for each in before if each.level is Level.FAULT and each.about == "structure"), None)
        if damage is not None:
            raise DistllmError(f"{db} is damaged, and nothing was changed: {damage.text}")
        if not any(each.repairable for each in before):
            return "nothing, since nothing was to be repaired"
        return asyncio.run(_mend(db, before))


async def _mend(db: DatabasePlace, before: list[Finding]) -> str:
    from distllm.store.database import open_database
    from distllm.store.repair import LiveError, repair

    async with open_database(db) as database:
        try:
            done = await database.write(lambda tx: repair(tx, time.time()))
        except LiveError as error:
            raise DistllmError(f"process {error.pid} works {db}: stop it (Ctrl-C there), then repair") from error
    said = [f"{count(done.leases, 'lease')} given back"]
    if done.attempts:
        said.append(f"{count(done.attempts, 'attempt')} ended that nobody waits for")
    if done.waiting:
        said.append(f"{count(done.waiting, 'prompt')} made to wait for the right number of parts")
    wrong = sum(each.about == "counters" and each.repairable for each in before)
    if wrong:
        said.append(f"{count(wrong, 'counter')} counted anew")
    if done.reopened:
        said.append(f"{count(done.reopened, 'job')} reopened")
    if done.ended:
        said.append(f"{count(done.ended, 'job')} ended")
    return ", ".join(said)


@contextmanager
def without_coordinator(db: DatabasePlace, remedy: str) -> Iterator[None]:
    """Be the only one who may move prompts of a file, as a coordinator is. On a server a transaction sees to it."""
    if isinstance(db, PostgresUrl):
        yield
        return
    lock = coordinator_lock(db)
    if not lock.try_acquire():
        raise DistllmError(f"process {lock.holder()} works {db}: stop it (Ctrl-C there), {remedy}")
    try:
        yield
    finally:
        lock.release()


def back_up_database(db: DatabasePlace, target: Path, as_json: bool) -> int:
    """Copy the database while it is in use."""
    if isinstance(db, PostgresUrl):
        dump = f"pg_dump --format=custom --file={shlex.quote(str(target))} {shlex.quote(str(db))}"
        raise UsageError(f"a copy of a database on PostgreSQL is made by its own program: {dump}")
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
        print_json({"path": whole(db), "copy": str(target.absolute()), "bytes": size})
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
        facts = {"path": whole(db), "copy": str(url), "rows": copied.rows, "changed": copied.changed}
        print_json(facts)
        return 0
    rows = count(sum(copied.rows.values()), "row")
    if not copied.changed:
        tell(f"{url} is a whole copy of {db} already ({rows}); nothing was changed.")
        return 0
    tell(f"{url} is a whole copy of {db} ({rows}), compared row by row. To go on there: distllm --db {url} resume")
    return 0


def must_exist(db: DatabasePlace) -> None:
    """Raise DistllmError where there is no file: none is made to be cared for."""
    if isinstance(db, Path) and not db.exists():
        raise DistllmError(f"there is no database {db} yet: `distllm submit` makes one, or name another with --db")
