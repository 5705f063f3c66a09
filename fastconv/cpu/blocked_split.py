"""blocked_split: how `blocked` cuts a problem into bands of rows, parts of the output channels and passes over the channels."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.problem import Problem
from .blocked_pack import Steps, steps_of
from .blocked_tile import DEPTH

_PANEL_BYTES = 384 << 10  # of one band: it shares a 1 MB second-level cache with the weights of one block of output channels

# Of pixels read in place, of which a tile asks for the next one's: 1024 to 1024 channels at 14x14, given, take 871 us in one band instead
# of 944 in three, of planes 889 and 955; 8 images of 2048 to 1024 at 7x7 3280 instead of 3497, given 3408, packed beforehand 3660 (two
# cores, Zen 5, 2026-11).
_STREAMED_BYTES = {"nhwc": 4 << 20, "nchw": 1 << 20}
# For each thread, of weights that are given and held: 64 to 128 channels at 56x56 take 210 us in 8 bands, 238 in 2, 304 in two parts; 256
# to 256 1690, 1865 and 2002 (two cores, Emerald Rapids, 2026-11).
_UNITS = 4
# Of an image and a result that no second-level cache holds, on one thread: every other call begins where the last one ended (96 to 16
# channels at 112x112 436 us instead of 476, 32 to 16 160 and 175; one core, Emerald Rapids, 2026-11).
_SWEPT_BANDS = 8
# Of a small image read in place, about so many parts of the output channels for each thread: each reads, and packs, its own weights, and
# what one is late with is another's.  256 to 1024 channels at 14x14, given: 559 us instead of 853 of planes, 617 instead of 721 channels
# last; packed 160 to 960 at 7x7 78 instead of 90 (two cores, Emerald Rapids, 2026-11).
_SMALL_PIXELS = 256
_PARTS = 4
_APART_BYTES = 1 << 19  # of weights at least, channels last, where all threads write all pages (96 to 576 at 14x14 118 us in bands, 130 so)
# How much longer sums take to wait for the next pass than weights to be read again, byte for byte: 128 to 128 channels at 56x56, stride 2,
# take 1017 us in bands of one pass, 1089 of two (two cores, Emerald Rapids, 2026-11).
_SUMS_FACTOR = 2
_HELD_BYTES = 1 << 20  # of all weights of a group, packed: a second-level cache holds them beside a strip of pixels
_STRIP_BYTES = 64 << 10  # of pixels whose channels lie side by side, as those of the results do: those of several blocks fill whole lines


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``ny`` rows of ``nx`` pixels."""

    registers: int  # of the target, at least
    mr: int
    ny: int
    nx: int


class Split(NamedTuple):
    """How the work is cut: rows of a band, parts of the output channels, channel blocks of one pass."""

    band_rows: int
    parts: int
    pass_blocks: int


def one_tap(p: Problem, tile: Tile) -> bool:
    """Whether tiles may read pixels where they lie: a kernel of one tap, no padding, and no tile beyond the image.

    Planes are read at every pixel; where the channels are side by side pixels may lie any number of bytes apart.
    """
    s = steps_of(p)
    dense = p.kh == p.kw == 1 and p.pt == p.pb == p.pl == p.pr == 0 and (s.step > 1 or (s.g, s.gx, s.q, s.qx) == (1,) * 4)
    return dense and p.ow >= tile.nx and p.oh >= tile.ny


def merged(p: Problem, tile: Tile) -> Problem:
    """The pixels of all images of a dense kernel of one tap as rows of one tile; what the last one lacks it computes once more.

    So few pixels lie beyond whole tiles, and bands and strips are as even as tiles allow: 64 to 256 channels at 56x56 take 221 us
    instead of 241 in rows of 4 (two cores, Zen 5, 2026-11).
    Of channels side by side only: of planes a tile of few pixels stores parts of vectors.

    Examples
    --------
    >>> p, tile = Problem(n=2, ic=8, ih=14, iw=14, src_layout="nhwc"), Tile(32, 4, 1, 6)
    >>> [(found.n, found.ih, found.iw) for found in (merged(p, tile), merged(p.replace(kh=3), tile))]
    [(1, 66, 6), (2, 14, 14)]
    """
    if p.src_layout != "nhwc" or p.acc not in ("f32", "f64") or p.src in ("f16", "bf16") or tile.ny > 1 or p.op != "fwd":
        return p
    dense = p.ic > 1 and (p.kh, p.kw, p.sh, p.sw, p.ih_padded, p.iw_padded) == (1, 1, 1, 1, p.ih, p.iw)
    pixels = p.n * p.ih * p.iw
    return p.replace(n=1, ih=ceil(pixels / tile.nx), iw=tile.nx) if dense and pixels >= tile.nx else p


def lies_in_turn(array: np.ndarray) -> bool:
    """Whether the pixels of all images of an array lie equally far apart."""
    n, _, rows, columns = array.shape
    sn, _, sy, sx = array.strides
    return (sy == columns * sx or rows == 1) and (sn == rows * columns * sx or n == 1)


def no_shorter(p: Problem, tile: Tile, split: Split) -> bool:
    """Whether every band has the rows of a tile."""
    return min((p.oh - 1) % split.band_rows + 1, split.band_rows) >= tile.ny


def phase_columns(s: Steps, tile: Tile, lanes: int) -> int:
    """Columns of one phase of a row.

    The last tile of a narrow plane reads up to nx - 1 pixels beyond; a row of planes is written up to a vector beyond.
    """
    beyond = max(tile.nx - s.ow + 1, 0) if s.step > 1 else max(tile.nx, lanes)
    return -(-s.columns // s.qx) + beyond


def rows_of_panel(s: Steps, tile: Tile, band_rows: int) -> int:
    return (band_rows + tile.ny - 2) * s.q + s.kh_rows


def bytes_of_panel(s: Steps, tile: Tile, lanes: int, size: int, band_rows: int, blocks: int) -> int:
    """Of a panel of so many rows of results and blocks of channels."""
    return rows_of_panel(s, tile, band_rows) * phase_columns(s, tile, lanes) * s.qx * blocks * DEPTH * size


def held_blocks(p: Problem, tile: Tile, lanes: int, size: int) -> bool:
    """Whether all weights of a group that are given, packed, stay in the cache."""
    return -(-(p.oc // p.g) // (tile.mr * lanes)) * tile.mr * lanes * p.taps * size <= _HELD_BYTES


def few_bands(p: Problem, tile: Tile, lanes: int, size: int, threads: int, in_place: bool, cache: int) -> bool:
    """Whether so few bands pack weights that are given that it takes less than to pack them once beforehand."""
    bands = p.n * -(-p.oh // split_of(p, tile, lanes, size, threads, in_place, True, cache).band_rows)
    shared = p.n == 1 and held_blocks(p, tile, lanes, size)
    return bands <= (max(2 * _UNITS * threads, _SWEPT_BANDS) if shared else costs.BLOCKED_GIVEN_BANDS)


def strip_rows(p: Problem, tile: Tile, lanes: int, size: int, split: Split) -> int:
    """Rows of pixels read in place that tiles of all blocks of weights go through, before the next rows: those of the band, or fewer."""
    if split.pass_blocks < steps_of(p).blocks or not held_blocks(p, tile, lanes, size):
        return split.band_rows
    most = _STRIP_BYTES if p.src_layout == "nhwc" else _PANEL_BYTES
    return max(min(most // (p.ow * p.taps * size) // tile.ny * tile.ny, split.band_rows), tile.ny)


def split_of(
    p: Problem, tile: Tile, lanes: int, size: int, threads: int, in_place: bool = False, given: bool = False, cache: int = 0
) -> Split:
    """Panels that fit the cache with the least traffic, then the threads' shares.

    Every further band reads the weights once more, every further pass over the channels writes and reads all sums.  Pixels that are
    read ``in_place`` are bounded alike, but cost nothing to be read by several units.  Weights that are ``given`` are packed once more by
    every further band, for about the time of one tile a block, unless the thread holds them all: pixels in place, or the panel of weights
    that are not held, may then fill half of the second-level ``cache``.
    """
    keeps = given and held_blocks(p, tile, lanes, size)
    most = max(_PANEL_BYTES, cache // 2) if given and (in_place or not keeps) else _PANEL_BYTES
    if in_place and (given or p.src_layout == "nhwc"):
        most = max(most, _STREAMED_BYTES[p.src_layout])
    s, oc_blocks = steps_of(p), -(-(p.oc // p.g) // (tile.mr * lanes))
    weights, sums = p.oc * p.taps * size, 2 * p.oc * p.oh * p.ow * size
    block_row = p.ow * DEPTH * size  # of one row and block of channels

    def held(rows: int, blocks: int) -> int:
        return block_row * rows * blocks if in_place else bytes_of_panel(s, tile, lanes, size, rows, blocks)

    row_bytes = block_row * s.blocks if in_place else held(tile.ny, s.blocks) // rows_of_panel(s, tile, tile.ny) * s.q
    fewest = 1 if keeps and in_place else min(max(1, -(-row_bytes * p.oh // most)), p.oh)
    found = []
    for bands in {1, 2, 3, 4, fewest} if fewest > 4 else range(1, fewest + 1):
        rows = band_rows(p, tile, bands)
        blocks = min(max(most // held(rows, 1), 1), s.blocks)
        if sums // (2 * bands) > most or bands == fewest or given:
            blocks = s.blocks
        passes = -(-s.blocks // blocks)
        too_long = blocks == s.blocks and bands < fewest
        found.append((too_long, (bands - 1) * weights + _SUMS_FACTOR * (passes - 1) * sums, bands, -(-s.blocks // passes)))
    *_, bands, pass_blocks = min(found)
    parts = 1
    near = in_place and held_blocks(p, tile, lanes, size)
    if threads == 1 and near and costs.bytes_moved(p) > costs.SWEPT_BYTES:
        bands = max(bands, min(_SWEPT_BANDS, p.oh))
    if threads > 1 and p.n * p.g * bands < 4 * threads:
        ways = [(bands, 1), (bands * threads, 1), (bands, threads)]
        if in_place:  # parts read an image again that the cache does not hold; a small one's few blocks and tiles may not come out even
            ways = [*ways, (threads, oc_blocks)] if bands == 1 else [*ways[:2], (2 * bands * threads, 1)]
        else:
            ways.append((-(-bands // threads) * threads, 1))
        packed = 0 if in_place else row_bytes
        small = p.oh * p.ow <= _SMALL_PIXELS
        apart = s.step == 1 or weights > _APART_BYTES
        if in_place and small and apart and oc_blocks >= _PARTS * threads:
            each = -(-oc_blocks // (_PARTS * threads)), oc_blocks // (_PARTS * threads)
            ways = [(bands, -(-oc_blocks // blocks)) for blocks in each]
        elif near and (given or not small) and (p.oh >= 2 * threads or p.oh % threads == 0):
            # pixels, and whole lines of results, are one thread's; what one is late with is another's
            fewest = -(-_UNITS * threads // (p.n * p.g))
            ways = [(min(bands, p.oh), 1) for bands in range(fewest, 2 * fewest)]
        bands, parts = min(ways, key=lambda way: _longest_share(p, tile, way[0], way[1], oc_blocks, threads, packed, given and not keeps))
    elif p.n * p.g == 1:
        bands = min(ceil(bands / threads) * threads, p.oh)
    # a unit is not interrupted
    seconds = costs.blocked_seconds(p, lanes, tile.mr, tile.ny, tile.nx) / max(p.n * p.g, 1)
    bands = max(bands, min(ceil(seconds / (parts * costs.UNIT_SECONDS)), p.oh))
    parts = max(parts, min(ceil(seconds / (bands * costs.UNIT_SECONDS)), oc_blocks))
    return Split(band_rows(p, tile, bands), parts, pass_blocks)


def band_rows(p: Problem, tile: Tile, bands: int) -> int:
    """Rows of one of ``bands`` bands: whole tiles."""
    rows = ceil(p.oh / bands)
    return ceil(rows / tile.ny) * tile.ny


def _longest_share(p: Problem, tile: Tile, bands: int, parts: int, oc_blocks: int, threads: int, row_bytes: int, given: bool) -> float:
    """Work of the busiest thread: tiles of its units, the packing of a panel for each, and of weights that are given."""
    rows_each = band_rows(p, tile, bands)
    part_blocks = -(-oc_blocks // parts)
    units = []
    for part in range(0, oc_blocks, part_blocks):
        for y in range(0, p.oh, rows_each):
            rows, blocks = min(rows_each, p.oh - y), min(part_blocks, oc_blocks - part)
            tiles = (-(-rows // tile.ny) * -(-p.ow // tile.nx) + given) * blocks
            packing = (rows + p.kh) * row_bytes / costs.PACKED_BYTES
            units.append(tiles * tile.mr * tile.ny * tile.nx * p.taps + packing)
    units *= min(p.n * p.g, 2 * threads)
    shares = [units[len(units) * i // threads : len(units) * (i + 1) // threads] for i in range(threads)]
    return max(map(sum, shares))
