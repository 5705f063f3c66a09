"""activated: activations (sigmoid, tanh, silu, gelu), scalings and requantisations that no kernel fuses, by NumPy from plain sums.

Image by image and in bands of rows that stay in the cache.  Order of accumulation: that of the child plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.addends import Addends, bias_of
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, Scaling, not_computed, parse_epilogue, parse_scaling
from ..planning.reference import finish
from .target import Target

CASES = ("ih64_k3_f64_sigmoid", "ic64ih28_oc64k3_p1_f32_bias+gelu", "n2_ic16ih20_oc24k3_s2_p1_f32_nhwc_hwio_bias+silu",
         "ic8ih20_oc16k3_f16:f16:f16:f32_tanh")  # fmt: skip
_BAND_BYTES = 1 << 18  # of results activated at a time: they and their temporaries stay in the second-level cache
_FUSED = (None, "relu", "relu6", "leaky_relu")


def reject(p: Problem, t: Target) -> str | None:
    """Forward, an activation that the kernels leave, of float sums, or a scaling."""
    scaling = parse_scaling(p.epilogue)
    reason = not_computed(p, "fwd", roundings=(None, "saturate") if scaling != Scaling() else (None,), scalings=True, bfloat=True)
    if reason is not None:
        return reason
    if parse_epilogue(p.epilogue).activation in _FUSED and scaling == Scaling():
        return "the activation is one that kernels fuse, or none"
    if p.acc not in ("f32", "f64") and not (scaling.scale or scaling.shift):
        return f"sums in f32 or f64, not {p.acc}"
    return None


def cost(p: Problem, t: Target) -> float:
    return costs.activated_seconds(p)


def most_kernels(t: Target) -> int:
    return 0


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A child plan of one image without the activation, whose weights are these."""
    has_bias = parse_epilogue(p.epilogue).bias
    child = plan(p.replace(n=1, dst=p.acc, epilogue="bias" if has_bias else ""), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        in_place = dst.dtype == DTYPES[p.acc]
        sums = dst[:1] if in_place else np.empty((1, *dst.shape[1:]), DTYPES[p.acc])
        image = child.prepare(src[:1], packed, sums, fill)
        rows = max(_BAND_BYTES // (p.oc * p.ow * sums.itemsize), 1)

        def launch(src: np.ndarray, packed: np.ndarray, bias: Any, dst: np.ndarray) -> None:
            residual = bias.residual if isinstance(bias, Addends) else None
            for n in range(p.n):
                sums = dst[n : n + 1] if in_place else np.empty((1, *dst.shape[1:]), DTYPES[p.acc])
                image(src[n : n + 1], packed, bias_of(bias), sums)
                for y in range(0, p.oh, rows):
                    part = slice(y, y + rows)
                    addends = bias if residual is None else bias._replace(residual=residual[n : n + 1, :, part])
                    with np.errstate(all="ignore"):
                        finish(p, sums[:, :, part], addends, dst[n : n + 1, :, part])

        return launch

    return Plan(problem=p, algorithm="activated", kernel="numpy", cost=cost(p, t), pack_weights=lambda p, wei: child.pack(wei),
                prepare_launch=prepare, threads=threads, children=(child,))  # fmt: skip
