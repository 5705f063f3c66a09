"""winograd_rows_last: first layers of images whose channels lie side by side, four rows of results at a time by F(4, r) down the rows.

As `winograd_rows`, with output channels in lanes and transformed pixels broadcast, as `shallow_last`: a row of pixels is transformed as
it lies, whatever its channels, and those that a row of taps meets are as many values side by side.  Columns outside the image are
columns of transformed rows.  Sums of a tile's points stay in a first-level cache until they are transformed back into four rows.
Beside `shallow_last`: 3 to 64 channels at 224x224 250 us instead of 388, 7x7 at stride 2 245 instead of 590, 3x3 to 32 at stride 2 50
instead of 58, batches of 8 of it 370 instead of 480 (two cores, Zen 5, 2026-11).
Order of accumulation per output: of each point phase of rows, column, channel; then the points.

Transform class: each sum of a point is of at most K = `most_terms` products, and transforms are of at most 7 terms:
|error| <= C u max|x| sum|w| with C = `most_error`, K + 20 times what magnitudes grow to between the transforms.
Images that no transform can compute are left to a plan of direct sums: see `winograd_phases`.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, border_indices, parse_epilogue
from ..planning.winograd_cost import winograd_rows_last_seconds
from ..planning.winograd_points import ROW_TAPS, ROWS
from .border import LINE, row_map, too_large, whole_lines
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .planes import steps
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values, not_of_one_type
from .winograd_phases import (
    HEAD,
    counts,
    most_error,
    phase_taps,
    places,
    put_limits,
    repaired,
    too_few_or_many_taps,
)
from .winograd_rows_last_tile import TABLE_AT, Shape, winograd_rows_last_tile_kernel
from .winograd_rows_pack import packed_last, packed_size, packing, packing_kernel, scratch_bytes
from .winograd_rows_tile import row_pixels

__all__ = ["CASES", "TILES", "build", "cost", "most_error", "most_kernels", "reject"]

CASES = ("ic3ih34_oc32k3_p1_f32_nhwc_bias+relu", "n2_ic3ih37_oc64k7_s2_p3_f32_nhwc_hwio", "ic4ih31iw40_oc64k3_s2_p1_reflect_f32_nhwc_bias",
         "ic3ih23iw33_oc16kh2kw3_f64_nhwc")  # fmt: skip


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``nx`` pixels of a row."""

    registers: int  # of the target, at least
    mr: int
    nx: int


TILES = (
    Tile(32, mr=2, nx=14),  # 28 accumulators, 2 weights, 1 pixel of 32 registers
    Tile(16, mr=2, nx=6),  # 12 accumulators, 2 weights, 1 pixel of 16 registers
)

DEPTHS = 3, 4  # of channels
_MOST_BYTES = 1 << 20  # of workspace: transformed rows stay in a second-level cache

# The integers that the kernel receives; behind them those of the tile and its table, for each phase of rows its taps and the place of its
# first transformed row, the image row of each padded row, the image columns left and right of the image.
Head = namedtuple(
    "Head",
    "tile past entries nx width groups blocks block_bytes oc oh ow sh across points made line left inside right pixel channels constant "
    "finish given packer own sn sy sx dn dy dx",
)
_HEAD_BYTES = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, fma: int) -> Any:
    """The band kernel: units of work are (image, group of rows of results).

    Transformed rows: ``[phase of rows, point][column][c]`` of the padded image.
    Behind the addends of all output channels lies a number for each image that is set where none of it can be computed so.
    Workspace: whether the border is ready, where four rows go, addresses of rows of pixels, largest magnitudes, those of the border,
    pixels of rows beyond the last, sums of a tile, transformed rows, a row of the border, rows of pixels that lie apart; packed weights
    where they are the caller's, ``given``, and what their packing needs.
    """
    size, whole_kind = KINDS[kind][2], f"i{8 * KINDS[kind][2]}"

    def winograd_rows_last(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        shape = at.extents + _HEAD_BYTES
        phases = shape + TABLE_AT + e.entries * 8
        row_at = phases + 16 * e.sh
        left_at = row_at + (e.groups * ROWS + ROW_TAPS - 1) * e.sh * 8
        packing_at = left_at + (e.left + e.right) * 8
        zero, largest, least = peek(kind, at.values + 4 * size), peek(kind, at.values + 6 * size), peek(kind, at.values + 7 * size)
        finish = e.finish * (at.values + size)
        failed = at.bias + e.oc * size
        ready = at.workspace + index * at.scratch
        rows_at, sources, peak, edge, beyond = ready + 64, ready + 128, ready + 192, ready + 256, ready + 320
        sums = beyond + (e.width * size + 63) // 64 * 64
        line = e.line * size
        lines = sums + e.points * e.nx * e.width * size
        border = lines + e.made * line
        staged = border + line
        own = staged + (ROWS + ROW_TAPS - 1) * line
        packed = own if e.given else at.wei
        tile = e.past if e.past and at.dst % (lanes * size) == 0 else e.tile
        wide = e.left + e.inside + e.right
        for u in range(u0, u1):
            n, group = u // e.groups, u % e.groups
            flag = failed + n * size
            # columns of a constant border, which are those of a row of it alone, are transformed before the first group
            before = 1 - peek("i64", ready)
            if before:
                poke("i64", ready, 1)
                if e.given:
                    call_kernel(e.packer, (packing_at, at.wei, own, own + e.own))
                fill_row(kind, lanes, border, wide * e.channels, peek(kind, at.values))
                fill_row(whole_kind, lanes, edge, lanes, 0)
            if peek(kind, flag) != 0:
                continue
            if peek(kind, packed) == 0:
                poke(kind, flag, 1)
                continue
            for turn in range(1 - before * e.constant, 2):
                fill_row(whole_kind, lanes, peak, lanes, 0)
                for py in range(e.sh):
                    taps, place = peek("i64", phases + 16 * py), peek("i64", phases + 16 * py + 8)
                    for l in range(ROWS + taps - 1):
                        row = peek("i64", row_at + ((group * ROWS + l) * e.sh + py) * 8)
                        source = at.src + n * e.sn + row * e.sy
                        if row < 0 or turn == 0:
                            source = border
                        elif e.sx != e.pixel:
                            for x in range(e.inside):
                                copy(kind, lanes, staged + l * line + x * e.pixel, source + x * e.sx, e.channels)
                            source = staged + l * line
                        poke("i64", sources + 8 * l, source)
                    count, dst = (e.inside if turn else wide) * e.channels, lines + place * line + turn * e.left * e.pixel
                    if taps == 1:
                        row_pixels(kind, lanes, fma, 1, dst, line, sources, count, peak)
                    elif taps == 2:
                        row_pixels(kind, lanes, fma, 2, dst, line, sources, count, peak)
                    elif taps == 3:
                        row_pixels(kind, lanes, fma, 3, dst, line, sources, count, peak)
                    else:
                        row_pixels(kind, lanes, fma, 4, dst, line, sources, count, peak)
                if turn == 0:
                    copy(kind, lanes, edge, peak, lanes)
            most, fits = zero, 1
            for lane in range(2 * lanes):
                magnitude = peek(kind, (peak if lane < lanes else edge - lanes * size) + lane * size)
                if not magnitude <= largest:
                    fits = 0
                elif magnitude > most:
                    most = magnitude
            if fits == 0 or zero < most < least:
                poke(kind, flag, 1)
                continue
            for k in range((1 - e.constant) * (e.left + e.right)):
                column = peek("i64", left_at + k * 8)
                to = k if k < e.left else k + e.inside
                for a in range(e.made):
                    copy(kind, lanes, lines + a * line + to * e.pixel, lines + a * line + (e.left + column) * e.pixel, e.channels)
            y = group * ROWS
            result = at.dst + n * e.dn + y * e.dy
            for i in range(ROWS):
                inside = y + i < e.oh
                poke("i64", rows_at + 16 * i, result + i * e.dy if inside else beyond)
                poke("i64", rows_at + 16 * i + 8, inside)
            for x in range(0, e.ow, e.nx):
                # the last tile overlaps the one before; it writes the same values again
                xt = min(x, e.ow - e.nx)
                for block in range(e.blocks):
                    wei, first = packed + HEAD * size + block * e.block_bytes, block * e.width * size
                    call_kernel(tile, (shape, lines + xt * e.across, wei, at.bias + first, finish, sums, rows_at, xt * e.dx + first))

    return winograd_rows_last


def reject(p: Problem, t: Target) -> str | None:
    """Forward, float32 and float64, channels side by side, few of them, whole tiles of results, 2 to 4 rows of taps of a phase."""
    reason = not_of_one_type(p, transforms=True) or too_few_or_many_taps(p)
    if reason is not None:
        return reason
    if p.src_layout != "nhwc":
        return "for channels last, not planes"
    tile, lanes = fitting(TILES, t)[0], t.lanes(DTYPES[p.acc].itemsize)
    if p.g > 1 or p.ic not in DEPTHS:
        return f"reads images of {' or '.join(map(str, DEPTHS))} channels in one group, not {p.ic} in {p.g}"
    if p.dw > 1 or p.sw > 2:
        return f"reads dense taps at strides 1 and 2, not dilations {p.dh, p.dw} and strides {p.sh, p.sw}"
    if p.oc % (tile.mr * lanes):
        return f"is for whole blocks of {tile.mr * lanes} output channels, not {p.oc}"
    if p.ow < tile.nx or p.iw * p.ic < lanes:
        return f"is for rows of at least {tile.nx} results, and {lanes} values, not {p.ow} and {p.iw * p.ic}"
    workspace = _scratch(p, tile, lanes, True)
    if workspace > _MOST_BYTES:
        return f"needs {workspace >> 10} KiB of workspace a thread, more than {_MOST_BYTES >> 10}"
    return too_large(p, workspace + 16 * (p.ih_padded + p.iw_padded))


def cost(p: Problem, t: Target) -> float:
    """Sums of whole tiles, and both transforms."""
    tile, lanes = fitting(TILES, t)[0], t.lanes(DTYPES[p.acc].itemsize)
    groups, (terms, made) = p.n * -(-p.oh // ROWS), counts(p)
    results = groups * p.oc // lanes * -(-p.ow // tile.nx) * tile.nx
    return winograd_rows_last_seconds(p, results, terms, groups * made * -(-_wide(p) * p.ic // lanes))


def most_kernels(t: Target) -> int:
    """The bands, the packing of weights in them and before; for each depth, stride and 2 to 4 rows of taps a tile, one past the caches."""
    return 3 + 2 * len(DEPTHS) * 2 * (ROW_TAPS - 1)


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1, given: bool = False) -> Plan:
    """A plan whose child computes images that no transform can; of weights that come packed, or ``given`` with every image."""
    kind, dtype = p.acc, DTYPES[p.acc]
    size, tile = dtype.itemsize, fitting(TILES, t)[0]
    lanes, fma = t.lanes(size), int(t.fma)
    code, past = (
        winograd_rows_last_tile_kernel((kind, lanes, *tile[1:], steps(p)[1] * p.ic, p.ic, phase_taps(p)[0], how, fma)) for how in (0, 1)
    )
    large = costs.bytes_moved(p) > costs.WINOGRAD_ROWS_PAST_SHARE * t.l3
    region = Region(f"winograd_rows_last_{kind}_{lanes}", _factory, (kind, lanes, fma), kind)
    width = tile.mr * lanes
    scratch, seconds = _scratch(p, tile, lanes, given), cost(p, t)
    head, maps = _layout(p, tile, lanes)
    child = plan(p.replace(n=1, precision="strict"), t, threads)

    def again(band: Problem, t: Target, _: Any, threads: int) -> Plan:
        return build(band, t, plan, threads, given)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not all(array.dtype == dtype and array.strides[1] == size for array in (src, dst)):
            return staged_launch(p, own.threads, again, t, src, packed, dst, fill, multiple=ROWS, channels_last=True)
        (sn, _, sy, sx), (dn, _, dy, dx) = src.strides, dst.strides
        aligned = all(step % (lanes * size) == 0 for step in (dn, dy, dx))
        e = head._replace(tile=code.address, past=past.address if large and aligned else 0, sn=sn, sy=sy, sx=sx, dn=dn, dy=dy, dx=dx)
        table, shape = _table(p, tile, dx, dy)
        if given:
            e = e._replace(given=1, packer=packing_kernel(kind, lanes, fma).address, own=packed_size(p) * size)
        e = e._replace(entries=len(table))
        parts = [np.array(e, np.int64), np.array(shape, np.int64), table, *maps]
        if given:
            parts.append(packing(p, lanes, width, packed.strides))
        extents = np.concatenate(parts)
        values = put_limits(finish_values(p, fill), dtype)
        transformed = region.launcher(extents, values, scratch, p.n * head.groups, own.threads, seconds, src, packed, dst, turns=True)
        return repaired(p, transformed, child, fill, given)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(dtype, copy=False) if given else packed_last(p, lanes, width, fma, wei)

    return Plan(problem=p, algorithm="winograd_rows_last", kernel=code.name, cost=seconds, pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads + child.workspace, threads=threads, children=(child,),
                given=None if given else partial(build, p, t, plan, threads, True))  # fmt: skip


def _wide(p: Problem) -> int:
    """Columns of a transformed row."""
    return max((p.ow - 1) * steps(p)[1] + p.kw, p.pl + p.iw)


def _line(p: Problem) -> int:
    """Elements of a transformed row: an odd number of lines, so that rows do not fall into the same sets of a cache."""
    size = DTYPES[p.acc].itemsize
    return whole_lines((whole_lines(_wide(p) * p.ic, size) * size // LINE | 1) * LINE // size, size)


def _scratch(p: Problem, tile: Tile, lanes: int, given: bool = False) -> int:
    """Bytes of workspace of one thread, a multiple of a line."""
    size, (_, made) = DTYPES[p.acc].itemsize, counts(p)
    width = whole_lines(tile.mr * lanes, size)
    fixed = 5 * LINE + width * size * (1 + (ROWS + phase_taps(p)[0] - 1) * tile.nx)
    weights = packed_size(p) * size + scratch_bytes(p, lanes) if given else 0
    return fixed + (made + 1 + ROWS + ROW_TAPS - 1) * _line(p) * size + whole_lines(weights, 1)


def _layout(p: Problem, tile: Tile, lanes: int) -> tuple[Head, list[np.ndarray]]:
    """The kernel's integers but for the strides and what `build` fills in, and its tables."""
    size, (sh, sw, _, _), taps = DTYPES[p.acc].itemsize, steps(p), phase_taps(p)
    width, groups, (terms, made) = tile.mr * lanes, -(-p.oh // ROWS), counts(p)
    right = _wide(p) - p.pl - p.iw
    firsts, points = places(p)
    phases = np.array([*zip(taps, firsts, strict=True)], np.int64).reshape(-1)
    rows = np.full((groups * ROWS + ROW_TAPS - 1) * sh, -1, np.int64)
    read = row_map(p)[: (p.oh - 1) * sh + p.kh]
    rows[: len(read)] = read
    columns = [border_indices(first, count, 1, p.iw, p.border) for first, count in ((-p.pl, p.pl), (p.iw, right))]
    _, activation, _, _ = parse_epilogue(p.epilogue)
    head = Head(
        tile=0, past=0, entries=0, nx=tile.nx, width=width, groups=groups, blocks=p.oc // width, block_bytes=terms * width * size, oc=p.oc,
        oh=p.oh, ow=p.ow, sh=sh, across=sw * p.ic * size, points=len(points), made=made, line=_line(p), left=p.pl, inside=p.iw, right=right,
        pixel=p.ic * size, channels=p.ic, constant=int(p.border == "constant" and p.pl + right > 0), finish=int(activation is not None),
        given=0, packer=0, own=0, sn=0, sy=0, sx=0, dn=0, dy=0, dx=0,
    )  # fmt: skip
    return head, [phases, rows, *columns]


def _table(p: Problem, tile: Tile, dx: int, dy: int) -> tuple[np.ndarray, Shape]:
    """For each point the number of its transformed rows, and for each the bytes to it and to pixels of the result, those of all rows."""
    firsts, points = places(p)
    line = _line(p) * DTYPES[p.acc].itemsize
    wanted = [i * dy + j * dx for i in range(ROWS) for j in range(tile.nx)]
    ahead = -(-len(wanted) // sum(map(len, points)))
    table: list[int] = []
    for point in points:
        table.append(len(point))
        for py, row in point:
            asked, wanted = wanted[:ahead], wanted[ahead:]
            table += [(firsts[py] + row) * line, *asked, *[0] * (ahead - len(asked))]
    return np.array(table, np.int64), Shape(many=p.kw * p.ic, dx=dx, ahead=ahead)
