"""tile: register tiles, unrolled into the function that Numba is building from a literal tuple."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal


@intrinsic(prefer_literal=True)
def direct_tile(
    typing_context: Any, spec: Any, table: Any, pitch: Any, step: Any, xoff: Any, wei: Any, nic: Any, kh: Any, kw: Any,
    tap: Any, sw: Any, start: Any, dst: Any, dst_pitch: Any, finish: Any,
) -> Any:  # fmt: skip
    """``rows x vecs`` vectors of one output plane.

    ``dst[i, x] = start + sum_{c, ky, kx} row(c, i, ky)[xoff + x*sw + kx*tap] * wei[c, ky, kx]``

    ``spec = (kind, lanes, rows, vecs, v, h, chunk, only, fma)``: stride classes ``v`` (rows) and ``h`` (columns) are 1, 2 or 0 (any);
    ``only`` is the one kh the code is for, at most ``chunk``, or 0.
    ``table[c*pitch + e]`` holds the addresses of the rows: ``row(c, i, ky)`` is entry ``e = i*v + ky`` (``i*step + ky`` for v = 0).
    The kh rows of taps form the fewest groups of at most ``chunk``, as even as can be, taller ones first; ``wei`` is packed as
    ``[c][group][kx][ky]``.  Order of accumulation: c, group, kx, ky; for h = 2 and tap = 1 element, kx by pairs: ky, then kx
    within the pair.
    ``pitch, step, xoff, tap, sw, dst_pitch`` are bytes; ``start`` is the address of the first addend; ``finish`` that of
    ``[slope, low, high]`` or 0.  The whole tile is stored; it reads ``(lanes*vecs - 1)*sw + (kw-1)*tap`` elements beyond ``xoff``,
    one more for h = 2.  No tails, no borders: the driver sees to both.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_direct(builder, chosen, *arguments[1:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 14), codegen


def _emit_direct(
    builder: Any, spec: tuple[Any, ...], table: Any, pitch: Any, step: Any, xoff: Any, wei: Any, nic: Any, kh: Any, kw: Any,
    tap: Any, sw: Any, start: Any, dst: Any, dst_pitch: Any, finish: Any,
) -> None:  # fmt: skip
    kind, lanes, rows, vecs, v, h, chunk, only, fma = spec
    emit = Emitter(builder, kind, lanes, bool(fma))
    first = emit.splat(start)
    acc = [[emit.variable(first) for _ in range(vecs)] for _ in range(rows)]
    entries, weights = emit.variable(table), emit.variable(wei)

    def loads(address: Any, odd: bool) -> list[list[Any]]:
        """Per tap of the step, the vectors of one row; a step is one kx, or a pair for h = 2."""
        taps: list[list[Any]] = [[], []] if odd else [[]]
        for vec in range(vecs):
            if h == 1:
                taps[0].append(emit.load(emit.offset(address, vec * emit.width)))
            elif h == 2:
                low = emit.load(emit.offset(address, 2 * vec * emit.width))
                high = emit.load(emit.offset(address, (2 * vec + 1) * emit.width))
                taps[0].append(emit.even(low, high))
                if odd:
                    taps[1].append(emit.odd(low, high))
            else:
                taps[0].append(emit.gather(emit.offset(address, emit.times(sw, vec * lanes)), sw))
        return taps

    def columns(height: int, count: Any, pair: bool, at: Any) -> None:
        """All kx of one group of ``height`` rows of taps, in steps of one or two."""
        per_step = 2 if pair else 1
        table = emit.get(entries)
        used = (rows - 1) * v + height if v else 0
        lines = [emit.load_integer(emit.offset(table, r * 8)) for r in range(used)]
        with emit.loop(count):
            here, w = emit.get(at), emit.get(weights)
            sums = [[emit.get(place) for place in row] for row in acc]
            taps = [[emit.splat(emit.offset(w, (t * height + ky) * emit.itemsize)) for ky in range(height)] for t in range(per_step)]
            if v:
                for r in range((rows - 1) * v + height):
                    uses = [(i, r - i * v) for i in range(rows) if 0 <= r - i * v < height]
                    if not uses:
                        continue
                    multiply(sums, uses, loads(emit.offset(lines[r], here), pair), taps)
                    done = iter(emit.fence([sums[i][vec] for i, _ in uses for vec in range(vecs)]))
                    for i, _ in uses:
                        for vec in range(vecs):
                            sums[i][vec] = next(done)
            else:
                for i in range(rows):
                    base = emit.offset(table, emit.times(step, i))
                    for ky in range(height):
                        row = emit.load_integer(emit.offset(base, ky * 8))
                        multiply(sums, [(i, ky)], loads(emit.offset(row, here), pair), taps)
            for places, values in zip(acc, sums, strict=True):
                for place, value in zip(places, values, strict=True):
                    emit.set(place, value)
            emit.set(at, emit.offset(here, emit.times(tap, per_step)))
            emit.set(weights, emit.offset(w, per_step * height * emit.itemsize))

    def multiply(sums: list[list[Any]], uses: list[tuple[int, int]], pixels: list[list[Any]], taps: list[list[Any]]) -> None:
        for t, vectors in enumerate(pixels):
            for i, ky in uses:
                for vec in range(vecs):
                    sums[i][vec] = emit.multiply_add(vectors[vec], taps[t][ky], sums[i][vec])

    def group(height: int) -> None:
        at = emit.variable(xoff)
        if h == 2:
            dense = builder.zext(builder.icmp_unsigned("==", tap, emit.constant(emit.itemsize)), kw.type)
            pairs = emit.times(emit.quotient(kw, 2), dense)
            columns(height, pairs, True, at)
            columns(height, builder.sub(kw, emit.times(pairs, 2)), False, at)
        else:
            columns(height, kw, False, at)

    channel = emit.variable(table)
    with emit.loop(nic):
        emit.set(entries, emit.get(channel))
        if only:
            group(only)
        else:
            left, groups = emit.variable(kh), emit.variable(emit.quotient(emit.offset(kh, chunk - 1), chunk))
            with emit.loop(emit.get(groups)):
                # the remaining rows of taps, spread evenly over the remaining groups, the taller ones first
                rest, many = emit.get(left), emit.get(groups)
                height = builder.udiv(builder.sub(builder.add(rest, many), emit.constant(1)), many)
                for candidate in range(1, chunk + 1):
                    with emit.case(height, candidate):
                        group(candidate)
                emit.set(entries, emit.offset(emit.get(entries), emit.times(height, 8)))
                emit.set(left, builder.sub(rest, height))
                emit.set(groups, builder.sub(many, emit.constant(1)))
        emit.set(channel, emit.offset(emit.get(channel), pitch))

    with emit.either(finish) as (activated, plain):
        with activated:
            limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)]
            for i in range(rows):
                for vec in range(vecs):
                    value = emit.activate(emit.get(acc[i][vec]), *limits)
                    emit.store(emit.offset(dst, emit.times(dst_pitch, i), vec * emit.width), value)
        with plain:
            for i in range(rows):
                for vec in range(vecs):
                    emit.store(emit.offset(dst, emit.times(dst_pitch, i), vec * emit.width), emit.get(acc[i][vec]))
