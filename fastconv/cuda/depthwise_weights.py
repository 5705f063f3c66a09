"""depthwise_weights: the gradient of weights of one channel to a filter, channels last: a row of taps over some rows of pixels a warp.

A thread has a vector of channels, and of these the sums of one row of taps; it loads each pixel of a row once for all of the taps and all
of 4 results.  Sums of a block's warps are added through shared memory, those of blocks by added.py.

Order of accumulation per output: of each warp row after row, pixel after pixel, every product fused; then the block's warps, the first to
the last; then the blocks.  Rows of a warp are made of the problem's extents alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..planning import card_cost
from ..planning.plans import Launch, Plan
from ..planning.problem import Problem
from . import border, plain
from .added import adding, cannot_add
from .arithmetic import SIZES
from .compile import Kernel
from .driver import MOST_GRID, Memory, parts
from .driver import Launch as DriverLaunch
from .finish import SUMS, finish_values
from .simd import VECTOR
from .target import LANES, Target

CASES = (
    "n2_g8_ic8ih6iw9_oc8k3_p1_nhwc_hwio_bwd-weight", "g132_ic132ih5iw7_oc132k5_s2_p2_reflect_nhwc_hwio_bwd-weight",
    "n2_g6_ic6ih7iw6_oc6kh2kw3_sh3sw1_pt1pb0pl2pr1_edge_f64_nhwc_bwd-weight",
    "n3_g12_ic12ih9iw8_oc12k7_s2_p3_bf16:bf16:bf16:f32_nhwc_bwd-weight",
    "g4_ic4ih9iw5_oc4kh2kw3_dh2dw1_wrap_p1_u8:i8:i32:i32_nhwc_bwd-weight",
)  # fmt: skip
WIDTHS = (3, 5, 7)
_WARPS = 8
_PX = 4  # results that a thread has at once
_BLOCKS = 1024  # that are wanted, of all parts
_MOST_PARTS = 256


class Spec(NamedTuple):
    """What a kernel is compiled for; ``wide``: whether channels are whole vectors side by side, wherever a pixel is."""

    src: str
    wei: str
    acc: str
    kw: int
    sw: int
    wide: int


AT = ("src", "wei", "sums", "sn", "sc", "sy", "sx", "wn", "wc", "wy", "wx")
EXTENTS = (
    "channels", "rows", "part", "oh", "ow", "sh", "dh", "pt", "pl", "pitch",
    *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``sums[part][ky][kx][c] = sum_{n, oy, ox} src[n, oy sh + ky dh - pt, ox sw + kx - pl, c] wei[n, oy, ox, c]``, ``pitch`` of a part.

    A block is 32 vectors of channels, one row of taps, and 8 times ``part`` rows ``(n, oy)``.
    """
    kind = SUMS[s.acc]
    size = SIZES[kind]
    width = VECTOR // size
    lane, warp, ky = e.thread("x"), e.thread("y"), e.block("y")
    own = (e.block("x") * LANES + lane) * width
    c = e.least(own, x.channels - width)
    first = (e.block("z") * _WARPS + warp) * x.part

    def read(stored: str, address: Any, step: Any) -> list[Any]:
        if s.wide:
            return e.load(stored, kind, address, width)
        return [e.load(stored, kind, address + step * n, 1)[0] for n in range(width)]

    def row(number: Any, sums: list[Any]) -> list[Any]:
        number = first + number
        n, oy = number // x.oh, number % x.oh
        y = border.mapped(e, x, "y", oy * x.sh + ky * x.dh - x.pt)
        line = at.src + at.sn * n + at.sy * e.most(y, 0) + at.sc * c
        gradients = at.wei + at.wn * n + at.wy * oy + at.wc * c

        def pixel(column: Any) -> list[Any]:
            outside = (column < 0) | (column >= x.x_inside)
            (place,) = e.when(outside, [column], lambda values: [border.mapped(e, x, "x", values[0])])
            values = read(s.src, line + at.sx * e.most(place, 0), at.sc)
            return [e.pick((y >= 0) & (place >= 0), value, v.fill) for value in values]

        def some(px: int, ox: Any, sums: list[Any]) -> list[Any]:
            sums = list(sums)
            values = [read(s.wei, gradients + at.wx * (ox + i), at.wc) for i in range(px)]
            for m in range((px - 1) * s.sw + s.kw):
                pixels = pixel(ox * s.sw - x.pl + m)
                for i in range(px):
                    kx = m - i * s.sw
                    if 0 <= kx < s.kw:
                        for n in range(width):
                            sums[kx * width + n] = e.fma(pixels[n], values[i][n], sums[kx * width + n])
            return sums

        whole = x.ow // _PX
        sums = e.loop(whole, sums, lambda n, sums: some(_PX, n * _PX, sums))
        return e.loop(x.ow - whole * _PX, sums, lambda n, sums: some(1, whole * _PX + n, sums))

    many = e.most(e.least(x.rows - first, x.part), 0)
    sums = e.loop(many, [e.number(kind, 0)] * (s.kw * width), row)
    mine = e.shared() + (warp * (s.kw * LANES) + lane) * VECTOR
    for kx in range(s.kw):
        e.shared_store(kind, mine + kx * (LANES * VECTOR), sums[kx * width : (kx + 1) * width])
    e.barrier()

    def finish(nothing: list[Any]) -> list[Any]:
        place = at.sums + (e.i64(e.block("z")) * x.pitch + ky * s.kw * x.channels + own) * size
        for kx in range(s.kw):
            total = sums[kx * width : (kx + 1) * width]
            for other in range(1, _WARPS):
                values = e.shared_load(kind, mine + (other * s.kw + kx) * (LANES * VECTOR), width)
                total = [e.plus(a, b) if s.acc[0] == "f" else a + b for a, b in zip(total, values, strict=True)]
            e.store(kind, place + e.i64(x.channels * kx) * size, total)
        return nothing

    e.when((warp < 1) & (own < x.channels), [], finish)


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of real depthwise weights, channels last and whole vectors of them, dense rows of 3, 5 or 7 taps at stride 1 or 2."""
    reason = cannot_add(p)
    if reason is not None:
        return reason
    if not p.g == p.ic == p.oc > 1:
        return "is for one filter of one channel in each group"
    if p.src_layout != "nhwc" or p.ic % _width(p):
        return "is for whole vectors of channels that lie side by side"
    if p.kw not in WIDTHS or p.strides[1] > 2 or p.dw != 1:
        return f"is for dense rows of {WIDTHS} taps at strides 1 and 2"
    if plain.reject(p, t) is not None:
        return plain.reject(p, t)  # which counts no further
    if p.kh > MOST_GRID[1] or p.taps * p.ic >= 2**31 or p.n * p.oh + _WARPS * _MOST_PARTS >= 2**31:
        return "counts rows of pixels and weights in 32 bits, and rows of taps in 16"
    return None


def _width(p: Problem) -> int:
    return VECTOR // SIZES[SUMS[p.acc]]


def parts_of(p: Problem) -> tuple[int, int]:
    """Rows ``(n, oy)`` of a warp, and parts, of 8 warps."""
    rows, blocks = p.n * p.oh, parts(p.ic, LANES * _width(p)) * p.kh
    wanted = min(max(_BLOCKS // blocks, 1), parts(rows, _WARPS), _MOST_PARTS)
    each = parts(rows, wanted * _WARPS)
    return each, parts(rows, each * _WARPS)


def cost(p: Problem, t: Target) -> float:
    """Loads of pixels mostly, from caches."""
    return card_cost.depthwise_weights_seconds(p, t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each type: widths at two strides, with channels in vectors or not; the one that adds parts."""
    return 4 * len(WIDTHS) + 1


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    name = "_".join(("depthwise_weights", s.src, s.wei, s.acc, f"w{s.kw}s{s.sw}")) + "_wide" * s.wide
    return Kernel(name, body, s, AT, (SUMS[s.acc], ("fill",)), EXTENTS, (LANES, _WARPS, 1), 128, shared=True, blocks=2,
                  vectors=bool(s.wide) and min(SIZES[s.src], SIZES[s.wei]) * (VECTOR // SIZES[SUMS[s.acc]]) == VECTOR,
                  fused=s.acc[0] == "f")  # fmt: skip


def _spec(p: Problem, wide: int) -> Spec:
    return Spec(p.src, p.wei, p.acc, p.kw, p.strides[1], wide)


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases."""
    return tuple(dict.fromkeys(kernel_of(_spec(p, wide)) for wide in (1, 0) for p in map(Problem.parse, CASES)))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan that packs nothing: the gradient of the result takes the weights' place."""
    (each, count), size, width = parts_of(p), SIZES[SUMS[p.acc]], _width(p)
    pitch = p.taps * p.ic
    workspace = count * pitch * size

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        extents = (
            p.ic, p.n * p.oh, each, p.oh, p.ow, p.sh, p.dh, p.pt, p.pl, pitch, *border.border_fields(p.border, p.ih, -p.pt),
            *border.border_fields(p.border, p.iw, -p.pl),
        )  # fmt: skip
        wide = int(all(_whole(array, width) for array in (src, packed)))
        launches = {
            kind: DriverLaunch(
                kernel_of(_spec(p, kind)), (parts(p.ic, LANES * width), p.kh, count), (0, 0, 0, *src.strides, *packed.strides),
                finish_values(p, fill)[:1], extents, _WARPS * p.kw * LANES * VECTOR, src.device,
            )
            for kind in {wide, 0}
        }  # fmt: skip
        add = adding(p, (1, 1, 1), (pitch, p.ic, pitch), count, pitch * size, dst.transpose(1, 0, 2, 3))

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            memory = Memory(workspace, src.device, src.stream)
            aligned = wide and src.address % VECTOR == packed.address % VECTOR == 0
            launches[wide if aligned else 0](src.stream, src.address, packed.address, memory.address)
            add(src.stream, memory.address, dst.address)

        return run

    return Plan(problem=p, algorithm="depthwise_weights", kernel=kernel_of(_spec(p, 1)).name, cost=cost(p, t), workspace=workspace,
                pack_weights=plain.packed_weights, prepare_launch=prepare)  # fmt: skip


def _whole(array: Any, width: int) -> bool:
    """Whether a vector of an array's channels is one load, wherever a pixel is."""
    step = min(width * array.dtype.itemsize, VECTOR)
    return bool(array.strides[1] == array.dtype.itemsize and all(stride % step == 0 for n, stride in enumerate(array.strides) if n != 1))
