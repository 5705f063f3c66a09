"""The CUDA backend: its ordered candidate list."""

from . import depthwise, direct, implicit_gemm, plain, target, tensor

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (depthwise, tensor, implicit_gemm, direct, plain)
