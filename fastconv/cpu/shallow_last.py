"""shallow_last: few channels for each result, channels side by side: groups and first layers; output channels in lanes, pixels broadcast.

Wins where each result has too few channels for `blocked` and the lanes hold whole groups, or a whole vector of the output channels of one.
For each band of rows the pixels of as many channels as there are lanes are copied, borders and strides resolved, so that a tile reads
them at constant distances; of several groups in a vector the first channels lie side by side, then the second ones, so that one load
that broadcasts has a channel of each.  A pixel is loaded once for the three taps of a row.  Of a first layer's image rows are copied as
they are: the pixels that a row of taps meets are as many values side by side.
Beside the best of the other algorithms that take channels last: 32 groups of 8 channels at 28x28 238 us and 386, of 16 at 14x14 215 and
450, at stride 2 290 and 490, 3 to 64 channels at 224x224 1.33 ms and 2.05, 3 to 32 with stride 2 180 us and 430 (one core, Emerald
Rapids, 2026-11).
Order of accumulation per output: of groups vectors of channels, rows of taps, the vector's channels, columns; of first layers rows of taps,
columns, channels.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, border_indices, parse_epilogue
from .border import row_map, too_large
from .lanes_pack import lanes_packer
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .shallow_last_tile import TABLE_AT, UNROLL, Shape, channels_of_lanes, piece_of, placing_tile_kernel, shallow_last_tile_kernel
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values, not_of_one_type

CASES = ("g4_ic32ih14_oc32k3_p1_f32_nhwc", "g4_ic32ih29iw31_oc32k3_s2_p1_f32_nhwc_hwio_bias+relu", "g2_ic32ih9iw30_oc32k3_p1_f32_nhwc",
         "n2_g2_ic64ih8_oc64k3_p1_reflect_f32_nhwc", "ic3ih32_oc32k3_s2_p1_f32_nhwc",
         "ic3ih31_oc16k7_s2_p3_symmetric_f64_nhwc_bias")  # fmt: skip


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``nx`` pixels of a row; of groups (1) for all columns of taps, of first layers (0) one by one."""

    registers: int  # of the target, at least
    grouped: int
    mr: int
    nx: int


TILES = (
    Tile(32, grouped=1, mr=1, nx=14),  # 14 accumulators, 3 weights, 1 pixel of 32 registers
    Tile(32, grouped=1, mr=2, nx=7),
    Tile(32, grouped=0, mr=2, nx=14),  # 28 accumulators, 2 weights, 1 pixel
    Tile(16, grouped=1, mr=1, nx=8),  # 8 accumulators, 3 weights, 1 pixel of 16 registers
    Tile(16, grouped=1, mr=2, nx=4),
    Tile(16, grouped=0, mr=2, nx=6),
)

GROUP_TAPS = 1, 2, 3  # columns of taps of groups
LEAST_DEPTH, MOST_DEPTH = 8, 32  # channels of groups: of 4 `depthwise` is as fast, of 64 `blocked` faster
DEPTHS = 3, 4  # of first layers
_PANEL_BYTES = 24 << 10  # of a band: a first-level cache holds them beside the weights

# The integers that the kernel receives: those of the tile and its table, these, the image row of each padded row, the image column of each
# padded column, the channel of each lane.
Head = namedtuple(
    "Head",
    "tile placer nx width images per_image per_group units together parts staged blocks every bands band_rows oh ow sh across below rows "
    "columns pl inside_to windows plane row each icg ocg wei_block bias finish given packer taps kw wg wo wc wy wx sn sy sx dn dy",
)
_HEAD_BYTES = 8 * len(Head._fields)


def _factory(kind: str, lanes: int) -> Any:
    """The band kernel: units of work are (image, vectors of channels, band of rows), (vectors, image, band) where weights are many.

    Panel: ``[vector][row][column of the padded image][lanes]``, of so many vectors of channels ``together`` as lie side by side in lines
    that are asked for as one; of a first layer its rows as they are.
    Workspace: addends of all blocks, the addresses of filters, panel; where weights are the caller's, ``given``, they, and those of a
    vector of filters tap by tap.
    """
    size = KINDS[kind][2]
    vector = lanes * size

    def shallow_last(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s = integers(at.extents, Shape)
        head_at = at.extents + TABLE_AT + s.entries * 8
        e = integers(head_at, Head)
        row_at = head_at + _HEAD_BYTES
        column_at = row_at + e.rows * 8
        lane_at = column_at + e.columns * 8
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        finish = e.finish * (at.values + size)
        start = at.workspace + index * at.scratch
        lines = start + e.every * e.width * size
        panel = (lines + lanes * 8 + 63) // 64 * 64
        own = panel + e.plane * e.staged
        turned = own + e.every * e.wei_block
        beside = e.wo == size and e.wg == e.ocg * size
        held = -1
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            n, group = rest // e.per_image % e.images, rest // e.per_group % e.units
            y0 = band * e.band_rows
            y1 = min(y0 + e.band_rows, e.oh)
            first = group * e.every * e.width
            wei = at.wei + group * e.every * e.wei_block
            if held != group:
                held = group
                for lane in range(e.every * e.width):
                    o = first + lane // lanes * lanes + peek("i64", lane_at + lane % lanes * 8)
                    poke(kind, start + lane * size, peek(kind, at.bias + o * size) if e.bias else zero)
                for block in range(e.every if e.given else 0):
                    for m in range(0, e.width, lanes):
                        o = first + block * e.width + m
                        for lane in range(lanes):
                            channel = o + peek("i64", lane_at + lane * 8)
                            poke("i64", lines + lane * 8, at.wei + channel // e.ocg * e.wg + channel % e.ocg * e.wo)
                        filters, row = own + block * e.wei_block + m * size, e.width * size
                        many = e.icg * e.taps
                        if e.wx == size and e.wy == e.kw * size and e.wc == e.taps * size:
                            # taps behind taps, as of 16 filters' memory in squares: one of 9 taps each took twice as long (Zen 5)
                            call_kernel(e.packer, (turned, vector, lines, 0, many, many, many * size, size))
                            for c in range(e.icg):
                                to, place = filters + (c // e.each * e.taps * e.each + c % e.each) * row, turned + c * e.taps * vector
                                for tap in range(e.taps):
                                    copy(kind, lanes, to + tap * e.each * row, place + tap * vector, lanes)
                            continue
                        # of results side by side, channels side by side, or any
                        for turn in range(e.icg // e.each * e.taps if beside or e.wc == size else e.icg):
                            tap, c = turn % e.taps, turn // e.taps * e.each
                            away = tap // e.kw * e.wy + tap % e.kw * e.wx + c * e.wc
                            if beside:
                                call_kernel(e.placer, (filters + turn * e.each * row, row, 0, at.wei + o * size + away, e.wc, e.each, 1))
                            elif e.wc == size:
                                call_kernel(
                                    e.packer, (filters + turn * e.each * row, row, lines, away, e.each, e.each, e.each * size, size)
                                )
                            else:
                                place = turn // e.each * e.taps * e.each + turn % e.each
                                call_kernel(e.packer, (filters + place * row, e.each * row, lines, turn * e.wc, e.taps, e.kw, e.wy, e.wx))
            if e.given:
                wei = own
            image = at.src + n * e.sn + group * e.staged * vector * (1 - e.windows)
            for r in range((y1 - y0 - 1) * e.sh + e.below):
                row = peek("i64", row_at + (y0 * e.sh + r) * 8)
                to, line = panel + r * e.row, image + row * e.sy
                if e.windows:
                    pixel = e.icg * size
                    if row < 0:
                        fill_row(kind, lanes, to, e.columns * e.icg, fill)
                    else:
                        together = e.sx == pixel
                        if together:
                            copy(kind, lanes, to + e.pl * pixel, line, (e.inside_to - e.pl) * e.icg)
                        x = 0
                        while x < e.columns:
                            if x == e.pl and together:
                                x = e.inside_to
                            if x < e.columns:
                                column = peek("i64", column_at + x * 8)
                                if column < 0:
                                    fill_row(kind, lanes, to + x * pixel, e.icg, fill)
                                else:
                                    copy(kind, lanes, to + x * pixel, line + column * e.sx, e.icg)
                            x += 1
                elif row < 0:
                    for part in range(e.staged):
                        fill_row(kind, lanes, to + part * e.plane, e.columns * lanes, fill)
                else:
                    for part in range(0, e.staged, 2):
                        place, pixels, vectors = to + part * e.plane, line + part * vector, min(2, e.staged - part)
                        call_kernel(e.placer, (place + e.pl * vector, vector, e.plane, pixels, e.sx, e.inside_to - e.pl, vectors))
                        for side in range(2):
                            for x in range(e.inside_to if side else 0, e.columns if side else e.pl):
                                column = peek("i64", column_at + x * 8)
                                if column < 0:
                                    for v in range(vectors):
                                        fill_row(kind, lanes, place + x * vector + v * e.plane, lanes, fill)
                                else:
                                    call_kernel(e.placer, (place + x * vector, 0, e.plane, pixels + column * e.sx, 0, 1, vectors))
            result = at.dst + n * e.dn + first * size
            for v in range(e.together):
                for y in range(y0, y1):
                    pixels = panel + v * e.parts * e.plane + (y - y0) * e.sh * e.row
                    for x in range(0, e.ow, e.nx):
                        xt = min(x, e.ow - e.nx)
                        to = result + y * e.dy + xt * s.dx
                        for block in range(v * e.blocks, (v + 1) * e.blocks):
                            call_kernel(e.tile, (at.extents, pixels + xt * e.across, wei + block * e.wei_block,
                                                 start + block * e.width * size, finish, to + block * e.width * size))  # fmt: skip

    return shallow_last


def reject(p: Problem, t: Target) -> str | None:
    """Forward, channels side by side, all of one type; groups of whole vectors or vectors of whole groups, or images of few channels."""
    reason = not_of_one_type(p)
    if reason is not None:
        return reason
    if p.src_layout != "nhwc":
        return "for channels last, not planes"
    lanes, depth, ocg = t.lanes(DTYPES[p.acc].itemsize), p.ic // p.g, p.oc // p.g
    if (p.dh, p.dw) != (1, 1) or max(p.sh, p.sw) > 2:
        return f"reads dense taps at strides 1 and 2, not dilations {p.dh, p.dw} and strides {p.sh, p.sw}"
    if p.g == 1 and depth not in DEPTHS:
        return f"reads images of {' or '.join(map(str, DEPTHS))} channels, not {depth}"
    if p.g > 1 and p.kw not in GROUP_TAPS:
        return f"sums groups for {GROUP_TAPS[0]} to {GROUP_TAPS[-1]} columns of taps, not {p.kw}"
    if p.g > 1 and not LEAST_DEPTH <= depth <= MOST_DEPTH:
        return f"sums groups of {LEAST_DEPTH} to {MOST_DEPTH} channels, not {depth}"
    if p.g > 1 and (depth % lanes if depth >= lanes else lanes % depth or ocg != depth or p.ic % lanes):
        return f"sums groups of whole vectors of {lanes} channels, or of as many as results that fill some, not {depth} with {ocg}"
    if not _tiles(p, t):
        return f"has no tile for {ocg} results of {depth} channels"
    if p.ow < _tile(p, t).nx:
        return f"is for rows of at least {_tile(p, t).nx} results, not {p.ow}"
    cut = _cut(p, t, True)
    seconds = cost(p.replace(n=1), t) / (cut.planes // cut.together * ceil(p.oh / cut.band_rows))
    if seconds > costs.UNIT_SECONDS:
        return f"needs {seconds:.1f} s for a row of results"
    return too_large(p, cut.scratch + 16 * (p.ih_padded + p.iw_padded))


def cost(p: Problem, t: Target) -> float:
    """Multiply-adds of whole tiles, as many of the peak as `blocked`'s, the copy of the pixels, a load and a store each."""
    lanes, nx = t.lanes(DTYPES[p.acc].itemsize), _tile(p, t).nx
    vectors = p.n * p.oc / lanes * p.oh * ceil(p.ow / nx) * nx
    sums = vectors * (p.taps / (costs.FMA_PER_SECOND * costs.BLOCKED_SHARE) + costs.SHALLOW_STORE_SECONDS)
    copied = p.n * p.ih_padded * p.iw_padded * p.ic / lanes * 2 * costs.SHALLOW_VECTOR_SECONDS
    moved = costs.SEEN_SHARE * costs.bytes_moved(p) / costs.BYTES_PER_SECOND
    return 2 * costs.CALL_SECONDS + sums + copied + moved


def most_kernels(t: Target) -> int:
    """Tiles at strides 1 and 2, of one vector of results for several groups, too, of first layers for each depth; bands and placing."""
    lanes = t.lanes(4)
    of_depth = {depth: max(lanes // depth, 1) for depth in (LEAST_DEPTH, lanes, MOST_DEPTH) if depth >= LEAST_DEPTH}
    pieces = len(set(of_depth.values()))
    alone = len({piece for depth, piece in of_depth.items() if depth < 2 * lanes})  # whose results fill no two vectors
    each = {(1, 1): alone * len(GROUP_TAPS), (1, 2): len(GROUP_TAPS), (0, 2): len(DEPTHS)}
    return sum(2 * each[tile.grouped, tile.mr] for tile in fitting(TILES, t)) + 1 + pieces


def _tiles(p: Problem, t: Target) -> list[Tile]:
    """Those that the output channels fill; no tile changes a sum."""
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    results = p.oc // p.g * piece_of(p, lanes)
    return [tile for tile in fitting(TILES, t) if tile.grouped == int(p.g > 1) and results % (tile.mr * lanes) == 0]


def _tile(p: Problem, t: Target) -> Tile:
    """The one of the most output channels."""
    return max(_tiles(p, t), key=lambda tile: tile.mr)


def build(p: Problem, t: Target, plan: Any, threads: int = 1, given: bool = False) -> Plan:
    """A plan whose weights are packed as ``[block][entry][c][filters]``, or ``given`` with every image and packed block by block."""
    kind, size = p.acc, KINDS[p.acc][2]
    lanes, tile = t.lanes(size), _tile(p, t)
    piece = piece_of(p, lanes)
    taps, pixel, unroll = (p.kw, lanes, UNROLL) if tile.grouped else (1, p.ic, p.ic)
    code = shallow_last_tile_kernel((kind, lanes, tile.mr, tile.nx, taps, p.sw * pixel, piece, unroll, int(t.fma)))
    placer = placing_tile_kernel(kind, lanes, piece)
    region = Region(f"shallow_last_{kind}_{lanes}", _factory, (kind, lanes), kind)
    cut, seconds = _cut(p, t, given, threads), cost(p, t)
    shape, head, tables = _layout(p, t, cut, given)
    scratch = cut.scratch

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not all(array.dtype == DTYPES[kind] and array.strides[1] == size for array in (src, dst)):
            return staged_launch(p, own.threads, partial(build, given=given), t, src, packed, dst, fill, channels_last=True)
        (sn, _, sy, sx), (dn, _, dy, dx) = src.strides, dst.strides
        wo, wc, wy, wx = packed.strides[-4:]
        e = head._replace(
            tile=code.address, placer=placer.address, packer=lanes_packer(size, lanes).address if given else 0,
            wg=packed.strides[0] if packed.ndim > 4 else head.ocg * wo, wo=wo, wc=wc, wy=wy, wx=wx, sn=sn, sy=sy, sx=sx, dn=dn, dy=dy,
        )  # fmt: skip
        table, *maps = tables
        extents = np.concatenate([np.array(shape._replace(dx=dx), np.int64), table, np.array(e, np.int64), *maps])
        units = p.n * head.units * head.bands
        return region.launcher(extents, finish_values(p, fill), scratch, units, own.threads, seconds, src, packed, dst, turns=True)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(DTYPES[kind], copy=False) if given else _pack(p, wei, lanes, tile.mr)

    return Plan(problem=p, algorithm="shallow_last", kernel=code.name, cost=seconds, pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads, given=None if given else partial(build, p, t, plan, threads, True),
                grouped=given)  # fmt: skip


def _lanes(p: Problem, lanes: int) -> np.ndarray:
    """The channel of each lane of a vector of results."""
    return np.array(channels_of_lanes(lanes, piece_of(p, lanes)))


def _pack(p: Problem, wei: np.ndarray, lanes: int, mr: int) -> np.ndarray:
    """``[block][entry][c][mr * lanes]`` as ``(1, 1, 1, n)``."""
    icg, taps, width = p.ic // p.g, p.kh * p.kw, mr * lanes
    each = min(icg, lanes)
    filters = wei.reshape(p.oc // lanes, lanes, icg // each, each, taps)[:, _lanes(p, lanes)]
    filters = filters.reshape(p.oc // width, width, icg // each, each, taps).transpose(0, 2, 4, 3, 1)
    return np.ascontiguousarray(filters, DTYPES[p.acc]).reshape(1, 1, 1, -1)


class Cut(NamedTuple):
    """How the work is cut: planes, vectors of channels of each, planes of a unit, rows of a band, bytes of a panel's row and plane."""

    planes: int
    parts: int
    together: int
    band_rows: int
    row: int
    plane: int
    scratch: int  # bytes of workspace of one thread


def _cut(p: Problem, t: Target, given: bool, threads: int = 1) -> Cut:
    """Bands, of a row at least, whose panel a first-level cache holds, enough for the threads; lines of pixels come in pairs."""
    size, icg = DTYPES[p.acc].itemsize, p.ic // p.g
    lanes, columns = t.lanes(size), (p.ow - 1) * p.sw + p.kw
    vector = lanes * size
    planes, parts = (1, 1) if p.g == 1 else (p.g // piece_of(p, lanes), max(icg // lanes, 1))
    together = 2 if parts == 1 and planes % 2 == 0 else 1
    row = -(-columns * icg * size // vector) * vector if p.g == 1 else columns * vector
    most = max((_PANEL_BYTES // (row * parts) - p.kh) // p.sh + 1, 1)
    units = max(p.n, 1) * (planes // together)
    bands = max(ceil(p.oh / most), min(ceil(4 * threads / units), p.oh) if threads > 1 else 1)
    band_rows = ceil(p.oh / bands)
    plane = ((band_rows - 1) * p.sh + p.kh) * row
    every = p.oc // planes * together
    scratch = every * size * (1 + given * icg * p.kh * p.kw) + lanes * 8 + 256 + plane * parts * together
    scratch += given * icg * p.kh * p.kw * vector
    return Cut(planes, parts, together, band_rows, row, plane, -(-scratch // 64) * 64)


def _layout(p: Problem, t: Target, cut: Cut, given: bool) -> tuple[Shape, Head, list[np.ndarray]]:
    """The kernel's integers but for the strides, and its tables."""
    size, tile = DTYPES[p.acc].itemsize, _tile(p, t)
    lanes, first, icg, taps = t.lanes(size), p.g == 1, p.ic // p.g, p.kh * p.kw
    planes, parts, together, band_rows, row, plane, _ = cut
    width, columns, rows = tile.mr * lanes, (p.ow - 1) * p.sw + p.kw, (p.oh - 1) * p.sh + p.kh
    blocks, left, each = p.oc // (planes * width), min(p.pl, columns), min(icg, lanes)
    part, ky = (index.reshape(-1) for index in np.indices((parts, p.kh)))
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    # weights that stay in the cache from image to image, or are packed once for all images
    heavy = given or p.oc * p.taps > p.ic * p.ih * p.iw
    shape = Shape(entries=len(ky), many=p.kw * icg if first else each, dx=0)
    head = Head(
        tile=0, placer=0, nx=tile.nx, width=width, images=p.n, per_image=1 if heavy else planes // together,
        per_group=p.n if heavy else 1, units=planes // together, together=together, parts=parts, staged=parts * together,
        blocks=blocks, every=blocks * together, bands=ceil(p.oh / band_rows), band_rows=band_rows, oh=p.oh, ow=p.ow, sh=p.sh,
        across=p.sw * size * (icg if first else lanes), below=p.kh, rows=rows, columns=columns, pl=left,
        inside_to=max(min(p.pl + p.iw, columns), left), windows=int(first), plane=plane, row=row, each=each, icg=icg, ocg=p.oc // p.g,
        wei_block=icg * taps * width * size, bias=int(has_bias), finish=int(activation is not None), given=int(given), packer=0,
        taps=taps, kw=p.kw, wg=0, wo=0, wc=0, wy=0, wx=0, sn=0, sy=0, sx=0, dn=0, dy=0,
    )  # fmt: skip
    maps = [row_map(p)[:rows], border_indices(-p.pl, columns, 1, p.iw, p.border), _lanes(p, lanes)]
    return shape, head, [part * plane + ky * row, *maps]
