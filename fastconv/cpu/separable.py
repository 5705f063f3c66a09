"""separable: filters of rank 1 as two passes in one sweep: down the columns into rows that stay in the cache, then along them.

``wei[ky, kx] = v[ky] * u[kx]``, found and proven by :mod:`fastconv.cpu.factor`.  Order of accumulation per output: for each column
``ky``, from zero; then ``kx``, from the bias (for column stride 2 the even ``kx``, then the odd ones).  It depends on the stride alone.
Rows of float boxes of ``cost.DOUBLED_TAPS`` and more are added up by doubling, sixteen at a time, before the sum is multiplied: of no
pixel but the window's, in an order that depends on kw alone.

Sum class.  Let u be half the accumulator's epsilon.  The vertical sums have kh roundings, the horizontal ones kw, and one for the bias;
``v u`` differs from the weight by 8 u and its own product's rounding: |error| <= (kh + kw + 10) u sum|w x| to first order, which is within
2 (T + 4) u sum|w x| for T = kh kw taps where kh, kw >= 2.  With one row or column the factors are the weights times a power of two.
The largest ``|u|`` is in [1, 2), so a column's sum is finite where the direct formula's own sums over that column are, at its largest
column.  Weights that are whole numbers times a power of two have factors that are, too: sums below 2^24 units are then exact in float32.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np

from ..planning import cost as costs
from ..planning.operands import like
from ..planning.plans import Launch, Plan, Quick, QuickLaunch
from ..planning.problem import DTYPES, ROUNDINGS, Finish, Problem, not_computed, parse_epilogue
from .border import column_maps, row_map, too_large
from .convert import LOADED, STORED, stored_bytes
from .factor import FOUND, factor, words
from .identity_tile import row_is_finite
from .memory import copy, fill_row, integers, peek, poke, split, unrolled_by_hand
from .separable_tile import column_sum, column_tile, row_tile
from .simd import KINDS
from .stage import is_native, staged_launch
from .target import Target
from .threads import Job, Region
from .values import finish_values
from .whole_tile import MOST_BOX, MOST_SYMMETRIC, WAY_BYTES, Way, box_column_tile, choose_way, symmetric_column_tile, whole_row_tile

CASES = (
    "ih64_k5_p2_reflect_f32_structure=rank1",
    "n2_g3_ic3ih40iw90_oc3kh4kw7_s2_p3_wrap_f64_structure=rank1",
    "ih33iw1500_kh9kw3_sh1sw2_f32_bias_structure=rank1",
    "ih300_k31_p15_f32_structure=box",
    "ih70iw20_kh3kw2_sh3sw1_f32_structure=rank1",
    "ih70iw90_k3_p1_u8:f32:u8:f32_saturate_structure=rank1",
    "ih40iw200_k15_p7_u8:f32:u8:f32_half-up_structure=box",
    "g3_ic3ih21iw45_oc3kh4kw13_p6_reflect_f32_nhwc_structure=rank1_shared",
)


class Tile(NamedTuple):
    """``rows x vecs`` accumulators of column sums over groups of at most ``tall`` rows; ``wide`` vectors of a row of results."""

    registers: int  # of the target, at least
    rows: int
    vecs: int
    tall: int
    wide: int


TILES = (
    Tile(32, rows=8, vecs=2, tall=8, wide=4),
    Tile(16, rows=4, vecs=2, tall=4, wide=4),
)

MOST_APART = 4  # interleaved channels
_BAND = 32  # rows of output of one unit of work

# The integers that the kernel receives: these, the parts of a row, the row map, the two column maps.  ``fill`` are the bits of a pixel.
Head = namedtuple(
    "Head",
    "oc iw oh ow kh kw sw pl held bands band_rows cols entries fills bias pitch half rank many words nleft past fill sn sc sy dn dc dy",
)
_PARTS_AT = 8 * len(Head._fields)
_TABLES_AT = _PARTS_AT + 4 * costs.MOST_RANK * 8  # parts of a row; sums of fill values lie in the 64 bytes from the first addend on


def _factory(
    kind: str, src: str, dst: str, rounding: str, lanes: int, rows: int, vecs: int, tall: int, wide: int, v: int, apart: int, box: int,
    fma: int, ranked: int,
) -> Any:  # fmt: skip
    """The band kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, channel, band of rows).

    A band is computed in columns of at most ``cols`` outputs, ``rows`` rows at a time: the vertical tile reads the image in place
    through a table of row addresses, every column once; the border's columns are copies of the sums of the image's columns behind them
    (or one sum of the fill value); then each row goes through the horizontal tile.  Sums of columns that are behind the border but not
    in this band's, and of images narrower than a tile, are made one by one.
    Kind i16 takes the whole numbers of bytes' weights, and for a ``box`` adds up pixels; what is not float32 then is the way of its sums.
    A filter of several pairs of vectors has rows of sums for each pair, and all of them are parts of one row of results; where
    ``ranked``, the number behind the addends becomes 1 if a result is not finite.
    Workspace: row table, a table of fill rows, first addend and sums of fill values, vertical taps, the way, taps of a row, fill row,
    rows of sums, their even and odd columns, tile.
    """
    whole, acc, rounds = kind == "i16", "f32" if kind == "i16" else kind, ("", "saturate", "half_up").index(rounding)
    number, whole_box = KINDS[acc][2], int(whole and box)
    box_vertical = (lanes, rows, vecs)
    whole_horizontal = (dst, rounding, lanes, wide, min(8, lanes), apart, box, fma)
    narrow, short = dst == "u8", dst == "i16"
    vertical = (kind, src, lanes, rows, vecs, v, tall, fma)
    horizontal = (kind, dst, rounding, lanes, wide, min(8, lanes), apart, fma, 0 if whole else box)
    size, pixel, result = KINDS[kind][2], stored_bytes(src), stored_bytes(dst)
    pixel_bits, result_bits = f"i{8 * pixel}", f"i{8 * result}"
    width, across, vector = lanes * vecs, lanes * wide, lanes * size

    def separable(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        parts, row_map = at.extents + _PARTS_AT, at.extents + _TABLES_AT
        maps = row_map + (e.oh * e.held + e.kh) * 8 + e.nleft * 8
        table = at.workspace + index * at.scratch
        fill_table = table + e.entries * 8
        start = fill_table + e.kh * 8
        packed = start + 64
        way = packed + (e.rank * e.kh * size + 7) // 8 * 8
        along = way + WAY_BYTES
        fill_at = along + e.rank * e.kw * size
        sums = (fill_at + e.iw * pixel + 63) // 64 * 64
        halves = sums + e.rank * rows * e.pitch
        tile_at = halves + e.rank * rows * 2 * e.half
        poke(kind, start, 0)
        fill_row(pixel_bits, lanes, fill_at, e.iw if e.fills else 1, e.fill)
        for ky in range(e.kh):
            poke("i64", fill_table + ky * 8, fill_at)
        way_of = -1
        for u in range(u0, u1):
            plane, band = u // e.bands, u % e.bands
            n, o = plane // e.oc, plane % e.oc
            j0 = band * e.band_rows
            j1 = min(j0 + e.band_rows, e.oh)
            taps = at.wei + o * e.words * number
            first = at.bias + o * number if e.bias else at.values + 4 * number
            if whole:
                taps += (e.kh + e.kw) * number
                if o != way_of:
                    way_of = o
                    choose_way(way, rounds, narrow, short, taps, e.kh, e.kw, first, e.bias)
            for i in range(e.rank):
                pair = taps + i * (e.kh + e.kw) * number
                for ky in range(e.kh):
                    poke(kind, packed + (i * e.kh + ky) * size, peek(acc, pair + ky * number))
                for kx in range(e.kw):
                    poke(kind, along + (i * e.kw + kx) * size, peek(acc, pair + (e.kh + kx) * number))
                poke(kind, start + 8 + 8 * i, column_sum(kind, src, fma, start, packed + i * e.kh * size, fill_table, 0, e.kh))
            tall = integers(way, Way).tall if whole and not whole_box else 0
            image = at.src + n * e.sn + o * e.sc
            used = (j1 - j0 - 1) * e.held + e.kh
            for r in range(e.entries):
                # a tile's rows beyond the last one are computed from any row, and not used
                row = peek("i64", row_map + (j0 * e.held + r) * 8) if r < used else 0
                poke("i64", table + r * 8, fill_at if row < 0 else image + row * e.sy)
            for x0 in range(0, e.ow, e.cols):
                wanted = min(e.cols, e.ow - x0)
                c0 = x0 * e.sw - e.pl
                c1 = c0 + (wanted - 1) * e.sw + (e.kw - 1) * apart + 1
                a, b = max(c0, 0), min(c1, e.iw)
                zero = sums + (width - c0) * size  # of column 0
                for j in range(j0, j1, rows):
                    entry = table + (j - j0) * e.held * 8
                    height = min(rows, j1 - j)
                    for i in range(e.rank):
                        column, first_sum = packed + i * e.kh * size, zero + i * rows * e.pitch
                        if e.iw >= width:
                            many = max(b - a, 0) // width
                            for part in range(2):
                                # the last tile overlaps the one before, or columns that nobody reads
                                x = max(b - width, 0) if part else a
                                tiles = (a + many * width < b) if part else many
                                if not tiles:
                                    continue
                                if whole_box:
                                    box_column_tile(box_vertical, e.kh, entry, x * pixel, first_sum + x * size, e.pitch, tiles)
                                elif whole and 0 < tall <= MOST_SYMMETRIC:
                                    symmetric_column_tile(
                                        box_vertical, tall, column, entry, x * pixel, first_sum + x * size, e.pitch, tiles
                                    )
                                else:
                                    column_tile(
                                        vertical, start, column, e.kh, entry, e.held * 8, x * pixel, first_sum + x * size, e.pitch, tiles
                                    )
                        else:
                            for r in range(height):
                                for x in range(a, b):
                                    value = column_sum(kind, src, fma, start, column, entry + r * e.held * 8, x * pixel, e.kh)
                                    poke(kind, first_sum + r * e.pitch + x * size, value)
                        for side in range(2):
                            low, high = (max(c0, e.iw), c1) if side else (c0, min(c1, 0))
                            for x in range(low, high):
                                place = peek("i64", maps + (x - e.iw if side else x) * 8)
                                to = first_sum + x * size
                                for r in range(height):
                                    line = r * e.pitch
                                    if place < 0:
                                        poke(kind, to + line, peek(kind, start + 8 + 8 * i))
                                    elif a <= place < b:
                                        poke(kind, to + line, peek(kind, first_sum + line + place * size))
                                    else:
                                        value = column_sum(kind, src, fma, start, column, entry + r * e.held * 8, place * pixel, e.kh)
                                        poke(kind, to + line, value)
                    for r in range(height):
                        row = zero + r * e.pitch + c0 * size
                        if e.sw == 2:
                            for i in range(e.rank):
                                even = halves + 2 * (i * rows + r) * e.half
                                split(kind, lanes, even, even + e.half, row + i * rows * e.pitch, (c1 - c0 + 1) // 2)
                            row = halves + 2 * r * e.half
                        line = at.dst + n * e.dn + o * e.dc + (j + r) * e.dy + x0 * result
                        past = e.past and wanted > 2 * across and line % size == 0
                        skew = -line % vector // size if past else 0
                        full = (wanted - skew) // across
                        done = skew + full * across
                        for part in range(3):
                            x, tiles, low, high, aside = skew, full, 0, across, False
                            if part == 0:
                                # columns that aligned tiles do not reach: a line stored both ways would be fetched and written twice
                                x, tiles, high, aside = 0, skew > 0, skew, True
                            elif part == 2:
                                tiles, aside = done < wanted, past or wanted < across
                                x = max(wanted - across, 0)
                                low, high = done - x, min(wanted, across)
                            to = tile_at if aside else line + x * result
                            if not tiles:
                                continue
                            if whole:
                                whole_row_tile(whole_horizontal, along, parts, row + x * size, way, to, tiles)
                            else:
                                row_tile(horizontal, first, along, parts, e.many, row + x * size, to, tiles, past and part == 1)
                            if aside:
                                copy(result_bits, lanes, line + (x + low) * result, tile_at + low * result, high - low)
                        if ranked and row_is_finite(kind, lanes, line, wanted) == 0:
                            poke(kind, at.bias + e.oc * size, peek(kind, at.values + 5 * size))

    return separable


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of filters of rank 1, one channel each, side by side or two columns apart."""
    reason = not_computed(p, "fwd", roundings=(None, *ROUNDINGS))
    if reason is not None:
        return reason
    if p.structure not in ("rank1", "box", "identity", "zero"):
        return f"for weights of rank 1, not {p.structure}"
    if p.precision == "strict":
        return "precision strict asks for direct sums"
    if not p.g == p.ic == p.oc:
        return "for filters of one channel each"
    if p.src_layout == "nhwc" and p.ic > 1 and not (p.shared and p.ic <= MOST_APART and p.strides[1] == 1 and not _finish(p).bias):
        return f"interleaved channels: for at most {MOST_APART}, of one filter, without a bias, column stride 1"
    if p.acc not in ("f32", "f64"):
        return f"sums in f32 or f64, not {p.acc}"
    if _finish(p).activation is not None:
        return f"does not fuse {p.epilogue}"
    if _finish(p).rounding and (p.dst not in STORED or p.dst == "u32"):
        return f"does not round into {p.dst}"
    if (p.dh > 1 and p.kh > 1) or (p.dw > 1 and p.kw > 1):
        return "does not spread taps"
    if p.strides[1] > 2:
        return "for column strides 1 and 2"
    return too_large(p, layout(p, t, DTYPES[p.acc].itemsize)[-1])


def cost(p: Problem, t: Target) -> float:
    return costs.separable_seconds(p, t.lanes(DTYPES[p.acc].itemsize))


def most_kernels(t: Target) -> int:
    return (3 + 3) * MOST_APART  # row strides of floats and of their boxes; of bytes, of floats, and whole numbers and their boxes


def _apart(p: Problem) -> int:
    """Elements between two pixels of a row: interleaved channels are one plane of wider rows."""
    return p.ic if p.src_layout == "nhwc" else 1


def _finish(p: Problem) -> Finish:
    return parse_epilogue(p.epilogue)


def _tile(t: Target) -> Tile:
    return next(tile for tile in TILES if tile.registers <= t.registers)


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan that holds the two vectors of each filter."""
    own, apart = (p.src, p.dst) == (p.acc, p.acc), _apart(p)
    converts = p.src in LOADED and p.dst in STORED and (p.dst, p.acc) != ("f16", "f64")
    src_type, dst_type = (p.src, p.dst) if converts else (p.acc, p.acc)
    rounding = _finish(p).rounding or ""
    types = f"_{src_type}_{dst_type}" * converts * (not own) + f"_{rounding}" * bool(rounding)
    box = int(p.structure == "box" and p.kw <= MOST_BOX)
    doubled = int(p.structure == "box" and p.kw >= costs.DOUBLED_TAPS and own)
    kinds = [p.acc, "i16"] if src_type == "u8" and p.acc == "f32" and (_row_stride(p), p.strides[1]) == (1, 1) else [p.acc]
    regions = [region(kind, src_type, dst_type, rounding, types, box if kind == "i16" else doubled, p, t) for kind in kinds]
    layouts = [layout(p, t, KINDS[kind][2]) for kind in kinds]
    scratch, seconds = max(layout[-1] for layout in layouts), costs.separable_seconds(p, t.lanes(DTYPES[p.acc].itemsize))

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        pixel = _pixel(fill, src_type)
        if pixel is None or not (_in_place(src, src_type, apart) and _in_place(dst, dst_type, apart)):
            # bytes stay bytes, whose sums are others than those of floats
            return staged_launch(p, plan.threads, build, t, src, packed, dst, fill, None if pixel is None else src_type)
        (sn, sc, sy, _), (dn, dc, dy, _) = src.strides, dst.strides
        past = int(dst_type == p.acc and costs.bytes_moved(p) > costs.PAST_SHARE * t.l3 and dy % (t.bits // 8) == 0)
        values = finish_values(p, fill)
        made_for = like(src), like(packed), like(dst)  # a launch may be made when these are gone

        def launch_of(n: int) -> Launch:
            head, tables, _ = layouts[n]
            e = head._replace(past=past, fill=pixel, sn=sn, sc=sc, sy=sy, dn=dn, dc=dc, dy=dy)
            extents, units = np.concatenate([np.array(e, np.int64), tables]), p.n * head.oc * head.bands
            image, weights, result = made_for
            return regions[n][1].launcher(extents, values if own else values.view(np.int8), scratch, units, plan.threads, seconds,
                                          image, weights, result, turns=True)  # fmt: skip

        return launch_of(0) if len(kinds) == 1 else _either(launch_of, 1 if box else 2, packed)

    return Plan(problem=p, algorithm="separable", kernel="_or_".join(name for name, _ in regions), cost=cost(p, t), pack_weights=_pack,
                prepare_launch=prepare, workspace=scratch * threads, threads=threads,
                compile_all=lambda: [region.kernel() for _, region in regions])  # fmt: skip


def _either(launch_of: Callable[[int], Launch], most: int, packed: np.ndarray) -> Launch:
    """The launch 1, of whole numbers, for weights that are packed so in one of the first ``most`` ways, and the launch 0 for others.

    Each is made, which may take seconds of compilation, when there are weights for it; that for ``packed`` at once.
    """
    launch_of = functools.cache(launch_of)

    def chosen(packed: np.ndarray) -> Launch:
        return launch_of(int(0 < packed[0, 0, 0, -1] <= most))

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        chosen(packed)(src, packed, bias, dst)

    if not isinstance(chosen(packed), QuickLaunch):
        return launch

    def quick(image_ndim: int, weight_ndim: int) -> Quick:
        @functools.cache
        def quick_of(n: int) -> Quick:
            return cast("QuickLaunch", launch_of(n)).quick(image_ndim, weight_ndim)

        last = (*(0,) * (weight_ndim - 1), -1)
        return lambda src, packed, bias, dst: quick_of(int(0 < packed[last] <= most))(src, packed, bias, dst)

    return QuickLaunch(launch, quick)


def region(
    kind: str, src: str, dst: str, rounding: str, types: str, box: int, p: Problem, t: Target, ranked: int = 0
) -> tuple[str, Region]:  # fmt: skip
    """The kernel of floats, or that of whole numbers in 16 bits; of filters of several pairs of vectors where ``ranked``."""
    tile, lanes = _tile(t), t.lanes(KINDS[kind][2])
    v = _row_stride(p)
    v = v if v <= 2 else 0
    spec = (kind, src, dst, rounding, lanes, tile.rows, tile.vecs, tile.tall, tile.wide, v, _apart(p), box, int(t.fma), ranked)
    words = f"_s{v}" * (v != 1) + f"_c{_apart(p)}" * (_apart(p) > 1) + "_box" * box + "_ranked" * ranked
    name = f"separable_{kind}{types}_{tile.rows}x{tile.vecs}_{lanes}{words}"
    return name, Region(name, _factory, spec, "i8" if types else kind)


def _pixel(fill: Any, name: str) -> int | None:
    """The bits of the fill value as a pixel, or None where a pixel cannot hold it."""
    dtype = DTYPES[name]
    with np.errstate(all="ignore"):
        pixel = np.asarray(fill).astype(dtype)
        if not (pixel.item() == fill or (pixel != pixel and fill != fill)):
            return None
    return int(pixel.view(f"i{dtype.itemsize}"))


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    """What `factor` writes, for column stride 2 with the even columns before the odd ones."""
    packed = np.empty((p.oc, 1, 1, words(p.kh, p.kw)), DTYPES[p.acc])
    kind = "f4" if wei.dtype == np.float32 else "f8"
    found = FOUND[factor(wei if wei.dtype == kind else wei.astype(kind), packed)]
    if found == "full" or (p.structure == "box" and found != "box") or (_apart(p) > 1 and not (wei == wei[:1]).all()):
        raise ValueError(f"weights must be finite and of structure {p.structure} as planned, or the plan made without it: {p}")
    order_columns(p, packed[..., p.kh : p.kh + p.kw])
    return packed


def order_columns(p: Problem, factors: np.ndarray) -> None:
    """Put the factors of a filter's columns into the order in which the kernel reads them: for column stride 2 the even ones first."""
    if p.strides[1] == 2:
        factors[...] = np.concatenate([factors[..., ::2], factors[..., 1::2]], axis=-1)


def _row_stride(p: Problem) -> int:
    """Entries of the row table between the rows of two outputs; of kernels of one row, every row is its own entry."""
    return p.strides[0] if p.kh > 1 else 1


def layout(p: Problem, t: Target, size: int, rank: int = 1) -> tuple[Head, np.ndarray, int]:
    """The integers of a kernel of elements of ``size`` bytes, but for the strides; its tables; bytes of workspace of one thread.

    Of filters of ``rank`` pairs of vectors, which are ``kh + kw`` numbers each; at most `costs.MOST_RANK`.
    """
    tile = _tile(t)
    lanes = t.lanes(size)
    width, across = lanes * tile.vecs, lanes * tile.wide
    sh, sw = p.strides
    apart = _apart(p)
    iw, ow, pl, oc = p.iw * apart, p.ow * apart, p.pl * apart, p.oc // apart
    step = _row_stride(p)
    held = min(step, p.kh)
    band_rows = min(_BAND, -(-p.oh // tile.rows) * tile.rows)
    cols = max(costs.SEPARABLE_COLUMN_BYTES // size // sw // across, 1) * across
    cols = min(cols, -(-ow // across) * across)
    columns = 2 * width + cols * sw + p.kw * apart + 2 * lanes
    # an odd multiple of a cache line, so that the rows of a tile lie in different sets
    pitch = (columns * size // 128 * 2 + 3) * 64
    half = (columns * size // 256 * 2 + 3) * 64 if sw == 2 else 0
    entries = band_rows * held + p.kh
    entry = np.arange(p.oh * held + p.kh)
    rows = (entry // held * step + entry % held) * (sh if p.kh == 1 else 1)
    rows = row_map(p)[np.minimum(rows, p.ih_padded - 1)]
    before, after = (_elements(columns, apart) for columns in column_maps(p, p.pr))
    even = -(-p.kw // sw)
    head = Head(
        oc=oc, iw=iw, oh=p.oh, ow=ow, kh=p.kh, kw=p.kw, sw=sw, pl=pl, held=held, bands=-(-p.oh // band_rows), band_rows=band_rows,
        cols=cols, entries=entries, fills=int(rows.min() < 0), bias=int(_finish(p).bias), pitch=pitch, half=half,
        rank=rank, many=rank * (1 + (p.kw > even)), words=words(p.kh, p.kw), nleft=pl, past=0, fill=0, sn=0, sc=0, sy=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    parts = np.zeros((2 * costs.MOST_RANK, 2), np.int64)
    apart_by = tile.rows * (2 * half if sw == 2 else pitch)
    found = [(taps, i * apart_by + at) for i in range(rank) for taps, at in ((even, 0), (p.kw - even, half)) if taps]
    parts[: len(found)] = found
    tables = np.concatenate([parts.reshape(-1), rows, before, after])
    scratch = 8 * (entries + p.kh) + 192 + rank * size * (p.kh + p.kw) + 8 * (iw + across) + rank * tile.rows * (pitch + 2 * half) + 128
    return head, tables, -(-scratch // 64) * 64


def _elements(columns: np.ndarray, apart: int) -> np.ndarray:
    """A map of columns as one of their interleaved channels."""
    columns = columns[:, None]
    return np.where(columns < 0, -1, columns * apart + np.arange(apart)).reshape(-1)


def _in_place(array: np.ndarray, name: str, apart: int) -> bool:
    """Whether rows are read or written where they are."""
    if apart == 1:
        return is_native(array, name)
    size = DTYPES[name].itemsize
    return array.dtype == DTYPES[name] and array.strides[1] == size and array.strides[3] == size * apart
