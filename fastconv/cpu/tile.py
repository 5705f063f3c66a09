"""tile: register tiles, unrolled into the function that Numba is building from a literal tuple."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..planning.problem import Problem
from .compile import TileKernel
from .convert import store_as, stored_bytes
from .finish import finish_rows
from .memory import unrolled_by_hand
from .simd import Emitter, literal
from .target import Target

# The first of a kernel's integers, which its tile reads: channels of a group; bytes between their tables and between the table
# entries of two output rows; taps; bytes between two taps and between two outputs of a row.  Where the columns of a row lie by phase,
# bytes from these integers to the table of the first pixel's place under each kx.
Shape = namedtuple("Shape", "icg pitch step kh kw tap column places", defaults=(0,))
TAPS_AT = 64  # bytes from the first addend to the packed taps


class Tile(NamedTuple):
    """``rows x vecs`` accumulators over groups of at most ``tall`` rows of taps."""

    registers: int  # of the target, at least
    rows: int
    vecs: int
    tall: int
    carries: bool = False  # for kernels of one width that `carried.lead_of` takes, and for no others


class Row(Protocol):
    """A row of a table of tiles."""

    @property
    def registers(self) -> int:
        """Of the target, at least."""


AnyTile = TypeVar("AnyTile", bound=Row)


def fitting(tiles: tuple[AnyTile, ...], t: Target) -> list[AnyTile]:
    """The tiles for as many registers as the target has."""
    most = max(tile.registers for tile in tiles if tile.registers <= t.registers)
    return [tile for tile in tiles if tile.registers == most]


def fixed(sizes: tuple[tuple[int, int], ...], p: Problem, tile: Tile, side_by_side: bool) -> tuple[int, int]:
    """The first of ``(kh, kw)``, 0 for any kw, that code for this size serves at strides 1, or zeros.

    A kw is for taps ``side_by_side``, of one channel, all of which are in registers.
    """
    for kh, kw in sizes:
        registers = (tile.rows + 1) * tile.vecs + kh * kw + 2
        if kh == p.kh <= tile.tall and (not kw or (side_by_side and kw == p.kw and registers <= tile.registers)):
            return kh, kw
    return 0, 0


def row_groups(kh: int, tall: int, v: int = 1) -> list[range]:
    """Rows of taps that are summed together: of stride class 2 the even and then the odd ones, in the fewest groups, taller ones first.

    Examples
    --------
    >>> [list(rows) for rows in row_groups(5, 4)], [list(rows) for rows in row_groups(5, 4, 2)]
    ([[0, 1, 2], [3, 4]], [[0, 2, 4], [1, 3]])
    """
    apart, made = _apart(v), []
    for phase in range(apart):
        rows = range(phase, kh, apart)
        for left in range(-(-len(rows) // tall), 0, -1):
            many = -(-len(rows) // left)
            made.append(rows[:many])
            rows = rows[many:]
    return made


def tap_order(p: Problem, tall: int, taps: int = 1, v: int = 1) -> np.ndarray:
    """``(c, ky, kx // taps)`` of each packed tap, or of ``taps``: channel, group of rows, kx, ky."""
    one = [(ky, kx) for rows in row_groups(p.kh, tall, v) for kx in range(-(-p.kw // taps)) for ky in rows]
    return np.array([(c, ky, kx) for c in range(p.ic // p.g) for ky, kx in one], np.int64)


def _apart(v: int) -> int:
    """Of two rows of taps that one output row's neighbours use too."""
    return 2 if v == 2 else 1


@intrinsic(prefer_literal=True)
def direct_tile(
    typing_context: Any, spec: Any, shape: Any, start: Any, finish: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any,
    past: Any,
) -> Any:  # fmt: skip
    """``count`` tiles side by side, each ``rows x vecs`` vectors of one output plane.

    ``dst[i, x] = start + sum_{c, ky, kx} row(c, i, ky)[xoff + x*column + kx*tap] * wei[c, ky, kx]``

    ``spec = (kind, lanes, rows, vecs, v, h, tall, kh, kw, fma)``: stride classes ``v`` of rows and ``h`` of columns are 1, 2 or 0: any, and
    for columns that those of each phase lie side by side, the pixel under kx at ``xoff + places[kx] + x*column``;
    ``kh`` and ``kw`` are those that the code is for, or 0 for any: kh at most ``tall``; kw only with kh, v = h = 1 or 2,
    tap = 1 element and icg = 1.  ``(..., fma, stored, rounding)`` stores elements of type ``stored`` as `convert.store_as` does;
    ``(..., order)`` after that: ``symmetric`` and ``antisymmetric`` sum pairs of the taps of one row (kh = 1) or column (kw = 1);
    ``dots`` adds the products of four bytes of a pixel and a tap, kind i32, and stores the sums as f32 are.
    ``shape`` is the address of the integers of :data:`Shape`, ``start`` that of the first addend, with ``wei`` at ``start + TAPS_AT``,
    ``finish`` that of the numbers of `finish.finish_rows` or 0.  ``xoff, dst_pitch`` are bytes.
    ``table[c*pitch + e]`` holds the addresses of the rows: ``row(c, i, ky)`` is entry ``e = i*v + ky`` (``i*step + ky`` for v = 0).
    The rows of taps form the groups of :func:`row_groups`, of at most ``tall``; ``wei`` is packed as ``[c][group][kx][ky]``.
    Order of accumulation: c, group, kx, ky; for h = 2 and tap = 1 element kx by pairs: ky, then kx within the pair; where the code is
    for one kw: ky, kx.
    Whole tiles are stored, past the caches where ``past`` is not 0 and there is no ``finish``: ``dst`` and ``dst_pitch`` are then
    multiples of a vector's bytes.  A tile reads ``(lanes*vecs - 1)*column + (kw-1)*tap`` bytes beyond its first pixel, an element more for
    h = 2.  No tails, no borders: the driver sees to both.
    """
    chosen = literal(spec)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = _TILES.get(chosen[12], _DirectTile) if len(chosen) > 12 else _DirectTile
        made(builder, chosen, arguments[1]).emit_tiles(*arguments[2:])
        return context.get_dummy_value()

    return types.void(spec, *[types.int64] * 9), codegen


def _factory(*spec: Any) -> Any:
    """The kernel of `direct_tile` with this ``spec``, of its other arguments."""

    def tile(
        shape: Any, start: Any, finish: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any, past: Any
    ) -> None:  # fmt: skip
        unrolled_by_hand()
        direct_tile(spec, shape, start, finish, table, xoff, dst, dst_pitch, count, past)

    return tile


def direct_tile_kernel(of: str, spec: tuple[Any, ...]) -> TileKernel:
    """`_factory`'s, to be called with nine integers; named after its spec and whose tile it is ``of``."""
    (kind, lanes, rows, vecs, v, h, _, kh, kw, _), (stored, rounding, order) = spec[:10], spec[10:] or ("", "", "any")
    types = f"{kind}_{stored}{rounding}" if stored else kind
    name = f"{of}_{types}_{rows}x{vecs}_{lanes}" + f"_kh{kh}" * bool(kh) + f"kw{kw}" * bool(kw) + f"_s{v}{h}" * ((v, h) != (1, 1))
    return TileKernel(name + f"_{order}" * (order != "any"), _factory, spec, 9)


class _DirectTile:
    """The code of one specialisation, written into ``builder``."""

    def __init__(self, builder: Any, spec: tuple[Any, ...], shape: Any) -> None:
        kind, lanes, self.rows, self.vecs, self.v, self.h, self.tall, self.only_kh, self.only_kw, fma, *stored = spec
        self.builder, self.lanes, self.shape_at, self.apart = builder, lanes, shape, _apart(self.v)
        self.emit = self.out = emit = Emitter(builder, kind, lanes, bool(fma))
        self.stored, self.order = tuple(stored[:2]), stored[2] if len(stored) > 2 else "any"
        self.stored_width = lanes * stored_bytes(stored[0]) if stored else emit.width
        self.shape = Shape(*(emit.load_integer(emit.offset(shape, 8 * n)) for n in range(len(Shape._fields))))

    def emit_tiles(self, start: Any, finish: Any, table: Any, xoff: Any, dst: Any, dst_pitch: Any, count: Any, past: Any) -> None:
        emit = self.emit
        first = emit.splat(start)
        left, to = emit.variable(xoff), emit.variable(dst)
        with emit.loop(count):
            self.acc = [[emit.variable(first) for _ in range(self.vecs)] for _ in range(self.rows)]
            self.weights = emit.variable(emit.offset(start, TAPS_AT))
            if self.only_kw and not self.stored:
                self.fetch(emit.offset(emit.get(to), self.vecs * emit.width), dst_pitch, past)
            if self.only_kw and self.h == 2:
                self.halved(table, emit.get(left))
            elif self.only_kw:
                self.square(table, emit.get(left))
            else:
                self.channels(table, emit.get(left))
            self.store(finish, emit.get(to), dst_pitch, past)
            emit.set(left, emit.offset(emit.get(left), emit.times(self.shape.column, self.lanes * self.vecs)))
            emit.set(to, emit.offset(emit.get(to), self.vecs * self.stored_width))

    def fetch(self, dst: Any, dst_pitch: Any, past: Any) -> None:
        """Ask for lines of the next results, which few taps are soon ready to write: 1024x1024 k3 of stride 2, 288 and 242 us."""
        emit = self.emit
        with emit.case(past, 0):
            for i in range(self.rows):
                for vec in range(self.vecs):
                    emit.prefetch(emit.offset(dst, emit.times(dst_pitch, i), vec * emit.width), 1, write=True)

    def channels(self, table: Any, xoff: Any) -> None:
        """All channels of the group, one after the other."""
        emit = self.emit
        channel = emit.variable(table)
        with emit.loop(self.shape.icg):
            self.entries = emit.variable(emit.get(channel))
            if self.only_kh:
                self.group(self.only_kh, xoff)
            elif self.apart == 1:
                self.groups(xoff, self.shape.kh)
            else:
                phase = emit.variable(emit.constant(0))
                with emit.loop(emit.constant(self.apart)):
                    n = emit.get(phase)
                    emit.set(self.entries, emit.offset(emit.get(channel), emit.times(n, 8)))
                    self.groups(xoff, emit.quotient(self.builder.sub(emit.offset(self.shape.kh, self.apart - 1), n), self.apart))
                    emit.set(phase, emit.offset(n, 1))
            emit.set(channel, emit.offset(emit.get(channel), self.shape.pitch))

    def groups(self, xoff: Any, kh: Any) -> None:
        """``kh`` rows of taps, spread evenly over the fewest groups, the taller ones first."""
        emit, builder, tall = self.emit, self.builder, self.tall
        left = emit.variable(kh)
        groups = emit.variable(emit.quotient(emit.offset(kh, tall - 1), tall))
        with emit.loop(emit.get(groups)):
            rest, many = emit.get(left), emit.get(groups)
            height = builder.udiv(builder.sub(builder.add(rest, many), emit.constant(1)), many)
            for candidate in range(1, tall + 1):
                with emit.case(height, candidate):
                    self.group(candidate, xoff)
            emit.set(self.entries, emit.offset(emit.get(self.entries), emit.times(height, 8 * self.apart)))
            emit.set(left, builder.sub(rest, height))
            emit.set(groups, builder.sub(many, emit.constant(1)))

    def group(self, height: int, xoff: Any) -> None:
        """All columns of one group of rows of taps."""
        emit, kw = self.emit, self.shape.kw
        at = emit.variable(xoff if self.h else emit.offset(self.shape_at, self.shape.places))
        if not self.h:
            self.columns(height, kw, False, at, xoff)
        elif self.h == 2:
            dense = self.builder.zext(self.builder.icmp_unsigned("==", self.shape.tap, emit.constant(emit.itemsize)), kw.type)
            pairs = emit.times(emit.quotient(kw, 2), dense)
            self.columns(height, pairs, True, at)
            self.columns(height, self.builder.sub(kw, emit.times(pairs, 2)), False, at)
        else:
            self.columns(height, kw, False, at)

    def columns(self, height: int, count: Any, pair: bool, at: Any, xoff: Any = None) -> None:
        """``count`` steps over kx of one group of rows; a step is one kx, or a pair of them.

        ``at`` holds the bytes into a row, or the address of those behind ``xoff``.
        """
        emit, rows = self.emit, self.rows
        per_step = 2 if pair else 1
        table = emit.get(self.entries)
        used = rows - 1 + height if self.v else 0
        lines = [emit.load_integer(emit.offset(table, r * 8 * self.apart)) for r in range(used)]
        with emit.loop(count):
            here, w = emit.get(at), emit.get(self.weights)
            places = [here] if self.h else [emit.offset(xoff, emit.load_integer(here))]
            sums = self.sums()
            taps = [[emit.splat(emit.offset(w, (t * height + ky) * emit.itemsize)) for ky in range(height)] for t in range(per_step)]
            for r in range(used):
                uses = [(i, r - i) for i in range(rows) if 0 <= r - i < height]
                self.multiply(sums, uses, self.pixels(lines[r], places, pair), taps)
                self.fence(sums, uses)
            for i in range(0 if self.v else rows):
                base = emit.offset(table, emit.times(self.shape.step, i))
                for ky in range(height):
                    row = emit.load_integer(emit.offset(base, ky * 8))
                    self.multiply(sums, [(i, ky)], self.pixels(row, places, pair), taps)
            self.keep(sums)
            emit.set(at, emit.offset(here, emit.times(self.shape.tap, per_step) if self.h else 8 * per_step))
            emit.set(self.weights, emit.offset(w, per_step * height * emit.itemsize))

    def square(self, table: Any, xoff: Any) -> None:
        """All taps of a small kernel on one channel: the columns share a row's loads through lane shifts.

        Vectors that straddle two cache lines cost three cycles each on Zen 5: 8 x 2 vectors of 3x3 take 80 cycles so, 168 with a load
        for every column, and their FMAs 72 (data in the first-level cache, 2026-11).  A loop over channels would cost 10 more.
        """
        emit, vecs, kh, kw = self.emit, self.vecs, self.only_kh, self.only_kw
        bits, w = emit.bits(), emit.get(self.weights)
        taps = [[emit.splat(emit.offset(w, (kx * kh + ky) * emit.itemsize)) for ky in range(kh)] for kx in range(kw)]
        sums = self.sums()
        for r in range(self.rows + kh - 1):
            line = emit.offset(emit.load_integer(emit.offset(table, r * 8)), xoff)
            # as integers, whose lane shifts LLVM makes one instruction of
            vectors = [bits.load(emit.offset(line, vec * emit.width)) for vec in range(vecs)]
            vectors.append(bits.load_first(emit.offset(line, vecs * emit.width), kw - 1))
            uses = [(i, r - i) for i in range(self.rows) if 0 <= r - i < kh]
            for kx in range(kw):
                shifted = [bits.pick(vectors[vec], vectors[vec + 1], range(kx, kx + self.lanes)) for vec in range(vecs)]
                self.multiply(sums, uses, [[emit.values(vector) for vector in shifted]], [taps[kx]])
            self.fence(sums, uses)
        self.keep(sums)

    def halved(self, table: Any, xoff: Any) -> None:
        """All taps of a small kernel of stride 2 on one channel: each row is split into even and odd columns once, for all that use it."""
        emit, vecs, kh, kw, lanes = self.emit, self.vecs, self.only_kh, self.only_kw, self.lanes
        bits, w = emit.bits(), emit.get(self.weights)
        few = kh * kw <= 9  # then all taps are in registers
        held = [[emit.splat(emit.offset(w, (kx * kh + ky) * emit.itemsize)) for ky in range(kh)] for kx in range(kw if few else 0)]
        sums = self.sums()
        for r in range(2 * self.rows - 2 + kh):
            line = emit.offset(emit.load_integer(emit.offset(table, r * 8)), xoff)
            pairs = [[bits.load(emit.offset(line, (2 * vec + n) * emit.width)) for n in range(2)] for vec in range(vecs)]
            pairs.append([bits.load_first(emit.offset(line, 2 * vecs * emit.width), kw - 2), bits.undefined()])
            columns = [[bits.even(*pair) for pair in pairs], [bits.odd(*pair) for pair in pairs]]
            uses = [(i, r - 2 * i) for i in range(self.rows) if 0 <= r - 2 * i < kh]
            for kx in range(kw):
                part, at = columns[kx % 2], kx // 2
                shifted = [bits.pick(part[vec], part[vec + 1], range(at, at + lanes)) for vec in range(vecs)]
                taps = held[kx] if few else [emit.splat(emit.offset(w, (kx * kh + ky) * emit.itemsize)) for ky in range(kh)]
                self.multiply(sums, uses, [[emit.values(vector) for vector in shifted]], [taps])
            self.fence(sums, uses)
        self.keep(sums)

    def pixels(self, row: Any, places: list[Any], pair: bool) -> list[list[Any]]:
        """For each kx of a step, the vectors of one row."""
        emit = self.emit
        if self.h != 2:
            return [[emit.load(emit.offset(row, place, vec * emit.width)) for vec in range(self.vecs)] for place in places]
        steps: list[list[Any]] = [[], []] if pair else [[]]
        for vec in range(self.vecs):
            low = emit.load(emit.offset(row, places[0], 2 * vec * emit.width))
            high = emit.load(emit.offset(row, places[0], (2 * vec + 1) * emit.width))
            steps[0].append(emit.even(low, high))
            if pair:
                steps[1].append(emit.odd(low, high))
        return steps

    def multiply(self, sums: list[list[Any]], uses: list[tuple[int, int]], pixels: list[list[Any]], taps: list[list[Any]]) -> None:
        """Add one row of pixels, for each kx of a step, to the output rows ``i`` that use it with the tap row ``ky``."""
        for vectors, weights in zip(pixels, taps, strict=False):
            for i, ky in uses:
                for vec in range(self.vecs):
                    sums[i][vec] = self.emit.multiply_add(vectors[vec], weights[ky], sums[i][vec])

    def fence(self, sums: list[list[Any]], uses: list[tuple[int, int]]) -> None:
        """Keep the next row's loads behind this row's arithmetic."""
        done = iter(self.emit.fence([sums[i][vec] for i, _ in uses for vec in range(self.vecs)]))
        for i, _ in uses:
            sums[i] = [next(done) for _ in range(self.vecs)]

    def sums(self) -> list[list[Any]]:
        """The accumulators' values."""
        return [[self.emit.get(place) for place in row] for row in self.acc]

    def results(self) -> list[list[Any]]:
        """The sums as they are activated and stored."""
        return self.sums()

    def keep(self, sums: list[list[Any]]) -> None:
        """Put values into the accumulators."""
        for places, values in zip(self.acc, sums, strict=True):
            for place, value in zip(places, values, strict=True):
                self.emit.set(place, value)

    def store(self, finish: Any, dst: Any, dst_pitch: Any, past: Any) -> None:
        """The accumulators, through the activation where there is one."""
        emit = self.emit
        with emit.either(finish) as (activated, plain):
            with activated:
                finish_rows(self.out, finish, self.results(), lambda i, vec: self.at(dst, dst_pitch, i, vec), self.place, not self.stored)
            with plain:
                if self.stored:
                    self.store_rows(self.results(), dst, dst_pitch, self.place)
                    return
                with emit.either(past) as (streamed, kept):
                    with streamed:
                        self.store_rows(self.sums(), dst, dst_pitch, emit.store_past)
                    with kept:
                        self.store_rows(self.sums(), dst, dst_pitch, emit.store)

    def place(self, address: Any, value: Any) -> None:
        """One vector, in the type of the results."""
        if self.stored:
            store_as(self.out, *self.stored, address, value)
        else:
            self.emit.store(address, value)

    def store_rows(self, values: list[list[Any]], dst: Any, dst_pitch: Any, store: Callable[[Any, Any], None]) -> None:
        """Vectors to the rows of ``dst``."""
        for i, row in enumerate(values):
            for vec, value in enumerate(row):
                store(self.at(dst, dst_pitch, i, vec), value)

    def at(self, dst: Any, dst_pitch: Any, i: int, vec: int) -> Any:
        """Where a vector of results is stored."""
        return self.emit.offset(dst, self.emit.times(dst_pitch, i), vec * self.stored_width)


class _PairTile(_DirectTile):
    """The exact order of symmetric weights: ``x[c] w[c]``, then ``(x[c-j] +- x[c+j]) w[c-j]`` from the ends inward, one channel."""

    def channels(self, table: Any, xoff: Any) -> None:
        self.square(table, xoff)

    def square(self, table: Any, xoff: Any) -> None:
        emit, build = self.emit, self.builder
        taps, step = (self.shape.kh, emit.constant(8)) if self.only_kw else (self.shape.kw, self.shape.tap)
        half = emit.quotient(taps, 2)
        add = build.fadd if self.order == "symmetric" else build.fsub

        def multiply(tap: Any, sums: list[list[Any]], place: Any, partner: Any = None) -> None:
            w = emit.splat(emit.offset(emit.get(self.weights), emit.times(tap, emit.itemsize)))
            for i in range(self.rows):
                (vectors,) = self.pixels(self.pixel(table, xoff, i, place), [emit.constant(0)], False)
                if partner is not None:
                    (others,) = self.pixels(self.pixel(table, xoff, i, partner), [emit.constant(0)], False)
                    vectors = [add(a, b) for a, b in zip(vectors, others, strict=True)]
                self.multiply(sums, [(i, 0)], [vectors], [[w]])

        sums = self.sums()
        multiply(half, sums, emit.times(step, half))
        self.keep(sums)
        first, last = emit.variable(emit.constant(0)), emit.variable(emit.offset(taps, -1))
        with emit.loop(half):
            sums, tap, other = self.sums(), emit.get(first), emit.get(last)
            multiply(tap, sums, emit.times(step, tap), emit.times(step, other))
            self.keep(sums)
            emit.set(first, emit.offset(tap, 1))
            emit.set(last, emit.offset(other, -1))

    def pixel(self, table: Any, xoff: Any, i: int, place: Any) -> Any:
        """Where the pixels of output row ``i`` lie under the tap at a place: bytes into the table of a column, or into a row."""
        emit = self.emit
        entry = emit.offset(table, i * self.v * 8)
        row = emit.load_integer(emit.offset(entry, place) if self.only_kw else entry)
        return emit.offset(row, xoff) if self.only_kw else emit.offset(row, xoff, place)


class _DotTile(_DirectTile):
    """Four taps of a row at a time: bytes without sign times bytes with, summed exactly in 32 bits."""

    def __init__(self, builder: Any, spec: tuple[Any, ...], shape: Any) -> None:
        super().__init__(builder, spec, shape)
        self.out = self.emit.of("f32")

    def multiply(self, sums: list[list[Any]], uses: list[tuple[int, int]], pixels: list[list[Any]], taps: list[list[Any]]) -> None:
        for i, ky in uses:
            for vec in range(self.vecs):
                sums[i][vec] = self.emit.dot_add(pixels[0][vec], taps[0][ky], sums[i][vec])

    def results(self) -> list[list[Any]]:
        return [[self.builder.sitofp(value, self.out.vector) for value in row] for row in self.sums()]


def direct_tile_body(builder: Any, spec: tuple[Any, ...], shape: Any) -> _DirectTile:
    """The code of one specialisation of `direct_tile`, to be written into ``builder`` part by part."""
    return _DirectTile(builder, spec, shape)


_TILES = {"symmetric": _PairTile, "antisymmetric": _PairTile, "dots": _DotTile}
