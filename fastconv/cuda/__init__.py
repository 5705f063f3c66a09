"""The CUDA backend: its ordered candidate list.

An algorithm's file has the CPU's functions (``reject cost most_kernels build``) and says of its kernels what `compile.Kernel` holds:
body, specialisation, parameters, threads, and the registers they may take; ``kernels(target)`` lists those that tests compile.  A body
is written against `simd.Emitter`; Numba's simulator runs it with `twin.Twin`.  Plans get `arrays.DeviceArray`s, packed weights on the
device, a bias in the type of a thread's sums, and queue on the source's stream.
"""

from . import (
    activated,
    complex,
    depthwise,
    depthwise_weights,
    direct,
    implicit_gemm,
    plain,
    quotient,
    separable,
    target,
    tensor,
    transposed,
    weights,
    winograd,
)

__all__ = ["ALGORITHMS", "target"]
ALGORITHMS = (
    separable, depthwise, tensor, winograd, implicit_gemm, direct, activated, complex, quotient, transposed, depthwise_weights, weights,
    plain,
)  # fmt: skip
