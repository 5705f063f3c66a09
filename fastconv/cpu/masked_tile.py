"""masked_tile: a row of pixels taken apart into values and weights, and the quotients of a tile's two sums."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal


@intrinsic(prefer_literal=True)
def weigh_row(
    typing_context: Any, kind: Any, lanes: Any, values: Any, weights: Any, clean: Any, pixels: Any, given: Any, count: Any
) -> Any:  # fmt: skip
    """``values[x] = m pixels[x]`` and ``weights[x] = m``, m being 1 for a valid pixel and 0 for others, whose value becomes 0.

    Valid is what ``weights`` holds (0 or not) where ``given`` is not 0, and no NaN where it is.  All but ``given`` and ``count`` are
    addresses.  ``clean`` receives a byte for each vector of the row: 1 where all its pixels are valid.  Rows of at least a vector end
    with one that overlaps the one before; of shorter ones a whole vector is read and written.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, weights, clean, pixels, given, count = arguments[2:]
        emit = Emitter(builder, name, width, False)

        def vector(chunk: Any, at: Any) -> None:
            """The vector at an offset in bytes, the ``chunk``-th of the row."""
            x = emit.load(emit.offset(pixels, at))
            place = emit.variable(emit.number(1))
            with emit.either(given) as (byte, nan):
                with byte:
                    emit.set(place, emit.load(emit.offset(weights, at)))
                with nan:
                    emit.set(place, builder.select(builder.fcmp_ordered("ord", x, x), emit.number(1), emit.number(0)))
            valid = builder.fcmp_unordered("!=", emit.get(place), emit.number(0))
            emit.store(emit.offset(values, at), builder.select(valid, x, emit.number(0)))
            emit.store(emit.offset(weights, at), builder.select(valid, emit.number(1), emit.number(0)))
            emit.store_flag(emit.offset(clean, chunk), valid)

        whole = emit.quotient(count, width)
        at, chunk = emit.variable(emit.constant(0)), emit.variable(emit.constant(0))
        with emit.loop(whole):
            vector(emit.get(chunk), emit.get(at))
            emit.set(at, emit.offset(emit.get(at), emit.width))
            emit.set(chunk, emit.offset(emit.get(chunk), 1))
        with emit.either(emit.remainder(count, width)) as (rest, none):
            with rest:
                last = emit.times(builder.sub(count, emit.constant(width)), emit.itemsize)
                vector(whole, builder.select(builder.icmp_signed("<", count, emit.constant(width)), emit.constant(0), last))
            with none:
                pass
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 6), codegen


@intrinsic(prefer_literal=True)
def quotient_tile(
    typing_context: Any, kind: Any, lanes: Any, rows: Any, vecs: Any, sums: Any, weights: Any, dst: Any, pitch: Any
) -> Any:  # fmt: skip
    """``dst[i, x] = sums[i, x] / weights[i, x]``, NaN where the weight is 0: ``rows x vecs`` vectors, in ``dst`` ``pitch`` bytes a row."""
    name, width, high, many = (literal(argument) for argument in (kind, lanes, rows, vecs))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, weights, dst, pitch = arguments[4:]
        emit = Emitter(builder, name, width, False)
        for i in range(high):
            for vec in range(many):
                at = (i * many + vec) * emit.width
                weight = emit.load(emit.offset(weights, at))
                mean = builder.fdiv(emit.load(emit.offset(sums, at)), weight)
                empty = builder.fcmp_ordered("==", weight, emit.number(0))
                to = emit.offset(dst, emit.times(pitch, i), vec * emit.width)
                emit.store(to, builder.select(empty, emit.number(float("nan")), mean))
        return context.get_dummy_value()

    return types.void(kind, lanes, rows, vecs, *[types.int64] * 4), codegen
