"""depthwise: one filter for each channel, channels last in memory; a thread has a vector of channels at several pixels of a row.

Threads of a warp have neighbouring channels, so that each of their loads and stores is one of 512 bytes.  A row of pixels is loaded once
for all columns of taps and all of the thread's pixels where the width of the kernel is compiled in.

Order of accumulation per output: from the bias; ``ky``; ``kx``; every product fused.  It depends on nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import card_cost
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from . import border
from .addends import finishing
from .arithmetic import SIZES
from .arrays import DeviceArray
from .compile import Kernel
from .copy import copied, on_device
from .driver import MOST_GRID, Memory
from .driver import Launch as DriverLaunch
from .finish import SUMS, Results, addresses, cannot_finish, finish_values, parameters, tail_of, unknown
from .target import LANES, Target

CASES = (
    "n2_g6_ic6ih6iw9_oc6k3_p1_nhwc_hwio_bias+relu", "g13_ic13ih7iw11_oc13k5_s2_p2_reflect_nhwc_hwio", "g8_ic8ih9iw6_oc8k7_p3_nhwc_hwio_f64",
    "g9_ic9ih9iw10_oc9kh2kw4_d2_p3_wrap_nhwc_hwio", "g8_ic8ih6iw9_oc8k3_s3_p1_nhwc_hwio_f16:f16:f16:f32",
    "g9_ic9ih6iw8_oc9k3_p1_nhwc_hwio_bf16:bf16:bf16:f32_bias+relu",
    "n2_g6_ic6ih6iw9_oc6k3_p1_nhwc_hwio_bias+scale+shift+residual+relu",
    "g8_ic8ih6iw9_oc8k3_s2_p1_nhwc_hwio_f16:f16:f16:f32_halves+scale+shift+residual+leaky-relu:0.1",
)  # fmt: skip


class Tile(NamedTuple):
    """A thread's results: ``channels`` at ``px`` pixels of a row, for sums of ``size`` bytes; what its kernels may take."""

    size: int
    channels: int
    px: int
    registers: int
    blocks: int  # on a multiprocessor, at least


# 16 sums, up to 10 vectors of pixels, a row of up to 7 vectors of taps
TILES = (Tile(4, channels=4, px=4, registers=128, blocks=4), Tile(8, channels=2, px=4, registers=128, blocks=4))
WIDTHS = (3, 5, 7)  # of kernels that are compiled in, at strides 1 and 2
WARPS = 4  # of a block: pixels that follow one another in a row


class Spec(NamedTuple):
    """What a kernel is compiled for; ``kw`` and ``sw`` are 0 where any are taken."""

    src: str
    acc: str
    dst: str
    rounding: str
    channels: int
    px: int
    kw: int
    sw: int
    tail: str = ""  # see `finish.tail_of`


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "dn", "dc", "dy", "dx")
EXTENTS = (
    "channels", "tiles", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw", "pt", "pl", "pitch", "dense_src", "dense_dst", "biased",
    "activated",
    *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, oy, ox, c] = finish(bias[c] + sum_{ky, kx} src[n, oy sh + ky dh - pt, ox sw + kx dw - pl, c] wei[ky, kx, c])``.

    ``wei`` is ``[kh][kw][pitch]``, anything beyond the last channel.  A block is 32 vectors of channels at 4 groups of ``px`` pixels;
    vectors that are not whole, not dense or not aligned are loaded and stored one channel at a time.
    """
    kind, size = SUMS[s.acc], SIZES[SUMS[s.acc]]
    tile, rest = e.block("x") % x.tiles, e.block("x") // x.tiles
    oy, n = rest % x.oh, rest // x.oh
    c = (e.block("y") * LANES + e.thread("x")) * s.channels
    ox = (tile * WARPS + e.thread("y")) * s.px
    left = x.channels - c
    kw, sw = s.kw or x.kw, s.sw or x.sw
    wide = min(SIZES[s.src] * s.channels, 16)

    def pixel(line: Any, exists: Any, column: Any) -> list[Any]:
        place = border.mapped(e, x, "x", column)
        address = line + at.sx * e.most(place, 0)

        def whole(_: list[Any]) -> list[Any]:
            return e.load(s.src, kind, address, s.channels)

        def singly(_: list[Any]) -> list[Any]:
            return [e.load(s.src, kind, address + at.sc * e.least(e.i32(i), left - 1), 1)[0] for i in range(s.channels)]

        def read(values: list[Any]) -> list[Any]:
            together = (x.dense_src > 0) & (left >= s.channels) & (e.below(address, wide) < 1)
            return e.when(together, values, whole, singly)

        return e.when(exists & (place >= 0), [v.fill] * s.channels, read)

    def taps(ky: Any, kx: Any) -> list[Any]:
        return e.load(kind, kind, at.wei + e.i64((ky * kw + kx) * x.pitch + c) * size, s.channels)

    def add(tap: list[Any], pixels: list[Any], sums: list[Any]) -> list[Any]:
        return [e.fma(pixel, weight, total) for pixel, weight, total in zip(pixels, tap, sums, strict=True)]

    def row(ky: Any, sums: list[Any]) -> list[Any]:
        y = border.mapped(e, x, "y", oy * x.sh + ky * x.dh - x.pt)
        line = at.src + at.sn * n + at.sy * e.most(y, 0) + at.sc * c
        exists = y >= 0
        first = ox * sw - x.pl
        sums = list(sums)

        def one(i: int) -> slice:
            return slice(i * s.channels, (i + 1) * s.channels)

        if s.kw:
            weights = [taps(ky, kx) for kx in range(s.kw)]
            for m in range((s.px - 1) * s.sw + s.kw):
                pixels = pixel(line, exists, first + m)
                for i in range(s.px):
                    if 0 <= m - i * s.sw < s.kw:
                        sums[one(i)] = add(weights[m - i * s.sw], pixels, sums[one(i)])
            return sums

        def column(kx: Any, sums: list[Any]) -> list[Any]:
            tap, sums = taps(ky, kx), list(sums)
            for i in range(s.px):
                sums[one(i)] = add(tap, pixel(line, exists, first + x.sw * i + kx * x.dw), sums[one(i)])
            return sums

        return e.loop(x.kw, sums, column)

    def compute(nothing: list[Any]) -> list[Any]:
        zero = [e.number(kind, 0)] * s.channels
        addends = [at.bias + e.i64(e.least(c + i, x.channels - 1)) * size for i in range(s.channels)]
        first = e.when(x.biased > 0, zero, lambda _: [e.load(kind, kind, addend, 1)[0] for addend in addends])
        sums = e.loop(x.kh, first * s.px, row)
        results = Results(e, s, at, v, x)
        scalings = [results.scaling(e.least(c + i, x.channels - 1)) for i in range(s.channels)]
        for i in range(s.px):
            place = at.dst + at.dn * n + at.dy * oy + at.dx * (ox + i) + at.dc * c

            def store(nothing: list[Any], own: slice = slice(i * s.channels, (i + 1) * s.channels), place: Any = place) -> list[Any]:
                results.store(sums[own], scalings, lambda number: place + at.dc * number, left, x.dense_dst > 0)
                return nothing

            e.when(ox + i < x.ow, [], store)
        return nothing

    e.when((ox < x.ow) & (left > 0), [], compute)


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real, one channel to a group and to a filter, channels last."""
    roundings = (None, "saturate", "half_up")
    reason = not_computed(p, "fwd", roundings=roundings, scalings=True, halves=True, bfloat=True, bfloat_weights=True)
    reason = reason or cannot_finish(p)
    if reason is not None:
        return reason
    if not p.g == p.ic == p.oc > 1:
        return "is for one filter of one channel in each group"
    if p.src_layout != "nhwc":
        return "is for channels that lie side by side"
    if max(p.ih_padded, p.iw_padded) >= 2**29 or _blocks(p) > MOST_GRID[0] or p.kh * p.kw * _pitch(p) >= 2**31:
        return "counts pixels and weights in 32 bits"
    return None


def cost(p: Problem, t: Target) -> float:
    """Of memory mostly: a pixel is loaded for each row of taps, from caches."""
    return card_cost.direct_seconds(p, t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each type: widths at two strides, and one for all others."""
    return 2 * len(WIDTHS) + 1


def _tile(p: Problem) -> Tile:
    return next(tile for tile in TILES if tile.size == max(SIZES[SUMS[p.acc]], 4))


def _pitch(p: Problem) -> int:
    """Weights of one tap: whole vectors."""
    step = _tile(p).channels
    return -(-p.oc // step) * step


def _tiles(p: Problem) -> int:
    return -(-p.ow // (WARPS * _tile(p).px))


def _blocks(p: Problem) -> int:
    return p.n * p.oh * _tiles(p)


def _spec(p: Problem) -> Spec:
    tile = _tile(p)
    sw = p.sw if p.ow > 1 else 1
    known = p.kw in WIDTHS and sw in (1, 2) and p.dw == 1
    return Spec(p.src, p.acc, p.dst, parse_epilogue(p.epilogue).rounding or "", tile.channels, tile.px, p.kw * known, sw * known,
                tail_of(p))  # fmt: skip


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    tile = next(tile for tile in TILES if tile.channels == s.channels)
    types = "_".join(filter(None, (s.src, s.acc, s.dst, s.rounding, s.tail)))
    name = f"depthwise_{types}_{s.px}x{s.channels}" + (f"_w{s.kw}s{s.sw}" if s.kw else "")
    return Kernel(name, body, s, *parameters(AT, s), EXTENTS, (LANES, WARPS, 1), tile.registers, blocks=tile.blocks,
                  fused=s.acc[0] == "f")  # fmt: skip


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases, which every test of machine code compiles."""
    return tuple(dict.fromkeys(kernel_of(_spec(Problem.parse(case))) for case in CASES))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan with weights packed as ``[kh][kw][pitch]``."""
    kernel, pitch = kernel_of(_spec(p)), _pitch(p)
    kind = SUMS[p.acc]

    def pack(p: Problem, wei: Any) -> Any:
        wei = on_device(wei, p.wei)
        size = SIZES[kind]
        memory = Memory(p.kh * p.kw * pitch * size, wei.device, wei.stream)
        shape, strides = (1, p.kh, p.kw, p.oc), (0, p.kw * pitch * size, pitch * size, size)
        copied(wei.transpose(1, 2, 3, 0), DeviceArray(memory.address, shape, strides, DTYPES[kind], wei.stream, wei.device, memory))
        return DeviceArray(memory.address, (1, 1, 1, p.kh * p.kw * pitch), None, DTYPES[kind], wei.stream, wei.device, memory)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        dense = (int(src.strides[1] == SIZES[p.src]), int(dst.strides[1] == SIZES[p.dst]))
        finish = parse_epilogue(p.epilogue)
        extents = (p.oc, _tiles(p), p.oh, p.ow, p.kh, p.kw, p.sh, p.sw if p.ow > 1 else 1, p.dh, p.dw, p.pt, p.pl, pitch, *dense,
                   int(finish.bias), int(finish.activation is not None))  # fmt: skip
        axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
        grid = (_blocks(p), -(-p.oc // (LANES * kernel.spec.channels)), 1)
        launch = DriverLaunch(
            kernel, grid, (*unknown(tail_of(p)), *src.strides, *dst.strides), finish_values(p, fill), (*extents, *axes), device=src.device
        )

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            launch(src.stream, src.address, packed.address, *addresses(bias, dst))

        return finishing(p, run)

    return Plan(problem=p, algorithm="depthwise", kernel=kernel.name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare)
