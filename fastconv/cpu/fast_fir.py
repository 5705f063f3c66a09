"""fast_fir: planes filtered by two neighbours of results at a time from three sums of half the taps instead of four.

Of the even rows ``h0`` and the odd rows ``h1`` of a kernel, and the rows x of the padded image, with all sums along the rows as ever:
``y[2i] = sum_j (h0 + h1)[j] x[2i+2j+1] + h0[j] (x[2i+2j] - x[2i+2j+1])`` and
``y[2i+1] = sum_j (h0 + h1)[j] x[2i+2j+1] + h1[j] (x[2i+2j+2] - x[2i+2j+1])``, which share their first sum: three quarters of the
multiplications, and an addition a pixel (J. Mou and P. Duhamel, Short-length FIR filters and their use in fast nonrecursive filtering,
1991, the filter of two outputs).  At stride 2 the same along the columns: those of the image that lie under even taps and those under odd
ones are each filtered so at stride 1, into the same sums.  Wins where kernels are large and planes are.
A unit of work is a block of columns by a band of rows of one plane.  Its rows are put, with their borders, as the three that the sums
read into a ring that stays in the caches.  Order of accumulation per output: see `fast_fir_tile.fast_fir_tile`.

Transform class: with u half the accumulator's epsilon, each result is a sum of at most ``kw (kh + 1)`` products, at stride 2
``kh (kw + 2)``, which come to three times max|x| sum|w| at most, of weights and pixels rounded once: |error| <= C u max|x| sum|w| with
C = `most_error`.
Where a result is not finite, as with pixels and weights that are not and with sums that overflow, all are those of the plan made under
``precision="strict"``.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .border import LINE, Span, border_row, column_maps, row_map, span, too_large, whole_lines
from .fast_fir_tile import CHUNK, PARTS, fast_fir_columns, fast_fir_rows, fast_fir_tile_kernel
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .runs import Block, blocks_of
from .simd import KINDS
from .stage import is_native
from .target import Target
from .threads import Job, Region
from .tile import TAPS_AT, Shape, Tile, fitting, row_groups
from .values import finish_values, kernel_kind

CASES = ("ih64_k9_p4_f32", "ih33iw700_kh10kw3_p2_reflect_f64_bias", "n2_g2_ic2ih49iw70_oc4k7_p9_wrap_f32_bias",
         "ih41iw1200_kh17kw1_pt8pb3_f32", "ih16iw47_kh2kw5_p1_edge_f32", "ih69iw150_k7_s2_p3_f32",
         "n2_g2_ic2ih37iw260_oc4kh6kw9_s2_p7_wrap_f32_bias")  # fmt: skip

TILES = (
    Tile(32, rows=8, vecs=2, tall=8),  # 16 accumulators, 8 taps, 2 pixels of 32 registers
    Tile(16, rows=4, vecs=2, tall=4),
)

_BAND = 32  # pairs of rows of results that one unit of work computes at most

Head = namedtuple(
    "Head",
    "tile rows width oc ocg blocks bands band_steps steps padded oh held entries pitch phase wide words nleft reach ahead behind "
    "sn sc sy wo dn dc dy",
)
# Blocks hold their whole tiles, and where one more starts that ends with it, or 0.
_HEAD_AT, _BLOCK_BYTES = 8 * len(Shape._fields), 8 * len(Block._fields)
_BLOCKS_AT = _HEAD_AT + 8 * len(Head._fields)
# Behind a block of stride 2, whose span is that of copies of its left edge: whether its columns are odd, of which the last tile then
# has one too many; `CHUNK`s that lie there, in the image and in copies of the right edge, the image's column where the first would lie,
# and the span of the right edge's, two pixels before it on.
Chunks = namedtuple("Chunks", "odd left inside right column")
_RIGHT_AT = _BLOCK_BYTES + 8 * len(Chunks._fields)


def _factory(kind: str, lanes: int, stride: int) -> Any:
    """The band kernel: units ``u0 .. u1 - 1``, each an (image, group, block of columns, band of steps of a tile).

    A step is a pair of rows of results at stride 1, a row at stride 2.  What tiles of stride 2 read of new rows is made just before
    the tile that needs it: so prefetchers follow all of them while tiles are summed.
    A unit makes the weights of the three parts of its channel's filters: ``words`` numbers, each of one tap or the sum of two.
    Behind the addends of all output channels lies a number that is set where a result is not finite: no unit is computed from then on.
    Workspace: three row tables, three of the rows that these are made of, NaN where a result is not finite, tile of the first part, results
    aside, first addend and taps, fill row, ring, copies of rows' edges.
    """
    size, results = KINDS[kind][2], 3 - stride  # rows of results of a step
    block_bytes = _BLOCK_BYTES if stride == 1 else _RIGHT_AT + 8 * len(Span._fields)
    chunk_bytes, lead = CHUNK * lanes * size, LINE

    def fast_fir(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents + _HEAD_AT, Head)
        rows, width, entries, held = e.rows, e.width, e.entries, e.held
        blocks = at.extents + _BLOCKS_AT
        row_map = blocks + e.blocks * block_bytes
        order = row_map + e.padded * 8
        maps = order + (2 * e.words + e.nleft) * 8
        fill = peek(kind, at.values)
        failed = at.bias + e.oc * size
        table = (at.workspace + index * at.scratch + 63) // 64 * 64
        sources = table + PARTS * entries * 8
        check = sources + (PARTS * (entries + held) * 8 + 63) // 64 * 64 - PARTS * entries * 8
        tile_at = check + (lanes + rows * width) * size
        start = tile_at + results * rows * width * size
        fill_at = start + TAPS_AT + (e.words * size + 63) // 64 * 64 + lead
        ring = fill_at + e.wide * size
        ahead = ring + PARTS * held * e.pitch + lead
        behind = ahead + held * e.ahead
        fill_row(kind, lanes, fill_at - lead, e.wide + lead // size, fill)
        fill_row(kind, lanes, check, lanes, peek(kind, at.values + 4 * size))
        for u in range(u0, u1):
            if peek(kind, failed) != 0:
                break
            rest, band = u // e.bands, u % e.bands
            rest, number = rest // e.blocks, rest % e.blocks
            n, group = rest // (e.oc // e.ocg), rest % (e.oc // e.ocg)
            block_at = blocks + number * block_bytes
            block, chunks = integers(block_at, Block), integers(block_at + _BLOCK_BYTES, Chunks)
            j0 = band * e.band_steps
            j1 = min(j0 + e.band_steps, e.steps)
            plane = at.src + n * e.sn + group * e.sc
            to = at.dst + n * e.dn + block.to
            shift, total, odd = 0, 0, 0
            if stride == 1:
                shift = -block.before * size % 64
            else:
                total, odd = chunks.left + chunks.inside + chunks.right, chunks.odd
                # what lies beyond the padded image is read too, and cancels
                fill_row(kind, lanes, ahead - lead, held * (e.ahead + e.behind) // size, fill)
            staged = 0
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = max(min(j, j1 - rows), j0)
                fresh, staged = staged, max(staged, (jt - j0) * stride + held)
                for r in range(fresh, staged):
                    line = ring + shift + r % held * PARTS * e.pitch
                    for part in range(PARTS):
                        poke("i64", table + (part * entries + r) * 8, line + part * e.pitch)
                    if stride == 1:
                        for part in range(3):
                            y = 2 * (j0 + r) + part
                            row = peek("i64", row_map + y * 8) if y < e.padded else -1
                            poke("i64", sources + part * 8, plane + row * e.sy if row >= 0 else fill_at - block.first * size)
                        fast_fir_rows(kind, lanes, line, e.pitch, sources, block_at, maps, fill)
                    else:
                        y, source, copied = 2 * j0 + r, sources + (r - fresh) * 8, (r - fresh) * e.ahead
                        row = peek("i64", row_map + y * 8) if y < e.padded else -1
                        pixels = plane + row * e.sy
                        if row >= 0 and chunks.left:
                            border_row(kind, lanes, ahead + copied, pixels, block_at, maps, fill)
                        poke("i64", source, ahead + copied if row >= 0 else fill_at)
                        poke("i64", source + held * 8, pixels + chunks.column * size if row >= 0 else fill_at)
                        poke("i64", source + 2 * held * 8, 0 if row >= 0 else fill_at)
                made = 0  # vectors of what tiles read
                all_rows = jt + rows <= j1 and results * (jt + rows) <= e.oh
                for i in range(e.ocg):
                    o = group * e.ocg + i
                    if e.ocg > 1 or j == j0:
                        poke(kind, start, peek(kind, at.bias + o * size))
                        for word in range(e.words):
                            first, second = peek("i64", order + 16 * word), peek("i64", order + 16 * word + 8)
                            weight = peek(kind, at.wei + o * e.wo + first)
                            if second >= 0:
                                weight += peek(kind, at.wei + o * e.wo + second)
                            poke(kind, start + TAPS_AT + word * size, weight)
                    line = to + o * e.dc + results * jt * e.dy
                    for run in range(2 if block.last else 1):
                        tiles, beyond = (1, odd) if run else (block.tiles, 0)
                        whole = all_rows and not beyond
                        many = tiles if whole and (stride == 1 or made == total) else 1
                        for part in range(0, tiles, many):
                            x = (block.last if run else 0) + part * width
                            if stride == 2:
                                for chunk in range(made, min((x // 2 + width // 2 + e.reach + lanes - 1) // lanes, total)):
                                    where = 0 if chunk < chunks.left else 1 if chunk < chunks.left + chunks.inside else 2
                                    if where == 2 and chunk == chunks.left + chunks.inside:
                                        for r in range(staged - fresh):
                                            source = sources + 2 * held * 8 + r * 8
                                            if peek("i64", source) == 0:
                                                copied = behind + r * e.behind
                                                pixels = peek("i64", source - held * 8) - chunks.column * size
                                                border_row(kind, lanes, copied - 2 * size, pixels, block_at + _RIGHT_AT, maps, fill)
                                                poke("i64", source, copied - chunk * chunk_bytes)
                                    fast_fir_columns(kind, lanes, table + fresh * 8, chunk * lanes * size, e.pitch, e.phase,
                                                     sources + where * held * 8, chunk * chunk_bytes, staged - fresh)  # fmt: skip
                                    made = chunk + 1
                            result, pitch = (line + x * size, e.dy) if whole else (tile_at, width * size)
                            call_kernel(e.tile, (at.extents, start, check, table + (jt - j0) * stride * 8, x // stride * size,
                                                 result, pitch, many))  # fmt: skip
                            if not whole:
                                for row in range(min(results * rows, e.oh - results * jt, results * (j1 - jt))):
                                    copy(kind, lanes, line + x * size + row * e.dy, tile_at + row * width * size, width - beyond)
            for lane in range(lanes):
                if peek(kind, check + lane * size) != 0:
                    poke(kind, failed, 1)

    return fast_fir


def most_error(p: Problem) -> int:
    """C of the error bound."""
    return 3 * (((p.kh + 1) * p.kw if p.sw == 1 else p.kh * (p.kw + 2)) + 4)


def _tile(p: Problem, t: Target) -> Tile:
    return fitting(TILES, t)[0]


def _width(p: Problem, tile: Tile, lanes: int) -> int:
    """Columns of a tile's results."""
    return tile.vecs * lanes * p.sw


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of one plane each, dense and of stride 1 or 2, at least a tile of them."""
    reason = not_computed(p, "fwd", transforms=True)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") or not p.src == p.dst == p.acc:
        return f"for f32 and f64, not {p.src} summed as {p.acc} into {p.dst}"
    if p.ic != p.g or (p.src_layout == "nhwc" and p.ic > 1):
        return "for planes, each result a sum over one"
    if p.strides not in ((1, 1), (2, 2)) or (p.dh > 1 and p.kh > 1) or (p.dw > 1 and p.kw > 1):
        return "for dense kernels of stride 1 or 2"
    if p.kh < 2 or (p.sw == 2 and p.kw < 3):
        return "halves the rows of taps, or every other column of them, of which there is one"
    if parse_epilogue(p.epilogue).activation is not None:
        return f"does not fuse {p.epilogue}"
    tile, lanes = _tile(p, t), t.lanes(DTYPES[p.acc].itemsize)
    rows, width = tile.rows * (3 - p.sh), _width(p, tile, lanes)
    if p.oh < rows or p.ow < width:
        return f"for at least {rows}x{width} results"
    return too_large(p, _layout(p, tile, lanes)[-1])


def cost(p: Problem, t: Target) -> float:
    return costs.fast_fir_seconds(p, t.lanes(DTYPES[p.acc].itemsize), _tile(p, t).rows)


def most_kernels(t: Target) -> int:
    return 4  # of each stride the tile, and the bands


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose kernel makes the weights of the parts itself, at every run, with a child for what is not finite."""
    kind, dtype = kernel_kind(p.acc), DTYPES[p.acc]
    assert kind is not None
    tile, lanes = _tile(p, t), t.lanes(dtype.itemsize)
    code = fast_fir_tile_kernel(kind, lanes, tile.rows, tile.vecs, tile.tall, p.sw, int(t.fma))
    region = Region(f"fast_fir_bands_{kind}_{lanes}" + f"_s{p.sw}" * (p.sw > 1), _factory, (kind, lanes, p.sw), kind)
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


def _sums(p: Problem, tile: Tile) -> list[tuple[int, range, list[int]]]:
    """Part, rows and columns of taps that are summed together, in order; of part 0 each is added to its neighbour."""
    made = []
    for part in range(PARTS):
        if p.sw == 1:
            rows = range(part == 2, p.kh, 2)
            made += [(part, rows[group.start : group.stop], [*range(p.kw)]) for group in row_groups(len(rows), tile.tall)]
        else:
            columns = [kx for q in range(2) for kx in range(2 * (part == 2) + q, p.kw, 4)]
            made += [(part, group, columns) for group in row_groups(p.kh, tile.tall, 2)]
    return made


def _order(p: Problem, tile: Tile, strides: list[int]) -> np.ndarray:
    """Bytes to the taps that each weight of the three parts is the sum of, the second -1 where it is one tap's."""
    down, across = ((1, 0), (0, 2))[p.sw - 1]
    made = []
    for part, rows, columns in _sums(p, tile):
        for kx in columns:
            for ky in rows:
                paired = part == 0 and ky + down < p.kh and kx + across < p.kw
                first = ky * strides[0] + kx * strides[1]
                made.append((first, first + down * strides[0] + across * strides[1] if paired else -1))
    return np.array(made, np.int64).reshape(-1)


def _places(p: Problem, phase: int, size: int) -> list[int]:
    """Bytes into a row of a part of stride 2 to the pixels under each column of its taps: of the first two parts, and of the third."""
    # the third's are those of the even columns less the odd ones before
    return [q * phase + (kx // 4 + odd) * size for odd in range(2) for q in range(2) for kx in range(2 * odd + q, p.kw, 4)]


def _layout(p: Problem, tile: Tile, lanes: int) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides; its tables before and behind the order of the taps; bytes of workspace of one thread."""
    size, stride, width = DTYPES[p.acc].itemsize, p.sw, _width(p, tile, lanes)
    held = tile.rows + (p.kh + 1) // 2 - 1 if stride == 1 else 2 * (tile.rows - 1) + p.kh
    most = max(costs.FAST_FIR_RING_BYTES[stride] // (PARTS * held * size * width), 1)  # tiles of a block
    tiles = -(-p.ow // (-(-p.ow // (most * width)) * width))
    # two columns that are computed together stay together, in all blocks
    odd = p.ow % 2 if stride == 2 else 0
    columns_of = blocks_of(p.ow, tiles * width, width + odd, stride, p.pl, p.kw, p.iw)
    made: list[tuple[int, ...]] = []
    wide, edges = whole_lines(tiles * width + p.kw - 1, size) if stride == 1 else 0, [0, 0]
    for inside, first, columns in columns_of:
        last = columns + columns % stride - width if columns % width else 0
        at = first * size, columns // width, last
        if stride == 1:
            made.append(Block(*inside, *at))
        else:
            left, chunks, right = _chunks(p, first, columns, lanes)
            made.append((*left, *at, *chunks, *right))
            edges = [max(most, LINE + many * CHUNK * lanes * size) for most, many in zip(edges, (chunks.left, chunks.right), strict=True)]
            wide = max(wide, (chunks.left + chunks.inside + chunks.right) * CHUNK * lanes)
    steps = -(-p.oh * stride // 2)
    unit_steps = min(_BAND * stride, _unit_steps(p, lanes, tile, len(made)))
    band_steps = min(max(unit_steps // tile.rows, 1), -(-steps // tile.rows)) * tile.rows
    entries = band_steps * stride + held
    phase = wide // CHUNK * size if stride == 2 else 0
    pitch = (-(-(2 * phase or wide * size) // 64) + 2 | 1) * 64  # an odd number of lines
    words = sum(len(rows) * len(columns) for _, rows, columns in _sums(p, tile))
    head = Head(
        tile=0, rows=tile.rows, width=width, oc=p.oc, ocg=p.oc // p.g, blocks=len(made), bands=-(-steps // band_steps),
        band_steps=band_steps, steps=steps, padded=p.ih_padded, oh=p.oh, held=held, entries=entries, pitch=pitch, phase=phase, wide=wide,
        words=words, nleft=p.pl, reach=(p.kw + 3) // 4, ahead=edges[0], behind=edges[1], sn=0, sc=0, sy=0, wo=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    before, after = column_maps(p, p.pr)
    tables = np.concatenate([np.array(made, np.int64).reshape(-1), row_map(p)]), np.concatenate([before, after, _places(p, phase, size)])
    shape = Shape(
        icg=1, pitch=entries * 8, step=0, kh=p.kh, kw=p.kw, tap=size, column=size,
        places=_BLOCKS_AT + 8 * (len(tables[0]) + 2 * words + len(before) + len(after)),
    )  # fmt: skip
    table, taps = (-(-part // 64) * 64 for part in (PARTS * (entries + held) * 8, words * size))
    results = (1 + 3 - stride) * tile.rows * width
    scratch = 64 + table + (lanes + results + wide) * size + TAPS_AT + taps + 2 * LINE + held * (PARTS * pitch + sum(edges))
    return shape, head, tables, -(-scratch // 64) * 64


def _chunks(p: Problem, first: int, columns: int, lanes: int) -> tuple[Span, Chunks, Span]:
    """Of a block of stride 2, what copies of the left and of the right edge hold, and what there is of each."""
    start, read, chunk = 2 * first - p.pl, 2 * (columns - 1) + p.kw, CHUNK * lanes
    chunks = -(-((columns + 1) // 2 + (p.kw + 3) // 4) // lanes)
    # of the image, two pixels before each lie in it too
    left = min(-(-max(2 - start, 0) // chunk), chunks)
    inside = max(min((p.iw - start) // chunk, chunks) - left, 0)
    behind = (left + inside) * chunk
    right = span(start + behind - 2, max(read - behind + 2, 0), p.iw)
    return span(start, min(left * chunk, read), p.iw), Chunks(columns % 2, left, inside, chunks - left - inside, start), right


def _unit_steps(p: Problem, lanes: int, tile: Tile, blocks: int) -> int:
    """Steps of a unit of work, which takes `cost.UNIT_SECONDS` at most."""
    steps = -(-p.oh * p.sh // 2)
    return int(costs.UNIT_SECONDS / (costs.fast_fir_seconds(p, lanes, tile.rows) / (max(p.n, 1) * p.g * blocks * steps)))
