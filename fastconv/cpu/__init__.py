"""The CPU backend: its ordered candidate list."""

import numba

from ..planning import reference
from . import activated, blocked, complex, depthwise, direct, fft, panel, separable, transposed, weights, weights_grouped

# with NUMBA_DISABLE_JIT=1 there are no kernels
_KERNELS = (transposed, weights_grouped, weights, complex, activated, depthwise, blocked, separable, direct, panel, fft, reference)
ALGORITHMS = (reference,) if numba.config.DISABLE_JIT else _KERNELS  # type: ignore[attr-defined]
