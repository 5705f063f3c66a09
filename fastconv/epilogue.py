"""Epilogue: what `conv2d` applies to its sums besides bias: scale, shift, residual, activation, type."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .planning.addends import Addends, residual_type
from .planning.arguments import as_array, check_out
from .planning.bfloat import is_bfloat, narrowed
from .planning.calls import delivered
from .planning.devices import backend
from .planning.planner import accepted
from .planning.problem import ACTIVATIONS, DTYPES, SCALINGS, Problem, Scaling, dtype_name, parse_epilogue, parse_scaling
from .planning.reference import activate, rounded


@dataclass(frozen=True, eq=False)
class Epilogue:
    """``activation(sums * scale + shift + residual)``, in an integer ``dtype`` rounded half to even, plus ``zero_point``, saturated.

    Each step is rounded.  Integer sums of at most 32 bits are scaled in float32, as ONNX Runtime does, unless an operand is an array of
    float64 or of wider integers; products of 8 and 16 bits are then summed in int32 unless `conv2d` is given a ``dtype``.  Kernels that
    fuse scale, shift, relu, relu6, leaky_relu, a residual of the result's type and rounding into 8 bits spare a pass over the results.

    Parameters
    ----------
    scale, shift : array_like of shape (oc,) or scalar, optional
    residual : array_like of the result's shape, optional
    activation : str or ("leaky_relu", slope), optional
    dtype : dtype, optional
        Of the result; that of the sums by default.  NaN counts as 0 in an integer type.
    zero_point : int, optional
        Of an integer result.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv2d(np.ones((3, 3)), np.ones((3, 3)), epilogue=Epilogue(scale=100.0, dtype="u1"))
    array([[255]], dtype=uint8)
    """

    scale: Any = None
    shift: Any = None
    residual: Any = None
    activation: Any = None
    dtype: Any = None
    zero_point: int = 0


def activation_text(activation: Any, dtype: np.dtype[Any]) -> str:
    """The problem's text of an ``activation`` argument, ``""`` for None.

    Raises
    ------
    ValueError, TypeError
        An unknown one, or one that is not defined for sums of ``dtype``.
    """
    if activation is None:
        return ""
    name, slope = activation if isinstance(activation, tuple) and len(activation) == 2 else (activation, None)
    if not isinstance(name, str) or name not in ACTIVATIONS or (name == "leaky_relu") != isinstance(slope, numbers.Real):
        names = ", ".join(repr(a) for a in ACTIVATIONS if a != "leaky_relu")
        raise ValueError(f"activation must be None, {names} or ('leaky_relu', slope), got {activation!r}")
    if dtype.kind == "c" or (dtype.kind in "iu" and name not in ("relu", "relu6")):
        raise TypeError(f"activation {name!r} is not defined for a result of dtype {dtype}")
    return name if slope is None else f"{name}:{float(slope)!r}".replace("e+", "e")


def epilogue_text(bias: bool, activation: Any, dtype: np.dtype[Any]) -> str:
    """The problem's ``epilogue`` of a call with or without bias, and with this ``activation`` argument.

    Raises
    ------
    ValueError, TypeError
        As `activation_text`.
    """
    return "+".join(filter(None, ("bias" if bias else "", activation_text(activation, dtype))))


def saturate(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Integers or floats in an integer type: rounded half to even, then clipped; NaN becomes 0.

    Examples
    --------
    >>> saturate(np.array([-3.0, 0.5, 1.5, 254.5, 999.0]), np.dtype("u1"))
    array([  0,   0,   2, 254, 255], dtype=uint8)
    """
    if values.dtype.kind not in "iub":
        return rounded("saturate", values, dtype)
    if values.dtype.kind == "b" or np.can_cast(values.dtype, dtype):
        return values.astype(dtype)
    limits, own = np.iinfo(dtype), np.iinfo(values.dtype)
    return np.clip(values, max(limits.min, own.min), min(limits.max, own.max)).astype(dtype)


class _Checked(NamedTuple):
    """An epilogue's arrays as they were given, what they are computed in, the activation's text, the result's type."""

    values: dict[str, np.ndarray]
    kind: np.dtype[Any]
    text: str
    dtype: np.dtype[Any]


def _channels(shape: tuple[int, ...], layout: str) -> int:
    """Of a result."""
    return 1 if len(shape) == 2 else shape[-3 if layout == "nchw" else -1]


def _checked(
    epilogue: Any, shape: tuple[int, ...], sums: np.dtype[Any], layout: str, take: Callable[[str, Any], Any] = as_array
) -> _Checked:  # fmt: skip
    if not isinstance(epilogue, Epilogue):
        raise TypeError(f"epilogue must be an Epilogue or None, got {type(epilogue).__name__}")
    if is_bfloat(sums):
        raise TypeError("epilogue must be None for a result of bfloat16; give bias= and activation=")
    values: dict[str, np.ndarray] = {}
    kind, narrow = sums, sums.kind in "iu" and sums.itemsize <= 4
    for name in ("scale", "shift", "residual"):
        given = getattr(epilogue, name)
        if given is None:
            continue
        value = take(name, given)
        if name == "residual":
            if value.shape != shape:
                raise ValueError(f"residual must have the result's shape {shape}, got {value.shape}")
        elif value.ndim:
            oc = _channels(shape, layout)
            if value.shape != (oc,):
                raise ValueError(f"{name} must be a scalar or of shape {(oc,)}, got {value.shape}")
        values[name] = value
        weak = isinstance(given, (int, float)) and not isinstance(given, (bool, np.generic))
        narrow = narrow and (weak or value.dtype.itemsize <= 4)
        kind = np.result_type(kind, given if weak else value.dtype)
    if narrow and kind == np.float64:
        kind = np.dtype(np.float32)
    text = activation_text(epilogue.activation, kind)
    dtype = np.dtype(epilogue.dtype if epilogue.dtype is not None else sums)
    dtype_name(dtype)
    if kind.kind == "c" and dtype.kind != "c":
        raise TypeError(f"dtype of the epilogue must be complex for complex sums, got {dtype}")
    zero: Any = epilogue.zero_point
    if not isinstance(zero, int) or isinstance(zero, bool):
        raise TypeError(f"zero_point must be an int, got {zero!r}")
    if zero and not (dtype.kind in "iu" and kind.kind == "f" and np.iinfo(dtype).min <= zero <= np.iinfo(dtype).max):
        raise ValueError(f"zero_point must be 0, or a value of an integer dtype that floats are rounded to, got {zero} for {dtype}")
    if abs(zero) > 9999:
        raise ValueError(f"zero_point must have at most 4 digits, got {zero}")
    return _Checked(values, kind, text, dtype)


def sums_type(epilogue: Any, input: np.dtype[Any], weight: np.dtype[Any], dtype: Any) -> Any:
    """The ``dtype`` argument of a call with an epilogue: int32 for narrower integers that are scaled or shifted, where none is given."""
    scales = isinstance(epilogue, Epilogue) and (epilogue.scale is not None or epilogue.shift is not None)
    kind = np.result_type(input, weight) if scales else input
    return np.dtype(np.int32) if dtype is None and scales and kind.kind in "iu" and kind.itemsize < 4 else dtype


def in_problem(
    epilogue: Any, p: Problem, shape: tuple[int, ...], sums: np.dtype[Any], image: Callable[[np.ndarray], np.ndarray]
) -> tuple[Problem, Addends] | None:
    """A problem of plain sums with the epilogue in it, and the arrays that it reads; None where no problem says what it computes.

    Raises
    ------
    TypeError, ValueError
        As `finisher`.
    """
    checked = _checked(epilogue, shape, sums, p.src_layout)
    values, kind = checked.values, checked.kind
    wanted = np.dtype(np.float32) if sums.kind in "iu" else sums
    if not values or kind != wanted or kind.kind != "f" or DTYPES[p.acc] != sums:
        return None
    with np.errstate(all="ignore"):
        addends = Addends(None, *(np.ascontiguousarray(np.broadcast_to(values[name].astype(kind), p.oc)) if name in values else None
                                  for name in ("scale", "shift")))  # fmt: skip
        if "residual" in values:
            addends = addends._replace(residual=image(values["residual"].astype(kind, copy=False)))
    return _with_words(p, set(values), checked.text, checked.dtype, epilogue.zero_point), addends


def _with_words(p: Problem, words: set[str], activation: str, dtype: np.dtype[Any], zero: int) -> Problem:
    """A problem of plain sums that are also finished by some of `SCALINGS`, an activation, and for an integer type rounded."""
    if DTYPES[p.acc].kind in "iu":
        words = words | {"scale"}
    rounding = (f"saturate:{zero}" if zero else "saturate") if dtype.kind in "iu" else ""
    bias = "bias" if parse_epilogue(p.epilogue).bias else ""
    text = "+".join(filter(None, (bias, *(name for name in SCALINGS if name in words), activation, rounding)))
    return p.replace(dst=dtype_name(dtype), epilogue=text)


@dataclass(frozen=True, slots=True)
class CardFinish:
    """An epilogue's arrays on a device, and what they make of sums there."""

    dtype: np.dtype[Any]  # of the result
    kind: str
    text: str
    zero: int
    scale: Any
    shift: Any
    residual: Any  # (n, oc, oh, ow)

    def __call__(self, sums: Any, dst: Any) -> None:
        """Queue it: sums and results ``(n, oc, oh, ow)``."""
        residual = self.residual
        if residual is not None and backend("arrays").overlap(dst, residual) and (dst.address, dst.strides) != (
            residual.address, residual.strides
        ):  # fmt: skip
            residual = backend("copy").converted(residual, residual.dtype)
        backend("pointwise").finished_as(sums, self.kind, self.text, dst, self.zero, self.scale, self.shift, residual)

    def fused(self, p: Problem, target: Any, algorithm: str | None) -> tuple[Problem, Addends | None] | None:
        """A problem of plain sums with all of this in it, and what it reads; None where no kernel finishes its sums so.

        These are left to a pass behind the sums: activations of many steps, for which kernels have no registers; steps in integers, or in
        float64 behind narrower sums; results of more than 32 bits that are rounded; residuals that would be rounded before they are added.
        """
        half = (p.acc, p.dst) == ("f32", "f16")
        steps = ("f16", "f32") if half else ("f32" if DTYPES[p.acc].kind in "iu" else p.acc,)
        if self.kind not in steps or (p.dst != p.acc and not half):
            return None
        addends = Addends(None, self.scale, self.shift, self.residual)
        words = {name for name in SCALINGS if getattr(addends, name, None) is not None}
        if half:
            words.add("halves" if self.kind == "f16" else "half")
        fused = _with_words(p, words, self.text, self.dtype, self.zero)
        if self.residual is not None and not np.can_cast(self.residual.dtype, residual_type(fused)):
            return None
        if not any(accepted(fused.replace(structure=structure), target, algorithm) for structure in ("full", "rank1")):
            return None
        return fused, None if parse_scaling(fused.epilogue) == Scaling() else addends


def card_finisher(
    epilogue: Any, shape: tuple[int, ...], sums: np.dtype[Any], layout: str, image: Callable[[Any], Any], take: Callable[[str, Any], Any],
    device: int | None = None, moved: Callable[[Any], Any] | None = None,
) -> CardFinish:  # fmt: skip
    """`finisher` for sums on a card; ``take`` reads an array of it or of the host, and ``moved`` brings a residual there.

    Without ``moved``, of a plan, scale and shift are copied, and there must be no residual.

    Raises
    ------
    TypeError, ValueError
        As `finisher`; complex sums, and a type of the result that kernels do not write.
    """
    values, kind, text, dtype = _checked(epilogue, shape, sums, layout, take)
    if kind.kind == "c":
        raise ValueError("epilogue must be None for complex sums on a CUDA device")
    if dtype_name(dtype) not in (*backend("finish").SUMS, "f16", "bf16"):
        raise TypeError(f"dtype of the epilogue must be an integer or float type of at most 64 bits on a CUDA device, got {dtype}")
    name, arrays, copy = dtype_name(kind), dict[str, Any](), backend("copy")
    driver = backend("driver")
    with driver.lasting() if moved is None else contextlib.nullcontext():
        for word in ("scale", "shift"):
            if word in values:
                value: Any
                value, oc = values[word].reshape((values[word].size,)), _channels(shape, layout)
                kept = moved is not None or isinstance(value, np.ndarray)  # but a plan has copies of its own
                if isinstance(value, np.ndarray):
                    with np.errstate(all="ignore"):
                        value = np.broadcast_to(value.astype(kind), (oc,))
                elif value.size != oc:
                    value = value.strided((oc,), (0,))
                array = copy.on_device(value, name, device) if kept else value
                arrays[word] = array if kept and array.dense else copy.converted(array, kind)
                if moved is None:
                    driver.settle(arrays[word].stream)  # calls may be on others
    residual = values.get("residual")
    if residual is not None:
        if moved is None:
            raise ValueError("residual must be None in a plan")
        residual = image(moved(residual))
    return CardFinish(dtype, name, text, epilogue.zero_point, arrays.get("scale"), arrays.get("shift"), residual)


def finisher(
    epilogue: Any, shape: tuple[int, ...], sums: np.dtype[Any], layout: str, out: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    """What applies an epilogue to sums of this shape, type and layout (``nchw | nhwc``); everything is checked here.

    Raises
    ------
    TypeError, ValueError
        Naming the field of the epilogue, its value and what is allowed.
    """
    values, kind, text, dtype = _checked(epilogue, shape, sums, layout)
    if out is not None:
        check_out(out, shape, dtype)
    planes = layout == "nchw" and len(shape) > 2

    def finish(y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            y = y.astype(kind, copy=False)
            for name, value in values.items():
                value = value.astype(kind, copy=False)
                value = value.reshape(-1, 1, 1) if planes and value.ndim == 1 else value
                y = y * value if name == "scale" else y + value
            y = activate(text, y)
            if dtype.kind not in "iu":
                y = narrowed(y, dtype) if is_bfloat(dtype) else y.astype(dtype, copy=False)
            else:
                y = rounded("saturate", y, dtype, epilogue.zero_point) if y.dtype.kind == "f" else saturate(y, dtype)
        return delivered(np.ascontiguousarray(y) if out is None else y, out)

    return finish
