"""What counts have taught of a model is there for the next run."""

from distllm.domain.factors import UNLEARNT
from distllm.domain.tokens import makeup
from distllm.store.factors import keep_factors, known_factors
from tests.store.store_kit import NOW, Store

PARTS = makeup("The dam broke in March, and forty houses of the lower town were lost. " * 50)


def test_nothing_is_known_at_first(store: Store) -> None:
    assert store.write(known_factors) == {}


def test_the_newest_is_kept_of_each_model(store: Store) -> None:
    once = UNLEARNT.learnt(PARTS, 800)
    twice = once.learnt(PARTS, 820)
    store.write(lambda tx: keep_factors(tx, {"one": once, "other": once}, NOW))
    store.write(lambda tx: keep_factors(tx, {"one": twice}, NOW + 1))
    known = store.write(known_factors)
    assert {model: factors.counts for model, factors in known.items()} == {"one": 2, "other": 1}
    assert known["one"].bounds(PARTS) == twice.bounds(PARTS)
    assert store.rows("SELECT model, counts, learnt_at FROM model_tokens ORDER BY model") == [
        ("one", 2, NOW + 1),
        ("other", 1, NOW),
    ]


def test_what_an_older_distllm_weighed_otherwise_is_learnt_anew(store: Store) -> None:
    store.write(lambda tx: keep_factors(tx, {"one": UNLEARNT}, NOW))
    store.rows("UPDATE model_tokens SET factors = '[[1.0,2.0],[1.0],[0.5,1.0]]'")
    assert store.write(known_factors) == {}
