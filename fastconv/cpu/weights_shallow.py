"""weights_shallow: the gradient of the weights of small groups; output channels in lanes, pixels broadcast, taps of a row in registers.

For each band of rows the pixels of as many channels as there are lanes are copied, borders resolved, and so are the gradients; planes are
put into lanes on the way.  Of several groups in a vector the first channels lie side by side, then the second ones, so that one load
that broadcasts has a channel of each.  A pixel is loaded once for the taps of a row that it meets.
Beside the best of the others, 8 images of 32 groups: of 8 channels at 28x28 in 0.60 ms and 1.2, at stride 2 from 56x56 1.2 ms and 3.1, of
16 at stride 2 from 28x28 0.67 ms and 0.86, of 4 at 56x56 1.0 ms and 1.4; channels last the first takes 3.2 ms by them (two threads, Zen 5,
2026-11).
Order of accumulation per weight: as in `weights`.
"""

from __future__ import annotations

from collections import namedtuple
from math import ceil, log2
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, border_indices
from .border import row_map, too_large
from .depthwise_tile import interleave, separate
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .panels import beside_in_turn, in_turn, not_summed
from .shallow_last_tile import channels_of_lanes, not_grouped, piece_of, placing_tile_kernel
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values
from .weights_shallow_tile import weights_shallow_tile_kernel

CASES = ("g4_ic32ih14_oc32k3_p1_bwd-weight_f32_nhwc", "n2_g2_ic32ih29iw31_oc32k3_s2_p1_reflect_bwd-weight_f32_nhwc_hwio",
         "n2_g8_ic32ih27iw30_oc32k3_s2_p1_bwd-weight_f32", "g2_ic32ih8iw12_oc64kh5kw2_p1_bwd-weight_f64")  # fmt: skip


class Tile(NamedTuple):
    """A vector of output channels at ``channels``, for a row of taps; ``nx`` pixels of the gradient at a time."""

    registers: int  # of the target, at least
    channels: int
    nx: int


_TILES = (
    Tile(32, channels=8, nx=7),  # 24 accumulators, 3 gradients, 1 pixel of 32 registers
    Tile(16, channels=4, nx=4),  # 12, 3 and 1 of 16
)

COLUMNS = 2, 3  # of taps: for a single one `weights` is as fast
LEAST_DEPTH, MOST_DEPTH = 4, 32  # channels of groups
_PANEL_BYTES = 128 << 10  # of a band's pixels and gradients, in a second-level cache: small bands copy the rows between them twice

# The integers that the kernel receives: these, the channel of each lane, the row map, the image column of each padded column.
Head = namedtuple(
    "Head",
    "tile placer n units together parts blocks icg ocg oh ow ih iw sh kh kw pt pl inside_to columns channels band_rows padded_rows row "
    "plane grads planes resume sn sc sy sx gn gc gy gx go gi dy dx",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int) -> Any:
    """The kernel: a unit of work are some vectors of output channels, over all pixels.

    Panels: ``[vector][row][column of the padded image][lanes]`` of pixels, ``[vector][row][column][lanes]`` of gradients.
    Workspace: addresses of planes and of filters, sums ``[vector][c][ky][kx][lanes]``, both panels, a band of planes in lanes.
    """
    size = KINDS[kind][2]
    vector = lanes * size

    def weights_shallow(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        lane_at = at.extents + _TABLES_AT
        rows_at = lane_at + lanes * 8
        columns_at = rows_at + e.padded_rows * 8
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        table = at.workspace + index * at.scratch
        sums = (table + lanes * 8 + 63) // 64 * 64
        taps, every, wide = e.kh * e.kw, e.together * e.blocks, e.together * e.parts
        panel = sums + every * e.icg * taps * vector
        grads = panel + wide * e.plane
        staged = grads + every * e.grads
        dense = e.gi == taps * size and e.dy == e.kw * size and e.dx == size and e.icg * taps >= lanes
        for u in range(u0, u1):
            channel, first = u * wide * lanes, u * every * lanes
            fill_row(kind, lanes, sums, every * e.icg * taps * lanes, zero)
            for v in range(every if e.resume else 0):
                for lane in range(lanes):
                    poke("i64", table + lane * 8, at.dst + (first + v * lanes + peek("i64", lane_at + lane * 8)) * e.go)
                own = sums + v * e.icg * taps * vector
                if dense:
                    interleave(kind, lanes, own, table, 0, e.icg * taps)
                else:
                    for entry in range(e.icg * taps):
                        away = entry // taps * e.gi + entry % taps // e.kw * e.dy + entry % e.kw * e.dx
                        for lane in range(lanes):
                            poke(kind, own + entry * vector + lane * size, peek(kind, peek("i64", table + lane * 8) + away))
            for n in range(e.n):
                for y0 in range(0, e.oh, e.band_rows):
                    rows = min(e.band_rows, e.oh - y0)
                    below = (rows - 1) * e.sh + e.kh
                    low, high = min(max(y0 * e.sh - e.pt, 0), e.ih), max(min(y0 * e.sh - e.pt + below, e.ih), 0)
                    inside = e.inside_to - e.pl
                    image, grad = at.src + n * e.sn + channel * e.sc, at.wei + n * e.gn + first * e.gc + y0 * e.gy
                    for part in range(0, wide, 2 - e.planes):
                        place, few = panel + part * e.plane, min(2 - e.planes, wide - part)
                        aside = 0
                        if e.planes:
                            for lane in range(lanes):
                                poke("i64", table + lane * 8, image + (part * lanes + peek("i64", lane_at + lane * 8)) * e.sc)
                            aside = inside < lanes and e.sx == size and e.sy == e.iw * size and (high - low) * e.iw >= lanes
                            if aside:
                                interleave(kind, lanes, staged, table, low * e.sy, (high - low) * e.iw)
                        for r in range(below):
                            row = peek("i64", rows_at + (y0 * e.sh + r) * 8)
                            to = place + r * e.row
                            if row < 0:
                                for v in range(few):
                                    fill_row(kind, lanes, to + v * e.plane, e.columns * lanes, fill)
                                continue
                            middle = to + e.pl * vector
                            if not e.planes:
                                line = image + part * vector + row * e.sy
                                call_kernel(e.placer, (middle, vector, e.plane, line, e.sx, inside, few))
                            elif aside and low <= row < high:
                                copy(kind, lanes, middle, staged + (row - low) * e.iw * vector, inside * lanes)
                            elif inside >= lanes and e.sx == size:
                                interleave(kind, lanes, middle, table, row * e.sy, inside)
                            else:
                                for x in range(inside):
                                    for lane in range(lanes):
                                        pixel = peek("i64", table + lane * 8) + row * e.sy + x * e.sx
                                        poke(kind, middle + x * vector + lane * size, peek(kind, pixel))
                            for side in range(2):
                                for x in range(e.inside_to if side else 0, e.columns if side else e.pl):
                                    column = peek("i64", columns_at + x * 8)
                                    if column < 0:
                                        for v in range(few):
                                            fill_row(kind, lanes, to + x * vector + v * e.plane, lanes, fill)
                                    elif e.planes:
                                        for lane in range(lanes):
                                            pixel = peek("i64", table + lane * 8) + row * e.sy + column * e.sx
                                            poke(kind, to + x * vector + lane * size, peek(kind, pixel))
                                    else:
                                        line = image + part * vector + row * e.sy + column * e.sx
                                        call_kernel(e.placer, (to + x * vector, 0, e.plane, line, 0, 1, few))
                    for v in range(0, every, 2 - e.planes):
                        place = grads + v * e.grads
                        if not e.planes:
                            for r in range(rows):
                                line = grad + v * vector + r * e.gy
                                call_kernel(e.placer, (place + r * e.ow * vector, vector, e.grads, line, e.gx, e.ow, min(2, every - v)))
                            continue
                        for lane in range(lanes):
                            poke("i64", table + lane * 8, grad + (v * lanes + peek("i64", lane_at + lane * 8)) * e.gc)
                        runs, length = (1, rows * e.ow) if e.gx == size and e.gy == e.ow * size else (rows, e.ow)
                        for r in range(runs):
                            to = place + r * length * vector
                            if e.gx == size and length >= lanes:
                                interleave(kind, lanes, to, table, r * e.gy, length)
                            else:
                                for x in range(length):
                                    away = (r if runs > 1 else x // e.ow) * e.gy + (x if runs > 1 else x % e.ow) * e.gx
                                    for lane in range(lanes):
                                        poke(kind, to + x * vector + lane * size, peek(kind, peek("i64", table + lane * 8) + away))
                    for v in range(every):
                        own = panel + v // e.blocks * e.parts * e.plane
                        for ky in range(e.kh):
                            for c in range(0, e.icg, e.channels):
                                pixels = own + c // lanes * e.plane + ky * e.row + c % lanes * (vector // min(e.icg, lanes))
                                call_kernel(e.tile, (sums + ((v * e.icg + c) * e.kh + ky) * e.kw * vector, taps * vector,
                                                     grads + v * e.grads, e.ow * vector, pixels, e.sh * e.row, rows, e.ow))  # fmt: skip
            for v in range(every):
                for lane in range(lanes):
                    poke("i64", table + lane * 8, at.dst + (first + v * lanes + peek("i64", lane_at + lane * 8)) * e.go)
                own = sums + v * e.icg * taps * vector
                if dense:
                    separate(kind, lanes, table, 0, own, e.icg * taps)
                else:
                    for entry in range(e.icg * taps):
                        away = entry // taps * e.gi + entry % taps // e.kw * e.dy + entry % e.kw * e.dx
                        for lane in range(lanes):
                            poke(kind, peek("i64", table + lane * 8) + away, peek(kind, own + entry * vector + lane * size))

    return weights_shallow


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the weights of groups of whole vectors, or of vectors of whole groups, at strides 1 and 2."""
    reason = not_summed(p)
    if reason is not None:
        return reason
    if (p.dh, p.dw) != (1, 1) or max(p.sh, p.sw) > 2:
        return f"reads dense taps at strides 1 and 2, not dilations {p.dh, p.dw} and strides {p.sh, p.sw}"
    if p.kw not in COLUMNS:
        return f"sums for {COLUMNS[0]} or {COLUMNS[-1]} columns of taps, not {p.kw}"
    reason = not_grouped(p, t.lanes(DTYPES[p.acc].itemsize), LEAST_DEPTH, MOST_DEPTH)
    if reason is not None:
        return reason
    seconds = _unit_seconds(p, t, t.lanes(DTYPES[p.acc].itemsize))
    if seconds > costs.MOST_SECONDS:
        return f"needs {seconds:.1f} s for one image's part of the weights"
    return too_large(p, _layout(p, t, 1)[2])


def cost(p: Problem, t: Target) -> float:
    """An FMA for each tap and channel of a vector of gradients, and the copies; planes are put into lanes."""
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    grads, pixels = p.n * p.oc / lanes * p.oh * p.ow, p.n * p.ic / lanes * p.ih_padded * p.iw_padded
    vector = costs.DEPTHWISE_STAGED_SECONDS * log2(lanes) if p.src_layout == "nchw" else 2 * costs.SHALLOW_VECTOR_SECONDS
    sums = grads * p.taps / (costs.FMA_PER_SECOND * costs.BLOCKED_SHARE)
    moved = costs.SEEN_SHARE * costs.bytes_moved(p) / costs.BYTES_PER_SECOND
    return 2 * costs.CALL_SECONDS + sums + (grads + pixels) * vector + moved


def most_kernels(t: Target) -> int:
    """The band; placing; tiles of each stride and row of taps, with a tail or without, of several groups or one in a vector."""
    lanes = t.lanes(4)
    pieces = len({max(lanes // depth, 1) for depth in (4, 8, 16, 32)})
    return 1 + 4 * len(COLUMNS) * pieces + pieces


def _unit_seconds(p: Problem, t: Target, lanes: int) -> float:
    """Of one image."""
    return 2 * cost(p.replace(n=1), t) / (p.g // piece_of(p, lanes))


def _layout(p: Problem, t: Target, threads: int) -> tuple[Head, list[np.ndarray], int]:
    """The kernel's integers but for strides, its tables, bytes of workspace of one thread."""
    size, icg, ocg, planes = DTYPES[p.acc].itemsize, p.ic // p.g, p.oc // p.g, p.src_layout == "nchw"
    lanes, tile = t.lanes(size), fitting(_TILES, t)[0]
    vector, parts, blocks = lanes * size, max(icg // lanes, 1), max(ocg // lanes, 1)
    units = p.g // piece_of(p, lanes)
    # lines of pixels come in pairs
    together = 2 if parts == blocks == 1 and units % 2 == 0 and units >= 2 * threads and not planes else 1
    units //= together
    every, wide, columns = together * blocks, together * parts, (p.ow - 1) * p.sw + p.kw
    row = columns * vector
    each = wide * p.sh * row + every * p.ow * vector  # of a row of the gradient
    rows = max((_PANEL_BYTES - wide * max(p.kh - p.sh, 0) * row) // each, 1)
    rows = ceil(p.oh / ceil(p.oh / min(rows, p.oh)))
    below = (rows - 1) * p.sh + p.kh
    left = min(p.pl, columns)
    head = Head(
        tile=0, placer=0, n=p.n, units=units, together=together, parts=parts, blocks=blocks, icg=icg, ocg=ocg, oh=p.oh, ow=p.ow, ih=p.ih,
        iw=p.iw, sh=p.sh, kh=p.kh, kw=p.kw, pt=p.pt, pl=left, inside_to=max(min(p.pl + p.iw, columns), left), columns=columns,
        channels=min(tile.channels, icg, lanes), band_rows=rows, padded_rows=p.ih_padded, row=row, plane=below * row,
        grads=rows * p.ow * vector, planes=int(planes), resume=0, sn=0, sc=0, sy=0, sx=0, gn=0, gc=0, gy=0, gx=0, go=0, gi=0, dy=0, dx=0,
    )  # fmt: skip
    tables = [np.array(channels_of_lanes(lanes, piece_of(p, lanes))), row_map(p), border_indices(-p.pl, columns, 1, p.iw, p.border)]
    scratch = 8 * lanes + 64 + every * icg * p.kh * p.kw * vector + wide * head.plane + every * head.grads + planes * below * p.iw * vector
    return head, tables, ceil(scratch / 64) * 64


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is."""
    kind, size = p.acc, KINDS[p.acc][2]
    lanes, tile, planes = t.lanes(size), fitting(_TILES, t)[0], p.src_layout == "nchw"
    piece = piece_of(p, lanes)
    head, tables, scratch = _layout(p, t, threads)
    code = weights_shallow_tile_kernel((kind, lanes, head.channels, p.kw, p.sw, tile.nx, int(p.ow % tile.nx > 0), piece, int(t.fma)))
    placer = placing_tile_kernel(kind, lanes, piece)
    region = Region(f"weights_shallow_{kind}_{lanes}", _factory, (kind, lanes), kind)
    most = max(int(costs.MOST_SECONDS / _unit_seconds(p, t, lanes)), 1)  # images of one launch

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, sx), (gn, gc, gy, gx), (go, gi, dy, dx) = src.strides, grad.strides, dst.strides
        e = head._replace(tile=code.address, placer=placer.address, n=images, resume=resume, sn=sn, sc=sc, sy=sy, sx=sx, gn=gn, gc=gc,
                          gy=gy, gx=gx, go=go, gi=gi, dy=dy, dx=dx)  # fmt: skip
        extents = np.concatenate([np.array(e, np.int64), *tables])
        seconds = cost(p.replace(n=images), t)
        return region.launcher(extents, finish_values(p, fill), scratch, head.units, threads, seconds, src, grad, dst)

    prepare = (in_turn if planes else beside_in_turn)(p, most, launch_of)
    return Plan(problem=p, algorithm="weights_shallow", kernel=code.name, cost=cost(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=prepare, workspace=scratch * threads, threads=threads)  # fmt: skip
