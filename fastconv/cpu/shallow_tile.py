"""shallow_tile: the register tile of `shallow`, pixels in lanes, output channels broadcast; rows put into place."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal, outlined


@intrinsic(prefer_literal=True)
def shallow_tile(
    typing_context: Any, spec: Any, terms: Any, offsets: Any, pixels: Any, wei: Any, start: Any, finish: Any, dst: Any, dc: Any,
    count: Any,
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``filters`` output channels x ``vecs`` vectors of pixels.

    ``dst[o, x] = start[o] + sum_k pixels[offsets[k] + x] * wei[k, o]``

    ``spec = (kind, lanes, filters, vecs, fma)``.  ``offsets`` is the address of a table of ``terms`` bytes into the planes, ``wei`` is
    packed as ``[k][filters]``, ``start`` the address of ``[filters]`` first addends, ``finish`` that of ``[slope, low, high]`` or 0;
    ``dc`` are bytes between output channels of the result, whose lines are asked for before they are summed, so that the sums hide the
    time of other memory (3 to 64 channels at 224x224: 0.70 ms instead of 0.85, past the caches 0.86; two cores, Emerald Rapids, 2026-11).
    Order of accumulation: k.  No tails, no borders: the driver sees to both.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, lanes, filters, vecs, fma = chosen
        terms, offsets, pixels, wei, start, finish, dst, dc, count = arguments[1:]
        emit = Emitter(builder, kind, lanes, bool(fma))
        place, to = emit.variable(pixels), emit.variable(dst)
        with emit.loop(count):
            acc = []
            for o in range(filters):
                first = emit.splat(emit.offset(start, o * emit.itemsize))
                acc.append([emit.variable(first) for _ in range(vecs)])
            entry, weights, here = emit.variable(offsets), emit.variable(wei), emit.get(place)
            ahead = emit.get(to)
            for _ in range(filters):
                for v in range(vecs):
                    emit.prefetch(emit.offset(ahead, v * emit.width), 1, True)
                ahead = emit.offset(ahead, dc)
            with emit.loop(terms):
                at, w = emit.offset(here, emit.load_integer(emit.get(entry))), emit.get(weights)
                vectors = [emit.load(emit.offset(at, v * emit.width)) for v in range(vecs)]
                for o in range(filters):
                    tap = emit.splat(emit.offset(w, o * emit.itemsize))
                    for v in range(vecs):
                        emit.set(acc[o][v], emit.multiply_add(vectors[v], tap, emit.get(acc[o][v])))
                emit.set(entry, emit.offset(emit.get(entry), 8))
                emit.set(weights, emit.offset(w, filters * emit.itemsize))
            sums = [[emit.get(part) for part in parts] for parts in acc]

            def store(values: Any) -> None:
                line = emit.get(to)
                for parts in values:
                    for v, value in enumerate(parts):
                        emit.store(emit.offset(line, v * emit.width), value)
                    line = emit.offset(line, dc)

            with emit.either(finish) as (activated, plain):
                with activated:
                    limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
                    store([[emit.activate(value, *limits) for value in parts] for parts in sums])
                with plain:
                    store(sums)
            emit.set(place, emit.offset(here, vecs * emit.width))
            emit.set(to, emit.offset(emit.get(to), vecs * emit.width))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 9), codegen


@intrinsic(prefer_literal=True)
def copy_rows(typing_context: Any, kind: Any, lanes: Any, dst: Any, pitch: Any, src: Any, down: Any, rows: Any, vectors: Any) -> Any:
    """``rows`` rows of ``vectors`` whole vectors each, ``down`` bytes apart, to rows ``pitch`` bytes apart."""
    name, width = literal(kind), literal(lanes)

    def body(builder: Any, arguments: Any) -> None:
        dst, pitch, src, down, rows, vectors = arguments
        emit = Emitter(builder, name, width, False)
        to, line = emit.variable(dst), emit.variable(src)
        with emit.loop(rows):
            place, at = emit.variable(emit.get(to)), emit.variable(emit.get(line))
            with emit.loop(vectors):
                emit.store(emit.get(place), emit.load(emit.get(at)))
                emit.set(place, emit.offset(emit.get(place), emit.width))
                emit.set(at, emit.offset(emit.get(at), emit.width))
            emit.set(to, emit.offset(emit.get(to), pitch))
            emit.set(line, emit.offset(emit.get(line), down))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        outlined(builder, f"copy_rows_{name}_{width}", arguments[2:], body)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 6), codegen
