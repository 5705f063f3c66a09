"""winograd_tile: what `winograd` does with vectors: squares turned, 1-D transforms of pixels, products, results.

Everywhere ``spec = (kind, lanes, m, stride, mr, nt, fma)``: blocks of ``m x m`` results, ``mr`` vectors of output channels and ``nt``
blocks in registers.  The lanes of a vector are channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning.winograd_points import pixels_of, points_of, transform_of
from .simd import I64, Emitter, literal

CHUNK = 128  # channels of one sum; the sums of chunks are added up, so that errors hardly grow with the channels
# Results of at least this magnitude, but 0, and finite: what is smaller may have lost bits on its way.
LEAST_EXPONENT = {"f32": -60, "f64": -500}


def error_of(icg: int) -> int:
    """C of the bound of each output of F(4x4), of so many channels; F(2x2) errs less.

    44 is the largest seen of one channel, and 3.4 for each channel of a chunk where all channels are equal and have one tap; of random
    layers 2.
    """
    return 64 + 4 * min(icg, CHUNK) + 4 * icg // CHUNK


@intrinsic(prefer_literal=True)
def turned_pixels(
    typing_context: Any, spec: Any, dst: Any, src: Any, channel: Any, channels: Any, zeros: Any, columns: Any, count: Any, last: Any,
) -> Any:  # fmt: skip
    """``dst[x, c] = src + c*channel + x`` for the columns ``x < columns`` of a row, ``lanes`` columns at a time.

    ``zeros`` is the address of a vector of zeros, read in place of the channels from ``channels`` on.  No vector begins behind column
    ``last``, which may be negative: it overlaps the one before.  Where fewer than ``lanes`` columns may be read, ``count``, only those are,
    and the others hold 0.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, src, channel, channels, zeros, columns, count, last = arguments
        kind, lanes, *_ = chosen
        emit = Emitter(builder, kind, lanes, False)
        x = emit.variable(emit.constant(0))

        def square(narrow: bool, first: Any) -> None:
            left = emit.times(first, emit.itemsize)
            rows = []
            for c in range(lanes):
                inside = builder.icmp_signed(">", channels, emit.constant(c))
                at = builder.select(inside, emit.offset(src, emit.times(channel, c), left), zeros)
                rows.append(emit.load_up_to(at, count) if narrow else emit.load(at))
            to = emit.offset(dst, emit.times(first, emit.width))
            for n, row in enumerate(emit.transpose(rows)):
                emit.store(emit.offset(to, n * emit.width), row)

        few = builder.zext(builder.icmp_signed("<", count, emit.constant(lanes)), I64)
        with emit.either(few) as (narrow, wide):
            with narrow:
                square(True, emit.constant(0))
            with wide, emit.loop(emit.quotient(emit.offset(columns, lanes - 1), lanes)):
                here = emit.get(x)
                square(False, builder.select(builder.icmp_signed(">", here, last), last, here))
                emit.set(x, emit.offset(here, lanes))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


@intrinsic(prefer_literal=True)
def transformed_pixels(
    typing_context: Any, spec: Any, dst: Any, dst_step: Any, dst_pitch: Any, src: Any, src_step: Any, src_pitch: Any, count: Any
) -> Any:
    """``dst[n*dst_step + i*dst_pitch] = sum_j B^T[i, j] src[n*src_step + j*src_pitch]``, vectors, for ``count`` of n; steps in bytes."""
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, dst_step, dst_pitch, src, src_step, src_pitch, count = arguments
        kind, lanes, m, stride, _, _, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform = transform_of(emit, m, stride)
        to, place = emit.variable(dst), emit.variable(src)
        with emit.loop(count):
            x = [emit.load(emit.offset(emit.get(place), emit.times(src_pitch, j))) for j in range(pixels_of(m, stride))]
            for i, value in enumerate(transform.pixels(x)):
                emit.store(emit.offset(emit.get(to), emit.times(dst_pitch, i)), value)
            emit.set(to, emit.offset(emit.get(to), dst_step))
            emit.set(place, emit.offset(emit.get(place), src_step))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 7), codegen


@intrinsic(prefer_literal=True)
def transformed_weights(
    typing_context: Any, spec: Any, dst: Any, dst_step: Any, dst_pitch: Any, src: Any, sc: Any, sy: Any, sx: Any, count: Any, past: Any,
    totals: Any, only: Any,
) -> Any:  # fmt: skip
    """``dst[c*dst_step + (i, j)*dst_pitch] = sum_{ky, kx} G[i, ky] G[j, kx] src[c*sc + ky*sy + kx*sx]``, vectors, for ``count`` of c.

    Stored past the caches where ``past`` is not 0: ``dst`` and the steps are then multiples of a vector's bytes.  Two i after the others,
    which share their halves: each (i, j) lies in other pages, and processors know few that are stored to (256 channels of 3x3, one i after
    the other: 0.8 of the time).  ``totals`` is where the sum of all ``|src|`` is stored.  Where ``only`` is not 0, of the transform's
    pairs only this one, from 1 on, is computed, as i of 0 and 1, and totals with the first.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, dst_step, dst_pitch, src, sc, sy, sx, count, past, totals, only = arguments
        kind, lanes, m, stride, _, _, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform = transform_of(emit, m, stride)
        taps = [(emit.times(sy, ky), emit.times(sx, kx)) for ky in range(3) for kx in range(3)]
        every = builder.icmp_signed("==", only, emit.constant(0))

        def of_pair(number: int) -> None:
            total, to, place = emit.variable(emit.number(0)), emit.variable(dst), emit.variable(src)
            rows = [emit.times(dst_pitch, builder.select(every, *(emit.constant((m + 2) * row) for row in (i, n))))
                    for n, i in enumerate(transform.pairs[number])]  # fmt: skip
            with emit.loop(count):
                w = [emit.load(emit.offset(emit.get(place), *tap)) for tap in taps]
                if number == 0:
                    sums = emit.get(total)
                    for value in w:
                        sums = builder.fadd(sums, emit.values(magnitude_bits(emit, value)))
                    emit.set(total, sums)
                columns = [transform.weights(w[kx::3]) for kx in range(3)]
                values = [transform.weights([column[i] for column in columns]) for i in transform.pairs[number]]
                with emit.either(past) as (streamed, kept):
                    for block, store in ((streamed, emit.store_past), (kept, emit.store)):
                        with block:
                            for row, results in zip(rows, values, strict=True):
                                for j, value in enumerate(results):
                                    store(emit.offset(emit.get(to), row, emit.times(dst_pitch, j)), value)
                emit.set(to, emit.offset(emit.get(to), dst_step))
                emit.set(place, emit.offset(emit.get(place), sc))
            if number == 0:
                emit.store(totals, emit.get(total))

        for number in range(len(transform.pairs)):
            with builder.if_then(builder.or_(every, builder.icmp_signed("==", only, emit.constant(number + 1)))):
                of_pair(number)
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 11), codegen


@intrinsic(prefer_literal=True)
def magnitudes(typing_context: Any, spec: Any, dst: Any, src: Any, count: Any) -> Any:
    """``dst = sum_n |src[n]|``, of ``count`` vectors."""
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, src, count = arguments
        kind, lanes, *_ = chosen
        emit = Emitter(builder, kind, lanes, False)
        place, total = emit.variable(src), emit.variable(emit.number(0))
        with emit.loop(count):
            emit.set(total, builder.fadd(emit.get(total), emit.values(magnitude_bits(emit, emit.load(emit.get(place))))))
            emit.set(place, emit.offset(emit.get(place), emit.width))
        emit.store(dst, emit.get(total))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 3), codegen


def store_sums(emit: Emitter, places: Sequence[Any], sums: Sequence[Any], later: Any) -> None:
    """The vectors that variables hold, added to what is at their places where ``later`` is not 0."""
    with emit.either(later) as (more, first):
        with more:
            for place, value in zip(places, sums, strict=True):
                emit.store(place, emit.builder.fadd(emit.load(place), emit.get(value)))
        with first:
            for place, value in zip(places, sums, strict=True):
                emit.store(place, emit.get(value))


def magnitude_bits(emit: Emitter, value: Any) -> Any:
    """The bits of the magnitude."""
    bits = emit.bits()
    return emit.builder.and_(emit.builder.bitcast(value, bits.vector), bits.number(2 ** (8 * emit.itemsize - 1) - 1))


@intrinsic(prefer_literal=True)
def products(
    typing_context: Any, spec: Any, dst: Any, dst_step: Any, pixels: Any, block: Any, wei: Any, blocks: Any, later: Any, ahead: Any,
    ahead_step: Any,
) -> Any:  # fmt: skip
    """``dst[t*dst_step + o] (+)= sum_c pixels[c / lanes * block + t*lanes + c % lanes] * wei[c, o]`` for nt blocks t, mr vectors of o.

    ``c`` runs over ``blocks * lanes`` channels, one after the other from 0 on; ``dst_step`` and ``block`` are bytes.  Where ``later`` is
    not 0 the sum is added to what is there.  At each channel the second-level cache is asked for the line at ``ahead``, which then
    advances by ``ahead_step`` bytes; not where mr is 1: the weights of few channels follow each other, and come as soon unasked (16 of 32
    groups at 14x14: 106 us instead of 108; one core, Zen 5).
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dst, dst_step, pixels, block, wei, blocks, later, ahead, ahead_step = arguments
        kind, lanes, _, _, mr, nt, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        places = [emit.offset(dst, emit.times(dst_step, t), n * emit.width) for n in range(mr) for t in range(nt)]
        acc = [emit.variable(emit.number(0)) for _ in places]
        base, weights, soon = (emit.variable(address) for address in (pixels, wei, ahead))
        with emit.loop(blocks):
            here, w = emit.get(base), emit.get(weights)
            sums = [emit.get(place) for place in acc]
            # in a loop of fewer channels LLVM keeps an address for each pixel, in memory
            for c in range(lanes):
                vectors = [emit.load(emit.offset(w, (c * mr + n) * emit.width)) for n in range(mr)]
                if mr > 1:
                    emit.prefetch(emit.get(soon))
                    emit.set(soon, emit.offset(emit.get(soon), ahead_step))
                for t in range(nt):
                    pixel = emit.splat(emit.offset(here, t * emit.width + c * emit.itemsize))
                    for n in range(mr):
                        sums[n * nt + t] = emit.multiply_add(vectors[n], pixel, sums[n * nt + t])
            for place, value in zip(acc, sums, strict=True):
                emit.set(place, value)
            emit.set(base, emit.offset(here, block))
            emit.set(weights, emit.offset(w, lanes * mr * emit.width))
        store_sums(emit, places, acc, later)
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 9), codegen


@intrinsic(prefer_literal=True)
def block_results(typing_context: Any, spec: Any, sums: Any, start: Any, finish: Any, dst: Any, dy: Any, dx: Any, dc: Any, way: Any) -> Any:
    """``dst[a, b] = finish(start + sum_ij A^T[a, i] A^T[b, j] sums[i, j])`` of a vector of output channels; whether it is to be repaired.

    ``sums[i, j]`` lie ``mr*lanes`` elements apart; ``start`` is the address of a vector, ``finish`` that of ``[slope, low, high]`` or 0.
    ``way`` is how results are stored: 0 as ``[a][b][lanes]`` at ``dst``, 1 channels last (``dc`` one element), 2 pixels in a row (``dx``
    one element).
    1 is returned where in some channel a result is not finite, or all are so small, but not 0, that the transforms may have lost bits.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, sums, start, finish, dst, dy, dx, dc, way = arguments
        kind, lanes, m, stride, mr, _, fma = chosen
        emit = Emitter(builder, kind, lanes, bool(fma))
        transform, points = transform_of(emit, m, stride), points_of(m, stride)
        rows = []
        for i in range(points):
            line = [emit.load(emit.offset(sums, (points * i + j) * mr * emit.width)) for j in range(points)]
            rows.append(transform.results(line))
        columns = [transform.results([row[b] for row in rows]) for b in range(m)]
        found = unsafe(emit, largest_of(emit, [value for column in columns for value in column]))
        first = emit.load(start)
        places = [[emit.variable(builder.fadd(columns[b][a], first)) for b in range(m)] for a in range(m)]
        with builder.if_then(builder.icmp_unsigned("!=", finish, emit.constant(0))):
            limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
            for place in (place for row in places for place in row):
                emit.set(place, emit.activate(emit.get(place), *limits))
        done = [[emit.get(place) for place in row] for row in places]
        with emit.case(way, 0):
            for a in range(m):
                for b in range(m):
                    emit.store(emit.offset(dst, (a * m + b) * emit.width), done[a][b])
        with emit.case(way, 1):
            for a in range(m):
                for b in range(m):
                    emit.store(emit.offset(dst, emit.times(dy, a), emit.times(dx, b)), done[a][b])
        with emit.case(way, 2):
            for a in range(m):
                for b in range(0, m, lanes):
                    count = min(lanes, m - b)
                    square = [done[a][b + n] if n < count else emit.undefined() for n in range(lanes)]
                    for lane, line in enumerate(emit.transpose(square)):
                        to = emit.offset(dst, emit.times(dc, lane), emit.times(dy, a), b * emit.itemsize)
                        emit.store_first(to, line, count)
        return found

    return types.int64(spec, *[types.int64] * 8), codegen


def largest_of(emit: Emitter, values: Sequence[Any], found: Any = None) -> Any:
    """The bits of the largest magnitudes of each lane, and of what was ``found`` before; NaN is larger than any number."""
    for value in values:
        absolute = magnitude_bits(emit, value)
        found = absolute if found is None else emit.builder.select(emit.builder.icmp_signed(">", absolute, found), absolute, found)
    return found


def unsafe(emit: Emitter, largest: Any) -> Any:
    """1 where in some lane the largest magnitude, of `largest_of`, is not finite, or below the least but not 0; else 0."""
    builder, bits = emit.builder, emit.bits()
    bias, mantissa = {"f32": (127, 23), "f64": (1023, 52)}[emit.kind]
    least = (bias + LEAST_EXPONENT[emit.kind]) << mantissa
    infinity = (2 * bias + 1) << mantissa
    above = builder.icmp_unsigned(">=", builder.sub(largest, bits.number(least)), bits.number(infinity - least))
    wrong = builder.and_(above, builder.icmp_unsigned("!=", largest, bits.number(0)))
    return builder.zext(emit.any(wrong), I64)
