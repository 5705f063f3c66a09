"""values: the scalars of a run in the kernel's own type, which kernel kind computes which type, which epilogues tiles finish."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning.addends import finish_type
from ..planning.problem import DTYPES, Problem, Scaling, dtype_name, not_computed, parse_epilogue, parse_scaling

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


def requantised(p: Problem, values: np.ndarray) -> np.ndarray:
    """Of a rounded result, low and high are clipped to its type less the zero point, which is put behind them."""
    if parse_epilogue(p.epilogue).rounding:
        zero, limits = parse_scaling(p.epilogue).zero, np.iinfo(DTYPES[p.dst])
        values[2:4] = np.clip(values[2:4], limits.min - zero, limits.max - zero)
        values[6] = zero
    return values


def holds(p: Problem, fill: Any) -> bool:
    """Whether the image's type holds the border's pixels; any floats do."""
    dtype = DTYPES[p.src]
    if p.border != "constant" or dtype.kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return bool(fill == fill and limits.min <= fill <= limits.max and fill == int(fill))


def not_fused(p: Problem) -> str | None:
    """Why no tile finishes the sums, or None."""
    scaling, finish = parse_scaling(p.epilogue), parse_epilogue(p.epilogue)
    tail = dtype_name(finish_type(p))
    if finish.activation not in (None, "relu", "relu6", "leaky_relu"):
        return f"does not fuse {p.epilogue}"
    if finish.activation == "leaky_relu" and finish.rounding:
        return f"clips what it rounds, without {finish.activation}"
    if scaling.residual and p.dst != tail:
        return f"adds a residual to {tail} results, not {p.dst}"
    if scaling != Scaling() and p.dst != tail and finish.rounding is None:
        return f"stores what it scaled as {tail}, or rounded in 8 bits, not as {p.dst}"
    return None


def not_of_one_type(p: Problem, transforms: bool = False) -> str | None:
    """Why no kernel of float32 or float64 alone computes the forward problem, whatever its windows, or None."""
    reason = not_computed(p, "fwd", transforms=transforms)
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") or not p.src == p.wei == p.dst == p.acc:
        return f"images, weights and sums of one type, f32 or f64, not {p.src}, {p.wei}, {p.dst} and {p.acc}"
    return not_fused(p)
