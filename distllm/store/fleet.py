"""Coordinators and workers as the database knows them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, func, literal_column, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.hosts import seen_from
from distllm.domain.models import Health, Rates
from distllm.store.sql import insert_row, one_of
from distllm.store.tables import attempts, coordinators, prompts, worker_models, workers
from distllm.store.tx import Tx, as_list

ATTEMPTS_LOOKED_AT = 500
"""How far back `read_last` looks: more than any fleet has seats."""

_REGISTER = insert_row(coordinators, "host", "pid", "started_at").returning(coordinators.c.id)
_RETIRE = (
    update(coordinators)
    .where(coordinators.c.id == bindparam("me"))
    .values(ended_at=bindparam("now"), alive_until=bindparam("now"), busy_until=literal_column("0"))
)


def register(tx: Tx, host: str, pid: int, now: float) -> int:
    """Add a coordinator; its id is its epoch, and is never given again."""
    return int(tx.value(_REGISTER, {"host": host, "pid": pid, "started_at": now}))


def retire(tx: Tx, me: int, now: float) -> None:
    """Say that a coordinator ended in order, and all its requests with it."""
    tx.run(_RETIRE, {"me": me, "now": now})


_known = upsert_into(workers).values({name: bindparam(name) for name in ("identity", "name", "type")})
# One server is one worker, however it is named in the configuration of the day.
_KNOW = _known.on_conflict_do_update(
    index_elements=[workers.c.identity],
    set_={"name": _known.excluded.name, "type": _known.excluded.type},
)


# A name is one worker's: what had it before, at another address, is known by that address from now on.
_MOVED = (
    update(workers)
    .where(workers.c.name == bindparam("name_is"), workers.c.identity != bindparam("identity_is"))
    .values(name=workers.c.identity)
)


_SO_FAR = select(workers.c.id, workers.c.identity, workers.c.name, workers.c.type).where(
    or_(one_of(workers.c.identity, "identities"), one_of(workers.c.name, "names"))
)


def know_worker(tx: Tx, identity: str, name: str, kind: str) -> int:
    """The id of the worker with this identity, which is added if it is new."""
    [known] = know_workers(tx, [(identity, name, kind)])
    return known


def know_workers(tx: Tx, told: Iterable[tuple[str, str, str]]) -> list[int]:
    """The ids of workers, each told by identity, name and type; those that are new are added.

    What is known already is only read: coordinators of a large fleet that begin at once need not wait for each other.
    """
    told = [(seen_from(tx.host, identity), name, kind) for identity, name, kind in told]
    wanted = {identity: (name, kind) for identity, name, kind in told}
    listed = {"identities": as_list(wanted), "names": as_list(name for name, _ in wanted.values())}
    known = tx.rows(_SO_FAR, listed)
    if wanted != {identity: (name, kind) for _, identity, name, kind in known}:
        news = [{"identity": identity, "name": name, "type": kind} for identity, (name, kind) in sorted(wanted.items())]
        tx.many(_MOVED, [{"identity_is": each["identity"], "name_is": each["name"]} for each in news])
        tx.many(_KNOW, news)
        known = tx.rows(_SO_FAR, listed)
    ids = {identity: int(worker_id) for worker_id, identity, _, _ in known}
    return [ids[identity] for identity, _, _ in told]


_HEALTH = (
    update(workers)
    .where(workers.c.id == bindparam("worker"))
    .values(
        healthy=bindparam("well"),
        slots=func.coalesce(bindparam("places"), workers.c.slots),
        error=bindparam("reason"),
        breaker=bindparam("state"),
        last_seen_at=bindparam("seen"),
    )
)
_offer = upsert_into(worker_models).values(
    {name: bindparam(name) for name in ("worker_id", "model", "context_length", "loaded", "seen_at", "digest")}
)
_OFFER = _offer.on_conflict_do_update(
    index_elements=[worker_models.c.worker_id, worker_models.c.model],
    set_={name: _offer.excluded[name] for name in ("context_length", "loaded", "seen_at", "digest")},
)


def note_health(tx: Tx, worker_id: int, health: Health, breaker: str, now: float) -> None:
    """Keep what a probe of a worker found."""
    tx.run(
        _HEALTH,
        {
            "worker": worker_id,
            "well": int(health.healthy),
            "places": health.slots,
            "reason": health.error,
            "state": breaker,
            "seen": now,
        },
    )
    tx.many(
        _OFFER,
        [
            {
                "worker_id": worker_id,
                "model": offer.model,
                "context_length": offer.context_length,
                "loaded": None if offer.loaded is None else int(offer.loaded),
                "seen_at": now,
                "digest": offer.digest,
            }
            for offer in health.offers
        ],
    )


_LEARNT = ("prefill_rate", "decode_rate", "load_seconds")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of a worker from other runs, and from other coordinators.

    `rates` are by model, `read_last` the readings that it was asked about last, the newest first; `written` are its
    answers so far, and their tokens. `seats` are those that were found to be of use, if that was tried, and `breaker`
    the state that its breaker had last.
    """

    rates: Mapping[str, Rates] = field(default_factory=dict)
    read_last: Sequence[int] = ()
    written: tuple[int, int] = (0, 0)
    seats: int | None = None
    breaker: str = "closed"


def knowledge_of(tx: Tx, worker_ids: Iterable[int]) -> dict[int, Knowledge]:
    """What is known of each of some workers."""
    worker_ids = list(worker_ids)
    cached, rates = read_last(tx), _rates_of(tx, worker_ids)
    return {
        worker_id: Knowledge(rates.get(worker_id, {}), cached.get(worker_id, ()), (answers, tokens), seats, breaker)
        for worker_id, answers, tokens, seats, breaker in tx.rows(_WORKERS, {"workers": as_list(worker_ids)})
    }


_WORKERS = select(
    workers.c.id, workers.c.succeeded, workers.c.completion_tokens, workers.c.seats, workers.c.breaker
).where(one_of(workers.c.id, "workers"))
_RATES = select(worker_models.c.worker_id, worker_models.c.model, *(worker_models.c[name] for name in _LEARNT)).where(
    one_of(worker_models.c.worker_id, "workers")
)
_learnt = upsert_into(worker_models).values(
    {name: bindparam(name) for name in ("worker_id", "model", *_LEARNT, "seen_at")}
)
_LEARN = _learnt.on_conflict_do_update(
    index_elements=[worker_models.c.worker_id, worker_models.c.model],
    set_={name: _learnt.excluded[name] for name in (*_LEARNT, "seen_at")},
)


def known_rates(tx: Tx, worker_id: int) -> dict[str, Rates]:
    """The rates learnt so far, by model."""
    return _rates_of(tx, [worker_id]).get(worker_id, {})


def _rates_of(tx: Tx, worker_ids: Iterable[int]) -> dict[int, dict[str, Rates]]:
    found: dict[int, dict[str, Rates]] = {}
    for worker_id, model, *learnt in tx.rows(_RATES, {"workers": as_list(worker_ids)}):
        found.setdefault(worker_id, {})[model] = Rates(*learnt)
    return found


# By the end of the primary key, so that it costs the same whatever was asked before.
_NEWEST = (
    select(attempts.c.id, attempts.c.worker_id, attempts.c.prompt_id)
    .order_by(attempts.c.id.desc())
    .limit(bindparam("count"))
    .subquery()
)
_READ_LAST = (
    select(_NEWEST.c.worker_id, prompts.c.reading_id)
    .join_from(_NEWEST, prompts, prompts.c.id == _NEWEST.c.prompt_id)
    .where(prompts.c.level == literal_column("0"))
    .order_by(_NEWEST.c.id.desc())
)


def read_last(tx: Tx) -> dict[int, list[int]]:
    """The readings that each worker was asked about last, the newest first: it may have them cached still.

    A reading stands with one worker alone, who had it last.
    """
    found: dict[int, list[int]] = {}
    known: set[int] = set()
    for worker_id, reading_id in tx.rows(_READ_LAST, {"count": ATTEMPTS_LOOKED_AT}):
        if reading_id not in known:
            known.add(reading_id)
            found.setdefault(worker_id, []).append(reading_id)
    return found


_DIGESTS = (
    select(worker_models.c.digest)
    .join_from(worker_models, workers, workers.c.id == worker_models.c.worker_id)
    .where(one_of(workers.c.identity, "identities"), worker_models.c.digest.is_not(None))
)


def known_digests(tx: Tx, identities: Sequence[str]) -> set[str]:
    """The weights that workers had when they told them last."""
    listed = as_list(seen_from(tx.host, identity) for identity in identities)
    return {digest for (digest,) in tx.rows(_DIGESTS, {"identities": listed})}


_WINDOWS = (
    select(func.max(worker_models.c.context_length))
    .join_from(worker_models, workers, workers.c.id == worker_models.c.worker_id)
    .where(
        workers.c.identity == bindparam("identity_is"),
        or_(bindparam("any_model"), one_of(worker_models.c.model, "names")),
    )
)


def known_window(tx: Tx, identity: str, names: Collection[str] | None) -> int | None:
    """The largest context window that a worker told last, for a model with one of `names`, or any if that is None."""
    values = {"identity_is": seen_from(tx.host, identity), "any_model": names is None, "names": as_list(names or ())}
    window: int | None = tx.value(_WINDOWS, values)
    return window


_HAVING = select(worker_models.c.worker_id, worker_models.c.model, worker_models.c.context_length).where(
    one_of(worker_models.c.worker_id, "workers")
)


def windows_of(tx: Tx, worker_ids: Collection[int]) -> list[tuple[int, str, int | None]]:
    """What some workers were seen to have: worker, model, and its context window, None where none was told."""
    if not worker_ids:
        return []
    return [(worker, model, window) for worker, model, window in tx.rows(_HAVING, {"workers": as_list(worker_ids)})]


def learn(tx: Tx, worker_id: int, model: str, rates: Rates, now: float) -> None:
    """Keep rates that answers have shown."""
    tx.run(
        _LEARN,
        {
            "worker_id": worker_id,
            "model": model,
            "prefill_rate": rates.prefill,
            "decode_rate": rates.decode,
            "load_seconds": rates.load,
            "seen_at": now,
        },
    )


_WORK = (
    update(workers)
    .where(workers.c.id == bindparam("worker"))
    .values(
        busy_seconds=workers.c.busy_seconds + bindparam("more"),
        seats=func.coalesce(bindparam("useful"), workers.c.seats),
    )
)


def note_work(tx: Tx, worker_id: int, seconds: float, seats: int | None = None) -> None:
    """Add time during which a worker had at least one request in flight, and keep how many seats are of use to it."""
    tx.run(_WORK, {"worker": worker_id, "more": seconds, "useful": seats})
