"""direct: few channels; each thread a tile of a plane, several pixels wide and many rows deep, that reads every row of pixels once.

A thread's rows of pixels are loaded as whole vectors of 16 bytes from the multiple of 16 below, and shifted into place in registers;
threads whose pixels touch the image's left or right end load them one by one, from where the border says.  Each row of pixels is
multiplied with every row of taps that meets it, so it is loaded once for all rows of the tile.

Order of accumulation per output: channel; group of columns of taps, of 8, the last of 4 to 11; ``ky``; ``kx``; from the bias; every
product fused.  Integer sums wrap, so their order is not told.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ..planning import card_cost
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from . import border
from .addends import finishing
from .arithmetic import SIZES
from .byte_tile import ByteThread
from .compile import Kernel
from .copy import on_device
from .direct_tile import AT, EXTENTS, GROUP, LAST, WARPS, Spec, Thread
from .driver import MOST_GRID, parts
from .driver import Launch as DriverLaunch
from .finish import SUMS, Results, addresses, cannot_finish, finish_values, parameters, tail_of, unknown
from .simd import VECTOR
from .target import LANES, Target

CASES = (
    "ih40iw300_k3_p1", "ih70iw150_k5_p2_reflect", "n2_g3_ic3ih19iw140_oc3k7_p3_wrap_bias+relu", "ih33iw261_kh9kw11_p4_symmetric",
    "ic3ih20iw70_oc4k3_s2_p1", "ih30iw90_k3_sh2sw1_d2_p2_edge", "ih21iw77_k3_sh1sw3_dh3dw2", "ih40iw200_k3_p1_u8:u8:u8:u8",
    "ih30iw140_k5_p2_u8:f32:u8:f32_saturate", "ih24iw130_k3_u16:f32:f32:f32", "ih24iw130_k5_p2_f16:f16:f16:f32",
    "ih24iw130_k3_p1_f64", "ih40iw200_k7_p3_u8:i8:i32:i32", "ih20iw90_kh3kw13_p6_i8:i8:i32:i32", "ih20iw90_k3_s2_u8:i8:i32:i32",
    "ic2ih24iw130_oc3k5_p2_bf16:bf16:bf16:f32_bias", "ih24iw131_k3_s2_p1_edge_bf16:bf16:bf16:f32", "ih9iw40_kh3kw13_p6_bf16:f32:f32:f32",
    "n2_ic2ih11iw37_oc3k3_p1_bias+scale+shift+residual+relu", "ih12iw40_k3_p1_u8:i8:i8:i32_bias+scale+shift+leaky-relu:0.1+saturate:5",
    "ih9iw40_k5_p2_f16:f16:f16:f32_half+scale+residual", "ic2ih9iw20_oc3k3_s3_nhwc_hwio_f64_scale+residual+relu6",
    "ih12iw140_k3_p1_u8:f64:u8:f64_half-up", "ih9iw90_k11_s2_p1_f32:f64:f64:f64", "ih9iw90_kh3kw13_p2_i32:i64:i64:i64",
    "ih9iw90_k5_p2_edge_u8:f64:u8:f64_scale+shift+residual+relu+saturate",
)  # fmt: skip


class Tile(NamedTuple):
    """A thread's results, ``px`` wide and ``rows`` deep, for pixels of ``size`` bytes; what its kernels may take."""

    size: int
    fixed: int  # width and height of the taps that stay in registers, or 0
    px: int
    rows: int
    registers: int
    blocks: int  # of 128 threads on a multiprocessor, at least
    scaled: int = 0  # how many fewer where sums are scaled, which takes a few registers more
    wide: bool = False  # whether it is for sums of 8 bytes of narrower pixels


# sums; a row of pixels; the taps of a row, or all that are fixed; addresses
TILES = (
    Tile(1, 3, px=8, rows=8, registers=168, blocks=3, scaled=1),  # 64 + 12 + 9
    Tile(1, 5, px=8, rows=4, registers=128, blocks=4, scaled=1),  # 32 + 12 + 25
    Tile(1, 0, px=8, rows=4, registers=128, blocks=4),  # 32 + 20 + 12
    Tile(2, 3, px=8, rows=4, registers=128, blocks=4),
    Tile(2, 5, px=8, rows=4, registers=128, blocks=4),
    Tile(2, 0, px=8, rows=4, registers=128, blocks=4),
    Tile(4, 3, px=4, rows=8, registers=168, blocks=3),  # 32 + 8 + 9, and rows on their way: memory is the limit
    Tile(4, 5, px=4, rows=8, registers=168, blocks=3, scaled=1),  # 32 + 8 + 25
    Tile(4, 0, px=8, rows=8, registers=168, blocks=3),  # 64 + 20 + 12: multiply-adds are the limit
    Tile(8, 0, px=2, rows=8, registers=128, blocks=4),
    Tile(2, 0, px=8, rows=2, registers=248, blocks=2, wide=True),  # 32 + 50 + 22, of stride 2, and their products where they are int64
    Tile(4, 0, px=4, rows=4, registers=168, blocks=3, wide=True),  # 32 + 34 + 22
)
MOST_SHARED = 48 << 10  # bytes of the taps of one channel


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
    thread = (ByteThread if s.dots else Thread)(e, s, at, v, x, ox, row0, col0)

    def channel(c: Any, sums: list[Any]) -> list[Any]:
        plane, taps = image + at.sc * c, wei + at.wc * c
        if not s.fixed:
            thread.stage(taps, warp * LANES + lane)
        return e.when(present, sums, lambda sums: thread.add(plane, taps, sums))

    sums = e.loop(x.icg, sums, channel)

    def store(nothing: list[Any]) -> list[Any]:
        results = Results(e, s, at, v, x)
        scaling = results.scaling(o)
        for j in range(s.rows):
            oy = phase + (j0 + j) * x.phases
            row = sums[j * s.px : (j + 1) * s.px]
            line = at.dst + at.dn * n + at.dc * o + at.dy * oy

            def one(nothing: list[Any], row: list[Any] = row, line: Any = line) -> list[Any]:
                first = line + at.dx * ox

                def place(i: int) -> Any:
                    return first + at.dx * i

                results.store(row, [scaling] * s.px, place, x.ow - ox, x.dense > 0 if s.h else False)
                return nothing

            e.when(oy < x.oh, [], one)
        return nothing

    e.when(present, [], store)


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real; taps of a channel fit shared memory; rows and columns of pixels are counted in 32 bits."""
    roundings = (None, "saturate", "half_up")
    reason = not_computed(p, "fwd", roundings=roundings, scalings=True, halves=True, bfloat=True, bfloat_weights=True)
    reason = reason or cannot_finish(p)
    if reason is not None:
        return reason
    if (
        max(p.ih_padded + p.kh_span, p.iw_padded + p.kw_span, p.oh * p.sh, p.ow * p.sw) * 8 >= 2**30
        or p.taps >= 2**31
        or max(p.oc, p.n) > MOST_GRID[1]
    ):
        return "counts rows and columns in 32 bits, and channels and images in 16"
    if p.kh * _pitch(p) * SIZES[SUMS[p.acc]] > MOST_SHARED:
        return f"keeps a channel's taps in {MOST_SHARED >> 10} KiB"
    return None


def cost(p: Problem, t: Target) -> float:
    return card_cost.direct_seconds(p, t.bandwidth, t.fma)


def most_kernels(t: Target) -> int:
    """Of each type: widths of the last group, alone or not, at strides 1 and 2, and fixed ones, at each phase; one more."""
    phases, fixed = 1 + VECTOR // 4, max(sum(tile.size == size and tile.fixed > 0 for tile in TILES) for size in (1, 2, 4))
    return phases * (2 * (LAST + GROUP) + fixed) + 1


def _pitch(p: Problem) -> int:
    """Taps from one row to the next in shared memory: whole vectors of them can be read from the first of any group on."""
    return parts(p.kw, 4) * 4


def _spec(p: Problem, dense: bool, phase: int, fits: bool = True) -> Spec:
    """The kernel's for pixels that are dense or not, the phase of all rows where they have the same, and whether the fill
    value is one of a pixel.
    """
    sw, dw = p.sw if p.ow > 1 else 1, p.dw if p.kw > 1 else 1
    h = sw if dense and dw == 1 and sw <= 2 else 0
    fixed = p.kh if h == p.sh == 1 and p.kh == p.kw else 0
    tile = max((tile for tile in TILES if tile.fixed in (0, fixed) and _fit(tile, p.src, p.acc)), key=lambda tile: tile.fixed)
    last = p.kw if tile.fixed else _last(p.kw)
    full = int(h > 0 and p.kw > last)
    rounding = parse_epilogue(p.epilogue).rounding or ""
    phase = phase if h and SIZES[p.src] >= 4 else -1
    dots = int(_are_bytes(p) and h == 1 and fits)
    return Spec(p.src, _taps(p), p.acc, p.dst, rounding, tile.px, tile.rows, h, full, last if h else 1, tile.fixed, dots, phase,
                tail_of(p))  # fmt: skip


def _fit(tile: Tile, src: str, acc: str) -> bool:
    """Whether a tile is for pixels and sums of these types."""
    pixel, sums = SIZES[src], SIZES[SUMS[acc]]
    return tile.size == max(pixel, sums // 4) and tile.wide == (pixel < sums == 8)


def _last(kw: int) -> int:
    """Columns of taps in the last group."""
    least = LAST + 1 - GROUP
    return kw if kw <= LAST else least + (kw - least) % GROUP


def _are_bytes(p: Problem) -> bool:
    """Whether pixels and taps can be multiplied four at a time."""
    return SIZES[p.src] == SIZES[p.wei] == 1 and "b8" not in (p.src, p.wei) and SUMS[p.acc] == "i32"


def _taps(p: Problem) -> str:
    return p.wei if _are_bytes(p) else SUMS[p.acc]


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    tile = next(tile for tile in TILES if tile.fixed == s.fixed and _fit(tile, s.src, s.acc))
    how = f"k{s.fixed}" if s.fixed else f"h{s.h}" + (f"w{GROUP * s.full}_{s.last}" if s.h else "")
    how += f"_at{s.phase}" * (s.phase >= 0)
    how += "_dots" * s.dots
    blocks = tile.blocks - tile.scaled * bool(s.tail)
    registers = tile.registers if blocks == tile.blocks else min(65536 // (LANES * WARPS * blocks) // 8 * 8, 255)
    types = "_".join(filter(None, (s.src, s.wei if s.wei != SUMS[s.acc] else "", s.acc, s.dst, s.rounding, s.tail)))
    return Kernel(f"direct_{types}_{s.rows}x{s.px}_{how}", body, s, *parameters(AT, s), EXTENTS, (LANES, WARPS, 1),
                  registers, shared=not s.fixed, blocks=blocks, vectors=s.h > 0, fused=s.acc[0] == "f")  # fmt: skip


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases, which every test of machine code compiles."""
    problems = [Problem.parse(case) for case in CASES]
    return tuple(dict.fromkeys(kernel_of(_spec(p, True, -p.pl * SIZES[p.src] % VECTOR)) for p in problems))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan that packs nothing, unless weights have another type than sums."""
    dense = p.src_layout == "nchw" or p.ic == p.oc == 1
    name = kernel_of(_spec(p, dense, -p.pl * SIZES[p.src] % VECTOR)).name

    def prepare(plan: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        size = SIZES[p.src]
        dense = src.strides[3] == size
        # every row begins at the same place between multiples of 16 where images, channels and rows are multiples apart
        alike = all(stride % VECTOR == 0 or extent == 1 for stride, extent in zip(src.strides[:3], src.shape[:3], strict=True))
        start = src.address % VECTOR
        phase = (start - p.pl * size) % VECTOR
        known = _spec(p, dense, phase if alike and phase % size == 0 else -1, _fits(p, fill))
        launch, other = _launch(p, known, src, packed, dst, fill), None

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            nonlocal other
            chosen = launch
            if known.phase >= 0 and src.address % VECTOR != start:
                if other is None:
                    other = _launch(p, known._replace(phase=-1), src, packed, dst, fill)
                chosen = other
            chosen(src.stream, src.address, packed.address, *addresses(bias, dst))

        return finishing(p, run)

    return Plan(problem=p, algorithm="direct", kernel=name, cost=cost(p, t), pack_weights=packed_weights, prepare_launch=prepare)


def _fits(p: Problem, fill: Any) -> bool:
    """Whether what lies outside the image can be told in the pixels' type, or changes nothing but bits that the sums do not have."""
    if p.border != "constant" or SIZES[p.acc] == 1 or p.src[0] not in "iu":
        return True
    limits = np.iinfo(DTYPES[p.src])
    return bool(limits.min <= np.asarray(fill).astype(DTYPES[p.acc]) <= limits.max)


def _launch(p: Problem, s: Spec, src: Any, packed: Any, dst: Any, fill: Any) -> DriverLaunch:
    finish = parse_epilogue(p.epilogue)
    sh = p.sh if p.oh > 1 else 1
    dh = p.dh if p.kh > 1 else sh
    q, k = sh // gcd(sh, dh), dh // gcd(sh, dh)
    held, phases = min(q, p.kh), min(k, p.oh)
    tiles, bands = parts(p.ow, LANES * s.px), parts(parts(p.oh, k), WARPS * s.rows)
    extents = {
        "tiles": tiles, "bands": bands, "icg": p.ic // p.g, "ocg": p.oc // p.g, "oh": p.oh, "ow": p.ow, "kh": p.kh, "kw": p.kw,
        "sw": p.sw if p.ow > 1 else 1, "dw": p.dw, "pt": p.pt, "pl": p.pl, "phase_rows": sh, "tile_rows": q * dh, "row_step": dh,
        "row_jump": (q - held + 1) * dh, "held": held, "phases": k, "padded": p.ih_padded, "pitch": _pitch(p), "last": _last(p.kw),
        "biased": int(finish.bias), "activated": int(finish.activation is not None), "dense": int(dst.strides[3] == SIZES[p.dst]),
    }  # fmt: skip
    assert tuple(extents) == EXTENTS[: len(extents)]
    axes = (*border.border_fields(p.border, p.ih, -p.pt), *border.border_fields(p.border, p.iw, -p.pl))
    shared = 0 if s.fixed else p.kh * _pitch(p) * SIZES[SUMS[p.acc]]
    if s.dots:
        extents["pitch"], shared = parts(p.kw, 4), p.kh * parts(p.kw, 4) * 4
    return DriverLaunch(kernel_of(s), (tiles * bands * phases, p.oc, p.n), (*unknown(s.tail), *src.strides, *packed.strides, *dst.strides),
                        finish_values(p, fill), (*extents.values(), *axes), shared, src.device)  # fmt: skip


def packed_weights(p: Problem, wei: Any) -> Any:
    """Weights in the type of the sums, or bytes, on the device."""
    return on_device(wei, _taps(p))
