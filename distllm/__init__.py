"""distllm: a persistent queue that has local models read documents and keeps the answers in SQLite."""

__version__ = "0.1.0"
