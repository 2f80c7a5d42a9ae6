"""What is logged, as a terminal may be shown it."""

import logging
import sys

from distllm.domain.text import shown


class _Shown(logging.Formatter):
    """Lines without what a terminal obeys: they may quote a paper, a server, or the name of a file."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def log_to_stderr(level: str) -> None:
    """Show what is logged at a level and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Shown("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
