"""direct: few channels; each thread a tile of a plane, several pixels wide and many rows deep, that reads every row of pixels once.

A thread's rows of pixels are loaded as whole vectors of 16 bytes from the multiple of 16 below, and shifted into place in registers;
threads whose pixels touch the image's left or right end load them one by one, from where the border says.  Each row of pixels is
multiplied with every row of taps that meets it, so it is loaded once for all rows of the tile.

Order of accumulation per output: channel; group of at most 8 columns of taps; ``ky``; ``kx``; from the bias; every product fused.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import Problem, not_computed, parse_epilogue
from . import border
from .compile import Kernel
from .copy import on_device
from .driver import MOST_GRID
from .driver import Launch as DriverLaunch
from .finish import SUMS, VALUES, cannot_finish, finish_values, finished, store_row
from .simd import SIZES, VECTOR
from .target import LANES, Target

CASES = (
    "ih40iw300_k3_p1", "ih70iw150_k5_p2_reflect", "n2_g3_ic3ih19iw140_oc3k7_p3_wrap_bias+relu", "ih33iw261_kh9kw11_p4_symmetric",
    "ic3ih20iw70_oc4k3_s2_p1", "ih30iw90_k3_sh2sw1_d2_p2_edge", "ih21iw77_k3_sh1sw3_dh3dw2", "ih40iw200_k3_p1_u8:u8:u8:u8",
    "ih30iw140_k5_p2_u8:f32:u8:f32_saturate", "ih24iw130_k3_u16:f32:f32:f32", "ih24iw130_k5_p2_f16:f16:f16:f32",
    "ih24iw130_k3_p1_f64", "ih40iw200_k7_p3_u8:i8:i32:i32",
)  # fmt: skip


class Tile(NamedTuple):
    """A thread's results, ``px`` wide and ``rows`` deep, for pixels of ``size`` bytes; what its kernels may take."""

    size: int
    px: int
    rows: int
    registers: int
    blocks: int  # of 128 threads on a multiprocessor, at least


# 32 sums, a row of up to 12 pixels and the words of the next, 8 taps, addresses
TILES = (
    Tile(1, px=8, rows=4, registers=128, blocks=4),
    Tile(2, px=8, rows=4, registers=128, blocks=4),
    Tile(4, px=4, rows=8, registers=128, blocks=4),
    Tile(8, px=2, rows=8, registers=128, blocks=4),
)
FIXED = (3, 5)  # square kernels whose taps stay in registers
GROUP = 8  # columns of taps that a row of pixels in registers serves
WARPS = 4  # of a block, one below the other
MOST_SHARED = 48 << 10  # bytes of the taps of one channel


class Spec(NamedTuple):
    """What a kernel is compiled for."""

    src: str
    acc: str
    dst: str
    rounding: str
    px: int
    rows: int
    h: int  # stride of columns, 1 or 2; 0: any strides, of pixels too
    full: int  # whether there are groups of GROUP columns before the last
    last: int  # columns of the last group
    fixed: int  # width and height of taps in registers, or 0


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "wo", "wc", "wy", "wx", "dn", "dc", "dy", "dx")
EXTENTS = (
    "tiles", "bands", "icg", "ocg", "oh", "ow", "kh", "kw", "sw", "dw", "pt", "pl", "phase_rows", "tile_rows", "row_step", "held", "q",
    "phases", "padded", "pitch", "biased", "activated", *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


def _axis(x: Any, name: str) -> tuple[Any, ...]:
    return tuple(getattr(x, f"{name}_{field}") for field in border.FIELDS)


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, o, oy, ox] = finish(bias[o] + sum_{c, ky, kx} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[o, c, ky, kx])``.

    A block is 32 x 4 threads, a thread ``px`` x ``rows`` results; rows of one thread are ``phases`` apart, so that they share rows of
    pixels.  Pixels are dense where ``h`` is not 0.  Taps of a channel are copied to shared memory, but for those that are ``fixed``.
    """
    kind = SUMS[s.acc]
    lane, warp = e.thread("x"), e.thread("y")
    tile, rest = e.block("x") % x.tiles, e.block("x") // x.tiles
    band, phase = rest % x.bands, rest // x.bands
    o, n = e.block("y"), e.block("z")
    ox = (tile * LANES + lane) * s.px
    j0 = (band * WARPS + warp) * s.rows
    image = at.src + at.sn * n + at.sc * (o // x.ocg * x.icg)
    wei = at.wei + at.wo * o
    col0 = ox * x.sw - x.pl
    row0 = phase * x.phase_rows + j0 * x.tile_rows
    present = (ox < x.ow) & (phase + j0 * x.phases < x.oh)
    first = e.when(x.biased > 0, [e.number(kind, 0)], lambda _: e.load(kind, kind, at.bias + e.i64(o) * SIZES[kind], 1))[0]
    sums = [first] * (s.px * s.rows)
    thread = Thread(e, s, at, v, x, ox, row0, col0)

    def channel(c: Any, sums: list[Any]) -> list[Any]:
        plane, taps = image + at.sc * c, wei + at.wc * c
        if not s.fixed:
            thread.stage(taps, warp * LANES + lane)
        return e.when(present, sums, lambda sums: thread.add(plane, taps, sums))

    sums = e.loop(x.icg, sums, channel)

    def store(nothing: list[Any]) -> list[Any]:
        for j in range(s.rows):
            oy = phase + (j0 + j) * x.phases
            row = sums[j * s.px : (j + 1) * s.px]
            line = at.dst + at.dn * n + at.dc * o + at.dy * oy

            def one(nothing: list[Any], row: list[Any] = row, line: Any = line) -> list[Any]:
                results = finished(e, s.acc, s.dst, s.rounding, x.activated, v, row)
                if s.h:
                    store_row(e, s.dst, line + e.i64(ox * SIZES[s.dst]), results, x.ow - ox)
                    return nothing
                for i, result in enumerate(results):
                    store_row(e, s.dst, line + at.dx * (ox + i), [result], x.ow - ox - i)
                return nothing

            e.when(oy < x.oh, [], one)
        return nothing

    e.when(present, [], store)


class Thread(NamedTuple):
    """One thread's place in the problem, and its steps through a channel."""

    e: Any
    s: Spec
    at: Any
    v: Any
    x: Any
    ox: Any
    row0: Any  # of the padded image, under the first result and tap
    col0: Any  # of the image, likewise

    def stage(self, taps: Any, thread: Any) -> None:
        """Copy a channel's taps to shared memory, rows ``pitch`` taps apart."""
        e, s, at, x = self.e, self.s, self.at, self.x
        kind, threads = SUMS[s.acc], LANES * WARPS
        e.barrier()  # nobody reads the channel's before

        def copy(i: Any, nothing: list[Any]) -> list[Any]:
            place = i * threads + thread

            def one(nothing: list[Any]) -> list[Any]:
                ky, kx = place // x.kw, place % x.kw
                tap = e.load(kind, kind, taps + at.wy * ky + at.wx * kx, 1)
                e.shared_store(kind, e.shared() + (ky * x.pitch + kx) * SIZES[kind], tap)
                return nothing

            e.when(place < x.kh * x.kw, [], one)
            return nothing

        e.loop((x.kh * x.kw + (threads - 1)) // threads, [], copy)
        e.barrier()

    def add(self, plane: Any, taps: Any, sums: list[Any]) -> list[Any]:
        """A channel's products."""
        e, s, x = self.e, self.s, self.x
        if not s.h:
            return self.add_apart(plane, sums)
        # whole vectors lie inside the row if those of all groups do
        reach = (s.px - 1) * s.h + x.kw
        vector = VECTOR // SIZES[s.src]
        inside = (self.col0 >= vector - 1) & (self.col0 + reach + 2 * vector <= x.x_inside)
        return e.when(inside, sums, lambda sums: self.add_groups(plane, taps, sums, True),
                      lambda sums: self.add_groups(plane, taps, sums, False))  # fmt: skip

    def add_groups(self, plane: Any, taps: Any, sums: list[Any], inside: bool) -> list[Any]:
        """A channel's products, group of columns after group."""
        e, s, x = self.e, self.s, self.x
        if s.fixed:
            return self.add_fixed(plane, taps, sums, inside)
        first: Any = 0
        if s.full:
            groups = (x.kw - s.last) // GROUP
            sums = e.loop(groups, sums, lambda g, sums: self.add_rows(plane, g * GROUP, GROUP, sums, inside))
            first = groups * GROUP
        return self.add_rows(plane, first, s.last, sums, inside)

    def line(self, plane: Any, row: Any) -> tuple[Any, Any]:
        """The address of a row of the padded image, and whether there is one: not in a constant border."""
        e, x = self.e, self.x
        y = e.least(row, x.padded - 1) - x.pt
        outside = (y < 0) | (y >= x.y_inside)
        (y,) = e.when(outside, [e.i32(y)], lambda _: [border.mapped(e, _axis(x, "y"), y)])
        return plane + self.at.sy * e.most(y, 0), y >= 0

    def pixels(self, plane: Any, row: Any, columns: Any, count: int, inside: bool) -> list[Any]:
        """``count`` pixels of a row of the padded image: from column ``columns`` on, or from each of them."""
        e, s = self.e, self.s
        line, exists = self.line(plane, row)
        size, kind = SIZES[s.src], SUMS[s.acc]

        def whole(_: list[Any]) -> list[Any]:
            address = line + e.i64(columns * size)
            offset = e.below(address, VECTOR)
            many = -(-(VECTOR - size + count * size) // VECTOR)
            words = e.words(address - e.i64(offset), 4 * many)
            return e.elements(s.src, kind, e.aligned(words, offset, size), count)

        def singly(_: list[Any]) -> list[Any]:
            found = []
            for column in columns:
                (pixel,) = e.load(s.src, kind, line + self.at.sx * e.most(column, 0), 1)
                found.append(e.pick(column < 0, self.v.fill, pixel))
            return found

        return e.when(exists, [self.v.fill] * count, whole if inside else singly)

    def columns(self, first: Any, count: int, inside: bool) -> Any:
        """What `pixels` needs to know of ``count`` columns of taps from column ``first`` on."""
        if inside:
            return self.col0 + first
        return [border.mapped(self.e, _axis(self.x, "x"), self.col0 + first + i) for i in range(count)]

    def add_row(self, pixels: list[Any], taps: list[Any], sums: list[Any]) -> list[Any]:
        """One row of taps over one row of pixels."""
        e, s = self.e, self.s
        sums = list(sums)
        for kx, tap in enumerate(taps):
            for i in range(s.px):
                sums[i] = e.fma(pixels[i * s.h + kx], tap, sums[i])
        return sums

    def add_rows(self, plane: Any, first: Any, width: int, sums: list[Any], inside: bool) -> list[Any]:
        """The products of ``width`` columns of taps from column ``first`` on: row of pixels after row."""
        e, s, x = self.e, self.s, self.x
        count = (s.px - 1) * s.h + width
        columns = self.columns(first, count, inside)
        size, kind = SIZES[SUMS[s.acc]], SUMS[s.acc]

        def step(m: Any, sums: list[Any]) -> list[Any]:
            sums = list(sums)
            row = self.row0 + (m // x.held * x.q + m % x.held) * x.row_step
            pixels = self.pixels(plane, row, columns, count, inside)
            for j in range(s.rows):
                ky = m - x.held * j

                def meet(part: list[Any], ky: Any = ky) -> list[Any]:
                    place = e.shared() + (ky * x.pitch + first) * size
                    taps = e.shared_load(kind, place, -(-width // 4) * 4)[:width]
                    return self.add_row(pixels, taps, part)

                mine = slice(j * s.px, (j + 1) * s.px)
                sums[mine] = e.when((ky >= 0) & (ky < x.kh), sums[mine], meet)
            return sums

        return e.loop(x.held * (s.rows - 1) + x.kh, sums, step)

    def add_fixed(self, plane: Any, taps: Any, sums: list[Any], inside: bool) -> list[Any]:
        """The products of a square of taps that stay in registers; strides are 1."""
        e, s, at = self.e, self.s, self.at
        k, kind = s.fixed, SUMS[s.acc]
        square = [[e.load(kind, kind, taps + at.wy * ky + at.wx * kx, 1)[0] for kx in range(k)] for ky in range(k)]
        columns = self.columns(0, s.px - 1 + k, inside)
        sums = list(sums)
        for m in range(s.rows - 1 + k):
            pixels = self.pixels(plane, self.row0 + self.x.row_step * m, columns, s.px - 1 + k, inside)
            for j in range(s.rows):
                if 0 <= m - j < k:
                    sums[j * s.px : (j + 1) * s.px] = self.add_row(pixels, square[m - j], sums[j * s.px : (j + 1) * s.px])
        return sums

    def add_apart(self, plane: Any, sums: list[Any]) -> list[Any]:
        """A channel's products where columns of pixels are strided, dilated or apart: each is loaded for each tap."""
        e, s, x = self.e, self.s, self.x
        kind = SUMS[s.acc]

        def column(kx: Any, sums: list[Any]) -> list[Any]:
            columns = [border.mapped(e, _axis(x, "x"), self.col0 + x.sw * i + kx * x.dw) for i in range(s.px)]

            def step(m: Any, sums: list[Any]) -> list[Any]:
                sums = list(sums)
                pixels = self.pixels(plane, self.row0 + (m // x.held * x.q + m % x.held) * x.row_step, columns, s.px, False)
                for j in range(s.rows):
                    ky = m - x.held * j

                    def meet(part: list[Any], ky: Any = ky) -> list[Any]:
                        (tap,) = e.shared_load(kind, e.shared() + (ky * x.pitch + kx) * SIZES[kind], 1)
                        return [e.fma(pixel, tap, total) for pixel, total in zip(pixels, part, strict=True)]

                    mine = slice(j * s.px, (j + 1) * s.px)
                    sums[mine] = e.when((ky >= 0) & (ky < x.kh), sums[mine], meet)
                return sums

            return e.loop(x.held * (s.rows - 1) + x.kh, sums, step)

        return e.loop(x.kw, sums, column)


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real; taps of a channel fit shared memory; rows of pixels are less than 2 GiB."""
    reason = not_computed(p, "fwd", roundings=(None, "saturate", "half_up")) or cannot_finish(p)
    if reason is not None:
        return reason
    if max(p.ih_padded, p.iw_padded) * 8 >= 2**30 or p.taps >= 2**31 or max(p.oc, p.n) > MOST_GRID[1]:
        return "counts rows and columns in 32 bits, and channels and images in 16"
    if p.kh * _pitch(p) * SIZES[SUMS[p.acc]] > MOST_SHARED:
        return f"keeps a channel's taps in {MOST_SHARED >> 10} KiB"
    return None


def cost(p: Problem, t: Target) -> float:
    return costs.cuda_direct_seconds(p, t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each type: widths of the last group, with and without others before, at strides 1 and 2; fixed ones; one for the rest."""
    return 2 * 2 * GROUP + len(FIXED) + 1


def _parts(extent: int, size: int) -> int:
    return -(-extent // size)


def _pitch(p: Problem) -> int:
    """Taps from one row to the next in shared memory."""
    return -(-p.kw // 4) * 4


def _spec(p: Problem, dense: bool) -> Spec:
    tile = next(tile for tile in TILES if tile.size == max(SIZES[p.src], SIZES[SUMS[p.acc]] // 4))
    sw, dw = p.sw if p.ow > 1 else 1, p.dw if p.kw > 1 else 1
    h = sw if dense and dw == 1 and sw <= 2 else 0
    fixed = p.kh if h == 1 and p.kh == p.kw and p.kh in FIXED and p.sh == 1 and SUMS[p.acc] != "f64" else 0
    last = p.kw if fixed else (p.kw - 1) % GROUP + 1 if h else 1
    rounding = parse_epilogue(p.epilogue).rounding or ""
    return Spec(p.src, p.acc, p.dst, rounding, tile.px, tile.rows, h, int(h > 0 and not fixed and p.kw > GROUP), last, fixed)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    tile = next(tile for tile in TILES if (tile.px, tile.rows) == (s.px, s.rows))
    how = f"k{s.fixed}" if s.fixed else f"h{s.h}" + (f"w{GROUP * s.full}{s.last}" if s.h else "")
    types = "_".join(filter(None, (s.src, s.acc, s.dst, s.rounding)))
    return Kernel(f"direct_{types}_{s.rows}x{s.px}_{how}", body, s, AT, (SUMS[s.acc], VALUES), EXTENTS, (LANES, WARPS, 1),
                  tile.registers, shared=not s.fixed, blocks=tile.blocks, vectors=s.h > 0, fused=s.acc[0] == "f")  # fmt: skip


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases, which every test of machine code compiles."""
    return tuple(dict.fromkeys(kernel_of(_spec(Problem.parse(case), True)) for case in CASES))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan that packs nothing, unless weights have another type than sums."""
    name = kernel_of(_spec(p, p.src_layout == "nchw" or (p.ic == p.oc == 1))).name

    def prepare(plan: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        s = _spec(p, src.strides[3] == SIZES[p.src] and dst.strides[3] == SIZES[p.dst])
        sh, dh = p.sh if p.oh > 1 else 1, p.dh if p.kh > 1 else (p.sh if p.oh > 1 else 1)
        finish, g = parse_epilogue(p.epilogue), gcd(sh, dh)
        q, k = sh // g, dh // g
        phases = min(k, p.oh)
        tiles, bands = _parts(p.ow, LANES * s.px), _parts(_parts(p.oh, k), WARPS * s.rows)
        extents = {
            "tiles": tiles, "bands": bands, "icg": p.ic // p.g, "ocg": p.oc // p.g, "oh": p.oh, "ow": p.ow, "kh": p.kh, "kw": p.kw,
            "sw": p.sw if p.ow > 1 else 1, "dw": p.dw, "pt": p.pt, "pl": p.pl, "phase_rows": sh, "tile_rows": q * dh, "row_step": dh,
            "held": min(q, p.kh), "q": q, "phases": k, "padded": p.ih_padded, "pitch": _pitch(p), "biased": int(finish.bias),
            "activated": int(finish.activation is not None),
        }  # fmt: skip
        far = (LANES * s.px * tiles) * p.sw + p.kw * p.dw
        axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
        assert far < 2**30
        strides = (*src.strides, *packed.strides, *dst.strides)
        launch = DriverLaunch(kernel_of(s), (tiles * bands * phases, p.oc, p.n), (0, 0, 0, 0, *strides), finish_values(p, fill),
                              (*extents.values(), *axes), 0 if s.fixed else p.kh * _pitch(p) * SIZES[SUMS[p.acc]], src.device)  # fmt: skip
        assert tuple(extents) == EXTENTS[: len(extents)]

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            launch(src.stream, src.address, packed.address, bias.address if bias is not None else 0, dst.address)

        return run

    return Plan(problem=p, algorithm="direct", kernel=name, cost=cost(p, t), pack_weights=packed_weights, prepare_launch=prepare)


def packed_weights(p: Problem, wei: Any) -> Any:
    """Weights in the type of the sums, on the device."""
    return on_device(wei, SUMS[p.acc])
