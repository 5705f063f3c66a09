"""blocked_pack: the panel of pixels and the blocks of weights that the tiles of `blocked` read.

An element of either holds ``q`` channels: one float, two integers of 16 bits or four of 8.
"""

from __future__ import annotations

from collections import namedtuple
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning import cost as costs
from ..planning.calls import Bounded
from ..planning.plans import Launch
from ..planning.problem import DTYPES, Problem
from ..planning.workspaces import new_result
from .blocked_tile import DEPTH, Form, Shape
from .border import Span, stage_row
from .compile import Kernel, kernel
from .convert import copy_as, stored_bytes
from .memory import copy, fill_row, integers, peek, poke, split, unrolled_by_hand
from .simd import KINDS, Emitter, literal
from .threads import Job, Region
from .weights_tile import turn

_ROWS_AHEAD = 12  # of weights that are asked for
_PARTS = 8  # for each thread, of rows of weights
LINES = 8  # padded rows that are written before they are read again: what a vector reads is then no longer on its way to the cache
MOST_LINES = LINES + LINES // 2 + 1  # and those joined of several, and what no tap reads of one
# The integers that the kernel receives: those of the tile, these (first its address, rows and columns of pixels, output channels), the
# span of a packed row, the panel's offset of each tap, the row map, image column and panel place of each packed column, the two column
# maps.  ``icg`` counts elements, ``channels`` channels of a group; ``head`` bytes lie before the weights.  Where ``filters`` is not 0, it
# packs a block of the caller's weights at ``filters_at`` in the workspace, by the integers at ``integers_at`` behind these; of those that
# come next ``soon_row`` bytes lie between channels, 0 if each filter's do side by side, -1 if they are not asked for.  Whole
# blocks are read where they lie, ``filters_row`` bytes between channels, unless that is 0.  Where ``held`` is 1 all of a
# unit have a place there.  Where rows are `merged`, the last one begins ``short`` pixels
# earlier.  Where ``past`` is not 0, results that begin at a cache line are stored past the caches.
Head = namedtuple(
    "Head",
    "tile ny nx width planes icg channels ocg oh ow kh_rows bands band_rows strip_rows parts part_blocks passes pass_blocks q g qx gx "
    "columns splits split_columns split_bytes phase bias map_rows nleft channels_last row panel_rows in_place active head way past packer "
    "beyond merges short tile_rows filters filters_at integers_at soon_row filters_row held sn sc sy sx dn",
)
HEAD_AT = 8 * len(Shape._fields)
TABLES_AT, SPAN_BYTES = HEAD_AT + 8 * len(Head._fields), 8 * len(Span._fields)
# What a band's kernel asks of the one at ``packer``: ``many`` elements of ``channels`` channels from the address ``plane`` on to ``panel``,
# over the lines at ``lines``.
Request = namedtuple("Request", "plane panel lines many channels")


class Steps(NamedTuple):
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
    ow: int

    @property
    def splits(self) -> int:
        """How often a row of a plane is split into even and odd columns until each phase is on its own; 0: copied by columns."""
        return {(1, 2): 1, (2, 1): 1, (4, 1): 2, (8, 1): 3, (16, 1): 4}.get((self.qx, self.gx), 0) if self.step == 1 else 0

    @property
    def split_columns(self) -> int:
        """Columns of a row in whole phases."""
        return -(-self.columns // self.qx) * self.qx * self.gx

    def split_bytes(self, lanes: int, size: int) -> int:
        """Of two buffers between splits: a part of a row is written, and read, up to two vectors beyond its end."""
        return 2 * (self.split_columns + self.qx * lanes) * size if self.splits > 1 else 0


def steps_of(p: Problem) -> Steps:
    icg = p.ic // p.g
    # of one row or column of results no stride matters; a kernel of one row or column reads only every stride-th
    sh, sw = (p.sh if p.oh > 1 else 1), (p.sw if p.ow > 1 else 1)
    dh, dw = (p.dh if p.kh > 1 else sh), (p.dw if p.kw > 1 else sw)
    g, gx = gcd(sh, dh), gcd(sw, dw)
    columns = (p.ow - 1) * (sw // gx) + (p.kw - 1) * (dw // gx) + 1
    interleaved = p.src_layout == "nhwc" and p.ic > 1
    return Steps(g, gx, sh // g, sw // gx, (p.kh - 1) * (dh // g) + 1, dw // gx, columns, DEPTH if interleaved else 1, -(-icg // DEPTH),
                 p.ow)  # fmt: skip


@intrinsic(prefer_literal=True)
def _pack_pixel(typing_context: Any, part: Any, lanes: Any, stored: Any, flip: Any, dst: Any, src: Any, count: Any) -> Any:
    """``count`` channels of one pixel, of type ``stored``, side by side as ``part``; the bits of ``flip`` flipped."""
    kind, width, source, bits = literal(part), literal(lanes), literal(stored), literal(flip)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        copy_as(Emitter(builder, kind, width, False), source, *arguments[4:], bits)
        return context.get_dummy_value()

    return types.void(part, lanes, stored, flip, *[types.int64] * 3), codegen


@intrinsic(prefer_literal=True)
def _interleave(typing_context: Any, lanes: Any, q: Any, flip: Any, dst: Any, src: Any, step: Any, count: Any) -> Any:
    """``count`` elements of 32 bits: parts x of ``q`` rows that are ``step`` bytes apart, the bits of ``flip`` in each flipped.

    Whole vectors: reads and writes up to ``lanes`` elements beyond the end.
    """
    width, parts, bits = literal(lanes), literal(q), literal(flip)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, src, step, count = arguments[3:]
        emit = Emitter(builder, "i32", width, False)
        to, place = emit.variable(dst), emit.variable(src)
        with emit.loop(emit.quotient(emit.offset(count, width - 1), width)):
            size = emit.itemsize // parts
            rows = [emit.of(f"i{8 * size}").load(emit.offset(emit.get(place), emit.times(step, n))) for n in range(parts)]
            while len(rows) > 1:
                size *= 2
                wide = emit.of(f"i{8 * size}")
                zipped = [emit.pick(a, b, [n + side for n in range(width) for side in (0, width)])
                          for a, b in zip(rows[::2], rows[1::2], strict=True)]  # fmt: skip
                rows = [builder.bitcast(row, wide.vector) for row in zipped]
            every = sum((bits & 0xFF) << 8 * n for n in range(4))  # of bytes alone bits are flipped
            emit.store(emit.get(to), builder.xor(rows[0], emit.number(every)) if bits else rows[0])
            emit.set(to, emit.offset(emit.get(to), emit.width))
            emit.set(place, emit.offset(emit.get(place), emit.width // parts))
        return context.get_dummy_value()

    return types.void(lanes, q, flip, *[types.int64] * 4), codegen


def _panel_factory(kind: str, lanes: int, q: int, stored: str, flip: int) -> Any:
    """The kernel that packs rows ``u0 .. u1 - 1`` of a band for one pass over the channels, ``request`` being a `Request`'s address.

    A kernel of its own, since those of all tiles, layouts and epilogues call it: with it inlined each compiles in 4.2 s instead of 2.1.
    The bits of ``flip`` are flipped in each channel: signed bytes whose products are added by VNNI are made unsigned, 128 more.
    """
    size = KINDS[kind][2]
    # of a channel within an element
    part = kind if q == 1 else f"i{8 * size // q}"
    wide, part_bytes = lanes * q, stored_bytes(stored)
    own_bytes = size // q
    together = LINES // q

    def pack_panel(job: Any, request: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at, wanted = integers(job, Job), integers(request, Request)
        plane, panel, lines_at, many, channels = wanted.plane, wanted.panel, wanted.lines, wanted.many, wanted.channels
        s, e = integers(at.extents, Shape), integers(at.extents + HEAD_AT, Head)
        row_span = at.extents + TABLES_AT
        row_at = row_span + SPAN_BYTES + s.taps * 8
        column_at = row_at + e.map_rows * 8
        place_at = column_at + e.columns * 8
        maps = place_at + (e.columns + e.nleft) * 8
        fill, fill_part = peek(kind, at.values), peek(part, at.values + (5 * size if q > 1 else 0))
        blocks = (many + DEPTH - 1) // DEPTH
        line_bytes = (e.columns * e.gx + 2 * lanes) * size
        joined_at = lines_at + LINES * line_bytes
        unread_at = joined_at + LINES // 2 * line_bytes
        split_at = unread_at + line_bytes
        step = DEPTH if e.channels_last else 1
        dense, phases = e.qx * e.gx == 1 and e.sx == part_bytes, e.splits > 0 and e.sx == part_bytes
        for r in range(u1 - u0):
            row = peek("i64", row_at + (u0 + r) * e.g * 8)
            line = plane + row * e.sy
            if e.channels_last:
                for x in range(e.columns):
                    column = peek("i64", column_at + x * 8)
                    place = panel + r * e.row + peek("i64", place_at + x * 8)
                    pixel = line + column * e.sx
                    if row < 0 or column < 0:
                        for cb in range(blocks):
                            fill_row(kind, lanes, place + cb * s.block, DEPTH, fill)
                    else:
                        for cb in range(blocks - 1):
                            _pack_pixel(part, wide, stored, flip, place + cb * s.block, pixel + cb * DEPTH * q * part_bytes, DEPTH * q)
                        done = (blocks - 1) * DEPTH * q
                        _pack_pixel(part, wide, stored, flip, place + (blocks - 1) * s.block, pixel + done * part_bytes, channels - done)
                continue
            for c0 in range(0, many, together):
                to = panel + c0 // DEPTH * s.block + r * e.row + c0 % DEPTH * s.channel
                block_lines = min(together, many - c0)
                if row < 0:
                    for c in range(block_lines):
                        fill_row(kind, lanes, to + c * s.channel, e.qx * e.phase, fill)
                elif dense or phases:
                    if q > 1:
                        for c in range(block_lines * q):
                            source = line + min(c0 * q + c, channels - 1) * e.sc
                            stage_row(part, wide, stored, lines_at + c * line_bytes, source, row_span, maps, fill_part)
                        for c in range(block_lines):
                            joined = to + c * s.channel if dense else joined_at + c * line_bytes
                            _interleave(lanes, q, flip, joined, lines_at + c * q * line_bytes, line_bytes, e.columns * e.gx)
                    else:
                        for c in range(block_lines):
                            joined = to + c * s.channel if dense else lines_at + c * line_bytes
                            stage_row(part, wide, stored, joined, line + (c0 + c) * e.sc, row_span, maps, fill_part)
                    if phases:
                        # padded rows, then their even and odd columns, and those of these; the odd ones of gx = 2 are read by no tap
                        for c in range(block_lines):
                            held, other = (joined_at if q > 1 else lines_at) + c * line_bytes, split_at
                            count = e.split_columns
                            for level in range(e.splits):
                                count //= 2
                                ends, parts = level == e.splits - 1, 1 << level
                                first_to = to + c * s.channel if ends else other
                                pitch = (e.phase if ends else count + 2 * lanes) * size
                                for n in range(parts):
                                    even = first_to + n * pitch
                                    odd = even + parts * pitch if e.qx > 1 else unread_at
                                    split(kind, lanes, even, odd, held + n * 2 * (count + lanes) * size, count)
                                held, other = other, (split_at if level % 2 else split_at + e.split_bytes // 2)
                else:
                    for c in range(block_lines):
                        for x in range(e.columns):
                            column = peek("i64", column_at + x * 8)
                            place = to + c * s.channel + peek("i64", place_at + x * 8)
                            if column < 0:
                                poke(kind, place, fill)
                            else:
                                for j in range(q):
                                    source = line + min((c0 + c) * q + j, channels - 1) * e.sc + column * e.sx
                                    _pack_pixel(part, 1, stored, flip, place + j * own_bytes, source, 1)
        # What narrow tiles read and no result is made of is zeros: left by others it may be subnormal numbers, of which a product takes
        # 150 cycles (8x8 f32, 32 to 32 channels, k3: 390 us instead of 20).
        narrow, nothing = q == 1 and (e.beyond or u1 - u0 < e.tile_rows), peek(kind, at.values + 4 * size)
        for phase in range(e.qx if narrow else 0):
            vacant = (e.columns - phase + e.qx - 1) // e.qx
            for r in range(max(u1 - u0, e.tile_rows)):
                first, count = (vacant, e.beyond) if r < u1 - u0 else (0, e.phase)
                for c in range(0, many, step):
                    to = panel + c // DEPTH * s.block + c % DEPTH * s.channel + r * e.row
                    fill_row(kind, lanes, to + (phase * e.phase + first) * step * size, count * step, nothing)

    return pack_panel


def panel_packer(form: Form, lanes: int) -> Kernel:
    """The kernel that packs a form's panels."""
    kind, q, stored, flip = form.kind, form.q, form.src, flipped(form)
    name = f"pack_panel_{kind}" + f"_{stored}" * (stored != kind) + f"_q{q}" * (q > 1) + "_flipped" * (flip != 0) + f"_{lanes}"
    return kernel(name, _panel_factory, (kind, lanes, q, stored, flip))


def flipped(form: Form) -> int:
    """The bits of a source's channel that are flipped in the panel."""
    return -128 if (form.how, form.src) == ("bytes", "i8") else 0


# What the kernel that packs weights receives; behind them, for each channel and tap, the offsets in the caller's weights and in a block,
# and what `_pack_rows` reads beyond these.
# Where ``square`` is not 0, elements that come one after the other lie side by side, so many together.
# ``run`` taps of a channel lie side by side, forwards or, where it is negative, backwards; else it is 0.
# Where ``each`` is not 0, a unit of work is so many rows of all filters of a group, of which there are ``parts``.
Filters = namedtuple("Filters", "ocg width many rows wg wo group_bytes block_bytes square run each parts")
_FILTERS_BYTES = 8 * len(Filters._fields)


@intrinsic(prefer_literal=True)
def _pack_square(typing_context: Any, kind: Any, lanes: Any, src: Any, step: Any, last: Any, places: Any, dst: Any) -> Any:
    """``lanes`` elements of each of ``lanes`` filters, ``step`` bytes apart (those beyond ``last`` repeat it), turned.

    Element j of all filters goes to ``dst`` plus the j-th of the integers at ``places``.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        src, step, last, places, dst = arguments[2:]
        emit = Emitter(builder, name, width, False)
        rows = []
        for n in range(width):
            number = builder.select(builder.icmp_signed("<", emit.constant(n), last), emit.constant(n), last)
            rows.append(emit.load(emit.offset(src, emit.times(number, step))))
        for n, column in enumerate(emit.transpose(rows)):
            emit.store(emit.offset(dst, emit.load_integer(emit.offset(places, 8 * n))), column)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 5), codegen


@intrinsic(prefer_literal=True)
def _pack_rows(
    typing_context: Any, kind: Any, lanes: Any, src: Any, sources: Any, places: Any, dst: Any, rows: Any, vectors: Any
) -> Any:  # fmt: skip
    """``vectors`` from ``src`` plus each of ``rows`` integers at ``sources`` to ``dst`` plus that at ``places``, which lie behind those.

    Those some rows further on are asked for: they lie far apart, where no prefetcher finds them.  So as many integers more are read.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        src, sources, places, dst, rows, vectors = arguments[2:]
        emit = Emitter(builder, name, width, False)
        entry, at = emit.variable(sources), emit.variable(places)
        with emit.loop(rows):
            here, place = emit.get(entry), emit.get(at)
            soon = emit.variable(emit.offset(src, emit.load_integer(emit.offset(here, 8 * _ROWS_AHEAD))))
            source, to = emit.variable(emit.offset(src, emit.load_integer(here))), emit.variable(emit.offset(dst, emit.load_integer(place)))
            with emit.loop(vectors):
                emit.prefetch(emit.get(soon), 1)
                emit.store(emit.get(to), emit.load(emit.get(source)))
                for variable in (soon, source, to):
                    emit.set(variable, emit.offset(emit.get(variable), emit.width))
            emit.set(entry, emit.offset(here, 8))
            emit.set(at, emit.offset(place, 8))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def _spread(typing_context: Any, kind: Any, lanes: Any, dst: Any, step: Any, src: Any, blocks: Any, vectors: Any) -> Any:
    """``blocks`` of ``vectors`` each, one behind the other at ``src``, to ``dst`` and every ``step`` bytes behind it."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, step, src, blocks, vectors = arguments[2:]
        emit = Emitter(builder, name, width, False)
        block, source = emit.variable(dst), emit.variable(src)
        with emit.loop(blocks):
            to = emit.variable(emit.get(block))
            with emit.loop(vectors):
                emit.store(emit.get(to), emit.load(emit.get(source)))
                for variable in (source, to):
                    emit.set(variable, emit.offset(emit.get(variable), emit.width))
            emit.set(block, emit.offset(emit.get(block), step))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 5), codegen


def _filters_factory(kind: str, lanes: int) -> Any:
    """Weights as ``[g][o / width][c / 16][tap][c % 16][o % width]``; filters beyond the last are zeros, or repeat it.

    A unit of work is one vector of filters.  ``at.src`` are the caller's weights, of any strides, ``at.dst`` the packed ones.
    Filters that lie side by side are read as they lie, row by row, where all are packed: those of a block are far apart, in lines of which
    memory gives fewer in a time (8 images of 512 to 512 channels at 14x14, stride 2: 4.0 ms with the packing instead of 4.3; two cores, Zen
    5, 2026-11).
    """
    size = KINDS[kind][2]

    def pack_filters(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Filters)
        sources = at.extents + _FILTERS_BYTES
        places = sources + e.rows * 8
        for u in range(u0 if e.each else u1, u1):
            group, first = u // e.parts, u % e.parts * e.each
            whole = e.ocg // e.width
            for j in range(first, min(first + e.each, e.rows)):
                row, to = at.src + group * e.wg + peek("i64", sources + 8 * j), at.dst + group * e.group_bytes + peek("i64", places + 8 * j)
                _spread(kind, lanes, to, e.block_bytes, row, whole, e.width // lanes)
                if whole * e.width < e.ocg:
                    to += whole * e.block_bytes
                    fill_row(kind, lanes, to, e.width, peek(kind, at.values))
                    copy(kind, lanes, to, row + whole * e.width * size, e.ocg - whole * e.width)
        for u in range(u1 if e.each else u0, u1):
            group, o = u // e.many, u % e.many * lanes
            filters = at.src + group * e.wg + o * e.wo
            to = at.dst + group * e.group_bytes + o // e.width * e.block_bytes + o % e.width * size
            last = min(lanes, e.ocg - o) - 1
            if last < lanes - 1:
                for j in range(e.rows):
                    fill_row(kind, lanes, to + peek("i64", places + j * 8), lanes, peek(kind, at.values))
            if last < 0:
                continue
            if e.square:
                for start in range(0, e.rows, e.square):
                    source = filters + peek("i64", sources + start * 8)
                    for first in range(0, e.square, lanes):
                        j = min(first, e.square - lanes)
                        _pack_square(kind, lanes, source + j * size, e.wo, last, places + (start + j) * 8, to)
            elif e.run != 0:
                for j in range(0, e.rows, abs(e.run)):
                    low = j if e.run > 0 else j - e.run - 1
                    step = peek("i64", places + 8 * (j + 1)) - peek("i64", places + 8 * j)
                    turn(kind, lanes, to + peek("i64", places + 8 * low), step if e.run > 0 else -step,
                         filters + peek("i64", sources + 8 * low), e.wo, last + 1, abs(e.run))  # fmt: skip
            elif e.wo == size and last == lanes - 1:
                # whole vectors of one block together: they lie side by side, the next row far away
                together = min(u1 - u, e.width // lanes - o % e.width // lanes, (e.ocg - o) // lanes)
                if u == u0 or o % e.width == 0:
                    _pack_rows(kind, lanes, filters, sources, places, to, e.rows, together)
            elif e.wo == size:
                for j in range(e.rows):
                    place = to + peek("i64", places + j * 8)
                    copy(kind, lanes, place, filters + peek("i64", sources + j * 8), last + 1)
            else:
                for j in range(e.rows):
                    place, source = to + peek("i64", places + j * 8), filters + peek("i64", sources + j * 8)
                    for lane in range(last + 1):
                        poke(kind, place + lane * size, peek(kind, source + lane * e.wo))

    return pack_filters


def _in_runs(sources: np.ndarray, together: int, size: int) -> bool:
    """Whether so many elements at a time lie side by side."""
    runs = sources.reshape(-1, together)
    return bool((runs == runs[:, :1] + np.arange(together) * size).all())


def _lines(count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """``(1, 1, 1, count)`` from the start of a cache line: a vector that lies in two takes as long as two."""
    spare = 64 // dtype.itemsize
    memory = new_result((1, 1, 1, count + spare), dtype)
    first = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[..., first : first + count]


class FilterPacker:
    """Packs a problem's weights for tiles of ``width`` output channels; the launches of a few strides are remembered.

    ``p`` is the problem whose channels are elements of type ``kind``; ``head`` elements before the weights are left to the caller.
    """

    def __init__(self, p: Problem, kind: str, lanes: int, width: int, threads: int, head: int = 0) -> None:
        self._p, self._kind, self._lanes, self._width, self._threads, self.head = p, kind, lanes, width, threads, head
        self._region = Region(f"pack_filters_{kind}_{lanes}", _filters_factory, (kind, lanes), kind)
        self._launches: Bounded[Launch] = Bounded(4)
        self._icg, self._ocg, self._taps = p.ic // p.g, p.oc // p.g, p.kh * p.kw
        self._blocks = -(-self._ocg // width)

    def __call__(self, p: Problem, wei: np.ndarray) -> np.ndarray:
        """``(1, 1, 1, n)``."""
        dtype = DTYPES[self._kind]
        wei = wei.astype(dtype, copy=False)
        size = self._p.g * self._blocks * self._width * self._icg * self._taps
        packed = _lines(self.head + size, dtype)
        filters = packed[..., self.head :]
        launch = self._launches.get(wei.strides)
        if launch is None:
            launch = self._launches.keep(wei.strides, self._launch(wei, filters))
        launch(wei, filters, None, filters)
        return packed

    def _rows(self) -> np.ndarray:
        """The place of each channel and tap in a block."""
        channel, tap = np.divmod(np.arange(self._icg * self._taps), self._taps)
        block = channel // DEPTH * DEPTH
        return block * self._taps + tap * np.minimum(self._icg - block, DEPTH) + channel - block

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """The elements as ``(oc, ic/g, kh, kw)``."""
        p = self._p
        filters = packed[0, 0, 0, self.head :].reshape(p.g, self._blocks, -1, self._width)[:, :, self._rows()]
        filters = filters.transpose(0, 1, 3, 2).reshape(p.g, self._blocks * self._width, -1)[:, : self._ocg]
        return filters.reshape(p.oc, self._icg, p.kh, p.kw)

    def kernel(self) -> Kernel:
        """The compiled kernel."""
        return self._region.kernel()

    def integers(self, wei: np.ndarray) -> np.ndarray:
        """What the kernel receives for weights of these strides, ``(oc, ic/g, kh, kw)`` or ``(g, oc/g, ic/g, kh, kw)``."""
        p, size, ocg, rows = self._p, KINDS[self._kind][2], self._ocg, self._icg * self._taps
        wo, wc, wy, wx = wei.strides[-4:]
        wg = wei.strides[0] if wei.ndim > 4 else ocg * wo
        channel, tap = np.divmod(np.arange(rows), self._taps)
        sources = channel * wc + tap // p.kw * wy + tap % p.kw * wx
        many = self._blocks * self._width // self._lanes
        places = self._rows()
        block_bytes = self._width * rows * size
        dense = self._taps > 1 and abs(wx if p.kw > 1 else wy) == size and (min(p.kh, p.kw) == 1 or wy == p.kw * wx)
        run = self._taps * (1 if (wx if p.kw > 1 else wy) > 0 else -1) if dense else 0
        # as they lie in memory, they are found to lie side by side if they do; and further apart than a page, no page is visited twice
        order = np.argsort(sources, kind="stable")
        if not run or (order == np.arange(rows)).all():
            sources, places = sources[order], places[order]
        together = int(np.argmax(np.append(np.diff(sources) != size, True))) + 1
        square = together if together >= self._lanes and rows % together == 0 and _in_runs(sources, together, size) else 0
        integers = Filters(ocg=ocg, width=self._width, many=many, rows=rows, wg=wg, wo=wo, group_bytes=self._blocks * block_bytes,
                           block_bytes=block_bytes, square=square, run=run, each=0, parts=1)  # fmt: skip
        ahead = np.zeros(_ROWS_AHEAD, np.int64)
        return np.concatenate([np.array(integers, np.int64), sources, places * self._width * size, ahead])

    def _launch(self, wei: np.ndarray, filters: np.ndarray) -> Launch:
        units, seconds = self._p.g * self._blocks * self._width // self._lanes, filters.nbytes / costs.BYTES_PER_SECOND
        values, integers = np.zeros(8, filters.dtype), self.integers(wei)
        e = Filters(*integers[: len(Filters._fields)])
        if e.wo == filters.itemsize and not e.square and not e.run:
            each = -(-e.rows // (_PARTS * self._threads))
            parts = -(-e.rows // each)
            units = self._p.g * parts
            integers[: len(Filters._fields)] = e._replace(each=each, parts=parts)
        return self._region.launcher(integers, values, 0, units, self._threads, seconds, wei, filters, filters)
