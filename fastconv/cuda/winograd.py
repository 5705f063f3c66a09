"""winograd: 3x3 kernels of many channels by F(2x2, 3x3): 16 multiplications for four results instead of 36, in one kernel.

A block's result is 32 output channels at 32 tiles of 2x2 pixels.  Eight channels of its 4x4 pixels are brought to shared memory
transformed, with weights that were transformed when they were packed, while the block multiplies the eight before: for each of the 16
points a product of matrices, of which a thread has 8 x 8 sums of one point.  At the end the sums go to shared memory and are transformed.

Order of accumulation per output: of each point the channels, every product fused; the transform of the points; the bias.  It depends on
nothing else.  ``|error| <= C u max|x over the tile's pixels| sum|w|`` with C = 32 + 2 channels of a group:
seen were 10 of one channel and 1.3 a channel where all are equal, of random layers 5 (1e-6 of the largest result at 512 channels).

The transforms have no division: halves are taken of the sums, so that tiny weights lose nothing.  A pixel or a weight that is not
finite, or an overflow, makes a point that is not finite, and every point is in a result: where a tile's four results of a channel are
not all finite, the thread computes them by the direct formula, from weights that are packed beside the transformed ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from . import border
from .arrays import DeviceArray
from .compile import Kernel
from .copy import on_device
from .driver import MOST_GRID, Memory
from .driver import Launch as DriverLaunch
from .finish import VALUES, cannot_finish, finish_values, finished, store_row
from .gemm_block import DEPTH, MOST_PIXELS, parts
from .simd import SIZES
from .target import Target

CASES = (
    "ic9ih6iw7_oc34k3_p1_bias+relu", "ic18ih5iw9_oc40k3_p1_reflect_nhwc_hwio_bias", "g2_ic20ih7iw6_oc6k3_pt2pb1pl0pr3_wrap",
    "n3_ic8ih9iw8_oc33k3_nhwc_hwio", "ic16ih6iw12_oc32k3_p2_edge_bias+relu6",
)  # fmt: skip

KIND, SIZE, VECTOR = "f32", 4, 4
CHANNELS, TILES, POINTS = 32, 32, 16  # of a block
THREADS, REGISTERS, BLOCKS = 256, 128, 2
OWN = 8  # output channels and tiles of a thread
STEP = POINTS * DEPTH * CHANNELS  # weights of a step
# elements of shared memory: rows of pixels lie apart so that 8 channels x 4 tiles, and 32 tiles, are in 32 banks; the points of a warp so
# that they are in different ones
PITCH = TILES + 4
WEI_POINT, SRC_POINT = DEPTH * CHANNELS + 16, DEPTH * PITCH + 16
BUFFER = POINTS * (WEI_POINT + SRC_POINT) * SIZE
PLACES = max(2 * BUFFER, POINTS * CHANNELS * PITCH * SIZE)
SHARED = PLACES + TILES * 8 * 8
_PACK_THREADS = 256


class Spec(NamedTuple):
    """What a kernel is compiled for; ``last``: channels are dense in memory; ``wide``: places in an image need 64 bits."""

    last: int
    wide: int


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "dn", "dc", "dy", "dx", "untransformed")
EXTENTS = (
    "tiles", "plane", "columns", "oh", "ow", "icg", "ocg", "blocks", "depths", "pt", "pl", "dense", "biased", "activated",
    *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip
_AXES = {name: tuple(f"{name}_{field}" for field in border.FIELDS) for name in "yx"}


def _pixels(e: Any, d: list[Any]) -> list[Any]:
    return [d[0] - d[2], e.plus(d[1], d[2]), d[2] - d[1], d[1] - d[3]]


def _weights(e: Any, g: list[Any]) -> list[Any]:
    even = e.plus(g[0], g[2])
    return [g[0], e.plus(even, g[1]), even - g[1], g[2]]


def _results(e: Any, m: list[Any]) -> list[Any]:
    half = e.number(KIND, 0.5)
    return [e.fma(e.plus(m[1], m[2]), half, m[0]), e.fma(m[1] - m[2], half, m[3] * -1.0)]


def transformed(e: Any, along: Any, values: list[Any], extent: int) -> list[Any]:
    """A square of values, row by row, transformed along columns and then along rows by ``along``."""
    columns = [along(e, values[j::extent]) for j in range(extent)]
    return [value for row in zip(*columns, strict=True) for value in along(e, list(row))]


class Block:
    """One thread's part of a block.

    Shared memory holds two buffers, each ``[point][DEPTH][CHANNELS]`` weights and ``[point][DEPTH][PITCH]`` pixels, points ``WEI_POINT``
    and ``SRC_POINT`` apart; at the end ``[point][output channel][tile]`` sums, with ``last`` ``[point][tile][output channel]``.  Behind
    them lie the places of pixels, ``[half][tile][4]``: eight registers through the products would be spilled.
    """

    def __init__(self, e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
        self.e, self.s, self.at, self.v, self.x = e, s, at, v, x
        self.place()

    def place(self) -> None:
        """Find again what the thread does: registers for it through the products are better used."""
        e, x = self.e, self.x
        self.t, block = e.anew(e.thread("x")), e.anew(e.block("y"))
        self.group, self.part = block // x.blocks, block % x.blocks
        self.first = e.anew(e.block("x")) * TILES
        # what it multiplies: a point's vectors of output channels and of tiles
        self.point, self.m, self.n = self.t // 16, self.t // 4 % 4, self.t % 4

    def fetched(self) -> tuple[Any, Any]:
        """The tile and the channel of a step that the thread fetches; made where they are used, as `place` is."""
        t = self.e.anew(self.t)
        return (t // DEPTH, t % DEPTH) if self.s.last else (t % TILES, t // TILES)

    def run(self) -> None:
        """Fetch ahead, multiply, transform, store."""
        e, x = self.e, self.x
        image, row, column = self.corner(self.fetched()[0])
        outside, *places = self.under(row, column)
        kind = "i64" if self.s.wide else "i32"

        def kept(half: int) -> Any:
            return e.shared() + PLACES + (self.fetched()[0] + half * TILES) * (4 * SIZES[kind])

        for half in range(2):
            e.shared_store(kind, kept(half), places[4 * half : 4 * half + 4])
        zero = e.i32(0)
        self.keep_pixels(zero, outside, self.pixels(image, places, zero))
        for half in range(2):
            self.keep_weights(zero, half, self.weights(zero, half))
        e.barrier()

        def step(n: Any, sums: list[Any]) -> list[Any]:
            # the last step fetches again what nothing reads; some of the products hide each fetch, whose registers the next takes
            following, now, other = e.least(n + 1, x.depths - 1), n % 2 * BUFFER, (n + 1) % 2 * BUFFER
            places = [value for half in range(2) for value in e.shared_load(kind, kept(half), 4)]
            pixels = self.pixels(image, places, following)
            sums = self.multiply(now, range(4), sums)
            self.keep_pixels(other, outside, pixels)
            for half in range(2):
                weights = self.weights(following, half)
                sums = self.multiply(now, range(4 + 2 * half, 6 + 2 * half), sums)
                self.keep_weights(other, half, weights)
            e.barrier()
            return sums

        sums = e.loop(x.depths, [e.number(KIND, 0)] * OWN**2, step)
        self.place()
        self.share(sums)
        e.barrier()

        def results(n: Any, nothing: list[Any]) -> list[Any]:
            self.results(self.t // 32 + n * (THREADS // 32), self.t % 32)
            return nothing

        e.loop(CHANNELS * TILES // THREADS, [], results)

    def corner(self, tile: Any) -> tuple[Any, Any, Any]:
        """(address of its image's first channel, row, column) of a tile's first pixel; the last tile's beyond it."""
        at, x = self.at, self.x
        q = self.e.least(self.first + tile, x.tiles - 1)
        n, rest = q // x.plane, q % x.plane
        image = at.src + at.sn * n + at.sc * (self.group * x.icg)
        return image, rest // x.columns * 2 - x.pt, rest % x.columns * 2 - x.pl

    def mapped(self, axis: str, index: Any) -> Any:
        """The row or column behind an index; -1 in the constant border."""
        return border.mapped(self.e, tuple(getattr(self.x, name) for name in _AXES[axis]), index)

    def under(self, row: Any, column: Any) -> list[Any]:
        """[a bit for each row and column that is outside, places of the 4 rows and of the 4 columns] of a tile's pixels."""
        e, at = self.e, self.at
        outside, places = e.i32(0), []
        for axis, first, stride in (("y", row, at.sy), ("x", column, at.sx)):
            for n in range(4):
                index = self.mapped(axis, first + n)
                outside = outside | e.pick(index < 0, e.i32(1 << len(places)), e.i32(0))
                place = stride * e.most(index, 0)
                places.append(place if self.s.wide else e.i32(place))
        return [outside, *places]

    def pixels(self, image: Any, places: list[Any], step: Any) -> list[Any]:
        """The 4x4 pixels of the thread's channel of a step; of the last channel beyond it, whose weights there are 0."""
        e, x = self.e, self.x
        plane = image + self.at.sc * e.least(step * DEPTH + self.fetched()[1], x.icg - 1)
        return [e.load(KIND, KIND, plane + (row + column), 1)[0] for row in places[:4] for column in places[4:]]

    def weights(self, step: Any, half: int) -> list[Any]:
        """The thread's vectors of half of a step's weights."""
        e = self.e
        place = self.at.wei + (e.i64(e.block("y")) * self.x.depths + step) * (STEP * SIZE) + self.t * (VECTOR * SIZE)
        vectors = range(half * STEP // 2, (half + 1) * STEP // 2, THREADS * VECTOR)
        return [value for first in vectors for value in e.load(KIND, KIND, place + first * SIZE, VECTOR)]

    def keep_pixels(self, buffer: Any, outside: Any, pixels: list[Any]) -> None:
        """Put pixels into shared memory, transformed."""
        e = self.e

        def filled(values: list[Any]) -> list[Any]:
            return [e.pick((outside & (1 << n // 4 | 16 << n % 4)) > 0, self.v.fill, value) for n, value in enumerate(values)]

        pixels = e.when(outside > 0, pixels, filled)
        tile, channel = self.fetched()
        base = e.shared() + buffer + (channel * PITCH + tile + POINTS * WEI_POINT) * SIZE
        for point, value in enumerate(transformed(e, _pixels, pixels, 4)):
            e.shared_store(KIND, base + point * SRC_POINT * SIZE, [value])

    def keep_weights(self, buffer: Any, half: int, weights: list[Any]) -> None:
        """Put half of a step's weights into shared memory."""
        each, t = DEPTH * CHANNELS // VECTOR, self.e.anew(self.t)  # vectors of a point
        base = self.e.shared() + buffer + ((t // each + half * POINTS // 2) * WEI_POINT + t % each * VECTOR) * SIZE
        for n in range(len(weights) // VECTOR):
            self.e.shared_store(KIND, base + n * (THREADS // each) * WEI_POINT * SIZE, weights[n * VECTOR : (n + 1) * VECTOR])

    def multiply(self, buffer: Any, channels: range, sums: list[Any]) -> list[Any]:
        """Add the products of some channels in a buffer."""
        e, sums = self.e, list(sums)
        wei = e.shared() + buffer + (self.point * WEI_POINT + self.m * VECTOR) * SIZE
        src = e.shared() + buffer + (self.point * SRC_POINT + self.n * VECTOR + POINTS * WEI_POINT) * SIZE
        for k in channels:
            a, b = (
                [value for half in (0, 16) for value in e.shared_load(KIND, base + (k * pitch + half) * SIZE, VECTOR)]
                for base, pitch in ((wei, CHANNELS), (src, PITCH))
            )
            for i, weight in enumerate(a):
                for j, pixel in enumerate(b):
                    sums[i * OWN + j] = e.fma(pixel, weight, sums[i * OWN + j])
        return sums

    def share(self, sums: list[Any]) -> None:
        """Put the thread's sums into shared memory."""
        lines, lanes = (self.n, self.m) if self.s.last else (self.m, self.n)
        base = self.e.shared() + ((self.point * 32 + lines * VECTOR) * PITCH + lanes * VECTOR) * SIZE
        for line in range(OWN):
            for half in range(OWN // VECTOR):
                own = range(half * VECTOR, (half + 1) * VECTOR)
                values = [sums[lane * OWN + line] if self.s.last else sums[line * OWN + lane] for lane in own]
                place = (line // VECTOR * 16 + line % VECTOR) * PITCH + half * 16
                self.e.shared_store(KIND, base + place * SIZE, values)

    def results(self, line: Any, lane: Any) -> None:
        """Transform, finish and store the 2x2 results of a tile and an output channel."""
        e, at, v, x = self.e, self.at, self.v, self.x
        tile, o = (line, lane) if self.s.last else (lane, line)
        base = e.shared() + (line * PITCH + lane) * SIZE
        points = [e.shared_load(KIND, base + point * (32 * PITCH * SIZE), 1)[0] for point in range(POINTS)]
        found = transformed(e, _results, points, 4)
        zero = nothing = e.number(KIND, 0)
        for value in found:
            nothing = e.fma(value, zero, nothing)  # 0 unless one is not finite
        found = e.when(nothing <= 0, found, lambda values: values, lambda _: self.direct(tile, o))
        channel = self.part * CHANNELS + o
        place = e.i64(self.group * x.ocg + e.least(channel, x.ocg - 1))
        (bias,) = e.when(x.biased > 0, [zero], lambda _: e.load(KIND, KIND, at.bias + place * SIZE, 1))
        found = finished(e, KIND, KIND, "", x.activated, v, [e.plus(value, bias) for value in found])

        def store(nothing: list[Any]) -> list[Any]:
            q = self.first + tile
            rest = q % x.plane
            oy, ox = rest // x.columns * 2, rest % x.columns * 2
            result = at.dst + at.dn * (q // x.plane) + at.dy * oy + at.dx * ox + at.dc * place
            for row in range(2):
                pair, line = found[2 * row : 2 * row + 2], result + at.dy * row

                def together(nothing: list[Any], pair: list[Any] = pair, line: Any = line) -> list[Any]:
                    store_row(e, KIND, line, pair, x.ow - ox)
                    return nothing

                def apart(nothing: list[Any], pair: list[Any] = pair, line: Any = line) -> list[Any]:
                    store_row(e, KIND, line, pair[:1], x.ow - ox)
                    store_row(e, KIND, line + at.dx, pair[1:], x.ow - ox - 1)
                    return nothing

                e.when(oy + row < x.oh, [], lambda _, a=together, b=apart: e.when(x.dense > 0, [], a, b))
            return nothing

        e.when((self.first + tile < x.tiles) & (channel < x.ocg), [], store)

    def direct(self, tile: Any, o: Any) -> list[Any]:
        """The 2x2 sums of a tile and an output channel, by the formula: channel; ``ky``; ``kx``."""
        e, at, x = self.e, self.at, self.x
        image, row, column = self.corner(tile)
        wei = at.wei + at.untransformed + e.i64(e.block("y")) * x.depths * (DEPTH * 9 * CHANNELS * SIZE) + o * SIZE

        def channel(c: Any, sums: list[Any]) -> list[Any]:
            def tap(k: Any, sums: list[Any]) -> list[Any]:
                weight = e.load(KIND, KIND, wei + (e.i64(c) * 9 + k) * (CHANNELS * SIZE), 1)[0]
                found = []
                for n, total in enumerate(sums):
                    y, x = self.mapped("y", row + k // 3 + n // 2), self.mapped("x", column + k % 3 + n % 2)
                    place = image + at.sc * c + at.sy * e.most(y, 0) + at.sx * e.most(x, 0)
                    (pixel,) = e.when((y < 0) | (x < 0), [self.v.fill], lambda p: p, lambda _, at=place: e.load(KIND, KIND, at, 1))
                    found.append(e.fma(pixel, weight, total))
                return found

            return e.loop(9, sums, tap)

        return e.loop(x.icg, [e.number(KIND, 0)] * 4, channel)


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, o, oy, ox] = finish(bias[o] + sum_{c, ky, kx} src[n, c, oy + ky - pt, ox + kx - pl] wei[o, c, ky, kx])``.

    Weights lie as `pack_body` puts them.  Tiles of a block are those of the batch in the order ``(n, oy, ox)``, ``plane`` of an image,
    ``columns`` of a row; beyond the last one the last is computed again and not stored, and so are results beyond the image.
    """
    Block(e, s, at, v, x).run()


PACK_AT = ("wei", "packed", "untransformed", "wo", "wc", "wy", "wx")
PACK_EXTENTS = ("count", "icg", "ocg", "blocks", "depths")


def pack_body(e: Any, s: tuple[str, ...], at: Any, v: Any, x: Any) -> None:
    """``packed[g][ocg / 32][icg / DEPTH][point][c % DEPTH][o % 32]``, and ``untransformed`` bytes further on
    ``[g][ocg / 32][c][ky][kx][o % 32]``; zeros beyond the last channels; one filter of one channel a thread.
    """
    place = e.block("x") * _PACK_THREADS + e.thread("x")

    def one(nothing: list[Any]) -> list[Any]:
        rest, lane = place // CHANNELS, place % CHANNELS
        c, block = rest % (x.depths * DEPTH), rest // (x.depths * DEPTH)
        group, o = block // x.blocks, block % x.blocks * CHANNELS + lane

        def read(_: list[Any]) -> list[Any]:
            first = at.wei + at.wo * (group * x.ocg + o) + at.wc * c
            return [e.load(KIND, KIND, first + at.wy * (k // 3) + at.wx * (k % 3), 1)[0] for k in range(9)]

        taps = e.when((o < x.ocg) & (c < x.icg), [e.number(KIND, 0)] * 9, read)
        step = at.packed + (e.i64(block * x.depths + c // DEPTH) * STEP + c % DEPTH * CHANNELS + lane) * SIZE
        for point, value in enumerate(transformed(e, _weights, taps, 3)):
            e.store(KIND, step + point * (DEPTH * CHANNELS * SIZE), [value])
        plain = at.packed + at.untransformed + (e.i64(rest) * (9 * CHANNELS) + lane) * SIZE
        for k, value in enumerate(taps):
            e.store(KIND, plain + k * (CHANNELS * SIZE), [value])
        return nothing

    e.when(place < x.count, [], one)


PACK = Kernel("winograd_pack_f32", pack_body, (), PACK_AT, ("i32", ("unused",)), PACK_EXTENTS, (_PACK_THREADS, 1, 1), 64,
              vectors=False, fused=False)  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """Forward, 3x3 at every pixel, float32; what is counted fits 32 bits."""
    reason = not_computed(p, "fwd") or cannot_finish(p)
    if reason is not None:
        return reason
    if p.precision == "strict":
        return "a transform is not a direct sum, which precision strict asks for"
    if not p.src == p.wei == p.dst == p.acc == KIND:
        return f"images, weights and sums of f32, not {p.src}, {p.wei}, {p.dst} and {p.acc}"
    if (p.kh, p.kw, p.sh, p.sw, p.dh, p.dw) != (3, 3, 1, 1, 1, 1):
        return f"3x3 windows at every pixel, not {p.kh}x{p.kw}, strides {p.sh, p.sw} and dilations {p.dh, p.dw}"
    if t.shared < SHARED:
        return f"needs {SHARED >> 10} KiB of shared memory a block, not {t.shared >> 10}"
    if max(p.ih_padded, p.iw_padded) >= 2**29 or p.oh * p.ow > MOST_PIXELS or _filters(p) * (POINTS + 9) >= 2**31:
        return "counts pixels and weights in 32 bits"
    if _blocks(p) > MOST_GRID[1]:
        return f"has at most {MOST_GRID[1]} blocks of output channels, not {_blocks(p)}"
    return None


def _blocks(p: Problem) -> int:
    """Of output channels, of all groups."""
    return p.g * parts(p.oc // p.g, CHANNELS)


def _filters(p: Problem) -> int:
    """Filters of one channel, and the zeros that fill blocks."""
    return _blocks(p) * CHANNELS * parts(p.ic // p.g, DEPTH) * DEPTH


def _plane(p: Problem) -> int:
    """Tiles of an image."""
    return parts(p.oh, 2) * parts(p.ow, 2)


def cost(p: Problem, t: Target) -> float:
    """Multiplications in whole blocks."""
    products = parts(p.n * _plane(p), TILES) * TILES * POINTS * _filters(p)
    return costs.cuda_gemm_seconds(p, products, t.bandwidth, t.fma * costs.CUDA_WINOGRAD_SHARE)


def most_kernels(t: Target) -> int:
    """Both layouts, both widths of places, and the kernel that packs."""
    return 5


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    name = "winograd_f32" + "_nhwc" * s.last + "_wide" * s.wide
    registers, blocks = (255, 1) if s.wide else (REGISTERS, BLOCKS)
    return Kernel(name, body, s, AT, (KIND, VALUES), EXTENTS, (THREADS, 1, 1), registers, shared=True, blocks=blocks)


def kernels(t: Target) -> tuple[Kernel, ...]:
    """All."""
    return (kernel_of(Spec(0, 0)), kernel_of(Spec(1, 0)), PACK, kernel_of(Spec(0, 1)), kernel_of(Spec(1, 1)))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan with weights packed as `pack_body` says."""
    icg, ocg, blocks, depths = p.ic // p.g, p.oc // p.g, _blocks(p), parts(p.ic // p.g, DEPTH)
    untransformed = _filters(p) * POINTS * SIZE

    def pack(p: Problem, wei: Any) -> Any:
        wei = on_device(wei, p.wei)
        filters = _filters(p)
        count = filters * (POINTS + 9)
        memory = Memory(count * SIZE, wei.device)
        launch = DriverLaunch(PACK, (parts(filters, _PACK_THREADS), 1, 1), (0, 0, untransformed, *wei.strides), (0,),
                              (filters, icg, ocg, blocks // p.g, depths), device=wei.device)  # fmt: skip
        launch(wei.stream, wei.address, memory.address)
        return DeviceArray(memory.address, (1, 1, 1, count), None, DTYPES[KIND], wei.stream, wei.device, memory)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        last = src.strides[1] == SIZE and p.ic > 1
        wide = p.ih * abs(src.strides[2]) + p.iw * abs(src.strides[3]) >= 2**31
        kernel = kernel_of(Spec(int(last), int(wide)))
        finish = parse_epilogue(p.epilogue)
        axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
        launches = []
        most = max(MOST_PIXELS // (p.oh * p.ow), 1)
        for n in range(0, p.n, most):
            tiles = min(most, p.n - n) * _plane(p)
            extents = (tiles, _plane(p), parts(p.ow, 2), p.oh, p.ow, icg, ocg, blocks // p.g, depths, p.pt, p.pl,
                       int(dst.strides[3] == SIZE), int(finish.bias), int(finish.activation is not None))  # fmt: skip
            launch = DriverLaunch(kernel, (parts(tiles, TILES), blocks, 1), (0, 0, 0, 0, *src.strides, *dst.strides, untransformed),
                                  finish_values(p, fill), (*extents, *axes), SHARED, src.device)  # fmt: skip
            launches.append((n * src.strides[0], n * dst.strides[0], launch))

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            addend = bias.address if bias is not None else 0
            for there, here, launch in launches:
                launch(src.stream, src.address + there, packed.address, addend, dst.address + here)

        return run

    name = kernel_of(Spec(int(p.src_layout == "nhwc" and p.ic > 1), 0)).name
    return Plan(problem=p, algorithm="winograd", kernel=name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare)
