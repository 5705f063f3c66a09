"""weights_winograd_split: how `weights_winograd` cuts a problem into units, and these into strips of blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from ..planning import cost as costs
from ..planning.problem import DTYPES, Problem
from ..planning.winograd_cost import weights_winograd_seconds
from ..planning.winograd_points import pixels_of, points_of
from .border import LINE, whole_lines
from .target import Target
from .winograd_frame import stride_of

M = 4  # of a block of the result's gradient
SUMS = (M + 2) ** 2  # points of transformed weights

# Blocks of a strip: what is stored of a vector of them, at all points, lies in as many pages as a processor knows of when it stores.
_STRIP = 16
# Blocks that are transformed, and summed up, at once: of 16 sums go on so often that 128 channels at 28x28, 8 images, take 2510 us, of 28
# 2350, of 42 2490 and of 84 2800 (two cores, Emerald Rapids, 2026-11).
_TOGETHER = 32


class Strips(NamedTuple):
    """Blocks of a strip, the rows of blocks that it is, or the strips of a row; strips that are transformed at once."""

    blocks: int
    rows: int
    of_row: int
    together: int


class Cut(NamedTuple):
    """The channels of image and result of a unit of work."""

    ic: int
    oc: int

    def sum_point(self, size: int) -> int:
        """Bytes between two points of sums: a line more, so that they lie in different sets of a cache."""
        return whole_lines(self.ic * self.oc * size, 1) + LINE

    def bytes_held(self, p: Problem, size: int) -> int:
        """Of sums, transformed pixels and gradients."""
        strips, (pixels, gradients) = strips_of(p), squares_of(p)
        values = self.ic * (pixels * strips.blocks + 1) + self.oc * (gradients * strips.blocks + 1)
        return SUMS * self.sum_point(size) + values * strips.together * size


def squares_of(p: Problem) -> tuple[int, int]:
    """Transformed pixels and gradients of a block."""
    return pixels_of(M, stride_of(p)) ** 2, points_of(M, stride_of(p)) ** 2


def tall_of(p: Problem) -> int:
    """Rows of blocks that are transformed at once, and summed up: it changes a sum, and is chosen by one image's extents."""
    across = -(-p.ow // M)
    rows = max(_STRIP // across, 1)
    return max(_TOGETHER // (rows * across), 1) * rows


def strips_of(p: Problem) -> Strips:
    """Strips of some `_STRIP` blocks."""
    across, tall = -(-p.ow // M), tall_of(p)
    if across > _STRIP:
        of_row = -(-across // _STRIP)
        return Strips(-(-across // of_row), 1, of_row, tall * of_row)
    tall = min(tall, p.n * -(-p.oh // M))
    rows = max(min(_STRIP // across, tall), 1)
    return Strips(rows * across, rows, 1, -(-tall // rows))


def _parts(whole: int, multiple: int) -> Iterator[int]:
    """Even parts of a whole, in such multiples."""
    most = whole // multiple
    yield from sorted({-(-most // count) * multiple for count in range(1, most + 1)})


@functools.lru_cache(maxsize=256)
def cut_of(p: Problem, t: Target, width: int, threads: int) -> Cut:
    """What the busiest thread is done with first, of ``width`` output channels or a multiple; no cut changes a sum."""
    size = DTYPES[p.acc].itemsize
    cuts = [Cut(ic, oc) for ic in _parts(p.ic // p.g, t.lanes(size)) for oc in _parts(p.oc // p.g, width)]
    small = [cut for cut in cuts if cut.bytes_held(p, size) <= costs.WEIGHTS_WINOGRAD_CACHE_SHARE * t.l2] or cuts[:1]
    return min(small, key=lambda cut: seconds_of(p, t, cut, threads))


def seconds_of(p: Problem, t: Target, cut: Cut, threads: int = 1) -> float:
    """Of the busiest thread."""
    lanes, strips, (pixels, gradients) = t.lanes(DTYPES[p.acc].itemsize), strips_of(p), squares_of(p)
    units = p.g * -(-p.ic // p.g // cut.ic) * -(-p.oc // p.g // cut.oc)
    rows = p.n * -(-p.oh // M)
    blocks = rows * -(-p.ow // M)
    padded = -(-rows // strips.rows) * strips.of_row * strips.blocks
    staged = rows * (pixels_of(M, stride_of(p)) * p.iw * cut.ic + M * p.ow * cut.oc) // lanes if p.src_layout == "nchw" else 0
    return weights_winograd_seconds(p, -(-units // threads), cut.ic * cut.oc // lanes, pixels * padded, SUMS * -(-rows // tall_of(p)),
                                    blocks * pixels * cut.ic // lanes, blocks * gradients * cut.oc // lanes, staged)  # fmt: skip
