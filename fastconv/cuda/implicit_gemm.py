"""implicit_gemm: many channels; weights times the matrix of pixels under each tap, which is never built.

A thread's result is ``tm`` output channels at ``tn`` pixels, in registers; each weight and pixel in shared memory is read as part of a
vector of 16 bytes.  See gemm_block.py for what a block does.

Order of accumulation per output: from the bias; ``ky``; ``kx``; channel; every product fused.  It depends on nothing else.
"""

from __future__ import annotations

from typing import Any

from ..planning import card_cost
from ..planning.plans import Plan
from ..planning.problem import Problem
from .compile import Kernel
from .finish import SUMS, parameters
from .gemm_block import (
    AT,
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
from .products import Products
from .simd import VECTOR
from .target import Target

CASES = (
    "ic9ih6iw7_oc20k3_p1_bias+relu", "n2_ic16ih5_oc40k1_nhwc_hwio", "g2_ic20ih6iw9_oc40k3_s2_p1_nhwc_hwio_bias",
    "n3_ic8ih7iw6_oc70k2_d2_p2_reflect", "ic12ih6iw5_oc130k1_f64", "ic10ih7iw9_oc33k3_p1_nhwc_hwio_f16:f16:f16:f32",
    "ic9ih6iw9_oc18k3_wrap_p2_u8:i8:i32:i32", "ic16ih9iw11_oc140kh1kw3_pw1_edge_f32",
    "ic24ih7iw9_oc33k3_p1_nhwc_hwio_bf16:bf16:bf16:f32_bias+relu6", "ic9ih6iw9_oc18k3_p1_bf16:f32:f32:f32",
    "n2_ic9ih6iw7_oc20k3_p1_bias+scale+shift+residual+relu6", "ic16ih5_oc128k1_nhwc_hwio_u8:i8:u8:i32_bias+scale+residual+saturate:128",
    "ic8ih7iw6_oc64k3_p1_nhwc_hwio_f16:f16:f16:f32_halves+scale+shift+residual+relu", "ic12ih6iw5_oc70k1_f64:f64:f32:f64_shift+residual",
    "ic9ih5iw6_oc128k1_u8:i8:u8:i32_bias+scale+shift+residual+saturate",
)  # fmt: skip


# 64 sums of 4 bytes, 16 operands, the vectors on their way, addresses
TILES = (
    Tile(4, bm=128, bn=128, tm=8, tn=8, registers=128, blocks=2),
    Tile(4, bm=64, bn=128, tm=8, tn=8, registers=168, blocks=3),
    Tile(4, bm=32, bn=128, tm=4, tn=8, registers=128, blocks=4),
    Tile(8, bm=64, bn=64, tm=4, tn=4, registers=128, blocks=2),
)


class Threads(Products, Block):
    """Products by the threads' own multiply-adds."""

    @property
    def adjacent(self) -> tuple[int, int]:
        """A vector of each."""
        return VECTOR // self.size, VECTOR // self.size


def body(e: Any, s: Spec, at: Any, v: Any, x: Any) -> None:
    """``dst[n, o, oy, ox] = finish(bias[o] + sum_{ky, kx, c} src[n, c, oy sh + ky dh - pt, ox sw + kx dw - pl] wei[o, c, ky, kx])``.

    Weights lie as `pack_body` puts them.  Pixels of a block are those of the batch in the order ``(n, oy, ox)``; beyond the last one the
    last is computed again and not stored.
    """
    Threads(e, s, at, v, x).run()


def reject(p: Problem, t: Target) -> str | None:
    """Forward, real; what is counted fits 32 bits."""
    return cannot_multiply(p, TILES)


def cost(p: Problem, t: Target) -> float:
    """Multiplications in whole tiles."""
    return card_cost.gemm_seconds(p, padded_products(p, best_tile(p, TILES)), t.bandwidth, t.fma * card_cost.GEMM_SHARE)


def most_kernels(t: Target) -> int:
    """Of each type: tiles, in both layouts, and the kernels that pack for them."""
    return 3 * max(sum(tile.size == size for tile in TILES) for size in (4, 8))


def kernel_of(s: Spec) -> Kernel:
    """The kernel of a specialisation."""
    types = "_".join(filter(None, (s.src, s.acc, s.dst, s.rounding, s.tail)))
    name = f"implicit_gemm_{types}_{s.tile.bm}x{s.tile.bn}" + suffix(s)
    return Kernel(name, body, s, *parameters(AT, s), EXTENTS, (s.tile.threads, 1, 1), s.tile.registers, shared=True,
                  blocks=s.tile.blocks, fused=s.acc[0] == "f")  # fmt: skip


def kernels(t: Target) -> tuple[Kernel, ...]:
    """Those of the cases, which every test of machine code compiles."""
    found = []
    for case in CASES:
        p = Problem.parse(case)
        tile = best_tile(p, TILES)
        found += [kernel_of(spec_of(p, tile)), pack_kernel(p.wei, SUMS[p.acc], tile.bm)]
    return tuple(dict.fromkeys(found))


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose weights are packed for one tile."""
    return gemm_plan(p, "implicit_gemm", best_tile(p, TILES), kernel_of, cost(p, t))
