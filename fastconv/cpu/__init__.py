"""The CPU backend: its ordered candidate list."""

import numba

from ..planning import reference
from . import activated, blocked, complex, direct, fft, identity, masked, panel, quotient, separable

# with NUMBA_DISABLE_JIT=1 there are no kernels
_KERNELS = (complex, activated, blocked, identity, separable, direct, panel, fft, masked, quotient, reference)
ALGORITHMS = (quotient, reference) if numba.config.DISABLE_JIT else _KERNELS  # type: ignore[attr-defined]
