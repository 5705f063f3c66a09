"""cost: predicted seconds on one thread, and every calibrated constant.

Fitted on one Zen 5 core (AVX-512, 250 GFLOP/s float32) in 2026-11; what matters is the order of the algorithms, which is flat in
every constant within a factor of 1.5.
"""

from __future__ import annotations

from .problem import DTYPES, Problem

FMA_PER_SECOND = 7.5e9  # of one vector register, one core
CALL_SECONDS = 4e-7
MOST_WORKSPACE = 64 << 20  # bytes of one thread; a problem of more goes to an algorithm of less
UNIT_SECONDS = 0.1  # of one unit of work of `direct`, which is not interrupted
DIRECT_SHARE = 0.95  # of the FMA peak, where each loaded vector serves many rows of taps
BLOCKED_SHARE = 0.93
DIRECT_STORE_SECONDS = 1.7e-9  # per result vector: the start and the end of a tile
DIRECT_CHANNEL_SECONDS = 1.5e-9  # per result vector and further channel: other rows, a loop of few turns
BLOCKED_STORE_SECONDS = 1.5e-9
PAST_SHARE = 0.5  # of the last-level cache: larger problems store past it (2048x2048 k3: 31 against 51 ns a tile)
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
    # 8 rows of h taps read 8 + h - 1 rows of pixels, two loads each since most cross a cache line; two loads per two FMAs are free
    rows = min(p.kh, 8)
    share = DIRECT_SHARE * min(1.0, 8 * rows / (2 * (7 + rows)))
    sums = vectors * p.taps * gathered / (FMA_PER_SECOND * share)
    tiles = vectors * (DIRECT_STORE_SECONDS + DIRECT_CHANNEL_SECONDS * (p.ic // p.g - 1))
    return CALL_SECONDS + sums + tiles + bytes_moved(p) / (4 * BYTES_PER_SECOND)


def blocked_seconds(p: Problem, lanes: int, mr: int, ny: int, nx: int) -> float:
    """Blocks of ``mr`` vectors of output channels at ``ny x nx`` pixels, and the packing of the panel."""
    oc, ic = p.oc // p.g, p.ic // p.g
    # overlapping tiles compute some pixels twice; a tile of few accumulators or many loads runs below the peak
    vectors = p.n * p.g * _padded(oc, mr * lanes) / lanes * _padded(p.oh, ny) * _padded(p.ow, nx)
    loads = (mr + ny * nx) / (mr * ny * nx)
    share = BLOCKED_SHARE if loads < 0.7 else 0.8 * BLOCKED_SHARE
    packed = p.n * p.g * ic * p.ih_padded * p.iw_padded * (0.25e-9 if p.src_layout == "nchw" else 0.15e-9)
    sums = vectors * p.taps / (FMA_PER_SECOND * share)
    return 2 * CALL_SECONDS + sums + BLOCKED_STORE_SECONDS * vectors + packed + bytes_moved(p) / (4 * BYTES_PER_SECOND)
