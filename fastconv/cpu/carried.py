"""carried: the band kernel of `direct` for small kernels on one channel, whose tiles carry pixels along the row.

The roof of a 3x3 filter is the memory's as much as the arithmetic's: 8 x 2 vectors a tile read 10 rows and write 8 at once, more than
prefetchers follow, and where rows lie a page apart each load meets the address of a store modulo 4 KiB.  Here tiles are few rows high and
wide, no line is loaded twice by a row of tiles, and only the border's own pixels are staged: 1024x1024 f32 k3 takes 182 us instead of 224,
2048x2048 880 instead of 1470 (one core, Zen 4, 2026-11).
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..planning.cost import bytes_moved
from ..planning.problem import Problem, border_indices, parse_epilogue
from .border import row_map
from .carried_tile import carried_tile, edge_pixels
from .finish import ADDENDS_AT, BESIDE_AT, FINISH_AT, scales, set_finish
from .memory import copy, copy_past, fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .target import Target
from .threads import Job
from .tile import TAPS_AT

# The integers that the kernel receives: these, the columns behind the pixels left and right of the image, the row map, the taps' order.
Head = namedtuple("Head", "oc ocg iw oh ow band_rows bands finish bias scaled entries fills edged even past sn sc sy wo dn dc dy")
_TABLES_AT = 8 * len(Head._fields)
EVEN_TILES = 6  # of a row at least, before one more is worth that the others store whole lines: see `stores_lines`


def factory(kind: str, lanes: int, rows: int, vecs: int, kh: int, kw: int, lead: int, fma: int) -> Any:
    """The band kernel: units ``u0 .. u1 - 1`` of work, a unit being (image, group, band of rows, output channel of the group).

    ``dst[n, o, y, x] = first + sum_{ky, kx} row(y + ky)[x + kx - lead] * wei[o, ky, kx]`` with stride and dilation 1, one channel a group,
    the padding left of the image ``lead``, that on the right at most ``kw - 1 - lead``.  Source and result are of any alignment.
    Workspace: tables of rows and of edges, first addend, packed taps, edges, fill row, tile.
    """
    spec = (kind, lanes, rows, vecs, kh, kw, lead, fma)
    size = KINDS[kind][2]
    width, vector, beside, follow = lanes * vecs, lanes * size, kw - 1, kw - 1 - lead

    def carried(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        columns = at.extents + _TABLES_AT
        row_map = columns + (kw - 1) * 8
        order = row_map + (e.oh + kh - 1) * 8
        fill = peek(kind, at.values)
        finish = e.finish * (at.values + size)
        table = at.workspace + index * at.scratch
        to_edges = e.entries * 8
        start = table + 2 * to_edges
        packed = start + TAPS_AT
        edges = packed + kh * kw * size
        edge_pitch = beside * size
        fill_at = edges + e.entries * edge_pitch
        tile_at = fill_at + (e.iw + lanes) * size
        if e.fills:
            fill_row(kind, lanes, fill_at, e.iw, fill)
        for r in range(e.entries):
            poke("i64", table + to_edges + r * 8, edges + r * edge_pitch)
        rows_of = -1
        for u in range(u0, u1):
            source, o = u // e.ocg, u % e.ocg
            rest, band = source // e.bands, source % e.bands
            n, group = rest // (e.oc // e.ocg), rest % (e.oc // e.ocg)
            o += group * e.ocg
            j0 = band * e.band_rows
            j1 = min(j0 + e.band_rows, e.oh)
            poke(kind, start, peek(kind, at.bias + e.scaled * ADDENDS_AT + o * size if e.bias else at.values + 4 * size))
            if e.scaled:
                finish = start + FINISH_AT
                set_finish(kind, start, at.values, at.bias, e.oc, o)
                residual = peek("i64", at.bias)
                poke("i64", start + BESIDE_AT, residual - at.dst if residual else 0)
            for tap in range(kh * kw):
                poke(kind, packed + tap * size, peek(kind, at.wei + o * e.wo + peek("i64", order + tap * 8)))
            if rows_of != source:
                rows_of = source
                plane = at.src + n * e.sn + group * e.sc
                for r in range(j1 - j0 + kh - 1):
                    row = peek("i64", row_map + (j0 + r) * 8)
                    row_at = fill_at if row < 0 else plane + row * e.sy
                    poke("i64", table + r * 8, row_at)
                    if e.edged:
                        edge_pixels(kind, beside, edges + r * edge_pitch, row_at, columns, fill)
            to = at.dst + n * e.dn + o * e.dc
            for j in range(j0, j1, rows):
                # the last tile overlaps the one before; it writes the same values again
                jt = min(j, j1 - rows)
                line, rows_at = to + jt * e.dy, table + (jt - j0) * 8
                past = e.past and line % size == 0
                # whole lines are stored in the middle of a row
                skew = -line % vector // size if past or (e.even and line % size == 0) else 0
                while 0 < skew < lead:
                    skew += lanes
                if 0 < (e.ow - skew) % width < follow:
                    skew += lanes
                many = (e.ow - skew) // width
                # tiles that end elsewhere than at a row of tiles: aside, where the others are stored past the caches, since a line
                # stored both ways would be fetched and written twice
                for part in range(3):
                    x, tiles, low, high = skew, many, 0, skew
                    if part == 0:
                        x, tiles = 0, min(skew, 1)
                    elif part == 2:
                        x, low, high = e.ow - width, width - (e.ow - skew - many * width), width
                        tiles = min(width - low, 1)
                    if not tiles:
                        continue
                    aside = past and part != 1
                    made, pitch = (tile_at, width * size) if aside else (line + x * size, e.dy)
                    left, left_at = (0, (x - lead) * size) if x else (to_edges, 0)
                    end = x + tiles * width
                    right, right_at = (0, end * size) if end + follow <= e.iw else (to_edges, lead * size)
                    carried_tile(spec, start, finish, rows_at, x * size, left, left_at, right, right_at, made, pitch, tiles,
                                 past and not aside)  # fmt: skip
                    if aside:
                        for row in range(rows):
                            to_row, from_row = line + row * e.dy + (x + low) * size, tile_at + (row * width + low) * size
                            if part == 0:
                                copy(kind, lanes, to_row, from_row, high)
                            else:
                                copy_past(kind, lanes, to_row, from_row, high - low)

    return carried


def lead_of(p: Problem, rows: int, vecs: int, lanes: int) -> int | None:
    """Pixels before an output's own that its window begins with, where all other pixels of whole tiles lie in the image; else None.

    Of a dense kernel of stride 1 on one channel.
    """
    lead, follow = p.pl, p.kw - 1 - p.pl
    beside = p.ow - vecs * lanes  # columns beside a tile
    if p.pl not in (0, p.kw // 2) or p.pr > follow or p.oh < rows or not (beside == 0 or beside >= max(lead, follow)):
        return None
    return lead


def stores_lines(p: Problem, t: Target, width: int, pitch: int, vector: int) -> bool:
    """Whether tiles of ``width`` results start where whole vectors are stored to whole lines, for one tile more in each row.

    Of images that the second-level cache does not hold: NumPy's arrays begin 16 bytes into a line, and 512x512 takes 84 us instead of 91,
    1024x1024 568 instead of 620, 2048x2048 2770 instead of 3260; 256x256 would take 18.7 instead of 16.4 (one core of two 512-bit FMA
    units, 2026-11).  Where pixels lie in lines makes no difference.
    """
    return bytes_moved(p) > t.l2 and p.ow >= EVEN_TILES * width and pitch % vector == 0


def layout(p: Problem, rows: int, vecs: int, lanes: int, size: int, band: int) -> tuple[Head, np.ndarray, int]:
    """The kernel's integers but for the strides; its tables before the taps' order; bytes of workspace of one thread.

    ``band``: rows of output that a unit of work should have at most.
    """
    lead = p.pl
    bands = -(-p.oh // max(band, rows))
    band_rows = -(-p.oh // (bands * rows)) * rows
    while 0 < p.oh % band_rows < rows:
        band_rows -= rows
    entries = band_rows + p.kh - 1
    columns = np.concatenate([border_indices(-lead, lead, 1, p.iw, p.border), border_indices(p.ow, p.kw - 1 - lead, 1, p.iw, p.border)])
    image_rows = row_map(p)[: p.oh + p.kh - 1]
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    head = Head(
        oc=p.oc, ocg=p.oc // p.g, iw=p.iw, oh=p.oh, ow=p.ow, band_rows=band_rows, bands=-(-p.oh // band_rows),
        finish=int(activation is not None), bias=int(has_bias), scaled=int(scales(p)), entries=entries, fills=int(image_rows.min() < 0),
        edged=int(lead > 0 or p.ow + p.kw - 1 - lead > p.iw), even=0, past=0, sn=0, sc=0, sy=0, wo=0, dn=0, dc=0, dy=0,
    )  # fmt: skip
    pixels = p.kh * p.kw + entries * (p.kw - 1) + p.iw + lanes + rows * vecs * lanes
    return head, np.concatenate([columns, image_rows]), -(-(16 * entries + TAPS_AT + size * pixels) // 64) * 64
