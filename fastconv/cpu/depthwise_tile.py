"""depthwise_tile: the register tile of `depthwise`, channels in lanes; and planes turned into channels side by side and back."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..planning import cost as costs
from ..planning.problem import Problem
from .blocked_tile import Form
from .border import LINE
from .convert import converted, load_as, rounded_between, stored_bytes
from .simd import Emitter, literal
from .target import Target

# (channels of a group, columns of taps) that get kernels of their own, at strides 1 and 2
FIXED = ((1, 3), (1, 5), (1, 7), (2, 3), (4, 3), (8, 3), (16, 3))

DOWN = 3  # rows, and columns, of taps of the tile that goes down

OUTSIDE = -(2**63)  # of columns beyond the image
_HELD = 4  # channels of a group whose weights are in registers at a time

# The first of a kernel's integers, which its tile reads: rows and columns of taps; bytes between the table's rows of two rows of taps;
# bytes between the table's entries of two taps and of two outputs of a row; bytes between the weights of two taps, and of the table's
# rows of two outputs of a column.
Shape = namedtuple("Shape", "kh kw below tap column wei_step down")


def past_caches(p: Problem, t: Target, vector: int) -> bool:
    """Whether results go past the caches: large ones of vectors that are cache lines.

    What is stored into a cache is read first: 144 channels at 56x56, a batch of 8, take 390 us instead of 720, 32 at 112x112 310
    instead of 510, all in cache lines (one core, Zen 5, 2026-11).
    """
    return vector == LINE and costs.bytes_moved(p) > costs.LAYER_PAST_SHARE * t.l3


@intrinsic(prefer_literal=True)
def depthwise_tile(
    typing_context: Any, spec: Any, shape: Any, table: Any, wei: Any, start: Any, apart: Any, finish: Any, dst: Any, dy: Any, dx: Any,
    second: Any, most: Any, rows: Any, shift: Any, ahead: Any, past: Any,
) -> Any:  # fmt: skip
    """All vectors of channels at ``ny x nx`` pixels of the result, or at ``rows x nx`` of a tile that goes down.

    ``acc[jy, jx, o] = start[o] + sum_{ky, c, kx} pixel(jy, jx, ky, kx)[group(o) + c] * wei[ky, kx, c, o]``, then
    ``activation(acc * scale[o] + shift[o])``, each rounded, as far as the form has them.

    ``spec = (lanes, ny, nx, kh, kw, step, depth, far, *form)``, see :class:`Form`: groups of ``depth`` channels (a power of two, at most
    the lanes), ``group(o)`` the first of them; ``kw`` columns of taps side by side at stride ``step``, which is also the rows', or both 0
    for any.  With ``ny`` > 1 rows, ``depth`` is 1, rows of taps are one row of the table apart and at least ``step``.  Where ``kh`` is not
    0 the tile goes down through ``rows``, at least ``ny - 1``, of which it sums ``ny = ceil(kh / step)`` at a time: see `_DownTile`.
    ``shape`` is the address of the integers of :data:`Shape`; ``table`` that of a table of the addresses of pixels, ``shift`` bytes
    before them, in the order of the padded image's rows and columns.  ``wei`` is packed as ``[ky][kx][c][o]``.  Scales and shifts lie
    ``apart`` and twice ``apart`` bytes behind ``start``.  ``finish`` is the address of ``[slope, low, high, -, -, zero point]``, low and
    high of a rounded result within its type less the zero point, or 0 where sums are neither activated nor rounded.  ``dy, dx`` are bytes
    between the pixels of the result.  The second vector starts ``second`` channels from the first, at most a vector, the last one
    ``most``; both may overlap the one before.  Where ``far`` is not 0 a tile that goes down asks for the pixels of the next vector, and
    with the last one for those ``ahead`` bytes from its first; and where ``past`` is not 0 either, all vectors are cache lines, and
    results go past the caches.
    Order of accumulation: ky, at most four channels of the group, kx, these channels.  Sums of i32 are those of float32, which must be
    exact; ``start`` is added to them as integers.
    No borders: the driver sees to them.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile = _DownTile if chosen[3] else DepthwiseTile
        tile(builder, chosen, arguments[1]).emit_vectors(*arguments[2:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 15), codegen


class DepthwiseTile:
    """The code of one specialisation, written into ``builder``."""

    def __init__(self, builder: Any, spec: tuple[Any, ...], shape: Any) -> None:
        self.lanes, self.ny, self.nx, self.kh, self.kw, self.step, self.depth, self.far = spec[:8]
        self.form = form = Form(*spec[8:])
        self.builder = builder
        self.whole = form.kind == "i32"
        self.emit = emit = Emitter(builder, "f32" if self.whole else form.kind, self.lanes, form.how == "fma")
        self.tail = emit.of(form.tail)
        held = min(self.depth, self.held)
        self.chunks = [range(first, first + held) for first in range(0, self.depth, held)]
        self.shape = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))

    held = _HELD

    def emit_vectors(
        self, table: Any, wei: Any, start: Any, apart: Any, finish: Any, dst: Any, dy: Any, dx: Any, second: Any, most: Any, rows: Any,
        shift: Any, ahead: Any, past: Any,
    ) -> None:  # fmt: skip
        """All vectors of channels; the arguments of `depthwise_tile`."""
        emit, build, size = self.emit, self.builder, self.emit.itemsize
        self.past = past
        bits = emit.constant(self.lanes.bit_length() - 1)
        count = build.sub(emit.constant(2), build.ashr(build.sub(second, most), bits))
        channel = emit.variable(emit.constant(0))
        with emit.loop(count):
            at = emit.get(channel)
            is_first, is_last = build.icmp_signed("==", at, emit.constant(0)), build.icmp_signed(">=", at, most)
            here, following = build.select(is_last, most, at), build.select(is_first, second, emit.offset(at, self.lanes))
            self.here = emit.offset(shift, emit.times(here, stored_bytes(self.form.src)))
            self.there = emit.times(here, stored_bytes(self.form.dst))
            # to the last byte of what is read next: the first line of a vector that begins beside one is that of the vector before
            away = build.select(build.icmp_signed("<", following, most), following, most)
            away = emit.offset(build.sub(build.select(is_last, emit.constant(0), away), here), self.lanes)
            self.ahead = emit.offset(emit.times(away, stored_bytes(self.form.src)), build.select(is_last, ahead, emit.constant(0)), -1)
            start_here, wei_here = (emit.offset(place, emit.times(here, size)) for place in (start, wei))
            first = emit.number(0) if self.whole else emit.load(start_here)
            self.acc = [[emit.variable(first) for _ in range(self.nx)] for _ in range(self.ny)]
            self.row = emit.variable(table)
            self.emit_vector(wei_here, first, partial(self.store, start_here, apart, finish), dst, dy, dx, rows)
            emit.set(channel, following)

    def emit_vector(self, wei: Any, first: Any, store: Callable[..., None], dst: Any, dy: Any, dx: Any, rows: Any) -> None:
        """One vector of channels, whose accumulators hold ``first``; ``store(values, dst, dy, dx)`` takes rows of sums."""
        self.ask(dst, dy, dx)
        self.wei = self.weights(wei)
        self.sums()
        store([[self.emit.get(place) for place in row] for row in self.acc], dst, dy, dx)

    def weights(self, wei: Any) -> list[Any]:
        """Where each row of outputs reads its weights."""
        return [self.emit.variable(wei) for _ in range(self.ny)]

    def sums(self) -> None:
        """All rows of pixels."""
        emit = self.emit
        if self.ny == 1:
            self.rows(self.shape.kh, [0])
        else:
            self.rows(emit.constant(self.step), [0])
            self.rows(emit.offset(self.shape.kh, -self.step), [0, 1])
            self.rows(emit.constant(self.step), [1])

    def places(self, dst: Any, dy: Any, dx: Any, rows: int) -> Iterator[Any]:
        """The addresses of the results' vectors, row by row."""
        dst = self.emit.offset(dst, self.there)
        for _ in range(rows):
            place = dst
            for _ in range(self.nx):
                yield place
                place = self.emit.offset(place, dx)
            dst = self.emit.offset(dst, dy)

    def uses(self) -> Iterator[list[tuple[int, int]]]:
        """For each column of pixels, the columns of outputs that read it, and with which tap."""
        for column in range((self.nx - 1) * self.step + self.kw):
            yield [(j, column - j * self.step) for j in range(self.nx) if 0 <= column - j * self.step < self.kw]

    def ask(self, dst: Any, dy: Any, dx: Any) -> None:
        """Have the lines that will be written come while the sums are computed.

        144 channels at 56x56 take 180 us instead of 255, 96 at 112x112 with stride 2 300 instead of 325 (one core, Emerald Rapids, 2026-11;
        past the caches 670 and 730, since pixels begin beside lines).
        """
        for place in self.places(dst, dy, dx, self.ny):
            self.emit.prefetch(place, 1, True)

    def of_row(self) -> Any:
        """Bytes of the weights of a row of taps."""
        return self.emit.times(self.emit.times(self.shape.wei_step, self.kw or self.shape.kw), self.depth)

    def rows(self, count: Any, outputs: list[int]) -> None:
        """``count`` rows of pixels, and what they add to the given rows of outputs."""
        emit, s, of_row = self.emit, self.shape, self.of_row()
        with emit.loop(count):
            row, weights = emit.get(self.row), [emit.get(self.wei[i]) for i in outputs]
            for chunk in self.chunks:
                if self.kw:
                    self.known_taps(row, outputs, weights, chunk)
                else:
                    self.any_taps(row, weights[0], chunk)
            emit.set(self.row, emit.offset(row, s.below))
            for i, at in zip(outputs, weights, strict=True):
                emit.set(self.wei[i], emit.offset(at, of_row))

    def known_taps(self, row: Any, outputs: list[int], weights: list[Any], chunk: range) -> None:
        """All taps of a row: a pixel is loaded once for all of them."""
        self.keep(self.across(row, {i: self.row_of_taps(at, chunk) for i, at in zip(outputs, weights, strict=True)}, chunk))

    def row_of_taps(self, at: Any, chunk: range) -> list[list[Any]]:
        """The weights of a row of taps, for each channel of a part of the group."""
        emit = self.emit
        return [self.taps(emit.offset(at, emit.times(self.shape.wei_step, kx * self.depth)), chunk) for kx in range(self.kw)]

    def across(self, row: Any, taps: dict[int, list[list[Any]]], chunk: range) -> dict[int, list[Any]]:
        """The sums of the rows of outputs that have ``taps``, with what a row of pixels adds to them."""
        emit, outputs = self.emit, list(taps)
        sums = {i: [emit.get(place) for place in self.acc[i]] for i in outputs}
        for column, uses in enumerate(self.uses()):
            if uses:
                pixels = self.pixels(emit.load_integer(emit.offset(row, 8 * column)), chunk)
                places = [(i, j) for i in outputs for j, _ in uses]
                for c, pixel in enumerate(pixels):
                    for i in outputs:
                        for j, kx in uses:
                            sums[i][j] = emit.multiply_add(pixel, taps[i][kx][c], sums[i][j])
                for (i, j), value in zip(places, emit.fence([sums[i][j] for i, j in places]), strict=True):
                    sums[i][j] = value
        return sums

    def any_taps(self, row: Any, weights: Any, chunk: range) -> None:
        """The taps of a row one after the other."""
        emit, s = self.emit, self.shape
        place, at = emit.variable(row), emit.variable(weights)
        with emit.loop(s.kw):
            sums, taps, entry = [emit.get(place) for place in self.acc[0]], self.taps(emit.get(at), chunk), emit.get(place)
            for j in range(self.nx):
                for pixel, tap in zip(self.pixels(emit.load_integer(entry), chunk), taps, strict=True):
                    sums[j] = emit.multiply_add(pixel, tap, sums[j])
                entry = emit.offset(entry, s.column)
            self.keep({0: sums})
            emit.set(place, emit.offset(emit.get(place), s.tap))
            emit.set(at, emit.offset(emit.get(at), emit.times(s.wei_step, self.depth)))

    def taps(self, at: Any, chunk: range) -> list[Any]:
        """The weights of one tap, for each channel of a part of the group."""
        return [self.emit.load(self.emit.offset(at, self.emit.times(self.shape.wei_step, c))) for c in chunk]

    def pixels(self, address: Any, chunk: range) -> list[Any]:
        """One pixel, for each channel of a part of the group in all lanes of its group."""
        emit, depth, lanes = self.emit, self.depth, range(self.lanes)
        if depth == self.lanes and self.form.src == emit.kind:
            return [emit.splat(emit.offset(address, self.here, c * emit.itemsize)) for c in chunk]
        vector = load_as(emit, self.form.src, emit.offset(address, self.here))
        if depth == 1:
            return [vector]
        few = len(chunk)
        if depth > few:  # the part's channels in each part of their group: a shuffle for all instead of two for each
            (vector,) = emit.fence([emit.pick(vector, vector, [lane // depth * depth + chunk[0] + lane % few for lane in lanes])])
        return [emit.pick(vector, vector, [lane // few * few + c for lane in lanes]) for c in range(few)]

    def keep(self, sums: dict[int, list[Any]]) -> None:
        """Put values into the accumulators."""
        for i, values in sums.items():
            for place, value in zip(self.acc[i], values, strict=True):
                self.emit.set(place, value)

    def store(self, start: Any, apart: Any, finish: Any, values: list[list[Any]], dst: Any, dy: Any, dx: Any) -> None:
        """Rows of sums as the form finishes them."""
        tail, form = self.tail, self.form
        after = [tail.load(tail.offset(start, tail.times(apart, n))) for n in range(3)] if self.whole or form.scaled else []
        sums = [[self.summed(value, after) for value in row] for row in values]

        def limits(many: int) -> list[Any]:
            return [tail.splat(tail.offset(finish, n * tail.itemsize)) for n in range(many)]

        if form.rounding:  # low and high clip to the type too
            _, low, high, _, _, zero = limits(6)
            self.store_rows([[rounded_between(tail, form.dst, value, low, high, zero) for value in row] for row in sums], dst, dy, dx)
            return
        with tail.either(finish) as (activated, plain):
            with activated:
                slope, low, high = limits(3)
                sums_of = [[tail.activate(value, slope, low, high) for value in row] for row in sums]
                self.store_rows([[converted(tail, form.dst, "", value) for value in row] for row in sums_of], dst, dy, dx)
            with plain:
                self.store_rows([[converted(tail, form.dst, "", value) for value in row] for row in sums], dst, dy, dx)

    def summed(self, value: Any, after: list[Any]) -> Any:
        """Sums with what is added to whole ones, scaled and shifted where the form has scales."""
        build, ints = self.builder, self.emit.of("i32")
        if self.whole:
            value = build.add(build.fptosi(value, ints.vector), build.bitcast(after[0], ints.vector))
        if self.form.scaled:
            value = build.sitofp(value, self.tail.vector) if self.whole else value
            value = build.fadd(build.fmul(value, after[1]), after[2])
        return value

    def store_rows(self, values: list[list[Any]], dst: Any, dy: Any, dx: Any) -> None:
        """Vectors, each with its emitter, to the pixels of the result."""
        vectors = list(itertools.chain(*values))

        def store_all(store: Callable[[Emitter, Any, Any], None]) -> None:
            for place, (part, value) in zip(self.places(dst, dy, dx, len(values)), vectors, strict=True):
                store(part, place, value)

        if not self.far or vectors[0][0].width != LINE:
            store_all(Emitter.store)
            return
        with self.emit.either(self.past) as (streamed, kept):
            with streamed:
                store_all(Emitter.store_past)
            with kept:
                store_all(Emitter.store)


class _DownTile(DepthwiseTile):
    """Columns of results whose weights stay in registers: a row of pixels is loaded once for all rows of results that it meets.

    Accumulator row 0 is the youngest; a row of results is ``kh`` rows of pixels old when it is stored.
    """

    def emit_vector(self, wei: Any, first: Any, store: Callable[..., None], dst: Any, dy: Any, dx: Any, rows: Any) -> None:
        """As `DepthwiseTile.emit_vector`."""
        emit, (one,), step = self.emit, self.chunks, self.step
        taps = [self.row_of_taps(emit.offset(wei, emit.times(self.of_row(), ky)), one) for ky in range(self.kh)]
        to, oldest = emit.variable(dst), self.ny - 1

        def turn(running: range, count: Any) -> None:
            """``step`` rows of pixels, ``count`` times; ``running`` are the rows of results that still, or already, are summed."""
            with emit.loop(count):
                for r in range(step):
                    met = {i: taps[r + i * step] for i in running if r + i * step < self.kh}
                    if not met:
                        continue
                    if self.far:
                        self.ask_ahead(emit.get(self.row))
                    sums = self.across(emit.get(self.row), met, one)
                    emit.set(self.row, emit.offset(emit.get(self.row), self.shape.below))
                    if oldest in met and r + oldest * step == self.kh - 1:
                        store([sums.pop(oldest)], emit.get(to), dy, dx)
                        emit.set(to, emit.offset(emit.get(to), dy))
                    self.keep(sums)
                for i in reversed(range(1, self.ny)):
                    if i - 1 in running:
                        self.keep({i: [emit.get(place) for place in self.acc[i - 1]]})
                self.keep({0: [first] * self.nx})

        once = emit.constant(1)
        for young in range(1, self.ny):
            turn(range(young), once)
        turn(range(self.ny), emit.offset(rows, -oldest))
        for old in range(1, self.ny):
            turn(range(old, self.ny), once)

    def ask_ahead(self, row: Any) -> None:
        """Have the pixels come that are read next where this row is now: no prefetcher finds one line of each pixel.

        96 channels at 112x112 with stride 2, a batch of 8, take 1210 us instead of 2140, 144 at 56x56 280 instead of 380 (one core, Zen 5,
        2026-11).
        """
        emit = self.emit
        for column in range((self.nx - 1) * self.step + self.kw):
            emit.prefetch(emit.offset(emit.load_integer(emit.offset(row, 8 * column)), self.here, self.ahead), 1)


@intrinsic(prefer_literal=True)
def addresses(typing_context: Any, lanes: Any, dst: Any, line: Any, columns: Any, outside: Any, count: Any) -> Any:
    """``addresses(lanes, dst, line, columns, outside, count)``: ``dst[j] = line + columns[j]``, or ``outside`` where that is `OUTSIDE`.

    64-bit integers, ``count`` rounded up to whole vectors of ``lanes``.
    """
    width = literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, line, columns, outside, count = arguments[1:]
        emit = Emitter(builder, "i64", width, False)
        first, fill, none = emit.spread(line), emit.spread(outside), emit.number(OUTSIDE)
        at = emit.variable(emit.constant(0))
        with emit.loop(emit.quotient(emit.offset(count, width - 1), width)):
            here = emit.get(at)
            column = emit.load(emit.offset(columns, here))
            inside = builder.icmp_signed("!=", column, none)
            emit.store(emit.offset(dst, here), builder.select(inside, builder.add(first, column), fill))
            emit.set(at, emit.offset(here, emit.width))
        return context.get_dummy_value()

    return types.void(lanes, *[types.int64] * 5), codegen


@intrinsic(prefer_literal=True)
def interleave(typing_context: Any, kind: Any, lanes: Any, dst: Any, planes: Any, at: Any, count: Any) -> Any:
    """``interleave(kind, lanes, dst, planes, at, count)``: ``dst[x][lane] = planes[lane][x]``, for ``lanes`` elements x at least.

    ``planes`` is the address of a table of ``lanes`` addresses, to each of which ``at`` bytes are added.  The last square overlaps the
    one before.
    """
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, planes, at, count = arguments[2:]
        emit = Emitter(builder, name, width, False)
        with _squares(emit, count) as x:
            place = emit.offset(at, emit.times(x, emit.itemsize))
            rows = [emit.load(emit.offset(emit.load_integer(emit.offset(planes, 8 * lane)), place)) for lane in range(width)]
            to = emit.offset(dst, emit.times(x, emit.width))
            for n, column in enumerate(emit.transpose(rows)):
                emit.store(emit.offset(to, n * emit.width), column)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 4), codegen


@intrinsic(prefer_literal=True)
def separate(typing_context: Any, kind: Any, lanes: Any, planes: Any, at: Any, src: Any, count: Any) -> Any:
    """``separate(kind, lanes, planes, at, src, count)``: ``planes[lane][x] = src[x][lane]``, the way back of `interleave`."""
    name, width = literal(kind), literal(lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        planes, at, src, count = arguments[2:]
        emit = Emitter(builder, name, width, False)
        with _squares(emit, count) as x:
            start = emit.offset(src, emit.times(x, emit.width))
            place = emit.offset(at, emit.times(x, emit.itemsize))
            columns = emit.transpose([emit.load(emit.offset(start, n * emit.width)) for n in range(width)])
            for lane, row in enumerate(columns):
                emit.store(emit.offset(emit.load_integer(emit.offset(planes, 8 * lane)), place), row)
        return context.get_dummy_value()

    return types.void(kind, lanes, *[types.int64] * 4), codegen


@contextmanager
def _squares(emit: Emitter, count: Any) -> Iterator[Any]:
    """The first elements of squares that cover ``count`` elements, the last one overlapping."""
    last = emit.offset(count, -emit.lanes)
    at = emit.variable(emit.constant(0))
    with emit.loop(emit.quotient(emit.offset(count, emit.lanes - 1), emit.lanes)):
        x = emit.get(at)
        yield emit.builder.select(emit.builder.icmp_signed("<", x, last), x, last)
        emit.set(at, emit.offset(x, emit.lanes))
