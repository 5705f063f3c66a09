"""direct: few channels; a tile of rows x vectors of one output plane, each loaded vector used by every row that needs it.

Wins where there are too few channels to put into lanes: image filters, depthwise and first layers.  Rows are read in place through
a table of addresses, so top and bottom borders cost nothing; tiles at the left and right edge read from a small padded copy.
Order of accumulation per output: see :func:`fastconv.cpu.tile.direct_tile`; it depends on the stride class, dilation and target only.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, parse_epilogue
from .border import border_row, column_maps, row_map, too_far
from .simd import KINDS, copy, fill_row, integers, peek, poke
from .stage import is_native, staged_launch
from .target import Target
from .threads import Region
from .tile import direct_tile
from .values import finish_values, kernel_kind

CASES = ("ih512_k3_f32", "ih512_k3_s2_f32", "ih64_k15_f64", "ih64_k3_s3_f32", "ih64_k3_u8", "n2_g8_ic8ih32_oc8k3_p1_f32",
         "ic3ih64_oc8k5_s2_p2_f32", "ih64_k3_d2_p2_reflect_f32", "ih64_k31_f32", "ih64_k3_i64")  # fmt: skip


class Tile(NamedTuple):
    """``rows x vecs`` accumulators over groups of ``chunk`` rows of taps."""

    registers: int  # of the target, at least
    rows: int
    vecs: int
    chunk: int


TILES = (
    Tile(32, rows=8, vecs=2, chunk=8),  # 16 accumulators, 8 taps, 2 pixels of 32 registers
    Tile(32, rows=4, vecs=4, chunk=8),  # 16 accumulators, 8 taps, 4 pixels: for tall kernels
    Tile(32, rows=8, vecs=1, chunk=8),  # for planes narrower than two vectors
    Tile(32, rows=4, vecs=1, chunk=8),  # for gathered columns, which take long to compile
    Tile(16, rows=4, vecs=2, chunk=4),  # 8 accumulators, 4 taps, 2 pixels of 16 registers
    Tile(16, rows=4, vecs=1, chunk=4),
)

# Heights of kernels that at stride 1 get a compiled kernel of their own, of one group of taps; all others share one of all heights.
HEIGHTS = (3, 5, 7)

_BAND = 64  # rows of output that one unit of work computes, unless they take longer than this
_UNIT_SECONDS = 0.1

# The integers that the kernel receives: this head, the row map, the left and the right column map
_HEAD = (
    "oc", "ocg", "icg", "iw", "oh", "ow", "kh", "kw", "sw", "dw", "pl", "q", "held", "k", "phases", "g", "band_rows", "bands", "finish",
    "bias", "rows", "nleft", "left_end", "left_wide", "right_from", "right_wide", "sn", "sc", "sy", "wo", "dn", "dc", "dy",
)  # fmt: skip
_AT = {name: place for place, name in enumerate(_HEAD)}
_COUNT = len(_HEAD)


def _factory(kind: str, lanes: int, rows: int, vecs: int, v: int, h: int, chunk: int, only: int, fma: int) -> Any:
    """The band kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, output channel, phase, band of rows).

    Output row ``p + k*j`` of phase p reads rows ``(p*q + (j*q + ky)*k)*g`` of the padded image with ``g = gcd(sh, dh), q = sh/g,
    k = dh/g``: within a phase every stride and dilation is a dense kernel of row stride q over a table of addresses, which holds
    ``held = min(q, kh)`` rows for each output row, the rows between two outputs being left out.
    Tiles that reach beyond the left or right edge read from two padded strips, copied once for each band.
    Workspace: three row tables (image, left strip, right strip), first addend, packed taps, fill row, strips, tile.
    """
    spec = (kind, lanes, rows, vecs, v, h, chunk, only, fma)
    size = KINDS[kind][2]
    width = lanes * vecs

    def direct(job: Any, index: Any, u0: Any, u1: Any) -> None:
        src_at, wei_at, bias_at, values, dst_at, workspace, e, slot = integers(job, 8)
        (oc, ocg, icg, iw, oh, ow, kh, kw, sw, dw, pl, q, held, k, phases, g, band_rows, bands, finish, biased, map_rows, nleft,
         left_end, left_wide, right_from, right_wide, sn, sc, sy, wo, dn, dc, dy) = integers(e, 33)  # fmt: skip
        row_map = e + 264
        order = row_map + map_rows * 8
        maps = order + (icg * kh * kw + nleft) * 8
        fill = peek(kind, values)
        finish *= values + size
        entries = (band_rows + rows) * held + kh
        table = workspace + index * slot
        start = table + 3 * icg * entries * 8
        packed = start + 64
        fill_at = packed + icg * kh * kw * size
        left_strip = fill_at + (iw + lanes) * size
        right_strip = left_strip + icg * entries * (left_wide + lanes) * size
        tile_at = right_strip + icg * entries * (right_wide + lanes) * size
        left_table = table + icg * entries * 8
        right_table = left_table + icg * entries * 8
        fill_row(kind, fill_at, iw, fill)
        for r in range(icg * entries):
            poke("i64", left_table + r * 8, left_strip + r * (left_wide + lanes) * size)
            poke("i64", right_table + r * 8, right_strip + r * (right_wide + lanes) * size)
        packed_for = -1
        for u in range(u0, u1):
            rest, band = u // bands, u % bands
            rest, phase = rest // phases, rest % phases
            n, o = rest // oc, rest % oc
            of_phase = (oh - phase + k - 1) // k
            j0 = band * band_rows
            j1 = j0 + band_rows if j0 + band_rows < of_phase else of_phase
            if j0 >= j1:
                continue
            if o != packed_for:
                poke(kind, start, peek(kind, bias_at + o * size if biased else values + 4 * size))
                for tap in range(icg * kh * kw):
                    poke(kind, packed + tap * size, peek(kind, wei_at + o * wo + peek("i64", order + tap * 8)))
                packed_for = o
            plane = src_at + n * sn + (o // ocg) * icg * sc
            used = (j1 - j0 - 1) * held + kh
            needed = (rows - 1) * held + kh
            for r in range(used if used > needed else needed):
                row = peek("i64", row_map + (phase * q + ((j0 + r // held) * q + r % held) * k) * g * 8) if r < used else -1
                for c in range(icg):
                    at = c * entries + r
                    row_at = fill_at if row < 0 else plane + c * sc + row * sy
                    poke("i64", table + at * 8, row_at)
                    if row < 0:
                        fill_row(kind, left_strip + at * (left_wide + lanes) * size, left_wide, fill)
                        fill_row(kind, right_strip + at * (right_wide + lanes) * size, right_wide, fill)
                    else:
                        border_row(kind, lanes, left_strip + at * (left_wide + lanes) * size, row_at, -pl, left_wide, iw, maps, fill)
                        border_row(kind, lanes, right_strip + at * (right_wide + lanes) * size, row_at, right_from * sw - pl,
                                   right_wide, iw, maps, fill)  # fmt: skip
            to = dst_at + n * dn + o * dc + phase * dy
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = j1 - rows if j + rows > j1 else j
                if jt < j0:
                    jt = j0
                here = (jt - j0) * held * 8
                for x in range(0, ow, width):
                    xt = ow - width if x + width > ow else x
                    if xt < 0:
                        xt = 0
                    tile_table, column = table, xt * sw - pl
                    if xt < left_end:
                        tile_table, column = left_table, xt * sw
                    elif xt >= right_from:
                        tile_table, column = right_table, (xt - right_from) * sw
                    whole = jt + rows <= j1 and xt + width <= ow
                    tile_dst = to + jt * k * dy + xt * size if whole else tile_at
                    dst_pitch = k * dy if whole else width * size
                    direct_tile(spec, tile_table + here, entries * 8, held * 8, column * size, packed, icg, kh, kw, dw * size, sw * size,
                                start, tile_dst, dst_pitch, finish)  # fmt: skip
                    if not whole:
                        valid = width if xt + width <= ow else ow - xt
                        for r in range(rows if jt + rows <= j1 else j1 - jt):
                            copy(kind, lanes, to + (jt + r) * k * dy + xt * size, tile_at + r * width * size, valid)

    return direct


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real, of a type with vector arithmetic (or float16, through float32)."""
    if p.op != "fwd":
        return f"computes op fwd, not {p.op}"
    if p.masked:
        return "masked problems are composed by the dialect"
    if kernel_kind(p.acc) is None:
        return f"no vector arithmetic for accumulator {p.acc}"
    if parse_epilogue(p.epilogue)[1] not in (None, "relu", "relu6", "leaky_relu"):
        return f"does not fuse {p.epilogue}"
    if parse_epilogue(p.epilogue)[1] is not None and p.acc[0] == "u":
        return "activations of unsigned results are left to the reference"
    width = _tile(p, t).vecs * t.lanes(DTYPES[p.acc].itemsize)
    if p.sw > 2 and p.ow > 1 and width * p.sw > p.iw_padded + 4096:
        return "tiles of columns this far apart are wider than the padded image"
    return too_far(p)


def cost(p: Problem, t: Target) -> float:
    """FMAs at the share of the peak that planes of this width reach, times the passes over strided columns."""
    return costs.direct_seconds(p, t.lanes(DTYPES[p.acc].itemsize))


def most_kernels(t: Target) -> int:
    """How many kernels of one type can ever be compiled: tiles x stride classes, the heights of stride 1, the gathering tile."""
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    return sum(tile.registers == most for tile in TILES) * (3 * 2 + len(HEIGHTS)) + 3


def _tile(p: Problem, t: Target) -> Tile:
    """The flat tile for tall kernels on wide planes, the narrow one for planes of one vector, else the tall one.

    Flat: 7 rows of taps at 218 against 173 GFLOP/s of the tall tile, whose 14 row addresses do not fit the integer registers;
    3 rows at 88 against 111 (512x512, one core, Zen 5, 2026-11).  Tiles of one register count share ``chunk``, so the choice
    never changes a sum.
    """
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    fitting = [tile for tile in TILES if tile.registers == most]
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    rows, vecs = (8, 1) if p.ow <= lanes else (4, 4) if p.kh >= 6 and p.ow >= 4 * lanes else (8, 2)
    if _steps(p)[1] > 2:
        rows, vecs = 4, 1
    return min(fitting, key=lambda tile: (abs(tile.vecs - vecs), abs(tile.rows - rows)))


def _steps(p: Problem) -> tuple[int, int, int, int]:
    """Strides and dilations that matter: of one row or column of results no stride does, of one tap no dilation."""
    sh, sw = (p.sh if p.oh > 1 else 1), (p.sw if p.ow > 1 else 1)
    return sh, sw, (p.dh if p.kh > 1 else sh), (p.dw if p.kw > 1 else 1)


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose kernel packs the few taps itself, at every run."""
    kind = kernel_kind(p.acc)
    assert kind is not None
    size = KINDS[kind][2]
    tile, lanes = _tile(p, t), t.lanes(size)
    sh, sw, dh, _ = _steps(p)
    g = gcd(sh, dh)
    v, h = (sh // g if sh // g <= 2 else 0), (sw if sw <= 2 else 0)
    chunk = tile.chunk if h == 1 else tile.chunk // 2
    only = p.kh if (v, h) == (1, 1) and p.kh in HEIGHTS and p.kh <= chunk else 0
    spec = (kind, lanes, tile.rows, tile.vecs, v, h, chunk, only, int(t.fma))
    name = f"direct_{kind}_{tile.rows}x{tile.vecs}_{lanes}" + f"_kh{only}" * bool(only) + f"_s{v}{h}" * ((v, h) != (1, 1))
    region = Region(name, _factory, spec, kind)
    extents, slot = _extents(p, tile, lanes, size)
    units = p.n * p.oc * int(extents[_AT["phases"]] * extents[_AT["bands"]])

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return staged_launch(p, plan.threads, build, t, src, packed, dst, fill)
        wo, *strides = packed.strides
        e = extents.copy()
        e[_AT["sn"] : _COUNT] = *src.strides[:3], wo, *dst.strides[:3]
        order = _COUNT + p.ih_padded
        e[order : order + p.taps] = _tap_order(p, chunk) @ strides
        return region.launcher(e, finish_values(p, fill), slot, units, plan.threads, costs.direct_seconds(p, lanes))

    return Plan(problem=p, algorithm="direct", kernel=name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=slot * threads, threads=threads)  # fmt: skip


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    return wei if wei.dtype == DTYPES[p.acc] else wei.astype(DTYPES[p.acc])


def _tap_order(p: Problem, chunk: int) -> np.ndarray:
    """``(c, ky, kx)`` of each packed tap: channel, group of at most ``chunk`` rows (even, taller first), kx, ky."""
    rows, groups, first = [], -(-p.kh // chunk), 0
    while groups:
        end = first + -(-(p.kh - first) // groups)
        rows.append((first, end))
        first, groups = end, groups - 1
    one = [(ky, kx) for first, end in rows for kx in range(p.kw) for ky in range(first, end)]
    return np.array([(c, ky, kx) for c in range(p.ic // p.g) for ky, kx in one], np.int64)


def _extents(p: Problem, tile: Tile, lanes: int, size: int) -> tuple[np.ndarray, int]:
    """The kernel's integers but for the strides, and the bytes of workspace of one thread."""
    width = lanes * tile.vecs
    sh, sw, dh, dw = _steps(p)
    g = gcd(sh, dh)
    q, k = sh // g, dh // g
    held, phases = min(q, p.kh), min(k, p.oh)
    of_phase = -(-p.oh // k)
    # a unit of work is not interrupted: its rows must not take long
    row_seconds = costs.direct_seconds(p, lanes) / (max(p.n, 1) * p.oc * p.oh)
    band = max(min(_BAND, int(_UNIT_SECONDS / row_seconds)) // tile.rows, 1) * tile.rows
    band_rows = min(band, -(-of_phase // tile.rows) * tile.rows)
    icg, ocg = p.ic // p.g, p.oc // p.g
    has_bias, activation, _ = parse_epilogue(p.epilogue)
    # tiles start at multiples of the width, the last one further left so that it ends with the row
    span = (width - 1) * sw + (p.kw - 1) * dw + 1 + (sw == 2)
    last = max(p.ow - width, 0)
    left_end = left_wide = right_wide = 0
    if p.pl:
        reach = (p.pl - 1) // sw
        left_last = last if reach >= last else reach // width * width
        left_end, left_wide = left_last + 1, left_last * sw + span
    beyond = max((p.iw + p.pl - span) // sw + 1, left_end)  # the first tile start that reads behind the right edge
    right_from = min(-(-beyond // width) * width, last) if beyond <= last else p.ow
    if right_from <= last:
        right_wide = (last - right_from) * sw + span
    furthest = max(left_wide - p.pl, right_from * sw - p.pl + right_wide if right_wide else 0)
    before, after = column_maps(p, max(furthest - p.iw, 0))
    head = (p.oc, ocg, icg, p.iw, p.oh, p.ow, p.kh, p.kw, sw, dw, p.pl, q, held, k, phases, g, band_rows, -(-of_phase // band_rows),
            int(activation is not None), int(has_bias), p.ih_padded, p.pl, left_end, left_wide, right_from, right_wide)  # fmt: skip
    extents = np.concatenate([np.array(head, np.int64), np.zeros(_COUNT - len(head), np.int64), row_map(p), np.zeros(p.taps, np.int64),
                              before, after])  # fmt: skip
    entries = (band_rows + tile.rows) * held + p.kh
    slot = 8 * 3 * icg * entries + 64
    slot += size * (icg * p.kh * p.kw + p.iw + lanes + icg * entries * (left_wide + right_wide + 2 * lanes) + tile.rows * width)
    return extents, -(-slot // 64) * 64
