"""Transposed convolution and the two gradients of `conv2d`: the problems ``bwd_data`` and ``bwd_weight``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .epilogue import epilogue_text
from .planning.arguments import as_array, check_choices, group_count, pair, result_type, spans
from .planning.calls import Bounded, Calls, GivenWeights, Inputs, View, call_key, delivered, destination, prepared
from .planning.devices import Session, backend, session
from .planning.layout import PADDING_MODES, Layout, arranged, bias_array, check_channels, checked_bias, paddings
from .planning.planner import MOST_PLANS, plan_problem
from .planning.plans import Launch
from .planning.problem import DTYPES, LIMIT, Problem, accumulator, dtype_name
from .planning.reference import activate
from .planning.thread_count import thread_count
from .planning.workspaces import new_result
from .tensors import of_torch, torch_ops

_MOST_LAUNCHES = 8  # of a plan: the strides that it has met
_calls: Calls[GivenWeights] = Calls(MOST_PLANS)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, data_format: str = "NCHW", activation: Any = None, out: np.ndarray | None = None, dtype: Any = None,
    precision: str = "default", threads: int | None = None, device: str | None = None, algorithm: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Transposed 2-D convolution, as `torch.nn.functional.conv_transpose2d`: the gradient of `conv2d` with respect to its image.

    Parameters
    ----------
    input : array_like
        ``(n, c, h, w)`` or ``(c, h, w)``; channels last with ``data_format="NHWC"``.
    weight : array_like
        ``(c, oc/groups, kh, kw)``; with ``"NHWC"`` ``(kh, kw, oc/groups, c)``.
    bias : array_like of shape (oc,), optional
    stride, padding, dilation : int or (int, int)
    output_padding : int or (int, int)
        Rows and columns added at the end; fewer than the stride or the dilation.
    groups, data_format, activation, out, dtype, precision, threads, device, algorithm
        See `conv2d`.

    Returns
    -------
    ndarray
        Of ``(h - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1`` rows.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed, before anything is written.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 2, 2)), np.ones((1, 1, 2, 2)), stride=2)[0, 0]
    array([1., 1., 1., 1.])
    """
    if of_torch(data_format, input, weight, bias):
        return torch_ops().conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, activation,
                                            out, dtype, precision, threads, device, algorithm)  # fmt: skip
    count = thread_count(threads)
    key = call_key((input, weight, bias), out, (stride, padding, output_padding, groups, dilation, activation),
                   (data_format, dtype, precision, count, device, algorithm))  # fmt: skip
    call = None if key is None else _calls.find(key)
    if call is not None:
        known = call.result((input, weight, bias)) if out is None else call.into((input, weight, bias), out)
        if known is not None:
            return known
    check_choices(precision)
    here = session(device, "input", input, True, weight=weight, bias=bias, out=out)
    if here is None:
        input, weight = as_array("input", input), as_array("weight", weight)
    else:
        input, weight, bias = here.input, here.take("weight", weight, True), here.take("bias", bias, True)
    layout = arranged(data_format, input.shape, weight.shape, (3, 4))
    g = group_count(groups)
    (_, oc, oh, ow), (filters, icg, kh, kw) = layout.extents(input.shape), layout.filters(weight.shape)
    if filters != oc or oc % g:
        raise ValueError(f"weight must have the input's {oc} channels, divisible by groups={g}, "
                         f"got shapes {input.shape} and {weight.shape}")  # fmt: skip
    (sh, sw), (dh, dw), (ph, pw) = pair("stride", stride, 1), pair("dilation", dilation, 1), pair("padding", padding, 0)
    extra_h, extra_w = pair("output_padding", output_padding, 0)
    if extra_h >= max(sh, dh) or extra_w >= max(sw, dw):
        raise ValueError(f"output_padding must be smaller than stride {(sh, sw)} or dilation {(dh, dw)}, got {output_padding!r}")
    rows, columns = spans((kh, kw), (dh, dw))
    ih, iw = (oh - 1) * sh - 2 * ph + rows + extra_h, (ow - 1) * sw - 2 * pw + columns + extra_w
    if max(ih, iw) >= LIMIT:
        raise ValueError(f"stride and dilation must keep the result's extents below 2**62, got {stride!r} and {dilation!r}")
    if ih < 1 or iw < 1:
        raise ValueError(f"padding must leave a result of at least one pixel, got {padding!r} and a result of {(ih, iw)}")
    how = (sh, sw), (dh, dw), g, (ph, pw), (ih, iw), activation, dtype, precision
    p = _transposed(layout, input, weight, bias is not None, *how)
    shape, whole = layout.shape(p.n, p.ic, ih, iw), p.replace(ih=ih, iw=iw)
    if here is None:
        bias = bias_array(bias, p.ic, weight.ndim, p.acc)
        dst = destination(out, shape, DTYPES[p.dst], input, weight, bias)
        if not dst.size:
            return delivered(dst, out)
        if not _reaches(p, oh, ow):
            layout.image(dst)[...] = _unreached(p, bias)
            return delivered(dst, out)
        kind, to = (GivenWeights, None) if (p.ih, p.iw) == (ih, iw) else (_Partly, _first(layout.image, p.ih, p.iw))
        made = prepared(plan_problem(p, threads=count, algorithm=algorithm), shape, dst.dtype, layout.image, layout.weights,
                        (input, weight, dst), to=to, kind=kind)  # fmt: skip
        return _calls.first(key, made, (input, weight, bias), out, dst)
    checked_bias(bias, icg * g, weight.ndim)
    named = _named(p, result_type(input.dtype, weight.dtype, dtype))
    if (whole.oh, whole.ow) == (oh, ow):  # kernels write what no tap reaches, too
        return run_on_card(here, whole, layout.image(input), layout.weights(weight), bias, shape, layout.image, out, algorithm, None, named)
    result, to = here.destination(out, shape, named)
    if to.size:
        src, dst = layout.image(input), layout.image(to)
        if backend("arrays").overlap(src, dst):
            src = backend("copy").converted(src, src.dtype)
        backend("pointwise").biased(p, bias, dst)
        if _reaches(p, oh, ow):
            here.run(p, src, layout.weights(weight), bias, dst[:, :, : p.ih, : p.iw], 0, algorithm)
    return here.deliver(result, to)


def _transposed(
    layout: Layout, input: Any, weight: Any, biased: bool, stride: tuple[int, int], dilation: tuple[int, int], groups: int,
    start: tuple[int, int], size: tuple[int, int], activation: Any, dtype: Any, precision: str,
) -> Problem:  # fmt: skip
    """The problem of what taps can reach of a result of this size, which begins ``start`` pixels after the first pixel's kernel.

    One row or column where they reach none, see `_reaches`.
    """
    (n, oc, oh, ow), (_, icg, kh, kw) = layout.extents(input.shape), layout.filters(weight.shape)
    result = result_type(input.dtype, weight.dtype, dtype)
    name = dtype_name(result)
    rows, columns = spans((kh, kw), dilation)
    after = (oh - 1) * stride[0] + rows - start[0] - size[0], (ow - 1) * stride[1] + columns - start[1] - size[1]
    return Problem(
        op="bwd_data", n=n, g=groups, ic=icg * groups, ih=max(size[0] + min(after[0], 0), 1), iw=max(size[1] + min(after[1], 0), 1),
        oc=oc, kh=kh, kw=kw, sh=stride[0], sw=stride[1], dh=dilation[0], dw=dilation[1],
        pt=start[0], pb=max(after[0], 0), pl=start[1], pr=max(after[1], 0),
        src=dtype_name(input.dtype), wei=dtype_name(weight.dtype), dst=name, acc=accumulator(name), src_layout=layout.name,
        wei_layout=layout.weights_name, epilogue=epilogue_text(biased, activation, result), precision=precision,
    )  # fmt: skip


def _reaches(p: Problem, oh: int, ow: int) -> bool:
    """Whether a tap reaches any pixel of the result of a transposed convolution of ``(oh, ow)`` pixels."""
    return (oh - 1) * p.sh + p.kh_span > p.pt and (ow - 1) * p.sw + p.kw_span > p.pl


def _unreached(p: Problem, bias: np.ndarray | None) -> np.ndarray:
    """What pixels are that no tap reaches: ``(1, c, 1, 1)`` in the result's type."""
    with np.errstate(all="ignore"):  # a NaN becomes an integer as C makes it one
        start = np.zeros((1, p.ic, 1, 1), DTYPES[p.acc]) if bias is None else bias.astype(DTYPES[p.acc]).reshape(1, -1, 1, 1)
        return activate(p.epilogue, start).astype(DTYPES[p.dst])


def _first(image: View, rows: int, columns: int) -> View:
    """The view of an image's first rows and columns, which taps reach."""
    return lambda dst: image(dst)[:, :, :rows, :columns]


class _Partly(GivenWeights):
    """A transposed convolution that has rows or columns behind what taps reach."""

    __slots__ = ()

    def run(self, inputs: Inputs, dst: np.ndarray) -> None:
        """As `Call.run`."""
        self.image(dst)[...] = _unreached(self.problem, inputs[2])
        GivenWeights.run(self, inputs, dst)


class TransposedPlan:
    """A transposed convolution of images of one shape and type, its weights packed: ``plan(image, out=None)``.

    Parameters
    ----------
    layout : Layout
    input : ndarray
        Of the shape and type that the plan is for.
    weight : ndarray
    bias : array_like, optional
    stride, dilation : (int, int)
    groups : int
    start : (int, int)
        Rows and columns that the result lacks before its first.
    size : (int, int)
        Rows and columns of the result; no tap reaches those beyond the last pixel's kernel.
    activation, dtype, precision, threads, algorithm
        See `conv_transpose2d`.
    """

    def __init__(
        self, layout: Layout, input: np.ndarray, weight: np.ndarray, bias: Any, stride: tuple[int, int], dilation: tuple[int, int],
        groups: int, start: tuple[int, int], size: tuple[int, int], activation: Any, dtype: Any, precision: str, threads: int,
        algorithm: str | None,
    ) -> None:  # fmt: skip
        how = stride, dilation, groups, start, size, activation, dtype, precision
        self.problem = p = _transposed(layout, input, weight, bias is not None, *how)
        bias = bias_array(bias, p.ic, weight.ndim, p.acc)
        self.shape, self.dtype = layout.shape(p.n, p.ic, *size), DTYPES[p.dst]
        self._image = layout.image
        with np.errstate(invalid="ignore"):  # a NaN becomes an integer as C makes it one
            self._bias = None if bias is None else np.array(bias, DTYPES[p.acc])
        self._reaches = _reaches(p, *layout.extents(input.shape)[2:])
        if self._reaches:
            self._plan = plan_problem(p, threads=threads, algorithm=algorithm)
            self._packed = self._plan.pack(layout.weights(weight))
        self._launches: Bounded[Launch] = Bounded(_MOST_LAUNCHES)

    def __call__(self, input: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The result for an image of the planned shape and type."""
        dst = destination(out, self.shape, self.dtype, input)
        if dst.size:
            src, to = self._image(input), self._image(dst)
            p = self.problem
            reached = to[:, :, : p.ih, : p.iw]
            if reached.shape != to.shape or not self._reaches:
                to[...] = _unreached(p, self._bias)
            if not self._reaches:
                return delivered(dst, out)
            key = src.strides, to.strides
            launch = self._launches.get(key)
            if launch is None:
                launch = self._launches.keep(key, self._plan.prepare(src, self._packed, reached))
            launch(src, self._packed, self._bias, reached)
        return delivered(dst, out)


def conv2d_input(
    input_size: Any, weight: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    """The gradient of `conv2d` with respect to its input, as `torch.nn.grad.conv2d_input` (NCHW, zero padding).

    Parameters
    ----------
    input_size : (int, int, int, int)
        ``(n, c, h, w)`` of the input, and of the result.
    weight : array_like
        ``(oc, c/groups, kh, kw)``.
    grad_output : array_like
        The gradient of `conv2d`'s result, in its shape.
    stride, padding, dilation : int or (int, int)
    groups : int

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_input((1, 1, 3, 3), np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    if not type(weight) is type(grad_output) is np.ndarray and of_torch("NCHW", grad_output, weight):
        return torch_ops().conv2d_input(input_size, weight, grad_output, stride, padding, dilation, groups)
    key, result = _known("input", (grad_output, weight), (input_size, stride, padding, dilation, groups), thread_count())
    if result is not None:
        return result
    here = session(None, "grad_output", grad_output, True, weight=weight)
    weight, grad = _operand(here, "weight", weight), as_array("grad_output", grad_output) if here is None else here.input
    return image_gradient(four("input_size", input_size), weight, grad, stride, _both(padding), dilation, groups, here=here, key=key)


def conv2d_weight(
    input: Any, weight_size: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    """The gradient of `conv2d` with respect to its weights, as `torch.nn.grad.conv2d_weight` (NCHW, zero padding).

    Parameters
    ----------
    input : array_like
        ``(n, c, h, w)``.
    weight_size : (int, int, int, int)
        ``(oc, c/groups, kh, kw)`` of the weights, and of the result.
    grad_output : array_like
        The gradient of `conv2d`'s result, in its shape.
    stride, padding, dilation : int or (int, int)
    groups : int

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_weight(np.ones((1, 1, 3, 3)), (1, 1, 2, 2), np.ones((1, 1, 2, 2)))[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    if not type(input) is type(grad_output) is np.ndarray and of_torch("NCHW", input, grad_output):
        return torch_ops().conv2d_weight(input, weight_size, grad_output, stride, padding, dilation, groups)
    key, result = _known("weights", (input, grad_output), (weight_size, stride, padding, dilation, groups), thread_count())
    if result is not None:
        return result
    here = session(None, "input", input, True, grad_output=grad_output)
    image, grad = as_array("input", input) if here is None else here.input, _operand(here, "grad_output", grad_output)
    return weight_gradient(image, four("weight_size", weight_size), grad, stride, _both(padding), dilation, groups, here=here, key=key)


def _operand(here: Session | None, name: str, value: Any) -> Any:
    return as_array(name, value) if here is None else here.take(name, value, True)


def known(key: tuple[Any, ...]) -> GivenWeights | None:
    """The call that is known by a key, which reads (gradient, weights, None) or (image, gradient, None)."""
    return _calls.find(key)


def _known(name: str, arrays: tuple[Any, Any], values: tuple[Any, ...], *rest: Any) -> tuple[tuple[Any, ...] | None, np.ndarray | None]:
    """What the call of a gradient of these arrays is known by, and its result where it is known."""
    key = call_key(arrays, None, values, (name, *rest))
    call = None if key is None else _calls.find(key)
    return key, None if call is None else call.result((*arrays, None))


def image_gradient(
    size: tuple[int, ...], weight: np.ndarray, grad: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: str = "zeros", data_format: str = "NCHW", precision: str = "default", threads: int | None = None,
    here: Session | None = None, key: tuple[Any, ...] | None = None,
) -> np.ndarray:  # fmt: skip
    """The gradient of `conv2d` with its arguments, but for a plane's, with respect to an input of this size.

    The call is `known` by the ``key`` from now on.
    """
    count, values = thread_count(threads), (size, stride, padding, dilation, groups)
    if key is None:
        key, result = _known("image", (grad, weight), values, padding_mode, data_format, precision, count)
        if result is not None:
            return result
    p, layout = _gradient("bwd_data", size, weight.shape, grad, weight.dtype, stride, padding, dilation, groups, padding_mode, data_format,
                          precision)  # fmt: skip
    shape = layout.shape(p.n, p.ic, p.ih, p.iw)
    return _planned(key, p, (grad, weight), (layout.image, layout.weights, layout.image), shape, count, here)


def weight_gradient(
    input: np.ndarray, size: tuple[int, ...], grad: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: str = "zeros", data_format: str = "NCHW", precision: str = "default", threads: int | None = None,
    here: Session | None = None, key: tuple[Any, ...] | None = None,
) -> np.ndarray:  # fmt: skip
    """The gradient of `conv2d` with its arguments, but for a plane's, with respect to weights of this size; ``key`` as above."""
    count, values = thread_count(threads), (size, stride, padding, dilation, groups)
    if key is None:
        key, result = _known("weight", (input, grad), values, padding_mode, data_format, precision, count)
        if result is not None:
            return result
    p, layout = _gradient("bwd_weight", input.shape, size, grad, input.dtype, stride, padding, dilation, groups, padding_mode, data_format,
                          precision)  # fmt: skip
    if layout.name == "nchw" and _side_by_side(input) and _side_by_side(grad):
        p = p.replace(src_layout="nhwc")  # as tensors of torch's channels_last are; the result lies as its own format says
    return _planned(key, p, (input, grad), (layout.image, layout.image, layout.weights), size, count, here)


def _side_by_side(images: np.ndarray) -> bool:
    """Whether the channels of ``(n, c, h, w)`` lie side by side."""
    return images.shape[1] > 1 and images.strides[1] == images.dtype.itemsize


def _both(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of torch's functions: the same before and behind the image."""
    rows, columns = pair("padding", padding, 0)
    return (rows, rows), (columns, columns)


def four(name: str, value: Any) -> tuple[int, ...]:
    """A shape of four ints."""
    try:
        size = tuple(extent.__index__() for extent in value)
    except (TypeError, AttributeError):
        raise TypeError(f"{name} must be four ints, got {value!r}") from None
    if len(size) != 4 or not all(0 <= extent < LIMIT for extent in size):
        raise ValueError(f"{name} must be four ints, not negative and below 2**62, got {value!r}")
    return size


def _gradient(
    op: str, image: tuple[int, ...], kernel: tuple[int, ...], grad: np.ndarray, other: np.dtype[Any], stride: Any, padding: Any,
    dilation: Any, groups: Any, padding_mode: str, data_format: str, precision: str,
) -> tuple[Problem, Layout]:  # fmt: skip
    layout = arranged(data_format, image, kernel, (4,))
    g = group_count(groups)
    (n, ic, ih, iw), (oc, icg, kh, kw) = layout.extents(image), layout.filters(kernel)
    check_channels(ic, g, oc, icg, kernel)
    (sh, sw), (dh, dw) = pair("stride", stride, 1), pair("dilation", dilation, 1)
    (pt, pb), (pl, pr) = paddings(padding, (ih, iw), spans((kh, kw), (dh, dw)), (sh, sw))
    name = dtype_name(result_type(grad.dtype, other, None))
    p = Problem(op=op, n=n, g=g, ic=ic, ih=ih, iw=iw, oc=oc, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pb=pb, pl=pl, pr=pr,
                border=PADDING_MODES[padding_mode], src=dtype_name(grad.dtype), wei=dtype_name(other), dst=name, acc=accumulator(name),
                src_layout=layout.name, wei_layout=layout.weights_name, precision=precision)  # fmt: skip
    wanted = layout.shape(p.n, p.oc, p.oh, p.ow)
    if grad.shape != wanted:
        raise ValueError(f"grad_output must have shape {wanted}, got {grad.shape}")
    return p, layout


def _planned(
    key: tuple[Any, ...] | None, p: Problem, arrays: tuple[Any, Any], views: tuple[View, View, View], shape: tuple[int, ...], threads: int,
    here: Session | None,
) -> np.ndarray:  # fmt: skip
    """The gradient of this shape; ``views`` are those of both arrays and of the result."""
    (src, wei), (image, weights, to) = arrays, views
    if here is not None:
        kind = _named(p, result_type(src.dtype, wei.dtype, None))
        return run_on_card(here, p, image(src), weights(wei), None, shape, to, None, None, None, kind)
    dst = new_result(shape, DTYPES[p.dst], src)
    if not dst.size:
        return dst
    call = prepared(plan_problem(p, threads=threads), shape, dst.dtype, image, weights, (src, wei, dst), to=to)
    return _calls.first(key, call, (src, wei, None), None, dst)


def _named(p: Problem, result: np.dtype[Any]) -> np.dtype[Any]:
    """The caller's name of a result's type: bfloat16 has several."""
    return result if p.dst == "bf16" else DTYPES[p.dst]


def run_on_card(
    here: Session, p: Problem, src: Any, wei: Any, bias: Any, shape: tuple[int, ...], view: View, out: Any, algorithm: str | None,
    finish: Any = None, dtype: np.dtype[Any] | None = None,
) -> Any:  # fmt: skip
    """The result of a problem on a card, delivered; ``finish`` is what follows its sums besides (`fastconv.epilogue.CardFinish`).

    ``dtype`` is the caller's name of the result's type, where it may have another than the problem's.
    """
    result, to = here.destination(out, shape, dtype or DTYPES[p.dst])
    fused = None if finish is None else finish.fused(p, here.target, algorithm)
    if 0 not in shape and fused is not None:
        here.run(fused[0], src, wei, bias, view(to), 0, algorithm, fused[1])
    elif 0 not in shape:
        sums = view(to if finish is None else here.memory(shape, DTYPES[p.dst]))
        here.run(p, src, wei, bias, sums, 0, algorithm)
        if finish is not None:
            finish(sums, view(to))
    return here.deliver(result, to)
