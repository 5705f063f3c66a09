"""identity_tile: rows added to zero, and whether all their elements are finite."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal


@intrinsic(prefer_literal=True)
def settle_row(typing_context: Any, kind: Any, lanes: Any, row: Any, count: Any) -> Any:
    """``settle_row(kind, lanes, row, count)``: ``row[x] += 0``, which makes -0 a 0, as sums are that start with one."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, count = arguments[2:]
        whole = Emitter(builder, name, width, False)
        place = whole.variable(row)
        for emit, many in ((whole, whole.quotient(count, width)), (Emitter(builder, name, 1, False), whole.remainder(count, width))):
            with emit.loop(many):
                at = emit.get(place)
                emit.store(at, builder.fadd(emit.load(at), emit.number(0)))
                emit.set(place, emit.offset(at, emit.width))
        return context.get_dummy_value()

    return types.void(kind, lanes, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def row_is_finite(typing_context: Any, kind: Any, lanes: Any, row: Any, count: Any) -> Any:
    """``row_is_finite(kind, lanes, row, count)``: 1 where the elements at an address are all finite, else 0."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, count = arguments[2:]
        whole = Emitter(builder, name, width, False)
        place, result = whole.variable(row), whole.variable(whole.constant(1))
        for emit, many in ((whole, whole.quotient(count, width)), (Emitter(builder, name, 1, False), whole.remainder(count, width))):
            total = emit.variable(emit.number(0))
            with emit.loop(many):
                at = emit.get(place)
                # an infinite one, too, makes the sum a NaN
                emit.set(total, builder.fadd(emit.get(total), builder.fmul(emit.load(at), emit.number(0))))
                emit.set(place, emit.offset(at, emit.width))
            emit.set(result, builder.and_(emit.get(result), emit.every(builder.fcmp_ordered("ord", emit.get(total), emit.number(0)))))
        return whole.get(result)

    return types.int64(kind, lanes, types.int64, types.int64), codegen
