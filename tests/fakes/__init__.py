"""Servers that behave as real ones do, well and badly, over real sockets."""

from tests.fakes import behaviour
from tests.fakes.behaviour import Behaviour, Caching, Cut, Ending
from tests.fakes.server import FakeServer
from tests.fakes.slots import tokenize
from tests.fakes.stream import Seen

__all__ = ["Behaviour", "Caching", "Cut", "Ending", "FakeServer", "Seen", "behaviour", "tokenize"]
