"""Strangers' text, made fit to be shown: documents and answers may hold anything."""

import re

# The characters that a terminal obeys, or that reorder the text around them.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Text for people to see: line ends made one kind, and no control character but them and tabs."""
    return _OBEYED.sub("", text.replace("\r\n", "\n"))
