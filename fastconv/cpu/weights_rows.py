"""weights_rows: the gradient of the weights of few channels that lie side by side: first layers, groups of some channels.

The taps of a row meet ``kw * channels`` values that lie side by side in a padded row of pixels: these are the columns of `weights`'
register tile, output channels in lanes.  So rows are copied as they lie, of groups their channels alone, once for all columns, where
`weights` makes a line of each and turns them: 3 to 32 channels at 224x224 with stride 2 330 us instead of 930, one core, Emerald Rapids,
2026-11.
Order of accumulation per weight: as in `weights`.
"""

from __future__ import annotations

from collections import namedtuple
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, border_indices
from .border import row_map, too_large
from .memory import copy, fill_row, integers, peek, poke, unrolled_by_hand
from .panels import beside_in_turn, not_summed
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .values import finish_values
from .weights_tile import weights_tile

CASES = ("n2_ic3ih33iw30_oc40k3_s2_p1_bwd-weight_f32_nhwc_hwio", "ic3ih33_oc24k7_s2_p3_bwd-weight_f32_nhwc",
         "n2_g3_ic24ih12_oc24k3_p1_bwd-weight_f32_nhwc", "g2_ic8ih11iw9_oc34kh3kw2_dh2dw1_p1_reflect_bwd-weight_f64_nhwc")  # fmt: skip


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``columns``."""

    registers: int  # of the target, at least
    mr: int
    columns: int


_TILES = (
    Tile(32, mr=2, columns=11),  # 22 accumulators, 2 gradients, 1 pixel of 32 registers; 7 taps of 3 channels have two blocks
    Tile(32, mr=1, columns=24),  # 3 taps of 8 channels, or half of 16
    Tile(32, mr=1, columns=9),  # 3 taps of 3 channels
    Tile(16, mr=1, columns=9),
)

MOST_CHANNELS = 16  # of a group
_PANEL_BYTES = 24 << 10  # of the pixels and the gradients of a band, each: both stay in a second-level cache, a row in the first

# The integers that the kernel receives: these, image row of each padded row, image column of each padded column.
Head = namedtuple(
    "Head",
    "n icg ocg oh ow kh kw many_taps tap_parts oc_parts blocks band_rows sh dh step rows columns row resume panel "
    "sn sc sy sx gn gc gy gx go gi dy dx",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, mr: int, columns: int, fma: int) -> Any:
    """The kernel: units of work are (group, block of output channels, part of the rows of taps), each over all pixels.

    Panel of pixels: ``[row][padded column][channel]``; of one row of taps only the rows that it meets.  Gradients are read where they lie
    where a block has whole vectors.
    Workspace: sums ``[ky][column][mr * lanes]``, columns padded to whole blocks, panel of pixels, gradients ``[pixel][mr * lanes]``.  What
    lies beyond the last column or channel is computed and never stored.
    """
    spec = (kind, lanes, mr, columns, fma)
    size = KINDS[kind][2]
    width = mr * lanes

    def weights_rows(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        rows_at = at.extents + _TABLES_AT
        columns_at = rows_at + e.rows * 8
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        sums = at.workspace + index * at.scratch
        tap_bytes = e.blocks * columns * width * size
        panel = sums + e.many_taps * tap_bytes
        grads = panel + e.panel
        # columns beyond the last are not used, but what numbers they read may be slow
        fill_row(kind, lanes, panel, (e.panel + e.band_rows * e.ow * width * size) // size, zero)
        for u in range(u0, u1):
            rest, ky0 = u // e.tap_parts, u % e.tap_parts * e.many_taps
            group, o0 = rest // e.oc_parts, rest % e.oc_parts * width
            taps, many = min(e.many_taps, e.kh - ky0), min(width, e.ocg - o0)
            # the panel's rows from one row of results to the next, and from one row of taps
            apart, down = (1, 0) if taps == 1 else (e.sh, e.dh)
            result = at.dst + (group * e.ocg + o0) * e.go + ky0 * e.dy
            fill_row(kind, lanes, sums, taps * tap_bytes // size, zero)
            if e.resume:
                for t in range(taps):
                    for j in range(e.kw * e.icg):
                        for lane in range(many):
                            place = result + t * e.dy + lane * e.go + j // e.icg * e.dx + j % e.icg * e.gi
                            poke(kind, sums + t * tap_bytes + (j * width + lane) * size, peek(kind, place))
            for n in range(e.n):
                image = at.src + n * e.sn + group * e.icg * e.sc
                gradient = at.wei + n * e.gn + (group * e.ocg + o0) * e.gc
                for y0 in range(0, e.oh, e.band_rows):
                    rows = min(e.band_rows, e.oh - y0)
                    grad, gx, gy = gradient + y0 * e.gy, e.gx, e.gy
                    if many < width:
                        for r in range(rows):
                            for x in range(e.ow):
                                copy(kind, lanes, grads + (r * e.ow + x) * width * size, grad + r * e.gy + x * e.gx, many)
                        grad, gx, gy = grads, width * size, e.ow * width * size
                    for r in range((rows - 1) * apart + (taps - 1) * down + 1):
                        above = (y0 + r) * e.sh if taps == 1 else y0 * e.sh + r
                        row = peek("i64", rows_at + (above + ky0 * e.dh) * 8)
                        to = panel + r * e.row
                        if row < 0:
                            fill_row(kind, lanes, to, e.columns * e.icg, fill)
                            continue
                        line, x = image + row * e.sy, 0
                        while x < e.columns:
                            column = peek("i64", columns_at + x * 8)
                            # as many columns as lie side by side in the image, too
                            run = 1
                            if e.sx == e.icg * size and column >= 0:
                                while x + run < e.columns and peek("i64", columns_at + (x + run) * 8) == column + run:
                                    run += 1
                            if column < 0:
                                fill_row(kind, lanes, to + x * e.icg * size, e.icg, fill)
                            else:
                                copy(kind, lanes, to + x * e.icg * size, line + column * e.sx, run * e.icg)
                            x += run
                    for t in range(taps):
                        for b in range(e.blocks):
                            own = sums + t * tap_bytes + b * columns * width * size
                            weights_tile(spec, own, width * size, own, width * size, grad, gx, gy, 0,
                                         panel + t * down * e.row + b * columns * size, e.step * e.icg * size, apart * e.row, 0, 1, rows,
                                         e.ow, grad, 0)  # fmt: skip
            for t in range(taps):
                for j in range(e.kw * e.icg):
                    for lane in range(many):
                        place = result + t * e.dy + lane * e.go + j // e.icg * e.dx + j % e.icg * e.gi
                        poke(kind, place, peek(kind, sums + t * tap_bytes + (j * width + lane) * size))

    return weights_rows


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the weights of few channels of a group, channels last, taps side by side, float32 or float64 throughout."""
    reason = not_summed(p)
    if reason is not None:
        return reason
    if p.src_layout != "nhwc" or p.ic // p.g > MOST_CHANNELS:
        return f"is for groups of at most {MOST_CHANNELS} channels side by side"
    if p.dw > 1 and p.kw > 1:
        return f"reads columns of taps side by side, not {p.dw} apart"
    if _unit_seconds(p, t) > costs.MOST_SECONDS:
        return f"needs {_unit_seconds(p, t):.1f} s for one image's part of the weights"
    return too_large(p, _layout(p, t, 1)[3])


def cost(p: Problem, t: Target) -> float:
    """FMAs in padded blocks of the best tile, and the copies of rows of pixels and of gradients."""
    return _seconds(p, t, _tile(p, t, 1))


def most_kernels(t: Target) -> int:
    return len(_fitting(t))


def _fitting(t: Target) -> list[Tile]:
    most = max(tile.registers for tile in _TILES if tile.registers <= t.registers)
    return [tile for tile in _TILES if tile.registers == most]


def _seconds(p: Problem, t: Target, tile: Tile) -> float:
    return costs.weights_rows_seconds(p, t.lanes(DTYPES[p.acc].itemsize), tile.mr, tile.columns)


def _units(p: Problem, t: Target, tile: Tile, threads: int) -> tuple[int, int]:
    """Blocks of output channels of a group, and parts of the rows of taps.

    Each row is a part where blocks do not occupy the threads alike, since each part reads all gradients again.
    """
    blocks = ceil(p.oc // p.g / (tile.mr * t.lanes(DTYPES[p.acc].itemsize)))
    return blocks, p.kh if p.g * blocks % threads and p.g * blocks < 4 * threads else 1


def _tile(p: Problem, t: Target, threads: int) -> Tile:
    """The tile of the shortest work of one thread; ties go to the earlier.  No tile changes a sum."""

    def longest(tile: Tile) -> float:
        oc_parts, tap_parts = _units(p, t, tile, threads)
        units = p.g * oc_parts * tap_parts
        return _seconds(p, t, tile) * ceil(units / threads) / units

    return min(_fitting(t), key=longest)


def _unit_seconds(p: Problem, t: Target) -> float:
    """Of one image, of the tile of one thread."""
    tile = _tile(p, t, 1)
    oc_parts, tap_parts = _units(p, t, tile, 1)
    return _seconds(p.replace(n=1), t, tile) / (p.g * oc_parts * tap_parts)


def _layout(p: Problem, t: Target, threads: int) -> tuple[Tile, Head, np.ndarray, int]:
    """The tile, the kernel's integers but for strides, its tables, bytes of workspace of one thread."""
    size, tile = KINDS[p.acc][2], _tile(p, t, threads)
    lanes, icg = t.lanes(size), p.ic // p.g
    width, blocks, (oc_parts, tap_parts) = tile.mr * lanes, ceil(p.kw * icg / tile.columns), _units(p, t, tile, threads)
    step = p.sw if p.ow > 1 else 1
    columns = (p.ow - 1) * step + p.kw
    row = ceil(columns * icg / lanes) * lanes * size
    of_row = max(row * (p.sh if tap_parts == 1 else 1), p.ow * width * size)
    rows = max(min(_PANEL_BYTES // of_row, p.oh), 1)
    rows = ceil(p.oh / ceil(p.oh / rows))
    held = rows if tap_parts > 1 or p.kh == 1 else (rows - 1) * p.sh + p.kh_span
    panel = held * row + tile.columns * lanes * size
    head = Head(
        n=p.n, icg=icg, ocg=p.oc // p.g, oh=p.oh, ow=p.ow, kh=p.kh, kw=p.kw, many_taps=p.kh // tap_parts, tap_parts=tap_parts,
        oc_parts=oc_parts, blocks=blocks, band_rows=rows, sh=p.sh, dh=p.dh, step=step, rows=p.ih_padded, columns=columns, row=row, resume=0,
        panel=panel, sn=0, sc=0, sy=0, sx=0, gn=0, gc=0, gy=0, gx=0, go=0, gi=0, dy=0, dx=0,
    )  # fmt: skip
    tables = np.concatenate([row_map(p), border_indices(-p.pl, columns, 1, p.iw, p.border)])
    scratch = head.many_taps * blocks * tile.columns * width * size + panel + rows * p.ow * width * size
    return tile, head, tables, ceil(scratch / 64) * 64


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is."""
    kind, size = p.acc, KINDS[p.acc][2]
    lanes = t.lanes(size)
    tile, head, tables, scratch = _layout(p, t, threads)
    name = f"weights_rows_{kind}_{tile.mr}x{tile.columns}_{lanes}"
    region = Region(name, _factory, (kind, lanes, tile.mr, tile.columns, int(t.fma)), kind)
    most = max(int(costs.MOST_SECONDS / _unit_seconds(p, t)), 1)  # images of one launch

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, sx), (gn, gc, gy, gx), (go, gi, dy, dx) = src.strides, grad.strides, dst.strides
        e = head._replace(n=images, resume=resume, sn=sn, sc=sc, sy=sy, sx=sx, gn=gn, gc=gc, gy=gy, gx=gx, go=go, gi=gi, dy=dy, dx=dx)
        extents, seconds = np.concatenate([np.array(e, np.int64), tables]), _seconds(p.replace(n=images), t, tile)
        units = p.g * head.oc_parts * head.tap_parts
        return region.launcher(extents, finish_values(p, fill), scratch, units, threads, seconds, src, grad, dst)

    return Plan(problem=p, algorithm="weights_rows", kernel=name, cost=_seconds(p, t, tile), pack_weights=lambda p, wei: wei,
                prepare_launch=beside_in_turn(p, most, launch_of), workspace=scratch * threads, threads=threads)  # fmt: skip
