"""blocked: many channels; a block of output channels x pixels in registers over packed weights and a packed panel of pixels.

Wins where there are enough output channels to fill the lanes: the layers of networks.  For each band of output rows the source rows
are packed into a panel with borders, strides and layout resolved, so the inner loop is one dense product whatever the problem; planes
that a dense kernel of one tap reads are read where they lie (384 to 64 channels at 14x14: 86 us instead of 104; one core, Zen 4, 2026-11).
Order of accumulation per output: blocks of 16 channels, taps row by row, the block's channels; it depends on nothing else.
Georganas et al., arXiv:1808.05567, and Halide's apps/conv_layer for the register block.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from math import ceil, gcd
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from .blocked_tile import Shape, blocked_tile
from .border import Span, border_row, column_maps, row_map, span, too_large
from .memory import copy, fill_row, integers, peek, poke, split, unrolled_by_hand
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import Job, Region
from .values import finish_values

CASES = (
    "ic64ih56_oc64k3_p1_f32",
    "ic64ih56_oc64k3_p1_f32_nhwc_hwio",
    "ic64ih28_oc128k3_s2_p1_f32_bias+relu",
    "ic30ih9_oc50k1_f32",
    "n2_g2_ic34ih14_oc40k3_p1_f32_nhwc",
    "ic17ih20_oc33k5_d2_p4_f64",
    "ic3ih64_oc64k7_s2_p3_f32",
    "ic40ih7_oc48k3_p1_reflect_f32",
    "n2_ic20ih7iw30_oc40k1_f32",
    "ic5ih41_oc33k9_s8_p4_reflect_f32",
    "ic3ih40_oc48k4_s4_f32",
)


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``ny`` rows of ``nx`` pixels."""

    registers: int  # of the target, at least
    mr: int
    ny: int
    nx: int


TILES = (
    Tile(32, mr=2, ny=1, nx=14),  # 28 accumulators, 2 weights, 1 pixel of 32 registers
    Tile(32, mr=2, ny=2, nx=7),  # the same for rows of 7
    Tile(32, mr=2, ny=1, nx=7),  # for an odd number of such rows
    Tile(32, mr=4, ny=1, nx=6),  # 24 accumulators, 4 weights, 1 pixel
    Tile(32, mr=1, ny=1, nx=28),  # one vector of output channels
    Tile(32, mr=1, ny=4, nx=7),
    Tile(16, mr=2, ny=1, nx=6),  # 12 accumulators, 2 weights, 1 pixel of 16 registers
    Tile(16, mr=2, ny=2, nx=3),
    Tile(16, mr=1, ny=1, nx=12),
)

DEPTH = 16  # channels in a channel block
LINES = 8  # padded rows that are written before they are read again: what a vector reads is then no longer on its way to the cache
_MOST_TAPS = 1 << 16
_PANEL_BYTES = 384 << 10  # of one band: it shares a 1 MB second-level cache with the weights of one block of output channels
# The integers that the kernel receives: those of the tile, these, the span of a packed row, the panel's offset of each tap, the row map,
# image column and panel place of each packed column, the two column maps.
Head = namedtuple(
    "Head",
    "planes icg ocg oh ow kh_rows bands band_rows parts part_blocks passes pass_blocks q g qx gx columns phase bias map_rows nleft "
    "channels_last row panel_rows way in_place "
    "splits split_columns split_bytes sn sc sy sx dn",
)
_HEAD_AT = 8 * len(Shape._fields)
_TABLES_AT, _SPAN_BYTES = _HEAD_AT + 8 * len(Head._fields), 8 * len(Span._fields)


def _factory(kind: str, lanes: int, mr: int, ny: int, nx: int, step: int, fma: int) -> Any:
    """The band kernel: units of work are (image, group, part of the output channels, band of rows).

    Panel, ``step`` = 1 (source rows contiguous): ``[c][row][phase][x]``; ``step`` = 16 (channels contiguous):
    ``[row][c / 16][phase][x][c % 16]``.  Column ``e`` of the padded image that any tap reads (multiples of gx = gcd(sw, dw)) lies in
    phase ``e % qx`` at ``e / qx``, so that neighbouring outputs are neighbours whatever the stride; rows between those that are
    multiples of g = gcd(sh, dh) are left out.
    The panel holds the channels of one pass; between passes the sums of all the unit's tiles wait in the workspace.
    Workspace: bias of the block, panel, tile, padded rows, what no tap reads of one, sums.  What panel places beyond the image's width
    hold is never stored.
    """
    spec = (kind, lanes, mr, ny, nx, step, DEPTH, fma)
    size = KINDS[kind][2]
    width = mr * lanes

    def blocked(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + _HEAD_AT, Head)
        row_span = at.extents + _TABLES_AT
        offsets = row_span + _SPAN_BYTES
        row_at = offsets + s.taps * 8
        column_at = row_at + e.map_rows * 8
        place_at = column_at + e.columns * 8
        maps = place_at + (e.columns + e.nleft) * 8
        fill = peek(kind, at.values)
        zero = peek(kind, at.values + 4 * size)
        tile_bytes = ny * nx * width * size
        bias_block = at.workspace + index * at.scratch
        panel = bias_block + width * size + 64
        tile_at = (panel + e.panel_rows * e.row * (1 if e.channels_last else e.pass_blocks * DEPTH) + 63) // 64 * 64
        lines_at = tile_at + tile_bytes
        line_bytes = (e.columns * e.gx + 2 * lanes) * size
        unread_at = lines_at + LINES * line_bytes
        split_at = unread_at + line_bytes
        partial_at = (split_at + e.split_bytes + 63) // 64 * 64
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            rest, part = rest // e.parts, rest % e.parts
            n, group = rest // e.planes, rest % e.planes
            y0 = band * e.band_rows
            y1 = min(y0 + e.band_rows, e.oh)
            for turn in range(e.passes):
                first = turn * e.pass_blocks * DEPTH
                many = min(e.pass_blocks * DEPTH, e.icg - first)
                blocks = (many + DEPTH - 1) // DEPTH
                last = many - (blocks - 1) * DEPTH
                final = turn == e.passes - 1
                plane = at.src + n * e.sn + (group * e.icg + first) * e.sc
                pixels = plane + y0 * e.sy if e.in_place else panel
                for r in range(0 if e.in_place else (y1 - y0 - 1) * e.q + e.kh_rows):
                    row = peek("i64", row_at + (y0 * e.q + r) * e.g * 8)
                    line = plane + row * e.sy
                    to = panel + r * e.row
                    if e.channels_last:
                        for x in range(e.columns):
                            column = peek("i64", column_at + x * 8)
                            place = to + peek("i64", place_at + x * 8)
                            if row < 0 or column < 0:
                                for cb in range(blocks):
                                    fill_row(kind, lanes, place + cb * s.block, DEPTH, fill)
                            else:
                                pixel = line + column * e.sx
                                for cb in range(blocks - 1):
                                    copy(kind, lanes, place + cb * s.block, pixel + cb * DEPTH * size, DEPTH)
                                copy(kind, lanes, place + (blocks - 1) * s.block, pixel + (blocks - 1) * DEPTH * size, last)
                    elif row < 0:
                        for c in range(many):
                            fill_row(kind, lanes, to + c * s.channel, e.qx * e.phase, fill)
                    elif e.qx * e.gx == 1 and e.sx == size:
                        for c in range(many):
                            border_row(kind, lanes, to + c * s.channel, line + c * e.sc, row_span, maps, fill)
                    elif e.qx * e.gx == 2 and e.sx == size:
                        # padded rows, then their even and odd columns; the odd ones of gx = 2 are read by no tap
                        for c0 in range(0, many, LINES):
                            for c in range(c0, min(c0 + LINES, many)):
                                border_row(kind, lanes, lines_at + (c - c0) * line_bytes, line + c * e.sc, row_span, maps, fill)
                            for c in range(c0, min(c0 + LINES, many)):
                                even = to + c * s.channel
                                odd = even + e.phase * size if e.qx == 2 else unread_at
                                split(kind, lanes, even, odd, lines_at + (c - c0) * line_bytes, (e.columns * e.gx + 1) // 2)
                    elif e.splits and e.sx == size:
                        # even and odd columns again and again, until each phase is on its own
                        for c in range(many):
                            border_row(kind, lanes, split_at, line + c * e.sc, row_span, maps, fill)
                            held, other, count = split_at, split_at + e.split_bytes // 2, e.split_columns
                            for level in range(e.splits):
                                segments = 1 << level
                                count //= 2
                                ends = level == e.splits - 1
                                first_to, pitch = (to + c * s.channel, e.phase) if ends else (other, count + 2 * lanes)
                                for i in range(segments):
                                    even = first_to + i * pitch * size
                                    source = held + i * (2 * count + 2 * lanes) * size
                                    split(kind, lanes, even, even + segments * pitch * size, source, count)
                                held, other = other, held
                    else:
                        for c in range(many):
                            for x in range(e.columns):
                                column = peek("i64", column_at + x * 8)
                                place = to + c * s.channel + peek("i64", place_at + x * 8)
                                poke(kind, place, fill if column < 0 else peek(kind, line + c * e.sc + column * e.sx))
                partial = partial_at
                for o in range(part * e.part_blocks * width, min((part + 1) * e.part_blocks * width, e.ocg), width):
                    for lane in range(width):
                        has = e.bias and o + lane < e.ocg
                        poke(kind, bias_block + lane * size, peek(kind, at.bias + (group * e.ocg + o + lane) * size) if has else zero)
                    block = group * ((e.ocg + width - 1) // width) * width + o
                    wei = at.wei + (block * e.icg + first * width) * s.taps * size
                    to = at.dst + n * e.dn + (group * e.ocg + o) * s.dc
                    for y in range(y0, y1, ny):
                        yt = max(min(y, y1 - ny), y0)
                        for x in range(0, e.ow, nx):
                            xt = max(min(x, e.ow - nx), 0)
                            whole = yt + ny <= y1 and xt + nx <= e.ow and o + width <= e.ocg
                            stored = final and whole and e.way != 0
                            result = to + yt * s.dy + xt * s.dx
                            blocked_tile(spec, at.extents, offsets, pixels + (yt - y0) * s.step_y + xt * step * size, wei, blocks, last,
                                         partial if turn else bias_block, width * size if turn else 0,
                                         at.values + (size if final else 5 * size),
                                         result if stored else tile_at if final else partial, e.way if stored else 0)  # fmt: skip
                            partial += tile_bytes
                            if final and not stored:
                                for jy in range(min(ny, y1 - yt)):
                                    for jx in range(min(nx, e.ow - xt)):
                                        pixel = tile_at + (jy * nx + jx) * width * size
                                        for lane in range(min(width, e.ocg - o)):
                                            poke(kind, result + jy * s.dy + jx * s.dx + lane * s.dc, peek(kind, pixel + lane * size))

    return blocked


def reject(p: Problem, t: Target) -> str | None:
    """Forward, float32 and float64 sums (or float16, through float32)."""
    reason = not_computed(p, "fwd")
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64"):
        return f"sums in f32 or f64, not {p.acc}"
    if parse_epilogue(p.epilogue).activation not in (None, "relu", "relu6", "leaky_relu"):
        return f"does not fuse {p.epilogue}"
    if p.kh * p.kw > _MOST_TAPS:
        return f"keeps a table of at most {_MOST_TAPS} taps, not {p.kh * p.kw}"
    size = DTYPES[p.acc].itemsize
    tile, lanes = _tile(p, t), t.lanes(size)
    steps = _steps(p)
    # more threads share shorter bands
    return too_large(p, _scratch(p, steps, tile, lanes, size, _split(p, steps, tile, lanes, size, 1)))


def cost(p: Problem, t: Target) -> float:
    """FMAs in padded blocks of the best tile, and the packing of the panel."""
    tile = _tile(p, t)
    seconds = costs.blocked_seconds(p, t.lanes(DTYPES[p.acc].itemsize), tile.mr, tile.ny, tile.nx)
    return seconds + costs.staged_seconds(p, channels_last=True)


def most_kernels(t: Target) -> int:
    """How many kernels of one type can ever be compiled: tiles x layouts."""
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    return sum(tile.registers == most for tile in TILES) * 2


def _tile(p: Problem, t: Target) -> Tile:
    """The tile of the fewest padded multiplications; ties go to the earlier.  No tile changes a sum."""
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    fitting = [tile for tile in TILES if tile.registers == most]
    return min(fitting, key=lambda tile: costs.blocked_seconds(p, lanes, tile.mr, tile.ny, tile.nx))


def build(p: Problem, t: Target, plan: Any, threads: int = 1, tile: Tile | None = None) -> Plan:
    """A plan whose weights are packed as ``[g][oc block][channel block][tap][channel][mr * lanes]``, for one tile."""
    kind = p.acc
    size, tile = KINDS[kind][2], tile or _tile(p, t)
    lanes = t.lanes(size)
    width = tile.mr * lanes

    step = _steps(p).step
    spec = (kind, lanes, tile.mr, tile.ny, tile.nx, step, int(t.fma))
    name = f"blocked_{kind}_{tile.mr}x{tile.ny}x{tile.nx}_{lanes}" + "_nhwc" * (step > 1)
    region = Region(name, _factory, spec, kind)
    shape, head, tables, scratch = _layout(p, tile, lanes, size, threads)
    units = p.n * p.g * head.bands * head.parts
    seconds = costs.blocked_seconds(p, lanes, tile.mr, tile.ny, tile.nx)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        dtype = DTYPES[p.acc]
        if src.dtype != dtype or dst.dtype != dtype or (step > 1 and src.strides[1] != size):
            # the bands' weights are these: another tile would want them packed otherwise
            return staged_launch(p, own.threads, partial(build, tile=tile), t, src, packed, dst, fill)
        (sn, sc, sy, sx), (dn, dc, dy, dx) = src.strides, dst.strides
        way = 1 if dc == size else 2 if dx == size else 0
        in_place = _in_place(p, tile, head) and sx == size and step == 1
        read = shape._replace(channel=sc, block=DEPTH * sc, step_y=sy) if in_place else shape
        numbers = (*read._replace(dy=dy, dx=dx, dc=dc),
                   *head._replace(way=way, in_place=int(in_place), sn=sn, sc=sc, sy=sy, sx=sx, dn=dn))  # fmt: skip
        extents = np.concatenate([np.array(numbers, np.int64), tables])
        return region.launcher(extents, finish_values(p, fill), scratch, units, own.threads, seconds, src, packed, dst)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return _pack(p, wei, width)

    return Plan(problem=p, algorithm="blocked", kernel=name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads)  # fmt: skip


def _in_place(p: Problem, tile: Tile, head: Head) -> bool:
    """Whether planes are read where they lie: by kernels of one tap, dense and without padding, in tiles that stay inside."""
    dense = (p.kh, p.kw, *_steps(p)[:4]) == (1,) * 6 and p.pt == p.pb == p.pl == p.pr == 0
    last = p.oh - (head.bands - 1) * head.band_rows
    return dense and p.ow >= tile.nx and min(last, head.band_rows) >= tile.ny


def _pack(p: Problem, wei: np.ndarray, width: int) -> np.ndarray:
    """``[g][o / width][c / 16][tap][c % 16][o % width]``, zero filters beyond the last; as ``(1, 1, 1, n)``."""
    icg, ocg, taps = p.ic // p.g, p.oc // p.g, p.kh * p.kw
    blocks = -(-ocg // width)
    filters = np.zeros((p.g, blocks * width, icg, taps), DTYPES[p.acc])
    filters[:, :ocg] = wei.reshape(p.g, ocg, icg, taps)
    filters = filters.reshape(p.g, blocks, width, icg, taps)
    packed = np.empty((p.g, blocks, icg * taps, width), DTYPES[p.acc])
    for c in range(0, icg, DEPTH):
        many = min(DEPTH, icg - c)
        part = filters[:, :, :, c : c + many].transpose(0, 1, 4, 3, 2)
        packed[:, :, c * taps : (c + many) * taps] = part.reshape(p.g, blocks, taps * many, width)
    return packed.reshape(1, 1, 1, -1)


class _Steps(NamedTuple):
    """What a panel holds: of the padded image every g-th row and gx-th column, results q rows and qx columns of these apart."""

    g: int
    gx: int
    q: int
    qx: int
    kh_rows: int  # rows that one output row reads
    kx: int  # columns between two taps
    columns: int
    step: int  # elements between two columns of one phase
    blocks: int  # of channels


def _steps(p: Problem) -> _Steps:
    icg = p.ic // p.g
    # of one row or column of results no stride matters; a kernel of one row or column reads only every stride-th
    sh, sw = (p.sh if p.oh > 1 else 1), (p.sw if p.ow > 1 else 1)
    dh, dw = (p.dh if p.kh > 1 else sh), (p.dw if p.kw > 1 else sw)
    g, gx = gcd(sh, dh), gcd(sw, dw)
    columns = (p.ow - 1) * (sw // gx) + (p.kw - 1) * (dw // gx) + 1
    interleaved = p.src_layout == "nhwc" and p.ic > 1
    return _Steps(g, gx, sh // g, sw // gx, (p.kh - 1) * (dh // g) + 1, dw // gx, columns, DEPTH if interleaved else 1, -(-icg // DEPTH))


def _phase(s: _Steps, tile: Tile, lanes: int) -> int:
    """Columns of one phase of a row.

    The last tile of a narrow plane reads up to nx - 1 pixels beyond; a row that is split is written up to a vector beyond.
    """
    return -(-s.columns // s.qx) + max(tile.nx, lanes)


def _panel_rows(s: _Steps, tile: Tile, band_rows: int) -> int:
    return (band_rows + tile.ny - 2) * s.q + s.kh_rows


def _panel_bytes(s: _Steps, tile: Tile, lanes: int, size: int, band_rows: int, blocks: int) -> int:
    """Of a panel of so many rows of results and blocks of channels."""
    return _panel_rows(s, tile, band_rows) * _phase(s, tile, lanes) * s.qx * blocks * DEPTH * size


def _scratch(p: Problem, s: _Steps, tile: Tile, lanes: int, size: int, split: _Split) -> int:
    """Bytes of workspace of one thread."""
    tile_bytes = tile.mr * lanes * size * tile.ny * tile.nx
    oc_blocks = -(-(p.oc // p.g) // (tile.mr * lanes))
    tiles = -(-oc_blocks // split.parts) * -(-split.band_rows // tile.ny) * -(-p.ow // tile.nx)
    scratch = _panel_bytes(s, tile, lanes, size, split.band_rows, split.pass_blocks) + 256 + tile.mr * lanes * size
    scratch += (
        _split_bytes(s, lanes, size)
        + (LINES + 1) * (s.columns * s.gx + 2 * lanes) * size
        + tile_bytes * (1 + tiles * (split.pass_blocks < s.blocks))
    )
    return -(-scratch // 64) * 64


def _layout(p: Problem, tile: Tile, lanes: int, size: int, threads: int) -> tuple[Shape, Head, np.ndarray, int]:
    """The kernel's integers but for the strides, its tables, and the bytes of workspace of one thread."""
    s, icg, ocg = _steps(p), p.ic // p.g, p.oc // p.g
    phase = _phase(s, tile, lanes)
    oc_blocks = -(-ocg // (tile.mr * lanes))
    split = _split(p, s, tile, lanes, size, threads)
    part_blocks = -(-oc_blocks // split.parts)
    panel_rows = _panel_rows(s, tile, split.band_rows)
    row = phase * s.qx * size * (split.pass_blocks * DEPTH if s.step > 1 else 1)
    channel, block = (size, phase * s.qx * DEPTH * size) if s.step > 1 else (panel_rows * row, DEPTH * panel_rows * row)
    numbers = np.arange(s.columns, dtype=np.int64)
    inside, places = numbers * s.gx, ((numbers % s.qx) * phase + numbers // s.qx) * s.step * size
    down = (s.kh_rows - 1) // max(p.kh - 1, 1)
    offsets = (np.arange(p.kh)[:, None] * down * row + places[np.arange(p.kw) * s.kx]).reshape(-1)
    before, after = column_maps(p, max(int(inside[-1]) + 1 - p.pl - p.iw, 0))
    every = np.concatenate([before, np.arange(p.iw), after])
    has_bias = parse_epilogue(p.epilogue).bias
    splits, split_columns = _splits(s)
    shape = Shape(taps=p.kh * p.kw, channel=channel, block=block, step_y=s.q * row, dy=0, dx=0, dc=0)
    head = Head(
        planes=p.g, icg=icg, ocg=ocg, oh=p.oh, ow=p.ow, kh_rows=s.kh_rows, bands=-(-p.oh // split.band_rows), band_rows=split.band_rows,
        parts=-(-oc_blocks // part_blocks), part_blocks=part_blocks, passes=-(-s.blocks // split.pass_blocks),
        pass_blocks=split.pass_blocks, q=s.q, g=s.g, qx=s.qx, gx=s.gx, columns=s.columns, phase=phase,
        bias=int(has_bias), map_rows=p.ih_padded, nleft=p.pl, channels_last=int(s.step > 1), row=row, panel_rows=panel_rows,
        way=0, in_place=0,
        splits=splits, split_columns=split_columns, split_bytes=_split_bytes(s, lanes, size), sn=0, sc=0, sy=0, sx=0, dn=0,
    )  # fmt: skip
    line = span(-p.pl, (s.columns - 1) * s.gx + 1, p.iw)
    tables = np.concatenate([np.array(line), offsets, row_map(p), every[inside], places, before, after])
    return shape, head, tables, _scratch(p, s, tile, lanes, size, split)


def _splits(s: _Steps) -> tuple[int, int]:
    """How often rows of planes are split into even and odd columns, where that is more than once, and columns in whole phases."""
    splits = s.qx.bit_length() - 1 if s.step == 1 and s.gx == 1 and s.qx in (4, 8, 16) else 0
    return splits, -(-s.columns // s.qx) * s.qx


def _split_bytes(s: _Steps, lanes: int, size: int) -> int:
    """Of both buffers between the splits; a part of a row is written, and read, up to two vectors beyond its end."""
    splits, columns = _splits(s)
    return 2 * (columns + (s.qx + 2) * lanes) * size if splits else 0


class _Split(NamedTuple):
    """How the work is cut: rows of a band, parts of the output channels, channel blocks of one pass."""

    band_rows: int
    parts: int
    pass_blocks: int


def _split(p: Problem, s: _Steps, tile: Tile, lanes: int, size: int, threads: int) -> _Split:
    """Panels that fit the cache with the least traffic, then the threads' shares.

    Every further band reads the weights once more, every further pass over the channels writes and reads all sums.
    """
    oc_blocks = -(-(p.oc // p.g) // (tile.mr * lanes))
    weights, sums = p.oc * p.taps * size, 2 * p.oc * p.oh * p.ow * size
    whole = _panel_bytes(s, tile, lanes, size, tile.ny, s.blocks) // _panel_rows(s, tile, tile.ny) * p.oh * s.q
    fewest = min(max(1, -(-whole // _PANEL_BYTES)), p.oh)
    found = []
    for bands in {1, 2, 3, 4, fewest} if fewest > 4 else range(1, fewest + 1):
        rows = _band_rows(p, tile, bands)
        blocks = min(max(_PANEL_BYTES // _panel_bytes(s, tile, lanes, size, rows, 1), 1), s.blocks)
        if sums // (2 * bands) > _PANEL_BYTES or bands == fewest:
            blocks = s.blocks
        passes = -(-s.blocks // blocks)
        too_long = blocks == s.blocks and bands < fewest
        found.append((too_long, (bands - 1) * weights + (passes - 1) * sums, bands, -(-s.blocks // passes)))
    *_, bands, pass_blocks = min(found)
    parts = 1
    if p.n * p.g * bands < 4 * threads:
        row_bytes = _panel_bytes(s, tile, lanes, size, tile.ny, s.blocks) // _panel_rows(s, tile, tile.ny) * s.q
        bands, parts = min(
            ((bands * more, parts) for more, parts in ((1, 1), (threads, 1), (1, threads))),
            key=lambda split: _longest_share(p, tile, *split, oc_blocks, threads, row_bytes),
        )
    # a unit is not interrupted
    seconds = costs.blocked_seconds(p, lanes, tile.mr, tile.ny, tile.nx) / max(p.n * p.g, 1)
    bands = max(bands, min(ceil(seconds / (parts * costs.UNIT_SECONDS)), p.oh))
    parts = max(parts, min(ceil(seconds / (bands * costs.UNIT_SECONDS)), oc_blocks))
    return _Split(_band_rows(p, tile, bands), parts, pass_blocks)


def _band_rows(p: Problem, tile: Tile, bands: int) -> int:
    """Rows of one of ``bands`` bands: whole tiles."""
    rows = ceil(p.oh / bands)
    return ceil(rows / tile.ny) * tile.ny


def _longest_share(p: Problem, tile: Tile, bands: int, parts: int, oc_blocks: int, threads: int, row_bytes: int) -> float:
    """Work of the busiest thread: tiles of its units, and the packing of a panel for each."""
    band_rows = _band_rows(p, tile, bands)
    part_blocks = -(-oc_blocks // parts)
    units = []
    for part in range(0, oc_blocks, part_blocks):
        for y in range(0, p.oh, band_rows):
            rows, blocks = min(band_rows, p.oh - y), min(part_blocks, oc_blocks - part)
            tiles = -(-rows // tile.ny) * -(-p.ow // tile.nx) * blocks
            units.append(tiles * tile.mr * tile.ny * tile.nx * p.taps + (rows + p.kh) * row_bytes / costs.PACKED_BYTES)
    units *= min(p.n * p.g, 2 * threads)
    shares = [units[len(units) * i // threads : len(units) * (i + 1) // threads] for i in range(threads)]
    return max(map(sum, shares))
