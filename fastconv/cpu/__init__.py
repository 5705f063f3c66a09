"""The CPU backend: its ordered candidate list."""

import numba

from ..planning import reference
from . import activated, blocked, complex, direct, fft

# with NUMBA_DISABLE_JIT=1 there are no kernels
ALGORITHMS = (reference,) if numba.config.DISABLE_JIT else (complex, activated, blocked, direct, fft, reference)  # type: ignore[attr-defined]
