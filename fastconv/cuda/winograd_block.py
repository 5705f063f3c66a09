"""winograd_block: what a block of :mod:`fastconv.cuda.winograd` does with squares of 2x2 results: transforms, products, transforms."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import border
from .arithmetic import SIZES
from .finish import Results

KIND, SIZE, VECTOR = "f32", 4, 4
SQUARES = 32  # of a block
OWN = 8  # squares of a thread, of 2x2 results
PITCH = SQUARES + 4  # of sums, elements of shared memory: 8 channels x 4 squares, and 32 squares, are in 32 banks


class Tile(NamedTuple):
    """``bm`` output channels of a block, at squares of ``m x m`` results; how it works, and what it may take."""

    m: int
    bm: int
    depth: int  # input channels that are in shared memory at once, twice
    threads: int
    pitch: int  # elements of shared memory from the pixels of one channel to those of the next, of all squares
    spare: int  # elements between points
    part: int  # output channels whose sums are in shared memory at once, at the end
    registers: int
    blocks: int  # on a multiprocessor, at least

    @property
    def points(self) -> int:
        """Of a square."""
        return (self.m + 2) ** 2

    @property
    def step(self) -> int:
        """Weights of a step."""
        return self.points * self.depth * self.bm

    @property
    def wei_point(self) -> int:
        """Elements of shared memory from the weights of one point to those of the next."""
        return self.depth * self.bm + self.spare

    @property
    def src_point(self) -> int:
        """The same of pixels."""
        return self.depth * self.pitch + self.spare

    @property
    def buffer(self) -> int:
        """Bytes of a step's weights and pixels."""
        return self.points * (self.wei_point + self.src_point) * SIZE

    @property
    def places(self) -> int:
        """Where in shared memory the places of pixels begin."""
        return 2 * self.buffer

    @property
    def squares(self) -> int:
        """Where in shared memory what else is known of squares begins."""
        return self.places + SQUARES * 2 * (self.m + 2) * 8

    @property
    def raw(self) -> int:
        """Where in shared memory pixels on their way begin."""
        return self.squares + (SQUARES * 16 if self.m == 4 else 0)

    @property
    def shared(self) -> int:
        """Bytes of shared memory, for steps and for the sums at the end."""
        on_their_way = self.points * SQUARES * self.depth * SIZE if self.m == 4 else 0
        return max(self.raw + on_their_way, self.points * self.part * PITCH * SIZE)


class Spec(NamedTuple):
    """What a kernel is compiled for; ``last``: channels are dense in memory; ``wide``: places in an image need 64 bits."""

    tile: Tile
    last: int
    wide: int
    dst: str = KIND
    rounding: str = ""
    tail: str = ""  # see `finish.tail_of`
    src: str = KIND  # or bf16, of m 2

    @property
    def acc(self) -> str:
        """Of sums."""
        return KIND


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "dn", "dc", "dy", "dx", "untransformed")
EXTENTS = (
    "squares", "plane", "columns", "oh", "ow", "icg", "ocg", "blocks", "depths", "pt", "pl", "dense", "biased", "activated",
    *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


def pixel_points(e: Any, d: list[Any]) -> list[Any]:
    """Points 0, 1, -1 and infinity of four pixels."""
    return [d[0] - d[2], e.plus(d[1], d[2]), d[2] - d[1], d[1] - d[3]]


def weight_points(e: Any, g: list[Any]) -> list[Any]:
    """Of three weights; points 1 and -1 twice as large as those that pixels' are to be multiplied by."""
    even = e.plus(g[0], g[2])
    return [g[0], e.plus(even, g[1]), even - g[1], g[2]]


def results_of_points(e: Any, m: list[Any]) -> list[Any]:
    """Two results of the points' products, of which half of points 1 and -1 is taken."""
    half = e.number(KIND, 0.5)
    return [e.fma(e.plus(m[1], m[2]), half, m[0]), e.fma(m[1] - m[2], half, m[3] * -1.0)]


def transformed(e: Any, along: Any, values: list[Any], extent: int) -> list[Any]:
    """A matrix of values, row by row, transformed along columns and then along rows by ``along``."""
    columns = [along(e, values[j::extent]) for j in range(extent)]
    return [value for row in zip(*columns, strict=True) for value in along(e, list(row))]


class Block:
    """One thread's part of a block.

    Shared memory holds two buffers, each ``[point][depth][bm]`` weights and ``[point][depth][pitch]`` pixels, points ``wei_point``
    and ``src_point`` apart; at the end ``[point][output channel][square]`` sums of ``part`` channels, with ``last``
    ``[point][square][output channel]``.  Behind them lie the places of pixels, ``[rows, columns in vectors][square][4]``: eight
    registers through the products would be spilled.
    """

    def __init__(self, e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
        self.e, self.s, self.at, self.v, self.x = e, s, at, v, x
        self.place()

    def place(self) -> None:
        """Find again what the thread does: registers for it through the products are better used."""
        e, x = self.e, self.x
        self.t, block = e.anew(e.thread("x")), e.anew(e.block("y"))
        self.group, self.part = block // x.blocks, block % x.blocks
        self.first = e.anew(e.block("x")) * SQUARES
        self.find()

    def find(self) -> None:
        """What the thread multiplies: a point's vectors of output channels and of squares."""
        self.point, self.m, self.n = self.t // 16, self.t // 4 % 4, self.t % 4

    def fetched(self) -> tuple[Any, Any]:
        """The square and the channel of a step that the thread fetches; made where they are used, as `place` is."""
        t, depth = self.e.anew(self.t), self.s.tile.depth
        return (t // depth, t % depth) if self.s.last else (t % SQUARES, t // SQUARES)

    def kept(self, part: int) -> Any:
        """Where four of the places of the thread's square are."""
        return self.e.shared() + self.s.tile.places + (self.fetched()[0] + part * SQUARES) * (VECTOR * SIZES[self.kind])

    @property
    def kind(self) -> str:
        """Of places."""
        return "i64" if self.s.wide else "i32"

    def run(self) -> None:
        """Fetch ahead, multiply, transform, store."""
        e, x, tile = self.e, self.x, self.s.tile
        image, row, column = self.corner(self.fetched()[0])
        outside, *places = self.under(row, column)
        for half in range(2):
            e.shared_store(self.kind, self.kept(half), places[4 * half : 4 * half + 4])
        zero = e.i32(0)
        self.keep_pixels(zero, outside, self.pixels(image, places, zero))
        for half in range(2):
            self.keep_weights(zero, half, self.weights(zero, half))
        e.barrier()

        def step(n: Any, sums: list[Any]) -> list[Any]:
            # the last step fetches again what nothing reads; some of the products hide each fetch, whose registers the next takes
            following, now, other = e.least(n + 1, x.depths - 1), n % 2 * tile.buffer, (n + 1) % 2 * tile.buffer
            places = [value for half in range(2) for value in e.shared_load(self.kind, self.kept(half), 4)]
            pixels = self.pixels(image, places, following)
            sums = self.multiply(now, range(4), sums)
            self.keep_pixels(other, outside, pixels)
            for half in range(2):
                weights = self.weights(following, half)
                sums = self.multiply(now, range(4 + 2 * half, 6 + 2 * half), sums)
                self.keep_weights(other, half, weights)
            e.barrier()
            return sums

        each = tile.part // 4 * OWN
        sums = e.loop(x.depths, [e.number(KIND, 0)] * (tile.bm // 4 * OWN), step)
        for first in range(0, tile.bm, tile.part):
            if first:
                e.barrier()
            self.place()
            self.share(sums[first // 4 * OWN :][:each])
            e.barrier()

            def results(n: Any, nothing: list[Any], first: int = first) -> list[Any]:
                self.results(first, self.t // 32 + n * (tile.threads // 32), self.t % 32)
                return nothing

            e.loop(tile.part * SQUARES // tile.threads, [], results)

    def corner(self, square: Any) -> tuple[Any, Any, Any]:
        """(address of its image's first channel, row, column) of a square's first pixel; the last square's beyond it."""
        at, x = self.at, self.x
        q = self.e.least(self.first + square, x.squares - 1)
        n, rest = q // x.plane, q % x.plane
        image = at.src + at.sn * n + at.sc * (self.group * x.icg)
        m = self.s.tile.m
        return image, rest // x.columns * m - x.pt, rest % x.columns * m - x.pl

    def mapped(self, axis: str, index: Any) -> Any:
        """The row or column behind an index; -1 in the constant border."""
        return border.mapped(self.e, self.x, axis, index)

    def under(self, row: Any, column: Any) -> list[Any]:
        """[a bit for each row and column that is outside, places of the rows and of the columns] of a square's pixels."""
        e, at = self.e, self.at
        outside, places = e.i32(0), []
        for axis, first, stride in (("y", row, at.sy), ("x", column, at.sx)):
            for n in range(self.s.tile.m + 2):
                index = self.mapped(axis, first + n)
                outside = outside | e.pick(index < 0, e.i32(1 << len(places)), e.i32(0))
                place = stride * e.most(index, 0)
                places.append(place if self.s.wide else e.i32(place))
        return [outside, *places]

    def pixels(self, image: Any, places: list[Any], step: Any) -> list[Any]:
        """The pixels of the thread's square in its channel of a step; of the last channel beyond it, whose weights there are 0."""
        e, x, extent = self.e, self.x, self.s.tile.m + 2
        plane = image + self.at.sc * e.least(step * self.s.tile.depth + self.fetched()[1], x.icg - 1)
        return [e.load(self.s.src, KIND, plane + (row + column), 1)[0] for row in places[:extent] for column in places[extent:]]

    def weights(self, step: Any, half: int) -> list[Any]:
        """The thread's vectors of half of a step's weights."""
        e, many = self.e, self.s.tile.step
        place = self.at.wei + (e.i64(e.block("y")) * self.x.depths + step) * (many * SIZE) + self.t * (VECTOR * SIZE)
        vectors = range(half * many // 2, (half + 1) * many // 2, self.s.tile.threads * VECTOR)
        return [value for first in vectors for value in e.load(KIND, KIND, place + first * SIZE, VECTOR)]

    def keep_pixels(self, buffer: Any, outside: Any, pixels: list[Any]) -> None:
        """Put pixels into shared memory, transformed."""
        e, tile = self.e, self.s.tile
        extent = tile.m + 2
        # no branch, behind which the assembler would put the loads: they would not be hidden by products
        bits = [1 << n // extent | 1 << extent + n % extent for n in range(tile.points)]
        pixels = [e.pick((outside & bit) > 0, self.v.fill, value) for bit, value in zip(bits, pixels, strict=True)]
        square, channel = self.fetched()
        base = e.shared() + buffer + (channel * tile.pitch + square + tile.points * tile.wei_point) * SIZE
        for point, value in enumerate(self.pixel_points(pixels)):
            e.shared_store(KIND, base + point * tile.src_point * SIZE, [value])

    def pixel_points(self, pixels: list[Any]) -> list[Any]:
        """Of a square's pixels."""
        return transformed(self.e, pixel_points, pixels, 4)

    def keep_weights(self, buffer: Any, half: int, weights: list[Any]) -> None:
        """Put half of a step's weights into shared memory."""
        tile, t = self.s.tile, self.e.anew(self.t)
        each = tile.depth * tile.bm // VECTOR  # vectors of a point
        base = self.e.shared() + buffer + ((t // each + half * tile.points // 2) * tile.wei_point + t % each * VECTOR) * SIZE
        for n in range(len(weights) // VECTOR):
            self.e.shared_store(KIND, base + n * (tile.threads // each) * tile.wei_point * SIZE, weights[n * VECTOR : (n + 1) * VECTOR])

    def multiply(self, buffer: Any, channels: range, sums: list[Any]) -> list[Any]:
        """Add the products of some channels in a buffer."""
        e, tile, sums = self.e, self.s.tile, list(sums)
        wei = e.shared() + buffer + (self.point * tile.wei_point + self.m * VECTOR) * SIZE
        src = e.shared() + buffer + (self.point * tile.src_point + self.n * VECTOR + tile.points * tile.wei_point) * SIZE
        for k in channels:
            a, b = (
                [value for part in range(0, count, 16) for value in e.shared_load(KIND, base + (k * pitch + part) * SIZE, VECTOR)]
                for base, pitch, count in ((wei, tile.bm, tile.bm), (src, tile.pitch, SQUARES))
            )
            for i, weight in enumerate(a):
                for j, pixel in enumerate(b):
                    sums[i * OWN + j] = e.fma(pixel, weight, sums[i * OWN + j])
        return sums

    def share(self, sums: list[Any]) -> None:
        """Put the thread's sums of 32 output channels into shared memory."""
        lines, lanes = (self.n, self.m) if self.s.last else (self.m, self.n)
        base = self.e.shared() + ((self.point * 32 + lines * VECTOR) * PITCH + lanes * VECTOR) * SIZE
        for line in range(OWN):
            for half in range(OWN // VECTOR):
                own = range(half * VECTOR, (half + 1) * VECTOR)
                values = [sums[lane * OWN + line] if self.s.last else sums[line * OWN + lane] for lane in own]
                place = (line // VECTOR * 16 + line % VECTOR) * PITCH + half * 16
                self.e.shared_store(KIND, base + place * SIZE, values)

    def results(self, first: int, line: Any, lane: Any) -> None:
        """Transform, finish and store the 2x2 results of a square and an output channel of the 32 from ``first`` on."""
        e, at, x = self.e, self.at, self.x
        square, o = (line, lane) if self.s.last else (lane, line)
        base = e.shared() + (line * PITCH + lane) * SIZE
        points = [e.shared_load(KIND, base + point * (32 * PITCH * SIZE), 1)[0] for point in range(16)]
        found = transformed(e, results_of_points, points, 4)
        zero = nothing = e.number(KIND, 0)
        for value in found:
            nothing = e.fma(value, zero, nothing)  # 0 unless one is not finite
        found = e.when(nothing <= 0, found, lambda values: values, lambda _: self.direct(square, first + o))
        channel = self.part * self.s.tile.bm + first + o
        place = e.i64(self.group * x.ocg + e.least(channel, x.ocg - 1))
        (bias,) = e.when(x.biased > 0, [zero], lambda _: e.load(KIND, KIND, at.bias + place * SIZE, 1))
        found = [e.plus(value, bias) for value in found]

        def store(nothing: list[Any]) -> list[Any]:
            q = self.first + square
            rest = q % x.plane
            oy, ox = rest // x.columns * 2, rest % x.columns * 2
            self.store_rows(at.dst + at.dn * (q // x.plane) + at.dy * oy + at.dx * ox + at.dc * place, oy, ox, place, found)
            return nothing

        e.when((self.first + square < x.squares) & (channel < x.ocg), [], store)

    def store_rows(self, result: Any, oy: Any, ox: Any, channel: Any, sums: list[Any]) -> None:
        """Finish and store a square's results, the first of them at an address, a row and a column, those that exist."""
        e, at, x, m = self.e, self.at, self.x, self.s.tile.m
        results = Results(e, self.s, at, self.v, x)
        scaling = results.scaling(channel)
        for row in range(m):

            def one(nothing: list[Any], own: list[Any] = sums[m * row : m * row + m], line: Any = result + at.dy * row) -> list[Any]:
                results.store(own, [scaling] * m, lambda n: line + at.dx * n, x.ow - ox, x.dense > 0)
                return nothing

            e.when(oy + row < x.oh, [], one)

    def direct(self, square: Any, o: Any) -> list[Any]:
        """The 2x2 sums of a square and an output channel, by the formula: channel; ``ky``; ``kx``."""
        e, at, x, bm = self.e, self.at, self.x, self.s.tile.bm
        image, row, column = self.corner(square)
        wei = at.wei + at.untransformed + e.i64(e.block("y")) * x.depths * (self.s.tile.depth * 9 * bm * SIZE) + o * SIZE

        def channel(c: Any, sums: list[Any]) -> list[Any]:
            def tap(k: Any, sums: list[Any]) -> list[Any]:
                weight = e.load(KIND, KIND, wei + (e.i64(c) * 9 + k) * (bm * SIZE), 1)[0]
                found = []
                for n, total in enumerate(sums):
                    y, x = self.mapped("y", row + k // 3 + n // 2), self.mapped("x", column + k % 3 + n % 2)
                    place = image + at.sc * c + at.sy * e.most(y, 0) + at.sx * e.most(x, 0)
                    (pixel,) = e.when((y < 0) | (x < 0), [self.v.fill], lambda p: p, lambda _, at=place: e.load(self.s.src, KIND, at, 1))
                    found.append(e.fma(pixel, weight, total))
                return found

            return e.loop(9, sums, tap)

        return e.loop(x.icg, [e.number(KIND, 0)] * 4, channel)
