"""addends: the arrays that an epilogue reads, and what it makes of sums, in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .problem import DTYPES, Problem, parse_scaling


class Addends(NamedTuple):
    """What a launch takes in the place of a bias, where the problem's epilogue has scales, shifts or a residual.

    ``bias (oc,)`` has the type of the sums, ``scale`` and ``shift (oc,)`` that they are finished in, `finish_type`; ``residual
    (n, oc, oh, ow)`` has `residual_type` and any strides.  ``ready`` is what `gathered` made of those that will not change, where there is
    no residual.
    """

    bias: np.ndarray | None = None
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    residual: np.ndarray | None = None
    ready: np.ndarray | None = None


def finish_type(p: Problem) -> np.dtype[Any]:
    """What sums are finished in: their own type, but float32 for integers that are scaled or shifted; float16 where each step is."""
    scaling = parse_scaling(p.epilogue)
    acc = DTYPES["f16" if scaling.halves else p.acc]
    return np.dtype(np.float32) if acc.kind in "iu" and (scaling.scale or scaling.shift) else acc


def residual_type(p: Problem) -> np.dtype[Any]:
    """What is added to sums: of the type that they are finished in, or rounded to."""
    return DTYPES["f16"] if parse_scaling(p.epilogue).half else finish_type(p)


def scaled(p: Problem, sums: np.ndarray, addends: Any) -> np.ndarray:
    """Sums ``(n, oc, oh, ow)``, bias added, scaled and shifted, residual added: each step rounded."""
    scaling = parse_scaling(p.epilogue)
    if scaling.half or scaling.halves:
        sums = sums.astype(DTYPES["f16"]).astype(finish_type(p), copy=False)
    if not isinstance(addends, Addends):
        return sums
    x = sums.astype(finish_type(p), copy=False)
    if scaling.scale and addends.scale is not None:
        x = x * addends.scale[:, None, None]
    if scaling.shift and addends.shift is not None:
        x = x + addends.shift[:, None, None]
    return x + addends.residual if scaling.residual and addends.residual is not None else x


def bias_of(addends: Any) -> np.ndarray | None:
    """The bias of a launch's argument."""
    bias: np.ndarray | None = addends.bias if isinstance(addends, Addends) else addends
    return bias


def addends_of(addends: Any, n: int, first: int, end: int) -> Any:
    """A launch's argument for the rows ``first .. end - 1`` of image ``n``."""
    if not isinstance(addends, Addends) or addends.residual is None:
        return addends
    return addends._replace(residual=addends.residual[n : n + 1, :, first:end])


def gathered(p: Problem, addends: Addends) -> np.ndarray:
    """For a kernel, seen as sums: the residual's address, bias, scales, shifts; ones and minus zeros where there are none."""
    if addends.ready is not None:
        return addends.ready
    tail = finish_type(p)
    bias = np.zeros(p.oc, DTYPES[p.acc]) if addends.bias is None else addends.bias
    parts = [np.array([0 if addends.residual is None else addends.residual.ctypes.data], np.int64), bias,
             np.ones(p.oc, tail) if addends.scale is None else addends.scale,
             np.full(p.oc, -0.0, tail) if addends.shift is None else addends.shift]  # fmt: skip
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts]).view(DTYPES[p.acc])


def ready(p: Problem, addends: Addends) -> Addends:
    """Addends without a residual, gathered beforehand: nobody else may write into them."""
    return addends._replace(ready=gathered(p, addends))
