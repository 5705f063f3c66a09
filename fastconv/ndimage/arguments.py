"""arguments: calls in scipy.ndimage's words, as filters of an image; anything unusual is left to SciPy, which raises its own errors."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from .passes import LeftToSciPy, Stencil
from .taps import gaussian

BORDERS = {"reflect": "symmetric", "grid-mirror": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap",
           "grid-wrap": "wrap", "constant": "constant", "grid-constant": "constant"}  # fmt: skip
Branches = tuple[tuple[Stencil, ...], ...]


def _axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """The axes that are filtered, in the caller's order."""
    if axes is None:
        return tuple(range(ndim))
    try:
        given = [operator.index(axis) for axis in (axes if isinstance(axes, Iterable) else (axes,))]
    except TypeError:
        raise LeftToSciPy from None
    result = tuple(axis % ndim for axis in given if -ndim <= axis < ndim)
    if len(set(result)) != len(given):
        raise LeftToSciPy
    return result


def _axis(axis: Any, ndim: int) -> int:
    if isinstance(axis, Iterable):
        raise LeftToSciPy
    return _axes(axis, ndim)[0] if axis is not None else _refuse()


def _refuse() -> Any:
    raise LeftToSciPy


def _each(value: Any, count: int) -> list[Any]:
    """A sequence of ``count``, or a value for each."""
    if isinstance(value, str) or not np.iterable(value):
        return [value] * count
    values = list(value)
    return values if len(values) == count else _refuse()


def _index(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        return _refuse()


def _border(mode: Any) -> str:
    return BORDERS[mode] if isinstance(mode, str) and mode in BORDERS else _refuse()


def _fill(cval: Any, border: str) -> float:
    """The border's pixels; 0 where it has none of its own."""
    if not isinstance(cval, (numbers.Real, np.bool_)):
        raise LeftToSciPy
    return float(cval) if border == "constant" else 0.0


def _taps(weights: Any) -> Any:
    """Weights as SciPy's sums read them; those of a card as they are."""
    if weights.dtype.kind not in "biuf":
        raise LeftToSciPy
    if not isinstance(weights, np.ndarray):
        return weights
    taps = weights.astype(np.float64)
    return taps if np.isfinite(taps).all() else _refuse()


def _dense(taps: Any) -> Any:
    return np.ascontiguousarray(taps) if isinstance(taps, np.ndarray) else taps


def _before(size: int, origin: Any) -> int:
    """Pixels before the output's own under the first of ``size`` taps."""
    before = size // 2 + _index(origin)
    return before if 0 <= before < size else _refuse()


def _line(axis: int, taps: np.ndarray, mode: Any, cval: Any, origin: Any = 0, rule: str = "line") -> Stencil:
    border = _border(mode)
    return Stencil((axis,), taps, (_before(taps.size, origin),), border, _fill(cval, border), rule)


def grid(flip: bool, ndim: int, weights: Any, mode: Any, cval: Any, origin: Any, axes: Any) -> Branches:
    """``correlate`` and ``convolve``.  Taps belong to the filtered axes in ascending order, whatever the order of ``axes``."""
    filtered = _axes(axes, ndim)
    taps = _taps(weights)
    if taps.ndim != len(filtered) or taps.ndim == 0 or 0 in taps.shape:
        raise LeftToSciPy
    origins = [_index(value) for value in _each(origin, len(filtered))]
    if len(filtered) < ndim:
        origins = [o for _, o in sorted(zip(filtered, origins, strict=True))]
        filtered = tuple(sorted(filtered))
    else:
        filtered = tuple(range(ndim))
    if flip:
        taps = taps[(slice(None, None, -1),) * taps.ndim]
        origins = [-o - (size % 2 == 0) for o, size in zip(origins, taps.shape, strict=True)]
    before = [_before(size, o) for o, size in zip(origins, taps.shape, strict=True)]
    wide = [i for i, size in enumerate(taps.shape) if size > 1] or [taps.ndim - 1]
    if len(wide) > 2:
        raise LeftToSciPy
    border = _border(mode)
    taps = _dense(taps).reshape([taps.shape[i] for i in wide])
    f = Stencil(tuple(filtered[i] for i in wide), taps, tuple(before[i] for i in wide), border, _fill(cval, border), "grid")
    return ((f,),)


def line(flip: bool, ndim: int, weights: Any, axis: Any, mode: Any, cval: Any, origin: Any) -> Branches:
    """``correlate1d`` and ``convolve1d``."""
    taps = _taps(weights)
    if taps.ndim != 1 or not taps.size:
        raise LeftToSciPy
    origin = _index(origin)
    if flip:
        taps, origin = taps[::-1], -origin - (taps.size % 2 == 0)
    return ((_line(_axis(axis, ndim), _dense(taps), mode, cval, origin),),)


def _gaussian(axis: int, sigma: Any, order: Any, mode: Any, cval: Any, truncate: Any, radius: Any) -> Stencil:
    width, order = float(sigma), _index(order)
    if radius is None:
        reach = float(truncate) * width + 0.5
        radius = int(reach) if math.isfinite(reach) else _refuse()
    if _index(radius) < 0 or order < 0:
        raise LeftToSciPy
    return _line(axis, np.ascontiguousarray(gaussian(width, order, _index(radius))), mode, cval)


def smooth(
    ndim: int, sigma: Any, order: Any, mode: Any, cval: Any, truncate: Any, radius: Any, axes: Any
) -> tuple[Stencil, ...]:  # fmt: skip
    """``gaussian_filter``: a pass along each axis whose sigma is not 0."""
    filtered = _axes(axes, ndim)
    arguments = zip(*(_each(value, len(filtered)) for value in (sigma, order, mode, radius)), strict=True)
    try:
        return tuple(
            _gaussian(axis, s, o, m, cval, truncate, r) for axis, (s, o, m, r) in zip(filtered, arguments, strict=True) if s > 1e-15
        )
    except (TypeError, ValueError):
        raise LeftToSciPy from None


def gaussian_branches(ndim: int, *arguments: Any) -> Branches:
    """``gaussian_filter``."""
    return (smooth(ndim, *arguments),)


def uniform(ndim: int, size: Any, mode: Any, cval: Any, origin: Any, axes: Any) -> Branches:
    """``uniform_filter``: a pass along each axis whose size is more than 1."""
    filtered = _axes(axes, ndim)
    arguments = zip(*(_each(value, len(filtered)) for value in (size, mode, origin)), strict=True)
    try:
        return (
            tuple(_line(axis, np.ones(int(s)), m, cval, o, "mean") for axis, (s, m, o) in zip(filtered, arguments, strict=True) if s > 1),
        )
    except (TypeError, ValueError):
        raise LeftToSciPy from None


def slope(across: tuple[int, ...], ndim: int, axis: Any, mode: Any, cval: Any) -> Branches:
    """``sobel`` and ``prewitt``: a difference along one axis, a sum of three along all others."""
    axis = _axis(axis, ndim)
    modes = _each(mode, ndim)
    lines = [_line(axis, np.array([-1.0, 0.0, 1.0]), modes[axis], cval)]
    lines += [_line(other, np.array(across, np.float64), modes[other], cval) for other in range(ndim) if other != axis]
    return (tuple(lines),)


def laplace(ndim: int, mode: Any, cval: Any, axes: Any) -> Branches:
    """``laplace``: second differences along each axis."""
    filtered = _axes(axes, ndim)
    modes = _each(mode, len(filtered))
    return tuple((_line(axis, np.array([1.0, -2.0, 1.0]), m, cval),) for axis, m in zip(filtered, modes, strict=True))


def _further(extra: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    """``truncate`` and ``radius`` of the keywords that are handed on to ``gaussian_filter``."""
    further = dict(extra)
    result = further.pop("truncate", 4.0), further.pop("radius", None)
    return result if not further else _refuse()


def gaussian_laplace(ndim: int, sigma: Any, mode: Any, cval: Any, axes: Any, extra: tuple[tuple[str, Any], ...]) -> Branches:
    """``gaussian_laplace``: second derivatives along each axis; sigma is 0 along the others."""
    filtered = _axes(axes, ndim)
    sigmas: list[Any] = [0] * ndim
    for axis, s in zip(filtered, _each(sigma, len(filtered)), strict=True):
        sigmas[axis] = s
    return _derivatives(2, ndim, filtered, sigmas, mode, cval, extra)


def gaussian_gradient(ndim: int, sigma: Any, mode: Any, cval: Any, axes: Any, extra: tuple[tuple[str, Any], ...]) -> Branches:
    """``gaussian_gradient_magnitude``: first derivatives along each axis; sigma smooths along every axis of the image."""
    return _derivatives(1, ndim, _axes(axes, ndim), sigma, mode, cval, extra)


def _derivatives(
    order: int, ndim: int, axes: tuple[int, ...], sigma: Any, mode: Any, cval: Any, extra: tuple[tuple[str, Any], ...]
) -> Branches:  # fmt: skip
    truncate, radius = _further(extra)
    modes = _each(mode, len(axes))
    orders = ([order * (axis == other) for other in range(ndim)] for axis in axes)
    return tuple(smooth(ndim, sigma, o, m, cval, truncate, radius, None) for o, m in zip(orders, modes, strict=True))
