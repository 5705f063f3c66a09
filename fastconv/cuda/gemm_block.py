"""gemm_block: what the algorithms for many channels share: blocks of products over pixels that are never brought into a matrix.

A block's result is ``bm`` output channels at ``bn`` pixels of the batch.  Eight input channels under one tap at a time are brought to
shared memory, or 16 of factors of 16 bits, two in a word; meanwhile the block multiplies those before.  The border is looked at once for
each tap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, dtype_name, not_computed, parse_epilogue
from . import border
from .addends import finishing
from .arithmetic import SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .copy import on_device
from .driver import MOST_GRID, Memory, parts
from .driver import Launch as DriverLaunch
from .finish import SUMS, Results, addresses, cannot_finish, finish_values, tail_of, unknown
from .simd import VECTOR

DEPTH = 8  # words of input channels that are in shared memory at once, twice
MOST_PIXELS = 2**30  # of one launch
# channels are planes; or side by side; or so that each thread's are whole vectors
PLANES, DENSE, VECTORS = 0, 1, 2


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


class Spec(NamedTuple):
    """What a kernel is compiled for; ``last``: how channels lie in memory, `PLANES`, `DENSE` or `VECTORS`; ``factor``: the type that is
    multiplied, where it is not that of sums: ``f16`` or ``bf16``, two channels to a word.
    """

    src: str
    acc: str
    dst: str
    rounding: str
    tile: Tile
    last: int
    factor: str = ""
    tail: str = ""  # see `finish.tail_of`


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "dn", "dc", "dy", "dx")
EXTENTS = (
    "pixels", "plane", "ow", "icg", "ocg", "blocks", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl", "depths", "dense", "line", "biased",
    "activated", *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


class Block:
    """One thread's part of a block: what it fetches, keeps in shared memory and stores; `multiply` is the algorithm's.

    Shared memory holds two buffers, each ``[DEPTH][pitch_m]`` words of weights and ``[DEPTH][pitch_n]`` of pixels.
    """

    spare = 0  # elements between the rows of shared memory

    def __init__(self, e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
        self.e, self.s, self.at, self.v, self.x = e, s, at, v, x
        tile = s.tile
        self.kind = SUMS[s.acc]
        self.size = SIZES[self.kind]
        self.each = channels_of_word(s.factor)
        self.word = self.kind if self.each == 1 else "i32"
        self.pitch_m, self.pitch_n = tile.bm + self.spare, tile.bn + self.spare
        self.buffer = DEPTH * (self.pitch_m + self.pitch_n) * self.size
        self.t = e.thread("x")
        self.group, self.part = e.block("y") // x.blocks, e.block("y") % x.blocks
        self.first = e.block("x") * tile.bn
        # a thread fetches `count` words of each of some pixels
        self.columns = min(tile.threads, tile.bn)
        self.count = DEPTH * self.columns // tile.threads
        self.row = self.t // self.columns * self.count
        self.channel = self.row * self.each
        # of the block, what the thread's sums stand for: the second runs faster
        self.channels, self.pixels = self.places()

    def run(self) -> None:
        """Fetch ahead, multiply, store."""
        e, s, x = self.e, self.s, self.x
        tile = s.tile
        pixels = range(0, tile.bn, self.columns)
        weights = self.at.wei + e.i64(e.block("y")) * self.step_bytes * (x.depths * x.kh * x.kw)
        weights = weights + e.i64(self.t * (self.own_weights * self.size))
        zero = e.i32(0)
        place = [zero, zero, zero, weights, *self.under(pixels, zero, zero)]
        held, steps = len(place), x.depths * x.kh * x.kw
        self.keep(0, place, self.fetch(place))
        e.barrier()

        def step(n: Any, values: list[Any]) -> list[Any]:
            # after the last step it is fetched again: a branch around loads would wait for them before the products
            place = e.when(n + 1 < steps, values[:held], lambda values: self.next(values, pixels))
            fetched = self.fetch(place)
            sums = self.multiply((n % 2) * self.buffer, values[held:])
            self.keep((n + 1) % 2 * self.buffer, place, fetched)
            e.barrier()
            return [*place, *sums]

        self.store(e.loop(steps, [*place, *self.started()], step)[held:])

    @property
    def own_weights(self) -> int:
        """Of a step, words that a thread fetches: a vector, even where that leaves none to the last threads."""
        return max(self.s.tile.bm * DEPTH // self.s.tile.threads, VECTOR // self.size)

    @property
    def fetching(self) -> int:
        """Threads that fetch weights."""
        return self.s.tile.bm * DEPTH // self.own_weights

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
            row = border.mapped(e, x, "y", y + ky * x.dh)
            column = border.mapped(e, x, "x", column + kx * x.dw)
            place = image + at.sy * e.most(row, 0) + at.sx * e.most(column, 0)
            found.append(e.pick((row < 0) | (column < 0), e.i64(0), place))
        return found

    def next(self, place: list[Any], pixels: Any) -> list[Any]:
        """The place of the following step: (channels done, ky, kx, address of weights, addresses of pixels)."""
        e, x = self.e, self.x
        done, ky, kx, weights, *addresses = place
        done, weights = done + DEPTH * self.each, weights + self.step_bytes

        def further(values: list[Any]) -> list[Any]:
            done, ky, kx, *addresses = values
            return [done, ky, kx, *(e.pick(a < 1, a, a + self.at.sc * (DEPTH * self.each)) for a in addresses)]

        def tap(values: list[Any]) -> list[Any]:
            _, ky, kx, *_ = values
            end = kx + 1 >= x.kw
            ky, kx = e.pick(end, ky + 1, ky), e.pick(end, 0, kx + 1)
            return [e.i32(0), ky, kx, *self.under(pixels, ky, kx)]

        done, ky, kx, *addresses = e.when(done < x.icg, [done, ky, kx, *addresses], further, tap)
        return [done, ky, kx, weights, *addresses]

    def fetch(self, place: list[Any]) -> list[Any]:
        """The thread's weights and pixels of a step, on their way to registers: nothing here looks at them."""
        e, s, at = self.e, self.s, self.at
        done, _, _, weights, *addresses = place
        if self.fetching < s.tile.threads:
            found = e.load_where(self.t < self.fetching, self.word, weights)
        else:
            found = e.load(self.word, self.word, weights, self.own_weights)
        # two halves to a word are brought together when they are kept
        stored, made = (s.src, self.kind) if self.each == 1 else ("u16", "i32")
        left = self.x.icg - done - self.channel
        # where the border supplies the fill value, and beyond the last channel, some pixel of the image is read
        inside = at.src + at.sc * (done + self.channel)
        for address in addresses:
            pixel = e.pick(address > 0, address, inside)
            if s.last == VECTORS:
                found += e.load(s.src, self.kind, pixel, self.count) if self.each == 1 else e.load("i32", "i32", pixel, self.count)
                continue
            pixel = pixel + at.sc * e.least(left - 1, 0)
            for n in range(self.count * self.each):
                found += e.load(stored, made, pixel, 1)
                # addresses one behind the other take fewer registers than products of the stride
                pixel = e.pick(left > n + 1, pixel + at.sc, pixel)
        return found

    def keep(self, buffer: Any, place: list[Any], fetched: list[Any]) -> None:
        """Put what was fetched from a place into shared memory."""
        e, tile = self.e, self.s.tile
        done, _, _, _, *addresses = place
        left = self.x.icg - done - self.channel
        start = self.own_weights
        base = e.shared() + buffer
        weights = [self.kept(value) for value in fetched[:start]]
        place = base + (self.t * start // tile.bm * self.pitch_m + self.t * start % tile.bm) * self.size

        def keep_weights(nothing: list[Any]) -> list[Any]:
            e.shared_store(self.word, place, weights)
            return nothing

        if self.fetching < tile.threads:
            e.when(self.t < self.fetching, [], keep_weights)
        else:
            keep_weights([])
        base = base + DEPTH * self.pitch_m * self.size
        several = len(fetched[start:]) // len(addresses)
        for j, address in enumerate(addresses):
            values = fetched[start + j * several : start + (j + 1) * several]
            for k, value in enumerate(self.words(address, values, left)):
                own = (self.row + k) * self.pitch_n + self.t % self.columns + j * tile.threads
                e.shared_store(self.word, base + own * self.size, [self.kept(value)])

    def words(self, address: Any, values: list[Any], left: Any) -> list[Any]:
        """What was fetched of a pixel, with the border's fill value, as words."""
        e, whole = self.e, self.s.last == VECTORS
        fill = self.v.fill if self.each == 1 else e.half_bits(self.s.factor, self.v.fill)
        if self.each > 1 and whole:
            fill = fill | fill << 16
        values = [e.pick(address > 0, value, fill) for value in values]
        if whole:
            return values
        # channels beyond the last have weights of zero; what meets these must be finite
        values = [e.pick(left > k, value, e.number(self.word, 0)) for k, value in enumerate(values)]
        return values if self.each == 1 else [low | high << 16 for low, high in zip(values[::2], values[1::2], strict=True)]

    def kept(self, value: Any) -> Any:
        """A number as shared memory holds it."""
        return value

    def multiply(self, buffer: Any, sums: list[Any]) -> list[Any]:
        """Add the products of the channels in a buffer."""
        raise NotImplementedError

    def places(self) -> tuple[list[Any], list[Any]]:
        """The thread's output channels and pixels, counted from the block's first."""
        raise NotImplementedError

    @property
    def adjacent(self) -> tuple[int, int]:
        """How many of the thread's output channels, and of its pixels, follow one another."""
        raise NotImplementedError

    def started(self) -> list[Any]:
        """The sums' start."""
        e, x, tile = self.e, self.x, self.s.tile
        sums = []
        for channel in self.channels:
            o = self.part * tile.bm + channel

            def read(_: list[Any], o: Any = o) -> list[Any]:
                place = e.i64(self.group * x.ocg + e.least(o, x.ocg - 1))
                return e.load(self.kind, self.kind, self.at.bias + place * self.size, 1)

            (start,) = e.when(x.biased > 0, [e.number(self.kind, 0)], read)
            sums += [start] * tile.tn
        return sums

    def _kept_number(self) -> Any:
        """Where the thread's number is kept in shared memory, whose buffers are done with; what is made of it and of the block's is made
        again, since no register holds it meanwhile.
        """
        e, x = self.e, self.x
        self.t, y = e.anew(e.thread("x")), e.anew(e.block("y"))
        self.group, self.part, self.first = y // x.blocks, y % x.blocks, e.anew(e.block("x")) * self.s.tile.bn
        own = e.shared() + self.t * SIZES["i32"]
        e.shared_store("i32", own, [self.t])
        return own

    def store(self, sums: list[Any]) -> None:
        """Finish and store the thread's sums."""
        e, s, at, x = self.e, self.s, self.at, self.x
        tile, vector = s.tile, self.adjacent[0 if s.last else 1]
        results = Results(e, s, at, self.v, x)
        number = self._kept_number() if s.tail else None

        def scaling(channel: Any) -> Any:
            return results.scaling(self.group * x.ocg + e.least(channel, x.ocg - 1))

        def line(pixel: Any) -> Any:
            q = e.least(pixel, x.pixels - 1)
            rest = q % x.plane
            return at.dst + at.dn * (q // x.plane) + at.dy * (rest // x.ow) + at.dx * (rest % x.ow) + at.dc * (self.group * x.ocg)

        def placed() -> tuple[list[Any], list[Any]]:
            channels, pixels = self.places()
            return [self.part * tile.bm + o for o in channels], [self.first + q for q in pixels]

        channels, pixels = placed()
        # results that are adjacent in memory, if they are dense: channels of a pixel, of which one's address is in registers at a time
        if s.last:
            for j in range(tile.tn):
                # of sums that are scaled, a pixel's operands are read behind the one's before, from addresses that are not known sooner,
                # or the assembler reads them all ahead until registers are spilled (tensor on sm_80: 8 to 112 bytes)
                if number is not None:
                    e.barrier()
                    self.t = e.shared_anew(number)
                    channels, pixels = placed()
                first = line(pixels[j])
                for i in range(0, tile.tm, vector):
                    o = channels[i : i + vector]

                    def place(n: int, o: Any = o, first: Any = first) -> Any:
                        return first + at.dc * o[n]

                    own = slice(i * tile.tn + j, (i + vector) * tile.tn, tile.tn)
                    left = e.pick(pixels[j] < x.pixels, x.ocg - o[0], 0)
                    results.store(sums[own], [scaling(channel) for channel in o], place, left, x.dense > 0)
            return
        # or pixels of a line, which is a row, or a plane where rows follow one another; of scaled sums a vector of each channel at a time
        step = vector if s.tail else tile.tn
        for first in range(0, tile.tn, step):
            if number is not None:
                e.barrier()
                self.t = e.shared_anew(number)
                channels, pixels = placed()
            lines = {j: line(pixels[j]) for j in range(first, first + step)}
            for i in range(tile.tm):
                factors = [scaling(channels[i])] * vector
                for j in range(first, first + step, vector):

                    def beside(n: int, i: int = i, j: int = j, lines: Any = lines, channels: Any = channels) -> Any:
                        return lines[j + n] + at.dc * channels[i]

                    own = slice(i * tile.tn + j, i * tile.tn + j + vector)
                    left = e.pick(channels[i] < x.ocg, x.pixels - pixels[j], 0)
                    results.store(sums[own], factors, beside, left, (x.dense > 0) & (pixels[j] % x.line + vector <= x.line))


PACK_AT = ("wei", "packed", "wo", "wc", "wy", "wx")
PACK_EXTENTS = ("count", "icg", "ocg", "kh", "kw", "blocks", "depths")
_PACK_THREADS = 256


def channels_of_word(factor: str) -> int:
    """How many factors of a type a word holds."""
    return 2 if factor in ("f16", "bf16") else 1


def pack_body(e: Any, spec: tuple[str, str, int], at: Any, v: Any, x: Any) -> None:
    """``packed[g][ocg / bm][ky][kx][icg / DEPTH / each][c / each % DEPTH][o % bm][c % each]``, ``each`` channels of a word; zeros beyond
    the last channels; one element a thread.
    """
    stored, kind, bm = spec
    each = channels_of_word(kind)
    place = e.block("x") * _PACK_THREADS + e.thread("x")

    def one(nothing: list[Any]) -> list[Any]:
        rest, among = place // each, place % each
        rest, lane = rest // bm, rest % bm
        rest, deep = rest // DEPTH, rest % DEPTH
        rest, depth = rest // x.depths, rest % x.depths
        rest, kx = rest // x.kw, rest % x.kw
        rest, ky = rest // x.kh, rest % x.kh
        group, block = rest // x.blocks, rest % x.blocks
        o, c = block * bm + lane, (depth * DEPTH + deep) * each + among

        def read(_: list[Any]) -> list[Any]:
            return e.load(stored, kind, at.wei + at.wo * (group * x.ocg + o) + at.wc * c + at.wy * ky + at.wx * kx, 1)

        value = e.when((o < x.ocg) & (c < x.icg), [e.number(kind, 0)], read)
        e.store(kind, at.packed + e.i64(place) * SIZES[kind], value)
        return nothing

    e.when(place < x.count, [], one)


def pack_kernel(stored: str, kind: str, bm: int) -> Kernel:
    """The kernel that packs weights for blocks of ``bm`` output channels."""
    return Kernel(f"gemm_pack_{stored}_{kind}_{bm}", pack_body, (stored, kind, bm), PACK_AT, ("i32", ("unused",)), PACK_EXTENTS,
                  (_PACK_THREADS, 1, 1), 48, vectors=False, fused=False)  # fmt: skip


def padded_products(p: Problem, tile: Tile, factor: str = "") -> int:
    """Multiplications of whole tiles."""
    return p.n * parts(p.oh * p.ow, tile.bn) * tile.bn * packed_elements(p, tile, factor)


def packed_elements(p: Problem, tile: Tile, factor: str = "") -> int:
    """Weights and the zeros between them."""
    step = DEPTH * channels_of_word(factor)
    return p.g * parts(p.oc // p.g, tile.bm) * tile.bm * parts(p.ic // p.g, step) * step * p.kh * p.kw


def best_tile(p: Problem, tiles: tuple[Tile, ...]) -> Tile:
    """The tile of the fewest multiplications, those that are wasted included; ties go to the earlier."""
    size = SIZES[SUMS[p.acc]]
    return min((tile for tile in tiles if tile.size == size), key=lambda tile: parts(p.oc // p.g, tile.bm) * tile.bm)


def too_many(p: Problem, tile: Tile) -> str | None:
    """Why a problem's counts do not fit a launch, or None."""
    blocks = p.g * parts(p.oc // p.g, tile.bm)
    if max(p.ih_padded, p.iw_padded) >= 2**29 or p.oh * p.ow > MOST_PIXELS or packed_elements(p, tile) >= 2**31:
        return "counts pixels and weights in 32 bits"
    if blocks > MOST_GRID[1]:
        return f"has at most {MOST_GRID[1]} blocks of output channels, not {blocks}"
    return None


def cannot_multiply(p: Problem, tiles: tuple[Tile, ...]) -> str | None:
    """Why a problem is none for these blocks, or None."""
    roundings = (None, "saturate", "half_up")
    reason = not_computed(p, "fwd", roundings=roundings, scalings=True, halves=True, bfloat=True, bfloat_weights=True)
    reason = reason or cannot_finish(p)
    if reason is not None:
        return reason
    if all(tile.size != SIZES[SUMS[p.acc]] for tile in tiles):
        return f"has no tile for sums in {p.acc}"
    return too_many(p, best_tile(p, tiles))


def spec_of(p: Problem, tile: Tile, last: int | None = None, factor: str = "") -> Spec:
    """What a problem's kernel is compiled for, where channels lie so; without ``last``, as the problem's layout says."""
    if last is None:
        whole = p.ic // p.g % (DEPTH * channels_of_word(factor)) == 0
        last = PLANES if p.src_layout == "nchw" or p.ic == 1 else VECTORS if whole else DENSE
    return Spec(p.src, p.acc, p.dst, parse_epilogue(p.epilogue).rounding or "", tile, last, factor, tail_of(p))


def suffix(s: Spec) -> str:
    """Of a kernel's name: how channels lie."""
    return ("", "_nhwc", f"_nhwc{DEPTH * channels_of_word(s.factor)}")[s.last]


def shared_bytes(tile: Tile, spare: int) -> int:
    """Of a block's two buffers."""
    return 2 * DEPTH * (tile.bm + tile.bn + 2 * spare) * tile.size


def gemm_plan(
    p: Problem, algorithm: str, tile: Tile, kernel_of: Callable[[Spec], Kernel], cost: float, spare: int = 0, factor: str = ""
) -> Plan:
    """A plan with weights packed as `pack_body` says."""
    step = DEPTH * channels_of_word(factor)
    blocks, depths = parts(p.oc // p.g, tile.bm), parts(p.ic // p.g, step)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        last = int(src.strides[1] == SIZES[p.src] and p.ic > 1)
        dense = dst.strides[1 if last else 3] == SIZES[p.dst]
        plane = p.oh * p.ow
        line = plane if dst.strides[2] == p.ow * dst.strides[3] else p.ow
        finish = parse_epilogue(p.epilogue)
        whole = last and p.ic // p.g % step == 0 and all(stride % VECTOR == 0 for axis, stride in enumerate(src.strides) if axis != 1)
        axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
        launches = []
        most = max(MOST_PIXELS // plane, 1)
        for n in range(0, p.n, most):
            pixels = min(most, p.n - n) * plane
            extents = (pixels, plane, p.ow, p.ic // p.g, p.oc // p.g, blocks, p.kh, p.kw, p.sh, p.sw, p.dh, p.dw, p.pt, p.pl, depths,
                       int(dense), line, int(finish.bias), int(finish.activation is not None))  # fmt: skip
            made = [DriverLaunch(kernel_of(spec_of(p, tile, lie, factor)), (parts(pixels, tile.bn), p.g * blocks, 1),
                                 (*unknown(tail_of(p)), *src.strides, *dst.strides), finish_values(p, fill), (*extents, *axes),
                                 shared_bytes(tile, spare), src.device) for lie in ((last, VECTORS) if whole else (last,))]  # fmt: skip
            launches.append((n, made))

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            aligned = src.address % VECTOR == 0
            for n, made in launches:
                launch = made[-1] if aligned else made[0]
                launch(src.stream, src.address + n * src.strides[0], packed.address, *addresses(bias, dst, n))

        return finishing(p, run)

    def pack(p: Problem, wei: Any) -> Any:
        wei = on_device(wei, p.wei)
        kind, count = factor or SUMS[p.acc], packed_elements(p, tile, factor)
        memory = Memory(count * SIZES[kind], wei.device, wei.stream)
        launch = DriverLaunch(pack_kernel(dtype_name(wei.dtype), kind, tile.bm), (parts(count, _PACK_THREADS), 1, 1), (0, 0, *wei.strides),
                              (0,), (count, p.ic // p.g, p.oc // p.g, p.kh, p.kw, blocks, depths), device=wei.device)  # fmt: skip
        launch(wei.stream, wei.address, memory.address)
        return DeviceArray(memory.address, (1, 1, 1, count), None, DTYPES[kind], wei.stream, wei.device, memory)

    name = kernel_of(spec_of(p, tile, None, factor)).name
    return Plan(problem=p, algorithm=algorithm, kernel=name, cost=cost, pack_weights=pack, prepare_launch=prepare)
