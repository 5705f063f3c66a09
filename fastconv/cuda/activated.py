"""activated: activations that no kernel fuses (sigmoid, tanh, silu, gelu), element by element behind plain sums.

Order of accumulation: that of the child plan.
"""

from __future__ import annotations

from typing import Any

from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed, parse_epilogue
from . import direct, plain
from .arithmetic import FLOATS
from .arrays import DeviceArray
from .copy import new
from .finish import FUSED
from .pointwise import finished_as
from .target import Target

CASES = ("ih6iw20_k3_p1_f64_sigmoid", "ic2ih5iw20_oc3k3_p1_f32_bias+gelu", "n2_ic2ih5iw9_oc3k3_s2_p1_f32_nhwc_hwio_bias+silu",
         "ic2ih5iw9_oc2k3_f16:f16:f16:f32_tanh", "ic2ih5iw9_oc2k3_bf16:bf16:bf16:f32_bias+gelu")  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """Forward, of float sums, an activation that is not fused."""
    ops = ("fwd", "bwd_data")
    reason = not_computed(p, *ops, bfloat=True, bfloat_weights=True, bfloat_ops=ops)
    if reason is not None:
        return reason
    if parse_epilogue(p.epilogue).activation in FUSED:
        return "the activation is one that kernels fuse, or none"
    if p.acc not in ("f32", "f64") or p.dst not in FLOATS:
        return f"activates floats, not {p.acc} for {p.dst}"
    return None


def _sums(p: Problem) -> Problem:
    return p.replace(dst=p.acc, epilogue="bias" if parse_epilogue(p.epilogue).bias else "")


def cost(p: Problem, t: Target) -> float:
    one = _sums(p)
    return (direct if direct.reject(one, t) is None else plain).cost(one, t)


def most_kernels(t: Target) -> int:
    """None: its child's, and those of single elements."""
    return 0


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A child plan without the activation, whose weights are these."""
    child = plan(_sums(p), t)
    text = parse_epilogue(p.epilogue).activation or ""

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        in_place = p.dst == p.acc
        like: Any = dst if in_place else DeviceArray(0, dst.shape, None, DTYPES[p.acc], src.stream, src.device)
        launch = child.prepare(src, packed, like, fill)

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            sums: Any = dst if in_place else new(src, dst.shape, DTYPES[p.acc])
            launch(src, packed, bias, sums)
            finished_as(sums, p.acc, text, dst, 0, None, None, None)

        return run

    return Plan(problem=p, algorithm="activated", kernel="pointwise", cost=cost(p, t), pack_weights=lambda p, wei: child.pack(wei),
                prepare_launch=prepare, children=(child,))  # fmt: skip
