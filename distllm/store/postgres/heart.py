"""A coordinator's life on PostgreSQL.

It has a connection for this alone, which holds a lock of the session under its id and renews its row. Whose lock is
free is dead, and is buried once its row has run out: until then it has had the time to notice the loss of its
connection and to end its requests. Whose lock is held may be frozen: it is buried later, and its workers are left alone
until its lock is free, or the last of its requests must have ended. So is who has not renewed since the server began:
no lock outlives that. Another process of the same machine needs no lock to see that it is gone. All times are the
database's.
"""

import asyncio
import json
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.util.concurrency import greenlet_spawn

from distllm.domain.places import PostgresUrl
from distllm.store.hearts import Beat, Heart, LostError
from distllm.store.leases import take_back
from distllm.store.machines import is_gone, this_machine
from distllm.store.postgres.connection import AWAY, ME, connect, unreachable
from distllm.store.postgres.writer import IDLE, PostgresTx
from distllm.store.suspects import condemn
from distllm.store.tx import Tx, as_list

T = TypeVar("T")

ALIVE_SECONDS = 1.5
"""How long a row lasts without being renewed."""

FROZEN_SECONDS = 10.0
"""How long beyond that a coordinator is waited for whose connection is there."""

BEAT_SECONDS = 5.0
"""A renewal that takes longer than this is a lost connection."""

_NOW = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
_KEY = "hashtext('distllm coordinator')"

_REGISTER = f"""
INSERT INTO coordinators (host, pid, started_at, alive_until) VALUES ($1, $2, {_NOW}, {_NOW} + $3) RETURNING id
"""
_LOCK = f"SELECT pg_advisory_lock({_KEY}, $1)"
_SUCCEED = f"UPDATE coordinators SET ended_at = coalesce(ended_at, {_NOW}), busy_until = 0 WHERE id = $1"
_INHERIT = "UPDATE workers SET coordinator_id = $2 WHERE coordinator_id = $1"

_RENEW = text(f"""
UPDATE coordinators SET alive_until = {_NOW} + CAST(:alive AS double precision),
       busy_until = CASE WHEN CAST(:busy AS double precision) > 0 THEN {_NOW} + CAST(:busy AS double precision)
                         ELSE 0 END
 WHERE id = :me AND ended_at IS NULL
""")
_GIVE_BACK = text("""
UPDATE workers SET coordinator_id = NULL WHERE coordinator_id = :me AND id = ANY(CAST(:idle AS bigint[]))
""")
# Rarely: a list of many workers is too long to be written with each renewal.
_WANT = text("UPDATE coordinators SET wants = :wants WHERE id = :me")
_WANTED = text(f"""
SELECT id, wants FROM coordinators WHERE ended_at IS NULL AND alive_until > {_NOW} AND wants <> '[]'
""")
# Whose it was has ended, and so have all its requests.
_FREE = f"""
(w.coordinator_id IS NULL OR EXISTS
 (SELECT 1 FROM coordinators c WHERE c.id = w.coordinator_id AND c.ended_at IS NOT NULL AND c.busy_until <= {_NOW}))
"""
_OWNERS = text(f"SELECT w.id, CASE WHEN {_FREE} THEN NULL ELSE w.coordinator_id END FROM workers w")
_TAKE = text(f"""
UPDATE workers SET coordinator_id = CAST(:me AS bigint)
 WHERE id IN (SELECT w.id FROM workers w WHERE w.id = ANY(CAST(:workers AS bigint[])) AND {_FREE}
               ORDER BY w.id FOR UPDATE OF w SKIP LOCKED)
RETURNING id
""")
# Those who are late, and those who have ended without a proof that their requests have.
_LATE = text(f"""
WITH late AS MATERIALIZED (
  SELECT id, host, pid, ended_at, coalesce(alive_until, 0) AS alive_until FROM coordinators
   WHERE id <> :me AND coalesce(alive_until, 0) < {_NOW} AND (ended_at IS NULL OR busy_until > {_NOW}))
SELECT id, host, pid, ended_at IS NOT NULL,
       pg_try_advisory_xact_lock({_KEY}, CAST(id AS integer))
       AND (alive_until = 0 OR alive_until - CAST(:alive AS double precision)
                               > CAST(extract(epoch FROM pg_postmaster_start_time()) AS double precision)),
       alive_until < {_NOW} - CAST(:frozen AS double precision)
  FROM late ORDER BY id
""")
_BURY = text(f"""
UPDATE coordinators SET ended_at = {_NOW}, busy_until = CASE WHEN CAST(:proven AS boolean) THEN 0 ELSE busy_until END
 WHERE id = :dead AND ended_at IS NULL AND coalesce(alive_until, 0) < {_NOW}
""")
_REST = text("UPDATE coordinators SET busy_until = 0 WHERE id = :dead AND ended_at IS NOT NULL")


class Connected(Protocol):
    """What has connections to the server."""

    def drop(self) -> None:
        """Have whoever waits on one be told that it is lost, and the next open another."""


class PostgresHeart(Heart):
    """The connection of a coordinator, opened once. Where it is lost, so are those of `others`: nobody waits there."""

    def __init__(
        self, url: PostgresUrl, connection: "asyncpg.Connection", coordinator_id: int, others: Sequence[Connected]
    ) -> None:
        self.id = coordinator_id
        self._url = url
        self._connection = connection
        self._others = others
        self._turn = asyncio.Lock()
        self._wants: frozenset[int] = frozenset()

    def hear_loss(self, hear: Callable[[], object]) -> None:
        """Have `hear` called at the moment when the connection is lost."""
        self._connection.add_termination_listener(lambda _: hear())

    async def beat(self, workers: Collection[int], idle: Collection[int], busy_seconds: float) -> Beat:
        """Renew, give the `idle` workers back, and look around."""
        values = {**self._values, "idle": list(idle), "busy": busy_seconds}
        wants = frozenset(workers)
        beat = await self._transact(lambda tx: _beat(tx, values, wants, known=wants == self._wants))
        self._wants = wants
        return beat

    async def take(self, workers: Collection[int]) -> frozenset[int]:
        """Make those of `workers` that are free this coordinator's; return these."""
        values = {"me": self.id, "workers": list(workers)}
        return await self._transact(lambda tx: frozenset(worker for (worker,) in tx.rows(_TAKE, values)))

    def bury(self, tx: Tx, now: float) -> int:
        """Take back what the dead have left; return how many have just been found dead."""
        buried = 0
        for dead, ended, proven in _dead(tx, self._values):
            if ended:
                tx.run(_REST, {"dead": dead})
            else:
                buried += tx.run(_BURY, {"dead": dead, "proven": proven})
        take_back(tx, now, died=buried > 0)
        condemn(tx, now)
        if buried:
            tx.announce()
        return buried

    async def close(self) -> None:
        """Let go of the lock."""
        self._connection.terminate()

    @property
    def _values(self) -> dict[str, Any]:
        return {"me": self.id, "alive": ALIVE_SECONDS, "frozen": FROZEN_SECONDS}

    async def _transact(self, transaction: Callable[[Tx], T]) -> T:
        try:
            # Each statement by itself: who is frozen between two of them keeps nobody from its row.
            async with asyncio.timeout(BEAT_SECONDS), self._turn:
                value: T = await greenlet_spawn(transaction, PostgresTx(self._connection, 0))
                return value
        except (*AWAY, asyncpg.PostgresError) as error:
            for other in self._others:
                other.drop()
            raise LostError(str(unreachable(self._url, error))) from error


def _beat(tx: Tx, values: dict[str, Any], wants: frozenset[int], *, known: bool) -> Beat:
    if not tx.run(_RENEW, values):
        raise LostError("others have taken this coordinator for dead: it did not renew its row in time")
    tx.run(_GIVE_BACK, values)
    if not known:
        tx.run(_WANT, values | {"wants": as_list(sorted(wants))})
    wanted = {each: frozenset[int](json.loads(listed)) for each, listed in tx.rows(_WANTED, {})}
    owners: dict[int, int | None] = dict(tx.rows(_OWNERS, {}))
    return Beat(
        frozenset(worker for worker, owner in owners.items() if owner == values["me"]),
        tuple(worker for worker, owner in owners.items() if owner is None and worker in wants),
        owners,
        wanted | {values["me"]: wants},
        bool(_dead(tx, values)),
    )


def _dead(tx: Tx, values: dict[str, Any]) -> list[tuple[int, bool, bool]]:
    """Who is to be buried, or has been without a proof; whether it has, and whether its requests surely have ended."""
    found = [
        (dead, ended, unlocked or is_gone(machine, pid), overdue)
        for dead, machine, pid, ended, unlocked, overdue in tx.rows(_LATE, values)
    ]
    return [(dead, ended, proven) for dead, ended, proven, overdue in found if proven or (overdue and not ended)]


async def open_heart(url: PostgresUrl, old: int | None, others: Sequence[Connected]) -> Heart:
    """Become a coordinator. `old` is who this process was until that was lost: all its requests have ended.

    `others` are what else the process asks that server with.

    Raises StoreError if the server cannot be reached.
    """
    connection = await connect(
        url, server_settings={"application_name": f"{ME} alive", "idle_in_transaction_session_timeout": IDLE}
    )
    try:
        async with connection.transaction():
            me = int(await connection.fetchval(_REGISTER, this_machine(), os.getpid(), ALIVE_SECONDS))
            await connection.execute(_LOCK, me)
            if old is not None:
                await connection.execute(_SUCCEED, old)
                await connection.execute(_INHERIT, old, me)
    except BaseException as error:
        connection.terminate()
        if isinstance(error, (*AWAY, asyncpg.PostgresError)):
            raise unreachable(url, error) from error
        raise
    return PostgresHeart(url, connection, me, others)
