"""What a model thinks aloud, told from its answer while both come in pieces."""

_OPEN, _CLOSE = "<think>", "</think>"


class Thoughts:
    """Takes the pieces of an answer, and gives them back as (text, thinking).

    Thoughts are told by marks around them at the beginning of an answer; where a template has opened them before
    it, that shows only at their end, and they are told as text.
    """

    def __init__(self) -> None:
        self._mark: str | None = _OPEN
        self._held = ""
        self._begun = False

    def feed(self, text: str) -> tuple[str, str]:
        """What a piece says; the rest may turn out to be a mark."""
        said, thought = "", ""
        self._held += text
        while self._held:
            if not self._begun and self._mark != _CLOSE:
                self._held = self._held.lstrip()
            if self._mark is None:
                said, self._held = said + self._held, ""
            elif self._mark == _OPEN:
                if self._held.startswith(_OPEN):
                    self._held, self._mark = self._held[len(_OPEN) :].lstrip(), _CLOSE
                elif _OPEN.startswith(self._held):
                    break
                else:
                    self._mark = None
            else:
                inner, mark, rest = self._held.partition(_CLOSE)
                if mark:
                    thought, self._held, self._mark = thought + inner, rest, None
                    self._begun = False
                    continue
                kept = _overlap(inner)
                thought, self._held = thought + inner[: len(inner) - kept], inner[len(inner) - kept :]
                break
            self._begun = self._begun or bool(said)
        return said, thought

    def end(self) -> tuple[str, str]:
        """What was held back."""
        held, self._held = self._held, ""
        return ("", held) if self._mark == _CLOSE else (held, "")


def _overlap(text: str) -> int:
    """How many of the last characters may be the beginning of the closing mark."""
    return next((size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0)
