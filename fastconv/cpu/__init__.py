"""The CPU backend: its ordered candidate list."""

import numba

from ..planning import reference
from . import (
    activated,
    blocked,
    complex,
    depthwise,
    direct,
    fft,
    identity,
    int8,
    lowrank,
    masked,
    panel,
    quotient,
    separable,
    sparse,
    transposed,
    weights,
    weights_grouped,
    winograd,
)

# with NUMBA_DISABLE_JIT=1 there are no kernels
_KERNELS = (
    transposed, weights_grouped, weights, complex, activated, depthwise, winograd, blocked, int8, identity, separable, lowrank, sparse,
    direct, panel, fft, masked, quotient, reference,
)  # fmt: skip
ALGORITHMS = (quotient, reference) if numba.config.DISABLE_JIT else _KERNELS  # type: ignore[attr-defined]
