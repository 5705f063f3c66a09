"""calls: one call of any function here: looked up, or parsed and planned, or left to SciPy's own function."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..planning.arguments import as_array, check_choices
from ..planning.calls import MOST_HELD, Bounded, Call, Calls, arguments_of, aside, delivered, values_of
from ..planning.devices import Session, backend, on_card, session
from ..planning.planner import MOST_PLANS
from ..planning.thread_count import thread_count
from ..planning.workspaces import new_result
from . import arguments
from .card import Card, CardBranches
from .passes import Host, LeftToSciPy, Settings, planned

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
_card_calls: Bounded[CardBranches] = Bounded(MOST_PLANS)


def filtered(
    name: str, input: Any, weights: Any, output: Any, values: tuple[Any, ...], precision: Any, threads: Any, device: Any,
    algorithm: Any,
) -> np.ndarray:  # fmt: skip
    """What the function ``name`` of scipy.ndimage makes of an image, given the values of its arguments in ``_FUNCTIONS``'s order."""
    count = thread_count(threads)
    values, kinds = arguments_of(values)
    if (
        device is not None
        or type(input) is not np.ndarray
        or not (output is None or type(output) is np.ndarray)
        or not (weights is None or isinstance(weights, np.ndarray))
    ):
        here = session(device, "input", input, output=None if isinstance(output, (type, np.dtype, str)) else output, weights=weights)
        if here is not None:
            check_choices(precision)
            return _on_card(here, name, here.take("weights", weights), output, values, kinds, precision, algorithm)
        input, device = np.asarray(input), None
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
            check_choices(precision)
            native = dtype.newbyteorder("=")
            dst = new_result(input.shape, native, input) if into is None else into
            call = _parsed(name, input, weights, dst, values, Settings(precision, count, algorithm, Host))
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


def taps_of(weights: Any) -> Any:
    """Weights as an array; those of a card as they are."""
    return weights if on_card(weights) else np.asarray(weights)


def _on_card(
    here: Session, name: str, weights: np.ndarray | None, output: Any, values: tuple[Any, ...], kinds: Any, precision: Any, algorithm: Any
) -> Any:  # fmt: skip
    """`filtered` for an array of a card, or of the host that is copied there and the result back."""
    src = here.input
    given = None if output is None or isinstance(output, (type, np.dtype, str)) else output
    into = as_array("output", given) if given is not None and here.hosted else here.take("output", given)
    dtype = src.dtype if output is None else np.dtype(output) if into is None else into.dtype
    dtype = dtype.newbyteorder("=")
    result, dst = here.destination(None if here.hosted else given, src.shape, dtype, "output")
    if src.size:
        parts = [(src, dst, values)]
        names, _, combine = _FUNCTIONS[name]
        if src.dtype.kind == dtype.kind == "c" and combine == "sum":  # each part for itself, as SciPy filters complex numbers
            if backend("arrays").overlap(src, dst):
                src = backend("copy").converted(src, src.dtype)
            place = names.index("cval")
            parts = [
                (src.part(n), dst.part(n), (*values[:place], getattr(values[place], word, values[place]), *values[place + 1 :]))
                for n, word in enumerate(("real", "imag"))
            ]
        for image, result_part, arguments_of_part in parts:
            call = _call(here, name, weights, image, result_part, arguments_of_part, (kinds, precision, algorithm))
            call.run(here, image, result_part)
    back = here.deliver(result, dst)
    return back if into is None or not here.hosted else delivered(back, into)


def _call(here: Session, name: str, weights: Any, src: Any, dst: Any, values: tuple[Any, ...], settings: Any) -> CardBranches:
    """The call for arrays of a card like these, remembered."""
    held = None if weights is None else values_of((weights,))
    key: Any = None
    if weights is None or held is not None:
        key = (name, here.target, src.device, dst.strides, dst.dtype, src.shape, src.strides, src.dtype, held, values, settings)
    with contextlib.suppress(TypeError):  # a list among the arguments
        known = _card_calls.get(key)
        if known is not None:
            return known
    _scipys_errors(name, src, weights, dst.dtype, values)
    _, precision, algorithm = settings
    try:
        call: CardBranches = _parsed(name, src, weights, dst, values, Settings(precision, 1, algorithm, Card(here.target, src.device)))
    except LeftToSciPy:
        raise ValueError(
            f"input and weights must be real (input may be complex where the output is, but for magnitudes), and weights finite and "
            f"along at most two axes longer than 1, for {name} on a CUDA device, got input of shape {src.shape} and dtype {src.dtype}, "
            f"weights of {'no shape' if weights is None else weights.shape}, output of dtype {dst.dtype}"
        ) from None
    if key is not None and call.held <= MOST_HELD:
        with contextlib.suppress(TypeError):  # a list among the arguments
            _card_calls.keep(key, call)
    return call


def _scipys_errors(name: str, src: Any, weights: Any, dtype: np.dtype[Any], values: tuple[Any, ...]) -> None:
    """Let SciPy's own function raise for arguments that it refuses, on an array of one pixel that stands for the image."""
    with np.errstate(all="ignore"):
        stand_in = weights if weights is None or isinstance(weights, np.ndarray) else np.ones(weights.shape, weights.dtype)
        _scipys(name, np.zeros((1,) * src.ndim, src.dtype), stand_in, dtype, values, None)


def _parsed(
    name: str, input: Any, weights: np.ndarray | None, dst: Any, values: tuple[Any, ...], settings: Settings
) -> Any:  # fmt: skip
    _, parse, combine = _FUNCTIONS[name]
    if not input.size or input.ndim == 0 or input.dtype.newbyteorder("=") not in _TYPES or dst.dtype not in _TYPES:
        raise LeftToSciPy
    branches = parse(input.ndim, *(() if weights is None else (weights,)), *values)
    if not branches or (settings.place is Host and not all(branches)):
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
