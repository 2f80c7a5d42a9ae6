"""What the rest of distllm sees of one server."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from distllm.domain.models import Call, Health, Limits, Outcome, WorkerSpec, WorkerType

if TYPE_CHECKING:
    import aiohttp


class Worker(ABC):
    """One LLM server: what it is, whether it answers, and what it answers.

    `weight` is its share in a choice by weight; whoever chooses may set it. The session is shared with
    other workers and belongs to whoever opened it. `default_port` is for kinds that a package adds: where
    they listen if the configuration names no port, None if it must name one, 0 if they have none.
    """

    default_port: ClassVar[int | None] = None

    def __init__(self, spec: WorkerSpec, session: "aiohttp.ClientSession") -> None:
        self.spec = spec
        self.weight = 1.0
        self._session = session

    @property
    def name(self) -> str:
        """The name it was configured under."""
        return self.spec.name

    @property
    def type(self) -> WorkerType | str:
        """The kind of server that it is."""
        return self.spec.type

    @property
    def identity(self) -> str:
        """The same for every worker that is the same server: scheme://host:port."""
        host = f"[{self.spec.host}]" if ":" in self.spec.host else self.spec.host
        return f"{self.spec.scheme}://{host}:{self.spec.port}".lower()

    @property
    def weights(self) -> str | None:
        """What tells the weights of its model before it is asked; None where only the server knows."""
        return None

    @property
    @abstractmethod
    def api_endpoint(self) -> str:
        """The address that questions go to."""

    @property
    @abstractmethod
    def health_endpoint(self) -> str:
        """The address that probes go to."""

    @property
    def counts_tokens(self) -> bool:
        """Whether the server has a tokenizer that can be asked, as far as is known."""
        return False

    async def count(self, call: Call) -> int | None:
        """The tokens that the server would read for a call, its template's included; None where it does not tell.

        Never raises for what a server does.
        """
        return None

    async def count_tokens(self, text: str) -> int | None:
        """The tokens of a text alone; None where the server does not tell. Never raises for what a server does."""
        return None

    async def start(self) -> None:  # noqa: B027 - most servers run by themselves
        """Make the worker ready to be asked; calling it again does no harm.

        Raises DistllmError where that cannot succeed.
        """

    async def close(self) -> None:  # noqa: B027 - most servers run by themselves
        """Give back what `start` took; calling it again does no harm."""

    @abstractmethod
    async def probe(self, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - the promise is to return, not to raise
        """Ask the server what it has, within `timeout` seconds. Never raises for what a server does."""

    @abstractmethod
    async def ask(self, call: Call, limits: Limits) -> Outcome:
        """Ask one question and wait for the whole answer.

        Never raises for what a server does. Cancelling closes the connection, so that the server stops.
        """
