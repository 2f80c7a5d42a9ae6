"""How many tokens a text will be, before any server has counted it."""

import re

_PIECES = re.compile(
    r"(?P<word>[A-Za-z]+)|(?P<digit>\d)|(?P<newline>\n)|(?P<foreign>[^\x00-\x7f])|(?P<sign>[^\sA-Za-z0-9])"
)
_WEIGHTS = {"digit": 1.2, "newline": 0.8, "foreign": 1.3, "sign": 0.8}
_SAFETY = 1.1
LOWEST_SHARE = 0.6
"""The smallest share of an estimate that a tokenizer in use has been seen to count (o200k: 0.70)."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of `text` from above.

    Against the real tokenizers of small models the estimate lies 0 to 19 % over the count on papers, and
    up to 43 % over with the largest vocabularies; Mistral's v3 can exceed it by 6 %.
    """
    total = 0.0
    for match in _PIECES.finditer(text):
        kind = match.lastgroup
        if kind == "word":
            letters = match.end() - match.start()
            # Beyond any word's length it is no word: DNA, base64.
            total += 1.09 + 0.15 * max(0, letters - 6) + 0.5 * max(0, letters - 30)
        elif kind is not None:
            total += _WEIGHTS[kind]
    return round(_SAFETY * total)
