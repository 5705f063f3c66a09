"""whole_tile: the passes of separable over bytes whose weights are small whole numbers, in 16-bit integers: twice the pixels in a vector.

Sums are exact modulo 2^16, so that their order does not matter: those of a box slide down and double along.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .compile import helper
from .convert import load_as, store_as, stored_bytes
from .memory import peek, poke
from .separable_tile import RowTile
from .simd import Emitter, literal

# What makes a result of a sum, as integers: which way, then what the ways read; in the end float32 scale and addend.
# FLOAT: ``sum * scale + addend`` as float32, the sum's sign as ``signs`` keeps it; SHIFT: ``(sum + add + (sum >> shift & odd)) >> shift``;
# DIVIDE: ``((sum + add) * factor >> 16) >> shift``.
Way = namedtuple("Way", "way shift add odd factor signs scale")
WAY_BYTES = 8 * len(Way._fields)
FLOAT, SHIFT, DIVIDE = range(3)
MOST_DIVISOR = 512
MOST_BOX = 16  # taps of a row of a box: of more, sums of bytes pass 2^16


@intrinsic(prefer_literal=True)
def box_column_tile(
    typing_context: Any, spec: Any, rows: Any, table: Any, xoff: Any, dst: Any, pitch: Any, count: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``high x vecs`` vectors of 16-bit sums of ``rows`` bytes down the columns.

    ``dst[i, x] = sum_ky row(i + ky)[xoff + x]``, the second row on from the one before: one row comes, one goes.
    ``spec = (lanes, high, vecs)``; see `column_tile`.
    """
    lanes, high, vecs = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, table, xoff, dst, pitch, count = arguments[1:]
        emit = Emitter(builder, "i16", lanes, False)
        left, to = emit.variable(xoff), emit.variable(dst)

        def pixels(entry: Any) -> list[Any]:
            at = emit.offset(emit.load_integer(entry), emit.get(left))
            return [load_as(emit, "u8", emit.offset(at, vec * lanes)) for vec in range(vecs)]

        with emit.loop(count):
            sums = [emit.variable(emit.number(0)) for _ in range(vecs)]
            entry = emit.variable(table)
            with emit.loop(rows):
                for place, value in zip(sums, pixels(emit.get(entry)), strict=True):
                    emit.set(place, builder.add(emit.get(place), value))
                emit.set(entry, emit.offset(emit.get(entry), 8))
            values = [emit.get(place) for place in sums]
            for i in range(high):
                if i:
                    come, go = pixels(emit.offset(emit.get(entry), 8 * (i - 1))), pixels(emit.offset(table, 8 * (i - 1)))
                    values = [
                        builder.add(value, builder.sub(*pair)) for value, pair in zip(values, zip(come, go, strict=True), strict=True)
                    ]
                for vec, value in enumerate(values):
                    emit.store(emit.offset(emit.get(to), emit.times(pitch, i), vec * emit.width), value)
            emit.set(left, emit.offset(emit.get(left), vecs * lanes))
            emit.set(to, emit.offset(emit.get(to), vecs * emit.width))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def whole_row_tile(
    typing_context: Any, spec: Any, taps: Any, parts: Any, row: Any, way: Any, dst: Any, count: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``vecs`` vectors of one row of results of 16-bit sums.

    ``sum[x] = sum_kx row[x + kx*apart] * taps[kx]``, of which the integers of :data:`Way` make ``dst[x]``, of type ``stored``.
    ``spec = (stored, rounding, lanes, vecs, wide, apart, box, fma)``: for a ``box`` all taps are 1, at most ``MOST_BOX`` of them.
    """
    stored, rounding, lanes, vecs, wide, apart, box, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile = _WholeRowTile(Emitter(builder, "i16", lanes, False), stored, rounding, vecs, wide, apart)
        tile.emit_whole(*arguments[1:], bool(box), bool(fma))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 6), codegen


class _WholeRowTile(RowTile):
    """The code of one specialisation."""

    def emit_whole(self, taps: Any, parts: Any, row: Any, way: Any, dst: Any, count: Any, box: bool, fma: bool) -> None:
        emit = self.emit
        at = Way(*(emit.load_integer(emit.offset(way, 8 * n)) for n in range(len(Way._fields))))
        # the last one holds two float32
        scale = emit.offset(way, 8 * (len(Way._fields) - 1))
        many = emit.load_integer(parts)
        left, to = emit.variable(row), emit.variable(dst)
        with emit.loop(count):
            self.acc = [emit.variable(emit.number(0)) for _ in range(self.vecs)]
            self.weights = emit.variable(taps)
            if box:
                for few in range(1, MOST_BOX + 1):
                    with emit.case(many, few):
                        for place, value in zip(self.acc, self.window(few, emit.get(left)), strict=True):
                            emit.set(place, value)
            else:
                self.part(many, emit.get(left))
            sums = [emit.get(place) for place in self.acc]
            places = [emit.offset(emit.get(to), vec * self.size) for vec in range(self.vecs)]
            with emit.case(at.way, FLOAT):
                self.convert(places, sums, at.signs, scale, fma)
            if self.rounding and self.stored in ("u8", "i16"):
                with emit.case(at.way, SHIFT):
                    self.shift(places, sums, at)
            if self.rounding and self.stored == "u8":
                with emit.case(at.way, DIVIDE):
                    self.divide(places, sums, at)
            emit.set(left, emit.offset(emit.get(left), self.vecs * emit.width))
            emit.set(to, emit.offset(emit.get(to), self.vecs * self.size))

    def spread(self, value: Any, kind: str = "i16") -> Any:
        """The low bits of a 64-bit integer in every lane."""
        part = self.emit.of(kind)
        return part.spread(self.emit.builder.trunc(value, part.element))

    def shift(self, places: list[Any], sums: list[Any], at: Way) -> None:
        """Divided by a power of two."""
        build = self.emit.builder
        by, add, odd = self.spread(at.shift), self.spread(at.add), self.spread(at.odd)
        for place, value in zip(places, sums, strict=True):
            if self.stored == "u8":
                value = build.add(build.add(value, add), build.and_(build.lshr(value, by), odd))
                self.narrow(place, build.lshr(value, by))
            else:
                self.emit.store(place, value)

    def divide(self, places: list[Any], sums: list[Any], at: Way) -> None:
        """Divided by another number: the high half of a product."""
        build, wide = self.emit.builder, self.emit.of("i32")
        by, add, factor = self.spread(at.shift), self.spread(at.add), build.zext(self.spread(at.factor), wide.vector)
        for place, value in zip(places, sums, strict=True):
            product = build.mul(build.zext(build.add(value, add), wide.vector), factor)
            high = build.trunc(build.lshr(product, wide.number(16)), self.emit.vector)
            self.narrow(place, build.lshr(high, by))

    def narrow(self, place: Any, value: Any) -> None:
        """Clipped to a byte."""
        build, byte = self.emit.builder, self.emit.of("i8")
        most = self.emit.number(255)
        value = build.select(build.icmp_unsigned("<", value, most), value, most)
        byte.store(place, build.trunc(value, byte.vector))

    def convert(self, places: list[Any], sums: list[Any], signs: Any, scale: Any, fma: bool) -> None:
        """As float32, half a vector of sums in each vector."""
        build, half = self.emit.builder, self.emit.lanes // 2
        single = Emitter(build, "f32", half, fma)
        wide = single.of("i32")
        factor, addend = single.splat(scale), single.splat(single.offset(scale, 4))
        kept = wide.spread(build.trunc(signs, wide.element))
        for place, value in zip(places, sums, strict=True):
            for part in range(2):
                low = self.emit.pick(value, value, range(part * half, (part + 1) * half))
                number = build.sitofp(build.and_(build.sext(low, wide.vector), kept), single.vector)
                to = single.offset(place, part * half * stored_bytes(self.stored))
                store_as(single, self.stored, self.rounding, to, single.multiply_add(number, factor, addend))


@helper
def choose_way(way: Any, rounds: Any, narrow: Any, short: Any, taps: Any, kh: Any, kw: Any, addend: Any, biased: Any) -> None:
    """Write the integers of :data:`Way` to an address, for ``kh + kw`` whole taps, the scale and the sign behind them (float32).

    ``rounds``: 0 no rounding, 1 half to even, 2 half up, into bytes (``narrow``) or 16-bit integers (``short``).  A division is taken
    where its result is that of all sums' exact quotient, rounded so.
    """
    columns, rows = 0, 0
    for ky in range(kh):
        rows += abs(int(peek("f32", taps + 4 * ky)))
    for kx in range(kw):
        columns += abs(int(peek("f32", taps + 4 * (kh + kx))))
    scale, signs = peek("f32", taps + 4 * (kh + kw)), peek("f32", taps + 4 * (kh + kw) + 4)
    most, divisor = 255 * rows * columns, 0
    chosen, shift, add, odd, factor = 0, 0, 0, 0, 0
    if rounds > 0 and biased == 0 and scale > 0 and 1 / scale < MOST_DIVISOR:
        divisor = int(np.rint(1 / np.float64(scale)))
        if np.float32(1 / divisor) != scale:
            divisor = 0
    if divisor > 0 and divisor & (divisor - 1) == 0 and ((narrow and signs == 1) or (short and divisor == 1 and most < 1 << 15)):
        chosen = SHIFT
        while 1 << shift < divisor:
            shift += 1
        add = divisor // 2 if rounds == 2 else max(divisor // 2 - 1, 0)
        odd = int(rounds == 1 and shift > 0)
    elif divisor > 0 and narrow and signs == 1 and (divisor % 2 == 1 or rounds == 2):
        while 2 << shift <= divisor:
            shift += 1
        product = 1 << (16 + shift)
        factor, add = (product + divisor - 1) // divisor, divisor // 2
        # t * factor / product exceeds t / divisor by less than 1 / divisor
        if (most + add) * (factor * divisor - product) < product:
            chosen = DIVIDE
    poke("i64", way, chosen)
    poke("i64", way + 8, shift)
    poke("i64", way + 16, add)
    poke("i64", way + 24, odd)
    poke("i64", way + 32, factor)
    poke("i64", way + 40, 0xFFFF if signs == 1 else -1)
    poke("f32", way + 48, scale)
    poke("f32", way + 52, peek("f32", addend))
