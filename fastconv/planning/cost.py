"""cost: predicted seconds on one thread, and every calibrated constant.

Fitted on one Zen 5 core (AVX-512, 250 GFLOP/s float32) in 2026-11; what matters is the order of the algorithms, which is flat in
every constant within a factor of 1.5.
"""

from __future__ import annotations

from .problem import DTYPES, Problem

FMA_PER_SECOND = 7.8e9  # of one vector register, one core
CALL_SECONDS = 4e-7
DIRECT_SHARE = 0.75  # of the FMA peak, in full tiles
BYTES_PER_SECOND = 2.5e10  # copied by one core, from memory


def _padded(extent: int, block: int) -> int:
    return -(-extent // block) * block


def bytes_moved(p: Problem) -> int:
    """Source and result, once each."""
    return p.n * (p.ic * p.ih * p.iw * DTYPES[p.src].itemsize + p.oc * p.oh * p.ow * DTYPES[p.dst].itemsize)


def direct_seconds(p: Problem, lanes: int) -> float:
    """Tiles of vectors along the row; strides of 3 and more gather one element at a time."""
    vectors = p.n * p.oc * p.oh * _padded(p.ow, lanes) / lanes
    gathered = 1.0 if p.sw == 1 else 1.6 if p.sw == 2 else 1.0 + lanes / 2
    sums = vectors * p.taps * gathered / (FMA_PER_SECOND * DIRECT_SHARE)
    return CALL_SECONDS + sums + 4e-9 * vectors + bytes_moved(p) / (4 * BYTES_PER_SECOND)
