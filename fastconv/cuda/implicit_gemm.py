"""implicit_gemm: many channels; weights times the matrix of pixels under each tap, which is never built.

A block's result is ``bm`` output channels at ``bn`` pixels of the batch, a thread's ``tm x tn`` of them.  Eight input channels under one
tap at a time are brought to shared memory, while the block multiplies the eight before; the border is looked at once for each tap.

Order of accumulation per output: from the bias; ``ky``; ``kx``; channel; every product fused.  It depends on nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, dtype_name, not_computed, parse_epilogue
from . import border
from .arrays import DeviceArray
from .compile import Kernel
from .copy import on_device
from .driver import MOST_GRID, Memory
from .driver import Launch as DriverLaunch
from .finish import SUMS, VALUES, cannot_finish, finish_values, finished, store_row
from .simd import SIZES, VECTOR
from .target import Target

CASES = (
    "ic9ih6iw7_oc20k3_p1_bias+relu", "n2_ic20ih5_oc40k1_nhwc_hwio", "g2_ic20ih6iw9_oc40k3_s2_p1_nhwc_hwio_bias",
    "n3_ic8ih7iw6_oc70k2_d2_p2_reflect", "ic12ih6iw5_oc130k1_f64", "ic10ih7iw9_oc33k3_p1_nhwc_hwio_f16:f16:f16:f32",
    "ic9ih6iw9_oc18k3_wrap_p2_u8:i8:i32:i32", "ic16ih9iw11_oc140kh1kw3_pw1_edge_f32",
)  # fmt: skip


class Tile(NamedTuple):
    """``bm`` output channels at ``bn`` pixels of a block, ``tm x tn`` of a thread, for sums of ``size`` bytes; what it may take."""

    size: int
    bm: int
    bn: int
    tm: int
    tn: int
    registers: int
    blocks: int  # on a multiprocessor, at least

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.bm * self.bn // (self.tm * self.tn)


# 64 sums of 4 bytes, 16 operands, the vectors on their way, addresses
TILES = (
    Tile(4, bm=128, bn=128, tm=8, tn=8, registers=128, blocks=2),
    Tile(4, bm=64, bn=128, tm=8, tn=8, registers=168, blocks=3),
    Tile(4, bm=32, bn=128, tm=4, tn=8, registers=128, blocks=4),
    Tile(8, bm=64, bn=64, tm=4, tn=4, registers=128, blocks=2),
)
DEPTH = 8  # input channels that are in shared memory at once, twice
MOST_PIXELS = 2**30  # of one launch


class Spec(NamedTuple):
    """What a kernel is compiled for; ``last``: channels are dense in memory, else pixels of a row are."""

    src: str
    acc: str
    dst: str
    rounding: str
    tile: Tile
    last: int


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "dn", "dc", "dy", "dx")
EXTENTS = (
    "pixels", "plane", "ow", "icg", "ocg", "blocks", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl", "depths", "dense", "line", "biased",
    "activated", *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip
_AXES = {name: tuple(f"{name}_{field}" for field in border.FIELDS) for name in "yx"}


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, o, oy, ox] = finish(bias[o] + sum_{ky, kx, c} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[o, c, ky, kx])``.

    Weights lie as `pack_body` puts them.  Pixels ``q`` of a block are those of the batch in the order ``(n, oy, ox)``; beyond the last
    one the last is computed again and not stored.  Shared memory: two buffers, each ``[DEPTH][bm]`` weights and ``[DEPTH][bn]`` pixels.
    """
    Block(e, s, at, v, x).run()


class Block:
    """One thread's part of a block: what it fetches, multiplies and stores."""

    def __init__(self, e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
        self.e, self.s, self.at, self.v, self.x = e, s, at, v, x
        tile = s.tile
        self.kind = SUMS[s.acc]
        self.size = SIZES[self.kind]
        self.vector = VECTOR // self.size
        self.buffer = DEPTH * (tile.bm + tile.bn) * self.size
        self.t = e.thread("x")
        self.group, self.part = e.block("y") // x.blocks, e.block("y") % x.blocks
        self.first = e.block("x") * tile.bn
        # a thread fetches `count` channels of each of some pixels
        self.columns = min(tile.threads, tile.bn)
        self.count = DEPTH * self.columns // tile.threads
        self.channel = self.t // self.columns * self.count

    def run(self) -> None:
        """Fetch ahead, multiply, store."""
        e, s, x = self.e, self.s, self.x
        tile = s.tile
        pixels = range(0, tile.bn, self.columns)
        weights = self.at.wei + e.i64(e.block("y")) * self.step_bytes * (x.depths * x.kh * x.kw)
        weights = weights + e.i64(self.t * (tile.bm * DEPTH // tile.threads * self.size))
        zero = e.i32(0)
        place = [zero, zero, zero, weights, *self.under(pixels, zero, zero)]
        held = len(place)
        fetched = self.fetch(place)
        self.keep(0, fetched)
        e.barrier()
        many = len(fetched)

        def step(n: Any, values: list[Any]) -> list[Any]:
            sums = values[held + many :]

            def ahead(values: list[Any]) -> list[Any]:
                place = self.next(values[:held], pixels)
                return [*place, *self.fetch(place)]

            following = e.when(n + 1 < x.depths * x.kh * x.kw, values[: held + many], ahead)
            sums = self.multiply((n % 2) * self.buffer, sums)
            self.keep((n + 1) % 2 * self.buffer, following[held:])
            e.barrier()
            return [*following, *sums]

        done = e.loop(x.depths * x.kh * x.kw, [*place, *fetched, *self.started()], step)
        self.store(done[held + many :])

    @property
    def step_bytes(self) -> int:
        """Of the weights of one step."""
        return self.s.tile.bm * DEPTH * self.size

    def pixel(self, column: Any) -> tuple[Any, Any, Any]:
        """(address of its image's first channel that this thread fetches, row, column) under the first tap, of a pixel of the block."""
        e, at, x = self.e, self.at, self.x
        q = e.least(self.first + column, x.pixels - 1)
        n, rest = q // x.plane, q % x.plane
        oy, ox = rest // x.ow, rest % x.ow
        return at.src + at.sn * n + at.sc * (self.group * x.icg + self.channel), oy * x.sh - x.pt, ox * x.sw - x.pl

    def under(self, pixels: Any, ky: Any, kx: Any) -> list[Any]:
        """The addresses of the pixels under a tap; 0 in the constant border.

        Where the pixels lie is found again for each tap: 4 registers a pixel are better used (sm_75: 40 bytes of spills without).
        """
        e, at, x = self.e, self.at, self.x
        found = []
        for first in pixels:
            image, y, column = self.pixel(self.e.anew(self.t % self.columns + first))
            row = border.mapped(e, tuple(getattr(x, name) for name in _AXES["y"]), y + ky * x.dh)
            column = border.mapped(e, tuple(getattr(x, name) for name in _AXES["x"]), column + kx * x.dw)
            place = image + at.sy * e.most(row, 0) + at.sx * e.most(column, 0)
            found.append(e.pick((row < 0) | (column < 0), e.i64(0), place))
        return found

    def next(self, place: list[Any], pixels: Any) -> list[Any]:
        """The place of the following step: (channels done, ky, kx, address of weights, addresses of pixels)."""
        e, x = self.e, self.x
        done, ky, kx, weights, *addresses = place
        done, weights = done + DEPTH, weights + self.step_bytes

        def further(values: list[Any]) -> list[Any]:
            done, ky, kx, *addresses = values
            return [done, ky, kx, *(e.pick(a < 1, a, a + self.at.sc * DEPTH) for a in addresses)]

        def tap(values: list[Any]) -> list[Any]:
            _, ky, kx, *_ = values
            end = kx + 1 >= x.kw
            ky, kx = e.pick(end, ky + 1, ky), e.pick(end, 0, kx + 1)
            return [e.i32(0), ky, kx, *self.under(pixels, ky, kx)]

        done, ky, kx, *addresses = e.when(done < x.icg, [done, ky, kx, *addresses], further, tap)
        return [done, ky, kx, weights, *addresses]

    def fetch(self, place: list[Any]) -> list[Any]:
        """The thread's weights and pixels of a step, in registers."""
        e, s = self.e, self.s
        done, _, _, weights, *addresses = place
        found = e.load(self.kind, self.kind, weights, s.tile.bm * DEPTH // s.tile.threads)
        left = self.x.icg - done - self.channel
        for address in addresses:
            found += e.when(address > 0, [self.v.fill] * self.count, self.reader(address, left))
        # channels beyond the last have weights of zero; what meets these must be finite
        start = s.tile.bm * DEPTH // s.tile.threads
        zero = e.number(self.kind, 0)
        return found[:start] + [e.pick(left > n % self.count, value, zero) for n, value in enumerate(found[start:])]

    def reader(self, address: Any, left: Any) -> Any:
        """What loads ``count`` channels of a pixel, of which ``left`` exist."""
        e, s, at = self.e, self.s, self.at
        width = SIZES[s.src] * min(self.count, VECTOR // SIZES[s.src])

        def singly(_: list[Any]) -> list[Any]:
            # addresses one behind the other take fewer registers than products of the stride
            found, place = [], address + at.sc * e.least(left - 1, 0)
            for n in range(self.count):
                found += e.load(s.src, self.kind, place, 1)
                place = e.pick(left > n + 1, place + at.sc, place)
            return found

        def whole(_: list[Any]) -> list[Any]:
            return e.load(s.src, self.kind, address, self.count)

        def read(values: list[Any]) -> list[Any]:
            if not s.last:
                return singly(values)
            return e.when((left >= self.count) & (e.below(address, width) < 1), values, whole, singly)

        return read

    def keep(self, buffer: Any, fetched: list[Any]) -> None:
        """Put what was fetched into shared memory."""
        e, tile = self.e, self.s.tile
        start = tile.bm * DEPTH // tile.threads
        base = e.shared() + buffer
        e.shared_store(self.kind, base + self.t * (start * self.size), fetched[:start])
        base = base + DEPTH * tile.bm * self.size
        for n, value in enumerate(fetched[start:]):
            j, k = n // self.count, n % self.count
            place = (self.channel + k) * tile.bn + self.t % self.columns + j * tile.threads
            e.shared_store(self.kind, base + place * self.size, [value])

    def fragment(self, base: Any, extent: int, own: Any, count: int, block: int) -> list[Any]:
        """``count`` operands of a thread: vectors at multiples of ``block / (count / vector)``."""
        apart = block // (count // self.vector)
        return [
            value
            for part in range(count // self.vector)
            for value in self.e.shared_load(self.kind, base + (part * apart + own * self.vector) * self.size, self.vector)
        ]

    def multiply(self, buffer: Any, sums: list[Any]) -> list[Any]:
        """The products of the channels in a buffer."""
        e, tile = self.e, self.s.tile
        across = tile.bn // tile.tn
        sums = list(sums)
        for k in range(DEPTH):
            base = e.shared() + buffer
            wei = self.fragment(base + k * tile.bm * self.size, tile.bm, self.t // across, tile.tm, tile.bm)
            src = self.fragment(base + (DEPTH * tile.bm + k * tile.bn) * self.size, tile.bn, self.t % across, tile.tn, tile.bn)
            for i, weight in enumerate(wei):
                for j, pixel in enumerate(src):
                    sums[i * tile.tn + j] = e.fma(pixel, weight, sums[i * tile.tn + j])
        return sums

    def places(self, count: int, block: int, own: Any) -> list[Any]:
        """What `fragment`'s operands stand for, counted from the block's first."""
        apart = block // (count // self.vector)
        return [part * apart + own * self.vector + n for part in range(count // self.vector) for n in range(self.vector)]

    def started(self) -> list[Any]:
        """The sums' start."""
        e, x, tile = self.e, self.x, self.s.tile
        sums = []
        for o in self.places(tile.tm, tile.bm, self.t // (tile.bn // tile.tn)):
            o = self.part * tile.bm + o

            def read(_: list[Any], o: Any = o) -> list[Any]:
                place = e.i64(self.group * x.ocg + e.least(o, x.ocg - 1))
                return e.load(self.kind, self.kind, self.at.bias + place * self.size, 1)

            (start,) = e.when(x.biased > 0, [e.number(self.kind, 0)], read)
            sums += [start] * tile.tn
        return sums

    def store(self, sums: list[Any]) -> None:
        """Finish and store the thread's sums."""
        e, s, at, x = self.e, self.s, self.at, self.x
        tile, vector = s.tile, self.vector
        across = tile.bn // tile.tn
        sums = [value for i in range(tile.tm) for value in finished(e, s.acc, s.dst, s.rounding, x.activated, self.v,
                                                                    sums[i * tile.tn : (i + 1) * tile.tn])]  # fmt: skip
        channels = [self.part * tile.bm + o for o in self.places(tile.tm, tile.bm, self.t // across)]
        pixels = [self.first + q for q in self.places(tile.tn, tile.bn, self.t % across)]
        lines = []
        for q in pixels:
            q = e.least(q, x.pixels - 1)
            rest = q % x.plane
            lines.append(at.dst + at.dn * (q // x.plane) + at.dy * (rest // x.ow) + at.dx * (rest % x.ow) + at.dc * (self.group * x.ocg))

        def alone(i: int, j: int) -> None:
            def one(nothing: list[Any]) -> list[Any]:
                e.store(s.dst, lines[j] + at.dc * channels[i], [sums[i * tile.tn + j]])
                return nothing

            e.when((pixels[j] < x.pixels) & (channels[i] < x.ocg), [], one)

        # results that are adjacent in memory, if they are dense and all exist: channels of a pixel or pixels of a line, which is a row,
        # or a plane where rows follow one another
        for i in range(0, tile.tm, vector if s.last else 1):
            for j in range(0, tile.tn, 1 if s.last else vector):
                if s.last:
                    places, left = [(i + n, j) for n in range(vector)], x.ocg - channels[i]
                    exist = (x.dense > 0) & (pixels[j] < x.pixels)
                else:
                    places, left = [(i, j + n) for n in range(vector)], e.i32(vector)
                    exist = (pixels[j] % x.line + vector <= x.line) & (pixels[j] + vector <= x.pixels)
                    exist = (x.dense > 0) & exist & (channels[i] < x.ocg)

                def together(nothing: list[Any], places: Any = places, left: Any = left) -> list[Any]:
                    i, j = places[0]
                    values = [sums[i * tile.tn + j] for i, j in places]
                    store_row(e, s.dst, lines[j] + at.dc * channels[i], values, left)
                    return nothing

                def singly(nothing: list[Any], places: Any = places) -> list[Any]:
                    for i, j in places:
                        alone(i, j)
                    return nothing

                e.when(exist, [], together, singly)


PACK_AT = ("wei", "packed", "wo", "wc", "wy", "wx")
PACK_EXTENTS = ("count", "icg", "ocg", "kh", "kw", "blocks", "depths")
_PACK_THREADS = 256


def pack_body(e: Any, spec: tuple[str, str, int], at: Any, v: Any, x: Any) -> None:
    """``packed[g][ocg / bm][ky][kx][icg / DEPTH][c % DEPTH][o % bm]``, zeros beyond the last channels; one element a thread."""
    stored, kind, bm = spec
    place = e.block("x") * _PACK_THREADS + e.thread("x")

    def one(nothing: list[Any]) -> list[Any]:
        rest, lane = place // bm, place % bm
        rest, deep = rest // DEPTH, rest % DEPTH
        rest, depth = rest // x.depths, rest % x.depths
        rest, kx = rest // x.kw, rest % x.kw
        rest, ky = rest // x.kh, rest % x.kh
        group, block = rest // x.blocks, rest % x.blocks
        o, c = block * bm + lane, depth * DEPTH + deep

        def read(_: list[Any]) -> list[Any]:
            return e.load(stored, kind, at.wei + at.wo * (group * x.ocg + o) + at.wc * c + at.wy * ky + at.wx * kx, 1)

        value = e.when((o < x.ocg) & (c < x.icg), [e.number(kind, 0)], read)
        e.store(kind, at.packed + e.i64(place) * SIZES[kind], value)
        return nothing

    e.when(place < x.count, [], one)


def pack_kernel(stored: str, kind: str, bm: int) -> Kernel:
    """The kernel that packs weights for blocks of ``bm`` output channels."""
    return Kernel(f"implicit_gemm_pack_{stored}_{kind}_{bm}", pack_body, (stored, kind, bm), PACK_AT, ("i32", ("unused",)), PACK_EXTENTS,
                  (_PACK_THREADS, 1, 1), 48, vectors=False, fused=False)  # fmt: skip


def _parts(extent: int, size: int) -> int:
    return -(-extent // size)


def _tile(p: Problem) -> Tile:
    """The tile of the fewest multiplications, those that are wasted included; ties go to the earlier."""
    fitting = [tile for tile in TILES if tile.size == SIZES[SUMS[p.acc]]] or [tile for tile in TILES if tile.size == 8]
    return min(fitting, key=lambda tile: _parts(p.oc // p.g, tile.bm) * tile.bm)


def _packed_elements(p: Problem, tile: Tile) -> int:
    return p.g * _parts(p.oc // p.g, tile.bm) * tile.bm * _parts(p.ic // p.g, DEPTH) * DEPTH * p.kh * p.kw


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real; what is counted fits 32 bits."""
    reason = not_computed(p, "fwd", roundings=(None, "saturate", "half_up")) or cannot_finish(p)
    if reason is not None:
        return reason
    blocks = p.g * _parts(p.oc // p.g, _tile(p).bm)
    if max(p.ih_padded, p.iw_padded) >= 2**29 or p.oh * p.ow > MOST_PIXELS or _packed_elements(p, _tile(p)) >= 2**31:
        return "counts pixels and weights in 32 bits"
    if blocks > MOST_GRID[1]:
        return f"has at most {MOST_GRID[1]} blocks of output channels, not {blocks}"
    return None


def cost(p: Problem, t: Target) -> float:
    """Multiplications in whole tiles."""
    tile = _tile(p)
    padded = p.n * _parts(p.oh * p.ow, 1) * p.g * _parts(p.oc // p.g, tile.bm) * tile.bm * _parts(p.ic // p.g, DEPTH) * DEPTH
    return costs.cuda_gemm_seconds(p, padded * p.kh * p.kw, t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each type: tiles, in both layouts, and the kernels that pack for them."""
    return 3 * sum(tile.size == 4 for tile in TILES)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    types = "_".join(filter(None, (s.src, s.acc, s.dst, s.rounding)))
    name = f"implicit_gemm_{types}_{s.tile.bm}x{s.tile.bn}" + "_nhwc" * s.last
    return Kernel(name, body, s, AT, (SUMS[s.acc], VALUES), EXTENTS, (s.tile.threads, 1, 1), s.tile.registers, shared=True,
                  blocks=s.tile.blocks, fused=s.acc[0] == "f")  # fmt: skip


def _spec(p: Problem, last: bool) -> Spec:
    return Spec(p.src, p.acc, p.dst, parse_epilogue(p.epilogue).rounding or "", _tile(p), int(last))


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases, which every test of machine code compiles."""
    found = []
    for case in CASES:
        p = Problem.parse(case)
        found += [kernel_of(_spec(p, p.src_layout == "nhwc")), pack_kernel(p.wei, SUMS[p.acc], _tile(p).bm)]
    return tuple(dict.fromkeys(found))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan with weights packed as `pack_body` says."""
    tile = _tile(p)
    blocks, depths = _parts(p.oc // p.g, tile.bm), _parts(p.ic // p.g, DEPTH)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        last = src.strides[1] == SIZES[p.src] and p.ic > 1
        dense = dst.strides[1 if last else 3] == SIZES[p.dst]
        plane = p.oh * p.ow
        line = plane if dst.strides[2] == p.ow * dst.strides[3] else p.ow
        finish, s = parse_epilogue(p.epilogue), _spec(p, last)
        axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
        launches = []
        most = max(MOST_PIXELS // plane, 1)
        for n in range(0, p.n, most):
            pixels = min(most, p.n - n) * plane
            extents = (pixels, plane, p.ow, p.ic // p.g, p.oc // p.g, blocks, p.kh, p.kw, p.sh, p.sw, p.dh, p.dw, p.pt, p.pl, depths,
                       int(dense), line, int(finish.bias), int(finish.activation is not None))  # fmt: skip
            launch = DriverLaunch(kernel_of(s), (_parts(pixels, tile.bn), p.g * blocks, 1), (0, 0, 0, 0, *src.strides, *dst.strides),
                                  finish_values(p, fill), (*extents, *axes), shared_bytes(tile), src.device)  # fmt: skip
            launches.append((n * src.strides[0], n * dst.strides[0], launch))

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            addend = bias.address if bias is not None else 0
            for there, here, launch in launches:
                launch(src.stream, src.address + there, packed.address, addend, dst.address + here)

        return run

    def pack(p: Problem, wei: Any) -> Any:
        wei = on_device(wei, p.wei)
        kind, count = SUMS[p.acc], _packed_elements(p, tile)
        memory = Memory(count * SIZES[kind], wei.device)
        launch = DriverLaunch(pack_kernel(dtype_name(wei.dtype), kind, tile.bm), (_parts(count, _PACK_THREADS), 1, 1), (0, 0, *wei.strides),
                              (0,), (count, p.ic // p.g, p.oc // p.g, p.kh, p.kw, blocks, depths), device=wei.device)  # fmt: skip
        launch(wei.stream, wei.address, memory.address)
        return DeviceArray(memory.address, (1, 1, 1, count), None, DTYPES[kind], wei.stream, wei.device, memory)

    return Plan(problem=p, algorithm="implicit_gemm", kernel=kernel_of(_spec(p, p.src_layout == "nhwc")).name, cost=cost(p, t),
                pack_weights=pack, prepare_launch=prepare)  # fmt: skip


def shared_bytes(tile: Tile) -> int:
    """Of a block's two buffers."""
    return 2 * DEPTH * (tile.bm + tile.bn) * tile.size
