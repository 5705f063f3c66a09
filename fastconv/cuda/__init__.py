"""The CUDA backend: its ordered candidate list."""

from . import direct, implicit_gemm, plain, target, tensor

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (tensor, implicit_gemm, direct, plain)
