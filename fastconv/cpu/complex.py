"""complex: a complex convolution as a real one of twice the channels: (re, im) planes in, (re, im) planes out.

``re = sum re*w.re - im*w.im`` and ``im = sum re*w.im + im*w.re``: the products of the direct formula, so NaN and inf fall where it puts
them.  Order of accumulation: that of the real child plan; of filters of one channel that are quicker apart (large ones, by
transforms), that of four real sums, each a child's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, not_computed
from .stage import band_bytes, band_problem, band_sizes, bands, bands_are_vast, stage_rows
from .target import Target

CASES = ("ih64_k3_c64", "ih33_k5_p2_c128", "n2_g2_ic4ih16_oc6k3_s2_p1_symmetric_c64_bias")
_REAL = {"c64": "f32", "c128": "f64"}


def reject(p: Problem, t: Target) -> str | None:
    """Forward, accumulator complex64 or complex128."""
    reason = not_computed(p, "fwd")
    if reason is not None:
        return reason
    if p.acc not in _REAL:
        return f"the accumulator {p.acc} is not complex64 or complex128"
    if p.epilogue not in ("", "bias"):
        return f"does not fuse {p.epilogue}"
    if bands_are_vast(p):
        return f"needs bands of {band_bytes(p) >> 20} MiB"
    return None


def cost(p: Problem, t: Target) -> float:
    """Four real products each, and NumPy's conversion of the planes."""
    return costs.complex_seconds(p)


def most_kernels(t: Target) -> int:
    """None of its own: its children's are counted with their algorithms."""
    return 0


def _real_problem(p: Problem, rows: int) -> Problem:
    return band_problem(p.replace(src=_REAL[p.acc], wei=_REAL[p.acc], dst=_REAL[p.acc], acc=_REAL[p.acc],
                                  ic=2 * p.ic, oc=2 * p.oc), rows)  # fmt: skip


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """Child plans for the real problem of one band, or for that of one part of an image."""
    sizes = band_sizes(p)
    children = {rows: plan(_real_problem(p, rows), t, threads) for rows in sizes}
    if p.ic == p.g:
        real = _REAL[p.acc]
        part = plan(p.replace(n=1, src=real, wei=real, dst=real, acc=real, oc=2 * p.oc, epilogue="", src_layout="nchw"), t, threads)
        together = sum(children[end - first].cost for _, first, end in bands(p.replace(n=1)))
        if costs.APART_FACTOR * 2 * part.cost < together:
            return _apart(p, part, cost(p, t), threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        real = DTYPES[_REAL[p.acc]]

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            # the children may differ in algorithm, so in the layout of their weights
            weights = {rows: child.pack(packed) for rows, child in children.items()}
            parts = None if bias is None else _parts(bias.reshape(p.g, -1), real).transpose(1, 0, 2).reshape(-1)
            for n, first, end in bands(p):
                child = children[end - first]
                planes = np.empty((p.g, 2, p.ic // p.g, child.problem.ih, child.problem.iw), real)
                staged = planes.reshape(p.g * 2 * (p.ic // p.g), child.problem.ih, child.problem.iw)
                both = np.empty((p.ic, *staged.shape[1:]), DTYPES[p.acc])
                stage_rows(p, src, n, first, end, fill, both)
                both = both.reshape(p.g, p.ic // p.g, *staged.shape[1:])
                planes[:, 0], planes[:, 1] = both.real, both.imag
                result = np.empty((1, 2 * p.oc, end - first, p.ow), real)
                child.run(staged[None], weights[end - first], parts, result)
                halves = result.reshape(p.g, 2, p.oc // p.g, end - first, p.ow)
                to = dst[n, :, first:end]
                to.real = halves[:, 0].reshape(to.shape)
                to.imag = halves[:, 1].reshape(to.shape)

        return launch

    return Plan(problem=p, algorithm="complex", kernel="planes", cost=cost(p, t), pack_weights=_pack, prepare_launch=prepare,
                threads=threads, children=tuple(children.values()))  # fmt: skip


def _apart(p: Problem, child: Plan, seconds: float, threads: int) -> Plan:
    """A plan that runs real and imaginary part of an image, one after the other, with both parts of the weights as filters."""

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            filters = packed.reshape(p.g, 2, p.oc // p.g, 2, p.kh, p.kw)[:, :, :, 0]
            weights = child.pack(filters.reshape(2 * p.oc, 1, p.kh, p.kw))
            shape = 2, p.g, 2, p.oc // p.g, p.oh, p.ow
            sums = np.empty(shape, packed.dtype)
            for n in range(p.n):
                with np.errstate(all="ignore"):
                    image = src[n : n + 1].astype(DTYPES[p.acc], copy=False)
                    for half, pixels, constant in ((0, image.real, np.real(fill)), (1, image.imag, np.imag(fill))):
                        result = sums[half].reshape(1, 2 * p.oc, p.oh, p.ow)
                        child.run(np.ascontiguousarray(pixels), weights, None, result, constant)
                    added = (0, 0) if bias is None else _parts(bias, packed.dtype)[:, :, None, None]
                    to = dst[n]
                    to.real = (sums[0, :, 0] - sums[1, :, 1]).reshape(to.shape) + added[0]
                    to.imag = (sums[0, :, 1] + sums[1, :, 0]).reshape(to.shape) + added[1]

        return launch

    return Plan(problem=p, algorithm="complex", kernel="parts", cost=seconds, pack_weights=_pack, prepare_launch=prepare,
                threads=threads, children=(child,))  # fmt: skip


def _parts(array: np.ndarray, real: np.dtype[Any]) -> np.ndarray:
    return np.stack((array.real, array.imag)).astype(real, copy=False)


def _pack(p: Problem, wei: np.ndarray) -> np.ndarray:
    """Real weights ``[g, out part, oc/g, in part, ic/g, kh, kw]`` as ``(2 oc, 2 ic/g, kh, kw)``."""
    grouped = wei.astype(DTYPES[p.acc], copy=False).reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw)
    packed = np.empty((p.g, 2, p.oc // p.g, 2, p.ic // p.g, p.kh, p.kw), DTYPES[_REAL[p.acc]])
    packed[:, 0, :, 0] = packed[:, 1, :, 1] = grouped.real
    packed[:, 1, :, 0] = grouped.imag
    packed[:, 0, :, 1] = -grouped.imag
    return packed.reshape(2 * p.oc, 2 * (p.ic // p.g), p.kh, p.kw)
