"""The CUDA backend: its ordered candidate list."""

from . import direct, plain, target

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (direct, plain)
