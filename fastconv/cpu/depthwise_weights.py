"""depthwise_weights: the gradient of the weights of depthwise 3x3 layers whose channels lie side by side, read in place.

All taps of a vector of channels are in registers, and each pixel that they share is loaded once: 4 loads for 9 multiply-adds, which is
what memory allows, where `weights_grouped` copies pixels and gradients into panels first: 144 channels at 56x56 150 us instead of 300, one
core, Emerald Rapids, 2026-11.  A unit goes down strips of seven columns with all its channels, so that rows are read again from the
first-level cache.  Pixels beyond the image are one pixel of fill, found in a table of addresses that is made anew for each row.
Order of accumulation per weight: images, strips of seven columns of the result, its rows, their columns, one after the other, from zero.
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
from .depthwise_tile import OUTSIDE, addresses
from .memory import fill_row, integers, peek, poke, unrolled_by_hand
from .panels import beside_in_turn, not_summed
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values
from .weights_tile import taps_tile

CASES = ("n2_g40_ic40ih15iw17_oc40k3_p1_bwd-weight_f32_nhwc_hwio", "g24_ic24ih15_oc24k3_s2_p1_bwd-weight_f32_nhwc",
         "n3_g18_ic18ih12iw5_oc18k3_p1_reflect_bwd-weight_f64_nhwc_hwio")  # fmt: skip


class Tile(NamedTuple):
    """``nx`` pixels of the result side by side."""

    registers: int  # of the target, at least
    nx: int


_TILES = (Tile(16, nx=7),)  # 9 accumulators, 3 pixels, 3 gradients of 16 registers; rows of 7, 14, 28, 56, 112 have no rest

_TAPS = 3  # rows and columns
_STEPS = 1, 2  # columns between two results
_EVEN_VECTORS = 8  # of a unit from which on two for each thread are as good
# Of the rows that a strip of stride 2 reads, and the next ones, which stay in a first-level cache: 576 channels at 14x14, a batch of 8,
# take 61 us instead of 83; of stride 1 all vectors of 144 at 56x56 take 630, three at a time 840 (one core, Zen 5, 2026-11).
_HELD_BYTES = 20 << 10
_LEAST_VECTORS = 3  # of such a unit

# The integers that the kernel receives: these, image row of each padded row, bytes to each padded column.
Head = namedtuple("Head", "n channels block oh ow sh rows reach pitch resume sn sy sx gn gy gx go dy dx")
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, nx: int, step: int, fma: int) -> Any:
    """The kernel: units of work are blocks of channels, each over all pixels.

    Workspace: a pixel of fill, sums ``[vector][ky][kx][lanes]``, the addresses of three rows of pixels.  The last vector of channels
    overlaps the one before.
    """
    spec = (kind, lanes, nx, step, _TAPS, fma)
    size, taps = KINDS[kind][2], _TAPS * _TAPS
    vector, words = lanes * size, lanes * size // 8

    def depthwise_weights(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        row_map = at.extents + _TABLES_AT
        columns = row_map + e.rows * 8
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        outside = at.workspace + index * at.scratch
        sums = outside + e.block * size
        table = sums + (e.block + lanes - 1) // lanes * taps * vector
        fill_row(kind, lanes, outside, e.block, fill)
        for u in range(u0, u1):
            first = min(u * e.block, max(e.channels - e.block, 0))
            many = min(e.block, e.channels)
            vectors = (many + lanes - 1) // lanes
            fill_row(kind, lanes, sums, vectors * taps * lanes, zero)
            for v in range(vectors):
                c = min(v * lanes, many - lanes)
                if e.resume:
                    for lane in range(lanes):
                        for t in range(taps):
                            place = at.dst + (first + c + lane) * e.go + t // _TAPS * e.dy + t % _TAPS * e.dx
                            poke(kind, sums + (v * taps + t) * vector + lane * size, peek(kind, place))
            for n in range(e.n):
                image = at.src + n * e.sn + first * size
                for x in range(0, e.ow, nx):
                    for y in range(e.oh):
                        for ky in range(_TAPS):
                            row = peek("i64", row_map + (y * e.sh + ky) * 8)
                            if row >= 0:
                                addresses(words, table + ky * e.pitch, image + row * e.sy, columns + x * step * 8, outside, e.reach)
                            else:
                                fill_row("i64", words, table + ky * e.pitch, e.reach, outside)
                        grads = at.wei + n * e.gn + y * e.gy + x * e.gx + first * size
                        for v in range(vectors):
                            c = min(v * lanes, many - lanes) * size
                            taps_tile(spec, sums + v * taps * vector, grads + c, e.gx, table, e.pitch, c, min(nx, e.ow - x),
                                      e.sh * e.sy, e.gy)  # fmt: skip
            for v in range(vectors):
                c = min(v * lanes, many - lanes)
                # channels of the block before are that one's: it may have written them already, and more images may follow
                for lane in range(max(u * e.block - first - c, 0), lanes):
                    for t in range(taps):
                        place = at.dst + (first + c + lane) * e.go + t // _TAPS * e.dy + t % _TAPS * e.dx
                        poke(kind, place, peek(kind, sums + (v * taps + t) * vector + lane * size))

    return depthwise_weights


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of 3x3 weights of one channel each, channels last and as many as lanes, everything float32 or everything float64."""
    reason = not_summed(p)
    if reason is not None:
        return reason
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    if p.src_layout != "nhwc" or not p.g == p.ic == p.oc or p.oc < lanes:
        return f"is for at least {lanes} channels side by side, one for each result"
    if (p.kh, p.kw, p.dh, p.dw) != (_TAPS, _TAPS, 1, 1) or p.sw not in _STEPS:
        return f"is for 3x3 taps side by side and strides up to {_STEPS[-1]}"
    seconds = costs.depthwise_weights_seconds(p.replace(n=1), lanes)
    if seconds > costs.MOST_SECONDS:
        return f"needs {seconds:.1f} s for one image's part of the weights"
    return too_large(p, _layout(p, t, 1)[2])


def cost(p: Problem, t: Target) -> float:
    """FMAs of whole vectors, and a table of addresses for each row."""
    return costs.depthwise_weights_seconds(p, t.lanes(DTYPES[p.acc].itemsize))


def most_kernels(t: Target) -> int:
    return len(_STEPS)


def _layout(p: Problem, t: Target, threads: int) -> tuple[Head, np.ndarray, int]:
    """The kernel's integers but for strides, the columns of pixels, bytes of workspace of one thread."""
    size = KINDS[p.acc][2]
    lanes = t.lanes(size)
    words, vectors, nx = lanes * size // 8, ceil(p.oc / lanes), fitting(_TILES, t)[0].nx
    units = threads * (2 if vectors >= _EVEN_VECTORS * threads * 2 else 1)
    block = min(ceil(vectors / units) * lanes, p.oc)
    if p.sw > 1:
        held = (_TAPS + p.sh) * ((nx - 1) * p.sw + _TAPS) * lanes * size
        block = min(_even(vectors, threads, _HELD_BYTES // held) * lanes, p.oc)
    reach = (nx - 1) * p.sw + _TAPS
    pitch = ceil(reach / words) * words * 8
    columns = border_indices(-p.pl, (p.ow - 1) * p.sw + reach + words, 1, p.iw, p.border)
    head = Head(n=p.n, channels=p.oc, block=block, oh=p.oh, ow=p.ow, sh=p.sh, rows=p.ih_padded, reach=reach, pitch=pitch,
                resume=0, sn=0, sy=0, sx=0, gn=0, gy=0, gx=0, go=0, dy=0, dx=0)  # fmt: skip
    scratch = ceil(block / lanes) * lanes * size * (1 + _TAPS * _TAPS) + _TAPS * pitch
    return head, columns, ceil(scratch / 64) * 64


def _even(vectors: int, threads: int, most: int) -> int:
    """Vectors of a unit: of those that keep no thread longer than need be the most up to ``most``, else the fewest."""
    sizes = range(min(_LEAST_VECTORS, vectors), vectors + 1)
    longest = {size: ceil(ceil(vectors / size) / threads) * size for size in sizes}
    even = [size for size in sizes if longest[size] == min(longest.values())]
    return max((size for size in even if size <= most), default=even[0])


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is."""
    kind, tile = p.acc, fitting(_TILES, t)[0]
    size = KINDS[kind][2]
    lanes = t.lanes(size)
    name = f"depthwise_weights_{kind}_{tile.nx}_{lanes}_s{p.sw}"
    region = Region(name, _factory, (kind, lanes, tile.nx, p.sw, int(t.fma)), kind)
    head, columns, scratch = _layout(p, t, threads)
    most = max(int(costs.MOST_SECONDS / costs.depthwise_weights_seconds(p.replace(n=1), lanes)), 1)  # images of one launch

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, _, sy, sx), (gn, _, gy, gx), (go, _, dy, dx) = src.strides, grad.strides, dst.strides
        e = head._replace(n=images, resume=resume, sn=sn, sy=sy, sx=sx, gn=gn, gy=gy, gx=gx, go=go, dy=dy, dx=dx)
        extents = np.concatenate([np.array(e, np.int64), row_map(p), np.where(columns < 0, OUTSIDE, columns * sx)])
        seconds = costs.depthwise_weights_seconds(p.replace(n=images), lanes)
        return region.launcher(extents, finish_values(p, fill), scratch, ceil(p.oc / head.block), threads, seconds, src, grad, dst)

    return Plan(problem=p, algorithm="depthwise_weights", kernel=name, cost=cost(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=beside_in_turn(p, most, launch_of), workspace=scratch * threads, threads=threads)  # fmt: skip
