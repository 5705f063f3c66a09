"""The CUDA backend: its ordered candidate list."""

from . import direct, target

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (direct,)
