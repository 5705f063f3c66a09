"""sparse_tile: rows x vectors of one plane, tap by tap from a list."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal


@intrinsic(prefer_literal=True)
def sparse_tile(
    typing_context: Any, spec: Any, start: Any, taps: Any, places: Any, many: Any, table: Any, step: Any, xoff: Any, dst: Any, pitch: Any,
    count: Any,
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``rows x vecs`` vectors of one output plane.

    ``dst[i, x] = start + sum_t row(i, t)[xoff + x + places[t].column] * taps[t]``

    ``spec = (kind, lanes, rows, vecs, fma)``.  ``start`` is the address of the first addend, ``taps`` that of ``many`` weights, ``places``
    that of as many pairs of bytes, into the table and along the row: ``row(i, t)`` is the address at ``table + i*step + places[t].row``.
    ``step, xoff, pitch`` are bytes.  Order of accumulation: t.  Arrays are of any alignment.  No tails, no borders.
    """
    kind, lanes, rows, vecs, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, kind, lanes, bool(fma))
        _emit_tiles(emit, rows, vecs, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 10), codegen


def _emit_tiles(
    emit: Emitter, rows: int, vecs: int, start: Any, taps: Any, places: Any, many: Any, table: Any, step: Any, xoff: Any, dst: Any,
    pitch: Any, count: Any,
) -> None:  # fmt: skip
    first = emit.splat(start)
    left, to = emit.variable(xoff), emit.variable(dst)
    with emit.loop(count):
        sums = [[emit.variable(first) for _ in range(vecs)] for _ in range(rows)]
        tap, place = emit.variable(taps), emit.variable(places)
        with emit.loop(many):
            weight, at = emit.splat(emit.get(tap)), emit.get(place)
            entry = emit.offset(table, emit.load_integer(at))
            column = emit.offset(emit.get(left), emit.load_integer(emit.offset(at, 8)))
            for i, row in enumerate(sums):
                pixels = emit.offset(emit.load_integer(emit.offset(entry, emit.times(step, i))), column)
                for vec, total in enumerate(row):
                    emit.set(total, emit.multiply_add(emit.load(emit.offset(pixels, vec * emit.width)), weight, emit.get(total)))
            emit.set(tap, emit.offset(emit.get(tap), emit.itemsize))
            emit.set(place, emit.offset(at, 16))
        for i, row in enumerate(sums):
            for vec, total in enumerate(row):
                emit.store(emit.offset(emit.get(to), emit.times(pitch, i), vec * emit.width), emit.get(total))
        emit.set(left, emit.offset(emit.get(left), vecs * emit.width))
        emit.set(to, emit.offset(emit.get(to), vecs * emit.width))
