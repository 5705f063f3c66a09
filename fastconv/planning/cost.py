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


def blocked_seconds(p: Problem, lanes: int, mr: int, ny: int, nx: int) -> float:
    """Blocks of ``mr`` vectors of output channels at ``ny x nx`` pixels, and the packing of the panel."""
    oc, ic = p.oc // p.g, p.ic // p.g
    # overlapping tiles compute some pixels twice; a tile of few accumulators or many loads runs below the peak
    vectors = p.n * p.g * _padded(oc, mr * lanes) / lanes * _padded(p.oh, ny) * _padded(p.ow, nx)
    loads = (mr + ny * nx) / (mr * ny * nx)
    share = 0.93 if loads < 0.7 else 0.75
    packed = p.n * p.g * ic * p.ih_padded * p.iw_padded * (0.25e-9 if p.src_layout == "nchw" else 0.15e-9)
    return (
        2 * CALL_SECONDS
        + vectors * p.taps / (FMA_PER_SECOND * share)
        + 8e-9 * vectors
        + packed
        + bytes_moved(p) / (4 * BYTES_PER_SECOND)
    )
