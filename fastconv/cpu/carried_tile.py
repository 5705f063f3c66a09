"""carried_tile: few rows of a small kernel's results, along the row; each pixel is loaded once and its neighbours come by lane shifts."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .finish import finish_rows
from .simd import KINDS, Emitter, literal
from .tile import TAPS_AT

# Tiles from one to that whose lines of results are fetched meanwhile, to be written: stores wait for lines in order, and two rows are soon
# summed.  512x512 takes 61 us instead of 81, 1024x1024 387 instead of 500 (one core of two 512-bit FMA units, 2026-11).
_AHEAD = 4


@intrinsic(prefer_literal=True)
def carried_tile(
    typing_context: Any, spec: Any, start: Any, finish: Any, table: Any, xoff: Any, left: Any, left_at: Any, right: Any, right_at: Any,
    dst: Any, dst_pitch: Any, count: Any, past: Any,
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``rows x vecs`` vectors of one output plane of one channel, all strides 1.

    ``dst[i, x] = start + sum_{ky, kx} row(i + ky)[xoff + x + kx - lead] * wei[ky, kx]``

    ``spec = (kind, lanes, rows, vecs, kh, kw, lead, fma)``.  ``start`` is the address of the first addend, ``wei`` at ``start + TAPS_AT``
    as ``[kx][ky]``, ``finish`` that of the numbers of `finish_rows` or 0.  ``table[r]`` is the address of row r.  The ``lead`` pixels
    before the first tile are those at ``table[r + left] + left_at``, the ``kw - 1 - lead`` after the last at
    ``table[r + right] + right_at``; all these offsets are bytes.  Order of accumulation: ky, kx.

    Between tiles the last vector of each row is carried over in a register: no load touches a line that the tile before has stored to,
    modulo 4 KiB, where source and result lie alike; such loads wait for the stores.  Whole tiles are stored, past the caches where
    ``past`` is not 0 and there is no ``finish``: ``dst`` and ``dst_pitch`` are then multiples of a vector's bytes.
    Reads those pixels only.  No tails, no borders.
    """
    kind, lanes, rows, vecs, kh, kw, lead, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _CarriedTile(Emitter(builder, kind, lanes, bool(fma)), rows, vecs, kh, kw, lead).emit_tiles(*arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 12), codegen


@intrinsic(prefer_literal=True)
def edge_pixels(typing_context: Any, kind: Any, count: Any, dst: Any, row: Any, columns: Any, fill: Any) -> Any:
    """``edge_pixels(kind, count, dst, row, columns, fill)``: the pixels of a row at a table of columns, ``fill`` where it holds -1."""
    name, many = literal(kind), literal(count)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, row, columns, fill = arguments[2:]
        emit = Emitter(builder, name, 1, False)
        for n in range(many):
            emit.mapped(
                emit.variable(emit.offset(dst, n * emit.itemsize)), emit.variable(emit.offset(columns, 8 * n)), row, fill, emit.constant(1)
            )
        return context.get_dummy_value()

    return types.void(kind, count, *[types.int64] * 3, KINDS[name][1]), codegen


class _CarriedTile:
    """The code of one specialisation."""

    def __init__(self, emit: Emitter, rows: int, vecs: int, kh: int, kw: int, lead: int) -> None:
        self.emit, self.rows, self.vecs, self.kh, self.kw, self.lead = emit, rows, vecs, kh, kw, lead
        self.bits = emit.bits()

    def emit_tiles(
        self, start: Any, finish: Any, table: Any, xoff: Any, left: Any, left_at: Any, right: Any, right_at: Any, dst: Any, dst_pitch: Any,
        count: Any, past: Any,
    ) -> None:  # fmt: skip
        emit, build = self.emit, self.emit.builder
        first, wei, size = emit.splat(start), emit.offset(start, TAPS_AT), emit.itemsize
        taps = [[emit.splat(emit.offset(wei, (kx * self.kh + ky) * size)) for kx in range(self.kw)] for ky in range(self.kh)]
        carried = [emit.variable(self.before(emit.offset(emit.load_integer(emit.offset(table, left, 8 * r)), left_at)))
                   for r in range(self.rows + self.kh - 1)]  # fmt: skip
        at, to, many = emit.variable(xoff), emit.variable(dst), emit.variable(count)
        with emit.loop(count):
            here, rest = emit.get(at), emit.offset(emit.get(many), -1)
            following = emit.offset(here, self.vecs * emit.width)
            is_last = build.icmp_unsigned("==", rest, emit.constant(0))
            after = build.select(is_last, emit.offset(table, right), table)
            after_at = build.select(is_last, right_at, following)
            with emit.case(past, 1):
                for r in range(self.kh - 1, self.rows + self.kh - 1):
                    row = emit.offset(emit.load_integer(emit.offset(table, 8 * r)), following)
                    for vec in range(self.vecs):
                        emit.prefetch(emit.offset(row, vec * emit.width), 1)
            with emit.case(past, 0):
                for i in range(self.rows):
                    for vec in range(_AHEAD * self.vecs, (_AHEAD + 1) * self.vecs):
                        emit.prefetch(emit.offset(emit.get(to), emit.times(dst_pitch, i), vec * emit.width), 1, write=True)
            sums = [[first] * self.vecs for _ in range(self.rows)]
            for r in range(self.rows + self.kh - 1):
                row = emit.offset(emit.load_integer(emit.offset(table, 8 * r)), here)
                beyond = emit.offset(emit.load_integer(emit.offset(after, 8 * r)), after_at)
                self.row(r, sums, taps, row, beyond, carried[r])
            self.store(sums, finish, emit.get(to), dst_pitch, past)
            emit.set(at, following)
            emit.set(to, emit.offset(emit.get(to), self.vecs * emit.width))
            emit.set(many, rest)

    def before(self, address: Any) -> Any:
        """The vector whose last lanes are the ``lead`` pixels at an address."""
        bits, lead = self.bits, self.lead
        if not lead:
            return bits.undefined()
        few = bits.load_first(address, lead)
        return bits.pick(few, few, [max(lane - bits.lanes + lead, 0) for lane in range(bits.lanes)])

    def row(self, r: int, sums: list[list[Any]], taps: list[list[Any]], row: Any, beyond: Any, carried: Any) -> None:
        """One row of pixels times the taps of every output row that it lies under."""
        emit, bits, lanes = self.emit, self.bits, self.emit.lanes
        # as integers, whose lane shifts LLVM makes one instruction of
        vectors = [emit.get(carried), *(bits.load(emit.offset(row, vec * emit.width)) for vec in range(self.vecs))]
        if self.lead:
            emit.set(carried, vectors[-1])
        vectors.append(bits.load_first(beyond, self.kw - 1 - self.lead) if self.kw - 1 > self.lead else bits.undefined())
        uses = [(i, r - i) for i in range(self.rows) if 0 <= r - i < self.kh]
        for kx in range(self.kw):
            shift = lanes + kx - self.lead
            pixels = []
            for vec in range(self.vecs):
                a, b = vectors[vec + shift // lanes], vectors[min(vec + shift // lanes + 1, self.vecs + 1)]
                pixels.append(emit.values(bits.pick(a, b, range(shift % lanes, shift % lanes + lanes))))
            for i, ky in uses:
                for vec in range(self.vecs):
                    sums[i][vec] = emit.multiply_add(pixels[vec], taps[ky][kx], sums[i][vec])
        done = iter(emit.fence([sums[i][vec] for i, _ in uses for vec in range(self.vecs)]))
        for i, _ in uses:
            sums[i] = [next(done) for _ in range(self.vecs)]

    def store(self, sums: list[list[Any]], finish: Any, dst: Any, dst_pitch: Any, past: Any) -> None:
        """The sums, through the activation where there is one."""
        emit = self.emit

        def at(i: int, vec: int) -> Any:
            return emit.offset(dst, emit.times(dst_pitch, i), vec * emit.width)

        def store_rows(values: list[list[Any]], store: Any) -> None:
            for i, row in enumerate(values):
                for vec, value in enumerate(row):
                    store(at(i, vec), value)

        with emit.either(finish) as (activated, plain):
            with activated:
                finish_rows(emit, finish, sums, at, emit.store, True)
            with plain, emit.either(past) as (streamed, kept):
                with streamed:
                    store_rows(sums, emit.store_past)
                with kept:
                    store_rows(sums, emit.store)
