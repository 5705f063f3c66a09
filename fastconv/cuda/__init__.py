"""The CUDA backend: its ordered candidate list."""

from . import direct, implicit_gemm, target

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (implicit_gemm, direct)
