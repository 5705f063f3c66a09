"""fft_tile: Fourier transforms of vectors of columns, unrolled into the function that Numba is building.

A *column* is ``count`` points, each one vector of real parts and one of imaginary parts, ``PARTS`` vectors side by side: as many
transforms at once as a vector has lanes, so nothing is shuffled.  Transforms are in place and leave the frequencies in the order in which
their radices leave them; the inverse undoes it.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from .simd import Emitter, literal

PARTS = 2  # vectors of a point: real, imaginary
RADICES = (2, 3, 4, 5, 8)
PLAIN, AFTER, BEFORE = range(3)  # whether twiddles follow a butterfly, precede it (of the inverse), or are all 1
# One pass over a column: radix and kind of its butterflies (`code`), how many lie side by side in a group, bytes between their points
# and between groups, how many groups, and where its twiddles are.
Pass = namedtuple("Pass", "code count apart group groups twiddles")

Point = tuple[Any, Any]


def code(radix: int, kind: int) -> int:
    """The number of one kind of butterfly in :data:`Pass`."""
    return 3 * radix + kind


class _Arithmetic:
    """Complex arithmetic on pairs of vectors."""

    def __init__(self, builder: Any, kind: str, lanes: int, fma: int) -> None:
        self.builder = builder
        self.emit = Emitter(builder, kind, lanes, bool(fma))
        self.part = self.emit.width
        self.pitch = PARTS * self.emit.width

    def number(self, value: float) -> Any:
        """A constant in every lane."""
        return self.emit.vector([value] * self.emit.lanes)

    def scaled(self, a: Any, value: float) -> Any:
        return self.builder.fmul(a, self.number(value))

    def plus(self, a: Point, b: Point) -> Point:
        return self.builder.fadd(a[0], b[0]), self.builder.fadd(a[1], b[1])

    def minus(self, a: Point, b: Point) -> Point:
        return self.builder.fsub(a[0], b[0]), self.builder.fsub(a[1], b[1])

    def turned(self, a: Point) -> Point:
        """``-i a``."""
        return a[1], self.builder.fneg(a[0])

    def add_scaled(self, a: Point, b: Point, factor: float) -> Point:
        """``a + factor b``."""
        many = self.number(factor)
        return self.emit.multiply_add(b[0], many, a[0]), self.emit.multiply_add(b[1], many, a[1])

    def times(self, a: Point, w: Point) -> Point:
        """``a w``."""
        emit, build = self.emit, self.builder
        real = emit.multiply_add(a[0], w[0], build.fneg(build.fmul(a[1], w[1])))
        return real, emit.multiply_add(a[0], w[1], build.fmul(a[1], w[0]))

    def times_conjugate(self, a: Point, w: Point) -> Point:
        """``a conj(w)``."""
        emit, build = self.emit, self.builder
        real = emit.multiply_add(a[0], w[0], build.fmul(a[1], w[1]))
        return real, emit.multiply_add(a[1], w[0], build.fneg(build.fmul(a[0], w[1])))

    def load(self, address: Any, real: Any = 0, imaginary: Any = None) -> Point:
        emit = self.emit
        return emit.load(emit.offset(address, real)), emit.load(emit.offset(address, self.part if imaginary is None else imaginary))

    def store(self, address: Any, value: Point, real: Any = 0, imaginary: Any = None) -> None:
        emit = self.emit
        emit.store(emit.offset(address, real), value[0])
        emit.store(emit.offset(address, self.part if imaginary is None else imaginary), value[1])

    def splat(self, address: Any, place: int) -> Point:
        """The complex number at a place of a table, in every lane."""
        emit = self.emit
        at = emit.offset(address, 2 * place * emit.itemsize)
        return emit.splat(at), emit.splat(emit.offset(at, emit.itemsize))

    def butterfly(self, a: Sequence[Point]) -> list[Point]:
        """``b[k] = sum_j a[j] exp(-2 pi i j k / len(a))``."""
        return {2: self._two, 3: self._three, 4: self._four, 5: self._five, 8: self._eight}[len(a)](a)

    def _two(self, a: Sequence[Point]) -> list[Point]:
        return [self.plus(a[0], a[1]), self.minus(a[0], a[1])]

    def _three(self, a: Sequence[Point]) -> list[Point]:
        total, apart = self.plus(a[1], a[2]), self.minus(a[1], a[2])
        middle = self.add_scaled(a[0], total, -1 / 2)
        side = self.turned(apart)
        sine = math.sin(math.tau / 3)
        return [self.plus(a[0], total), self.add_scaled(middle, side, sine), self.add_scaled(middle, side, -sine)]

    def _four(self, a: Sequence[Point]) -> list[Point]:
        (even, odd), (crossed, apart) = self._two((a[0], a[2])), self._two((a[1], a[3]))
        side = self.turned(apart)
        return [self.plus(even, crossed), self.plus(odd, side), self.minus(even, crossed), self.minus(odd, side)]

    def _five(self, a: Sequence[Point]) -> list[Point]:
        (outer, outer_apart), (inner, inner_apart) = self._two((a[1], a[4])), self._two((a[2], a[3]))
        c1, c2 = (math.cos(math.tau * k / 5) for k in (1, 2))
        s1, s2 = (math.sin(math.tau * k / 5) for k in (1, 2))
        first = self.add_scaled(self.add_scaled(a[0], outer, c1), inner, c2)
        second = self.add_scaled(self.add_scaled(a[0], outer, c2), inner, c1)
        u, v = self.turned(outer_apart), self.turned(inner_apart)
        side = self.add_scaled((self.scaled(u[0], s1), self.scaled(u[1], s1)), v, s2)
        other = self.add_scaled((self.scaled(u[0], s2), self.scaled(u[1], s2)), v, -s1)
        whole = self.plus(self.plus(a[0], outer), inner)
        return [whole, self.plus(first, side), self.plus(second, other), self.minus(second, other), self.minus(first, side)]

    def _eight(self, a: Sequence[Point]) -> list[Point]:
        even, odd = self._four(a[::2]), self._four(a[1::2])
        root = math.sqrt(1 / 2)
        build = self.builder

        def eighth(z: Point) -> Point:  # exp(-2 pi i / 8) z
            return self.scaled(build.fadd(z[0], z[1]), root), self.scaled(build.fsub(z[1], z[0]), root)

        odd = [odd[0], eighth(odd[1]), self.turned(odd[2]), self.turned(eighth(odd[3]))]
        return [*map(self.plus, even, odd), *map(self.minus, even, odd)]


@intrinsic(prefer_literal=True)
def fft_pass(typing_context: Any, spec: Any, column: Any, inverse: Any, entry: Any, tables: Any) -> Any:
    """``fft_pass(spec, column, inverse, entry, tables)``: one pass over a column, read from the :data:`Pass` at ``entry``.

    ``spec = (kind, lanes, fma)``; twiddles are at ``tables + twiddles``, ``(radix - 1)`` complex numbers for each butterfly of a group.
    With ``inverse`` not 0 real and imaginary parts change roles, which turns a transform into its inverse.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, column, inverse, entry, tables = arguments
        math_ = _Arithmetic(builder, *chosen)
        emit = math_.emit
        one = Pass(*(emit.load_integer(emit.offset(entry, 8 * n)) for n in range(len(Pass._fields))))
        imaginary = builder.sub(emit.constant(math_.part), emit.times(inverse, math_.part))
        real = emit.times(inverse, math_.part)
        table = emit.offset(tables, one.twiddles)
        for radix in RADICES:
            for kind in (PLAIN, AFTER, BEFORE):
                with emit.case(one.code, code(radix, kind)):
                    _emit_pass(math_, radix, kind, one, column, real, imaginary, table)
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 4), codegen


def _emit_pass(m: _Arithmetic, radix: int, kind: int, one: Pass, column: Any, real: Any, imaginary: Any, table: Any) -> None:
    """All butterflies of one radix and kind."""
    emit = m.emit
    group = emit.variable(column)
    with emit.loop(one.groups):
        at, twiddles = emit.variable(emit.get(group)), emit.variable(table)
        with emit.loop(one.count):
            here, w = emit.get(at), emit.get(twiddles)
            places = [here]
            for _ in range(radix - 1):
                places.append(emit.offset(places[-1], one.apart))
            points = [m.load(place, real, imaginary) for place in places]
            if kind == BEFORE:
                points = [points[0], *(m.times(point, m.splat(w, q)) for q, point in enumerate(points[1:]))]
            points = m.butterfly(points)
            if kind == AFTER:
                points = [points[0], *(m.times(point, m.splat(w, q)) for q, point in enumerate(points[1:]))]
            for place, point in zip(places, points, strict=True):
                m.store(place, point, real, imaginary)
            emit.set(at, emit.offset(here, m.pitch))
            if kind != PLAIN:
                emit.set(twiddles, emit.offset(w, 2 * (radix - 1) * emit.itemsize))
        emit.set(group, emit.offset(emit.get(group), one.group))


@intrinsic(prefer_literal=True)
def fft_load(typing_context: Any, spec: Any, column: Any, count: Any, rows: Any, xoff: Any, twist: Any, shift: Any, seen: Any) -> Any:
    """``column[j] = (row(j)[xoff] - shift + i (row(j + count)[xoff] - shift)) twist[j]``; what is not finite counts as 0.

    ``rows`` holds the addresses of ``2 count`` rows; ``twist`` is a table of complex numbers, ``shift`` the address of a vector.  The
    vector of integers at ``seen`` is raised to the largest bits of an absolute value: those of infinity where one is not finite, or more.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, column, count, rows, xoff, twist, shift, seen = arguments
        m = _Arithmetic(builder, *chosen)
        emit, bits = m.emit, m.emit.bits()
        size = 8 * emit.itemsize
        magnitude = bits.vector([2 ** (size - 1) - 1] * bits.lanes)
        infinity = bits.vector([{32: 0x7F800000, 64: 0x7FF0000000000000}[size]] * bits.lanes)
        shifted = emit.load(shift)
        largest = emit.variable(bits.load(seen))
        to, table, w = emit.variable(column), emit.variable(rows), emit.variable(twist)

        def pixels(entry: Any) -> Any:
            place = emit.offset(emit.load_integer(entry), xoff)
            value = emit.load(place)
            emit.prefetch(emit.offset(place, emit.width))  # of the next column
            absolute = builder.and_(builder.bitcast(value, bits.vector), magnitude)
            before = emit.get(largest)
            emit.set(largest, builder.select(builder.icmp_signed(">", absolute, before), absolute, before))
            finite = builder.icmp_signed("<", absolute, infinity)
            return builder.fsub(builder.select(finite, value, m.number(0)), shifted)

        with emit.loop(count):
            entry = emit.get(table)
            point = pixels(entry), pixels(emit.offset(entry, emit.times(count, 8)))
            m.store(emit.get(to), m.times(point, m.splat(emit.get(w), 0)))
            emit.set(to, emit.offset(emit.get(to), m.pitch))
            emit.set(table, emit.offset(entry, 8))
            emit.set(w, emit.offset(emit.get(w), 2 * emit.itemsize))
        bits.store(seen, emit.get(largest))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 7), codegen


@intrinsic(prefer_literal=True)
def fft_store(
    typing_context: Any, spec: Any, column: Any, count: Any, lines: Any, xoff: Any, twist: Any, factors: Any, start: Any, finish: Any
) -> Any:
    """``line(j)[xoff] = start + factor[j] Re z`` and ``line(j + count)[xoff] = start + factor[j + count] Im z``, where
    ``z = column[j] conj(twist[j])``; through the activation where there is one.

    ``lines`` holds the addresses of ``2 count`` rows, 0 for those that are not wanted; ``finish`` is the address of ``[slope, low, high]``
    or 0, ``start`` that of a vector.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, column, count, lines, xoff, twist, factors, start, finish = arguments
        m = _Arithmetic(builder, *chosen)
        emit = m.emit
        first = emit.load(start)

        def all_rows(activated: bool) -> None:
            limits = [emit.splat(emit.offset(finish, n * emit.itemsize)) for n in range(3)] if activated else []
            place, table, w, factor = (emit.variable(argument) for argument in (column, lines, twist, factors))
            with emit.loop(count):
                z = m.times_conjugate(m.load(emit.get(place)), m.splat(emit.get(w), 0))
                for part, value in enumerate(z):
                    to = emit.load_integer(emit.offset(emit.get(table), emit.times(count, 8 * part)))
                    with emit.either(to) as (wanted, unwanted):
                        with wanted:
                            scale = emit.splat(emit.offset(emit.get(factor), emit.times(count, emit.itemsize * part)))
                            value = emit.multiply_add(value, scale, first)
                            emit.store(emit.offset(to, xoff), emit.activate(value, *limits) if activated else value)
                        with unwanted:
                            pass
                emit.set(place, emit.offset(emit.get(place), m.pitch))
                emit.set(table, emit.offset(emit.get(table), 8))
                emit.set(w, emit.offset(emit.get(w), 2 * emit.itemsize))
                emit.set(factor, emit.offset(emit.get(factor), emit.itemsize))

        with emit.either(finish) as (activated, plain):
            with activated:
                all_rows(True)
            with plain:
                all_rows(False)
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 8), codegen


@intrinsic(prefer_literal=True)
def fft_turn(typing_context: Any, spec: Any, to: Any, to_step: Any, source: Any, source_step: Any, count: Any) -> Any:
    """Transpose ``count`` squares of ``lanes`` points: lanes become points, points become lanes.

    A square is ``lanes`` consecutive points; the next one is ``to_step`` and ``source_step`` bytes on.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, to, to_step, source, source_step, count = arguments
        m = _Arithmetic(builder, *chosen)
        emit = m.emit
        place, end = emit.variable(source), emit.variable(to)
        with emit.loop(count):
            for part in range(PARTS):
                first, last = (emit.offset(emit.get(at), part * m.part) for at in (place, end))
                rows = [emit.load(emit.offset(first, n * m.pitch)) for n in range(emit.lanes)]
                for n, row in enumerate(emit.transpose(rows)):
                    emit.store(emit.offset(last, n * m.pitch), row)
            emit.set(place, emit.offset(emit.get(place), source_step))
            emit.set(end, emit.offset(emit.get(end), to_step))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 5), codegen


@intrinsic(prefer_literal=True)
def fft_middle(typing_context: Any, spec: Any, column: Any, wei: Any, entry: Any, power: Any) -> Any:
    """The last pass of a transform, ``column[j] = column[j] conj(wei[j])``, and the first pass of the inverse, without a store between.

    ``entry`` is the address of the last :data:`Pass`, whose butterflies are plain and of neighbouring points.  Where ``power`` is not 0
    it is the address of a number, and the transform is ``number wei``: nothing of ``column`` is read.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, column, wei, entry, power = arguments
        m = _Arithmetic(builder, *chosen)
        emit = m.emit
        one = Pass(*(emit.load_integer(emit.offset(entry, 8 * n)) for n in range(len(Pass._fields))))
        for radix in RADICES:
            with emit.case(one.code, code(radix, PLAIN)):
                place, factor = emit.variable(column), emit.variable(wei)
                with emit.loop(one.groups):
                    here, w = emit.get(place), emit.get(factor)
                    places = [emit.offset(here, q * m.pitch) for q in range(radix)]
                    factors = [m.load(emit.offset(w, q * m.pitch)) for q in range(radix)]
                    points = [tuple(emit.variable(part) for part in point) for point in factors]
                    with emit.either(power) as (same, other):
                        with same:
                            number = emit.splat(power)
                            found = [tuple(builder.fmul(part, number) for part in point) for point in factors]
                            _keep(emit, points, found)
                        with other:
                            _keep(emit, points, m.butterfly([m.load(at) for at in places]))
                    products = [m.times_conjugate((emit.get(a), emit.get(b)), w) for (a, b), w in zip(points, factors, strict=True)]
                    for at, point in zip(places, m.butterfly([product[::-1] for product in products]), strict=True):
                        m.store(at, point[::-1])
                    emit.set(place, emit.offset(here, radix * m.pitch))
                    emit.set(factor, emit.offset(w, radix * m.pitch))
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 4), codegen


def _keep(emit: Emitter, places: Sequence[Point], values: Sequence[Point]) -> None:
    for place, value in zip(places, values, strict=True):
        for part in range(PARTS):
            emit.set(place[part], value[part])
