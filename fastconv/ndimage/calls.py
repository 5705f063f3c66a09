"""calls: one call of any function here: looked up, or parsed and planned, or left to SciPy's own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..planning.arguments import check_choices, exact
from ..planning.calls import Bounded, aside
from ..planning.planner import MOST_PLANS
from ..planning.thread_count import thread_count
from ..planning.workspaces import new_result
from . import arguments
from .passes import Filtering, LeftToSciPy, Settings, planned

_MOST_KEY = 1 << 13  # bytes of weights that are looked up by value: 32 x 32
_MOST_HELD = 1 << 16  # bytes of packed weights of a remembered call
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
_calls: Bounded[Filtering] = Bounded(MOST_PLANS)


def filtered(
    name: str, input: Any, weights: np.ndarray | None, output: Any, values: tuple[Any, ...], precision: Any, threads: Any, device: Any,
    algorithm: Any,
) -> np.ndarray:  # fmt: skip
    """What the function ``name`` of scipy.ndimage makes of an image, given the values of its arguments in ``_FUNCTIONS``'s order."""
    count = thread_count(threads)
    values = tuple([tuple(value) if type(value) is list else value for value in values])
    if type(input) is not np.ndarray:
        input = np.asarray(input)
    place = out = None
    if output is None:
        dtype = input.dtype.newbyteorder("=")
    elif isinstance(output, np.ndarray):
        out = output if type(output) is np.ndarray else np.asarray(output)
        dtype = out.dtype
    elif isinstance(output, (type, np.dtype)):
        dtype = np.dtype(output)
    elif isinstance(output, str) and np.dtype(output).kind in "iuf":
        dtype = np.dtype(output)
    else:
        return _scipys(name, input, weights, output, values, algorithm)
    if out is not None and _is_place(out, input):
        place = out.strides
    key: Any = (name, input.shape, input.strides, input.dtype, dtype, place, values, exact(*values), precision, count, device, algorithm)
    if weights is not None:
        key = (*key, weights.shape, weights.dtype, weights.tobytes()) if weights.nbytes <= _MOST_KEY else None
    call = None
    if key is not None:
        try:
            call = _calls.get(key)
        except TypeError:  # an argument is a list, or an array
            key = None
    if call is None:
        check_choices(precision, device)
        try:
            call = _parsed(name, input, weights, dtype, out, place is not None, values, Settings(precision, count, algorithm))
        except LeftToSciPy:
            return _scipys(name, input, weights, output, values, algorithm)
        if key is not None and call.held <= _MOST_HELD:
            _calls.keep(key, call)
    elif out is not None and (out.shape != input.shape or not out.flags.writeable):
        return _scipys(name, input, weights, output, values, algorithm)
    dst = out if out is not None and place is not None else new_result(input.shape, dtype.newbyteorder("="), input)
    try:
        call.run(input, dst)
    except LeftToSciPy:
        return _scipys(name, input, weights, output, values, algorithm)
    if out is not None:
        if dst is not out:
            np.copyto(out, dst)
        return out
    return dst if dtype.isnative else dst.astype(dtype)


def _is_place(out: np.ndarray, input: np.ndarray) -> bool:
    """Whether a result can be written into ``out`` while ``input`` is read."""
    return out.dtype.isnative and all(stride > 0 for stride in out.strides) and not aside(out, input)


def _parsed(
    name: str, input: np.ndarray, weights: np.ndarray | None, dtype: np.dtype[Any], out: np.ndarray | None, placed: bool,
    values: tuple[Any, ...], settings: Settings,
) -> Filtering:  # fmt: skip
    _, parse, combine = _FUNCTIONS[name]
    native = dtype.newbyteorder("=")
    if not input.size or input.ndim == 0 or input.dtype.newbyteorder("=") not in _TYPES or native not in _TYPES:
        raise LeftToSciPy
    if out is not None and (out.shape != input.shape or not out.flags.writeable):
        raise LeftToSciPy
    branches = parse(input.ndim, *(() if weights is None else (weights,)), *values)
    if not branches or not all(branches):
        raise LeftToSciPy
    dst = out if out is not None and placed else new_result(input.shape, native, input)
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
