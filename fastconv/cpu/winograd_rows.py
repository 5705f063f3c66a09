"""winograd_rows: first layers of tall kernels, four rows of results at a time by F(4, r) down the rows: half the multiplications.

Wins where few channels give many, and a kernel has 2 to 4 rows of taps of each phase of the stride: of 7x7 at stride 2, four even and
three odd rows of taps take 13 sums along a row for 4 rows of results instead of 28, of 3x3 6 instead of 12.  Columns are not transformed:
they are taps of ordinary sums (S. Winograd, Arithmetic Complexity of Computations, 1980, chapter III).
Groups of four rows of results are anchored at the image's origin.  For each, the rows that it reads are transformed once for all output
channels, and phases share the points of their transforms, so that sums are transformed back once.
Order of accumulation per output: of each point phase of rows, channel, column; then the points.

Transform class: each sum of a point is of at most K = `most_terms` products, and transforms are of at most 7 terms:
|error| <= C u max|x| sum|w| with C = `most_error`, K + 20 times what magnitudes grow to between the transforms.
Images that no transform can compute are left to a plan of direct sums: see `winograd_phases`.
"""

from __future__ import annotations

from collections import namedtuple
from math import prod
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, parse_epilogue
from ..planning.winograd_cost import winograd_rows_seconds
from ..planning.winograd_points import ROWS
from .border import too_large
from .memory import call_kernel, fill_row, integers, peek, poke, unrolled_by_hand
from .planes import Tile, pitch_of, plane_of, planes_layout, planes_tile_kernel, steps
from .simd import KINDS
from .stage import is_native, staged_launch
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values, not_of_one_type
from .winograd_phases import (
    HEAD,
    counts,
    most_error,
    packed_weights,
    phase_taps,
    places,
    put_limits,
    repaired,
    too_few_or_many_taps,
    transformed_taps,
)
from .winograd_rows_tile import AHEAD, row_pixels, row_results, row_sums

__all__ = ["CASES", "TILES", "build", "cost", "most_error", "most_kernels", "reject"]

CASES = ("ic3ih64_oc32k7_s2_p3_f32", "ic3ih34_oc20k3_p1_f32_bias+relu", "n2_g2_ic4ih37iw70_oc22kh5kw4_s2_p2_reflect_f32_bias",
         "ic2ih21iw40_oc9kh2kw3_p1_f64", "ic3ih47iw90_oc12k11_s4_p2_wrap_f64_bias+leaky_relu:0.1")  # fmt: skip


TILES = (
    Tile(32, filters=8, vecs=3, tail=2),  # 24 accumulators, 3 pixels, 1 weight of 32 registers
    Tile(16, filters=4, vecs=3, tail=2),  # 12 accumulators, 3 pixels, 1 weight of 16 registers
)

_MOST_DEPTH = 16  # channels of a group
_MOST_BYTES = 1 << 20  # of workspace: transformed rows stay in a second-level cache
_BAND_GROUPS, _LEAST_UNITS = 4, 8  # groups of rows of a unit of work, unless each thread has fewer units than that
_PIECE_VECTORS = 16  # of a row of results whose sums are kept; of half as many 64 channels at 224x224 take 1.7 ms instead of 1.45

# The integers that the kernel receives; behind them for each point its terms, for each phase of rows its taps and the place of its first
# transformed row, then what the kernel at ``stage`` receives.
Head = namedtuple(
    "Head",
    "stage groups depth oc ocg blocks bands band_groups oh ow sh sw pitch plane points most_taps table_bytes line lines "
    "block_bytes pieces columns whole last finish bias sn sc dn dc dy",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, filters: int, vecs: int, tail: int, fma: int) -> Any:
    """The band kernel: units of work are (image, group of channels, band of groups of rows).

    Transformed rows: ``[phase of rows, point][c][column % sw][column // sw]``.
    Behind the addends of all output channels lies a number for each image that is set where none of it can be computed so.
    Workspace: addends of a block of output channels, where four rows go, largest magnitudes, a row beyond the last, sums of a piece
    of the rows, transformed rows, planes.
    """
    spec, last_spec = (kind, lanes, filters, vecs, fma), (kind, lanes, filters, tail, fma)
    size, whole_kind = KINDS[kind][2], f"i{8 * KINDS[kind][2]}"
    wide, narrow = lanes * vecs * size, lanes * tail * size

    def winograd_rows(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        table = at.extents + _TABLES_AT
        phases = table + e.table_bytes
        record = phases + 16 * e.sh
        zero, largest, least = peek(kind, at.values + 4 * size), peek(kind, at.values + 6 * size), peek(kind, at.values + 7 * size)
        finish = e.finish * (at.values + size)
        failed = at.bias + e.oc * size
        start = at.workspace + index * at.scratch
        rows_at = start + 64 * size
        peak = rows_at + 64
        beyond = peak + 64
        pitch = (e.columns * size + 63) // 64 * 64
        sums = beyond + pitch
        lines = sums + e.points * filters * pitch
        line = e.line * size
        slot = e.depth * e.sw * line
        planes = lines + e.lines * slot
        fill_row(kind, lanes, start, 64, zero)
        # columns that only whole vectors of a phase have
        fill_row(kind, lanes, planes, (at.scratch - (planes - start)) // size, zero)
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            n, group = rest // e.groups, rest % e.groups
            flag = failed + n * size
            first = band * e.band_groups
            call_kernel(e.stage, (record, at.src + n * e.sn + group * e.depth * e.sc, planes, first * ROWS * e.sh, 0, at.values))
            for g in range(min(e.band_groups, (e.oh + ROWS - 1) // ROWS - first)):
                if peek(kind, flag) != 0:
                    break
                fill_row(whole_kind, lanes, peak, lanes, 0)
                for py in range(e.sh):
                    taps, place = peek("i64", phases + 16 * py), peek("i64", phases + 16 * py + 8)
                    for k in range(e.depth * e.sw):
                        src = planes + ((k // e.sw * e.sh + py) * e.sw + k % e.sw) * e.plane * size + g * ROWS * e.pitch * size
                        dst = lines + place * slot + k * line
                        for l in range(ROWS + taps - 1):
                            poke("i64", rows_at + 8 * l, src + l * e.pitch * size)
                        if taps == 1:
                            row_pixels(kind, lanes, fma, 1, dst, slot, rows_at, e.pitch, peak)
                        elif taps == 2:
                            row_pixels(kind, lanes, fma, 2, dst, slot, rows_at, e.pitch, peak)
                        elif taps == 3:
                            row_pixels(kind, lanes, fma, 3, dst, slot, rows_at, e.pitch, peak)
                        else:
                            row_pixels(kind, lanes, fma, 4, dst, slot, rows_at, e.pitch, peak)
                most, fits = zero, 1
                for lane in range(lanes):
                    magnitude = peek(kind, peak + lane * size)
                    if not magnitude <= largest:
                        fits = 0
                    elif magnitude > most:
                        most = magnitude
                if fits == 0 or zero < most < least:
                    poke(kind, flag, 1)
                    break
                y = (first + g) * ROWS
                for b in range(e.blocks):
                    o = group * e.ocg + min(b * filters, e.ocg - filters)
                    if e.bias:
                        for j in range(filters):
                            poke(kind, start + j * size, peek(kind, at.bias + (o + j) * size))
                    wei = at.wei + (HEAD * size + (group * e.blocks + b) * e.block_bytes)
                    result = at.dst + n * e.dn + o * e.dc + y * e.dy
                    for piece in range(e.pieces):
                        # the last piece, and the last tile of each, overlap the one before; they write the same values again
                        left = min(piece * e.columns, e.ow - e.columns) * size
                        for t in range(e.whole + e.last):
                            if t < e.whole:
                                x = min(t * wide, e.columns * size - wide)
                                to = result + left + x
                                row_sums(spec, e.points, table, lines + left + x, wei, sums + x, pitch, to)
                            else:
                                x = min(e.whole * wide + (t - e.whole) * narrow, e.columns * size - narrow)
                                to = result + left + x
                                row_sums(last_spec, e.points, table, lines + left + x, wei, sums + x, pitch, to)
                        for i in range(ROWS):
                            inside = y + i < e.oh
                            poke("i64", rows_at + 16 * i, result + i * e.dy + left if inside else beyond)
                            poke("i64", rows_at + 16 * i + 8, e.dc if inside else 0)
                        if e.most_taps == 2:
                            row_results(kind, lanes, fma, 2, sums, pitch, filters, e.columns, start, rows_at, finish)
                        elif e.most_taps == 3:
                            row_results(kind, lanes, fma, 3, sums, pitch, filters, e.columns, start, rows_at, finish)
                        else:
                            row_results(kind, lanes, fma, 4, sums, pitch, filters, e.columns, start, rows_at, finish)

    return winograd_rows


def reject(p: Problem, t: Target) -> str | None:
    """Forward, float32 and float64, few channels a group, at least a block of results of each, 2 to 4 rows of taps of a phase."""
    reason = not_of_one_type(p, transforms=True)
    if reason is not None:
        return reason
    if p.src_layout == "nhwc":
        return "for planes, not channels last"
    reason = too_few_or_many_taps(p)
    if reason is not None:
        return reason
    if p.ic // p.g > _MOST_DEPTH:
        return f"is for groups of at most {_MOST_DEPTH} channels, not {p.ic // p.g}"
    tile, lanes = fitting(TILES, t)[0], t.lanes(DTYPES[p.acc].itemsize)
    if p.oc // p.g < tile.filters or p.ow < tile.tail * lanes:
        return f"is for at least {tile.filters} results of each channel, and {tile.tail * lanes} columns of them"
    workspace = _scratch(p, tile, lanes, _BAND_GROUPS)
    if workspace > _MOST_BYTES:
        return f"needs {workspace >> 10} KiB of workspace a thread, more than {_MOST_BYTES >> 10}"
    return too_large(p, workspace + 16 * (p.ih_padded + p.iw_padded))


def cost(p: Problem, t: Target) -> float:
    """Sums of whole tiles, both transforms, and the copies of the planes."""
    tile, lanes = fitting(TILES, t)[0], t.lanes(DTYPES[p.acc].itemsize)
    pieces, _, whole, last = _tiles(p, tile, lanes)
    groups = -(-p.oh // ROWS)
    (terms, made), (_, sw, _, _) = counts(p), steps(p)
    results = groups * p.g * -(-p.oc // p.g // tile.filters) * tile.filters * pieces * (whole * tile.vecs + last * tile.tail)
    rows = groups * p.ic * sw * made * -(-pitch_of(p) // lanes)
    bands = -(-groups // _BAND_GROUPS)
    copied = costs.shallow_copy_seconds(p, lanes, bands * p.ic * p.sh, _phase_rows(p, _BAND_GROUPS), pitch_of(p) * sw, False)
    return copied + winograd_rows_seconds(p, p.n * results, terms, p.n * rows)


def most_kernels(t: Target) -> int:
    return 2  # the bands, and the planes, which are those of `shallow`


def _phase_rows(p: Problem, groups: int) -> int:
    return groups * ROWS + phase_taps(p)[0] - 1


def _tiles(p: Problem, tile: Tile, lanes: int) -> tuple[int, int, int, int]:
    """Pieces of a row, their columns, and of each the whole and last tiles, so that they compute the fewest columns twice."""
    vectors = -(-p.ow // lanes)
    pieces = -(-vectors // _PIECE_VECTORS)
    vectors = -(-vectors // pieces)
    columns = min(vectors * lanes, p.ow)
    most = vectors // tile.vecs + 1 if columns >= tile.vecs * lanes else 0
    ways = [(whole, max(-(-(vectors - whole * tile.vecs) // tile.tail), 0)) for whole in range(most + 1)]
    return pieces, columns, *min(ways, key=lambda way: (way[0] * tile.vecs + way[1] * tile.tail, -way[0]))


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose child computes images that no transform can."""
    kind, dtype = p.acc, DTYPES[p.acc]
    tile, lanes = fitting(TILES, t)[0], t.lanes(dtype.itemsize)
    name = f"winograd_rows_{kind}_{tile.filters}x{tile.vecs}_{lanes}"
    region = Region(name, _factory, (kind, lanes, tile.filters, tile.vecs, tile.tail, int(t.fma)), kind)
    stage, groups = planes_tile_kernel(kind, lanes), -(-p.oh // ROWS)
    band_groups = min(max(max(p.n, 1) * p.g * groups // (_LEAST_UNITS * threads), 1), _BAND_GROUPS)
    head, scratch, seconds = _layout(p, tile, lanes, band_groups), _scratch(p, tile, lanes, band_groups), cost(p, t)
    child = plan(p.replace(n=1, precision="strict"), t, threads)

    def again(band: Problem, t: Target, _: Any, threads: int) -> Plan:
        return build(band, t, plan, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return staged_launch(p, own.threads, again, t, src, packed, dst, fill, multiple=ROWS)
        (sn, sc, sy, _), (dn, dc, dy, _) = src.strides, dst.strides
        e = head._replace(stage=stage.address, sn=sn, sc=sc, dn=dn, dc=dc, dy=dy)
        record, tables = planes_layout(p, lanes, _phase_rows(p, band_groups))
        table, phases = _terms(p, tile, head.line, dc, dy)
        extents = np.concatenate([np.array(e, np.int64), table, phases, np.array(record._replace(sc=sc, sy=sy), np.int64), *tables])
        extents[Head._fields.index("table_bytes")] = 8 * len(table)
        values = put_limits(finish_values(p, fill), dtype)
        transformed = region.launcher(extents, values, scratch, p.n * p.g * head.bands, own.threads, seconds, src, packed, dst)
        return repaired(p, transformed, child, fill)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return _pack(p, wei, tile.filters)

    return Plan(problem=p, algorithm="winograd_rows", kernel=name, cost=seconds, pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads + child.workspace, threads=threads, children=(child,))  # fmt: skip


def _terms(p: Problem, tile: Tile, line: int, dc: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """For each point its number of terms, then the three integers of each term; for each phase its taps, and its first row's place."""
    size, (_, sw, _, dw) = DTYPES[p.acc].itemsize, steps(p)
    firsts, points = places(p)
    c, kx = (index.reshape(-1) for index in np.indices((p.ic // p.g, p.kw)))
    column = kx * dw
    within = (c * sw + column % sw) * line + column // sw
    slot = p.ic // p.g * sw * line
    offsets = [np.concatenate([(firsts[py] + row) * slot + within for py, row in point]) * size for point in points]
    # the last byte of each line of a tile: where lines of the result begin elsewhere, it is that of the next one
    wanted = [i * dy + o * dc + 64 * v + 63 for i in range(ROWS) for o in range(tile.filters) for v in range(tile.vecs)]
    count = sum(map(len, offsets))
    ahead = np.array([wanted[n * len(wanted) // (AHEAD * count)] for n in range(AHEAD * count)], np.int64).reshape(count, AHEAD)
    found, done = [], 0
    for part in offsets:
        found += [np.array([len(part)], np.int64), np.column_stack([part, ahead[done : done + len(part)]]).reshape(-1)]
        done += len(part)
    return np.concatenate(found), np.array([*zip(phase_taps(p), firsts, strict=True)], np.int64).reshape(-1)


def _pack(p: Problem, wei: np.ndarray, filters: int) -> np.ndarray:
    """``[g][block][point][phase][c][kx][filters]`` behind a head, and the weights as they are, as ``(1, 1, 1, n)``."""
    ocg, icg = p.oc // p.g, p.ic // p.g
    weights, blocks = transformed_taps(p.kh, steps(p)[0]), -(-ocg // filters)
    shape = p.g, blocks, len(weights), icg * p.kw, filters
    packed, given = packed_weights(p, wei, prod(shape))
    with np.errstate(all="ignore"):
        rows = given.transpose(2, 0, 1, 3).astype(np.float64, order="C").reshape(p.kh, -1)
        terms = (weights @ rows).reshape(len(weights), p.g, ocg, icg * p.kw)
        if ocg % filters == 0:
            terms = terms.reshape(len(weights), p.g, blocks, filters, icg * p.kw)
        else:
            # the last block overlaps the one before
            terms = terms[:, :, np.minimum(np.arange(blocks) * filters, ocg - filters)[:, None] + np.arange(filters)]
        packed[0, 0, 0, HEAD : HEAD + prod(shape)].reshape(shape)[...] = terms.transpose(1, 2, 0, 4, 3)
    return packed


def _line(p: Problem, lanes: int) -> int:
    """Elements of a transformed row: an odd number of lines, so that rows do not fall into the same sets of a cache."""
    return (-(-pitch_of(p) // lanes) | 1) * lanes


def _scratch(p: Problem, tile: Tile, lanes: int, band_groups: int) -> int:
    """Bytes of workspace of one thread."""
    size, (sh, sw, _, _) = DTYPES[p.acc].itemsize, steps(p)
    depth, (_, made) = p.ic // p.g, counts(p)
    wide = -(-_tiles(p, tile, lanes)[1] * size // 64) * 64
    fixed = 64 * size + 128 + (1 + (ROWS + phase_taps(p)[0] - 1) * tile.filters) * wide
    rows = made * depth * sw * _line(p, lanes) * size
    return fixed + rows + -(-plane_of(p, lanes, _phase_rows(p, band_groups)) * depth * sh * sw * size // 64) * 64


def _layout(p: Problem, tile: Tile, lanes: int, band_groups: int) -> Head:
    """The kernel's integers but for the strides and what `build` fills in."""
    (sh, sw, _, _), taps, ocg = steps(p), phase_taps(p), p.oc // p.g
    terms, made = counts(p)
    pieces, columns, whole, last = _tiles(p, tile, lanes)
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    return Head(
        stage=0, groups=p.g, depth=p.ic // p.g, oc=p.oc, ocg=ocg, blocks=-(-ocg // tile.filters), bands=-(-p.oh // (ROWS * band_groups)),
        band_groups=band_groups, oh=p.oh, ow=p.ow, sh=sh, sw=sw, pitch=pitch_of(p),
        plane=plane_of(p, lanes, _phase_rows(p, band_groups)), points=ROWS + taps[0] - 1, most_taps=taps[0], table_bytes=0,
        line=_line(p, lanes), lines=made, block_bytes=terms * tile.filters * DTYPES[p.acc].itemsize, pieces=pieces,
        columns=columns, whole=whole, last=last,
        finish=int(activation is not None), bias=int(has_bias), sn=0, sc=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
