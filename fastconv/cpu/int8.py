"""int8: many channels of 8 bits, summed in 32: the tiles of `blocked` over elements of four bytes or two words.

Bytes where the target adds four products at once (VNNI) and the weights have a sign; there the image's bytes have none, or are made so
by adding 128, which is taken out of the sums again.  Otherwise words of 16 bits, two products at a time, as for weights of 16 bits, which
weights of 8 bits less their zero point are.  Sums wrap, as every integer sum: they are exact on each target, in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning import reference
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue, parse_scaling
from . import blocked
from .blocked import Body, tile_of, workspace
from .blocked_pack import FilterPacker, flipped
from .blocked_tile import Form
from .border import too_large
from .convert import dot_way
from .target import Target
from .values import finish_values, holds, not_fused, requantised

CASES = (
    "ic64ih28_oc64k3_p1_u8:i8:i32:i32",
    "n2_ic30ih14_oc40k1_u8:i8:i32:i32_nhwc_hwio_bias",
    "ic17ih20_oc33k5_s2_p2_i8:i8:i32:i32_bias+relu",
    "ic17ih37_oc33k5_s4_p2_i8:i8:i32:i32_bias+relu",
    "g2_ic36ih9_oc40k3_p1_reflect_u8:u8:i32:i32_nhwc",
    "ic17ih9_oc33k3_p1_u8:i16:i32:i32",
)


def reject(p: Problem, t: Target) -> str | None:
    """Forward, images of 8 bits, weights of 8 or 16 with a sign, sums in 32."""
    scaling = parse_scaling(p.epilogue)
    scaled = scaling.scale or scaling.shift
    reason = not_computed(p, "fwd", roundings=(None, "saturate") if p.dst in ("u8", "i8") else (None,), scalings=scaled)
    if reason is not None:
        return reason
    if p.src not in ("u8", "i8") or p.wei not in ("u8", "i8", "i16") or p.acc != "i32":
        return f"sums products of 8 bits in i32, not {p.src} and {p.wei} in {p.acc}"
    if not scaled and (p.dst != "i32" or parse_epilogue(p.epilogue).activation == "leaky_relu"):
        return f"stores sums as i32, not {p.dst}"
    reason = not_fused(p)
    if reason is not None:
        return reason
    return too_large(p, workspace(_elements(p, _form(p, t)), t))


def cost(p: Problem, t: Target) -> float:
    """Of the tiles over elements, which are as wide as float32."""
    r = _elements(p, _form(p, t))
    tile = tile_of(r, t)
    return costs.blocked_seconds(r, t.lanes(4), tile.mr, tile.ny, tile.nx)


def most_kernels(t: Target) -> int:
    """As blocked, for each way to add products."""
    return blocked.most_kernels(t)


def _form(p: Problem, t: Target) -> Form:
    how = dot_way(t.bits, signed=p.wei == "i8")
    scaling = parse_scaling(p.epilogue)
    return Form(kind="i32", q=4 if how == "bytes" else 2, how=how, src=p.src, dst=p.dst, rounding=parse_epilogue(p.epilogue).rounding or "",
                scaled=int(scaling.scale or scaling.shift), residual=int(scaling.residual))  # fmt: skip


def _elements(p: Problem, form: Form) -> Problem:
    """The problem whose channels are elements."""
    return p.replace(ic=p.g * -(-(p.ic // p.g) // form.q), src="i32", wei="i32")


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose weights are packed as blocked's, behind what each output channel's sums are corrected by."""
    form = _form(p, t)
    r, lanes = _elements(p, form), t.lanes(4)
    tile = tile_of(r, t)
    head = p.oc if flipped(form) else 0
    body = Body(r, form, tile, lanes, threads, p.ic // p.g, 4 * head)
    packer = FilterPacker(r, form.kind, lanes, tile.mr * lanes, threads, head)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        packed = packer(r, _packed_elements(wei, form.q))
        packed[0, 0, 0, :head] = flipped(form) * wei.sum((1, 2, 3), dtype=np.int32)[:head]
        return packed

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if not holds(p, fill):
            return _by_reference(p, packer, form, fill)
        return body.prepare(own.threads, _values(p, form, fill), src, packed, dst)

    return Plan(problem=p, algorithm="int8", kernel=body.name, cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=body.scratch * threads, threads=threads)  # fmt: skip


def _packed_elements(wei: np.ndarray, q: int) -> np.ndarray:
    """Weights as ``(oc, ic/g / q, kh, kw)`` elements of 32 bits; channels beyond the last are zeros."""
    oc, icg, kh, kw = wei.shape
    parts = np.zeros((oc, -(-icg // q) * q, kh, kw), np.int8 if q == 4 else np.int16)
    parts[:, :icg] = wei
    parts = parts.reshape(oc, -1, q, kh, kw).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(parts).view(np.int32)[..., 0]


def _values(p: Problem, form: Form, fill: Any) -> np.ndarray:
    """``[fill of an element, slope, low, high, 0, fill of a channel, zero point]``, in 32 bits each."""
    if p.border != "constant":
        fill = 0
    floats = requantised(p, finish_values(p.replace(acc="f32"), 0))
    values = floats.view(np.int32) if form.scaled else finish_values(p, 0)
    part: np.ndarray = np.array([fill], DTYPES[p.src]).astype(np.int8 if form.q == 4 else np.int16)
    values[5] = int(part[0])
    values[0] = np.repeat(np.bitwise_xor(part, part.dtype.type(flipped(form))), form.q).view(np.int32)[0]
    return values


def _by_reference(p: Problem, packer: FilterPacker, form: Form, fill: Any) -> Launch:
    """A launch for a border that no byte holds."""

    def launch(src: np.ndarray, packed: np.ndarray, bias: Any, dst: np.ndarray) -> None:
        elements = np.ascontiguousarray(packer.unpack(packed))
        parts = elements.view(np.int8 if form.q == 4 else np.int16).reshape(*elements.shape, form.q)
        wei = parts.transpose(0, 1, 4, 2, 3).reshape(p.oc, -1, p.kh, p.kw)[:, : p.ic // p.g]
        plan = reference.build(p, None, None)
        plan.run(src, plan.pack(wei), bias, dst, fill)

    return launch
