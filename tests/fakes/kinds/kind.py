"""What a fake server asks of its kind."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.stream import Seen, Writer

if TYPE_CHECKING:
    from tests.fakes.server import FakeServer


class Kind(ABC):
    """One kind of server, for one running fake; a restart makes a new one."""

    def __init__(self, server: "FakeServer") -> None:
        self.server = server

    @abstractmethod
    def add_routes(self, app: web.Application) -> None:
        """Add every path; those that answer go to `server.complete`."""

    @abstractmethod
    def wrong_key(self) -> web.Response:
        """What a request without the key is told."""

    @abstractmethod
    async def admit(self, request: web.Request, seen: Seen, tokens: list[str]) -> web.StreamResponse | None:
        """Load what must be loaded, and refuse what must be refused; None lets the request in.

        Counts the prompt in `seen.prompt_tokens`, and may cut it.
        """

    @abstractmethod
    def writer(self, request: web.Request, seen: Seen) -> Writer:
        """What writes the answer."""

    @abstractmethod
    def room(self, seen: Seen) -> int:
        """How many tokens the answer may have."""

    def thoughts(self, seen: Seen) -> str:
        """What the model thinks before it answers."""
        return seen.behaviour.thinking or ""

    def answered(self, seen: Seen) -> None:  # noqa: B027 - most servers do nothing
        """The request is over."""


def error(status: int, payload: Any) -> web.Response:
    """A refusal: the object or string under `error`."""
    return web.json_response({"error": payload}, status=status)
