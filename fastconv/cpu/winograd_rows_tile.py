"""winograd_rows_tile: register tiles of `winograd_rows`, pixels in lanes, output channels broadcast; both transforms of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning.winograd_points import ROWS, RowTransform
from .simd import Emitter, literal, outlined

ENTRY = 24  # bytes of a term in the table
AHEAD = 2  # lines that are asked for with each term


@intrinsic(prefer_literal=True)
def row_sums(typing_context: Any, spec: Any, points: Any, table: Any, pixels: Any, wei: Any, sums: Any, pitch: Any, dst: Any) -> Any:
    """``sums[a][o][x] = sum_k pixels[offsets[a][k] + x] * wei[a][k][o]``, ``filters`` output channels x ``vecs`` vectors of pixels.

    ``spec = (kind, lanes, filters, vecs, fma)``.  Sums of two output channels are ``pitch`` bytes apart.  ``table`` holds for each of
    ``points`` the number of its terms, then for each term the bytes to its transformed row and, from ``dst`` on, to `AHEAD` lines of
    the result, which are asked for one after the other while sums take place: all at once they hold these up, and asked for to be
    written they come later (3 to 64 channels at 224x224: 1.3 ms instead of 1.6, not asked for 2.7; one core, Emerald Rapids, 2026-11).
    Weights are packed as ``[a][k][filters]``.  Order of accumulation: k.  No tails, no borders.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, lanes, filters, vecs, fma = chosen
        points, table, pixels, wei, sums, pitch, dst = arguments[1:]
        emit = Emitter(builder, kind, lanes, bool(fma))
        entry, weights, to = emit.variable(table), emit.variable(wei), emit.variable(sums)
        with emit.loop(points):
            acc = [[emit.variable(emit.number(0)) for _ in range(vecs)] for _ in range(filters)]
            for place in (place for parts in acc for place in parts):
                emit.set(place, emit.number(0))
            terms = emit.load_integer(emit.get(entry))
            emit.set(entry, emit.offset(emit.get(entry), 8))
            with emit.loop(terms):
                term, w = emit.get(entry), emit.get(weights)
                at = emit.offset(pixels, emit.load_integer(term))
                vectors = [emit.load(emit.offset(at, v * emit.width)) for v in range(vecs)]
                for o in range(filters):
                    tap = emit.splat(emit.offset(w, o * emit.itemsize))
                    for v in range(vecs):
                        emit.set(acc[o][v], emit.multiply_add(vectors[v], tap, emit.get(acc[o][v])))
                for n in range(AHEAD):
                    emit.prefetch(emit.offset(dst, emit.load_integer(emit.offset(term, 8 + 8 * n))), 1)
                emit.set(entry, emit.offset(term, ENTRY))
                emit.set(weights, emit.offset(w, filters * emit.itemsize))
            for parts in acc:
                for v, place in enumerate(parts):
                    emit.store(emit.offset(emit.get(to), v * emit.width), emit.get(place))
                emit.set(to, emit.offset(emit.get(to), pitch))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 7), codegen


@intrinsic(prefer_literal=True)
def row_results(
    typing_context: Any, kind: Any, lanes: Any, fma: Any, taps: Any, sums: Any, pitch: Any, filters: Any, count: Any, start: Any,
    rows: Any, finish: Any,
) -> Any:  # fmt: skip
    """``ROWS`` rows of each of ``filters`` output channels, ``count`` columns of each, a vector at least, from what `row_sums` made.

    ``start`` is the address of the addend of each channel, ``rows`` that of pairs: where a row of the first channel goes, and the bytes
    from one channel's to the next.  ``finish`` is the address of ``[slope, low, high]`` or 0.
    """
    name, width, fused, many = (literal(argument) for argument in (kind, lanes, fma, taps))

    def body(builder: Any, arguments: Any) -> None:
        sums, pitch, filters, count, start, rows, finish = arguments
        emit = Emitter(builder, name, width, bool(fused))
        transform = RowTransform(emit, many)
        apart = builder.mul(filters, pitch)
        places = [emit.variable(emit.load_integer(emit.offset(rows, 16 * i))) for i in range(ROWS)]
        line, addends = emit.variable(sums), emit.variable(start)

        def channels(finished: Any) -> None:
            with emit.loop(filters):
                addend = emit.splat(emit.get(addends))
                with _columns(emit, count, emit.get(places[0])) as here:
                    at = emit.offset(emit.get(line), here)
                    y = [emit.load(emit.offset(at, emit.times(apart, a))) for a in range(len(transform.points) + 1)]
                    for place, value in zip(places, transform.results(y, addend), strict=True):
                        emit.store(emit.offset(emit.get(place), here), finished(value))
                emit.set(addends, emit.offset(emit.get(addends), emit.itemsize))
                emit.set(line, emit.offset(emit.get(line), pitch))
                for i, place in enumerate(places):
                    emit.set(place, emit.offset(emit.get(place), emit.load_integer(emit.offset(rows, 16 * i + 8))))

        with emit.either(finish) as (activated, plain):
            with activated:
                limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
                channels(lambda value: emit.activate(value, *limits))
            with plain:
                channels(lambda value: value)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        outlined(builder, f"row_results_{name}_{width}_{many}", arguments[4:], body)
        return context.get_dummy_value()

    return types.void(kind, lanes, fma, taps, *[types.int64] * 7), codegen


@contextmanager
def _columns(emit: Emitter, count: Any, address: Any) -> Iterator[Any]:
    """Repeat the block for each vector of ``count`` columns, with its bytes: the first, those on lines of a row at ``address``, the last.

    Vectors overlap.  Stores across lines take longer (3 to 64 channels at 224x224: 1.84 ms instead of 1.53; Emerald Rapids, 2026-11).
    """
    build, size = emit.builder, emit.times(count, emit.itemsize)
    beside = build.and_(address, emit.constant(emit.width - emit.itemsize))
    place, last = emit.variable(build.neg(beside)), emit.offset(size, -emit.width)
    with emit.loop(emit.quotient(emit.offset(size, beside, emit.width - 1), emit.width)):
        here = emit.get(place)
        here = build.select(build.icmp_signed("<", here, emit.constant(0)), emit.constant(0), here)
        yield build.select(build.icmp_signed(">", here, last), last, here)
        emit.set(place, emit.offset(emit.get(place), emit.width))


@intrinsic(prefer_literal=True)
def row_pixels(
    typing_context: Any, kind: Any, lanes: Any, fma: Any, taps: Any, dst: Any, apart: Any, rows: Any, count: Any, peak: Any
) -> Any:
    """``count`` columns, a vector at least, of rows whose addresses are at ``rows``, transformed to rows ``apart`` bytes apart.

    At ``peak`` the largest magnitudes of each lane are kept, as integers of a float's bits, among which NaN and inf are the largest.
    """
    name, width, fused, many = (literal(argument) for argument in (kind, lanes, fma, taps))

    def body(builder: Any, arguments: Any) -> None:
        dst, apart, rows, count, peak = arguments
        emit = Emitter(builder, name, width, bool(fused))
        bits, transform = emit.bits(), RowTransform(emit, many)
        magnitude = bits.number((1 << (8 * emit.itemsize - 1)) - 1)
        most = emit.variable(bits.load(peak))
        lines = [emit.load_integer(emit.offset(rows, 8 * l)) for l in range(len(transform.points) + 1)]
        with _columns(emit, count, dst) as here:
            x = [emit.load(emit.offset(line, here)) for line in lines]
            for a, value in enumerate(transform.pixels(x)):
                emit.store(emit.offset(dst, here, emit.times(apart, a)), value)
                size = builder.and_(builder.bitcast(value, bits.vector), magnitude)
                emit.set(most, builder.select(builder.icmp_signed(">", size, emit.get(most)), size, emit.get(most)))
        bits.store(peak, emit.get(most))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        outlined(builder, f"row_pixels_{name}_{width}_{many}", arguments[4:], body)
        return context.get_dummy_value()

    return types.void(kind, lanes, fma, taps, *[types.int64] * 5), codegen
