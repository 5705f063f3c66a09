"""The CUDA backend: its ordered candidate list."""

from . import depthwise, direct, implicit_gemm, plain, separable, target, tensor

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (separable, depthwise, tensor, implicit_gemm, direct, plain)
