"""The CUDA backend: its ordered candidate list."""

from . import depthwise, direct, implicit_gemm, plain, target, tensor, winograd

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (depthwise, tensor, winograd, implicit_gemm, direct, plain)
