"""quotient: masked sums as two plain problems, of the valid pixels and of their weights, and their quotient.

The plain problems are sums of products, since a transform's noise would hide that a denominator is 0.  Order of accumulation: that of the
child plan.
"""

from __future__ import annotations

from typing import Any

from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed
from . import direct, plain
from .arrays import DeviceArray
from .copy import new
from .finish import cannot_finish
from .pointwise import applied
from .target import Target

CASES = ("ih9iw20_k3_p1_f32_masked", "ih9iw20_kh3kw4_s2_d2_p3_reflect_u8:f64:f64:f64_masked", "n2_g2_ic2ih7iw9_oc4k3_wrap_p1_f32_masked")


def reject(p: Problem, t: Target) -> str | None:
    """Masked float sums."""
    reason = not_computed(p, "fwd", masked=True) or cannot_finish(p)
    if reason is not None:
        return reason
    if p.acc[0] != "f" or p.acc != p.dst:
        return f"sums in floats, not {p.acc} for {p.dst}"
    return f"does not fuse {p.epilogue}" if p.epilogue else None


def _plain(p: Problem) -> Problem:
    """The problem of either sum."""
    return p.replace(masked=False, src=p.acc, precision="strict", structure="full", src_layout="nchw")


def cost(p: Problem, t: Target) -> float:
    one = _plain(p)
    return 2 * (direct if direct.reject(one, t) is None else plain).cost(one, t)


def most_kernels(t: Target) -> int:
    """None: its child's, and those of single elements."""
    return 0


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A child plan for both sums."""
    child = plan(_plain(p), t)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        kind = DTYPES[p.acc]
        like: Any = [DeviceArray(0, array.shape, None, kind, src.stream, src.device) for array in (src, dst)]
        sums: Any = child.prepare(like[0], packed, like[1], 0)

        def run(src: Any, packed: Any, mask: Any, dst: Any) -> None:
            mask = None if mask is None else mask.reshape(src.shape)
            total, weight = (new(src, dst.shape, kind) for _ in "ab")
            for result, what in ((total, "valid"), (weight, "weight")):
                image = new(src, src.shape, kind)
                if mask is None and src.dtype.kind != "f":  # whose pixels are all numbers
                    applied("convert" if what == "valid" else "one", p.acc, image, src)
                else:
                    applied(what, p.acc, image, src, mask)
                sums(image, packed, None, result)
            applied("ratio", p.acc, dst, total, weight)

        return run

    size = (p.n * p.ic * p.ih * p.iw + 2 * p.n * p.oc * p.oh * p.ow) * DTYPES[p.acc].itemsize
    return Plan(problem=p, algorithm="quotient", kernel="pointwise", cost=cost(p, t), pack_weights=lambda p, wei: child.pack(wei),
                prepare_launch=prepare, workspace=size, children=(child,))  # fmt: skip
