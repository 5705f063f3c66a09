"""direct: few channels; a tile of rows x vectors of one output plane, each loaded vector used by every row that needs it.

Wins where there are too few channels to put into lanes, and few results of each: image filters, depthwise layers of planes.  Rows are
read in place through a table of addresses, so top and bottom borders cost nothing; tiles at the left and right edge read from a small
padded copy.  Columns of a stride are copied phase by phase, so that those under one tap lie side by side (few taps of stride 2 excepted).
Rows so far apart that a tile's would evict each other from the first-level cache (a power of two, mostly) are all read from such a copy.
Order of accumulation per output: see :func:`fastconv.cpu.tile.direct_tile`; it depends on the target, the strides, the dilation, and
whether columns are copied by phase.
"""

from __future__ import annotations

import itertools
from collections import namedtuple
from math import gcd
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, border_indices, not_computed, parse_epilogue, parse_scaling
from . import carried
from .border import LINE, Span, border_row, column_maps, pixels_of, row_map, too_large, whole_lines
from .finish import ADDENDS_AT, BESIDE_AT, FINISH_AT, gathering, scales, set_finish
from .memory import call_kernel, copy, every, fill_row, integers, peek, poke, split, unrolled_by_hand
from .runs import Run, runs_of
from .simd import KINDS
from .stage import is_native, staged_launch
from .target import Target
from .threads import Job, Region
from .tile import TAPS_AT, Shape, Tile, direct_tile_kernel, fitting, fixed, tap_order
from .values import finish_values, kernel_kind

CASES = ("ih512_k3_f32", "ih512_k3_s2_f32", "ih64_k15_f64", "ih64_k3_s3_f32", "ih64_k3_u8", "n2_g8_ic8ih32_oc8k3_p1_f32",
         "ic3ih64_oc8k5_s2_p2_f32", "ih64_k3_d2_p2_reflect_f32", "ih64_k31_f32", "ih64_k3_i64")  # fmt: skip

TILES = (
    Tile(32, rows=8, vecs=2, tall=8),  # 16 accumulators, 8 taps, 2 pixels of 32 registers
    Tile(32, rows=4, vecs=4, tall=8),  # 16 accumulators, 8 taps, 4 pixels: for tall kernels
    Tile(32, rows=2, vecs=4, tall=8, carries=True),  # 8 accumulators, 9 taps, 4 vectors carried over, 6 of pixels
    Tile(32, rows=8, vecs=1, tall=8),  # for planes narrower than two vectors
    Tile(16, rows=4, vecs=2, tall=4),  # 8 accumulators, 4 taps, 2 pixels of 16 registers
    Tile(16, rows=4, vecs=1, tall=4),
)

# (kh, kw) of kernels that at stride 1 get a compiled kernel of their own, 0 for any width; all others share one of all heights.
# A width is for one channel, with all taps in registers and side by side.
FIXED = ((3, 3), (3, 0), (5, 0), (7, 0))
# (kh, kw) of those at stride 2, for one channel: 512x512 k3 37 us instead of 48, k5 57 instead of 81, and 4096x4096 k7 9.0 ms instead of
# 13.6 of columns by phase (two 512-bit FMA units, 2026-11).
HALVED, _HALVED_REGISTERS = ((3, 3), (5, 5), (7, 7)), 32

_BAND = 64  # rows of output that one unit of work computes at most
_STRIP_BYTES = 4 << 20  # of the strips of a band, where they leave more than one tile's rows
_WAYS, _PERIOD = 8, 4096  # of first-level caches: lines of a set, bytes from a set's line to its next

# The integers that the kernel receives: those of the tile, these (first its address, rows and elements of a row), the spans of both
# strips, the runs, the row map, the order of the taps, the two column maps, the places of kx, the places and columns of pixels that are
# copied by phase one by one.
Head = namedtuple(
    "Head",
    "tile rows width oc ocg iw oh ow k phases band_rows bands finish bias scaled taps entries runs phase_rows nleft "
    "left_wide right_wide fills sw part ahead whole edges ring past sn sc sy wo dn dc dy",
)
_HEAD_AT, _RUN_BYTES = 8 * len(Shape._fields), 8 * len(Run._fields)
_TABLES_AT, _SPAN_BYTES = _HEAD_AT + 8 * len(Head._fields), 8 * len(Span._fields)


def _factory(kind: str, lanes: int, by_phase: int) -> Any:
    """The band kernel of all tiles: units ``u0 .. u1 - 1``, each an (image, group, phase, band of rows, output channel of the group).

    Output row ``p + k*j`` of phase p reads rows ``(p*q + (j*q + ky)*k)*g`` of the padded image with ``g = gcd(sh, dh), q = sh/g,
    k = dh/g``: within a phase every stride and dilation is a dense kernel of row stride q over a table of addresses, which holds
    ``min(q, kh)`` rows for each output row, the rows between two outputs being left out.
    Tiles that reach beyond the left or right edge read from two padded strips, each row copied just before the first tile that needs
    it into a ring of the rows that a tile reads, or of all of the band where several channels of results use them; of columns by phase
    the left strip holds all.
    Workspace: three row tables (image, left strip, right strip), first addend, packed taps, fill row, strips, tile.
    """
    size = KINDS[kind][2]
    vector = lanes * size

    def direct(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + _HEAD_AT, Head)
        rows, width, icg, entries, held = e.rows, e.width, s.icg, e.entries, s.step // 8
        left_span = at.extents + _TABLES_AT
        right_span = left_span + _SPAN_BYTES
        runs = right_span + _SPAN_BYTES
        row_map = runs + e.runs * _RUN_BYTES
        order = row_map + e.phases * e.phase_rows * 8
        maps = order + (e.taps + e.nleft) * 8
        edges = at.extents + s.places + s.kw * 8
        fill = peek(kind, at.values)
        finish = e.finish * (at.values + size)
        table = at.workspace + index * at.scratch
        start = table + 3 * icg * entries * 8
        packed = start + TAPS_AT
        fill_at = packed + e.taps * size
        left_pitch, right_pitch = e.left_wide * size, e.right_wide * size
        # so that the image's pixels are stored as whole lines: one that two lines share takes three times as long
        inside = e.ahead if by_phase else integers(left_span, Span).before
        left_strip = (fill_at + (e.iw + lanes) * size + 63) // 64 * 64 + (-inside * size) % 64
        right_strip = (left_strip + icg * e.ring * left_pitch + 63) // 64 * 64
        tile_at = right_strip + icg * e.ring * right_pitch
        left_table = table + icg * entries * 8
        right_table = left_table + icg * entries * 8
        if e.fills:
            fill_row(kind, lanes, fill_at, e.iw, fill)
        if left_pitch + right_pitch:
            for c in range(icg):
                place = 0
                for r in range(entries):
                    poke("i64", left_table + (c * entries + r) * 8, left_strip + (c * e.ring + place) * left_pitch)
                    poke("i64", right_table + (c * entries + r) * 8, right_strip + (c * e.ring + place) * right_pitch)
                    place = place + 1 if place + 1 < e.ring else 0
        rows_of, staged, ended = -1, 0, 0
        for u in range(u0, u1):
            source, o = u // e.ocg, u % e.ocg
            rest, band = source // e.bands, source % e.bands
            rest, phase = rest // e.phases, rest % e.phases
            n, group = rest // (e.oc // e.ocg), rest % (e.oc // e.ocg)
            o += group * e.ocg
            of_phase = (e.oh - phase + e.k - 1) // e.k
            j0 = band * e.band_rows
            j1 = min(j0 + e.band_rows, of_phase)
            if j0 >= j1:
                continue
            poke(kind, start, peek(kind, at.bias + e.scaled * ADDENDS_AT + o * size if e.bias else at.values + 4 * size))
            beside = 0
            if e.scaled:
                finish = start + FINISH_AT
                set_finish(kind, start, at.values, at.bias, e.oc, o)
                residual = peek("i64", at.bias)
                beside = residual - at.dst if residual else 0
            for tap in range(e.taps):
                poke(kind, packed + tap * size, peek(kind, at.wei + o * e.wo + peek("i64", order + tap * 8)))
            if rows_of != source:
                rows_of, staged, ended = source, 0, 0
            plane = at.src + n * e.sn + group * icg * e.sc
            used = (j1 - j0 - 1) * held + s.kh
            to, pitch = at.dst + n * e.dn + o * e.dc + phase * e.dy, e.k * e.dy
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = max(min(j, j1 - rows), j0)
                for r in range(staged, (jt - j0 + rows - 1) * held + s.kh):
                    row = peek("i64", row_map + (phase * e.phase_rows + j0 * held + r) * 8) if r < used else -1
                    for c in range(icg):
                        row_at = fill_at if row < 0 else plane + c * e.sc + row * e.sy
                        poke("i64", table + (c * entries + r) * 8, row_at)
                        left = peek("i64", left_table + (c * entries + r) * 8)
                        if row < 0:
                            fill_row(kind, lanes, left, e.left_wide, fill)
                        elif by_phase:
                            # vectors of the image, the last one overlapping, then the border's pixels
                            for piece in range(2):
                                x, count = (e.ahead + e.whole - lanes, lanes) if piece else (e.ahead, e.whole // lanes * lanes)
                                if e.whole < lanes or (piece and e.whole == count):
                                    continue
                                pixels = row_at + (x * e.sw - e.nleft) * size
                                if e.sw == 2:
                                    split(kind, lanes, left + x * size, left + (e.part + x) * size, pixels, count)
                                else:
                                    for part in range(e.sw):
                                        every(kind, lanes, left + (part * e.part + x) * size, pixels + part * size, e.sw * size, count)
                            pixels_of(kind, left, row_at, edges, e.edges, fill)
                        elif left_pitch:
                            border_row(kind, lanes, left, row_at, left_span, maps, fill)
                    staged = r + 1
                whole = jt + rows <= j1 and width <= e.ow
                for r in range(e.runs):
                    run = integers(runs + r * _RUN_BYTES, Run)
                    if run.table == right_table - table:
                        # not before the row's other pixels are read: prefetchers follow rows forward
                        for entry in range(ended, staged):
                            for c in range(icg):
                                row_at = peek("i64", table + (c * entries + entry) * 8)
                                right = peek("i64", right_table + (c * entries + entry) * 8)
                                if row_at == fill_at:
                                    fill_row(kind, lanes, right, e.right_wide, fill)
                                else:
                                    border_row(kind, lanes, right, row_at, right_span, maps, fill)
                        ended = staged
                    line = to + jt * pitch + run.first
                    past = e.past and whole and run.tiles > 2 and line % size == 0
                    skew = -line % vector // size if past else 0
                    for part in range(3 if past else 1 if whole else run.tiles):
                        x, tiles, low, high = 0, run.tiles, 0, width
                        if past and part == 1:
                            x, tiles = skew, run.tiles - 1
                        elif past:
                            # the columns that aligned tiles do not reach: a line stored both ways would be fetched and written twice
                            x, tiles, low, high = part // 2 * (run.tiles - 1) * width, 1, part // 2 * skew, width if part else skew
                        elif not whole:
                            x, tiles, high = part * width, 1, min(width, e.ow)
                        aside = not whole or (past and part != 1)
                        if e.scaled:
                            poke("i64", start + BESIDE_AT, rows * width * size if aside and beside else beside)
                        if aside and beside:
                            for row in range(min(rows, j1 - jt)):
                                copy(kind, lanes, tile_at + ((rows + row) * width + low) * size,
                                     line + beside + (x + low) * size + row * pitch, high - low)  # fmt: skip
                        call_kernel(e.tile, (at.extents, start, finish, table + run.table + (jt - j0) * s.step, run.xoff + x * s.column,
                                             tile_at if aside else line + x * size, width * size if aside else pitch, tiles,
                                             past and not aside))  # fmt: skip
                        if aside:
                            for row in range(min(rows, j1 - jt)):
                                copy(kind, lanes, line + (x + low) * size + row * pitch, tile_at + (row * width + low) * size, high - low)

    return direct


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real, of a type with vector arithmetic (or float16, through float32)."""
    reason = not_computed(p, "fwd", scalings=True, bfloat=True)
    if reason is not None:
        return reason
    if kernel_kind(p.acc) is None:
        return f"no vector arithmetic for accumulator {p.acc}"
    if scales(p) and (p.dst != p.acc or p.acc not in ("f32", "f64")):
        return f"scales sums of f32 and f64 alone, and stores them as they are, not {p.acc} as {p.dst}"
    if parse_epilogue(p.epilogue).activation not in (None, "relu", "relu6", "leaky_relu"):
        return f"does not fuse {p.epilogue}"
    if parse_epilogue(p.epilogue).activation is not None and p.acc[0] == "u":
        return "activations of unsigned results are left to the reference"
    size = DTYPES[p.acc].itemsize
    tile, lanes = _tile(p, t), t.lanes(size)
    return too_large(p, _scratch(p, tile, lanes, size, tile.rows, _widest(p, tile, lanes)))


def cost(p: Problem, t: Target) -> float:
    """FMAs at the share of the peak that planes of this width reach, and what columns of a stride take longer."""
    return costs.direct_seconds(p, t.lanes(DTYPES[p.acc].itemsize)) + costs.staged_seconds(p)


def most_kernels(t: Target) -> int:
    tiles, carries, halved = fitting(TILES, t), sum(2 for _, kw in FIXED if kw), len(HALVED) * (t.registers >= _HALVED_REGISTERS)
    return 2 + sum(carries if tile.carries else 3 * (2 + (tile.vecs > 1)) + len(FIXED) + halved for tile in tiles)


def _steps(p: Problem) -> tuple[int, int, int, int]:
    """Strides and dilations that matter: of one row or column of results no stride does, of one tap no dilation."""
    sh, sw = p.strides
    return sh, sw, (p.dh if p.kh > 1 else sh), (p.dw if p.kw > 1 else 1)


def _stride_classes(p: Problem, lanes: int) -> tuple[int, int]:
    """``(v, h)`` of a tile: the stride of rows within a phase, and that of columns; 0 where it is neither 1 nor 2."""
    sh, sw, dh, _ = _steps(p)
    v = sh // gcd(sh, dh)
    return v if v <= 2 else 0, sw if _by_phase(p, lanes) == 1 else 0


def _by_phase(p: Problem, lanes: int) -> int:
    """The stride of columns that are copied by phase, or 1.

    Picked out of vectors as they are loaded, those of stride 2 take two loads and a shuffle for each tap; copied, one load.
    """
    return _steps(p)[1] if costs.columns_by_phase(p, lanes) else 1


def _apart(p: Problem, lanes: int) -> int:
    """Pixels between two of neighbouring results of a row, as a tile reads them."""
    return _steps(p)[1] // _by_phase(p, lanes)


def _tile(p: Problem, t: Target) -> Tile:
    """The carrying tile where it can be; the flat tile for tall kernels on wide planes, the narrow one for one vector, else the tall one.

    Flat: 7 rows of taps at 218 against 173 GFLOP/s of the tall tile, whose 14 row addresses do not fit the integer registers; 3 rows at
    88 against 111 (512x512, Zen 5, 2026-11); 5 rows as fast in the cache and, since the tall tile's 12 rows crowd it, 520 us against 600
    at 1024x1024 (Zen 4).  On narrower planes it computes more columns twice, and more of its tiles read from strips: 96x96 k7 14 us
    against 11.5, 256x256 k11 128 against 114 (two 512-bit FMA units).  Tiles of one register count share ``tall``: no choice changes a sum.
    """
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    most = -(-p.kh // -(-p.kh // 8))  # rows of taps of a group; of 6 the tall tile's addresses nearly fit
    columns = [-(-p.ow // (vecs * lanes)) * vecs for vecs in (2, 4)]
    narrow = p.strides == (1, 1) and (p.ow < 20 * lanes if most <= 6 else columns[1] >= costs.FLAT_COLUMNS * columns[0])
    flat = p.kh >= 5 and p.ow >= 4 * lanes and not narrow and not (p.strides == (2, 2) and p.ic == p.g and (p.kh, p.kw) in HALVED)
    rows, vecs = (8, 1) if p.ow <= lanes and _by_phase(p, lanes) == 1 else (4, 4) if flat else (8, 2)
    able = fitting(TILES, t)
    # of tables with carrying tiles alone, as tests make them, these are taken for anything
    able = [tile for tile in able if tile.carries and _lead(p, tile, lanes) is not None] or [
        tile for tile in able if not tile.carries] or able  # fmt: skip
    return min(able, key=lambda tile: (abs(tile.vecs - vecs), abs(tile.rows - rows)))


def _fixed(p: Problem, tile: Tile, lanes: int) -> tuple[int, int]:
    """The row of FIXED or HALVED that this problem's kernel is compiled for, or zeros."""
    side_by_side = _steps(p)[3] == 1 and p.ic == p.g and DTYPES[p.acc].itemsize >= 4
    if _stride_classes(p, lanes) == (2, 2):
        return (p.kh, p.kw) if side_by_side and (p.kh, p.kw) in HALVED and tile.registers >= _HALVED_REGISTERS else (0, 0)
    return fixed(FIXED, p, tile, side_by_side) if _stride_classes(p, lanes) == (1, 1) else (0, 0)


def _lead(p: Problem, tile: Tile, lanes: int) -> int | None:
    """Of a carrying tile and a kernel that it is for, `carried.lead_of`; else None."""
    able = tile.carries and p.dh == 1 and p.strides == (1, 1) and _fixed(p, tile, lanes)[1]
    return carried.lead_of(p, tile.rows, tile.vecs, lanes) if able else None


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose kernel packs the few taps itself, at every run."""
    kind = kernel_kind(p.acc)
    assert kind is not None
    size = KINDS[kind][2]
    tile, lanes = _tile(p, t), t.lanes(size)
    lead = _lead(p, tile, lanes)
    if lead is not None:
        return _build_carried(p, t, tile, lanes, kind, lead, threads)
    v, h = _stride_classes(p, lanes)
    kh, kw = _fixed(p, tile, lanes)
    tall = tile.tall if h != 2 or kw else tile.tall // 2
    code = direct_tile_kernel("direct", (kind, lanes, tile.rows, tile.vecs, v, h, tall, kh, kw, int(t.fma)))
    region = Region(f"direct_bands_{kind}_{lanes}" + "_by_phase" * (h == 0), _factory, (kind, lanes, int(h == 0)), kind)
    in_place = _layout(p, tile, lanes, size, t.l2 // 2 if not h else 0)
    # rows that are split are each read once
    crowds = h and not (kw and h == 2) and p.kh >= costs.COPIED_ROWS and p.ic == p.g
    copied = _layout(p, tile, lanes, size, t.l2 // 2) if crowds else in_place
    if copied[-1] > costs.MOST_WORKSPACE:
        copied = in_place

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return staged_launch(p, plan.threads, build, t, src, packed, dst, fill)
        if scales(p):
            return gathering(p, lambda dst: launch_for(plan, src, packed, dst, fill), dst)
        return launch_for(plan, src, packed, dst, fill)

    def launch_for(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, _), (wo, *strides), (dn, dc, dy, _) = src.strides, packed.strides, dst.strides
        order = tap_order(p, tall, v=1 if kw else v) @ strides
        shape, head, tables, scratch = copied if _crowded(p, tile, lanes * size, sy, t.l1) else in_place
        units = p.n * p.oc * head.phases * head.bands
        e = head._replace(tile=code.address, past=_past(p, t, lanes * size, dy), sn=sn, sc=sc, sy=sy, wo=wo, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array((*shape, *e), np.int64), tables[0], order, tables[1]])
        return region.launcher(extents, finish_values(p, fill), scratch, units, plan.threads,
                               costs.direct_seconds(p, lanes), src, packed, dst, turns=True)  # fmt: skip

    return Plan(problem=p, algorithm="direct", kernel=code.name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=max(in_place[-1], copied[-1]) * threads, threads=threads)  # fmt: skip


def _past(p: Problem, t: Target, vector: int, pitch: int) -> int:
    """Whether results go past the caches; other threads see them: the pool's atomic operations, or the interpreter's, order that."""
    return int(costs.bytes_moved(p) > costs.PAST_SHARE * t.l3 and pitch % vector == 0 and not scales(p))


def _build_carried(p: Problem, t: Target, tile: Tile, lanes: int, kind: str, lead: int, threads: int) -> Plan:
    size = KINDS[kind][2]
    spec = (kind, lanes, tile.rows, tile.vecs, p.kh, p.kw, lead, int(t.fma))
    name = f"direct_{kind}_{tile.rows}x{tile.vecs}_{lanes}_kh{p.kh}kw{p.kw}_lead{lead}"
    region = Region(name, carried.factory, spec, kind)
    head, tables, scratch = carried.layout(p, tile.rows, tile.vecs, lanes, size, _band_rows(p, lanes))

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return staged_launch(p, plan.threads, build, t, src, packed, dst, fill)
        if scales(p):
            return gathering(p, lambda dst: launch_for(plan, src, packed, dst, fill), dst)
        return launch_for(plan, src, packed, dst, fill)

    def launch_for(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, _), (wo, *strides), (dn, dc, dy, _) = src.strides, packed.strides, dst.strides
        even = int(carried.stores_lines(p, t, tile.vecs * lanes, dy, lanes * size))
        e = head._replace(even=even, past=_past(p, t, lanes * size, dy), sn=sn, sc=sc, sy=sy, wo=wo, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array(e, np.int64), tables, tap_order(p, tile.tall) @ strides])
        return region.launcher(extents, finish_values(p, fill), scratch, p.n * p.oc * head.bands, plan.threads,
                               costs.direct_seconds(p, lanes), src, packed, dst, turns=True)  # fmt: skip

    return Plan(problem=p, algorithm="direct", kernel=name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads)  # fmt: skip


def _band_rows(p: Problem, lanes: int) -> int:
    """Rows of output that a unit of work has at most: bands of fewer cost more than evener shares gain, 5 of 100 at 512x512."""
    return min(_BAND, int(costs.UNIT_SECONDS / (costs.direct_seconds(p, lanes) / (max(p.n, 1) * p.oc * p.oh))))


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    return wei if wei.dtype == DTYPES[p.acc] else wei.astype(DTYPES[p.acc])


def _reach(p: Problem, tile: Tile, lanes: int) -> int:
    """Pixels of a row that a tile reads, or of each phase of its columns; at stride 2 pairs of them, but the last of `HALVED` alone."""
    apart, alone = _apart(p, lanes), _stride_classes(p, lanes) == (2, 2) and _fixed(p, tile, lanes)[1] > 0
    return (lanes * tile.vecs - 1) * apart + (p.kw - 1) * _steps(p)[3] // _by_phase(p, lanes) + apart - alone


def _widest(p: Problem, tile: Tile, lanes: int) -> int:
    """Pixels of both strips of a row, at most."""
    reach = _reach(p, tile, lanes)
    if _by_phase(p, lanes) > 1:
        return _whole(p, tile, lanes, DTYPES[p.acc].itemsize)
    return min(2 * (p.ow * _apart(p, lanes) + reach), p.pl + p.pr + 4 * reach) + 2 * LINE // DTYPES[p.acc].itemsize


def _part(p: Problem, tile: Tile, lanes: int) -> int:
    """Pixels from one phase of the columns of a row to the next."""
    return whole_lines(max(p.ow - lanes * tile.vecs, 0) * _apart(p, lanes) + _reach(p, tile, lanes), DTYPES[p.acc].itemsize)


def _entries(p: Problem, tile: Tile, band_rows: int) -> int:
    """Rows of the table of one band and channel."""
    sh, _, dh, _ = _steps(p)
    return (band_rows + tile.rows) * min(sh // gcd(sh, dh), p.kh) + p.kh


def _ring(p: Problem, tile: Tile, band_rows: int) -> int:
    """Rows of the strips: those that one tile reads, or of results of several channels all of the band."""
    sh, _, dh, _ = _steps(p)
    held = min(sh // gcd(sh, dh), p.kh)
    return _entries(p, tile, band_rows) if p.oc > p.g else (tile.rows - 1) * held + p.kh


def _scratch(p: Problem, tile: Tile, lanes: int, size: int, band_rows: int, wide: int) -> int:
    """Bytes of workspace of one thread for bands of so many rows, with strips of ``wide`` pixels together."""
    icg, entries = p.ic // p.g, _entries(p, tile, band_rows)
    aside = tile.rows * lanes * tile.vecs * (1 + parse_scaling(p.epilogue).residual)
    pixels = p.taps + p.iw + lanes + icg * _ring(p, tile, band_rows) * wide + aside
    return -(-(8 * 3 * icg * entries + TAPS_AT + size * pixels + 3 * LINE) // 64) * 64


def _crowded(p: Problem, tile: Tile, vector: int, pitch: int, l1: int) -> bool:
    """Whether the rows that a tile reads, ``pitch`` bytes apart, compete for more lines of a cache's sets than there are.

    A cache of more ways holds those that a group of rows of taps reads at a time: 1024x1024 k9 takes 1400 us in place and 1770 from a
    copy, k11 2060 and 2260 (one core, 12 ways, 512-bit vectors, 2026-11).
    """
    rows = np.arange((tile.rows - 1) * min(p.sh, p.kh) + p.kh) * (pitch * _steps(p)[2])
    reach, at_once = tile.vecs * vector * _steps(p)[1] + LINE, (tile.rows - 1) * min(p.sh, p.kh) + min(p.kh, tile.tall)
    crowds = np.count_nonzero((rows + reach) % _PERIOD < 2 * reach) > _WAYS
    return bool(crowds and (l1 <= _WAYS * _PERIOD or at_once > l1 // _PERIOD))


def _layout(p: Problem, tile: Tile, lanes: int, size: int, copied: int = 0) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides; its tables before and behind the taps; bytes of workspace of one thread.

    ``copied``: where rows are read from a copy, the bytes that a band's should take.  Columns of a stride always are.
    """
    (sh, _, dh, dw), sw, apart = _steps(p), _by_phase(p, lanes), _apart(p, lanes)
    g = gcd(sh, dh)
    q, k = sh // g, dh // g
    held, phases = min(q, p.kh), min(k, p.oh)
    of_phase = -(-p.oh // k)
    part = _part(p, tile, lanes)
    wide = _whole(p, tile, lanes, size) if copied else _widest(p, tile, lanes)
    strip_rows = (copied or _STRIP_BYTES) // (size * p.ic // p.g * wide)
    strip_rows = _BAND if p.oc == p.g else strip_rows if sw == 1 else (strip_rows - p.kh) // held
    band = max(min(_band_rows(p, lanes), strip_rows) // tile.rows, 1) * tile.rows
    band_rows = min(band, -(-of_phase // tile.rows) * tile.rows)
    icg = p.ic // p.g
    entries, ring = _entries(p, tile, band_rows), _ring(p, tile, band_rows)
    runs, left, right = runs_of(p, apart, lanes * tile.vecs, _reach(p, tile, lanes), icg * entries * 8, size, sw * part if copied else 0)
    # where each phase has a column of the image: from, and how many; where not, or for few, columns are taken one by one
    ahead = -(-p.pl // sw)
    whole = max(min((p.iw + p.pl) // sw, part) - ahead, 0)
    column = np.arange((p.ow - 1) * sw + (p.kw - 1) * dw + 1 if sw > 1 else 0)
    column = column[(column < ahead * sw) | (column >= (ahead + whole) * sw) | (whole < lanes)]
    edges = np.stack([(column % sw * part + column // sw) * size, border_indices(-p.pl, p.iw_padded, 1, p.iw, p.border)[column]], 1)
    left_wide, right_wide = (strip.before + strip.inside + strip.after for strip in (left, right))
    left_wide, right_wide = (wide, 0) if copied else (whole_lines(left_wide, size), whole_lines(right_wide, size))
    before, after = column_maps(p, max(strip.after_at + strip.after for strip in (left, right)))
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    # image rows in the order of the table, phase after phase
    entry = np.arange((of_phase - 1) * held + p.kh)
    rows = (np.arange(phases)[:, None] * q + (entry // held * q + entry % held) * k) * g
    rows = row_map(p)[np.minimum(rows.reshape(-1), p.ih_padded - 1)]
    tap = np.arange(p.kw) * dw
    places = (tap % sw * part + tap // sw) * size
    head = Head(
        tile=0, rows=tile.rows, width=lanes * tile.vecs, oc=p.oc, ocg=p.oc // p.g, iw=p.iw, oh=p.oh, ow=p.ow, k=k, phases=phases,
        band_rows=band_rows,
        bands=-(-of_phase // band_rows), finish=int(activation is not None), bias=int(has_bias), scaled=int(scales(p)), taps=p.taps,
        entries=entries, runs=len(runs), phase_rows=len(rows) // phases, nleft=p.pl, left_wide=left_wide, right_wide=right_wide,
        fills=int(rows.min() < 0), sw=sw, part=part, ahead=ahead, whole=whole, edges=len(edges), ring=ring,
        past=0, sn=0, sc=0, sy=0, wo=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    tables = (
        np.concatenate([np.array([*left, *right, *itertools.chain(*runs)]), rows]),
        np.concatenate([before, after, places, edges.reshape(-1)]),
    )
    shape = Shape(
        icg=icg, pitch=entries * 8, step=held * 8, kh=p.kh, kw=p.kw, tap=dw * size, column=apart * size,
        places=_TABLES_AT + 8 * (len(tables[0]) + p.taps + len(before) + len(after)),
    )  # fmt: skip
    return shape, head, tables, _scratch(p, tile, lanes, size, band_rows, left_wide + right_wide)


def _whole(p: Problem, tile: Tile, lanes: int, size: int) -> int:
    """Pixels from one copied row to the next: an odd number of lines, and no small part of a period."""
    line = LINE // size
    lines = -(-_by_phase(p, lanes) * _part(p, tile, lanes) // line)
    spread = _PERIOD // LINE // 3
    while not (lines % 2 and spread // 2 < lines % (_PERIOD // LINE) < 2 * spread):
        lines += 1
    return lines * line
