"""The CPU backend: its ordered candidate list."""

import numba

from ..planning import reference
from . import activated, blocked, complex, direct, fft, panel, separable, winograd

# with NUMBA_DISABLE_JIT=1 there are no kernels
_KERNELS = (complex, activated, winograd, blocked, separable, direct, panel, fft, reference)
ALGORITHMS = (reference,) if numba.config.DISABLE_JIT else _KERNELS  # type: ignore[attr-defined]
