"""fast_fir: planes filtered by two rows of results at a time from three sums of half the taps instead of four.

Of the even rows ``h0`` and the odd rows ``h1`` of a kernel, and the rows x of the padded image, with all sums along the rows as ever:
``y[2i] = sum_j (h0 + h1)[j] x[2i+2j+1] + h0[j] (x[2i+2j] - x[2i+2j+1])`` and
``y[2i+1] = sum_j (h0 + h1)[j] x[2i+2j+1] + h1[j] (x[2i+2j+2] - x[2i+2j+1])``, which share their first sum: three quarters of the
multiplications, and an addition a pixel (J. Mou and P. Duhamel, Short-length FIR filters and their use in fast nonrecursive filtering,
1991, the filter of two outputs).  Wins where kernels are tall and planes are large.
A unit of work is a block of columns by a band of rows of one plane.  Its rows are put, with their borders, as the three that the sums
read into a ring that stays in the caches.  Order of accumulation per output: see `fast_fir_tile.fast_fir_tile`.

Transform class: with u half the accumulator's epsilon, each result is a sum of at most ``kw (kh + 1)`` products, which come to
three times max|x| sum|w| at most, of weights and pixels rounded once: |error| <= C u max|x| sum|w| with C = `most_error`.
Where a pixel or a weight is not finite, or so large that a sum could overflow, the whole result is that of the plan made under
``precision="strict"``.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .border import column_maps, row_map, too_large
from .fast_fir_tile import PARTS, fast_fir_rows, fast_fir_tile_kernel
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .runs import Block, blocks_of
from .simd import KINDS
from .stage import is_native
from .target import Target
from .threads import Job, Region
from .tile import TAPS_AT, Shape, Tile, fitting, row_groups
from .values import finish_values, kernel_kind

CASES = ("ih64_k9_p4_f32", "ih33iw700_kh10kw3_p2_reflect_f64_bias", "n2_g2_ic2ih49iw70_oc4k7_p9_wrap_f32_bias",
         "ih41iw1200_kh17kw1_pt8pb3_f32", "ih16iw47_kh2kw5_p1_edge_f32")  # fmt: skip

TILES = (
    Tile(32, rows=8, vecs=2, tall=8),  # 16 accumulators, 8 taps, 2 pixels of 32 registers
    Tile(16, rows=4, vecs=2, tall=4),
)

_BAND = 32  # pairs of rows of results that one unit of work computes at most

Head = namedtuple(
    "Head",
    "tile rows width oc ocg blocks bands band_pairs padded oh held entries pitch wide words shared nleft sn sc sy wo dn dc dy",
)
# Blocks hold their whole tiles, and where one more starts that ends with it, or 0.
_HEAD_AT, _BLOCK_BYTES = 8 * len(Shape._fields), 8 * len(Block._fields)
_BLOCKS_AT = _HEAD_AT + 8 * len(Head._fields)


def _factory(kind: str, lanes: int) -> Any:
    """The band kernel: units ``u0 .. u1 - 1``, each an (image, group, block of columns, band of pairs of rows).

    A unit makes the weights of the three parts of its channel's filters: ``words`` numbers, each of one tap or the sum of two.
    Behind the addends of all output channels lies a number that is set where a pixel is so large that a sum could overflow, or a weight
    or a pixel not finite: no unit is computed from then on.
    Workspace: three row tables, the addresses of three rows, first addend and taps, tile of the first part, results aside, largest
    magnitudes, fill row, ring.
    """
    size, whole_kind = KINDS[kind][2], f"i{8 * KINDS[kind][2]}"

    def fast_fir(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents + _HEAD_AT, Head)
        rows, width, entries = e.rows, e.width, e.entries
        blocks = at.extents + _BLOCKS_AT
        row_map = blocks + e.blocks * _BLOCK_BYTES
        order = row_map + e.padded * 8
        maps = order + (2 * e.words + e.nleft) * 8
        fill, zero, largest = peek(kind, at.values), peek(kind, at.values + 4 * size), peek(kind, at.values + 6 * size)
        failed = at.bias + e.oc * size
        table = (at.workspace + index * at.scratch + 63) // 64 * 64
        addresses = table + (PARTS * entries * 8 + 63) // 64 * 64
        peak = addresses + 64
        aside = peak + lanes * size
        tile_at = aside + rows * width * size
        start = tile_at + 2 * rows * width * size
        fill_at = start + TAPS_AT + (e.words * size + 63) // 64 * 64
        ring = fill_at + e.pitch
        fill_row(kind, lanes, fill_at, e.wide, fill)
        pairs = (e.oh + 1) // 2
        for u in range(u0, u1):
            if peek(kind, failed) != 0:
                break
            rest, band = u // e.bands, u % e.bands
            rest, number = rest // e.blocks, rest % e.blocks
            n, group = rest // (e.oc // e.ocg), rest % (e.oc // e.ocg)
            block_at = blocks + number * _BLOCK_BYTES
            block = integers(block_at, Block)
            j0 = band * e.band_pairs
            j1 = min(j0 + e.band_pairs, pairs)
            plane = at.src + n * e.sn + group * e.sc
            to = at.dst + n * e.dn + block.to
            outside = fill_at - block.first * size
            shift = -block.before * size % 64
            staged, limit = 0, largest
            fill_row(whole_kind, lanes, peak, lanes, 0)
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = max(min(j, j1 - rows), j0)
                for r in range(staged, jt - j0 + e.held):
                    for part in range(3):
                        y = 2 * (j0 + r) + part
                        row = peek("i64", row_map + y * 8) if y < e.padded else -1
                        poke("i64", addresses + part * 8, plane + row * e.sy if row >= 0 else outside)
                    line = ring + shift + r % e.held * PARTS * e.pitch
                    for part in range(PARTS):
                        poke("i64", table + (part * entries + r) * 8, line + part * e.pitch)
                    fast_fir_rows(kind, lanes, line, e.pitch, addresses, block_at, maps, fill, peak)
                staged = max(staged, jt - j0 + e.held)
                whole = jt + rows <= j1 and 2 * (jt + rows) <= e.oh
                for i in range(e.ocg):
                    o = group * e.ocg + i
                    if e.ocg > 1 or j == j0:
                        poke(kind, start, peek(kind, at.bias + o * size))
                        total = zero
                        for word in range(e.words):
                            first, second = peek("i64", order + 16 * word), peek("i64", order + 16 * word + 8)
                            weight = peek(kind, at.wei + o * e.wo + first)
                            if second >= 0:
                                weight += peek(kind, at.wei + o * e.wo + second)
                            elif word >= e.shared:
                                total += abs(weight)
                            poke(kind, start + TAPS_AT + word * size, weight)
                        # sums come to at most three times max|x| sum|w|
                        if not total <= largest:
                            limit = -largest
                        elif total > 1 and limit > largest / total:
                            limit = largest / total
                    line = to + o * e.dc + 2 * jt * e.dy
                    for run in range(2 if block.last else 1):
                        tiles = 1 if run else block.tiles
                        for part in range(1 if whole else tiles):
                            x = (block.last if run else 0) + part * width
                            made, pitch, many = (line + x * size, e.dy, tiles) if whole else (tile_at, width * size, 1)
                            call_kernel(e.tile, (at.extents, start, aside, table + (jt - j0) * 8, x * size, made, pitch, many))
                            if not whole:
                                for row in range(min(2 * rows, e.oh - 2 * jt, 2 * (j1 - jt))):
                                    copy(kind, lanes, line + x * size + row * e.dy, tile_at + row * width * size, width)
            if not abs(fill) <= limit:
                poke(kind, failed, 1)
            for lane in range(lanes):
                if not peek(kind, peak + lane * size) <= limit:
                    poke(kind, failed, 1)

    return fast_fir


def most_error(p: Problem) -> int:
    """C of the error bound."""
    return 3 * ((p.kh + 1) * p.kw + 4)


def _tile(p: Problem, t: Target) -> Tile:
    return fitting(TILES, t)[0]


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of one plane each, dense and of stride 1, at least a tile of them."""
    reason = not_computed(p, "fwd", transforms=True)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") or not p.src == p.dst == p.acc:
        return f"for f32 and f64, not {p.src} summed as {p.acc} into {p.dst}"
    if p.ic != p.g or (p.src_layout == "nhwc" and p.ic > 1):
        return "for planes, each result a sum over one"
    if p.strides != (1, 1) or (p.dh > 1 and p.kh > 1) or (p.dw > 1 and p.kw > 1):
        return "for dense kernels of stride 1"
    if p.kh < 2:
        return "halves the rows of taps, of which there is one"
    if parse_epilogue(p.epilogue).activation is not None:
        return f"does not fuse {p.epilogue}"
    tile, lanes = _tile(p, t), t.lanes(DTYPES[p.acc].itemsize)
    if p.oh < 2 * tile.rows or p.ow < tile.vecs * lanes:
        return f"for at least {2 * tile.rows}x{tile.vecs * lanes} results"
    return too_large(p, _layout(p, tile, lanes)[-1])


def cost(p: Problem, t: Target) -> float:
    return costs.fast_fir_seconds(p, t.lanes(DTYPES[p.acc].itemsize), _tile(p, t).rows)


def most_kernels(t: Target) -> int:
    return 2  # the tile, and the bands


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose kernel makes the weights of the parts itself, at every run, with a child for what could overflow."""
    kind, dtype = kernel_kind(p.acc), DTYPES[p.acc]
    assert kind is not None
    tile, lanes = _tile(p, t), t.lanes(dtype.itemsize)
    code = fast_fir_tile_kernel(kind, lanes, tile.rows, tile.vecs, tile.tall, int(t.fma))
    region = Region(f"fast_fir_bands_{kind}_{lanes}", _factory, (kind, lanes), kind)
    shape, head, tables, scratch = _layout(p, tile, lanes)
    child = plan(p.replace(precision="strict"), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        def exact(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            child.run(src, child.pack(packed), bias, dst, fill)

        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return exact
        (sn, sc, sy, _), (wo, _, *strides), (dn, dc, dy, _) = src.strides, packed.strides, dst.strides
        e = head._replace(tile=code.address, sn=sn, sc=sc, sy=sy, wo=wo, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array((*shape, *e), np.int64), tables[0], _order(p, tile, strides), tables[1]])
        values = finish_values(p, fill)
        values[6] = np.finfo(dtype).max / 8  # sums of products of three times as much are finite
        swept = region.launcher(extents, values, scratch, p.n * p.g * e.blocks * e.bands, own.threads, cost(p, t), src, packed, dst)

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            addends = np.zeros(p.oc + 1, dtype)
            if bias is not None:
                addends[:-1] = bias
            swept(src, packed, addends, dst)
            if addends[-1]:
                exact(src, packed, bias, dst)

        return launch

    return Plan(problem=p, algorithm="fast_fir", kernel=code.name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=scratch * threads + child.workspace, threads=threads, children=(child,))  # fmt: skip


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    return wei if wei.dtype == DTYPES[p.acc] else wei.astype(DTYPES[p.acc])


def _order(p: Problem, tile: Tile, strides: list[int]) -> np.ndarray:
    """Bytes to the taps that each weight of the three parts is the sum of, the second -1 where it is one tap's."""
    rows, columns = strides
    made = []
    for part in range(PARTS):
        for group in row_groups((p.kh + (part < 2)) // 2, tile.tall):
            for kx in range(p.kw):
                for j in group:
                    first = 2 * j + (part == 2)
                    second = (first + 1) * rows + kx * columns if part == 0 and first + 1 < p.kh else -1
                    made.append((first * rows + kx * columns, second))
    return np.array(made, np.int64).reshape(-1)


def _layout(p: Problem, tile: Tile, lanes: int) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides; its tables before and behind the order of the taps; bytes of workspace of one thread."""
    size, width = DTYPES[p.acc].itemsize, lanes * tile.vecs
    held = tile.rows + (p.kh + 1) // 2 - 1
    most = max(costs.FAST_FIR_RING_BYTES // (PARTS * held * size * width), 1)  # tiles of a block
    tiles = -(-p.ow // (-(-p.ow // (most * width)) * width))
    made = [
        Block(*inside, first * size, columns // width, columns - width if columns % width else 0)
        for inside, first, columns in blocks_of(p.ow, tiles * width, width, 1, p.pl, p.kw, p.iw)
    ]
    pairs = (p.oh + 1) // 2
    band_pairs = min(max(min(_BAND, _unit_pairs(p, lanes, tile, len(made))) // tile.rows, 1), -(-pairs // tile.rows)) * tile.rows
    entries = band_pairs + (p.kh + 1) // 2 - 1 + tile.rows
    wide = tiles * width + p.kw - 1
    pitch = (-(-wide * size // 64) + 2 | 1) * 64  # an odd number of lines
    shared = p.kw * ((p.kh + 1) // 2)
    words = 2 * shared + p.kw * (p.kh // 2)
    shape = Shape(icg=1, pitch=entries * 8, step=0, kh=p.kh, kw=p.kw, tap=size, column=size)
    head = Head(
        tile=0, rows=tile.rows, width=width, oc=p.oc, ocg=p.oc // p.g, blocks=len(made), bands=-(-pairs // band_pairs),
        band_pairs=band_pairs, padded=p.ih_padded, oh=p.oh, held=held, entries=entries, pitch=pitch, wide=wide, words=words,
        shared=shared, nleft=p.pl, sn=0, sc=0, sy=0, wo=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    table, taps = (-(-part // 64) * 64 for part in (PARTS * entries * 8, words * size))
    scratch = 64 + table + 64 + lanes * size + 3 * tile.rows * width * size + TAPS_AT + taps + (1 + PARTS * held) * pitch
    tables = np.concatenate([np.array(made, np.int64).reshape(-1), row_map(p)]), np.concatenate(column_maps(p, p.pr))
    return shape, head, tables, -(-scratch // 64) * 64


def _unit_pairs(p: Problem, lanes: int, tile: Tile, blocks: int) -> int:
    """Pairs of rows of a unit of work, which takes `cost.UNIT_SECONDS` at most."""
    return int(costs.UNIT_SECONDS / (costs.fast_fir_seconds(p, lanes, tile.rows) * 2 / (max(p.n, 1) * p.g * blocks * p.oh)))
