"""calls: one call of any function here: looked up, or parsed and planned, or left to SciPy's own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..planning.arguments import check_choices
from ..planning.calls import Call, Calls, arguments_of, aside, delivered, values_of
from ..planning.planner import MOST_PLANS
from ..planning.thread_count import thread_count
from ..planning.workspaces import new_result
from . import arguments
from .passes import LeftToSciPy, Settings, planned

_TYPES = frozenset(np.dtype(name) for name in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"))

# name -> names of the arguments but for input, weights, output and the tail; filters, from ndim and their values; how branches combine
_FUNCTIONS: dict[str, tuple[tuple[str, ...], Callable[..., arguments.Branches], str]] = {
    "correlate": (("mode", "cval", "origin", "axes"), partial(arguments.grid, False), "sum"),
    "convolve": (("mode", "cval", "origin", "axes"), partial(arguments.grid, True), "sum"),
    "correlate1d": (("axis", "mode", "cval", "origin"), partial(arguments.line, False), "sum"),
    "convolve1d": (("axis", "mode", "cval", "origin"), partial(arguments.line, True), "sum"),
    "gaussian_filter": (("sigma", "order", "mode", "cval", "truncate", "radius", "axes"), arguments.gaussian_branches, "sum"),
    "uniform_filter": (("size", "mode", "cval", "origin", "axes"), arguments.uniform, "sum"),
    "sobel": (("axis", "mode", "cval"), partial(arguments.slope, (1, 2, 1)), "sum"),
    "prewitt": (("axis", "mode", "cval"), partial(arguments.slope, (1, 1, 1)), "sum"),
    "laplace": (("mode", "cval", "axes"), arguments.laplace, "sum"),
    "gaussian_laplace": (("sigma", "mode", "cval", "axes", "**"), arguments.gaussian_laplace, "sum"),
    "gaussian_gradient_magnitude": (("sigma", "mode", "cval", "axes", "**"), arguments.gaussian_gradient, "norm"),
}
_calls: Calls[Call] = Calls(MOST_PLANS)


def filtered(
    name: str, input: Any, weights: np.ndarray | None, output: Any, values: tuple[Any, ...], precision: Any, threads: Any, device: Any,
    algorithm: Any,
) -> np.ndarray:  # fmt: skip
    """What the function ``name`` of scipy.ndimage makes of an image, given the values of its arguments in ``_FUNCTIONS``'s order."""
    count = thread_count(threads)
    values, kinds = arguments_of(values)
    if type(input) is not np.ndarray:
        input = np.asarray(input)
    out = into = None  # the caller's array, and where a result can be written into it while the input is read
    if output is None:
        dtype = input.dtype
    elif isinstance(output, np.ndarray):
        out = output if type(output) is np.ndarray else np.asarray(output)
        dtype = out.dtype
        into = out if dtype.isnative and min(out.strides, default=1) > 0 and not aside(out, input) else None
    elif isinstance(output, (type, np.dtype)) or (isinstance(output, str) and np.dtype(output).kind in "iuf"):
        dtype = np.dtype(output)
    else:
        return _scipys(name, input, weights, output, values, algorithm)
    held = () if weights is None else values_of((weights,))
    key = None
    if held is not None:
        place = None if into is None else (into.shape, into.strides)
        key = (name, place, dtype, input.shape, input.strides, input.dtype, held, values, kinds, precision, count, device, algorithm)
    call = _calls.find(key)
    result: np.ndarray | None
    try:
        if out is not None and (out.shape != input.shape or not out.flags.writeable):
            raise LeftToSciPy
        if call is None:
            check_choices(precision, device)
            native = dtype.newbyteorder("=")
            dst = new_result(input.shape, native, input) if into is None else into
            call = _parsed(name, input, weights, dst, values, Settings(precision, count, algorithm))
            result = _calls.first(key, call, (input,), into, dst)
        else:
            result = call.result((input,)) if into is None else call.into((input,), into)
        if result is None:
            raise LeftToSciPy
    except LeftToSciPy:
        return _scipys(name, input, weights, output, values, algorithm)
    if out is None:
        return result if dtype.isnative or output is None else result.astype(dtype)
    return delivered(result, out)


def _parsed(
    name: str, input: np.ndarray, weights: np.ndarray | None, dst: np.ndarray, values: tuple[Any, ...], settings: Settings
) -> Call:  # fmt: skip
    _, parse, combine = _FUNCTIONS[name]
    if not input.size or input.ndim == 0 or input.dtype.newbyteorder("=") not in _TYPES or dst.dtype not in _TYPES:
        raise LeftToSciPy
    branches = parse(input.ndim, *(() if weights is None else (weights,)), *values)
    if not branches or not all(branches):
        raise LeftToSciPy
    return planned(input, dst, branches, combine, settings)


def _scipys(name: str, input: np.ndarray, weights: np.ndarray | None, output: Any, values: tuple[Any, ...], algorithm: Any) -> np.ndarray:
    """SciPy's own result, or its exception; of a call that raises, ``output`` is untouched."""
    function = getattr(importlib.import_module("scipy.ndimage._filters"), name)  # the one that no patch replaces
    names, _, _ = _FUNCTIONS[name]
    keywords = dict(zip(names, values, strict=True))
    keywords.update(keywords.pop("**", ()))
    inputs = (input,) if weights is None else (input, weights)
    array = isinstance(output, np.ndarray) and output.flags.writeable
    result = function(*inputs, output=np.empty_like(output, subok=False) if array else output, **keywords)
    if algorithm is not None:
        raise ValueError(f"algorithm must be None for what is left to SciPy's own {name}, got {algorithm!r}")
    if not array:
        return result
    np.copyto(output, result)
    return np.asarray(output)
