"""separable_tile: the horizontal pass of a rank-1 kernel over rows of sums in the cache, and single sums of the vertical one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import KINDS, Emitter, literal


@intrinsic(prefer_literal=True)
def row_tile(
    typing_context: Any, spec: Any, start: Any, taps: Any, parts: Any, many: Any, row: Any, dst: Any, count: Any, past: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``vecs`` vectors of one row of results.

    ``dst[x] = start + sum_part sum_kx row[part.offset + x + kx] * taps[part][kx]``

    ``spec = (kind, lanes, vecs, wide, fma)``.  ``start`` is the address of the first addend, ``parts`` that of ``many`` pairs
    ``(taps, bytes from the row)``: one for column stride 1, the even and the odd columns for 2.  Order of accumulation: part, kx.
    Groups of ``wide`` taps share a row's loads through lane shifts, since vectors that straddle two cache lines cost two or three
    cycles each.  A tile reads ``lanes*(vecs + 1)`` elements from the place of each group's first tap; what lies behind the last
    tap's pixels is not used.  Whole tiles are stored, past the caches where ``past`` is not 0: ``dst`` is then a multiple of a
    vector's bytes.  No tails, no borders.
    """
    kind, lanes, vecs, wide, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, kind, lanes, bool(fma))
        _RowTile(emit, vecs, wide).emit_tiles(*arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


class _RowTile:
    """The code of one specialisation."""

    def __init__(self, emit: Emitter, vecs: int, wide: int) -> None:
        self.emit, self.vecs, self.wide = emit, vecs, wide

    def emit_tiles(self, start: Any, taps: Any, parts: Any, many: Any, row: Any, dst: Any, count: Any, past: Any) -> None:
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
            with emit.either(past) as (streamed, kept):
                with streamed:
                    self.store(emit.get(to), emit.store_past)
                with kept:
                    self.store(emit.get(to), emit.store)
            emit.set(left, emit.offset(emit.get(left), self.vecs * emit.width))
            emit.set(to, emit.offset(emit.get(to), self.vecs * emit.width))

    def part(self, taps: Any, row: Any) -> None:
        """All taps of one part: groups of ``wide``, then the rest."""
        emit, wide = self.emit, self.wide
        at = emit.variable(row)
        with emit.loop(emit.quotient(taps, wide)):
            self.group(wide, emit.get(at))
            emit.set(at, emit.offset(emit.get(at), wide * emit.itemsize))
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
        vectors = [bits.load(emit.offset(at, vec * emit.width)) for vec in range(vecs + (taps > 1))]
        for kx in range(taps):
            weight = emit.splat(emit.offset(w, kx * emit.itemsize))
            for vec in range(vecs):
                pair = vectors[vec + kx // lanes : vec + kx // lanes + 2]
                shifted = bits.pick(pair[0], pair[1], range(kx, kx + lanes)) if kx else pair[0]
                sums[vec] = emit.multiply_add(emit.values(shifted), weight, sums[vec])
        for place, value in zip(self.acc, sums, strict=True):
            emit.set(place, value)
        emit.set(self.weights, emit.offset(w, taps * emit.itemsize))

    def store(self, dst: Any, store: Callable[[Any, Any], None]) -> None:
        """The accumulators."""
        for vec, place in enumerate(self.acc):
            store(self.emit.offset(dst, vec * self.emit.width), self.emit.get(place))


@intrinsic(prefer_literal=True)
def column_sum(typing_context: Any, kind: Any, fma: Any, start: Any, taps: Any, table: Any, xoff: Any, count: Any) -> Any:
    """``start + sum_ky row(ky)[xoff] * taps[ky]`` of ``count`` rows, one value; ``table[ky]`` holds the rows' addresses.

    ``start`` and ``taps`` are addresses.  Order of accumulation: ky, as in every lane of a vertical tile.
    """
    name, fused = literal(kind), bool(literal(fma))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, start, taps, table, xoff, count = arguments
        emit = Emitter(builder, name, 1, fused)
        total, entry, w = emit.variable(emit.splat(start)), emit.variable(table), emit.variable(taps)
        with emit.loop(count):
            pixel = emit.splat(emit.offset(emit.load_integer(emit.get(entry)), xoff))
            emit.set(total, emit.multiply_add(pixel, emit.splat(emit.get(w)), emit.get(total)))
            emit.set(entry, emit.offset(emit.get(entry), 8))
            emit.set(w, emit.offset(emit.get(w), emit.itemsize))
        return builder.extract_element(emit.get(total), emit.constant(0))

    return KINDS[name][1](kind, fma, *[types.int64] * 5), codegen
