"""quotient: masked sums as two plain problems, of the valid pixels and of their weights, divided by NumPy.

For what `masked` has no kernel of: strides of three and more, dilated rows, complex numbers, weights of rank 1.  The plain problems are
sums of products, since a transform's noise would hide that a denominator is 0.  Order of accumulation: that of the child plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed
from . import separable
from .target import Target

CASES = ("ih40_k5_p2_d2_f64_masked", "ih64iw90_k9_p4_reflect_f32_masked_structure=rank1", "ih20_k3_p1_c128_masked",
         "n2_ic3ih30_oc4k3_s3_f32_nhwc_masked")  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """Masked, floats or complex numbers."""
    reason = not_computed(p, "fwd", masked=True)
    if reason is not None:
        return reason
    if DTYPES[p.acc].kind not in "fc" or p.acc != p.dst:
        return f"sums in floats or complex numbers, not {p.acc} for {p.dst}"
    return f"does not fuse {p.epilogue}" if p.epilogue else None


def cost(p: Problem, t: Target) -> float:
    plain = _plain(p)
    seconds = separable.cost(plain, t) if separable.reject(plain, t) is None else p.flops / costs.CHILD_FLOPS_PER_SECOND
    return costs.quotient_seconds(p, seconds)


def most_kernels(t: Target) -> int:
    return 0


def _plain(p: Problem) -> Problem:
    """The problem of either sum."""
    return p.replace(masked=False, src=p.acc)


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A child plan for both sums."""
    plain = _plain(p)
    if separable.reject(plain, t) is None:
        child = separable.build(plain, t, plan, threads)
    else:
        child = plan(plain.replace(precision="strict"), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        acc = DTYPES[p.acc]
        like = np.empty_like(src, acc), np.empty_like(dst, acc)
        sums = child.prepare(like[0], packed, like[1], 0)

        def launch(src: np.ndarray, packed: np.ndarray, mask: np.ndarray | None, dst: np.ndarray) -> None:
            valid = ~np.isnan(src) if mask is None else mask.view(np.bool_).reshape(src.shape)
            total, weight = np.empty_like(dst, acc), np.empty_like(dst, acc)
            for result, pixels in ((total, np.where(valid, src, 0)), (weight, valid)):
                image = np.empty_like(src, acc)
                with np.errstate(all="ignore"):
                    image[...] = pixels
                sums(image, packed, None, result)
            with np.errstate(all="ignore"):
                np.divide(total, weight, out=total)
            np.copyto(dst, np.where(weight == 0, acc.type(np.nan), total))

        return launch

    return Plan(problem=p, algorithm="quotient", kernel="numpy", cost=cost(p, t), pack_weights=lambda p, wei: child.pack(wei),
                prepare_launch=prepare, workspace=child.workspace, threads=threads, children=(child,))  # fmt: skip
