"""stage: arrays that a kernel cannot read or write in place go through it in bands of rows, converted by NumPy.

Byte-swapped, other types, inner strides: a band of the image is converted with its border resolved, the same algorithm runs on it
as a problem without padding, and its result is converted into place.  Never the whole image, unless extreme paddings, strides and
dilations would make a band larger than it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..planning import cost as costs
from ..planning.addends import addends_of, finish_type
from ..planning.bfloat import store, widened
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, border_indices, dtype_name, parse_epilogue

_BAND_BYTES = 1 << 20  # of converted source: about the second-level cache


def is_native(array: np.ndarray, name: str) -> bool:
    """Whether a kernel reads it in place: the accumulator's type in native order, unit stride along the rows.

    Examples
    --------
    >>> is_native(np.zeros((1, 1, 4, 4), "f4"), "f32"), is_native(np.zeros((1, 1, 4, 4), ">f4"), "f32")
    (True, False)
    """
    return array.dtype == DTYPES[name] and (array.strides[-1] == array.itemsize or array.shape[-1] == 1)


def _band_rows(p: Problem, multiple: int = 1) -> int:
    """Rows of the result whose source rows take about ``_BAND_BYTES``."""
    row_bytes = p.ic * p.iw_padded * DTYPES[p.acc].itemsize * p.sh
    return min(max(_BAND_BYTES // row_bytes // multiple, 1) * multiple, p.oh)


def band_bytes(p: Problem) -> int:
    """Of the source of one band, its border resolved."""
    return p.ic * ((_band_rows(p) - 1) * p.sh + p.kh_span) * p.iw_padded * DTYPES[p.acc].itemsize


def bands_are_vast(p: Problem) -> bool:
    """Whether a band takes more than a thread's workspace may, and more than a whole image does."""
    return band_bytes(p) > max(costs.MOST_WORKSPACE, p.ic * p.ih * p.iw * DTYPES[p.acc].itemsize)


def bands(p: Problem, multiple: int = 1) -> Iterator[tuple[int, int, int]]:
    """(image, first row, end row) of the result, in bands of a multiple of rows; whole images where bands are vast."""
    step = p.oh if bands_are_vast(p) else _band_rows(p, multiple)
    for n in range(p.n):
        for y in range(0, p.oh, step):
            yield n, y, min(y + step, p.oh)


def band_sizes(p: Problem, multiple: int = 1) -> set[int]:
    """How many rows the bands of one image have: one or two numbers."""
    return {end - first for _, first, end in bands(p.replace(n=1), multiple)}


def _result_type(p: Problem) -> str:
    """What the kernel itself writes: integers where it rounds into them, else what it finishes sums in."""
    return p.dst if parse_epilogue(p.epilogue).rounding else dtype_name(finish_type(p))


def band_problem(p: Problem, rows: int, converted: bool = True, source: str | None = None) -> Problem:
    """The problem of ``rows`` result rows whose source is staged: one image, no padding unless bands are vast.

    Its channels are planes, of the type of the sums or of ``source``, where they are ``converted``.
    """
    planes = p.replace(n=1, src=source or p.acc, wei=p.acc, dst=_result_type(p), src_layout="nchw")
    image = planes if converted else p.replace(n=1)
    if bands_are_vast(p):
        return image
    return image.replace(ih=(rows - 1) * p.sh + p.kh_span, iw=p.iw_padded, pt=0, pb=0, pl=0, pr=0, border="constant")


def stage_rows(p: Problem, src: np.ndarray, n: int, first: int, end: int, fill: Any, dst: np.ndarray) -> None:
    """Write ``dst[c, row, column]``: image n's pixels, borders resolved, under result rows ``first .. end - 1``.

    Where bands are vast, the image.
    """
    if bands_are_vast(p):
        with np.errstate(all="ignore"):
            dst[...] = _read(src[n], dst)
        return
    rows = border_indices(first * p.sh - p.pt, (end - first - 1) * p.sh + p.kh_span, 1, p.ih, p.border)
    inside = slice(p.pl, p.pl + p.iw)
    with np.errstate(all="ignore"):
        if rows[0] >= 0 and rows[-1] - rows[0] == len(rows) - 1:
            dst[:, :, inside] = _read(src[n, :, rows[0] : rows[-1] + 1], dst)
        else:
            dst[:, :, inside] = _read(src[n][:, rows], dst)
            if p.border == "constant":
                dst[:, rows < 0] = fill
        for at, count, start in ((0, p.pl, -p.pl), (p.pl + p.iw, p.pr, p.iw)):
            if count:
                columns = border_indices(start, count, 1, p.iw, p.border)
                dst[:, :, at : at + count] = fill if p.border == "constant" else dst[:, :, p.pl + columns]


def _read(pixels: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Pixels that can be assigned to ``dst``: those of bfloat16 are no numbers to NumPy."""
    return pixels if dst.dtype.kind == "V" else widened(pixels)


def staged_launch(
    p: Problem, threads: int, build: Callable[..., Plan], t: Any, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any,
    source: str | None = None, multiple: int = 1, channels_last: bool = False,
) -> Launch:  # fmt: skip
    """A launch that stages every band's source, and its result where ``dst`` is not native; bands of a ``multiple`` of rows.

    Staged are planes, or channels side by side where that is what the algorithm takes.
    """
    acc, own = DTYPES[source or p.acc], DTYPES[_result_type(p)]
    in_place = is_native(dst.transpose(0, 2, 3, 1) if channels_last else dst, _result_type(p))
    layout = "nhwc" if channels_last else "nchw"

    def empty(channels: int, rows: int, columns: int, dtype: Any) -> np.ndarray:
        if channels_last:
            return np.empty((1, rows, columns, channels), dtype).transpose(0, 3, 1, 2)
        return np.empty((1, channels, rows, columns), dtype)

    plans = {rows: build(band_problem(p, rows, source=source).replace(src_layout=layout), t, None, threads)
             for rows in band_sizes(p, multiple)}  # fmt: skip
    launches = {}
    for rows, plan in plans.items():
        staged = empty(p.ic, plan.problem.ih, plan.problem.iw, acc)
        result = dst[:1, :, :rows] if in_place else empty(p.oc, rows, p.ow, own)
        launches[rows] = plan.prepare(staged, packed, result, fill if bands_are_vast(p) else 0)

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        for n, first, end in bands(p, multiple):
            plan = plans[end - first]
            staged = empty(p.ic, plan.problem.ih, plan.problem.iw, acc)
            stage_rows(p, src, n, first, end, fill, staged[0])
            to = dst[n : n + 1, :, first:end]
            result = to if in_place else empty(p.oc, end - first, p.ow, own)
            launches[end - first](staged, packed, addends_of(bias, n, first, end), result)
            if not in_place:
                with np.errstate(all="ignore"):
                    store(to, result)

    return launch


def launched_as(given: bool, plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
    """A launch of a plan that packs its weights where ``packed`` are ``given``: where they are used if it can, else beforehand."""
    if not given or plan.given is not None:
        return (plan.given() if given and plan.given is not None else plan).prepare(src, packed, dst, fill)
    p = plan.problem

    def own(wei: np.ndarray) -> np.ndarray:
        return plan.pack(wei.reshape(p.oc, p.ic // p.g, p.kh, p.kw))

    launched = plan.prepare(src, own(packed), dst, fill)
    return lambda src, packed, bias, dst: launched(src, own(packed), bias, dst)
