"""grouped_image: the gradient of the image of small groups of stride 2; channels of the image in lanes, pixels of the gradient broadcast.

Rows of the gradient are copied once for each band of rows of the image, zeros beside them, so that a tile reads them at constant
distances; planes are put into lanes on the way, and their results separated.  A row of results is summed from the rows of the gradient that
it meets, both of each pair of columns from the same pixels, each with every second tap, and written side by side: `transposed`'s four
phases copy the gradient four times and write every second pixel.
8 images of 32 groups of 16 channels at 28x28 take 550 us where the phases take 810 and `depthwise_image` 1200, planes 630 where they take
2200 and 1380 (two threads, Zen 5, 2026-11).
The caller's weights are packed by each unit of work, into the first-level cache.
Order of accumulation per result: rows of the gradient, channels, columns.  Channels some of whose weights are not finite are summed again
where the gradient has no column, without zeros.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from math import ceil, log2
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, parse_epilogue
from .border import too_large
from .depthwise_image_tile import finite
from .depthwise_tile import interleave, separate
from .grouped_image_tile import UNROLL, Shape, first_shift, grouped_image_tile_kernel, tap_shifts
from .lanes_pack import lanes_packer
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .shallow_last_tile import channels_of_lanes, not_grouped, piece_of, placing_tile_kernel
from .simd import KINDS
from .strided_image import STEP, image_in_turn, not_strided_image
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values

CASES = ("g4_ic32ih14_oc32k3_s2_p1_bwd-data_f32_nhwc", "n2_g2_ic32ih29iw31_oc32k3_s2_bwd-data_f32_nhwc_hwio_bias+relu",
         "g2_ic32ih27iw30_oc32k3_s2_p1_bwd-data_f32", "g2_ic64ih8iw28_oc32kh5kw2_s2_p1_bwd-data_f64_nhwc")  # fmt: skip


class Tile(NamedTuple):
    """A vector of channels at ``nx`` pairs of results."""

    registers: int  # of the target, at least
    nx: int


TILES = (
    Tile(32, nx=14),  # 28 accumulators, 3 weights, 1 pixel of 32 registers
    Tile(32, nx=7),
    Tile(16, nx=5),  # 10 accumulators, 3 weights, 1 pixel of 16 registers
)

COLUMNS = 2, 3  # of taps
LEAST_DEPTH, MOST_DEPTH = 8, 32  # channels of groups
_PANEL_BYTES = 24 << 10  # of a band: a first-level cache holds them beside the weights
_ASIDE_BYTES = 128 << 10  # of a band's results that are separated

# The integers that the kernel receives: those of the tile, these, the channel of each lane, entries of each row of the image.
Head = namedtuple(
    "Head",
    "tile placer packer images units together parts blocks bands band_rows ih iw oh ow kh kw pt pl pitch pairs nx inside left columns row "
    "plane held icg ocg wei_block bias finish planes wo wi wy wx sn sc sy sx dn dc dy dx",
)
_HEAD_AT = 8 * len(Shape._fields)
_TABLES_AT = _HEAD_AT + 8 * len(Head._fields)


def _factory(kind: str, lanes: int) -> Any:
    """The band kernel: units of work are (vectors of channels, image, band of rows of the image).

    Panel: ``[vector][row][column][lanes]`` of the gradient, of so many vectors ``together`` as lie side by side in lines that are asked for
    as one.  ``wei`` is the caller's: ``wo, wi, wy, wx`` bytes apart.
    Workspace: addends, a place that nobody reads, addresses of filters, of planes of source and result, weights
    ``[vector][ky][kx][c][lanes]``, panel; of planes a band's pixels and results in lanes.
    """
    size = KINDS[kind][2]
    vector = lanes * size

    def grouped_image(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents + _HEAD_AT, Head)
        lane_at = at.extents + _TABLES_AT
        rows_at = lane_at + lanes * 8
        zero = peek(kind, at.values + 4 * size)
        finish = e.finish * (at.values + size)
        every = e.together * e.blocks  # vectors of results of a unit
        start = at.workspace + index * at.scratch
        junk = start + every * vector
        lines = junk + vector
        sources = lines + lanes * 8
        results = sources + lanes * 8
        weights = (results + lanes * 8 + 63) // 64 * 64
        panel = weights + every * e.wei_block
        staged = panel + e.together * e.parts * e.plane
        aside = staged + e.planes * e.held * e.ow * vector
        taps, packed, sound = e.kh * e.kw, -1, 1
        fill_row(kind, lanes, panel, e.together * e.parts * e.plane // size, zero)
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            n, unit = rest % e.images, rest // e.images
            y0 = band * e.band_rows
            y1 = min(y0 + e.band_rows, e.ih)
            # the rows of the gradient that this band meets
            first = max((y0 + e.pt - e.kh + STEP) // STEP, 0)
            many = max(min((y1 - 1 + e.pt) // STEP + 1, e.oh) - first, 0)
            channel = unit * every * lanes
            grads = unit * e.together * e.parts * lanes
            if packed != unit:
                packed = unit
                for v in range(every):
                    for lane in range(lanes):
                        own = channel + v * lanes + peek("i64", lane_at + lane * 8)
                        poke(kind, start + v * vector + lane * size, peek(kind, at.bias + own * size) if e.bias else zero)
                        poke("i64", lines + lane * 8, at.wei + own // e.icg * e.ocg * e.wo + own % e.icg * e.wi)
                    for c in range(e.ocg):
                        to = weights + v * e.wei_block + c * vector
                        call_kernel(e.packer, (to, e.ocg * vector, lines, c * e.wo, taps, e.kw, e.wy, e.wx))
                sound = finite(kind, lanes, weights, every * e.wei_block // vector)
            source = at.src + n * e.sn + grads * e.sc + e.left * e.sx
            target = at.dst + n * e.dn + channel * e.dc
            for part in range(0, e.together * e.parts, 2 - e.planes):
                place = panel + part * e.plane + e.inside * vector
                if e.planes == 0:
                    vectors = min(2, e.together * e.parts - part)
                    for r in range(many):
                        pixels = source + part * vector + (first + r) * e.sy
                        call_kernel(e.placer, (place + r * e.row, vector, e.plane, pixels, e.sx, e.columns, vectors))
                    continue
                for lane in range(lanes):
                    poke("i64", sources + lane * 8, source + (part * lanes + peek("i64", lane_at + lane * 8)) * e.sc + first * e.sy)
                dense = e.sx == size and e.sy == e.ow * size and e.columns == e.ow and many * e.ow >= lanes
                if e.columns < lanes and dense:
                    interleave(kind, lanes, staged, sources, 0, many * e.ow)
                    for r in range(many):
                        copy(kind, lanes, place + r * e.row, staged + r * e.ow * vector, e.ow * lanes)
                else:
                    for r in range(many):
                        if e.columns >= lanes and e.sx == size:
                            interleave(kind, lanes, place + r * e.row, sources, r * e.sy, e.columns)
                        else:
                            for x in range(e.columns):
                                for lane in range(lanes):
                                    pixel = peek("i64", sources + lane * 8) + r * e.sy + x * e.sx
                                    poke(kind, place + r * e.row + x * vector + lane * size, peek(kind, pixel))
            dy, dx = (e.iw * vector, vector) if e.planes else (e.dy, e.dx)
            for v in range(every):
                pixels = panel + v // e.blocks * e.parts * e.plane - first * e.row
                to = aside if e.planes else target + v * vector
                for y in range(y0, y1):
                    for pair in range(0, e.pairs, e.nx):
                        x = min(pair, e.pairs - e.nx)
                        place = to + (y - (y0 if e.planes else 0)) * dy + STEP * x * dx
                        last = STEP * (x + e.nx) - 1
                        call_kernel(e.tile, (at.extents, rows_at + y * e.pitch, pixels + x * vector, weights + v * e.wei_block,
                                             start + v * vector, finish, place,
                                             place + (last - STEP * x) * dx if last < e.iw else junk))  # fmt: skip
                if e.planes:
                    for lane in range(lanes):
                        poke("i64", results + lane * 8, target + (v * lanes + lane) * e.dc + y0 * e.dy)
                    dense = e.dx == size and e.dy == e.iw * size
                    runs, length = (1, (y1 - y0) * e.iw) if dense else (y1 - y0, e.iw)
                    for run in range(runs):
                        line = aside + run * length * vector
                        if e.dx == size and length >= lanes:
                            separate(kind, lanes, results, run * e.dy, line, length)
                        else:
                            for x in range(length):
                                for lane in range(lanes):
                                    value = peek(kind, line + x * vector + lane * size)
                                    poke(kind, peek("i64", results + lane * 8) + run * e.dy + x * e.dx, value)
            if sound:
                continue
            for x in range(e.iw):
                whole = 1
                for kx in range((x + e.pl) % STEP, e.kw, STEP):
                    whole &= 0 <= (x + e.pl - kx) // STEP < e.ow
                if whole:
                    continue
                for y in range(y0, y1):
                    for v in range(every):
                        for lane in range(lanes):
                            own = channel + v * lanes + peek("i64", lane_at + lane * 8)
                            sums = peek(kind, start + v * vector + lane * size)
                            for ky in range((y + e.pt) % STEP, e.kh, STEP):
                                for kx in range((x + e.pl) % STEP, e.kw, STEP):
                                    row, column = (y + e.pt - ky) // STEP, (x + e.pl - kx) // STEP
                                    if 0 <= row < e.oh and 0 <= column < e.ow:
                                        pixel = at.src + n * e.sn + own // e.icg * e.ocg * e.sc + row * e.sy + column * e.sx
                                        tap = weights + v * e.wei_block + (ky * e.kw + kx) * e.ocg * vector + lane * size
                                        for c in range(e.ocg):
                                            sums += peek(kind, pixel + c * e.sc) * peek(kind, tap + c * vector)
                            if e.finish:
                                sums = sums * peek(kind, finish) if sums < zero else sums
                                sums = peek(kind, finish + size) if sums < peek(kind, finish + size) else sums
                                sums = peek(kind, finish + 2 * size) if sums > peek(kind, finish + 2 * size) else sums
                            poke(kind, at.dst + n * e.dn + own * e.dc + y * e.dy + x * e.dx, sums)

    return grouped_image


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of an image that stride 2 went through, of groups of whole vectors, or vectors of whole groups."""
    reason = not_strided_image(p)
    if reason is not None:
        return reason
    if p.kw not in COLUMNS:
        return f"sums for {COLUMNS[0]} or {COLUMNS[-1]} columns of taps, not {p.kw}"
    reason = not_grouped(p, t.lanes(DTYPES[p.acc].itemsize), LEAST_DEPTH, MOST_DEPTH)
    if reason is not None:
        return reason
    if _pairs(p) < _least(t):
        return f"is for rows of at least {STEP * _least(t) - 1} results, not {p.iw}"
    cut = _cut(p, t)
    seconds = cost(p.replace(n=1), t) / (cut.units * ceil(p.ih / cut.band_rows))
    if seconds > costs.UNIT_SECONDS:
        return f"needs {seconds:.1f} s for a row of results"
    return too_large(p, cut.scratch + 8 * p.ih * _pitch(p, t))


def cost(p: Problem, t: Target) -> float:
    """Multiply-adds of whole tiles, a store for each vector, the copies of the gradient, and of planes' results."""
    lanes, nx = t.lanes(DTYPES[p.acc].itemsize), _tile(p, t).nx
    channels, pixels = p.n * p.ic / lanes, p.n * p.oc / lanes * p.oh * p.ow
    quads = channels * ceil(p.ih / STEP) * ceil(_pairs(p) / nx) * nx
    taps = p.kh * p.kw * (p.oc // p.g)
    sums = quads * (taps / (costs.FMA_PER_SECOND * costs.BLOCKED_SHARE) + STEP * STEP * costs.SHALLOW_STORE_SECONDS)
    copied = pixels * 2 * costs.SHALLOW_VECTOR_SECONDS
    if p.src_layout == "nchw":
        copied += (pixels + channels * p.ih * p.iw) * costs.DEPTHWISE_STAGED_SECONDS * log2(lanes)
    moved = costs.SEEN_SHARE * costs.bytes_moved(p) / costs.BYTES_PER_SECOND
    return 2 * costs.CALL_SECONDS + sums + copied + moved


def most_kernels(t: Target) -> int:
    """Tiles of 2 and 3 columns of taps from odd and even ones on, of several groups or one in a vector; the band; placing."""
    lanes = t.lanes(4)
    pieces = len({max(lanes // depth, 1) for depth in (LEAST_DEPTH, lanes, MOST_DEPTH)})
    return len(fitting(TILES, t)) * len(COLUMNS) * 2 * pieces + 1 + pieces


def _pairs(p: Problem) -> int:
    return -(-p.iw // STEP)


def _least(t: Target) -> int:
    return min(tile.nx for tile in fitting(TILES, t))


def _tile(p: Problem, t: Target) -> Tile:
    """The one that computes the fewest results twice; no tile changes a sum."""
    pairs = _pairs(p)
    tiles = [tile for tile in fitting(TILES, t) if tile.nx <= max(pairs, _least(t))]
    return min(tiles, key=lambda tile: (-(-pairs // tile.nx) * tile.nx, -tile.nx))


def _pitch(p: Problem, t: Target) -> int:
    """Integers of the table of a row of the image."""
    return 1 + 2 * ceil(p.kh / STEP) * max(p.oc // p.g // t.lanes(DTYPES[p.acc].itemsize), 1)


class Cut(NamedTuple):
    """How the work is cut: units of vectors, vectors of the gradient and of results of each, of a unit, rows of a band, bytes."""

    units: int
    together: int
    parts: int
    blocks: int
    band_rows: int
    row: int
    plane: int
    held: int  # rows of the gradient
    scratch: int  # bytes of workspace of one thread


def _cut(p: Problem, t: Target, threads: int = 1) -> Cut:
    """Bands, of a pair of rows at least, whose panel a first-level cache holds, enough for the threads; lines of pixels come in pairs."""
    size, icg, ocg, planes = DTYPES[p.acc].itemsize, p.ic // p.g, p.oc // p.g, p.src_layout == "nchw"
    lanes = t.lanes(size)
    vector, parts, blocks = lanes * size, max(ocg // lanes, 1), max(icg // lanes, 1)
    units = p.g // piece_of(p, lanes)
    together = 2 if parts == blocks == 1 and units % 2 == 0 and not planes else 1
    units //= together
    width = _pairs(p) + max(shift for taps in tap_shifts(p.kw, p.pl % STEP) for _, shift in taps)
    row, over = width * vector, ceil(p.kh / STEP)
    most = max(_PANEL_BYTES // (row * parts * together) - over, 1) * STEP
    if planes:
        most = max(min(most, _ASIDE_BYTES // (p.iw * vector)) // STEP, 1) * STEP
    many = max(p.n, 1) * units
    bands = max(ceil(p.ih / most), min(ceil(4 * threads / many), ceil(p.ih / STEP)) if threads > 1 else 1)
    band_rows = ceil(ceil(p.ih / bands) / STEP) * STEP
    held = band_rows // STEP + over
    plane, every = held * row, together * blocks
    scratch = (every * (1 + ocg * p.kh * p.kw) + 1) * vector + 24 * lanes + 64 + plane * parts * together
    scratch += planes * (held * p.ow + band_rows * p.iw) * vector
    return Cut(units, together, parts, blocks, band_rows, row, plane, held, -(-scratch // 64) * 64)


def _layout(p: Problem, t: Target, cut: Cut) -> tuple[Shape, Head, list[np.ndarray]]:
    """The kernel's integers but for the strides, and its tables."""
    size, icg, ocg = DTYPES[p.acc].itemsize, p.ic // p.g, p.oc // p.g
    lanes, nx, pitch = t.lanes(size), _tile(p, t).nx, _pitch(p, t)
    vector = lanes * size
    width, left = cut.row // vector, p.pl // STEP + first_shift(p.kw, p.pl % STEP)
    inside = min(max(-left, 0), width)
    columns = max(min(left + width, p.ow) - max(left, 0), 0) if inside < width else 0
    rows = np.zeros((p.ih, pitch), np.int64)
    for y in range(p.ih):
        met = [((y + p.pt - ky) // STEP, ky) for ky in range((y + p.pt) % STEP, p.kh, STEP) if 0 <= (y + p.pt - ky) // STEP < p.oh]
        entries = [
            (part * cut.plane + row * cut.row, (ky * p.kw * ocg + part * lanes) * vector)
            for row, ky in met[::-1]
            for part in range(cut.parts)
        ]
        rows[y, 0] = len(entries)
        rows[y, 1 : 1 + 2 * len(entries)] = np.array(entries, np.int64).reshape(-1)
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    shape = Shape(many=min(ocg, lanes), depth=ocg, dx=0)
    head = Head(
        tile=0, placer=0, packer=0, images=p.n, units=cut.units, together=cut.together, parts=cut.parts, blocks=cut.blocks,
        bands=ceil(p.ih / cut.band_rows), band_rows=cut.band_rows, ih=p.ih, iw=p.iw, oh=p.oh, ow=p.ow, kh=p.kh, kw=p.kw, pt=p.pt, pl=p.pl,
        pitch=8 * pitch, pairs=_pairs(p), nx=nx, inside=inside, left=max(left, 0), columns=columns, row=cut.row, plane=cut.plane,
        held=cut.held, icg=icg, ocg=ocg, wei_block=ocg * p.kh * p.kw * vector, bias=int(has_bias), finish=int(activation is not None),
        planes=int(p.src_layout == "nchw"), wo=0, wi=0, wy=0, wx=0, sn=0, sc=0, sy=0, sx=0, dn=0, dc=0, dy=0, dx=0,
    )  # fmt: skip
    return shape, head, [np.array(channels_of_lanes(lanes, piece_of(p, lanes))), rows.reshape(-1)]


def build(p: Problem, t: Target, plan: Any, threads: int = 1, given: bool = False) -> Plan:
    """A plan whose packed weights are a copy of the caller's, or ``given`` with every image."""
    kind, size = p.acc, KINDS[p.acc][2]
    lanes, tile, planes = t.lanes(size), _tile(p, t), p.src_layout == "nchw"
    piece = piece_of(p, lanes)
    code = grouped_image_tile_kernel((kind, lanes, tile.nx, p.kw, p.pl % STEP, piece, UNROLL, int(t.fma)))
    placer = placing_tile_kernel(kind, lanes, piece)
    region = Region(f"grouped_image_{kind}_{lanes}", _factory, (kind, lanes), kind)
    cut, seconds = _cut(p, t, threads), cost(p, t)
    shape, head, tables = _layout(p, t, cut)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei if given and wei.dtype == DTYPES[p.acc] else np.array(wei, DTYPES[p.acc], order="C")

    def launch_of(src: np.ndarray, packed: np.ndarray, dst: np.ndarray) -> Launch:
        (sn, sc, sy, sx), (dn, dc, dy, dx), (wo, wi, wy, wx) = src.strides, dst.strides, packed.strides
        e = head._replace(
            tile=code.address, placer=placer.address, packer=lanes_packer(size, lanes).address, images=len(src),
            wo=wo, wi=wi, wy=wy, wx=wx, sn=sn, sc=sc, sy=sy, sx=sx, dn=dn, dc=dc, dy=dy, dx=dx,
        )  # fmt: skip
        extents = np.concatenate([np.array((*shape._replace(dx=lanes * size if planes else dx), *e), np.int64), *tables])
        units = len(src) * head.units * head.bands
        return region.launcher(extents, finish_values(p, 0), cut.scratch, units, threads, seconds, src, packed, dst)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if all(x.dtype == DTYPES[p.acc] and (planes or x.strides[1] == size) for x in (src, dst)):
            return launch_of(src, packed, dst)
        return image_in_turn(p, launch_of)

    return Plan(problem=p, algorithm="grouped_image", kernel=code.name, cost=seconds, pack_weights=pack, prepare_launch=prepare,
                workspace=cut.scratch * threads, threads=threads,
                given=None if given else partial(build, p, t, plan, threads, True))  # fmt: skip
