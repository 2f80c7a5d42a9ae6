"""How fast a worker reads and writes, learnt from what its answers report."""

from distllm.domain.models import Rates, Usage

_NEWEST = 0.3
_FEWEST_TOKENS_READ = 64
_FEWEST_TOKENS_WRITTEN = 8
# A server also tells the time that it takes to see that a model is loaded.
_SHORTEST_LOAD = 0.5
# A machine that slept during an answer tells hours for it: one counts as no more than this many times slower.
_MOST_TIMES_SLOWER = 4.0
# Tokens a second of any machine that is of use; the slowest bounds the time limits that are made of these rates.
_SLOWEST, _FASTEST = 0.1, 1e6


def learnt(rates: Rates, usage: Usage) -> Rates:
    """`rates` with one more answer taken in; counts too small to tell a speed change nothing."""
    prefill, decode = rates.prefill, rates.decode
    read = (usage.prompt_tokens or 0) - (usage.cached_tokens or 0)
    if usage.prefill_seconds and read >= _FEWEST_TOKENS_READ:
        prefill = _blend(prefill, read / usage.prefill_seconds)
    written = usage.completion_tokens or 0
    if usage.decode_seconds and written >= _FEWEST_TOKENS_WRITTEN:
        decode = _blend(decode, written / usage.decode_seconds)
    loaded = usage.load_seconds is not None and usage.load_seconds >= _SHORTEST_LOAD
    return Rates(prefill, decode, usage.load_seconds if loaded else rates.load)


def _blend(old: float | None, new: float) -> float:
    """The mean of the times that a token takes: so no answer makes a rate more than 1/0.7 times as high."""
    new = min(max(new, _SLOWEST), _FASTEST)
    if not old:
        return new
    return 1 / ((1 - _NEWEST) / old + _NEWEST / max(new, old / _MOST_TIMES_SLOWER))
