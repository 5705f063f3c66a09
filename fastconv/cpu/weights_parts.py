"""weights_parts: the gradient of the weights in types that `weights` does not sum, from float sums of parts of its operands.

float16 and mixed types are converted to the type of the sums.  Integers are parts of 16 bits, whose sums of products are exact in float64
and are put together modulo the type's range: 1 run of a child for 8 and 16 bits, 3 for 32, 10 for 64.  Complex numbers are their real and
imaginary parts, 4 runs.
Order of accumulation: that of the child plan; differences and sums of the complex parts come last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning import reference
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed
from .target import Target

CASES = ("n2_ic4ih9_oc6k3_p1_bwd-weight_i32", "n3_g2_ic4ih9iw13_oc6k3_s2_p1_bwd-weight_u8_nhwc_hwio",
         "ic2ih8_oc3k3_d2_p2_reflect_bwd-weight_i64", "ic3ih10_oc2k3_s2_p1_wrap_bwd-weight_f16:f16:f16:f32",
         "n2_ic2ih7iw6_oc3k2_bwd-weight_c64")  # fmt: skip
_MOST_PRODUCTS = 1 << 20  # of 32 bits each, whose sum float64 holds
_CHILD = {"f32": "f32", "f64": "f64", "c64": "f32", "c128": "f64"}  # of other sums float64

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the weights in integers, complex numbers, float16 and mixed types."""
    reason = not_computed(p, "bwd_weight")
    if reason is not None:
        return reason
    if p.acc in ("f32", "f64") and p.src == p.wei == p.dst == p.acc:
        return f"{p.acc} throughout is what weights is for"
    if p.acc in ("fld", "cld", "b8"):
        return f"no kernel sums in {p.acc}"
    if p.epilogue:
        return f"does not fuse {p.epilogue}"
    if DTYPES[p.acc].kind in "iu" and p.n * p.oh * p.ow > _MOST_PRODUCTS:
        return f"sums at most {_MOST_PRODUCTS} products of parts exactly, not {p.n * p.oh * p.ow}"
    return None


def _runs(p: Problem) -> int:
    kind, count = DTYPES[p.acc].kind, _count(p)
    return count * (count + 1) // 2 if kind in "iu" else 4 if kind == "c" else 1


def _count(p: Problem) -> int:
    """Parts of an integer."""
    return max(DTYPES[p.acc].itemsize // 2, 1)


def cost(p: Problem, t: Target) -> float:
    """The child's sums, as often as there are pairs of parts, and NumPy's conversions."""
    values = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow)
    return _runs(p) * (costs.CHILD_CALL_SECONDS + p.flops / costs.CHILD_FLOPS_PER_SECOND + costs.STAGED_VALUE_SECONDS * values)


def most_kernels(t: Target) -> int:
    """None of its own: its children's are counted with their algorithms."""
    return 0


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan that packs nothing: the parts of the result's gradient are made at every run."""
    name = _CHILD.get(p.acc, "f64")
    child = plan(p.replace(src=name, wei=name, dst=name, acc=name), t, threads)
    exact = reference.build(p, t, plan, threads)
    acc, kind = DTYPES[p.acc], DTYPES[name]

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            if fill and acc.kind != "f":
                exact.run(src, packed, bias, dst, fill)
                return

            def run(image: np.ndarray, grad: np.ndarray) -> np.ndarray:
                sums = np.empty(dst.shape, kind)
                child.run(image, child.pack(grad), None, sums, fill)
                return sums

            with np.errstate(all="ignore"):
                image, grad = src.astype(acc, copy=False), packed.astype(acc, copy=False)
                result = _by_parts(p, run, image, grad) if acc.kind in "iu" else _complex(run, image, grad, acc) if acc.kind == "c" else (
                    run(image, grad))  # fmt: skip
                np.copyto(dst, result, casting="unsafe")

        return launch

    return Plan(problem=p, algorithm="weights_parts", kernel="numpy", cost=cost(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=prepare, threads=threads, children=(child,))  # fmt: skip


def _by_parts(p: Problem, run: Run, image: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Sums of products of integers, modulo 2^64."""
    count = _count(p)
    images, grads = ([_part(array, place, count) for place in range(count)] for array in (image, grad))
    total = np.zeros((p.oc, p.ic // p.g, p.kh, p.kw), np.uint64)
    for a in range(count):
        for b in range(count - a):
            total += run(images[a], grads[b]).astype(np.int64).view(np.uint64) << np.uint64(16 * (a + b))
    return total.view(np.int64)


def _part(array: np.ndarray, place: int, count: int) -> np.ndarray:
    """Bits ``16 place`` to ``16 place + 15`` of integers as floats; the highest part has the sign."""
    part = array >> array.dtype.type(16 * place) if place else array
    return (part if place == count - 1 else part & array.dtype.type(0xFFFF)).astype(np.float64)


def _complex(run: Run, image: np.ndarray, grad: np.ndarray, acc: np.dtype[Any]) -> np.ndarray:
    """Sums of products of complex numbers."""
    parts = [[np.ascontiguousarray(part) for part in (array.real, array.imag)] for array in (image, grad)]
    (a, b), (c, d) = parts
    real, imaginary = run(a, c) - run(b, d), run(a, d) + run(b, c)
    result = np.empty(real.shape, acc)
    result.real, result.imag = real, imaginary
    return result
