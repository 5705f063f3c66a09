"""separable_tile: the two passes of a rank-1 kernel: down the columns of an image, along rows of such sums in the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from numba import types
from numba.extending import intrinsic

from .convert import load_as, store_as, stored_bytes
from .simd import KINDS, Emitter, literal

_BOX_TAPS = 16  # of a row of a box that are added up by doubling


@intrinsic(prefer_literal=True)
def column_tile(
    typing_context: Any, spec: Any, start: Any, taps: Any, rows: Any, table: Any, step: Any, xoff: Any, dst: Any, pitch: Any, count: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``high x vecs`` vectors of sums down the columns.

    ``dst[i, x] = start + sum_ky row(i, ky)[xoff + x] * taps[ky]`` with ky below ``rows``

    ``spec = (kind, stored, lanes, high, vecs, v, tall, fma)``: pixels are of type ``stored``; ``v`` is the row stride 1 or 2, or 0 for any.
    ``table`` holds the addresses of the rows: ``row(i, ky)`` is entry ``i*v + ky``, for v = 0 that at ``i*step + 8*ky`` bytes.
    ``start`` and ``taps`` are addresses; ``xoff, pitch`` are bytes.  Order of accumulation: ky, in groups of at most ``tall``, whose
    loads and conversions are shared by the rows of a tile.  Reads whole vectors of pixels.  No tails, no borders.
    """
    kind, stored, lanes, high, vecs, v, tall, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, kind, lanes, bool(fma))
        _ColumnTile(emit, stored, high, vecs, v, tall).emit_tiles(*arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 9), codegen


class _ColumnTile:
    """The code of one specialisation."""

    def __init__(self, emit: Emitter, stored: str, high: int, vecs: int, v: int, tall: int) -> None:
        self.emit, self.stored, self.high, self.vecs, self.v, self.tall = emit, stored, high, vecs, v, tall

    def emit_tiles(
        self, start: Any, taps: Any, rows: Any, table: Any, step: Any, xoff: Any, dst: Any, pitch: Any, count: Any
    ) -> None:  # fmt: skip
        emit, tall = self.emit, self.tall
        first = emit.splat(start)
        left, to = emit.variable(xoff), emit.variable(dst)
        with emit.loop(count):
            self.acc = [[emit.variable(first) for _ in range(self.vecs)] for _ in range(self.high)]
            entries, weights = emit.variable(table), emit.variable(taps)
            with emit.loop(emit.quotient(rows, tall)):
                self.group(tall, emit.get(entries), step, emit.get(weights), emit.get(left))
                emit.set(entries, emit.offset(emit.get(entries), 8 * tall))
                emit.set(weights, emit.offset(emit.get(weights), emit.itemsize * tall))
            rest = emit.remainder(rows, tall)
            for few in range(1, tall):
                with emit.case(rest, few):
                    self.group(few, emit.get(entries), step, emit.get(weights), emit.get(left))
            for i, row in enumerate(self.acc):
                for vec, place in enumerate(row):
                    emit.store(emit.offset(emit.get(to), emit.times(pitch, i), vec * emit.width), emit.get(place))
            emit.set(left, emit.offset(emit.get(left), self.vecs * emit.lanes * stored_bytes(self.stored)))
            emit.set(to, emit.offset(emit.get(to), self.vecs * emit.width))

    def group(self, taps: int, table: Any, step: Any, w: Any, left: Any) -> None:
        """``taps`` rows of taps: each row of pixels is loaded once for all rows of the tile that use it."""
        emit, high, v = self.emit, self.high, self.v
        weights = [emit.splat(emit.offset(w, ky * emit.itemsize)) for ky in range(taps)]
        sums = [[emit.get(place) for place in row] for row in self.acc]
        if v:
            for r in range((high - 1) * v + taps):
                uses = [(i, r - i * v) for i in range(high) if 0 <= r - i * v < taps]
                if uses:
                    self.multiply(sums, uses, weights, emit.offset(table, 8 * r), left)
        else:
            for i in range(high):
                for ky in range(taps):
                    self.multiply(sums, [(i, ky)], weights, emit.offset(table, emit.times(step, i), 8 * ky), left)
        for places, values in zip(self.acc, sums, strict=True):
            for place, value in zip(places, values, strict=True):
                emit.set(place, value)

    def multiply(self, sums: list[list[Any]], uses: list[tuple[int, int]], weights: list[Any], entry: Any, left: Any) -> None:
        """Add one row of pixels to the tile's rows ``i`` that use it with the tap ``ky``."""
        emit = self.emit
        at = emit.offset(emit.load_integer(entry), left)
        size = emit.lanes * stored_bytes(self.stored)
        pixels = [load_as(emit, self.stored, emit.offset(at, vec * size)) for vec in range(self.vecs)]
        for i, ky in uses:
            for vec, pixel in enumerate(pixels):
                sums[i][vec] = emit.multiply_add(pixel, weights[ky], sums[i][vec])
        done = iter(emit.fence([sums[i][vec] for i, _ in uses for vec in range(self.vecs)]))
        for i, _ in uses:
            sums[i] = [next(done) for _ in range(self.vecs)]


@intrinsic(prefer_literal=True)
def row_tile(
    typing_context: Any, spec: Any, start: Any, taps: Any, parts: Any, many: Any, row: Any, dst: Any, count: Any, past: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``vecs`` vectors of one row of results.

    ``dst[x] = start + sum_part sum_kx row[part.offset + x + kx*apart] * taps[part][kx]``

    ``spec = (kind, stored, rounding, lanes, vecs, wide, apart, fma, box)``: interleaved channels are ``apart``; results are stored as
    ``store_as`` does.  ``start`` is the address of the first addend, ``parts`` that of ``many`` pairs ``(taps, bytes from the row)``: one
    for column stride 1, the even and the odd columns for 2.  Order of accumulation: part, kx; for a ``box``, whose taps are equal, the
    pixels of a part are added up by doubling, ``_BOX_TAPS`` at a time, and their sum multiplied.
    Groups of ``wide`` taps share a row's loads through lane shifts, since vectors that straddle two cache lines cost two or three
    cycles each.  A tile reads whole vectors from the place of each group's first tap on to its last one's; what lies behind the last
    tap's pixels is not used.  Whole tiles are stored, those of the accumulator's type past the caches where ``past`` is not 0:
    ``dst`` is then a multiple of a vector's bytes.  No tails, no borders.
    """
    kind, stored, rounding, lanes, vecs, wide, apart, fma, box = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, kind, lanes, bool(fma))
        made = BoxRowTile if box else RowTile
        made(emit, stored, rounding, vecs, wide, apart).emit_tiles(*arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


class RowTile:
    """The code of one specialisation."""

    def __init__(self, emit: Emitter, stored: str, rounding: str, vecs: int, wide: int, apart: int) -> None:
        self.emit, self.stored, self.rounding, self.vecs, self.wide, self.apart = emit, stored, rounding, vecs, wide, apart
        self.size = emit.lanes * stored_bytes(stored)

    def emit_tiles(self, start: Any, taps: Any, parts: Any, many: Any, row: Any, dst: Any, count: Any, past: Any) -> None:
        """The whole intrinsic."""
        emit = self.emit
        first = emit.splat(start)
        left, to = emit.variable(row), emit.variable(dst)
        with emit.loop(count):
            self.acc = [emit.variable(first) for _ in range(self.vecs)]
            self.weights, part = emit.variable(taps), emit.variable(parts)
            with emit.loop(many):
                at = emit.get(part)
                self.part(emit.load_integer(at), emit.offset(emit.get(left), emit.load_integer(emit.offset(at, 8))))
                emit.set(part, emit.offset(at, 16))
            if self.stored == emit.kind:
                with emit.either(past) as (streamed, kept):
                    with streamed:
                        self.store(emit.get(to), emit.store_past)
                    with kept:
                        self.store(emit.get(to), emit.store)
            else:
                self.store(emit.get(to), partial(store_as, emit, self.stored, self.rounding))
            emit.set(left, emit.offset(emit.get(left), self.vecs * emit.width))
            emit.set(to, emit.offset(emit.get(to), self.vecs * self.size))

    def part(self, taps: Any, row: Any) -> None:
        """All taps of one part: groups of ``wide``, then the rest."""
        emit, wide = self.emit, self.wide
        at = emit.variable(row)
        with emit.loop(emit.quotient(taps, wide)):
            self.group(wide, emit.get(at))
            emit.set(at, emit.offset(emit.get(at), wide * self.apart * emit.itemsize))
        rest = emit.remainder(taps, wide)
        for few in range(1, wide):
            with emit.case(rest, few):
                self.group(few, emit.get(at))

    def group(self, taps: int, at: Any) -> None:
        """``taps`` taps from the address of the first one's pixels."""
        emit, vecs, lanes = self.emit, self.vecs, self.emit.lanes
        bits, w = emit.bits(), emit.get(self.weights)
        sums = [emit.get(place) for place in self.acc]
        # as integers, whose lane shifts LLVM makes one instruction of
        vectors = [bits.load(emit.offset(at, vec * emit.width)) for vec in range(vecs + -(-(taps - 1) * self.apart // lanes))]
        for kx in range(taps):
            weight = emit.splat(emit.offset(w, kx * emit.itemsize))
            for vec in range(vecs):
                whole, part = divmod(kx * self.apart, lanes)
                shifted = vectors[vec + whole]
                if part:
                    shifted = bits.pick(shifted, vectors[vec + whole + 1], range(part, part + lanes))
                sums[vec] = emit.multiply_add(emit.values(shifted), weight, sums[vec])
        for place, value in zip(self.acc, sums, strict=True):
            emit.set(place, value)
        emit.set(self.weights, emit.offset(w, taps * emit.itemsize))

    def window(self, taps: int, at: Any) -> list[Any]:
        """Sums of ``taps`` neighbours from sums of 1, 2, 4, ... of them."""
        emit, lanes, bits = self.emit, self.emit.lanes, self.emit.bits()
        add = emit.builder.fadd if emit.floating else emit.builder.add

        def added(a: list[Any], b: list[Any], by: int) -> list[Any]:
            """``a`` and, from ``by`` places on, ``b``."""
            whole, part = divmod(by * self.apart, lanes)
            ends = [*b[whole:], *[b[-1]] * (whole + 1)]
            moved = [bits.pick(x, y, range(part, part + lanes)) if part else x for x, y in itertools.pairwise(ends)]
            sums = [add(emit.values(x), emit.values(y)) for x, y in zip(a, moved, strict=False)]
            return [emit.builder.bitcast(x, bits.vector) for x in sums]

        level = [bits.load(emit.offset(at, vec * emit.width)) for vec in range(self.vecs + -(-(taps - 1) * self.apart // lanes))]
        levels, width = {1: level}, 1
        while 2 * width <= taps:
            level = added(level, level, width)
            width *= 2
            levels[width] = level
        total, done = level, width
        while done < taps:
            width = max(w for w in levels if w <= taps - done)
            total = added(total, levels[width], done)
            done += width
        return [emit.values(x) for x in total[: self.vecs]]

    def store(self, dst: Any, store: Callable[[Any, Any], None]) -> None:
        """The accumulators."""
        for vec, place in enumerate(self.acc):
            store(self.emit.offset(dst, vec * self.size), self.emit.get(place))


class BoxRowTile(RowTile):
    """Equal taps."""

    def part(self, taps: Any, row: Any) -> None:
        """All taps of one part: the sum of its pixels, times the first tap."""
        emit = self.emit
        sums = [emit.variable(emit.number(0)) for _ in range(self.vecs)]
        at = emit.variable(row)

        def add(many: int) -> None:
            for place, value in zip(sums, self.window(many, emit.get(at)), strict=True):
                emit.set(place, emit.builder.fadd(emit.get(place), value))

        with emit.loop(emit.quotient(taps, _BOX_TAPS)):
            add(_BOX_TAPS)
            emit.set(at, emit.offset(emit.get(at), _BOX_TAPS * self.apart * emit.itemsize))
        rest = emit.remainder(taps, _BOX_TAPS)
        for few in range(1, _BOX_TAPS):
            with emit.case(rest, few):
                add(few)
        weight = emit.splat(emit.get(self.weights))
        for place, total in zip(self.acc, sums, strict=True):
            emit.set(place, emit.multiply_add(emit.get(total), weight, emit.get(place)))


@intrinsic(prefer_literal=True)
def column_sum(typing_context: Any, kind: Any, stored: Any, fma: Any, start: Any, taps: Any, table: Any, xoff: Any, count: Any) -> Any:
    """``start + sum_ky row(ky)[xoff] * taps[ky]`` of ``count`` rows of type ``stored``, one value; ``table[ky]`` holds their addresses.

    ``start`` and ``taps`` are addresses.  Order of accumulation: ky, as in every lane of a vertical tile.
    """
    name, pixels, fused = literal(kind), literal(stored), bool(literal(fma))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, taps, table, xoff, count = arguments[3:]
        emit = Emitter(builder, name, 1, fused)
        total, entry, w = emit.variable(emit.splat(start)), emit.variable(table), emit.variable(taps)
        with emit.loop(count):
            pixel = load_as(emit, pixels, emit.offset(emit.load_integer(emit.get(entry)), xoff))
            emit.set(total, emit.multiply_add(pixel, emit.splat(emit.get(w)), emit.get(total)))
            emit.set(entry, emit.offset(emit.get(entry), 8))
            emit.set(w, emit.offset(emit.get(w), emit.itemsize))
        return builder.extract_element(emit.get(total), emit.constant(0))

    return KINDS[name][1](kind, stored, fma, *[types.int64] * 5), codegen
