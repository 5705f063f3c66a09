"""weights_planes: the gradient of the weights of few planes: first layers; pixels in lanes, each weight a vector of sums.

The planes of the image are copied by phase as `shallow` copies them, a few rows at a time; a block of output channels meets three taps at
a time, whose products with the rows of their gradients are summed lane by lane.  So nothing is turned, where `weights` turns every
gradient: 3 to 64 channels at 224x224 1.4 ms instead of 2.8, with stride 2 to 32 0.25 instead of 0.56 (two cores, Emerald Rapids,
2026-11).
Order of accumulation per weight: for each lane image, row, vector of the row; then halves of lanes, pairwise.  Batches that take longer
than `MOST_SECONDS` are summed some images at a time, and these sums added.
"""

from __future__ import annotations

from collections import namedtuple
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem
from .border import too_large
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .panels import in_turn, not_summed
from .planes import pitch_of, places_of, plane_of, planes_layout, planes_tile_kernel, steps
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values
from .weights_planes_tile import lanes_total, weights_planes_tile

CASES = ("n2_ic3ih33iw37_oc20k3_s2_p1_bwd-weight_f32", "ic3ih33_oc24k7_s2_p3_bwd-weight_f32",
         "n2_ic1ih12iw40_oc8kh2kw3_dh2dw1_p1_reflect_bwd-weight_f64")  # fmt: skip


class Tile(NamedTuple):
    """``filters`` output channels x ``taps``, a vector of sums each."""

    registers: int  # of the target, at least
    filters: int
    taps: int


_TILES = (
    Tile(32, filters=8, taps=3),  # 24 accumulators, 3 pixels, 1 gradient of 32 registers
    Tile(16, filters=4, taps=3),  # 12 accumulators, 3 pixels, 1 gradient of 16 registers
)

MOST_CHANNELS = 4
_MOST_TAPS = 256
_GRADIENT_BYTES = 24 << 10  # of a band, of one block: they stay in a first-level cache while all taps meet them

# The integers that the kernel receives; behind them the places of all taps in the planes, then what the kernel at ``stage`` receives.
Head = namedtuple(
    "Head",
    "stage n oc parts part_blocks blocks band_rows oh sh taps pitch plane line vectors rest sn gn gc gy go gi dy dx kh kw",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, filters: int, taps: int, fma: int) -> Any:
    """The kernel: units of work are parts of the blocks of output channels, each over all pixels.

    Workspace: sums ``[block][block of taps][filters][taps][lanes]``, the rows of the gradients of a block, which begin where cache lines do
    since all taps read them again, planes of a band.  The last block of channels, and of taps, overlaps the
    one before; both make the same sums.
    """
    spec = (kind, lanes, filters, taps, fma)
    size = KINDS[kind][2]
    vector = lanes * size

    def weights_planes(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        places = at.extents + _TABLES_AT
        record = places + e.taps * 8
        zero = peek(kind, at.values + 4 * size)
        sums = at.workspace + index * at.scratch
        tap_blocks = (e.taps + taps - 1) // taps
        tile_bytes = filters * taps * vector
        lines = sums + e.part_blocks * tap_blocks * tile_bytes
        planes = lines + filters * e.band_rows * e.line
        for u in range(u0, u1):
            first, end = u * e.part_blocks, min((u + 1) * e.part_blocks, e.blocks)
            fill_row(kind, lanes, sums, (end - first) * tap_blocks * tile_bytes // size, zero)
            for n in range(e.n):
                for y0 in range(0, e.oh, e.band_rows):
                    rows = min(e.band_rows, e.oh - y0)
                    call_kernel(e.stage, (record, at.src + n * e.sn, planes, y0 * e.sh, 0, at.values))
                    own = sums
                    for b in range(first, end):
                        grad = at.wei + n * e.gn + min(b * filters, e.oc - filters) * e.gc + y0 * e.gy
                        for j in range(filters):
                            for r in range(rows):
                                line = lines + (j * e.band_rows + r) * e.line
                                copy(kind, lanes, line, grad + j * e.gc + r * e.gy, e.vectors * lanes + e.rest)
                        for t in range(tap_blocks):
                            meets = places + min(t * taps, e.taps - taps) * 8
                            weights_planes_tile(spec, own, lines, e.band_rows * e.line, e.line, planes, meets, e.pitch * size, rows,
                                                e.vectors, e.rest)  # fmt: skip
                            own += tile_bytes
            own = sums
            for b in range(first, end):
                for t in range(tap_blocks):
                    for j in range(filters):
                        for k in range(taps):
                            o, tap = min(b * filters, e.oc - filters) + j, min(t * taps, e.taps - taps) + k
                            c, ky, kx = tap // (e.kh * e.kw), tap // e.kw % e.kh, tap % e.kw
                            place = at.dst + o * e.go + c * e.gi + ky * e.dy + kx * e.dx
                            poke(kind, place, lanes_total(kind, lanes, own + (j * taps + k) * vector))
                    own += tile_bytes

    return weights_planes


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the weights of few planes that are not grouped, of several results, float32 or float64 throughout."""
    reason = not_summed(p)
    if reason is not None:
        return reason
    if p.src_layout != "nchw" or p.g > 1 or p.ic > MOST_CHANNELS:
        return f"is for at most {MOST_CHANNELS} planes, of one group"
    tile, lanes = fitting(_TILES, t)[0], t.lanes(DTYPES[p.acc].itemsize)
    if p.oc < tile.filters or p.ow < lanes:
        return f"is for at least {tile.filters} results, and {lanes} columns of them"
    if not tile.taps <= p.taps <= _MOST_TAPS:
        return f"is for {tile.taps} to {_MOST_TAPS} taps of a result, not {p.taps}"
    if _seconds(p.replace(n=1), t) > costs.MOST_SECONDS:
        return f"needs {_seconds(p.replace(n=1), t):.1f} s for one image"
    return too_large(p, _layout(p, t, 1)[2] + 16 * (p.taps + p.ih_padded + p.iw_padded))


def cost(p: Problem, t: Target) -> float:
    """FMAs in padded blocks, and the copies of the planes."""
    return _seconds(p, t)


def most_kernels(t: Target) -> int:
    return 2  # and the planes


def _seconds(p: Problem, t: Target) -> float:
    tile, lanes = fitting(_TILES, t)[0], t.lanes(DTYPES[p.acc].itemsize)
    rows = _band_rows(p, tile)
    copied = costs.shallow_copy_seconds(p, lanes, ceil(p.oh / rows) * p.ic * p.sh, _phase_rows(p, rows), pitch_of(p) * p.sw, False)
    # sums are loaded and stored again every few rows
    many = ceil(p.oc / tile.filters) * tile.filters * ceil(p.taps / tile.taps) * tile.taps
    of_rows = p.oh * ceil(p.ow / lanes) / (costs.FMA_PER_SECOND * costs.SHALLOW_SHARE)
    summed = many * (of_rows + (p.oh / rows + 1) * costs.DEPTHWISE_STORE_SECONDS)
    return 2 * costs.CALL_SECONDS + p.n * (summed + costs.bytes_moved(p.replace(n=1)) * costs.SEEN_SHARE / costs.BYTES_PER_SECOND) + copied


def _band_rows(p: Problem, tile: Tile) -> int:
    return max(min(_GRADIENT_BYTES // (tile.filters * p.ow * DTYPES[p.acc].itemsize), p.oh), 1)


def _phase_rows(p: Problem, rows: int) -> int:
    sh, _, dh, _ = steps(p)
    return ceil(((rows - 1) * sh + (p.kh - 1) * dh + 1) / sh)


def _layout(p: Problem, t: Target, threads: int) -> tuple[Head, np.ndarray, int]:
    """The kernel's integers but for strides, the places of all taps, bytes of workspace of one thread."""
    size, tile = DTYPES[p.acc].itemsize, fitting(_TILES, t)[0]
    lanes, (sh, sw, _, _), rows = t.lanes(size), steps(p), _band_rows(p, tile)
    blocks, plane = ceil(p.oc / tile.filters), plane_of(p, lanes, _phase_rows(p, rows))
    part_blocks = ceil(blocks / min(threads, blocks))
    head = Head(
        stage=0, n=p.n, oc=p.oc, parts=ceil(blocks / part_blocks), part_blocks=part_blocks, blocks=blocks, band_rows=rows, oh=p.oh, sh=sh,
        taps=p.taps, pitch=pitch_of(p), plane=plane, line=ceil(p.ow / lanes) * lanes * size, vectors=p.ow // lanes, rest=p.ow % lanes,
        sn=0, gn=0, gc=0, gy=0, go=0, gi=0, dy=0, dx=0, kh=p.kh, kw=p.kw,
    )  # fmt: skip
    sums = part_blocks * ceil(p.taps / tile.taps) * tile.filters * tile.taps * lanes + tile.filters * rows * head.line // size
    return head, places_of(p, plane), ceil((sums + p.ic * sh * sw * plane + 2 * lanes) * size / 64) * 64


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is."""
    kind, size, tile = p.acc, KINDS[p.acc][2], fitting(_TILES, t)[0]
    lanes, (head, places, scratch) = t.lanes(size), _layout(p, t, threads)
    name = f"weights_planes_{kind}_{tile.filters}x{tile.taps}_{lanes}"
    region = Region(name, _factory, (kind, lanes, tile.filters, tile.taps, int(t.fma)), kind)
    stage, seconds = planes_tile_kernel(kind, lanes), _seconds(p.replace(n=1), t)
    most = max(int(costs.MOST_SECONDS / seconds), 1)  # images of one launch, on however many threads: launches are added

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        beside = np.empty(dst.shape, dst.dtype) if resume else dst
        (sn, sc, sy, _), (gn, gc, gy, _), (go, gi, dy, dx) = src.strides, grad.strides, beside.strides
        e = head._replace(stage=stage.address, n=images, sn=sn, gn=gn, gc=gc, gy=gy, go=go, gi=gi, dy=dy, dx=dx)
        record, tables = planes_layout(p, lanes, _phase_rows(p, head.band_rows))
        extents = np.concatenate([np.array(e, np.int64), places, np.array(record._replace(sc=sc, sy=sy), np.int64), *tables])
        fresh = region.launcher(extents, finish_values(p, fill), scratch, head.parts, threads, images * seconds, src, grad, beside)
        if not resume:
            return fresh

        def added(src: np.ndarray, grad: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            more = np.empty(dst.shape, dst.dtype)
            fresh(src, grad, bias, more)
            dst += more

        return added

    turns = in_turn(p, most, launch_of)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if all(array.strides[3] == array.itemsize or array.shape[3] == 1 for array in (src, packed)):
            launch: Launch = turns(own, src, packed, dst, fill)
            return launch
        beside: Launch = turns(own, np.ascontiguousarray(src), np.ascontiguousarray(packed), dst, fill)
        return lambda src, packed, bias, dst: beside(np.ascontiguousarray(src), np.ascontiguousarray(packed), None, dst)

    return Plan(problem=p, algorithm="weights_planes", kernel=name, cost=_seconds(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=prepare, workspace=scratch * threads, threads=threads)  # fmt: skip
