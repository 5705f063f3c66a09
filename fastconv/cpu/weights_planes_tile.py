"""weights_planes_tile: the register tile of `weights_planes`, pixels in lanes: products of gradients and pixels, summed lane by lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import KINDS, Emitter, literal


@intrinsic(prefer_literal=True)
def weights_planes_tile(
    typing_context: Any, spec: Any, sums: Any, grads: Any, gc: Any, gy: Any, planes: Any, places: Any, pitch: Any, rows: Any, vectors: Any,
    rest: Any,
) -> Any:  # fmt: skip
    """``sums[o][k][lane] += sum_{y, x} grads[o, y, x] * planes[places[k]][y, x]`` over ``rows`` rows, columns x of one lane each.

    ``spec = (kind, lanes, filters, taps, fma)``.  Rows of gradients are ``gy`` bytes apart, channels ``gc``; rows of planes ``pitch``,
    those of a tap begin ``places[k]`` bytes behind ``planes``.  A row has ``vectors`` whole vectors and ``rest`` columns more, of both of
    which nothing else is read.  Order of accumulation: row, vector.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, lanes, filters, taps, fma = chosen
        sums, grads, gc, gy, planes, places, pitch, rows, vectors, rest = arguments[1:]
        emit = Emitter(builder, kind, lanes, bool(fma))
        acc = [[emit.variable(emit.load(emit.offset(sums, (o * taps + k) * emit.width))) for k in range(taps)] for o in range(filters)]
        channels = [emit.variable(emit.offset(grads, emit.times(gc, o))) for o in range(filters)]
        lines = [emit.variable(emit.offset(planes, emit.load_integer(emit.offset(places, 8 * k)))) for k in range(taps)]

        def products(at: Any, load: Callable[[Any], Any]) -> None:
            pixels = [load(emit.offset(emit.get(line), at)) for line in lines]
            for o, place in enumerate(channels):
                grad = load(emit.offset(emit.get(place), at))
                for k in range(taps):
                    emit.set(acc[o][k], emit.multiply_add(grad, pixels[k], emit.get(acc[o][k])))

        column = emit.variable(emit.constant(0))
        with emit.loop(rows):
            emit.set(column, emit.constant(0))
            with emit.loop(vectors):
                products(emit.get(column), emit.load)
                emit.set(column, emit.offset(emit.get(column), emit.width))
            with builder.if_then(builder.icmp_signed(">", rest, emit.constant(0))):
                products(emit.get(column), lambda address: emit.load_up_to(address, rest))
            for place in channels:
                emit.set(place, emit.offset(emit.get(place), gy))
            for place in lines:
                emit.set(place, emit.offset(emit.get(place), pitch))
        for o in range(filters):
            for k in range(taps):
                emit.store(emit.offset(sums, (o * taps + k) * emit.width), emit.get(acc[o][k]))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 10), codegen


@intrinsic(prefer_literal=True)
def lanes_total(typing_context: Any, kind: Any, lanes: Any, address: Any) -> Any:
    """``lanes_total(kind, lanes, address)``: the sum of a vector's lanes, of halves until one is left."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, name, width, False)
        value, many = emit.load(arguments[2]), width
        while many > 1:
            many //= 2
            low, high = emit.pick(value, value, range(many)), emit.pick(value, value, range(many, 2 * many))
            value = builder.fadd(low, high)
        return builder.extract_element(value, emit.constant(0))

    return KINDS[name][1](kind, lanes, types.int64), codegen
