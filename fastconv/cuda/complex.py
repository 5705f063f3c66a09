"""complex: a complex convolution as a real one of twice the channels: (re, im) planes in, (re, im) planes out.

``re = sum re*w.re - im*w.im`` and ``im = sum re*w.im + im*w.re``: the products of the direct formula, so NaN and inf fall where it puts
them.  Order of accumulation: that of the real child plan, which adds products and transforms nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, OPS, Problem, not_computed
from . import plain
from .arrays import DeviceArray
from .copy import copied, filled, new
from .pointwise import applied
from .target import Target

CASES = ("ih9iw20_k3_p1_c64", "n2_g2_ic4ih5iw7_oc6k3_s2_p1_symmetric_c128_bias", "g2_ic4ih4iw6_oc2k3_s2_p1_c64_bwd-data_bias",
         "ic2ih4iw5_oc3k2_p1_c128_bwd-weight")  # fmt: skip
_REAL = {"c64": "f32", "c128": "f64"}


def reject(p: Problem, t: Target) -> str | None:
    """Accumulator complex64 or complex128, and nothing behind it but a bias."""
    reason = not_computed(p, *OPS)
    if reason is not None:
        return reason
    if p.acc not in _REAL or p.dst != p.acc:
        return f"the accumulator {p.acc} for {p.dst} is not complex64 or complex128"
    if "fld" in (p.src, p.wei) or "cld" in (p.src, p.wei):
        return f"does not load {p.src} or {p.wei}"
    return None if p.epilogue in ("", "bias") else f"does not fuse {p.epilogue}"


def _real(p: Problem) -> Problem:
    kind = _REAL[p.acc]
    return p.replace(src=kind, wei=kind, dst=kind, acc=kind, ic=2 * p.ic, oc=2 * p.oc, structure="full", shared=False, src_layout="nchw",
                     wei_layout="oihw", precision="strict")  # fmt: skip


def _padded(p: Problem) -> Problem:
    """The problem on images whose border is written out."""
    return p.replace(ih=p.ih_padded, iw=p.iw_padded, pt=0, pb=0, pl=0, pr=0)


def cost(p: Problem, t: Target) -> float:
    return plain.cost(_real(p), t)


def most_kernels(t: Target) -> int:
    """None of its own: its children's are counted with their algorithms."""
    return 0


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A child plan for the real problem."""
    child, kind, images = plan(_real(p), t), DTYPES[_REAL[p.acc]], {"fwd": "oc", "bwd_data": "ic", "bwd_weight": ""}[p.op]

    def planes(src: Any, shape: tuple[int, ...]) -> Any:
        """Memory for the planes of images of (n, channels, h, w), and a view of them by group and part."""
        n, c, h, w = shape
        made = new(src, (n, 2 * c, h, w), kind)
        return made, made.reshape((n, p.g, 2, c // p.g, h, w))

    def staged(src: Any, fill: complex, padded: bool) -> Any:
        n, c, h, w = src.shape
        shape = (n, c, p.ih_padded, p.iw_padded) if padded else src.shape
        made, parts = planes(src, shape)
        for number, part in enumerate((src.part(0), src.part(1)) if src.dtype.kind == "c" else (src, None)):
            to = parts[:, :, number : number + 1]
            if padded or part is None:
                filled(to, (fill.real, fill.imag)[number] if padded else 0)
            if padded:
                to = to[..., p.pt : p.pt + h, p.pl : p.pl + w]
            if part is not None:
                copied(part.reshape((n, p.g, 1, c // p.g, h, w)), to)
            elif padded:
                filled(to, 0)
        return made

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        fill = complex(fill)
        # the border of either part has another value
        padded = p.op != "bwd_data" and p.border == "constant" and p.pt + p.pb + p.pl + p.pr > 0 and fill.real != fill.imag
        real = plan(_real(_padded(p)), t) if padded else child

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            image = staged(src, fill, padded)
            if p.op == "bwd_weight":
                wei: Any = staged(packed, 0, False)
                sums: Any = new(src, (2 * p.oc, 2 * p.ic // p.g, p.kh, p.kw), kind)
                real.run(image, real.pack(wei), None, sums, fill.real)
                _combined(p, sums, dst)
                return
            addends: Any = None
            if bias is not None:
                addends = new(src, (bias.size * 2,), kind)
                halves = addends.reshape((p.g, 2, bias.size // p.g))
                for number in (0, 1):
                    copied(bias.part(number).reshape((p.g, 1, bias.size // p.g)), halves[:, number : number + 1])
            result, parts = planes(src, dst.shape)
            real.run(image, packed, addends, result, fill.real)
            n, c, h, w = dst.shape
            for number in (0, 1):
                copied(parts[:, :, number : number + 1], dst.part(number).reshape((n, p.g, 1, c // p.g, h, w)))

        return run

    def pack(p: Problem, wei: Any) -> Any:
        return wei if p.op == "bwd_weight" and isinstance(wei, DeviceArray) else child.pack(_weights(p, wei, images == "ic"))

    return Plan(problem=p, algorithm="complex", kernel="planes", cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                children=(child,))  # fmt: skip


def _combined(p: Problem, sums: Any, dst: Any) -> None:
    """The gradient of weights from the real one's of all pairs of parts."""
    parts = sums.reshape((p.g, 2, p.oc // p.g, 2, p.ic // p.g, p.kh, p.kw))
    shape = (p.g, 1, p.oc // p.g, 1, p.ic // p.g, p.kh, p.kw)

    def pair(i: int, j: int) -> Any:
        return parts[:, i : i + 1, :, j : j + 1]

    kind = _REAL[p.acc]
    applied("subtract", kind, dst.part(0).reshape(shape), pair(0, 0), pair(1, 1))
    applied("add", kind, dst.part(1).reshape(shape), pair(0, 1), pair(1, 0))


def _weights(p: Problem, wei: Any, backward: bool) -> Any:
    """Real weights ``[g, out part, oc/g, in part, ic/g, kh, kw]`` as ``(2 oc, 2 ic/g, kh, kw)``, where ``wei`` is."""
    shape = (p.g, 2, p.oc // p.g, 2, p.ic // p.g, p.kh, p.kw)
    negative = (1, 0) if backward else (0, 1)
    if not isinstance(wei, DeviceArray):
        packed = np.zeros(shape, DTYPES[_REAL[p.acc]])
        grouped = wei.astype(DTYPES[p.acc]).reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw)
        packed[:, 0, :, 0] = packed[:, 1, :, 1] = grouped.real
        packed[:, 0, :, 1] = packed[:, 1, :, 0] = grouped.imag
        packed[:, negative[0], :, negative[1]] *= -1
        return packed.reshape(2 * p.oc, 2 * (p.ic // p.g), p.kh, p.kw)
    made = new(wei, shape, DTYPES[_REAL[p.acc]])
    if wei.dtype.kind != "c":
        filled(made, 0)  # the pairs of a real and an imaginary part
    for number, part in enumerate((wei.part(0), wei.part(1)) if wei.dtype.kind == "c" else (wei,)):
        part = part.reshape((p.g, 1, p.oc // p.g, 1, p.ic // p.g, p.kh, p.kw))
        for i in (0, 1):
            j = i if number == 0 else 1 - i
            copied(part, made[:, i : i + 1, :, j : j + 1], "opposite" if number and (i, j) == negative else "")
    return made.reshape((2 * p.oc, 2 * (p.ic // p.g), p.kh, p.kw))
