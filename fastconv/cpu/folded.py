"""folded: the gradient of an image under borders that repeat pixels: that of the padded image, its border added to where it came from.

Order of accumulation: that of the child plan, the gradient of the padded image under the constant border; then the columns left and right
of the image, then the rows above and below it, each from its start.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, border_indices, not_computed
from .target import Target
from .threads import workspaces

CASES = ("ic8ih12_oc6k3_p1_reflect_bwd-data_f32", "n2_g2_ic4ih9iw13_oc6k3_s2_p1_symmetric_bwd-data_f32_nhwc_hwio",
         "ic2ih6iw7_oc3k5_p2_edge_bwd-data_f64", "ih5iw6_k3_p4_wrap_bwd-data_f32", "ic3ih8_oc4k3_p1_wrap_bwd-data_i32",
         "ic2ih7_oc3k3_d2_p2_reflect_bwd-data_f16:f16:f16:f32")  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the image under another border than the constant one, of sums that kernels compute."""
    reason = not_computed(p, "bwd_data")
    if reason is not None:
        return reason
    if p.border == "constant":
        return "nothing is folded back under the constant border"
    if p.epilogue:
        return f"does not fuse {p.epilogue}"
    if p.acc in ("fld", "cld", "b8"):
        return f"no kernel sums in {p.acc}"
    if _bytes(p) > costs.MOST_WORKSPACE:
        return f"needs a padded image of {_bytes(p) >> 20} MiB"
    return None


def cost(p: Problem, t: Target) -> float:
    """The child's, and NumPy's copy of each image."""
    return costs.transposed_seconds(_child(p)) + costs.STAGED_VALUE_SECONDS * p.n * p.ic * p.ih_padded * p.iw_padded


def most_kernels(t: Target) -> int:
    """None of its own: its children's are counted with their algorithms."""
    return 0


def _bytes(p: Problem) -> int:
    return p.ic * p.ih_padded * p.iw_padded * DTYPES[p.acc].itemsize


def _child(p: Problem) -> Problem:
    """The gradient of one padded image; without transforms, whose errors would be added up."""
    padded = {"ih": p.ih_padded, "iw": p.iw_padded, "pt": 0, "pb": 0, "pl": 0, "pr": 0}
    return p.replace(n=1, **padded, border="constant", dst=p.acc, precision="strict")


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose packed weights are its child's."""
    child = plan(_child(p), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        launches: list[Launch] = []

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            memory = workspaces.take(_bytes(p))
            padded = memory.view(DTYPES[p.acc])
            if p.src_layout == "nhwc":
                padded = padded.reshape(1, p.ih_padded, p.iw_padded, p.ic).transpose(0, 3, 1, 2)
            else:
                padded = padded.reshape(1, p.ic, p.ih_padded, p.iw_padded)
            for n in range(p.n):
                image = src[n : n + 1]
                if not launches:
                    launches.append(child.prepare(image, packed, padded))
                launches[0](image, packed, None, padded)
                with np.errstate(all="ignore"):
                    dst[n] = _fold(p, padded[0])
            workspaces.give(memory)

        return launch

    return Plan(problem=p, algorithm="folded", kernel="numpy", cost=cost(p, t), pack_weights=lambda p, wei: child.pack(wei),
                prepare_launch=prepare, workspace=_bytes(p), threads=threads, children=(child,))  # fmt: skip


def _fold(p: Problem, padded: np.ndarray) -> np.ndarray:
    """``(c, ih, iw)``, a part of the gradient ``(c, ih_padded, iw_padded)``, to which the rest has been added."""
    for axis, before, extent in ((2, p.pl, p.iw), (1, p.pt, p.ih)):
        index = border_indices(-before, padded.shape[axis], 1, extent, p.border)
        lines = np.moveaxis(padded, axis, 0)
        padded = padded[:, :, before : before + extent] if axis == 2 else padded[:, before : before + extent]
        inside = np.moveaxis(padded, axis, 0)
        for place in (*range(before), *range(before + extent, len(lines))):
            inside[index[place]] += lines[place]
    return padded
