"""weights_grouped: the gradient of the weights of small groups, depthwise ones above all: output channels in lanes, taps in registers.

The panel of gradients holds a vector of output channels for each pixel; for each input channel of a group there is a panel of pixels
that has in every lane the pixel which this lane's output channel multiplies.
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
from .memory import copy, copy_apart, fill_row, integers, peek, poke, unrolled_by_hand
from .panels import in_turn, not_summed, steps_between
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .values import finish_values
from .weights_tile import lanes_tile, turn_lines

CASES = ("n2_g32_ic32ih14_oc32k3_p1_bwd-weight_f32", "g24_ic24ih15_oc24k5_s2_p2_bwd-weight_f32_nhwc_hwio",
         "n3_g8_ic32ih12_oc32k3_p1_bwd-weight_f32", "g6_ic12ih11iw9_oc18k4_d2_p1_reflect_bwd-weight_f64",
         "g20_ic20ih7_oc40k3_s3_bwd-weight_f32", "n2_g3_ic3ih9iw30_oc3kh1kw2_s2_bwd-weight_f32")  # fmt: skip


class Tile(NamedTuple):
    """One vector of output channels x ``taps``."""

    registers: int  # of the target, at least
    taps: int


TILES = (Tile(16, taps=9),)  # 9 accumulators, a gradient, a pixel; 9 places in the integer registers

MOST_CHANNELS = 16  # of a group: of more, `weights` multiplies less in vain
_PANEL_BYTES = 192 << 10  # of all panels of a unit

# The integers that the kernel receives: these, the row map, the image column of each padded column, the panel's bytes to each tap, and
# the result's.
Head = namedtuple(
    "Head",
    "n oc icg ocg oh ow taps band_rows g q kh_rows padded_rows padded_columns row positions before after step pixel_step panel resume "
    "sn sc sy sx gn gc gy gx go gi",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, taps: int, fma: int) -> Any:
    """The kernel: a unit of work is a vector of output channels, over all pixels.

    Panel of pixels: ``[channel of the group][row][position][lanes]``, of gradients: ``[row][pixel][lanes]``.
    Workspace: sums ``[channel of the group][tap][lanes]``, taps padded to whole tiles, addresses of the lanes' rows, both panels.  Lanes
    beyond the last channel repeat it and are never stored.
    """
    spec = (kind, lanes, taps, fma)
    size = KINDS[kind][2]
    vector = lanes * size

    def weights_grouped(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        padded = (e.taps + taps - 1) // taps * taps
        rows_at = at.extents + _TABLES_AT
        columns_at = rows_at + e.padded_rows * 8
        taps_at = columns_at + e.padded_columns * 8
        out_at = taps_at + padded * 8
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        sums = at.workspace + index * at.scratch
        table = sums + e.icg * padded * vector
        panel = (table + 8 * lanes + 63) // 64 * 64
        grads = panel + e.icg * e.panel
        beside = e.sc == size and e.icg == 1 and e.ocg == 1  # a vector of channels
        for u in range(u0, u1):
            first = u * lanes
            many = min(lanes, e.oc - first)
            fill_row(kind, lanes, sums, e.icg * padded * lanes, zero)
            if e.resume:
                for lane in range(many):
                    for c in range(e.icg):
                        for t in range(e.taps):
                            place = at.dst + (first + lane) * e.go + c * e.gi + peek("i64", out_at + t * 8)
                            poke(kind, sums + (c * padded + t) * vector + lane * size, peek(kind, place))
            for n in range(e.n):
                for y0 in range(0, e.oh, e.band_rows):
                    rows = min(e.band_rows, e.oh - y0)
                    for lane in range(lanes):
                        o = min(first + lane, e.oc - 1)
                        poke("i64", table + lane * 8, at.wei + n * e.gn + o * e.gc + y0 * e.gy)
                    if e.gx == size:
                        runs, each = (1, rows * e.ow) if e.gy == e.ow * size else (rows, e.ow)
                        for r in range(runs):
                            turn_lines(kind, lanes, grads + r * each * vector, vector, table, r * e.gy, each)
                    elif e.gc == size and many == lanes:
                        for r in range(rows):
                            copy_apart(kind, lanes, grads + r * e.ow * vector, vector, peek("i64", table) + r * e.gy, e.gx, e.ow)
                    else:
                        for r in range(rows):
                            for x in range(e.ow):
                                to, away = grads + (r * e.ow + x) * vector, r * e.gy + x * e.gx
                                if e.gc == size:
                                    copy(kind, lanes, to, peek("i64", table) + away, many)
                                else:
                                    for lane in range(lanes):
                                        poke(kind, to + lane * size, peek(kind, peek("i64", table + lane * 8) + away))
                    for c in range(e.icg):
                        for lane in range(lanes):
                            o = min(first + lane, e.oc - 1)
                            poke("i64", table + lane * 8, at.src + n * e.sn + (o // e.ocg * e.icg + c) * e.sc)
                        for r in range((rows - 1) * e.q + e.kh_rows):
                            row = peek("i64", rows_at + (y0 * e.q + r) * e.g * 8)
                            to, away = panel + c * e.panel + r * e.row, row * e.sy
                            low, high = 0, 0  # the positions that are filled at once
                            if row < 0:
                                fill_row(kind, lanes, to, e.positions * lanes, fill)
                                high = e.positions
                            elif e.step == 1 and (e.sx == size or (beside and many == lanes)):
                                low, high = e.before, max(e.positions - e.after, e.before)
                                inside = away + peek("i64", columns_at + low * 8) * e.sx
                                if e.sx == size:
                                    turn_lines(kind, lanes, to + low * vector, vector, table, inside, high - low)
                                else:
                                    copy_apart(kind, lanes, to + low * vector, vector, peek("i64", table) + inside, e.sx, high - low)
                            for other in range(low + e.positions - high):
                                position = other if other < low else other - low + high
                                column = peek("i64", columns_at + position * e.step * 8)
                                place = to + position * vector
                                if column < 0:
                                    fill_row(kind, lanes, place, lanes, fill)
                                elif beside:
                                    copy(kind, lanes, place, peek("i64", table) + away + column * e.sx, many)
                                else:
                                    for lane in range(lanes):
                                        poke(kind, place + lane * size, peek(kind, peek("i64", table + lane * 8) + away + column * e.sx))
                        for t in range(0, padded, taps):
                            lanes_tile(spec, sums + (c * padded + t) * vector, grads, panel + c * e.panel, taps_at + t * 8, e.pixel_step,
                                       e.q * e.row, rows, e.ow)  # fmt: skip
            for lane in range(many):
                for c in range(e.icg):
                    for t in range(e.taps):
                        place = at.dst + (first + lane) * e.go + c * e.gi + peek("i64", out_at + t * 8)
                        poke(kind, place, peek(kind, sums + (c * padded + t) * vector + lane * size))

    return weights_grouped


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the weights of groups of few channels, everything float32 or everything float64."""
    reason = not_summed(p)
    if reason is not None:
        return reason
    if p.ic // p.g > MOST_CHANNELS:
        return f"sums for groups of at most {MOST_CHANNELS} channels, not {p.ic // p.g}"
    size = DTYPES[p.acc].itemsize
    seconds = _unit_seconds(p, t.lanes(size))
    if seconds > costs.MOST_SECONDS:
        return f"needs {seconds:.1f} s for one image's part of the weights"
    return too_large(p, _layout(p, TILES[0], t.lanes(size), size)[2])


def cost(p: Problem, t: Target) -> float:
    """FMAs of whole vectors and tiles, as many loads, and the packing of the panels."""
    return costs.weights_grouped_seconds(p, t.lanes(DTYPES[p.acc].itemsize), TILES[0].taps)


def most_kernels(t: Target) -> int:
    return 1


def _unit_seconds(p: Problem, lanes: int) -> float:
    """Of one image."""
    return costs.weights_grouped_seconds(p.replace(n=1), lanes, TILES[0].taps) / ceil(p.oc / lanes)


def _layout(p: Problem, tile: Tile, lanes: int, size: int) -> tuple[Head, np.ndarray, int]:
    """The kernel's integers but for strides, its tables but for the result's, bytes of workspace of one thread."""
    s, icg = steps_between(p), p.ic // p.g
    vector = lanes * size
    row = s.positions * vector
    rows = max((_PANEL_BYTES - icg * s.kh_rows * row) // (icg * s.q * row + p.ow * vector), 1)
    rows = ceil(p.oh / ceil(p.oh / min(rows, p.oh)))
    panel = ((rows - 1) * s.q + s.kh_rows) * row
    columns = (s.positions - 1) * s.gx + 1
    before = min(p.pl, s.positions)
    padded = ceil(p.kh * p.kw / tile.taps) * tile.taps
    head = Head(
        n=p.n, oc=p.oc, icg=icg, ocg=p.oc // p.g, oh=p.oh, ow=p.ow, taps=p.kh * p.kw, band_rows=rows, g=s.g, q=s.q, kh_rows=s.kh_rows,
        padded_rows=p.ih_padded, padded_columns=columns, row=row, positions=s.positions, before=before,
        after=max(s.positions - before - p.iw, 0), step=s.gx, pixel_step=s.qx * vector, panel=panel, resume=0,
        sn=0, sc=0, sy=0, sx=0, gn=0, gc=0, gy=0, gx=0, go=0, gi=0,
    )  # fmt: skip
    offsets = np.zeros(padded, np.int64)
    offsets[: p.kh * p.kw] = (np.arange(p.kh)[:, None] * s.down * row + np.arange(p.kw) * s.across * vector).reshape(-1)
    tables = np.concatenate([row_map(p), border_indices(-p.pl, columns, 1, p.iw, p.border), offsets])
    scratch = icg * padded * vector + 8 * lanes + 64 + icg * panel + rows * p.ow * vector
    return head, tables, ceil(scratch / 64) * 64


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is."""
    kind, tile = p.acc, TILES[0]
    size = KINDS[kind][2]
    lanes = t.lanes(size)
    name = f"weights_grouped_{kind}_{tile.taps}_{lanes}"
    region = Region(name, _factory, (kind, lanes, tile.taps, int(t.fma)), kind)
    head, tables, scratch = _layout(p, tile, lanes, size)
    most = max(int(costs.MOST_SECONDS / _unit_seconds(p, lanes)), 1)  # images of one launch

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, sx), (gn, gc, gy, gx), (go, gi, dy, dx) = src.strides, grad.strides, dst.strides
        e = head._replace(n=images, resume=resume, sn=sn, sc=sc, sy=sy, sx=sx, gn=gn, gc=gc, gy=gy, gx=gx, go=go, gi=gi)
        out = (np.arange(p.kh)[:, None] * dy + np.arange(p.kw) * dx).reshape(-1)
        extents = np.concatenate([np.array(e, np.int64), tables, out])
        seconds = costs.weights_grouped_seconds(p.replace(n=images), lanes, tile.taps)
        return region.launcher(extents, finish_values(p, fill), scratch, ceil(p.oc / lanes), threads, seconds, src, grad, dst)

    return Plan(problem=p, algorithm="weights_grouped", kernel=name, cost=cost(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=in_turn(p, most, launch_of), workspace=scratch * threads, threads=threads)  # fmt: skip
