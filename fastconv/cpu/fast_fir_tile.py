"""fast_fir_tile: register tiles of two neighbours of results at a time from three sums of half the taps, and the pixels that they read."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .border import Span
from .compile import TileKernel
from .memory import unrolled_by_hand
from .simd import KINDS, Emitter, literal
from .tile import TAPS_AT, direct_tile_body

PARTS = 3  # sums: of the odd neighbours of pixels, for the even results and for the odd ones
CHUNK = 4  # vectors of pixels of which `fast_fir_columns` makes a vector of each phase


@intrinsic(prefer_literal=True)
def fast_fir_tile(
    typing_context: Any, spec: Any, shape: Any, start: Any, aside: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``rows x vecs`` vectors of the even and as many of the odd rows of an output plane, or columns.

    Stride 1: ``sum_p(i, x) = sum_{j, kx} row_p(i + j)[xoff + x*column + kx*tap] * wei_p[j, kx]`` for p = 0, 1, 2;
    ``dst[2i, x] = sum_0 + sum_1 + start``, ``dst[2i + 1, x] = sum_0 + sum_2 + start``.
    Stride 2: ``sum_p(i, x) = sum_{ky, m} row_p(2i + ky)[xoff + x*column + place_p[m]] * wei_p[ky, m]``;
    ``dst[i, 2x] = sum_0 + sum_1 + start``, ``dst[i, 2x + 1] = sum_0 + sum_2 + start``.

    ``spec = (kind, lanes, rows, vecs, tall, stride, fma)``.  ``shape`` is the address of the integers of `tile.Shape`, of which ``kh`` and
    ``kw`` are those of all taps.  Of stride 1 j < (kh + 1) // 2 for the first two parts, kh // 2 for the third; icg and step are not read.
    Of stride 2 m < (kw + 3) // 4 + (kw + 2) // 4 for the first two parts, whose places lie ``places`` bytes behind ``shape`` and are
    followed by those of the third, (kw + 1) // 4 + kw // 4; icg is 1.
    ``start`` is the address of the addend, with the weights of all parts at ``start + TAPS_AT``, each as `tile.direct_tile` takes them.
    ``table[p*pitch + i]`` holds the addresses of the rows.  ``aside`` is memory for a vector, in whose lanes a NaN is put where a result is
    not finite, and behind it for a tile, two of stride 2.  ``xoff, dst_pitch`` are bytes.
    Order of accumulation: part 0, then the other part, each from zero in the order of `tile.direct_tile`; the addend last.
    Whole tiles are stored; of stride 1 a tile reads ``lanes*vecs - 1 + (kw - 1)`` pixels beyond its first.  No tails, no borders.
    """
    kind, lanes, rows, vecs, tall, stride, fma = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        body = direct_tile_body(builder, (kind, lanes, rows, vecs, stride, stride % 2, tall, 0, 0, fma), arguments[1])
        emit, shape = body.emit, body.shape
        start, check, table, xoff, dst, dst_pitch, count = arguments[2:]
        zero, addend = emit.number(0), emit.splat(start)
        left, to, wrong = emit.variable(xoff), emit.variable(dst), emit.variable(emit.load(check))
        aside, tile = emit.offset(check, emit.width), rows * vecs * emit.width
        kept = [[emit.variable(zero) for _ in range(vecs)] for _ in range(rows)]

        def halves(count: Any, firsts: tuple[int, ...]) -> Any:
            """How many of ``count`` lie a whole number of pairs behind each of the first places."""
            many = [emit.quotient(emit.offset(count, 2 * stride - 1 - first), 2 * stride) for first in firsts]
            return many[0] if len(many) == 1 else builder.add(*many)

        taps = shape.kh if stride == 1 else shape.kw
        many, few = (halves(taps, tuple(range(odd * stride, (odd + 1) * stride))) for odd in range(2))
        with emit.loop(count):
            body.acc = [[emit.variable(zero) for _ in range(vecs)] for _ in range(rows)]
            body.weights = emit.variable(emit.offset(start, TAPS_AT))
            base, part = emit.variable(table), emit.variable(emit.constant(0))
            result, pitch, last = emit.variable(aside), emit.variable(emit.constant(vecs * emit.width)), emit.variable(zero)
            with emit.loop(emit.constant(PARTS)):
                third = builder.icmp_unsigned("==", emit.get(part), emit.constant(2))
                if stride == 1:
                    body.entries = emit.variable(emit.get(base))
                    body.groups(emit.get(left), builder.select(third, few, many))
                else:
                    behind = builder.select(third, emit.times(many, 8), emit.constant(0))
                    body.shape = shape._replace(kw=builder.select(third, few, many), places=emit.offset(shape.places, behind))
                    body.channels(emit.get(base), emit.get(left))
                sums = [[builder.fadd(value, emit.get(last)) for value in row] for row in body.sums()]
                for i, row in enumerate(sums):
                    for n, value in enumerate(row):
                        emit.set(wrong, emit.multiply_add(value, zero, emit.get(wrong)))
                        emit.set(kept[i][n], value)
                body.store_rows(sums, emit.get(result), emit.get(pitch), emit.store)
                body.keep([[emit.load(emit.offset(aside, (i * vecs + n) * emit.width)) for n in range(vecs)] for i in range(rows)])
                first = builder.icmp_unsigned("==", emit.get(part), emit.constant(0))
                if stride == 1:
                    emit.set(result, builder.select(first, emit.get(to), emit.offset(emit.get(to), dst_pitch)))
                    emit.set(pitch, emit.times(dst_pitch, 2))
                else:  # the odd results, over the first sum's, wait in registers
                    emit.set(result, builder.select(first, emit.offset(aside, tile), aside))
                emit.set(last, addend)
                emit.set(base, emit.offset(emit.get(base), shape.pitch))
                emit.set(part, emit.offset(emit.get(part), 1))
            if stride == 2:
                for i in range(rows):
                    for n in range(vecs):
                        even, odd = emit.load(emit.offset(aside, tile + (i * vecs + n) * emit.width)), emit.get(kept[i][n])
                        for half in range(2):
                            place = emit.offset(emit.get(to), emit.times(dst_pitch, i), (2 * n + half) * emit.width)
                            emit.store(place, emit.pick(even, odd, [half * lanes // 2 + x // 2 + x % 2 * lanes for x in range(lanes)]))
            emit.set(left, emit.offset(emit.get(left), emit.times(shape.column, lanes * vecs)))
            emit.set(to, emit.offset(emit.get(to), stride * vecs * emit.width))
        emit.store(check, emit.get(wrong))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


def _factory(*spec: Any) -> Any:
    """The kernel of `fast_fir_tile` with this ``spec``, of its other arguments."""

    def tile(shape: Any, start: Any, aside: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any) -> None:
        unrolled_by_hand()
        fast_fir_tile(spec, shape, start, aside, table, xoff, dst, dst_pitch, count)

    return tile


def fast_fir_tile_kernel(kind: str, lanes: int, rows: int, vecs: int, tall: int, stride: int, fma: int) -> TileKernel:
    """`_factory`'s, to be called with eight integers."""
    name = f"fast_fir_{kind}_{rows}x{vecs}_{lanes}" + f"_s{stride}" * (stride > 1)
    return TileKernel(name, _factory, (kind, lanes, rows, vecs, tall, stride, fma), 8)


@intrinsic(prefer_literal=True)
def fast_fir_rows(
    typing_context: Any, kind: Any, lanes: Any, dst: Any, apart: Any, rows: Any, span: Any, maps: Any, fill: Any
) -> Any:  # fmt: skip
    """What three parts read of a pair of rows of the image and the next: ``x[1]``, ``x[0] - x[1]``, ``x[2] - x[1]``, ``apart`` bytes apart.

    ``rows`` is the address of the addresses of x[0], x[1] and x[2], ``span`` and ``maps`` are those of `border.border_row`.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, dst, apart, rows, span, maps, fill = arguments
        emit = Emitter(builder, name, width, False)
        at = Span(*(emit.load_integer(emit.offset(span, 8 * n)) for n in range(len(Span._fields))))
        images = [emit.load_integer(emit.offset(rows, 8 * n)) for n in range(3)]

        def parts(x: list[Any]) -> list[Any]:
            return [x[1], builder.fsub(x[0], x[1]), builder.fsub(x[2], x[1])]

        def vectors(offset: Any) -> None:
            made = parts([emit.load(emit.offset(image, emit.times(emit.offset(at.first, offset), emit.itemsize))) for image in images])
            place = emit.offset(dst, emit.times(emit.offset(at.before, offset), emit.itemsize))
            for n, values in enumerate(made):
                emit.store(emit.offset(place, emit.times(apart, n)), values)

        def pixels(first: Any, count: Any, column_of: Any) -> None:
            """``count`` pixels one by one."""
            n = emit.variable(emit.constant(0))
            with emit.loop(count):
                column = column_of(emit.get(n))
                outside = builder.icmp_signed("<", column, emit.constant(0))
                place = emit.times(builder.select(outside, emit.constant(0), column), emit.itemsize)
                x = [builder.select(outside, fill, emit.load_scalar(emit.offset(image, place))) for image in images]
                to = emit.offset(dst, emit.times(emit.offset(first, emit.get(n)), emit.itemsize))
                for m, value in enumerate(parts(x)):
                    emit.store_scalar(emit.offset(to, emit.times(apart, m)), value)
                emit.set(n, emit.offset(emit.get(n), 1))

        def mapped(start: Any) -> Any:
            return lambda n: emit.load_integer(emit.offset(maps, emit.times(emit.offset(start, n), 8)))

        pixels(emit.constant(0), at.before, mapped(at.before_at))
        whole = emit.quotient(at.inside, width)
        with emit.either(whole) as (some, none):
            with some:
                offset = emit.variable(emit.constant(0))
                with emit.loop(whole):
                    vectors(emit.get(offset))
                    emit.set(offset, emit.offset(emit.get(offset), width))
                vectors(emit.offset(at.inside, -width))
            with none:
                pixels(at.before, at.inside, lambda n: emit.offset(at.first, n))
        pixels(emit.offset(at.before, at.inside), at.after, mapped(at.after_at))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 5, KINDS[name][1]), codegen


@intrinsic(prefer_literal=True)
def fast_fir_columns(
    typing_context: Any, kind: Any, lanes: Any, lines: Any, to: Any, apart: Any, phase: Any, rows: Any, at: Any, count: Any
) -> Any:  # fmt: skip
    """What three parts read of rows of the image: of q = 0, 1, ``x[4t+2+q]``, ``x[4t+q] - x[4t+2+q]`` and ``x[4t+q] - x[4t-2+q]``.

    A vector of t of each of ``count`` rows: of `CHUNK` vectors of pixels, and the two before them.  ``rows`` and ``lines`` are the
    addresses of those of the rows of pixels, x being ``at`` bytes into them, and of the first parts of what is made of them, to which
    is written ``to`` bytes behind their starts.  Parts lie ``apart`` bytes apart, the two q ``phase`` bytes.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lines, to, apart, phase, rows, at, count = arguments[2:]
        emit = Emitter(builder, name, width, False)
        bits = emit.bits()
        line, row = emit.variable(lines), emit.variable(rows)
        with emit.loop(count):
            source = emit.offset(emit.load_integer(emit.get(row)), at)
            # as integers, whose lane shifts LLVM makes one instruction of
            x = [bits.load(emit.offset(source, n * emit.width)) for n in range(CHUNK)]
            for q, pick in enumerate((bits.even, bits.odd)):
                pair, place = (pick(x[0], x[1]), pick(x[2], x[3])), emit.offset(emit.load_integer(emit.get(line)), to, emit.times(phase, q))
                even, odd = bits.even(*pair), bits.odd(*pair)
                before = bits.pick(bits.splat(emit.offset(source, (q - 2) * emit.itemsize)), odd, range(width - 1, 2 * width - 1))
                even, odd, before = (emit.values(value) for value in (even, odd, before))
                for n, value in enumerate((odd, builder.fsub(even, odd), builder.fsub(even, before))):
                    emit.store(emit.offset(place, emit.times(apart, n)), value)
            emit.set(line, emit.offset(emit.get(line), 8))
            emit.set(row, emit.offset(emit.get(row), 8))
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 7), codegen
