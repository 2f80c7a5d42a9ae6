"""The workers of a configuration and of a database, as programs and people are told of them; nobody is contacted."""

from collections.abc import Sequence
from typing import Any

from distllm.compose.checkup import identities
from distllm.config import Config
from distllm.domain.models import WorkerSpec
from distllm.store.reads import Reader

Record = dict[str, Any]


async def roster(config: Config, reader: Reader | None) -> list[Record]:
    """The configured workers with what was seen of them, then those that are only in the database, if there is one."""
    seen = {} if reader is None else {row["identity"]: row for row in await reader.workers()}
    models = await seen_models(reader)
    known = []
    for spec, identity in await identities(config):
        known.append(_facts(identity, spec, seen.pop(identity, None), models.get(identity, []), config))
    return known + [_facts(identity, None, row, models.get(identity, []), config) for identity, row in seen.items()]


async def seen_models(reader: Reader | None) -> dict[str, list[Record]]:
    """What each worker was seen to have, by its identity."""
    models: dict[str, list[Record]] = {}
    for row in [] if reader is None else await reader.worker_models():
        models.setdefault(row.pop("identity"), []).append(row)
    return models


def learnt_of(name: str | None, models: Sequence[Record], config: Config) -> Record:
    """What was measured of the model called `name`, also under its other names, or of the first that was measured."""
    names = next((group for group in config.aliases() if name in group), (name,))
    those = [model for model in models if name is None or model["model"] in names]
    found = next((model for model in those if model["decode_rate"] or model["prefill_rate"]), {})
    return {learnt: found.get(learnt) for learnt in ("prefill_rate", "decode_rate", "load_seconds")}


def _facts(identity: str, spec: WorkerSpec | None, seen: Record | None, models: list[Record], config: Config) -> Record:
    seen = seen or {}
    limit = spec.slots if spec else None
    return {
        "id": spec.name if spec else seen["worker"],
        "type": str(spec.type) if spec else seen["type"],
        "address": identity,
        "configured": spec is not None,
        "model": spec.model if spec else None,
        "models": models,
        "context_length": spec.context_length if spec else None,
        "seats": limit or seen.get("slots"),
        "healthy": None if seen.get("last_seen_at") is None else bool(seen["healthy"]),
        "error": seen.get("error"),
        "last_seen_at": seen.get("last_seen_at"),
        "answers": seen.get("succeeded", 0),
        "failed": seen.get("failed", 0),
        "avg_seconds": seen.get("avg_seconds"),
    } | learnt_of(spec.model if spec else None, models, config)
