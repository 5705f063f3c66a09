"""masked: sums of valid pixels over sums of their weights, both in one sweep over the image.

A unit of work is a block of columns by a band of rows of one plane.  Each row is staged once, just before the tile that needs it, as two
rows of a ring that stays in the cache: its pixels with 0 where they are masked, and 1 or 0 for each; outside a constant border all are 0.
A tile's two sums are those of `direct_tile` over the two rows, divided as they are stored.  Where all pixels of a tile's windows are valid
the second sum is the same everywhere, and made once.
Order of accumulation of either sum: see :func:`fastconv.cpu.tile.direct_tile`.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed
from .border import column_maps, row_map, stage_row, too_large
from .convert import LOADED
from .masked_tile import quotient_tile, weigh_row
from .memory import copy, fill_row, integers, peek, poke, unrolled_by_hand
from .runs import Block, blocks_of
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .tile import TAPS_AT, Shape, direct_tile, fitting, row_groups
from .values import finish_values

CASES = ("ih64_k3_p1_f32_masked", "ih40iw200_k5_p2_reflect_f64_masked", "n2_g3_ic3ih30iw70_oc3kh9kw4_s2_p2_wrap_f32_masked",
         "ih40_k3_p1_edge_u8:f64:f64:f64_masked")  # fmt: skip


class Tile(NamedTuple):
    """``rows x vecs`` accumulators over groups of at most ``tall`` rows of taps."""

    registers: int  # of the target, at least
    rows: int
    vecs: int
    tall: int


TILES = (
    Tile(32, rows=8, vecs=2, tall=8),  # 16 accumulators, 8 taps, 2 pixels of 32 registers
    Tile(32, rows=4, vecs=4, tall=8),  # for tall kernels, as in direct
    Tile(16, rows=4, vecs=2, tall=4),
)

# (kh, kw) of kernels that at stride 1 get a compiled kernel of their own, for taps side by side
FIXED = ((3, 3),)

_BAND = 64  # rows of output that one unit of work computes at most

# The integers that the kernel receives: those of the tile, these, the blocks, the row map, the order of the taps, the two column maps.
Head = namedtuple(
    "Head", "oc ih iw blocks bands band_rows padded oh ow step held entries pitch chunks reach taps nleft sn sc sy wo dn dc dy"
)
# The last tile of a block ends with it.
_HEAD_AT, _BLOCK_BYTES = 8 * len(Shape._fields), 8 * len(Block._fields)
_BLOCKS_AT = _HEAD_AT + 8 * len(Head._fields)


def _factory(kind: str, lanes: int, rows: int, vecs: int, v: int, h: int, tall: int, kh: int, kw: int, fma: int, src: str) -> Any:
    """The band kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, channel, block of columns, band of rows).

    Output row j of a band reads rows ``j*step + ky`` of the padded image; row r lies in place ``r % held`` of the ring, its weights and
    flags (a byte for each vector: 1 where all its pixels are valid) in the same place of theirs.
    Workspace: tables of rows and of rows of weights, first addend, packed taps, rings of values and of weights, row of zeros, row of
    pixels, ring of flags, those of a tile's rows together; tiles of sums, of weights, of the weight of valid windows.
    """
    spec = (kind, lanes, rows, vecs, v, h, tall, kh, kw, fma)
    size = KINDS[kind][2]
    width = lanes * vecs
    tile_bytes = rows * width * size

    def masked(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + _HEAD_AT, Head)
        blocks = at.extents + _BLOCKS_AT
        row_map = blocks + e.blocks * _BLOCK_BYTES
        order = row_map + e.padded * 8
        maps = order + (e.taps + e.nleft) * 8
        given = int(at.bias != 0 and at.bias != at.values)
        outside = peek(kind, at.values + (0 if given else size))
        table = at.workspace + index * at.scratch
        start = table + (2 * e.entries + 7) // 8 * 64
        ring = start + (TAPS_AT + e.taps * size + 63) // 64 * 64
        ones = ring + e.held * e.pitch
        zeros = ones + e.held * e.pitch
        pixels = zeros + e.pitch
        sums = pixels + e.pitch
        flags = sums + 3 * tile_bytes
        clean = flags + e.held * e.chunks
        fill_row(kind, lanes, zeros, e.pitch // size, peek(kind, at.values))
        plane_of, known = -1, 0
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            plane, number = rest // e.blocks, rest % e.blocks
            n, o = plane // e.oc, plane % e.oc
            if plane_of != o:
                plane_of, known = o, 0
                poke(kind, start, peek(kind, at.values))
                for tap in range(e.taps):
                    poke(kind, start + TAPS_AT + tap * size, peek(kind, at.wei + o * e.wo + peek("i64", order + tap * 8)))
            block_at = blocks + number * _BLOCK_BYTES
            block = integers(block_at, Block)
            count = block.before + block.inside + block.after
            j0 = band * e.band_rows
            j1 = min(j0 + e.band_rows, e.oh)
            used = (j1 - j0 - 1) * e.step + s.kh
            staged = 0
            to = at.dst + n * e.dn + o * e.dc + block.to
            image, mask = at.src + n * e.sn + o * e.sc, at.bias + plane * e.ih * e.iw
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = max(min(j, j1 - rows), j0)
                needed = (jt - j0) * e.step + e.held
                for r in range(staged, needed):
                    row = peek("i64", row_map + (j0 * e.step + r) * 8) if r < used else -1
                    place = r % e.held
                    line, weights = ring + place * e.pitch, ones + place * e.pitch
                    if row >= 0:
                        stage_row(kind, lanes, src, pixels, image + row * e.sy, block_at, maps, outside)
                        if given:
                            stage_row(kind, lanes, "b8", weights, mask + row * e.iw, block_at, maps, peek(kind, at.values))
                        weigh_row(kind, lanes, line, weights, flags + place * e.chunks, pixels, given, count)
                    else:
                        line = weights = zeros
                        for chunk in range(0, e.chunks, 8):
                            poke("i64", flags + place * e.chunks + chunk, 0)
                    poke("i64", table + r * 8, line)
                    poke("i64", table + (e.entries + r) * 8, weights)
                staged = needed
                for chunk in range(0, e.chunks, 8):
                    every = -1
                    for place in range(e.held):
                        every &= peek("i64", flags + place * e.chunks + chunk)
                    poke("i64", clean + chunk, every)
                rows_at, whole = table + (jt - j0) * s.step, jt + rows <= j1 and width <= e.ow
                for tile in range(block.tiles):
                    x = tile * width if tile + 1 < block.tiles else block.last
                    first = x * s.column // size
                    valid = 1
                    for chunk in range(first // lanes, (first + e.reach - 1) // lanes + 1):
                        valid &= int(peek("i8", clean + chunk))
                    weights = sums + (1 + valid) * tile_bytes
                    for part in range(1 if valid & known else 2):
                        direct_tile(spec, at.extents, start, 0, rows_at + part * e.entries * 8, x * s.column,
                                    weights if part else sums, width * size, 1, 0)  # fmt: skip
                    known |= valid
                    line = to + jt * e.dy + x * size
                    made, pitch = (line, e.dy) if whole else (sums, width * size)
                    quotient_tile(kind, lanes, rows, vecs, sums, weights, made, pitch)
                    if not whole:
                        for row in range(min(rows, j1 - jt)):
                            copy(kind, lanes, line + row * e.dy, sums + row * width * size, min(width, e.ow))

    return masked


def reject(p: Problem, t: Target) -> str | None:
    """Masked, filters of one channel each, sums in float32 or float64."""
    reason = not_computed(p, "fwd", masked=True)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") or p.dst != p.acc or p.src not in LOADED or p.src in ("i64", "u64"):
        return f"sums f32 or f64 images, or integers of up to 32 bits, in f32 or f64, not {p.src} in {p.acc} for {p.dst}"
    if p.epilogue:
        return f"does not fuse {p.epilogue}"
    if not p.g == p.ic == p.oc or (p.src_layout == "nhwc" and p.ic > 1):
        return "for filters of one channel each, in planes"
    sh, sw, dh = _steps(p)
    if sh > 2 or sw > 2:
        return f"its tiles have strides 1 and 2, not {(sh, sw)}"
    if dh > 1:
        return f"its rows of taps are dense, not {dh} apart"
    return too_large(p, _layout(p, _tile(p, t), t.lanes(DTYPES[p.acc].itemsize))[3])


def cost(p: Problem, t: Target) -> float:
    return costs.masked_seconds(p, t.lanes(DTYPES[p.acc].itemsize))


def most_kernels(t: Target) -> int:
    return sum(4 + sum(kh <= tile.tall for kh, _ in FIXED) for tile in fitting(TILES, t))


def _steps(p: Problem) -> tuple[int, int, int]:
    """Row and column stride and row dilation that matter: of one row or column of results no stride does, of one tap no dilation."""
    return p.sh if p.oh > 1 else 1, p.sw if p.ow > 1 else 1, p.dh if p.kh > 1 else 1


def _tile(p: Problem, t: Target) -> Tile:
    """The flat tile for tall kernels on wide planes, else the tall one: see `direct`."""
    rows, vecs = (4, 4) if p.kh >= 6 and p.ow >= 4 * t.lanes(DTYPES[p.acc].itemsize) else (8, 2)
    able: list[Tile] = fitting(TILES, t)
    return min(able, key=lambda tile: (abs(tile.vecs - vecs), abs(tile.rows - rows)))


def _fixed(p: Problem, tile: Tile) -> tuple[int, int]:
    """The row of FIXED that this problem's kernel is compiled for, or zeros."""
    for kh, kw in FIXED:
        registers = (tile.rows + 1) * tile.vecs + kh * kw + 2
        if _steps(p)[:2] == (1, 1) and (kh, kw, 1) == (p.kh, p.kw, p.dw) and kh <= tile.tall and registers <= tile.registers:
            return kh, kw
    return 0, 0


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose kernel packs the few taps itself, at every run; images that it does not read in place are copied."""
    size = DTYPES[p.acc].itemsize
    tile, lanes = _tile(p, t), t.lanes(size)
    v, h, _ = _steps(p)
    kh, kw = _fixed(p, tile)
    tall = tile.tall if h == 1 else tile.tall // 2
    name = f"masked_{p.src}_{p.acc}_{tile.rows}x{tile.vecs}_{lanes}" + f"_kh{kh}kw{kw}" * bool(kh) + f"_s{v}{h}" * ((v, h) != (1, 1))
    region = Region(name, _factory, (p.acc, lanes, tile.rows, tile.vecs, v, h, tall, kh, kw, int(t.fma), p.src), "i8")
    shape, head, tables, scratch = _layout(p, tile, lanes)

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        read, written = _in_place(src, p.src), _in_place(dst, p.dst)
        src, dst = src if read else src.astype(DTYPES[p.src], "C"), dst if written else np.empty(dst.shape, DTYPES[p.dst])
        (sn, sc, sy, _), (wo, *strides), (dn, dc, dy, _) = src.strides, packed.strides, dst.strides
        order = _tap_order(p, tall, v) @ strides[1:]
        e = head._replace(sn=sn, sc=sc, sy=sy, wo=wo, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array((*shape, *e), np.int64), tables[0], order, tables[1]])
        values = finish_values(p, 0)
        values[1] = np.nan
        units = p.n * p.oc * head.blocks * head.bands
        launch = region.launcher(extents, values.view(np.int8), scratch, units, plan.threads,
                                 costs.masked_seconds(p, lanes), src, packed, dst)  # fmt: skip
        if read and written:
            return launch

        def launch_copied(src: np.ndarray, packed: np.ndarray, mask: np.ndarray | None, dst: np.ndarray) -> None:
            result = dst if written else np.empty(dst.shape, DTYPES[p.dst])
            launch(src if read else src.astype(DTYPES[p.src], "C"), packed, mask, result)
            if not written:
                np.copyto(dst, result)

        return launch_copied

    return Plan(problem=p, algorithm="masked", kernel=name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads)  # fmt: skip


def _in_place(array: np.ndarray, name: str) -> bool:
    """Whether the kernel reads or writes an array where it is."""
    return array.dtype == DTYPES[name] and (array.strides[-1] == array.itemsize or array.shape[-1] == 1)


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    return wei if wei.dtype == DTYPES[p.acc] else wei.astype(DTYPES[p.acc])


def _tap_order(p: Problem, tall: int, v: int) -> np.ndarray:
    """``(ky, kx)`` of each packed tap: group of rows, kx, ky."""
    return np.array([(ky, kx) for rows in row_groups(p.kh, tall, v) for kx in range(p.kw) for ky in rows], np.int64)


def _layout(p: Problem, tile: Tile, lanes: int) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides; its tables before and behind the taps; bytes of workspace of one thread."""
    size = DTYPES[p.acc].itemsize
    sh, sw, _ = _steps(p)
    width = lanes * tile.vecs
    held = (tile.rows - 1) * sh + p.kh
    most = max(costs.PANEL_RING_BYTES // (2 * held * size * sw * width), 1)  # tiles of a block
    blocks = -(-p.ow // (most * width))
    tiles = -(-p.ow // (blocks * width))
    span_of_taps = (p.kw - 1) * p.dw + 1
    wide = -(-((tiles * width - 1) * sw + span_of_taps + (sw == 2)) // lanes) * lanes
    made = [
        Block(*inside, first * size, -(-columns // width), max(columns - width, 0))
        for inside, first, columns in blocks_of(p.ow, tiles * width, width, sw, p.pl, span_of_taps, p.iw)
    ]
    row_seconds = costs.masked_seconds(p, lanes) / (max(p.n, 1) * p.g * len(made) * p.oh)
    band = max(min(_BAND, int(costs.UNIT_SECONDS / row_seconds)) // tile.rows, 1) * tile.rows
    band_rows = min(band, -(-p.oh // tile.rows) * tile.rows)
    entries = (band_rows - 1) * sh + p.kh
    pitch = wide * size + 64  # rows one line apart from a power of two
    chunks = -(-wide // lanes // 8) * 8
    shape = Shape(icg=1, pitch=2 * entries * 8, step=sh * 8, kh=p.kh, kw=p.kw, tap=p.dw * size, column=sw * size)
    head = Head(
        oc=p.oc, ih=p.ih, iw=p.iw, blocks=len(made), bands=-(-p.oh // band_rows), band_rows=band_rows, padded=p.ih_padded, oh=p.oh,
        ow=p.ow, step=sh, held=held, entries=entries, pitch=pitch, chunks=chunks, reach=(min(width, p.ow) - 1) * sw + span_of_taps,
        taps=p.kh * p.kw, nleft=p.pl, sn=0, sc=0, sy=0, wo=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    scratch = -(-2 * entries // 8) * 64 + -(-(TAPS_AT + head.taps * size) // 64) * 64 + 2 * (held + 1) * pitch
    scratch += 3 * tile.rows * width * size + (held + 1) * chunks
    tables = np.concatenate([np.array(made, np.int64).reshape(-1), row_map(p)]), np.concatenate(column_maps(p, p.pr))
    return shape, head, tables, -(-scratch // 64) * 64
