"""winograd_large: what a block of :mod:`fastconv.cuda.winograd` does with squares of 4x4 results, of which 6x6 pixels make 36 points.

Twelve warps have three points each; a thread of a warp 8 output channels at 4 squares of each, 96 sums.  The first four warps, one of
each of a multiprocessor's quarters, fetch and transform pixels; all fetch weights.  Both come past registers, of which 36 pixels on
their way beside the sums would be too many.
"""

from __future__ import annotations

from typing import Any

from ..planning.winograd_points import Transform
from .finish import Results
from .winograd_block import KIND, PITCH, SIZE, SQUARES, VECTOR, Block, transformed

TURNS = 3  # points of a warp
CHANNELS, ACROSS = 8, 4  # output channels and squares of a thread
# Pixels and weights are multiplied by this before their transforms, whose fractions would else round what is next to the smallest number,
# and the results by its inverse square: neither rounds.  What overflows so is computed by the direct formula.
SCALE = 2.0**24


class Points:
    """The emitter that the transforms are written for: every operation rounds once."""

    def __init__(self, e: Any) -> None:
        self.builder = self
        self.e = e
        self.fmul, self.fadd, self.multiply_add = e.times, e.plus, e.fma

    def number(self, value: float) -> Any:
        """A constant."""
        return self.e.number(KIND, value)

    def fsub(self, a: Any, b: Any) -> Any:
        """``a - b``."""
        return self.e.fma(b, self.number(-1), a)


def scaled_weight_points(e: Any, taps: list[Any], m: int) -> list[Any]:
    """The points of 3x3 taps, times `SCALE`."""
    transform = Transform(Points(e), m)
    scale = e.number(KIND, SCALE)
    return transformed(e, lambda _, values: transform.weights(values), [e.times(tap, scale) for tap in taps], 3)


class Large(Block):
    """One thread's part of a block.

    Shared memory is laid out as in `Block`, with what else is known of squares, and pixels on their way, ``[pixel of a square][thread
    that fetches]``, behind the places; at the end there are the sums of 16 output channels, twice.
    """

    def find(self) -> None:
        """What the thread multiplies: of its warp's points, vectors of output channels and of squares.

        Neighbours have the same squares, and those two lanes apart the same channels: then a vector takes two accesses, not four.
        """
        lane = self.t % 32
        self.point = self.t // 32 * TURNS
        self.m, self.n = lane % 2 + lane // 4 % 2 * 2, lane // 2 % 2 + lane // 8 * 2

    @property
    def fetching(self) -> int:
        """Threads that fetch pixels."""
        return SQUARES * self.s.tile.depth

    def run(self) -> None:
        """Fetch ahead, multiply, transform, store."""
        e, x, tile = self.e, self.x, self.s.tile
        fetches = self.t < self.fetching
        image, row, column = self.corner(e.least(self.fetched()[0], SQUARES - 1))
        outside, *places = self.under(row, column)
        vectors = range(len(places) // VECTOR)

        def keep_places(nothing: list[Any]) -> list[Any]:
            for part in vectors:
                e.shared_store(self.kind, self.kept(part), places[VECTOR * part : VECTOR * (part + 1)])
            e.shared_store("i64", self.own(0), [image])
            e.shared_store("i32", self.own(8), [outside])
            return nothing

        e.when(fetches, [], keep_places)

        def copy(buffer: Any, step: Any) -> None:
            def own(nothing: list[Any]) -> list[Any]:
                found = [e.shared_load(self.kind, self.kept(part), VECTOR) for part in vectors]
                (image,) = e.shared_load("i64", self.own(0), 1)
                self.copy_pixels(image, [value for vector in found for value in vector], step)
                return nothing

            self.copy_weights(buffer, step)
            e.when(fetches, [], own)

        def keep(buffer: Any) -> None:
            def own(nothing: list[Any]) -> list[Any]:
                values = [e.shared_load(KIND, self.on_its_way(n), 1)[0] for n in range(tile.points)]
                (outside,) = e.shared_load("i32", self.own(8), 1)
                self.keep_pixels(buffer, outside, values)
                return nothing

            e.arrived()
            e.when(fetches, [], own)

        zero = e.i32(0)
        copy(zero, zero)
        keep(zero)
        e.barrier()

        def step(n: Any, sums: list[Any]) -> list[Any]:
            # the last step fetches again what nothing reads
            following, now, other = e.least(n + 1, x.depths - 1), n % 2 * tile.buffer, (n + 1) % 2 * tile.buffer
            copy(other, following)
            sums = self.multiply(now, range(tile.depth), sums)
            keep(other)
            e.barrier()
            return sums

        sums = e.loop(x.depths, [e.number(KIND, 0)] * (TURNS * CHANNELS * ACROSS), step)
        for part in range(tile.bm // tile.part):
            if part:
                e.barrier()
            self.place()
            self.share_part(sums, part)
            e.barrier()

            def results(n: Any, nothing: list[Any], part: int = part) -> list[Any]:
                task = self.t + n * tile.threads
                across = tile.part if self.s.last else SQUARES
                line, lane = task // across, task % across

                def one(nothing: list[Any]) -> list[Any]:
                    self.results_of(part * tile.part, line, lane)
                    return nothing

                return e.when(task < tile.part * SQUARES, nothing, one)

            e.loop(-(-tile.part * SQUARES // tile.threads), [], results)

    def own(self, byte: int) -> Any:
        """Where the address of the image of the thread's square is, and 8 bytes further what is outside."""
        return self.e.shared() + self.s.tile.squares + self.fetched()[0] * 16 + byte

    def on_its_way(self, pixel: int) -> Any:
        """Where a pixel of the thread's square is in shared memory."""
        return self.e.shared() + self.s.tile.raw + self.e.anew(self.t) * SIZE + pixel * (self.fetching * SIZE)

    def copy_pixels(self, image: Any, places: list[Any], step: Any) -> None:
        """Copy the pixels of the thread's square in its channel of a step; of the last channel beyond it, whose weights there are 0."""
        e, x, extent = self.e, self.x, self.s.tile.m + 2
        plane = image + self.at.sc * e.least(step * self.s.tile.depth + self.fetched()[1], x.icg - 1)
        for n in range(extent * extent):
            e.copy(self.on_its_way(n), plane + (places[n // extent] + places[extent + n % extent]), SIZE)

    def pixel_points(self, pixels: list[Any]) -> list[Any]:
        """Of a square's pixels, times `SCALE`."""
        e = self.e
        transform, scale = Transform(Points(e), self.s.tile.m), e.number(KIND, SCALE)
        return transformed(e, lambda _, values: transform.pixels(values), [e.times(value, scale) for value in pixels], 6)

    def copy_weights(self, buffer: Any, step: Any) -> None:
        """Copy a step's weights into a buffer; `arrived` waits for them."""
        e, tile, t = self.e, self.s.tile, self.e.anew(self.t)
        assert tile.spare == 0
        assert tile.step % (tile.threads * VECTOR) == 0
        place = self.at.wei + (e.i64(e.block("y")) * self.x.depths + step) * (tile.step * SIZE) + t * (VECTOR * SIZE)
        for first in range(0, tile.step, tile.threads * VECTOR):
            e.copy(e.shared() + buffer + t * (VECTOR * SIZE) + first * SIZE, place + first * SIZE, VECTOR * SIZE)

    def multiply(self, buffer: Any, channels: range, sums: list[Any]) -> list[Any]:
        """Add the products of some channels in a buffer."""
        e, tile, sums = self.e, self.s.tile, list(sums)
        wei = e.shared() + buffer + (self.point * tile.wei_point + self.m * VECTOR) * SIZE
        src = e.shared() + buffer + (self.point * tile.src_point + self.n * VECTOR + tile.points * tile.wei_point) * SIZE
        for k in channels:
            for turn in range(TURNS):
                own = wei + (turn * tile.wei_point + k * tile.bm) * SIZE
                a = [value for part in (0, tile.part) for value in e.shared_load(KIND, own + part * SIZE, VECTOR)]
                b = e.shared_load(KIND, src + (turn * tile.src_point + k * tile.pitch) * SIZE, ACROSS)
                for i, weight in enumerate(a):
                    for j, pixel in enumerate(b):
                        place = (turn * CHANNELS + i) * ACROSS + j
                        sums[place] = e.fma(pixel, weight, sums[place])
        return sums

    def share_part(self, sums: list[Any], part: int) -> None:
        """Put the thread's sums of 16 output channels into shared memory."""
        e, tile, last = self.e, self.s.tile, self.s.last
        pitch = tile.part if last else PITCH
        own = (self.n if last else self.m) * (VECTOR * pitch) + (self.m if last else self.n) * VECTOR
        each = (SQUARES if last else tile.part) * pitch  # of a point
        base = e.shared() + (self.point * each + own) * SIZE
        for turn in range(TURNS):
            first = turn * CHANNELS + part * VECTOR
            for line in range(VECTOR):
                places = [(first + n) * ACROSS + line if last else (first + line) * ACROSS + n for n in range(VECTOR)]
                e.shared_store(KIND, base + (turn * each + line * pitch) * SIZE, [sums[place] for place in places])

    def results_of(self, first: int, line: Any, lane: Any) -> None:
        """Transform, finish and store the 4x4 results of a square and an output channel of the 16 from ``first`` on."""
        e, x, tile, last = self.e, self.x, self.s.tile, self.s.last
        square, o = (line, lane) if last else (lane, line)
        pitch = tile.part if last else PITCH
        each = (SQUARES if last else tile.part) * pitch
        base = e.shared() + (line * pitch + lane) * SIZE
        points = [e.shared_load(KIND, base + point * (each * SIZE), 1)[0] for point in range(tile.points)]
        transform, scale = Transform(Points(e), tile.m), e.number(KIND, SCALE**-2)
        found = transformed(e, lambda _, values: transform.results(values), points, 6)
        found = [e.times(value, scale) for value in found]
        zero = nothing = e.number(KIND, 0)
        for value in found:
            nothing = e.fma(value, zero, nothing)  # 0 unless one is not finite
        channel = self.part * tile.bm + first + o

        def store(nothings: list[Any]) -> list[Any]:
            where = self.result(square, channel)
            return e.when(nothing <= 0, nothings, lambda _: self.stored(where, found, channel),
                          lambda _: self.repaired(where, square, first + o, channel))  # fmt: skip

        e.when((self.first + square < x.squares) & (channel < x.ocg), [], store)

    def result(self, square: Any, channel: Any) -> tuple[Any, Any, Any, Any]:
        """(address, row, column, bias) of a square's first result in an output channel."""
        e, at, x, m = self.e, self.at, self.x, self.s.tile.m
        q, place = self.first + square, e.i64(self.group * x.ocg + channel)
        rest = q % x.plane
        oy, ox = rest // x.columns * m, rest % x.columns * m
        (bias,) = e.when(x.biased > 0, [e.number(KIND, 0)], lambda _: e.load(KIND, KIND, at.bias + place * SIZE, 1))
        return at.dst + at.dn * (q // x.plane) + at.dc * place + at.dy * oy + at.dx * ox, oy, ox, bias

    def stored(self, where: tuple[Any, Any, Any, Any], found: list[Any], channel: Any) -> list[Any]:
        """Finish and store a square's results."""
        address, oy, ox, bias = where
        self.store_rows(address, oy, ox, self.group * self.x.ocg + channel, [self.e.plus(value, bias) for value in found])
        return []

    def repaired(self, where: tuple[Any, Any, Any, Any], square: Any, o: Any, channel: Any) -> list[Any]:
        """Compute a square's results by the formula, one after the other: channel; ``ky``; ``kx``."""
        e, at, x, m = self.e, self.at, self.x, self.s.tile.m
        address, oy, ox, bias = where
        results = Results(e, self.s, at, self.v, x)
        scaling = results.scaling(self.group * x.ocg + channel)

        def result(n: Any, nothing: list[Any]) -> list[Any]:
            down, across = n // m, n % m

            def one(nothing: list[Any]) -> list[Any]:
                total = e.plus(self.direct_sum(square, o, down, across), bias)
                results.store([total], [scaling], lambda _: address + at.dy * down + at.dx * across, e.i32(1))
                return nothing

            return e.when((oy + down < x.oh) & (ox + across < x.ow), nothing, one)

        return e.loop(m * m, [], result)

    def direct_sum(self, square: Any, o: Any, down: Any, across: Any) -> Any:
        """The sum of a square's result and an output channel of the block."""
        e, at, x, tile = self.e, self.at, self.x, self.s.tile
        image, row, column = self.corner(square)
        wei = at.wei + at.untransformed + e.i64(e.block("y")) * x.depths * (tile.depth * 9 * tile.bm * SIZE) + o * SIZE

        def channel(c: Any, total: list[Any]) -> list[Any]:
            def tap(k: Any, total: list[Any]) -> list[Any]:
                (weight,) = e.load(KIND, KIND, wei + (e.i64(c) * 9 + k) * (tile.bm * SIZE), 1)
                y, x = self.mapped("y", row + down + k // 3), self.mapped("x", column + across + k % 3)
                place = image + at.sc * c + at.sy * e.most(y, 0) + at.sx * e.most(x, 0)
                (pixel,) = e.when((y < 0) | (x < 0), [self.v.fill], lambda p: p, lambda _: e.load(KIND, KIND, place, 1))
                return [e.fma(pixel, weight, total[0])]

            return e.loop(9, total, tap)

        return e.loop(x.icg, [e.number(KIND, 0)], channel)[0]
