"""lowrank: filters that are sums of a few products of two vectors, in one sweep: sums down the columns for each, then all along a row.

``wei[ky, kx] = sum_i v_i[ky] * u_i[kx]``, found by :func:`fastconv.cpu.factor.factor_sum`; the kernel is that of `separable`.
Order of accumulation per output: for each i and column the ky, from zero; then i and in it kx, from the bias, as in `separable`.

Transform class: products may be larger than the weight that they add up to.  Let u be half the accumulator's epsilon.  The weights are
met within 8 u sum|w| in sum, the sums of products have at most kh + rank kw + 2 roundings each, and their magnitudes ``MOST_GROWTH``
times those of the weights: |error| <= C u max|x| sum|w| with C = `most_error`.  Infinite products of several pairs may cancel, and sums
of larger products overflow, so every result that is not finite is that of the plan which is made without this knowledge.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed
from . import separable
from .border import too_large
from .factor import MOST_GROWTH, factor_sum
from .stage import is_native
from .target import Target
from .values import finish_values

CASES = ("ih64_k9_p4_reflect_f32_structure=lowrank(2)", "n2_g3_ic3ih40iw90_oc3kh4kw7_s2_p3_wrap_f64_structure=lowrank(3)",
         "ih33iw1500_kh9kw12_sh1sw2_f32_bias_structure=lowrank(4)", "ih300_k31_p15_f32_structure=lowrank(2)",
         "ih70iw20_kh3kw2_sh3sw1_p9_f32_structure=lowrank(1)")  # fmt: skip


def rank_of(structure: str) -> int:
    """How many products a structure promises, 0 where it says nothing of the kind."""
    found = re.fullmatch(r"lowrank\((\d+)\)", structure)
    return int(found[1]) if found else 0


def most_error(p: Problem) -> int:
    """C of the error bound."""
    return 8 + MOST_GROWTH * (p.kh + rank_of(p.structure) * p.kw + 2)


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of planes by filters of low rank, side by side or two columns apart."""
    reason = not_computed(p, "fwd")
    if reason is not None:
        return reason
    rank = rank_of(p.structure)
    if not 1 <= rank <= costs.MOST_RANK:
        return f"for weights of rank 1 to {costs.MOST_RANK}, not {p.structure}"
    if not p.src == p.dst == p.acc:
        return f"does not convert {p.src} to {p.dst}"
    if p.src_layout == "nhwc" and p.ic > 1:
        return "for planes"
    reason = separable.reject(p.replace(structure="rank1"), t)
    return reason or too_large(p, separable.layout(p, t, DTYPES[p.acc].itemsize, rank)[-1])


def cost(p: Problem, t: Target) -> float:
    return costs.lowrank_seconds(p, t.lanes(DTYPES[p.acc].itemsize), rank_of(p.structure))


def most_kernels(t: Target) -> int:
    return 3  # row strides


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan that holds the vectors of each filter and its weights, with a child for results that are not finite."""
    name, region = separable.region(p.acc, p.acc, p.acc, "", "", 0, p, t, ranked=1)
    rank, dtype = rank_of(p.structure), DTYPES[p.acc]
    head, tables, scratch = separable.layout(p, t, dtype.itemsize, rank)
    child = plan(p.replace(structure="full"), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        def weights(packed: np.ndarray) -> np.ndarray:
            return child.pack(packed[..., -p.kh * p.kw :].reshape(p.oc, 1, p.kh, p.kw))

        direct = child.prepare(src, weights(packed), dst, fill)

        def exact(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            direct(src, weights(packed), bias, dst)

        if not (is_native(src, p.acc) and is_native(dst, p.acc)):
            return exact
        (sn, sc, sy, _), (dn, dc, dy, _) = src.strides, dst.strides
        pixel = int(np.asarray(fill, dtype).view(f"i{dtype.itemsize}"))
        e = head._replace(bias=1, words=packed.shape[-1], fill=pixel, sn=sn, sc=sc, sy=sy, dn=dn, dc=dc, dy=dy)
        extents = np.concatenate([np.array(e, np.int64), tables])
        swept = region.launcher(extents, finish_values(p, fill), scratch, p.n * p.oc * e.bands, own.threads, cost(p, t), src, packed, dst)

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            addends = np.zeros(p.oc + 1, dtype)
            if bias is not None:
                addends[:-1] = bias
            swept(src, packed, addends, dst)
            if addends[-1]:
                sums = np.empty(dst.shape, dtype)
                child.run(src, weights(packed), bias, sums, fill)
                np.copyto(dst, sums, where=~np.isfinite(dst))

        return launch

    return Plan(problem=p, algorithm="lowrank", kernel=name, cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                workspace=scratch * threads + child.workspace, threads=threads, children=(child,))  # fmt: skip


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    """The vectors of each filter, for column stride 2 the even columns before the odd ones, then the weights."""
    dtype, rank = DTYPES[p.acc], rank_of(p.structure)
    vectors = np.empty((p.oc, rank, p.kh + p.kw), dtype)
    native = np.ascontiguousarray(wei, wei.dtype if wei.dtype in ("f4", "f8") else "f8")
    if not 0 < factor_sum(native, vectors) <= rank:
        raise ValueError(f"weights must be finite and of structure {p.structure} as planned, or the plan made without it: {p}")
    separable.order_columns(p, vectors[..., p.kh :])
    return np.concatenate([vectors.reshape(p.oc, 1, 1, -1), wei.reshape(p.oc, 1, 1, -1).astype(dtype)], axis=-1)
