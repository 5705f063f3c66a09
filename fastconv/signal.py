"""scipy.signal's 2-D correlation and convolution, result for result, with stride, dilation, mask and ``out``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .planning.arguments import check_choices, check_out, exact, pair, spans
from .planning.calls import Calls, GivenWeights, View, delivered, destination, prepared
from .planning.devices import Session, session
from .planning.planner import MOST_PLANS, plan_problem
from .planning.problem import DTYPES, Problem, accumulator, dtype_name
from .planning.structure import rivals_of, structured
from .planning.thread_count import thread_count
from .tensors import is_tensor, of_tensors

_BORDERS = {"fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap",
            "symm": "symmetric", "symmetric": "symmetric"}  # fmt: skip

# (flipped, complex) -> the view of in2 that correlates
_KERNELS: dict[tuple[bool, bool], View] = {
    (False, False): lambda w: w[None, None],
    (False, True): lambda w: w.conj()[None, None],
    (True, False): lambda w: w[None, None, ::-1, ::-1],
    (True, True): lambda w: w[None, None, ::-1, ::-1],
}

_OF_PIXELS = object()  # in a key, for a mask that is an array of the image's shape
_calls: Calls[GivenWeights] = Calls(MOST_PLANS)


def _plane(x: np.ndarray) -> np.ndarray:
    return x[None, None]


def correlate2d(
    in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0, *,
    stride: Any = 1, dilation: Any = 1, mask: Any = None, out: np.ndarray | None = None, dtype: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Cross-correlate two 2-D arrays: `scipy.signal.correlate2d`, plus stride, dilation, mask and ``out``.

    ``full[y, x] = sum_{i, j} in1[y + i - (kh-1), x + j - (kw-1)] * conj(in2[i, j])``

    Parameters
    ----------
    in1, in2 : array_like, 2-D
        Integers, floats or complex numbers.  bool, float16 and objects are refused, as SciPy refuses them.  Where in1 is a
        `torch.Tensor` so is the result, without a gradient.
    mode : {"full", "same", "valid"}
        ``"same"`` has in1's shape, with ``(k-1)//2`` pixels before each; ``"valid"`` exchanges the inputs where in2 is larger.
    boundary : {"fill", "wrap", "symm"}
        Also ``"pad"``, ``"circular"``, ``"symmetric"``.
    fillvalue : scalar
        Outside the image under ``"fill"``, cast to the result's type; not looked at under other boundaries.
    stride : int or (int, int)
        Every stride-th row and column of the result: equal to slicing it ``[::sh, ::sw]``.
    dilation : int or (int, int)
        Distance between in2's elements.
    mask : array of bool of in1's shape, or "nan"
        Valid pixels; the result is ``sum(w m x) / sum(w m)``, NaN where the denominator is 0.  Outside the image counts as
        masked under ``"fill"``.
    out : ndarray, optional
        Receives and is the result: exact shape and type, writeable, any positive strides.
    dtype : dtype, optional
        Of the result and the sums; ``numpy.result_type(in1, in2)`` by default.  Integers wrap in it.
    precision, threads, device, algorithm
        See `fastconv.conv2d`.

    Returns
    -------
    ndarray
        C-contiguous.

    Raises
    ------
    ValueError, TypeError
        With SciPy's texts where it has one.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(16.0).reshape(4, 4)
    >>> correlate2d(x, np.ones((3, 3)), mode="valid")
    array([[45., 54.],
           [81., 90.]])
    >>> correlate2d(x, np.ones((3, 3)), mode="same", stride=2)
    array([[10., 24.],
           [51., 90.]])
    """
    return _lookup(False, in1, in2, mode, boundary, fillvalue, stride, dilation, mask, out, dtype,
                   precision, threads, device, algorithm)  # fmt: skip


def convolve2d(
    in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0, *,
    stride: Any = 1, dilation: Any = 1, mask: Any = None, out: np.ndarray | None = None, dtype: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Convolve two 2-D arrays: `scipy.signal.convolve2d`, plus stride, dilation, mask and ``out``.

    ``full[y, x] = sum_{i, j} in1[y - i, x - j] * in2[i, j]``; all arguments are those of `correlate2d`.

    Raises
    ------
    TypeError, ValueError
        With SciPy's texts where it has one.

    Examples
    --------
    >>> convolve2d([[1, 2], [3, 4]], [[1, 10]])
    array([[ 1, 12, 20],
           [ 3, 34, 40]])
    """
    return _lookup(True, in1, in2, mode, boundary, fillvalue, stride, dilation, mask, out, dtype,
                   precision, threads, device, algorithm)  # fmt: skip


def _lookup(
    flip: bool, in1: Any, in2: Any, mode: Any, boundary: Any, fillvalue: Any, stride: Any, dilation: Any, mask: Any,
    out: Any, dtype: Any, precision: Any, threads: Any, device: Any, algorithm: Any,
) -> np.ndarray:  # fmt: skip
    count = thread_count(threads)
    key: tuple[Any, ...] | None = None
    weighed: Any = mask  # as part of a key
    if type(mask) is np.ndarray and type(in1) is np.ndarray and mask.dtype == np.bool_ and mask.shape == in1.shape:
        weighed = _OF_PIXELS
    if (
        (mask is None or weighed is _OF_PIXELS or (type(mask) is str and mask == "nan"))
        and type(in1) is np.ndarray and type(in2) is np.ndarray and (out is None or type(out) is np.ndarray)
    ):  # fmt: skip
        place = None if out is None else (out.shape, out.strides, out.dtype)
        key = (place, flip, in1.shape, in1.strides, in1.dtype, in2.shape, in2.strides, in2.dtype, mode, boundary, fillvalue,
               stride, dilation, exact(fillvalue, stride, dilation), dtype, precision, count, device, algorithm, weighed)  # fmt: skip
        call = _calls.find(key)
        if call is not None:
            inputs = (in1, in2, mask if weighed is _OF_PIXELS else None)
            result = call.result(inputs) if out is None else call.into(inputs, out)
            if result is not None:
                return result
    if key is None and any(map(is_tensor, (in1, in2, mask, out))):
        given = {"in1": in1, "in2": in2, "mask": mask}
        return of_tensors(
            lambda a, b, m, out: _lookup(flip, a, b, mode, boundary, fillvalue, stride, dilation, m, out, dtype, precision, count, device,
                                         algorithm), given, out)  # fmt: skip
    if isinstance(fillvalue, (float, complex, np.inexact)) and fillvalue == 0:
        key = None  # -0.0 and 0 are equal as keys
    return _general(key, flip, in1, in2, mode, boundary, fillvalue, stride, dilation, mask, out, dtype,
                    precision, count, device, algorithm)  # fmt: skip


def _general(
    key: tuple[Any, ...] | None, flip: bool, in1: Any, in2: Any, mode: Any, boundary: Any, fillvalue: Any, stride: Any,
    dilation: Any, mask: Any, out: Any, dtype: Any, precision: Any, count: int, device: Any, algorithm: Any,
) -> np.ndarray:  # fmt: skip
    here = session(device, "in1", in1, in2=in2, mask=mask, out=out)
    in1, in2 = (np.asarray(in1), np.asarray(in2)) if here is None else (here.input, here.take("in2", in2))
    if not in1.ndim == in2.ndim == 2:
        raise ValueError(f"{'convolve2d' if flip else 'correlate2d'} inputs must both be 2-D arrays")
    if not isinstance(mode, str) or mode not in ("full", "same", "valid"):
        raise ValueError("Acceptable mode flags are 'valid', 'same', or 'full'.")
    if not isinstance(boundary, str) or boundary not in _BORDERS:
        if boundary == "reflect":
            raise ValueError("Incorrect boundary value.")
        raise ValueError("Acceptable boundary flags are 'fill', 'circular' (or 'wrap'), and 'symmetric' (or 'symm').")
    strides, dilations = pair("stride", stride, 1), pair("dilation", dilation, 1)
    check_choices(precision)
    result_type = _result_type(in1, in2, dtype)
    if mask is not None:
        result_type = np.result_type(result_type, np.float64) if result_type.kind not in "fc" else result_type
    fill = _cast_fill(fillvalue, result_type) if _BORDERS[boundary] == "constant" else 0
    span = spans(in2.shape, dilations)
    swapped = _exchanged(mode, in1.shape, span)
    if swapped and (strides, dilations) != ((1, 1), (1, 1)):
        raise ValueError("stride and dilation must be 1 in mode 'valid' where in2 is larger than in1, "
                         f"got stride={stride!r}, dilation={dilation!r}")  # fmt: skip
    image, kernel = (span, in1.shape) if swapped else (in1.shape, span)
    before, after = _paddings(mode, flip, kernel)
    full = [i if mode == "same" else max(i + k - 1 if mode == "full" else i - k + 1, 0) for i, k in zip(image, kernel, strict=True)]
    shape = (-(-full[0] // strides[0]), -(-full[1] // strides[1]))
    if here is not None and mask is not None and (swapped or result_type.kind == "c"):
        raise ValueError("mask must be None on a CUDA device for complex numbers, and for in2 larger than in1 in mode 'valid'")
    if out is not None and (here is None or here.hosted):
        check_out(out, shape, result_type)
    valid = None if mask is None else _valid(in1, mask, here)
    if swapped and here is None and mask is not None:
        pixels = np.isnan(in1) if valid is None else ~valid
        return delivered(_mean(*(
            _lookup(flip, x, in2, mode, boundary, 0, 1, 1, None, None, result_type, precision, count, device, algorithm)
            for x in (np.where(pixels, in1.dtype.type(0), in1), (~pixels).astype(result_type))
        )), out)  # fmt: skip
    if swapped and here is None:
        # SciPy exchanges the inputs of a 'valid' call, and turns the result of a correlation round
        result = _lookup(flip, in2, in1, mode, boundary, fillvalue, 1, 1, None, None, result_type, precision, count, device, algorithm)
        return delivered(result if flip else np.ascontiguousarray(result[::-1, ::-1]), out)
    if here is not None and (0 in image or 0 in kernel):
        raise ValueError(f"in1 and in2 must not be empty on a CUDA device, got shapes {in1.shape} and {in2.shape}")
    if 0 in shape or 0 in image or 0 in kernel:
        return _degenerate(shape, result_type, image, kernel, in2, _BORDERS[boundary], fill, out, mask is not None)
    name = dtype_name(result_type)
    turned = here is not None and swapped and not flip
    if here is not None and swapped:
        in1, in2 = here.moved(in2), in1
    p = Problem(
        ih=in1.shape[0], iw=in1.shape[1], kh=in2.shape[0], kw=in2.shape[1], sh=strides[0], sw=strides[1], dh=dilations[0], dw=dilations[1],
        pt=before[0], pb=after[0], pl=before[1], pr=after[1], border=_BORDERS[boundary],
        src=dtype_name(in1.dtype), wei=dtype_name(in2.dtype), dst=name, acc=accumulator(name), precision=precision,
        masked=mask is not None,
    )  # fmt: skip
    if here is not None:
        result, dst = here.destination(out, shape, result_type)
        kernel_of_in2 = _KERNELS[flip, False](in2 if flip else here.conjugate(in2))
        to = _plane(dst)[..., ::-1, ::-1] if turned else _plane(dst)
        here.run(p, _plane(in1), kernel_of_in2, None if valid is None else _plane(valid), to, fill, algorithm)
        return here.deliver(result, dst)
    view = _KERNELS[flip, in2.dtype.kind == "c"]
    named = p if algorithm is None else structured(p, view(in2), algorithm)
    plan = plan_problem(named, threads=count, algorithm=algorithm)
    dst = destination(out, shape, result_type, in1, in2, *(() if valid is None else (valid,)))
    call = prepared(plan, shape, result_type, _plane, view, (in1, in2, dst), fill,
                    rivals_of(p, count, algorithm))  # fmt: skip
    # a plan for these weights alone is not kept for others of their shape
    return _calls.first(key if named is p else None, call, (in1, in2, valid), out, dst)


def _result_type(in1: np.ndarray, in2: np.ndarray, dtype: Any) -> np.dtype[Any]:
    kinds = in1.dtype.kind + in2.dtype.kind
    result = np.dtype(dtype) if dtype is not None else np.result_type(in1.dtype, in2.dtype) if set(kinds) <= set("biufc") else None
    if result is None or result.newbyteorder("=") not in DTYPES.values() or result.kind == "b" or result == np.float16:
        raise ValueError("convolve2d not available for this type.")
    if result.kind != "c" and "c" in kinds:
        raise ValueError(f"dtype must be complex for complex inputs, got {result}")
    return result.newbyteorder("=")


def _cast_fill(fillvalue: Any, dtype: np.dtype[Any]) -> Any:
    """The fill value in the result's type, by SciPy's rules."""
    try:
        fill = np.array(fillvalue, dtype)
    except (OverflowError, TypeError, ValueError):
        fill = None
    if fill is None:
        complex((np.size(fillvalue) and np.ravel(np.asarray(fillvalue, object))[0]) or 0)
        raise ValueError("could not cast `fillvalue` directly to the output type (it was first converted to complex).")
    if fill.size == 0:
        raise ValueError("`fillvalue` cannot be an empty array.")
    if fill.size != 1:
        raise ValueError("`fillvalue` must be scalar or an array with one element.")
    return fill.reshape(())[()]


def _exchanged(mode: str, image: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    if mode != "valid" or all(i >= k for i, k in zip(image, kernel, strict=True)):
        return False
    if any(k < i for i, k in zip(image, kernel, strict=True)):
        raise ValueError("For 'valid' mode, one must be at least as large as the other in every dimension")
    return True


def _paddings(mode: str, flip: bool, kernel: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Pixels before and after, per axis: 'same' keeps (k-1)//2 before each pixel, the mirror image when flipped."""
    if mode == "valid":
        return [0, 0], [0, 0]
    all_but_one = [max(k - 1, 0) for k in kernel]
    if mode == "full":
        return all_but_one, all_but_one
    small, large = [k // 2 for k in all_but_one], [k - k // 2 for k in all_but_one]
    return (large, small) if flip else (small, large)


def _degenerate(
    shape: tuple[int, int], dtype: np.dtype[Any], image: tuple[int, ...], kernel: tuple[int, ...], in2: np.ndarray,
    border: str, fill: Any, out: np.ndarray | None, masked: bool,
) -> np.ndarray:  # fmt: skip
    """Results without pixels or taps: empty, all zero, or the fill value under every tap; NaN where they are means of nothing."""
    value = dtype.type(0)
    if 0 in image and 0 not in kernel and 0 not in shape:
        if border != "constant":
            raise ValueError(f"in1 must not be empty unless boundary is 'fill', got shape {image}")
        with np.errstate(all="ignore"):
            value = (in2.astype(dtype) * fill).sum(dtype=dtype)
    if masked:
        value = dtype.type(np.nan)
    dst = out if out is not None else np.empty(shape, dtype)
    dst[...] = value
    return dst


def _valid(in1: Any, mask: Any, here: Session | None) -> Any:
    """The mask, or None where all pixels but NaN are valid; of an image on a card there."""
    if isinstance(mask, str):
        if mask != "nan":
            raise ValueError(f"mask must be an array of bool or 'nan', got {mask!r}")
        return None
    valid = np.asarray(mask) if here is None else here.take("mask", mask)
    if valid.dtype != np.bool_:
        raise TypeError(f"mask must be an array of bool or 'nan', got dtype {valid.dtype}")
    if valid.shape != in1.shape:
        raise ValueError(f"mask must have in1's shape {in1.shape}, got {valid.shape}")
    return valid if here is None else here.moved(valid)


def _mean(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``total / weight``, NaN where the weight is 0."""
    with np.errstate(all="ignore"):
        return np.where(weight == 0, weight.dtype.type(np.nan), total / weight)
