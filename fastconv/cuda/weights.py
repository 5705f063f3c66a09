"""weights: the gradient of weights: products of the result's gradient and the image, cut into parts of all pixels, whose sums are added.

A block's sums are ``bm`` output channels at ``bn`` columns, which are a channel under a tap, over a part of the pixels ``(n, oy, ox)``.
Eight pixels at a time are brought to shared memory, while the block multiplies those before; every thread has one of them: of four
channels or, where they lie side by side in whole vectors, of four times four.  Sums of parts go to device memory in the type of sums; a
second kernel adds them up.

Order of accumulation per output: in each part pixel after pixel, every product fused; then the parts, see added.py.  Parts are made of
the problem's extents alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import card_cost
from ..planning.plans import Launch, Plan
from ..planning.problem import Problem
from . import border, plain
from .added import add_kernel, adding, cannot_add
from .arithmetic import SIZES
from .compile import Kernel
from .driver import MOST_GRID, Memory, parts
from .driver import Launch as DriverLaunch
from .finish import SUMS, finish_values
from .gemm_block import DEPTH, Tile
from .products import Products
from .simd import VECTOR
from .target import LANES, Target

CASES = (
    "n2_ic16ih7_oc40k3_s2_p1_bwd-weight_nhwc_hwio", "n2_ic5ih6iw9_oc7k3_p1_bwd-weight", "g2_ic6ih5iw7_oc4k3_p1_reflect_bwd-weight",
    "n2_g2_ic2ih7iw6_oc2k2_s2_d2_p2_wrap_f64_bwd-weight", "n3_ic8ih5iw7_oc9k1_bwd-weight_nhwc_bf16:bf16:bf16:f32",
    "ic3ih40iw60_oc33kh3kw5_p2_bwd-weight", "n2_ic130ih5_oc12k1_bwd-weight", "n2_ic4ih6iw9_oc8k3_p1_bwd-weight_nhwc_u8:i8:i16:i16",
    "n2_ic3ih9iw7_oc5k3_s2_p1_edge_f16:f16:f16:f32_bwd-weight", "g3_ic12ih6iw5_oc12k3_p1_nhwc_f64_bwd-weight",
    "n2_ic32ih4iw7_oc64k2_bwd-weight", "ic32ih5_oc64k2_nhwc_hwio_bwd-weight",
)  # fmt: skip
TILES = (
    Tile(4, bm=64, bn=128, tm=8, tn=8, registers=168, blocks=3),
    Tile(4, bm=32, bn=128, tm=4, tn=8, registers=128, blocks=4),
    Tile(4, bm=64, bn=32, tm=4, tn=4, registers=96, blocks=5),
    Tile(8, bm=32, bn=64, tm=4, tn=4, registers=128, blocks=4),
)
_THREADS = 128  # of every tile's block
_SLOTS = _THREADS // DEPTH  # that threads of one pixel have
_WIDE = 4  # channels of a thread where they are whole vectors
_PART = 1024  # pixels, at least
_BLOCKS = 512  # that are wanted, of all parts
_MOST_PARTS = 1024
_PLACE = 16  # bytes of what is known of a column


class Spec(NamedTuple):
    """What a kernel is compiled for; ``wide``: of the image and of the gradient, whether channels are whole vectors side by side."""

    src: str
    wei: str
    acc: str
    tile: Tile
    wide: tuple[int, int]


AT = ("src", "wei", "sums", "sn", "sc", "sy", "sx", *(f"w{axis}" for axis in "nchw"))
EXTENTS = (
    "n", "icg", "ocg", "oh", "ow", "columns", "rows", "pitch", "blocks", "part", "pixels", "step_n", "step_y", "step_x",
    "kw", "sh", "sw", "dh", "dw", "pt", "pl",
    *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


class Block(Products):
    """One thread's part of a block.

    Shared memory holds two buffers, each ``[DEPTH][pitch_m]`` of the gradient and ``[DEPTH][pitch_n]`` of the image, a row for each pixel,
    and of each column ``(offset of its channel, ky dh, kx dw)``.  Rows are so far apart that 8 pixels of 4 columns, or of 4 vectors, are
    in 32 banks.
    """

    def __init__(self, e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
        self.e, self.s, self.at, self.v, self.x = e, s, at, v, x
        tile = s.tile
        self.kind = SUMS[s.acc]
        self.size = SIZES[self.kind]
        self.pitch_n, self.pitch_m = (block + (16 if wide else 4) for block, wide in zip((tile.bn, tile.bm), s.wide, strict=True))
        self.buffer = buffer_bytes(s)
        self.t = e.thread("x")
        self.group, self.part = e.block("y") // x.blocks, e.block("y") % x.blocks
        self.pixel, self.slot = self.t % LANES // 4, self.t % 4 + self.t // LANES * 4
        self.rows, self.columns = self.places()

    def run(self) -> None:
        """Fetch ahead, multiply, store."""
        e, x = self.e, self.x
        e.when(self.t < self.s.tile.bn, [], self.place_column)
        first = e.block("z") * x.part
        end = e.least(first + x.part, x.pixels)
        q = first + self.pixel
        place = [q, q // (x.oh * x.ow), q // x.ow % x.oh, q % x.ow]
        held = len(place)
        e.barrier()
        self.keep(e.i32(0), place, end, self.fetch(place))
        e.barrier()

        def step(n: Any, values: list[Any]) -> list[Any]:
            # after the last step some pixel is fetched that nothing multiplies: a branch around loads would wait for them
            place = self.next(values[:held])
            fetched = self.fetch(place)
            sums = self.multiply(n % 2 * self.buffer, values[held:])
            self.keep((n + 1) % 2 * self.buffer, place, end, fetched)
            e.barrier()
            return [*place, *sums]

        steps = (end - first + (DEPTH - 1)) // DEPTH
        sums = [e.number(self.kind, 0)] * (self.s.tile.tm * self.s.tile.tn)
        self.store(e.loop(steps, [*place, *sums], step)[held:])

    def place_column(self, nothing: list[Any]) -> list[Any]:
        """Tell all threads of the thread's column; beyond the last of that, or of the first of the last vector."""
        e, x = self.e, self.x
        column = e.least(e.block("x") * self.s.tile.bn + self.t, x.columns - (_WIDE if self.s.wide[0] else 1))
        tap, c = column // x.icg, column % x.icg
        place = e.shared() + 2 * self.buffer + self.t * _PLACE
        e.shared_store("i64", place, [self.at.sc * c])
        e.shared_store("i32", place + 8, [tap // x.kw * x.dh, tap % x.kw * x.dw])
        return nothing

    def next(self, place: list[Any]) -> list[Any]:
        """(number, image, row, column) of the pixel ``DEPTH`` further on, without a division."""
        e, x = self.e, self.x
        q, n, oy, ox = place
        ox, oy, n = ox + x.step_x, oy + x.step_y, n + x.step_n
        ox, oy = e.pick(ox < x.ow, ox, ox - x.ow), e.pick(ox < x.ow, oy, oy + 1)
        oy, n = e.pick(oy < x.oh, oy, oy - x.oh), e.pick(oy < x.oh, n, n + 1)
        return [q + DEPTH, n, oy, ox]

    def slots(self, operand: int) -> list[tuple[Any, int]]:
        """The thread's channels of an operand, 0 the image and 1 the gradient: the first of each, how many; threads may have the same."""
        block, width = (self.s.tile.bn, self.s.tile.bm)[operand], _WIDE if self.s.wide[operand] else 1
        many = block // width
        slot = self.slot % many if many < _SLOTS else self.slot
        return [((slot + first) * width, width) for first in range(0, many, _SLOTS)]

    def fetch(self, place: list[Any]) -> list[Any]:
        """The thread's pixels of a step, on their way to registers, each behind whether it is inside the image; of the last image
        beyond it.
        """
        e, s, at, x = self.e, self.s, self.at, self.x
        _, n, oy, ox = place
        n = e.least(n, x.n - 1)
        image = at.src + at.sn * n + at.sc * (self.group * x.icg)
        top, left = oy * x.sh - x.pt, ox * x.sw - x.pl
        found = []
        for column, width in self.slots(0):
            known = e.shared() + 2 * self.buffer + column * _PLACE
            (offset,), (dy, dx) = e.shared_load("i64", known, 1), e.shared_load("i32", known + 8, 2)
            row, line = top + dy, left + dx
            outside = (row < 0) | (row >= x.y_inside) | (line < 0) | (line >= x.x_inside)

            def behind(values: list[Any]) -> list[Any]:
                return [border.mapped(e, x, "y", values[0]), border.mapped(e, x, "x", values[1])]

            row, line = e.when(outside, [row, line], behind)
            address = image + offset + at.sy * e.most(row, 0) + at.sx * e.most(line, 0)
            found += [(row >= 0) & (line >= 0), *e.load(s.src, self.kind, address, width)]
        gradient = at.wei + at.wn * n + at.wh * oy + at.ww * ox + at.wc * (self.group * x.ocg)
        for channel, width in self.slots(1):
            o = self.part * s.tile.bm + channel
            o = e.least(o, x.ocg - width)
            found += e.load(s.wei, self.kind, gradient + at.wc * o, width)
        return found

    def keep(self, buffer: Any, place: list[Any], end: Any, fetched: list[Any]) -> None:
        """Put what was fetched from a place into shared memory; zeros beyond the part's last pixel."""
        e = self.e
        exists, zero, fetched = place[0] < end, e.number(self.kind, 0), list(fetched)
        base = e.shared() + buffer + self.pixel * (self.pitch_m * self.size)
        image = e.shared() + buffer + (self.pixel * self.pitch_n + DEPTH * self.pitch_m) * self.size
        for column, width in self.slots(0):
            inside, *values = fetched[: width + 1]
            del fetched[: width + 1]
            values = [e.pick(exists, e.pick(inside, value, self.v.fill), zero) for value in values]
            e.shared_store(self.kind, image + column * self.size, values)
        for channel, width in self.slots(1):
            values, fetched = fetched[:width], fetched[width:]
            e.shared_store(self.kind, base + channel * self.size, [e.pick(exists, value, zero) for value in values])

    def store(self, sums: list[Any]) -> None:
        """Store the part's sums, whole vectors; rows and columns beyond the last are not read."""
        e, x, tile, vector = self.e, self.x, self.s.tile, VECTOR // self.size
        row = e.block("z") * x.rows + (self.group * x.blocks + self.part) * tile.bm
        column = e.block("x") * tile.bn
        for i in range(tile.tm):
            line = self.at.sums + (e.i64(row + self.rows[i]) * x.pitch + column) * self.size
            for j in range(0, tile.tn, vector):
                own = slice(i * tile.tn + j, i * tile.tn + j + vector)
                e.store(self.kind, line + self.columns[j] * self.size, sums[own])


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``sums[part][g][o][ky][kx][c] = sum_{n, oy, ox} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[n, o, oy, ox]``, ``rows`` of a
    part, each ``pitch`` columns, of ``part`` pixels.
    """
    Block(e, s, at, v, x).run()


def buffer_bytes(s: Spec) -> int:
    """Of eight pixels of both operands."""
    return DEPTH * (s.tile.bm + s.tile.bn + sum(16 if wide else 4 for wide in s.wide)) * s.tile.size


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of real weights, nothing behind it; sums and their parts are counted in 32 bits."""
    reason = cannot_add(p)
    if reason is not None:
        return reason
    if plain.reject(p, t) is not None:
        return plain.reject(p, t)  # which counts no further
    tile, count = best_tile(p), parts_of(p)[1]
    rows, pitch = _padded(p, tile)
    if p.n * p.oh * p.ow + DEPTH * _PART >= 2**31 or rows * pitch * count >= 2**31 or p.g * parts(p.oc // p.g, tile.bm) > MOST_GRID[1]:
        return "counts pixels and sums in 32 bits, and blocks of output channels in 16"
    return None


def _padded(p: Problem, tile: Tile) -> tuple[int, int]:
    """Rows of all groups and columns in whole blocks."""
    return p.g * parts(p.oc // p.g, tile.bm) * tile.bm, parts(p.taps, tile.bn) * tile.bn


def best_tile(p: Problem) -> Tile:
    """The tile of the fewest multiplications, those that are wasted included, and loads of shared memory for them."""
    size = SIZES[SUMS[p.acc]]

    def work(tile: Tile) -> float:
        rows, columns = _padded(p, tile)
        return rows * columns * (1 + (tile.tm + tile.tn) / (tile.tm * tile.tn))

    return min((tile for tile in TILES if tile.size == size), key=work)


def parts_of(p: Problem) -> tuple[int, int]:
    """Pixels of a part, and parts: enough for `_BLOCKS` blocks, of at least `_PART` pixels."""
    tile, pixels = best_tile(p), p.n * p.oh * p.ow
    rows, columns = _padded(p, tile)
    blocks = rows // tile.bm * (columns // tile.bn)
    wanted = min(max(_BLOCKS // blocks, 1), parts(pixels, _PART), _MOST_PARTS)
    each = parts(parts(pixels, wanted), DEPTH) * DEPTH
    return each, parts(pixels, each)


def cost(p: Problem, t: Target) -> float:
    """Multiplications in whole tiles, and the sums' way to memory and back."""
    rows, columns = _padded(p, best_tile(p))
    each, count = parts_of(p)
    return card_cost.weights_seconds(p, rows * columns * each * count, 2 * rows * columns * count * SIZES[SUMS[p.acc]], t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each type: tiles, with channels in vectors or not, of either operand; the one that adds parts."""
    return 4 * max(sum(tile.size == size for tile in TILES) for size in (4, 8)) + 1


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    tile = s.tile
    name = "_".join(("weights", s.src, s.wei, s.acc, f"{tile.bm}x{tile.bn}")) + "_wide_src" * s.wide[0] + "_wide_wei" * s.wide[1]
    vectors = any(wide and SIZES[stored] >= 4 for wide, stored in zip(s.wide, (s.src, s.wei), strict=True))
    return Kernel(name, body, s, AT, (SUMS[s.acc], ("fill",)), EXTENTS, (_THREADS, 1, 1), tile.registers, shared=True, blocks=tile.blocks,
                  vectors=vectors, fused=s.acc[0] == "f")  # fmt: skip


def _spec(p: Problem, wide: tuple[int, int]) -> Spec:
    return Spec(p.src, p.wei, p.acc, best_tile(p), wide)


def _whole(p: Problem) -> tuple[int, int]:
    """Of either operand, whether a layout of channels side by side holds whole vectors."""
    last = p.src_layout == "nhwc"
    return int(last and p.ic // p.g % _WIDE == 0), int(last and p.oc // p.g % _WIDE == 0)


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases."""
    found = []
    for p in map(Problem.parse, CASES):
        found += [kernel_of(_spec(p, _whole(p))), add_kernel(p.acc, p.dst)]
    return tuple(dict.fromkeys(found))


def _wide(array: Any, channels: int) -> int:
    """Whether so many channels of an array are whole vectors, wherever a pixel is."""
    size = array.dtype.itemsize
    step = min(_WIDE * size, VECTOR)
    together = array.strides[1] == size and channels % _WIDE == 0
    return int(together and all(stride % step == 0 for axis, stride in enumerate(array.strides) if axis != 1))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan that packs nothing: the gradient of the result takes the weights' place."""
    tile, (each, count), size = best_tile(p), parts_of(p), SIZES[SUMS[p.acc]]
    rows, pitch = _padded(p, tile)
    icg, ocg = p.ic // p.g, p.oc // p.g
    blocks = rows // tile.bm // p.g
    workspace = count * rows * pitch * size

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        extents = (
            p.n, icg, ocg, p.oh, p.ow, p.taps, rows, pitch, blocks, each, p.n * p.oh * p.ow,
            DEPTH // (p.oh * p.ow), DEPTH // p.ow % p.oh, DEPTH % p.ow, p.kw, p.sh, p.sw, p.dh, p.dw, p.pt, p.pl,
            *border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl),
        )  # fmt: skip
        grid = (pitch // tile.bn, p.g * blocks, count)
        values = finish_values(p, fill)[:1]
        wide = _wide(src, icg), _wide(packed, ocg)
        launches = {}
        for kind in {wide, (0, 0)}:
            s = _spec(p, kind)
            shared = 2 * buffer_bytes(s) + tile.bn * _PLACE
            launches[kind] = DriverLaunch(kernel_of(s), grid, (0, 0, 0, *src.strides, *packed.strides), values, extents, shared, src.device)
        add = adding(p, (p.oc, ocg, rows // p.g), (p.taps, icg, pitch), count, rows * pitch * size, dst)

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            memory = Memory(workspace, src.device, src.stream)
            aligned = all(not kind or array.address % VECTOR == 0 for kind, array in zip(wide, (src, packed), strict=True))
            launches[wide if aligned else (0, 0)](src.stream, src.address, packed.address, memory.address)
            add(src.stream, memory.address, dst.address)

        return run

    return Plan(problem=p, algorithm="weights", kernel=kernel_of(_spec(p, _whole(p))).name, cost=cost(p, t), workspace=workspace,
                pack_weights=plain.packed_weights, prepare_launch=prepare)  # fmt: skip
