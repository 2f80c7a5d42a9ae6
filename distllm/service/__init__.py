"""The HTTP service: an API over the same jobs that the command has, for programs, other machines and a page.

A `Room` is a part of it with paths of its own; `make_app` puts rooms behind one guard. What the rooms work
with is on the `Desk`. Limits: one process, and one database; files that are sent are read before the answer comes.
"""

from distllm.service.app import make_app
from distllm.service.desk import DESK, Desk
from distllm.service.guard import Guard
from distllm.service.room import Room

__all__ = ["DESK", "Desk", "Guard", "Room", "make_app"]
