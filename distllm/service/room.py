"""A part of the service with paths of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from distllm.service.problems import Refused, problem

Render = Callable[[Refused], web.StreamResponse]


@dataclass(frozen=True, slots=True)
class Room:
    """The routes of a part, all below `prefix`, and how it tells errors to whoever comes there.

    One that `needs_no_token` is open to all who reach the service.
    """

    prefix: str
    routes: Sequence[web.RouteDef]
    render: Render = problem
    needs_no_token: bool = False

    def has(self, path: str) -> bool:
        """Whether a path is of this room."""
        return path == self.prefix or path.startswith(f"{self.prefix.rstrip('/')}/")
