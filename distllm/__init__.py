"""distllm: a persistent queue that has local models read documents and keeps the answers in SQLite.

What is named here is imported when it is first used, so that `import distllm` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distllm.balancer.policies import Machine, Policy
    from distllm.compose.balancer import LoadBalancer
    from distllm.compose.batch import BatchProgress, BatchResult
    from distllm.config import Config, WorkerConfig
    from distllm.domain.errors import DistllmError, NoWorkerError, UsageError
    from distllm.domain.events import Answered, Event, Leased, Noticed, TriedInVain, WorkerChanged
    from distllm.domain.models import Ask, Call, Health, Limits, Offer, Outcome, Usage, WorkerSpec, WorkerType
    from distllm.metrics import Sink
    from distllm.workers.base import Worker

__version__ = "0.1.0"

_HOMES = {
    "distllm.balancer.policies": ("Machine", "Policy"),
    "distllm.compose.balancer": ("LoadBalancer",),
    "distllm.compose.batch": ("BatchProgress", "BatchResult"),
    "distllm.config": ("Config", "WorkerConfig"),
    "distllm.domain.errors": ("DistllmError", "NoWorkerError", "UsageError"),
    "distllm.domain.events": ("Answered", "Event", "Leased", "Noticed", "TriedInVain", "WorkerChanged"),
    "distllm.domain.models": (
        *("Ask", "Call", "Health", "Limits", "Offer", "Outcome", "Usage"),
        *("WorkerSpec", "WorkerType"),
    ),
    "distllm.metrics": ("Sink",),
    "distllm.workers.base": ("Worker",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answered",
    "Ask",
    "BatchProgress",
    "BatchResult",
    "Call",
    "Config",
    "DistllmError",
    "Event",
    "Health",
    "Leased",
    "Limits",
    "LoadBalancer",
    "Machine",
    "NoWorkerError",
    "Noticed",
    "Offer",
    "Outcome",
    "Policy",
    "Sink",
    "TriedInVain",
    "Usage",
    "UsageError",
    "Worker",
    "WorkerChanged",
    "WorkerConfig",
    "WorkerSpec",
    "WorkerType",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'distllm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
