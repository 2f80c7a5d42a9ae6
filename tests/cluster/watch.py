"""The judge of the database, with a connection of its own: looks at it whoever works on it, whenever it is there."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from distllm.store import truths
from distllm.store.postgres.words import in_its_words
from tests.chaos.broken import BrokenPromiseError, few
from tests.cluster.calls import Calls

TAKEN_BACK_WITHIN_SECONDS = 3.0
LOOK_EVERY_SECONDS = 0.02
AGAIN_SECONDS = 0.1
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
)

_HELD = """
SELECT count(*) FROM prompts WHERE state = 'leased' AND holder IN (SELECT id FROM coordinators WHERE pid = $1)
"""
_NEW_RESULTS = "SELECT prompt_id, attempt_id, answer FROM results WHERE finished_at > $1"
_KEYS = """
SELECT p.id, substr(d.text, 1, 11) || '/' || substr(t.text, 1, 14)
  FROM prompts p JOIN documents d ON d.id = p.document_id JOIN templates t ON t.id = p.template_id
"""
_TWICE = "SELECT prompt_id FROM attempts WHERE outcome = 'done' GROUP BY prompt_id HAVING count(*) > 1"
_STALE_LEASE = """
SELECT r.prompt_id FROM results r JOIN attempts a ON a.id = r.attempt_id JOIN prompts p ON p.id = r.prompt_id
 WHERE a.lease <> p.lease
"""
_DEAD_HOLDER = """
SELECT p.id FROM prompts p JOIN coordinators c ON c.id = p.holder
 WHERE p.state = 'leased' AND c.ended_at < extract(epoch FROM clock_timestamp()) - 15
"""
# One statement sees one moment.
_COUNTERS = f"""
SELECT ARRAY(SELECT c::text FROM ({truths.COUNTED}) c ORDER BY 1),
       ARRAY(SELECT f::text FROM ({in_its_words(truths.COUNTED_FROM_ROWS)}) f ORDER BY 1)
"""
ACTIVITY = """
SELECT pid, application_name, state, wait_event_type || ' ' || wait_event AS waits,
       round(extract(epoch FROM clock_timestamp() - state_change)::numeric, 1) AS seconds, left(query, 160) AS query
  FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY application_name
"""
HELD = """
SELECT c.id, c.pid, c.ended_at IS NULL AS alive,
       round((c.alive_until - extract(epoch FROM clock_timestamp()))::numeric, 1) AS alive_for,
       round((c.busy_until - extract(epoch FROM clock_timestamp()))::numeric, 1) AS busy_for,
       (SELECT string_agg(w.name, ' ' ORDER BY w.name) FROM workers w WHERE w.coordinator_id = c.id) AS workers,
       (SELECT count(*) FROM prompts p WHERE p.state = 'leased' AND p.holder = c.id) AS leases
  FROM coordinators c
 WHERE c.ended_at IS NULL OR EXISTS (SELECT 1 FROM workers w WHERE w.coordinator_id = c.id) ORDER BY c.id
"""
"""Who lives, or has workers."""


@dataclass(slots=True)
class Watch:
    """What was seen. `taken_back` are the seconds until somebody else had the leases of one that was killed."""

    url: str
    calls: Calls
    taken_back: list[float] = field(default_factory=list)
    excused: int = 0
    looks: int = 0
    seen: dict[int, tuple[int, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _connection: Any = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """All rows, once the server is there to give them."""
        while True:
            try:
                async with self._turn:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await asyncpg.connect(
                            self.url, timeout=5, server_settings={"application_name": "watch"}
                        )
                    found: list[asyncpg.Record] = await self._connection.fetch(statement, *values)
                    return found
            except AWAY:
                await asyncio.sleep(AGAIN_SECONDS)

    async def follow(self, pid: int) -> None:
        """After a SIGKILL: see how long the leases of that process are its own."""
        killed = time.monotonic()
        had = False
        while (await self.ask(_HELD, pid))[0][0]:
            had = True
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            if time.monotonic() > killed + 60:
                break
        now = time.monotonic()
        if not had:
            return
        crashes = [each for each in self.calls.faults if each.kind == "crash"]
        # Who has not renewed since the server began is waited for as one that is frozen.
        if any(each.since < now and (each.until is None or each.until > killed - 3.0) for each in crashes):
            self.excused += 1
            return
        self.taken_back.append(now - killed)
        if now - killed > TAKEN_BACK_WITHIN_SECONDS:
            raise BrokenPromiseError(
                f"the leases of one that was killed are another's within {TAKEN_BACK_WITHIN_SECONDS:.0f} s",
                f"process {pid} held some for {now - killed:.2f} s\n{await self.picture()}",
            )

    async def look(self) -> None:
        """Judge the database as it is now, whoever works on it; raises BrokenPromiseError."""
        counts = await self.ask("SELECT state, count(*) FROM prompts GROUP BY state")
        self.counts = Counter({row[0]: row[1] for row in counts})
        for promise, statement in truths.PROMISES.items():
            self._none(promise, await self.ask(in_its_words(statement)))
        self._none("waiting prompts", await self.ask(in_its_words(truths.WAITS_WRONGLY)))
        self._none("nothing is done twice", await self.ask(_TWICE))
        self._none("only the newest lease ends a prompt", await self.ask(_STALE_LEASE))
        self._none("no lease is held by one that has ended", await self.ask(_DEAD_HOLDER))
        [(counted, found)] = await self.ask(_COUNTERS)
        # The one says 0 where the other says false.
        if counted != [row.replace(",f,", ",0,").replace(",t,", ",1,") for row in found]:
            raise BrokenPromiseError("counters agree with rows", f"{counted} are counted, and there are {found}")
        await self._remember()
        self.looks += 1

    async def _remember(self) -> None:
        """What is answered stays answered, and as it was."""
        for row in await self.ask(_NEW_RESULTS, time.time() - 60):
            known = self.seen.setdefault(row[0], (row[1], row[2]))
            if known != (row[1], row[2]):
                raise BrokenPromiseError("no answer is lost", f"that to prompt {row[0]} is another one now")

    async def answered_by(self) -> dict[str, int]:
        """At the end: which call gave the answer to what was asked; raises BrokenPromiseError if any was lost."""
        await self._remember()
        found = {
            row[0]: (row[1], row[2]) for row in await self.ask("SELECT prompt_id, attempt_id, answer FROM results")
        }
        lost = [prompt for prompt, answer in self.seen.items() if found.get(prompt) != answer]
        if lost:
            raise BrokenPromiseError("no answer is lost", f"prompts {few(list(lost))}")
        keys = {row[0]: row[1] for row in await self.ask(_KEYS)}
        by = {}
        for prompt, (_, answer) in found.items():
            key, _, rest = answer.partition("#")
            if keys[prompt] != key:
                raise BrokenPromiseError("an answer is its own prompt's", f"{keys[prompt]} is answered by {answer!r}")
            by[key] = int(rest.split()[0])
        return by

    async def picture(self) -> str:
        """All that helps to see why something hangs."""
        lines = [f"prompts: {dict(self.counts)}"]
        for title, statement in (("coordinators", HELD), ("activity", ACTIVITY)):
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    lines += [f"{title}:", *(f"  {dict(row)}" for row in await self.ask(statement))]
        return "\n".join(lines)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.terminate()

    @staticmethod
    def _none(promise: str, rows: list[Any]) -> None:
        if rows:
            raise BrokenPromiseError(
                promise, few([tuple(row) if isinstance(row, asyncpg.Record) else row for row in rows])
            )
