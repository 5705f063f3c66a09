"""values: the scalars of a run in the kernel's own type, and which kernel kind computes which type."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning.problem import DTYPES, Problem, parse_epilogue

# accumulator -> kernel kind: arithmetic that wraps is the same for both signs
_KINDS = {"f32": "f32", "f64": "f64", **{f"{sign}{bits}": f"i{bits}" for sign in "iu" for bits in (8, 16, 32, 64)}}


def kernel_kind(acc: str) -> str | None:
    """The element kind whose arithmetic gives this accumulator's bits."""
    return _KINDS.get(acc)


def finish_values(p: Problem, fill: Any) -> np.ndarray:
    """``[fill, slope, low, high, 0, 1, least, most]`` in the accumulator's type, seen as the kernel's kind.

    ``min(max(x < 0 ? slope x : x, low), high)`` is the fused activation; the last three are that of none.
    """
    dtype = DTYPES[p.acc]
    _, name, slope, _ = parse_epilogue(p.epilogue)
    least, most = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low = 0 if name in ("relu", "relu6") else least
    high = 6 if name == "relu6" else most
    with np.errstate(over="ignore"):  # a slope beyond float32 is infinite in it
        values = np.array([0, slope if name == "leaky_relu" else 1, low, high, 0, 1, least, most], dtype)
    values[0] = fill
    return values.view(f"i{dtype.itemsize}") if dtype.kind == "u" else values
