"""The CPU backend: its ordered candidate list."""

import numba

from ..planning import reference
from . import (
    activated,
    blocked,
    complex,
    depthwise,
    depthwise_image,
    depthwise_weights,
    direct,
    fast_fir,
    fft,
    folded,
    grouped_image,
    identity,
    int8,
    lowrank,
    masked,
    panel,
    quotient,
    separable,
    shallow,
    shallow_last,
    sparse,
    transposed,
    weights,
    weights_grouped,
    weights_parts,
    weights_planes,
    weights_rows,
    weights_shallow,
    weights_winograd,
    winograd,
    winograd_rows,
    winograd_rows_last,
    winograd_shallow,
)

# with NUMBA_DISABLE_JIT=1 there are no kernels
_KERNELS = (
    depthwise_image, grouped_image, depthwise_weights, transposed, folded, weights_rows, weights_planes, weights_shallow, weights_winograd,
    weights_grouped, weights, weights_parts, complex, activated, depthwise, shallow, shallow_last, winograd_rows, winograd_rows_last,
    winograd_shallow, winograd, blocked, int8, identity, separable, lowrank, sparse, fast_fir, direct, panel, fft, masked, quotient,
    reference,
)  # fmt: skip
ALGORITHMS = (quotient, reference) if numba.config.DISABLE_JIT else _KERNELS  # type: ignore[attr-defined]
