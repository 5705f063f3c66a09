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
from .memory import peek, poke, put_integers
from .separable_tile import RowTile
from .simd import Emitter, literal

# What makes a result of a sum, as integers: which way, then what the ways read; in the end float32 scale and addend.
# FLOAT: ``sum * scale + addend`` as float32, the sum's sign as ``signs`` keeps it; SHIFT: ``(sum + add + (sum >> shift & odd)) >> shift``;
# SCALE: ``(sum + add) * factor >> 16``; DIVIDE: that shifted further, by ``shift``.  ``tall`` and ``wide``: taps down and along, where an
# odd number of them, more than one, is symmetric; else 0.
Way = namedtuple("Way", "way shift add odd factor signs tall wide scale")
WAY_BYTES = 8 * len(Way._fields)
FLOAT, SHIFT, SCALE, DIVIDE = range(4)
MOST_DIVISOR = 512
MOST_SYMMETRIC = 5  # taps down a column, 3 or as many, that have code of their own
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
def symmetric_column_tile(
    typing_context: Any, spec: Any, rows: Any, taps: Any, table: Any, xoff: Any, dst: Any, pitch: Any, count: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``high x vecs`` vectors of 16-bit sums of bytes down the columns, ``rows`` symmetric taps.

    ``dst[i, x] = sum_ky row(i + ky)[xoff + x] * taps[ky]``, of 3 to ``MOST_SYMMETRIC`` rows: those that a result needs stay in
    registers.
    ``spec = (lanes, high, vecs)``; see `column_tile`.
    """
    lanes, high, vecs = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, taps, table, xoff, dst, pitch, count = arguments[1:]
        emit = Emitter(builder, "i16", lanes, False)

        def tile(many: int, left: Any, to: Any) -> None:
            weights = [emit.splat(emit.offset(taps, ky * emit.itemsize)) for ky in range(many // 2 + 1)]
            seen: list[list[Any]] = []
            for r in range(high + many - 1):
                at = emit.offset(emit.load_integer(emit.offset(table, 8 * r)), left)
                seen.append([load_as(emit, "u8", emit.offset(at, vec * lanes)) for vec in range(vecs)])
                if r < many - 1:
                    continue
                i = r - many + 1
                for vec, column in enumerate(zip(*seen[i:], strict=True)):
                    pairs = [builder.add(column[ky], column[-1 - ky]) for ky in range(many // 2)]
                    value = _weighted(emit, [*pairs, column[many // 2]], weights)
                    emit.store(emit.offset(to, emit.times(pitch, i), vec * emit.width), value)

        for many in range(3, MOST_SYMMETRIC + 1, 2):
            with emit.case(rows, many):
                left, to = emit.variable(xoff), emit.variable(dst)
                with emit.loop(count):
                    tile(many, emit.get(left), emit.get(to))
                    emit.set(left, emit.offset(emit.get(left), vecs * lanes))
                    emit.set(to, emit.offset(emit.get(to), vecs * emit.width))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 7), codegen


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
                with emit.either(at.wide) as (symmetric, any_taps):
                    with symmetric:
                        self.pairs(many, emit.get(left))
                    with any_taps:
                        self.each(many, emit.get(left))
            sums = [emit.get(place) for place in self.acc]
            places = [emit.offset(emit.get(to), vec * self.size) for vec in range(self.vecs)]
            with emit.case(at.way, FLOAT):
                self.convert(places, sums, at.signs, scale, fma)
            if self.rounding and self.stored in ("u8", "i16"):
                with emit.case(at.way, SHIFT):
                    self.shift(places, sums, at)
            if self.rounding and self.stored == "u8":
                with emit.case(at.way, SCALE):
                    self.divide(places, sums, at, False)
                with emit.case(at.way, DIVIDE):
                    self.divide(places, sums, at, True)
            emit.set(left, emit.offset(emit.get(left), self.vecs * emit.width))
            emit.set(to, emit.offset(emit.get(to), self.vecs * self.size))

    def pixels(self, at: Any) -> list[Any]:
        """The vectors under one tap: 16-bit lanes take three instructions to shift, a load that crosses a line the time of two."""
        return [self.emit.load(self.emit.offset(at, vec * self.emit.width)) for vec in range(self.vecs)]

    def each(self, taps: Any, row: Any) -> None:
        """All taps, one by one."""
        emit, at = self.emit, self.emit.variable(row)
        with emit.loop(taps):
            weight = emit.splat(emit.get(self.weights))
            for place, value in zip(self.acc, self.pixels(emit.get(at)), strict=True):
                emit.set(place, emit.multiply_add(value, weight, emit.get(place)))
            emit.set(at, emit.offset(emit.get(at), self.apart * emit.itemsize))
            emit.set(self.weights, emit.offset(emit.get(self.weights), emit.itemsize))

    def pairs(self, taps: Any, row: Any) -> None:
        """An odd number of symmetric taps: the middle one, then pairs from the ends inward."""
        emit, step = self.emit, self.apart * self.emit.itemsize
        half = emit.quotient(taps, 2)
        middle = emit.splat(emit.offset(emit.get(self.weights), emit.times(half, emit.itemsize)))
        for place, value in zip(self.acc, self.pixels(emit.offset(row, emit.times(half, step))), strict=True):
            emit.set(place, emit.builder.mul(value, middle))
        first, last = emit.variable(row), emit.variable(emit.offset(row, emit.times(emit.offset(taps, -1), step)))
        with emit.loop(half):
            weight = emit.splat(emit.get(self.weights))
            both = zip(self.acc, self.pixels(emit.get(first)), self.pixels(emit.get(last)), strict=True)
            for place, a, b in both:
                emit.set(place, emit.multiply_add(emit.builder.add(a, b), weight, emit.get(place)))
            emit.set(first, emit.offset(emit.get(first), step))
            emit.set(last, emit.offset(emit.get(last), -step))
            emit.set(self.weights, emit.offset(emit.get(self.weights), emit.itemsize))

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

    def divide(self, places: list[Any], sums: list[Any], at: Way, further: bool) -> None:
        """Divided by a number: the high half of a product."""
        build = self.emit.builder
        by, add, factor = self.spread(at.shift), self.spread(at.add), self.spread(at.factor)
        for place, value in zip(places, sums, strict=True):
            high = self.emit.high_product(build.add(value, add), factor)
            self.narrow(place, build.lshr(high, by) if further else high)

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


def _weighted(emit: Emitter, values: list[Any], weights: list[Any]) -> Any:
    """The sum of products of vectors."""
    total = emit.builder.mul(values[0], weights[0])
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = emit.multiply_add(value, weight, total)
    return total


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
    if divisor > 1 and narrow and signs == 1 and (divisor % 2 == 1 or rounds == 2):
        product, add, last = 1 << 16, divisor // 2, 1 << 16
        while 2 * last <= divisor << 16:
            last *= 2
        while product <= last:
            factor = (product + divisor - 1) // divisor
            # t * factor / product exceeds t / divisor by less than 1 / divisor
            if factor < 1 << 16 and (most + add) * (factor * divisor - product) < product:
                chosen, shift, odd = SCALE, 0, 0
                while product > 1 << 16:
                    chosen, shift, product = DIVIDE, shift + 1, product // 2
                break
            product *= 2
    tall, wide = kh if kh % 2 and kh > 1 else 0, kw if kw % 2 and kw > 1 else 0
    for ky in range(kh):
        if peek("f32", taps + 4 * ky) != peek("f32", taps + 4 * (kh - 1 - ky)):
            tall = 0
    for kx in range(kw):
        if peek("f32", taps + 4 * (kh + kx)) != peek("f32", taps + 4 * (kh + kw - 1 - kx)):
            wide = 0
    put_integers(way, Way(chosen, shift, add, odd, factor, 0xFFFF if signs == 1 else -1, tall, wide, 0))
    poke("f32", way + 64, scale)
    poke("f32", way + 68, peek("f32", addend))
