"""weights_split: how `weights` cuts a problem into units, and these into bands of pixels."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from ..planning import cost as costs
from ..planning.problem import Problem
from .panels import steps_between

_BAND_PIXELS = 256  # of results in a panel: its part of one block of output channels stays in the first-level cache
_FEW_PIXELS = 128  # of results whose pixels and gradients are read where they lie
_PANEL_BYTES = 384 << 10  # of both panels of a unit
_SUM_BYTES = 256 << 10  # of a unit
_FEW_UNITS = 8  # for each thread
# Of a pixel's channels, of which processors fetch all where a unit reads less than half: 144 to 24 channels at 56x56, 8 images, take
# 1260 us in six units, each of a third of them, in two 780 (two cores, Emerald Rapids, 2026-11).
_NARROW_BYTES = 768
_MOST_PARTS = 64  # that output channels or columns are cut into, unless into blocks


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``columns``."""

    registers: int  # of the target, at least
    mr: int
    columns: int


def lies(p: Problem) -> bool:
    """Whether pixels and gradients are read where they lie, as far as the layout tells."""
    return p.src_layout == "nhwc" and p.kh * p.kw == 1 and p.pt == p.pb == p.pl == p.pr == 0


def is_expanded(p: Problem, tile: Tile) -> bool:
    """Whether columns are those of the kernel, too: where a tenth fewer blocks of columns hold them than blocks of channels for each.

    For one block of 120 it is not worth the lines that are made: 512 channels at 14x14, channels last, took 16 ms instead of 9.
    """
    icg = p.ic // p.g
    return p.kw > 1 and 10 * ceil(icg * p.kw / tile.columns) <= 9 * p.kw * ceil(icg / tile.columns)


class Split(NamedTuple):
    """How the work is cut: blocks of output channels and of columns of a unit, its taps; images and rows of a band."""

    part_blocks: int
    column_blocks: int
    tap_many: int
    images: int
    rows: int

    def units(self, oc_blocks: int, column_blocks: int, taps: int) -> int:
        """Of one group."""
        return ceil(oc_blocks / self.part_blocks) * ceil(column_blocks / self.column_blocks) * ceil(taps / self.tap_many)


def counts_of(p: Problem, tile: Tile, lanes: int) -> tuple[int, int, int]:
    """Blocks of output channels and of columns of a group, and taps of a column."""
    expanded = is_expanded(p, tile)
    columns = p.ic // p.g * (p.kw if expanded else 1)
    return ceil(p.oc // p.g / (tile.mr * lanes)), ceil(columns / tile.columns), p.kh if expanded else p.kh * p.kw


def unit_seconds(p: Problem, tile: Tile, lanes: int, split: Split) -> float:
    """Of one image."""
    seconds = costs.weights_seconds(p.replace(n=1), lanes, tile.mr, tile.columns, is_expanded(p, tile))
    return seconds / (p.g * split.units(*counts_of(p, tile, lanes)))


def _parts(whole: int) -> list[int]:
    """What each part has of a whole that is cut into so many even ones, ascending."""
    return sorted({1, *(ceil(whole / count) for count in range(1, min(whole, _MOST_PARTS) + 1))})


def _each(whole: int, part: int) -> list[int]:
    """What parts of so many, the last of which may be smaller, have of a whole.

    Examples
    --------
    >>> _each(5, 2)
    [2, 2, 1]
    """
    return [min(part, whole - first) for first in range(0, whole, part)]


def split_of(p: Problem, tile: Tile, lanes: int, size: int, threads: int) -> Split:
    """Sums that fit the cache, and of these parts those that the busiest thread is done with first.

    Each unit reads, and packs, the pixels and gradients of its part: of 8 units of 256 to 128 channels at 56x56 two threads took 1360 us,
    of 2 they take 910; those of 64 to 256 683 and 506 (two cores, Emerald Rapids, 2026-11).
    """
    counts = oc_blocks, column_blocks, taps = counts_of(p, tile, lanes)
    width, s = tile.mr * lanes, steps_between(p, is_expanded(p, tile))
    tile_bytes = width * tile.columns * size
    seconds = costs.weights_seconds(p.replace(n=1), lanes, tile.mr, tile.columns, is_expanded(p, tile))
    of_tile = seconds / (p.g * oc_blocks * column_blocks * taps)
    of_values = p.oh * p.ow * (costs.WEIGHTS_READ_SECONDS if lies(p) else costs.BLOCKED_PACK_SECONDS[p.src_layout])

    def read(part: int, whole: int) -> int:
        return whole if lies(p) and 2 * part < whole and whole * size <= _NARROW_BYTES else part

    def seconds_of(a: int, b: int, many: int) -> float:
        values = read(a * width, p.oc // p.g) + read(b * tile.columns, p.ic // p.g)
        return a * b * many * of_tile + values * of_values

    def busiest(a: int, b: int, many: int) -> float:
        units = p.g * Split(a, b, many, 1, 1).units(*counts)
        longest = ceil(units / threads) * seconds_of(a, b, many)
        if units > _FEW_UNITS * threads or p.g > 1:
            return longest
        # the last parts may be smaller: of 3 x 3 blocks two threads share 2, 1, 2, 1, 2 and 1 as 5 and 4
        parts, columns = _each(oc_blocks, a), _each(column_blocks, b)
        every = [seconds_of(part, column, taken) for part in parts for column in columns for taken in _each(taps, many)]
        return max(sum(every[units * i // threads : units * (i + 1) // threads]) for i in range(threads))

    def fits(a: int, b: int, many: int) -> bool:
        units = p.g * Split(a, b, many, 1, 1).units(*counts)
        return a * b * many * tile_bytes <= _SUM_BYTES and seconds <= costs.UNIT_SECONDS * units

    fitting = [(a, b, taps) for a in _parts(oc_blocks) for b in _parts(column_blocks) if fits(a, b, taps)]
    fitting = fitting or [(1, 1, next((many for many in reversed(_parts(taps)) if fits(1, 1, many)), 1))]
    a, b, many = min(fitting, key=lambda cut: busiest(*cut))
    pitch = ceil(tile.columns / lanes) * lanes
    of_row = size * (a * width * p.ow + b * pitch * s.positions * s.q)
    pixels = _FEW_PIXELS if lies(p) else _BAND_PIXELS
    rows = max(min(max(pixels // p.ow, s.kh_rows // s.q, 1), _PANEL_BYTES // of_row, p.oh), 1)
    rows = ceil(p.oh / ceil(p.oh / rows))
    images = max(min(pixels // (p.oh * p.ow), _PANEL_BYTES // (p.oh * of_row), p.n), 1) if rows == p.oh else 1
    return Split(a, b, many, images, rows)
