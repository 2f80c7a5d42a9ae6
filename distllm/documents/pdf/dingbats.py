"""Letters that come as dingbats.

Ghostscript names the letters of a bitmap font, as TeX's dvips made them, `a` and their code: `a101` for an e.
The dingbats of Zapf's font have names of the same form, and PDFium reads a101 as one of those.
"""

from collections.abc import Iterable

_LEAST_SHARE = 0.1
_LEAST_KINDS = 10

# Unicode's character for each of Zapf's dingbats, from the number in its name.
_RUNS = (
    (11, "\u261b\u261e\u270c\u270d\u270e\u270f\u2711\u2712"),
    (19, "\u2713\u2714\u2715\u2716\u2717\u2718\u2719\u271a\u271b\u271c"),
    (29, "\u2722\u2723\u2724\u2725\u2726\u2727\u2605"),
    (36, "".join(map(chr, range(0x2729, 0x274C)))),
    (71, "\u25cf\u274d\u25a0\u274f\u2751\u25b2\u25bc\u25c6\u2756"),
    (81, "\u25d7\u2758\u2759\u275a"),
    (85, "\u276f\u2771\u2772\u2773\u2768\u2769\u276c\u276d\u276a\u276b\u2774\u2775"),
    (97, "\u275b\u275c\u275d\u275e\u2761\u2762\u2763\u2764\u2710\u2765\u2766\u2767\u2660\u2665\u2666\u2663"),
    (117, "\u2709\u2708\u2707"),
    (120, "\u2460\u2461\u2462\u2463\u2464\u2465\u2466"),
)
# TeX's T1 encoding, where it differs from ASCII; its ligatures are left to `clean`.
_T1 = {16: "\u201c", 17: "\u201d", 18: "\u201e", 19: "\u00ab", 20: "\u00bb", 21: "\u2013", 22: "\u2014", 39: "\u2019"}
_LETTERS = {
    ord(dingbat): _T1.get(first + place, chr(first + place))
    for first, run in _RUNS
    for place, dingbat in enumerate(run)
}


def decipher(texts: Iterable[str]) -> list[str]:
    """Write the dingbats of a page's lines as the letters that they stand for, if they are no ornament."""
    texts = list(texts)
    visible = [character for text in texts for character in text if character > " "]
    dingbats = [character for character in visible if ord(character) in _LETTERS]
    # The points of a plot are many, but of few kinds.
    if len(dingbats) <= _LEAST_SHARE * len(visible) or len(set(dingbats)) < _LEAST_KINDS:
        return texts
    return [text.translate(_LETTERS) for text in texts]
