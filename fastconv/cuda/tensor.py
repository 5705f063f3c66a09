"""tensor: many channels on tensor cores, under ``precision="fast"``: float32 rounded to 11 significant bits, float16 and bfloat16 as they
are, summed in float32.

A warp's result is 64 or 32 output channels at 32 pixels.  See gemm_block.py for what a block does; here rows of its shared memory lie 8
words further apart, so that the 32 that a warp reads at once are in 32 banks.  Images and weights that are both float16, or bfloat16, stay
so: a word holds two channels, and a step multiplies 16.

Order of accumulation per output: from the bias; ``ky``; ``kx``; eight channels at a time, of types of 16 bits 16, in the order of the
hardware.  Products of these are exact, but the hardware's sums of them are not rounded to nearest: precision "default" adds them up as
all other types, by fused multiply-adds of float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..planning import card_cost
from ..planning.bfloat import narrowed, widened
from ..planning.plans import Launch, Plan
from ..planning.problem import Problem
from .compile import Kernel
from .finish import SUMS, parameters
from .gemm_block import (
    AT,
    DEPTH,
    EXTENTS,
    Block,
    Spec,
    Tile,
    best_tile,
    cannot_multiply,
    gemm_plan,
    pack_kernel,
    padded_products,
    spec_of,
    suffix,
)
from .target import LANES, Target

CASES = (
    "ic9ih6iw7_oc20k3_p1_bias+relu_fast", "ic37ih6iw7_oc20k3_p1_f16:f16:f32:f32_bias+relu_fast", "n2_ic16ih5_oc40k1_nhwc_hwio_fast",
    "g2_ic20ih6iw9_oc70k3_s2_p1_reflect_fast", "ic20ih7iw9_oc130k3_p1_nhwc_hwio_f16:f16:f16:f32_fast",
    "n2_ic32ih5_oc40k1_p1_nhwc_hwio_f16:f16:f16:f32_fast", "ic10ih7iw9_oc33k3_p1_f16:f32:f32:f32_fast",
    "n2_ic32ih5_oc40k1_p1_nhwc_hwio_bf16:bf16:bf16:f32_fast", "ic37ih6iw7_oc20k3_p1_bf16:bf16:f32:f32_bias+relu_fast",
    "ic20ih7iw9_oc130k3_p1_nhwc_hwio_bf16:bf16:bf16:f32_fast", "ic10ih7iw9_oc33k3_p1_bf16:f32:bf16:f32_fast",
    "n2_ic9ih6iw7_oc20k3_p1_bias+scale+shift+residual+relu_fast",
    "ic20ih7iw9_oc128k3_p1_nhwc_hwio_f16:f16:f16:f32_halves+scale+shift+residual_fast",
    "ic9ih6iw7_oc20k3_p1_nhwc_bias+scale+shift+residual+relu6+saturate_f32:f32:u8:f32_fast",
    "ic20ih5iw7_oc128k1_nhwc_bf16:bf16:u8:f32_scale+shift+residual+relu+saturate:5_fast",
)  # fmt: skip
# 64 or 32 sums, 16 + 8 operands, the vectors on their way, addresses
TILES = (
    Tile(4, bm=128, bn=128, tm=8, tn=8, registers=128, blocks=2),
    Tile(4, bm=64, bn=128, tm=8, tn=8, registers=168, blocks=3),
    Tile(4, bm=32, bn=128, tm=4, tn=8, registers=128, blocks=4),
)
SPARE = 8
LEAST_CC = (8, 0)  # the first whose tensor cores take float32 and bfloat16
WARP_PIXELS = 32


class Warps(Block):
    """Products by tensor cores."""

    spare = SPARE

    @property
    def adjacent(self) -> tuple[int, int]:
        """Pairs of pixels."""
        return 1, 2

    def corner(self) -> tuple[Any, Any, int]:
        """The warp's first channel and pixel in the block, and its channels."""
        tile = self.s.tile
        channels, across = 8 * tile.tm, tile.bn // WARP_PIXELS
        warp = self.t // LANES
        return warp // across * channels, warp % across * WARP_PIXELS, channels

    def kept(self, value: Any) -> Any:
        """Rounded once, as it is brought to shared memory."""
        return value if self.s.factor else self.e.tf32(value)

    def multiply(self, buffer: Any, sums: list[Any]) -> list[Any]:
        """Add the products of the channels in a buffer."""
        m, n, channels = self.corner()
        base = self.e.shared() + buffer
        wei, src = base + m * self.size, base + (n + DEPTH * self.pitch_m) * self.size
        return self.e.warp_products(self.s.factor or "tf32", wei, src, (self.pitch_m, self.pitch_n), (channels, WARP_PIXELS), sums)

    def places(self) -> tuple[list[Any], list[Any]]:
        """What the thread's sums stand for, as `warp_products` says."""
        m, n, channels = self.corner()
        lane = self.t % LANES
        return (
            [m + 16 * i + half + lane // 4 for i in range(channels // 16) for half in (0, 8)],
            [n + 8 * j + k + lane % 4 * 2 for j in range(WARP_PIXELS // 8) for k in (0, 1)],
        )


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, o, oy, ox] = finish(bias[o] + sum_{ky, kx, c} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[o, c, ky, kx])``.

    Weights lie as `pack_body` puts them; pixels and weights are rounded to 11 bits, which float16 has, before they are multiplied.
    """
    Warps(e, s, at, v, x).run()


def reject(p: Problem, t: Target) -> str | None:
    """``precision="fast"``, sums in float32, tensor cores that multiply float32, bfloat16, and 16 channels of float16 at once."""
    if p.precision != "fast":
        return "rounds pixels and weights to 11 bits, and sums not to nearest, which only precision fast allows"
    if t.cc < LEAST_CC:
        return f"needs compute capability {LEAST_CC[0]}.{LEAST_CC[1]}"
    if p.acc != "f32":
        return f"sums in f32, not {p.acc}"
    return cannot_multiply(p, TILES)


def factor(p: Problem) -> str:
    """The type that is multiplied, where it is not that of sums, rounded."""
    return p.src if p.src == p.wei in ("f16", "bf16") and p.acc == "f32" else ""


def cost(p: Problem, t: Target) -> float:
    """Multiplications in whole tiles."""
    products = padded_products(p, best_tile(p, TILES), factor(p))
    return card_cost.gemm_seconds(p, products, t.bandwidth, t.fma * card_cost.TENSOR_RATES[factor(p) or "tf32"])


def most_kernels(t: Target) -> int:
    """Of each type: tiles, in the three ways that channels lie, and the kernels that pack for them."""
    return 4 * len(TILES)


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    types = "_".join(filter(None, (s.src, s.acc, s.dst, s.rounding, s.tail)))
    name = f"tensor_{types}_{s.tile.bm}x{s.tile.bn}" + suffix(s) + f"_of_{s.factor}" * bool(s.factor)
    return Kernel(name, body, s, *parameters(AT, s), EXTENTS, (s.tile.threads, 1, 1), s.tile.registers, shared=True,
                  blocks=s.tile.blocks)  # fmt: skip


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases, which every test of machine code compiles; none for cards without such tensor cores."""
    found = []
    for case in CASES if t.cc >= LEAST_CC else ():
        p = Problem.parse(case)
        tile = best_tile(p, TILES)
        found += [kernel_of(spec_of(p, tile, None, factor(p))), pack_kernel(p.wei, factor(p) or SUMS[p.acc], tile.bm)]
    return tuple(dict.fromkeys(found))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose weights are packed for one tile.

    Its preparation raises ValueError where the border's fill value is to be multiplied, but beyond float16, or none of bfloat16.
    """
    plan = gemm_plan(p, "tensor", best_tile(p, TILES), kernel_of, cost(p, t), SPARE, factor(p))
    return replace(plan, prepare_launch=_checked(plan.prepare_launch)) if factor(p) and p.border == "constant" else plan


def _is_factor(name: str, fill: float) -> bool:
    """Whether a finite number rounded to a type of 16 bits is as near as all factors are: to 11 bits."""
    if name == "f16":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float16(fill)))
    return bool(widened(narrowed(fill)) == fill)


def _checked(prepare: Any) -> Any:
    """A plan's preparation, behind a look at the fill value."""

    def checked(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        kind = factor(own.problem)
        if np.isfinite(fill) and not _is_factor(kind, fill):
            name = {"f16": "float16", "bf16": "bfloat16"}[kind]
            raise ValueError(f"a fill value of {fill} is none of {name}, which tensor cores multiply: use precision 'default'")
        return cast("Launch", prepare(own, src, packed, dst, fill))

    return checked
