"""winograd_shallow: 3x3 of few channels, channels side by side, by F(m x m, 3 x 3): groups, and images of up to 64 channels.

Wins where `winograd` does: 36 multiplications for 16 results of F(4x4) instead of 144.  Sums of few channels are so short that what is
around them, not they, takes the time: here blocks are so few that pixels, sums and results of one row of points after the other stay in a
first-level cache (of up to 16 channels; of more they come in order from the second-level one), pixels are read where they lie, the next
ones are asked for meanwhile, and a vector may hold several groups, as in `shallow_last`.
Beside the best of the others: 32 groups of 16 channels at 14x14 71 us and 94, 8 images 550 and 800, of 8 at 28x28 100 and 110, 700 and
940, of 4 at 56x56 147 and 173, 1250 and 1460; 64 channels at 56x56 265 and 281, on one core 490 and 700 (two cores, Emerald Rapids,
2026-11).  F(2x2), of 1.8 instead of 4 times as many transformed weights as there are, fills tiles where an image has few blocks of 4x4:
32 groups of 32 channels at 7x7 89 us and 95, 8 images 650 and 740, by F(4x4) 172 and 530.
Blocks lie in a grid anchored at the image's origin, rows of them in one sequence through all images; m is chosen from the extents of one
image, so no result depends on threads, how work is cut, or the batch.
Order of accumulation: a group's channels, between the transforms of :mod:`fastconv.planning.winograd_points`.
Error of each output: as `winograd`'s.  What the transform cannot do is done by direct sums, block by block: where results are not finite,
or tiny, and where weights are not finite or out of range.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, parse_epilogue
from ..planning.winograd_cost import winograd_shallow_seconds
from .border import LINE, too_large, whole_lines
from .memory import call_kernel, fill_row, integers, peek, poke, unrolled_by_hand
from .shallow_last_tile import not_whole_vectors, piece_of
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values, not_of_one_type
from .winograd_frame import OUTSIDE, columns_read, not_3x3, sources
from .winograd_pack import HEAD, LEAST, MOST, SPARE
from .winograd_repair import patch_of, repaired_blocks
from .winograd_shallow_pack import WEIGHTS_BYTES, ShallowPacking, taps_placer, weights_table
from .winograd_shallow_tile import TABLE_AT, Shape, column_pixels, column_results, winograd_shallow_tile_kernel
from .winograd_tile import error_of, transformed_weights

CASES = ("g4_ic32ih14_oc32k3_p1_f32_nhwc", "n3_g2_ic32ih29iw31_oc32k3_p1_reflect_f32_nhwc_hwio_bias+relu", "g8_ic32ih9iw30_oc32k3_f32_nhwc",
         "n2_g2_ic64ih8_oc64k3_p1_f32_nhwc", "ic32ih13_oc48k3_p1_f32_nhwc", "g4_ic32ih14_oc32k3_p1_f64_nhwc_bias")  # fmt: skip

# Channels of a group: of 2 most of a unit is transforms, of 128 `winograd` is as fast (at 28x28 272 us and 262, on one core 575 and 482);
# of up to twice as many results
LEAST_DEPTH, MOST_DEPTH = 4, 64
EXTENTS = 2, 4  # of a block


class Tile(NamedTuple):
    """``nt`` transformed blocks at a vector of output channels."""

    registers: int  # of the target, at least
    nt: int


TILES = (
    Tile(32, nt=16),  # 16 accumulators, 1 weight, 1 pixel of 32 registers
    Tile(32, nt=14),  # rows of 7 blocks, as of 28x28 and 56x56
    Tile(16, nt=12),  # 12 accumulators, 1 weight, 1 pixel of 16 registers
    Tile(16, nt=7),  # half a row of 14 blocks, or one of 7
)

# The integers that the kernel receives: these, those of the tile and its table, the image row behind each row of the blocks, the column
# behind each column, how weights are read, the channel of each lane.
Head = namedtuple(
    "Head",
    "products n planes together parts blocks iw oh ow rows columns gy gx groups_y groups_x pad_x row_points bias finish flags asks "
    "asked_of_row across given own icg nt sn sy sx dn dy dx",
)
_HEAD_BYTES = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, m: int, piece: int, fma: int) -> Any:
    """The band kernel: units of work are (``gy`` rows of ``gx`` blocks of all images, pairs of vectors of channels, which of two).

    Where vectors are not ``across`` the rows of blocks, these change before the vectors.  Pixels of a row of blocks, read where they lie,
    are transformed along columns to ``[part][i][column]``, by `row_products` along rows, to sums and back, and along columns to results.
    A block whose results are to be repaired is marked in the words at ``flags``, ``[n][block row][block column]``, behind one that tells
    whether any is.  Where weights are the caller's, ``given``, each thread transforms those of vectors side by side, or ``across`` all.
    Workspace: 1 + the first vector of channels whose weights are transformed, 0 before a thread's first unit as `Job` says, and, where it
    is not, whether some may not be transformed; start of each vector of output channels, results beyond the image, a vector of the fill
    value and one of zeros, two lines for where rows of pixels or filters lie, rows of points, pixels and sums of one of them; of weights
    given the sum of magnitudes, taps, the transformed ones.
    """
    size = KINDS[kind][2]
    vector, spec, weights_spec = lanes * size, (kind, lanes, m, 1, piece, fma), (kind, lanes, m, 1, 1, 1, fma)
    place_taps, points = taps_placer(kind, lanes), m + 2

    def winograd_shallow(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        shape_at = at.extents + _HEAD_BYTES
        row_at = shape_at + TABLE_AT + e.nt * 8
        column_at = row_at + 8 * (e.rows * m + 2)
        weights_at = column_at + 8 * (e.columns * m + 2)
        lane_at = weights_at + WEIGHTS_BYTES
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        finish = e.finish * (at.values + size)
        state = at.workspace + index * at.scratch
        start = state + LINE
        beyond = start + e.blocks * vector
        wide_bytes = (e.gx * m + 2) * vector
        fills = beyond + vector
        lines_at = fills + 2 * vector
        points_at = lines_at + 2 * LINE
        space = points_at + max(e.parts, e.blocks) * points * e.row_points
        totals = space + (e.parts + 1) * points * e.nt * vector
        taps, pitch = totals + vector, (e.icg + SPARE) * vector
        made = taps + 9 * e.icg * vector
        held = peek("i64", state) - 1
        unfit = peek("i64", state + 8) if held >= 0 else 0
        fill_row(kind, lanes, fills, lanes, fill)
        fill_row(kind, lanes, fills + vector, lanes, zero)
        for u in range(u0, u1):
            rest, side = u // e.together, u % e.together
            groups, pairs = e.groups_y * e.groups_x, e.planes // e.together
            pair, group = (rest % pairs, rest // pairs) if e.across else (rest // groups, rest % groups)
            by, bx = group // e.groups_x, group % e.groups_x
            plane = pair * e.together + side
            first_line, tx = by * e.gy, bx * e.gx
            tall, wide = min(e.gy, e.n * e.rows - first_line), min(e.gx, e.columns - tx)
            for lane in range(e.blocks * lanes):
                o = plane * e.blocks * lanes + lane // lanes * lanes + peek("i64", lane_at + lane % lanes * 8)
                poke(kind, start + lane * size, peek(kind, at.bias + o * size) if e.bias else zero)
            columns, left = wide * m + 2, tx * m - e.pad_x  # image column of the first
            c0, c1 = max(left, 0), min(left + columns, e.iw)
            inside, before = max(c1 - c0, 0), min(c0 - left, columns)
            for k in range(tall):
                n, ty = (first_line + k) // e.rows, (first_line + k) % e.rows
                for part in range(e.parts):
                    pixels = at.src + n * e.sn + (plane * e.parts + part) * vector
                    to = points_at + part * points * e.row_points + k * wide_bytes
                    for turn in range(-1, columns - inside):
                        # the columns inside the image, then one by one those that are outside
                        x = turn if turn < before else turn + inside
                        column = c0 if x < 0 else peek("i64", column_at + 8 * (tx * m + x))
                        if column < 0 and (column != OUTSIDE or fill == zero):
                            for i in range(points):
                                fill_row(kind, lanes, to + x * vector + i * e.row_points, lanes, zero)
                            continue
                        for r in range(points):
                            row = peek("i64", row_at + 8 * (ty * m + r))
                            place = pixels + row * e.sy + column * e.sx
                            if row < 0 or column < 0:
                                place = fills if min(row, column) == OUTSIDE else fills + vector
                            poke("i64", lines_at + 16 * r, place)
                            poke("i64", lines_at + 16 * r + 8, e.sx if row >= 0 and x < 0 else 0)
                        if x < 0:
                            column_pixels(spec, to + before * vector, e.row_points, lines_at, inside)
                        else:
                            column_pixels(spec, to + x * vector, e.row_points, lines_at, 1)
            soon, soon_step, result, result_step = space, 0, space, 0
            if e.asks:
                # lines of a tile's pixels follow each other at one distance, through all its rows
                n, ty = first_line // e.rows, first_line % e.rows
                result, result_step = at.dst + n * e.dn + ty * m * e.dy + plane * e.blocks * vector, e.dx
                if e.across:
                    n, ty = (first_line + e.gy) // e.rows, (first_line + e.gy) % e.rows
                    soon = at.src + n * e.sn + ty * m * e.sy + e.gy * m * e.sy // e.planes // LINE * LINE * plane
                    soon_step = LINE
                elif u + e.together < u1:
                    rest = (u + e.together) // e.together
                    later, by = rest // e.groups_y, rest % e.groups_y
                    n, ty = by * e.gy // e.rows, by * e.gy % e.rows
                    soon = at.src + n * e.sn + ty * m * e.sy + (later * e.together + side) * e.parts * vector
                    soon_step = e.sx
            # the first vector of channels of those whose weights are transformed at once
            of = pair * e.together if e.given and not e.across else 0
            if e.given and held != of:
                held = of
                for block in range(e.own):
                    place_taps(at.wei, weights_at, (of * e.blocks + block) * lanes, taps, lines_at)
                    transformed_weights(weights_spec, made + block * points**2 * pitch, vector, pitch, taps, 9 * vector, 3 * vector, vector,
                                        e.icg, 0, totals, 0)  # fmt: skip
                    for lane in range(lanes):
                        total = peek(kind, totals + lane * size)
                        if not (LEAST <= total <= MOST or total == zero):
                            unfit = 1
            wei = made if e.given else at.wei + HEAD * size
            wei += (plane - of) * e.blocks * points**2 * pitch
            for i in range(points):
                away = i * e.asked_of_row
                call_kernel(e.products, (shape_at, points_at + i * e.row_points, wei + i * points * pitch, space,
                                         soon + away * soon_step, soon_step, result + away * result_step, result_step))  # fmt: skip
            for k in range(tall):
                n, ty = (first_line + k) // e.rows, (first_line + k) % e.rows
                for t in range(wide):
                    y, x, wrong = ty * m, (tx + t) * m, unfit
                    result = at.dst + n * e.dn + y * e.dy + x * e.dx + plane * e.blocks * vector
                    for block in range(e.blocks):
                        sums = points_at + block * points * e.row_points + (k * e.gx + t) * m * vector
                        wrong |= column_results(spec, sums, e.row_points, start + block * vector, finish, result + block * vector, e.dy,
                                                e.dx, min(m, e.oh - y), min(m, e.ow - x), beyond)  # fmt: skip
                    if wrong:
                        poke("i64", e.flags, 1)
                        poke("i64", e.flags + 8 * (1 + (n * e.rows + ty) * e.columns + tx + t), 1)
        poke("i64", state, held + 1)
        poke("i64", state + 8, unfit)

    return winograd_shallow


def reject(p: Problem, t: Target) -> str | None:
    """Forward, 3x3 at every pixel, channels side by side, float32 and float64; groups of whole vectors or vectors of whole groups."""
    reason = not_of_one_type(p, transforms=True) or not_3x3(p, 1)
    if reason is not None:
        return reason
    if p.src_layout != "nhwc":
        return "for channels last, not planes"
    icg, ocg = p.ic // p.g, p.oc // p.g
    if not (LEAST_DEPTH <= icg <= MOST_DEPTH and LEAST_DEPTH <= ocg <= 2 * MOST_DEPTH):
        return f"sums {LEAST_DEPTH} to {MOST_DEPTH} channels for up to {2 * MOST_DEPTH} results of a pixel, not {icg} for {ocg}"
    reason = not_whole_vectors(p, t.lanes(DTYPES[p.acc].itemsize))
    if reason is not None:
        return reason
    return too_large(p, _scratch(p, t, _cut(p.replace(n=1), t), True) + 16 * (p.ih_padded + p.iw_padded))


def most_error(p: Problem) -> int:
    """C of the bound of each output."""
    return error_of(p.ic // p.g)


class Cut(NamedTuple):
    """How a problem is computed: the extent of a block, the tile, and rows of how many blocks are a unit of work."""

    m: int
    tile: Tile
    gy: int
    gx: int


def _cuts(p: Problem, t: Target, m: int) -> Iterator[Cut]:
    rows, columns = p.n * -(-p.oh // m), -(-p.ow // m)
    for tile in fitting(TILES, t):
        # rows of fewer than four blocks would read many columns twice, those that neighbours share
        for across in range(-(-columns // tile.nt), -(-columns // 4) + 1):
            gx = -(-columns // across)
            yield Cut(m, tile, max(min(tile.nt // gx, rows), 1), gx)


def _groups(p: Problem, cut: Cut) -> int:
    """Groups of blocks, of all images."""
    rows, columns = p.n * -(-p.oh // cut.m), -(-p.ow // cut.m)
    return -(-rows // cut.gy) * -(-columns // cut.gx)


@functools.lru_cache(maxsize=256)
def _cut(p: Problem, t: Target, m: int = 0) -> Cut:
    """The quickest.  Only m changes a sum: it is chosen for one image, or given."""
    extents = (m,) if m else EXTENTS if p.n == 1 else (_cut(p.replace(n=1), t).m,)
    return min((_seconds(p, t, cut), cut) for m in extents for cut in _cuts(p, t, m))[1]


def _vectors(p: Problem, lanes: int) -> tuple[int, int, int]:
    """Vectors of channels or whole groups of them, vectors of pixels of each, vectors of results of each."""
    return p.g // piece_of(p, lanes), max(p.ic // p.g // lanes, 1), max(p.oc // p.g // lanes, 1)


def _seconds(p: Problem, t: Target, cut: Cut) -> float:
    planes, parts, blocks = _vectors(p, t.lanes(DTYPES[p.acc].itemsize))
    units, columns = _groups(p, cut) * planes, cut.gy * (cut.gx * cut.m + 2)
    return winograd_shallow_seconds(p, units, cut.tile.nt, (cut.m + 2) ** 2, parts, blocks, columns)


def cost(p: Problem, t: Target) -> float:
    """Products of whole tiles, and transforms; no extent but those of one image counts."""
    one = p.replace(n=1)
    return costs.WINOGRAD_CALL_SECONDS + p.n * _seconds(one, t, _cut(one, t))


def most_kernels(t: Target) -> int:
    """Bands for each number of groups in a vector, tiles for each, those of one group for each number of lines that they ask for."""
    lanes = t.lanes(4)
    pieces = {max(lanes // depth, 1) for depth in (4, 8, 16)}
    most = 2 * (MOST_DEPTH // lanes) ** 2  # vectors of pixels times those of results
    tiles = [
        len(pieces) - 1 + len({_asked(m, tile, 1 << n) for n in range(most.bit_length())}) for tile in fitting(TILES, t) for m in EXTENTS
    ]
    return len(EXTENTS) * len(pieces) + sum(tiles)


def _asked(m: int, tile: Tile, times: int) -> int:
    """Lines of pixels asked for with each of a point's ``times`` sums of products: a power of two, so that tiles are few."""
    return 1 << (-(-tile.nt * m * m // ((m + 2) ** 2 * times)) - 1).bit_length()


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1, m: int = 0, given: bool = False) -> Plan:
    """A plan whose child computes blocks that no transform can; of weights transformed once, or ``given`` in every call.

    ``m`` is that of the plan that has packed the weights, of whose image this one's is a band; 0 where there is none.
    """
    kind, dtype, size = p.acc, DTYPES[p.acc], DTYPES[p.acc].itemsize
    lanes, fma = t.lanes(size), int(t.fma)
    cut, piece, seconds = _cut(p, t, m), piece_of(p, lanes), cost(p, t)
    _, parts, blocks = _vectors(p, lanes)
    m, asked = cut.m, _asked(cut.m, cut.tile, parts * blocks)
    products = winograd_shallow_tile_kernel((kind, lanes, m, cut.tile.nt, min(p.ic // p.g, lanes), piece, asked, fma))
    region = Region(f"winograd_shallow_{kind}_{m}x{m}_{lanes}_{piece}", _factory, (kind, lanes, m, piece, fma), kind)
    pack = ShallowPacking(kind, lanes, m, piece, fma, threads)
    head, tables = _layout(p, t, cut, given)
    scratch = _scratch(p, t, cut, given)
    child = plan(patch_of(p, m), t, threads)

    def again(band: Problem, t: Target, _: Any, threads: int) -> Plan:
        return build(band, t, plan, threads, m, given)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not all(array.dtype == dtype and array.strides[1] == size for array in (src, dst)):
            return staged_launch(p, own.threads, again, t, src, packed, dst, fill, multiple=m, channels_last=True)
        (sn, _, sy, sx), (dn, _, dy, dx) = src.strides, dst.strides
        e = head._replace(
            products=products.address, sn=sn, sy=sy, sx=sx, dn=dn, dy=dy, dx=dx,
            asks=int(head.groups_x == 1 and sy == p.iw * sx and dy == p.ow * dx), asked_of_row=asked * (m + 2) * parts * blocks,
        )  # fmt: skip
        read = weights_table(p, packed if given else None, kind, lanes, piece)
        values, units = finish_values(p, fill), head.groups_y * head.groups_x * head.planes

        def bind(flags: np.ndarray) -> Launch:
            extents = np.concatenate([np.array(e._replace(flags=flags.ctypes.data), np.int64), *tables, read])
            run = region.launcher(extents, values, scratch, units, own.threads, seconds, src, packed, dst)

            def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
                if given or packed[0, 0, 0, 0]:
                    run(src, packed, bias, dst)
                else:
                    flags[:] = 1

            return launch

        return repaired_blocks(p, m, child, fill, bind, given)

    def as_given(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(dtype, copy=False)

    return Plan(problem=p, algorithm="winograd_shallow", kernel=products.name, cost=seconds, pack_weights=as_given if given else pack,
                prepare_launch=prepare, workspace=scratch * threads, threads=threads, children=(child,),
                given=None if given else partial(build, p, t, plan, threads, m, True), grouped=given)  # fmt: skip


def _across(p: Problem, t: Target, cut: Cut) -> bool:
    """Whether all vectors of channels of a row of blocks follow each other, since their weights stay near; else all rows of blocks."""
    return p.oc * (p.ic // p.g) * (cut.m + 2) ** 2 * DTYPES[p.acc].itemsize <= costs.WINOGRAD_SHALLOW_NEAR_SHARE * t.l2


def _together(p: Problem, t: Target, cut: Cut) -> int:
    """Vectors of channels that take turns, since lines of pixels come in pairs; of one group of blocks they follow each other anyway."""
    planes, _, _ = _vectors(p, t.lanes(DTYPES[p.acc].itemsize))
    return 2 if planes % 2 == 0 and _groups(p, cut) > 1 else 1


def _own(p: Problem, t: Target, cut: Cut) -> int:
    """Vectors of results whose weights, where they are given, each thread transforms at once."""
    planes, _, blocks = _vectors(p, t.lanes(DTYPES[p.acc].itemsize))
    return (planes if _across(p, t, cut) else _together(p, t, cut)) * blocks


def _layout(p: Problem, t: Target, cut: Cut, given: bool) -> tuple[Head, list[np.ndarray]]:
    """The kernel's integers but for addresses and strides, and its tables."""
    size, (m, tile, gy, gx) = DTYPES[p.acc].itemsize, cut
    lanes, points = t.lanes(size), m + 2
    vector, (planes, parts, blocks), icg = lanes * size, _vectors(p, lanes), p.ic // p.g
    wide = gx * m + 2
    row = max(gy * wide, m * tile.nt) * vector
    places = [(t // gx * wide + t % gx * m) * vector if t < gy * gx else 0 for t in range(tile.nt)]
    shape = Shape(parts=parts, blocks=blocks, pitch=points * row, weights=points**2 * (icg + SPARE) * vector)
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    rows, columns = -(-p.oh // m), -(-p.ow // m)
    head = Head(*[0] * len(Head._fields))._replace(
        n=p.n, planes=planes, together=_together(p, t, cut), parts=parts, blocks=blocks,
        iw=columns_read(p), oh=p.oh, ow=p.ow, rows=rows, columns=columns, gy=gy, gx=gx,
        groups_y=-(-p.n * rows // gy), groups_x=-(-columns // gx), pad_x=p.pl, row_points=row, bias=int(has_bias),
        finish=int(activation is not None), across=int(_across(p, t, cut)), given=int(given), own=_own(p, t, cut), icg=icg, nt=tile.nt,
    )  # fmt: skip
    return head, [np.array([*shape, *places], np.int64), *sources(p, m)]


def _scratch(p: Problem, t: Target, cut: Cut, given: bool) -> int:
    """Bytes of workspace of one thread, a multiple of a line."""
    size = DTYPES[p.acc].itemsize
    lanes, icg, (m, tile, gy, gx) = t.lanes(size), p.ic // p.g, cut
    _, parts, blocks = _vectors(p, lanes)
    wide, points = gx * m + 2, m + 2
    vectors = blocks + 3 + max(parts, blocks) * points * max(gy * wide, m * tile.nt) + (parts + 1) * points * tile.nt
    if given:
        vectors += 1 + 9 * icg + _own(p, t, cut) * points**2 * (icg + SPARE)
    return whole_lines(vectors * lanes * size + 3 * LINE, 1)
