"""shallow: few channels for each result, first layers and groups; pixels in lanes, a block of output channels broadcast over them.

Wins where channels are too few, or groups too small, to fill the lanes: those of the image, of which several output channels share every
vector that is loaded.  For each band of output rows the planes of a group are copied with their borders, rows and columns by phase, so
that whatever the strides an output's neighbours read neighbours.  Rows of a tile's width are summed into place; narrower ones, with the
columns between them, as one row, from which they are copied.  Planes, before: 32 groups of 4 channels at 56x56 345 us instead of 545, of 8
at 28x28 275 instead of 447, 3 to 32 channels at 224x224 with stride 2 213 instead of 281 (one core, Emerald Rapids, 2026-11).
Order of accumulation per output: channel, row of taps, column; it depends on nothing else.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .border import too_large
from .lanes_pack import lanes_packer
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .planes import Tile, pitch_of, places_of, plane_of, planes_layout, planes_tile_kernel, steps
from .shallow_tile import copy_rows, shallow_tile
from .simd import KINDS
from .stage import is_native, staged_launch
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values

CASES = ("ic3ih56_oc32k7_s2_p3_f32", "ic3ih32_oc20k3_p1_f32_bias+relu", "g8_ic32ih14_oc32k3_p1_f32", "g5_ic20ih9_oc40k3_s2_p1_f32",
         "g2_ic6ih20_oc14k3_d2_p2_reflect_f64", "g4_ic12ih23_oc20k5_s3_p2_wrap_f64_bias")  # fmt: skip


TILES = (
    Tile(32, filters=8, vecs=3, tail=1),  # 24 accumulators, 3 pixels, 1 weight of 32 registers
    Tile(32, filters=4, vecs=6, tail=2),
    Tile(16, filters=4, vecs=3, tail=1),  # 12 accumulators, 3 pixels, 1 weight of 16 registers
)

MOST_DEPTH = 48  # channels of a group
# Of planes, for fewer results than lanes, which no other algorithm fills: 64 channels to 3 at 224x224, 3x3, 3.5 ms instead of `direct`'s
# 5.7, to 12 at 112x112, 4x4, 4.3 instead of `blocked`'s 6.8 (one core, Emerald Rapids, 2026-11)
_MOST_DEPTH_OF_FEW = 64
_LEAST_FILTERS = 3  # 1x1 kernels of 8 channels for 2 results take 130 us instead of `direct`'s 84, for 4 132 instead of 250 (224x224)
_CHAINS = 8  # sums that have to be independent: of fewer, each waits for the one before
_BAND_BYTES = 40 << 10, 128 << 10  # of a band's planes and sums: what a first-level cache holds, and a part of a second-level one

# The integers that the kernel receives; behind them the offsets of all terms, then what the kernel at ``stage`` receives.
Head = namedtuple(
    "Head",
    "stage groups depth ocg blocks bands band_rows oh ow terms sh pitch plane planes block_bytes finish bias rowwise tight "
    "next_band next_group aside_pitch out_vectors given packer kw kernel run wg wo wc wy wx sn sc dn dc dy",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, filters: int, vecs: int, tail: int, fma: int) -> Any:
    """The band kernel: units of work are (image, group, band of rows).

    Planes: ``[c][row % sh][column % sw][row // sh][column // sw]`` of the padded image.
    Workspace: first addends, planes, sums of a block of output channels, weights of a group where they are the caller's, ``given``: of
    ``run`` taps, of a channel or of all, ``wg, wo, wc, wy, wx`` bytes apart.
    """
    spec, last_spec = (kind, lanes, filters, vecs, fma), (kind, lanes, filters, tail, fma)
    size = KINDS[kind][2]
    width = lanes * vecs

    def shallow(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        offsets = at.extents + _TABLES_AT
        extents = offsets + e.terms * 8
        zero = peek(kind, at.values + 4 * size)
        finish = e.finish * (at.values + size)
        start = at.workspace + index * at.scratch
        planes = start + 64 * size
        aside = planes + ((e.planes * e.plane + width) * size + 63) // 64 * 64
        pitch = e.pitch * size
        lines = aside + (e.aside_pitch * filters + 63) // 64 * 64
        own = lines + (8 * filters + 63) // 64 * 64
        packed = -1
        dc = e.dc if e.rowwise else e.aside_pitch
        # sums of columns between rows are not used, but what numbers they read may be slow
        fill_row(kind, lanes, planes, (aside - planes) // size, zero)
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            n, group = rest // e.groups, rest % e.groups
            y0 = band * e.band_rows
            rows = min(e.band_rows, e.oh - y0)
            top = y0 * e.sh
            soon = e.next_band if band + 1 < e.bands else e.next_group if group + 1 < e.groups else 0
            image = at.src + n * e.sn + group * e.depth * e.sc
            call_kernel(e.stage, (extents, image, planes, top, soon, at.values))
            if e.given and packed != group:
                packed = group
                for b in range(e.blocks):
                    o = max(min(b * filters, e.ocg - filters), 0)
                    for j in range(filters):
                        poke("i64", lines + j * 8, at.wei + group * e.wg + min(o + j, e.ocg - 1) * e.wo)
                    for first in range(0, e.terms, e.run):
                        to, away = own + b * e.block_bytes + first * filters * size, first // e.kernel * e.wc
                        call_kernel(e.packer, (to, filters * size, lines, away, e.run, e.kw, e.wy, e.wx))
            for b in range(e.blocks):
                o = group * e.ocg + max(min(b * filters, e.ocg - filters), 0)
                for j in range(filters):
                    poke(kind, start + j * size, peek(kind, at.bias + (o + j) * size) if e.bias and j < e.ocg else zero)
                wei = own + b * e.block_bytes if e.given else at.wei + (group * e.blocks + b) * e.block_bytes
                result = at.dst + n * e.dn + o * e.dc + y0 * e.dy
                length = e.ow if e.rowwise else (rows - 1) * e.pitch + e.ow
                for y in range(rows if e.rowwise else 1):
                    line, to = planes + y * pitch, result + y * e.dy if e.rowwise else aside
                    tiles = length // width
                    shallow_tile(spec, e.terms, offsets, line, wei, start, finish, to, dc, tiles)
                    for x in range(tiles * width, length, lanes * tail):
                        at_x = (min(x, length - lanes * tail) if e.rowwise else x) * size
                        shallow_tile(last_spec, e.terms, offsets, line + at_x, wei, start, finish, to + at_x, dc, 1)
                if not e.rowwise:
                    loose = max(rows - e.tight, 0)
                    for j in range(min(filters, e.ocg)):
                        to, line = result + j * e.dc, aside + j * e.aside_pitch
                        # what a vector writes beyond its row is overwritten by the next ones
                        copy_rows(kind, lanes, to, e.dy, line, pitch, loose, e.out_vectors)
                        for y in range(loose, rows):
                            copy(kind, lanes, to + y * e.dy, line + y * pitch, e.ow)

    return shallow


def reject(p: Problem, t: Target) -> str | None:
    """Forward, float32 and float64 sums, few channels a group, several results of each."""
    reason = not_computed(p, "fwd")
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64"):
        return f"sums in f32 or f64, not {p.acc}"
    if parse_epilogue(p.epilogue).activation not in (None, "relu", "relu6", "leaky_relu"):
        return f"does not fuse {p.epilogue}"
    few = p.src_layout == "nchw" and p.oc // p.g < t.lanes(DTYPES[p.acc].itemsize)
    most = _MOST_DEPTH_OF_FEW if few else MOST_DEPTH
    if p.ic // p.g > most:
        return f"is for groups of at most {most} channels, not {p.ic // p.g}"
    if p.oc // p.g < _LEAST_FILTERS:
        return f"is for at least {_LEAST_FILTERS} results of each channel, not {p.oc // p.g}"
    workspace = min(cut.bytes for cut in _cuts(p, t, fitting(TILES, t)[0]))
    return too_large(p, workspace + 16 * (p.taps + p.ih_padded + p.iw_padded))


def cost(p: Problem, t: Target) -> float:
    """Vectors of whole tiles, and the copies of the planes and of rows narrower than a tile."""
    return _cheapest(p, t)[1].seconds + costs.staged_seconds(p)


def most_kernels(t: Target) -> int:
    return len(fitting(TILES, t)) + 1  # and the planes


class Cut(NamedTuple):
    """How a tile computes a problem in bands of ``rows``."""

    seconds: float
    rows: int
    bytes: int  # of planes and sums
    plane: int  # elements of a phase of a channel: ``phase_rows`` of ``pitch``, and what vectors write beyond them
    phase_rows: int
    pitch: int
    aside: int  # bytes from one output channel's sums to the next; 0 where they are summed into place


def _cheapest(p: Problem, t: Target) -> tuple[Tile, Cut]:
    """The tile and the bands of least predicted time; ties go to the earlier.  Neither changes a sum."""
    found = [(tile, cut) for tile in fitting(TILES, t) for cut in _cuts(p, t, tile)]
    return min(found, key=lambda way: way[1].seconds)


def _cuts(p: Problem, t: Target, tile: Tile, *given: int) -> list[Cut]:
    """Into bands that either cache holds, and one or two more, since bands share rows; or into bands of the rows that are given."""
    size, (sh, sw, dh, _) = DTYPES[p.acc].itemsize, steps(p)
    lanes, oh, ow, taps, depth, ocg = t.lanes(size), p.oh, p.ow, p.taps, p.ic // p.g, p.oc // p.g
    width, part, below = tile.vecs * lanes, tile.tail * lanes, (p.kh - 1) * dh + 1
    pitch = pitch_of(p)
    # the few sums of a last tile wait for each other
    slow = max(_CHAINS / (tile.filters * tile.tail), 1.0)

    def vectors(length: int) -> float:
        """Of whole tiles along a line, and of last ones."""
        return length // width * tile.vecs + -(-(length % width) // part) * tile.tail * slow

    # into place, where that costs no more than the columns between rows and the copy
    rowwise = ow >= part and ocg >= tile.filters and vectors(ow) * lanes * taps <= pitch * (taps + costs.SHALLOW_COPIED_TERMS)

    def cut(rows: int) -> Cut:
        phase_rows = -(-((rows - 1) * sh + below) // sh)
        plane = plane_of(p, lanes, phase_rows)
        aside = 0 if rowwise else ((rows - 1) * pitch + ow + width) // lanes * lanes * size
        total = (plane * sh * sw * depth + width) * size + aside * tile.filters
        whole, rest = oh // rows, oh % rows
        if rowwise:
            summed = oh * vectors(ow)
        else:
            summed = whole * vectors((rows - 1) * pitch + ow) + (vectors((rest - 1) * pitch + ow) if rest else 0)
        bands = whole + (rest > 0)
        seconds = costs.shallow_copy_seconds(p, lanes, bands * p.ic * sh, phase_rows, pitch * sw, total <= _BAND_BYTES[0])
        seconds += costs.shallow_seconds(p, tile.filters, summed, rowwise)
        return Cut(seconds, rows, total, plane, phase_rows, pitch, aside)

    if given:
        return [cut(rows) for rows in given]
    whole = cut(oh)
    few = sorted({min(-(-whole.bytes // most) + more, oh) for most in _BAND_BYTES for more in range(3)})
    return [whole if bands == 1 else cut(-(-oh // bands)) for bands in few]


def _cut(p: Problem, t: Target, tile: Tile, threads: int) -> Cut:
    """The cheapest bands; shorter ones where threads would have less than four units each, or a unit, which none interrupts, is long."""
    best = min(_cuts(p, t, tile), key=lambda cut: cut.seconds)
    bands = -(-p.oh // best.rows)
    units = max(p.n, 1) * p.g * bands
    more = max(-(-4 * threads // units) if threads > 1 else 1, ceil(best.seconds / units / costs.UNIT_SECONDS))
    return best if more == 1 else _cuts(p, t, tile, -(-p.oh // min(bands * more, p.oh)))[0]


def build(p: Problem, t: Target, plan: Any, threads: int = 1, tile: Tile | None = None, given: bool = False) -> Plan:
    """A plan whose weights are packed as ``[g][block][c][ky][kx][filters]``, or ``given`` with every image and packed group by group."""
    kind, size = p.acc, KINDS[p.acc][2]
    lanes, tile = t.lanes(size), tile or _cheapest(p, t)[0]
    spec = (kind, lanes, tile.filters, tile.vecs, tile.tail, int(t.fma))
    name = f"shallow_{kind}_{tile.filters}x{tile.vecs}_{lanes}"
    region, stage = Region(name, _factory, spec, kind), planes_tile_kernel(kind, lanes)
    cut = _cut(p, t, tile, threads)
    head, tables, scratch = _layout(p, tile, lanes, cut, given)

    def again(band: Problem, t: Target, plan: Any, threads: int) -> Plan:
        # the bands' weights are these: another tile would want them packed otherwise
        return build(band, t, plan, threads, tile, given)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return staged_launch(p, own.threads, again, t, src, packed, dst, fill)
        (sn, sc, sy, _), (dn, dc, dy, _) = src.strides, dst.strides
        dense = dy == p.ow * size
        next_band = head.band_rows * head.sh * sy
        wo, wc, wy, wx = packed.strides[-4:]
        wg = packed.strides[0] if packed.ndim > 4 else p.oc // p.g * wo
        wx = wx if p.kw > 1 else wy  # of one column, or row, its neighbours may lie anywhere
        wy = wy if p.kh > 1 else p.kw * wx
        packer = lanes_packer(size, tile.filters).address if given else 0
        run = p.taps if (wx, wy) == (size, p.kw * size) and (p.ic == p.g or wc == p.kh * p.kw * size) else p.kh * p.kw
        e = head._replace(stage=stage.address, tight=head.tight if dense else p.oh, next_band=next_band, packer=packer, run=run, wg=wg,
                          wo=wo, wc=wc, wy=wy, wx=wx, next_group=head.depth * sc - (head.bands - 1) * next_band, sn=sn, sc=sc, dn=dn,
                          dc=dc, dy=dy)  # fmt: skip
        record, more = planes_layout(p, lanes, cut.phase_rows)
        extents = np.concatenate([np.array(e, np.int64), *tables, np.array(record._replace(sc=sc, sy=sy), np.int64), *more])
        units = p.n * p.g * head.bands
        return region.launcher(extents, finish_values(p, fill), scratch, units, own.threads, cut.seconds, src, packed, dst, turns=True)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(DTYPES[p.acc], copy=False) if given else _pack(p, wei, tile.filters)

    return Plan(problem=p, algorithm="shallow", kernel=name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads,
                given=None if given else partial(build, p, t, plan, threads, tile, True), grouped=given)  # fmt: skip


def _firsts(ocg: int, filters: int) -> np.ndarray:
    """The first output channel of each block; the last block overlaps the one before."""
    return np.maximum(np.minimum(np.arange(-(-ocg // filters)) * filters, ocg - filters), 0)


def _pack(p: Problem, wei: np.ndarray, filters: int) -> np.ndarray:
    """``[g][block][c][ky][kx][filters]`` as ``(1, 1, 1, n)``; zeros where a group has fewer output channels than a block."""
    ocg = p.oc // p.g
    taps = wei.reshape(p.g, ocg, p.taps)
    firsts = _firsts(ocg, filters)
    packed = np.zeros((p.g, len(firsts), p.taps, filters), DTYPES[p.acc])
    for b, first in enumerate(firsts):
        packed[:, b, :, : min(filters, ocg)] = taps[:, first : first + filters].transpose(0, 2, 1)
    return packed.reshape(1, 1, 1, -1)


def _layout(p: Problem, tile: Tile, lanes: int, cut: Cut, given: bool = False) -> tuple[Head, list[np.ndarray], int]:
    """The kernel's integers but for the strides, its table, and the bytes of workspace of one thread."""
    size, (sh, sw, _, _) = DTYPES[p.acc].itemsize, steps(p)
    depth, ocg, pitch, plane = p.ic // p.g, p.oc // p.g, cut.pitch, cut.plane
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    head = Head(
        stage=0, groups=p.g, depth=depth, ocg=ocg, blocks=len(_firsts(ocg, tile.filters)), bands=-(-p.oh // cut.rows),
        band_rows=cut.rows, oh=p.oh, ow=p.ow, terms=p.taps, sh=sh, pitch=pitch, plane=plane, planes=depth * sh * sw,
        block_bytes=p.taps * tile.filters * size, finish=int(activation is not None), bias=int(has_bias), rowwise=int(cut.aside == 0),
        tight=-(-(lanes - 1) // p.ow), next_band=0, next_group=0, aside_pitch=cut.aside, out_vectors=-(-p.ow // lanes),
        given=int(given), packer=0, kw=p.kw, kernel=p.kh * p.kw, run=1, wg=0, wo=0, wc=0, wy=0, wx=0, sn=0, sc=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    return (
        head,
        [places_of(p, plane)],
        -(-(cut.bytes + 64 * size + 192 + 8 * tile.filters + 64 + given * head.blocks * head.block_bytes) // 64) * 64,
    )
