"""What is known of the tokenizers of models."""

from collections.abc import Mapping

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert as upsert_into

from distllm.domain.factors import Factors
from distllm.store.tables import model_tokens
from distllm.store.tx import Tx

MOST_MODELS = 1000
"""How many models, those learnt of last, are looked at: a server may call itself what it likes."""

_KNOWN = (
    select(model_tokens.c.model, model_tokens.c.factors, model_tokens.c.counts)
    .order_by(model_tokens.c.learnt_at.desc())
    .limit(bindparam("count"))
)
_new = upsert_into(model_tokens).values({column.name: bindparam(column.name) for column in model_tokens.columns})
_KEEP = _new.on_conflict_do_update(
    index_elements=[model_tokens.c.model],
    set_={name: _new.excluded[name] for name in ("counts", "learnt_at", "factors")},
)


def known_factors(tx: Tx) -> dict[str, Factors]:
    """By the name of a model, what its counts have taught."""
    rows = tx.rows(_KNOWN, {"count": MOST_MODELS})
    found = {model: Factors.from_json(text, counts) for model, text, counts in rows}
    return {model: factors for model, factors in found.items() if factors is not None}


def keep_factors(tx: Tx, learnt: Mapping[str, Factors], now: float) -> None:
    """Keep what counts have taught of models."""
    tx.many(
        _KEEP,
        [
            {"model": model, "counts": factors.counts, "learnt_at": now, "factors": factors.to_json()}
            for model, factors in learnt.items()
        ],
    )
