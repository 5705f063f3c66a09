"""Transposed convolution and the two gradients of `conv2d`: the problems ``bwd_data`` and ``bwd_weight``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .epilogue import activation_text, epilogue_text
from .planning.arguments import as_array, check_choices, group_count, pair, result_type, spans
from .planning.calls import delivered, destination
from .planning.devices import session
from .planning.layout import arranged, bias_array, check_channels, checked_bias
from .planning.planner import plan_problem
from .planning.problem import DTYPES, LIMIT, Problem, accumulator, dtype_name
from .planning.reference import activate
from .planning.thread_count import thread_count


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
    check_choices(precision, device)
    here = session(device, "input", input, weight=weight, bias=bias, out=out)
    if here is None:
        input, weight = as_array("input", input), as_array("weight", weight)
    else:
        input, weight, bias = here.input, here.take("weight", weight), here.take("bias", bias)
    layout = arranged(data_format, input.shape, weight.shape, (3, 4))
    g = group_count(groups)
    (n, oc, oh, ow), (filters, icg, kh, kw) = layout.extents(input.shape), layout.filters(weight.shape)
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
    result = result_type(input.dtype, weight.dtype, dtype)
    name = dtype_name(result)
    if here is None:
        bias = bias_array(bias, icg * g, weight.ndim, accumulator(name))
    else:
        checked_bias(bias, icg * g, weight.ndim)
    # rows of output padding take the place of padding at the end; those that remain are reached by no tap
    beyond = max(extra_h - ph, 0), max(extra_w - pw, 0)
    p = Problem(
        op="bwd_data", n=n, g=g, ic=icg * g, ih=ih - beyond[0], iw=iw - beyond[1], oc=oc, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw,
        pt=ph, pb=max(ph - extra_h, 0), pl=pw, pr=max(pw - extra_w, 0), src=dtype_name(input.dtype), wei=dtype_name(weight.dtype),
        dst=name, acc=accumulator(name), src_layout=layout.name, wei_layout=layout.weights_name,
        epilogue=epilogue_text(bias is not None, activation, result), precision=precision,
    )  # fmt: skip

    if here is not None and any(beyond):
        # kernels write what no tap reaches, too
        p = p.replace(ih=ih, iw=iw)
        if (p.oh, p.ow) != (oh, ow):
            raise ValueError(f"output_padding must not exceed padding by a stride or more on a CUDA device, got {output_padding!r}")
        beyond = 0, 0

    def reached(dst: np.ndarray) -> np.ndarray:
        image = layout.image(dst)
        if any(beyond):
            start = np.zeros((1, p.ic, 1, 1), DTYPES[p.acc]) if bias is None else bias.astype(DTYPES[p.acc]).reshape(1, -1, 1, 1)
            np.copyto(image, activate(activation_text(activation, result), start), casting="unsafe")
        return image[:, :, : p.ih, : p.iw]

    return _planned(p, layout.image(input), layout.weights(weight), bias, layout.shape(n, p.ic, ih, iw), DTYPES[name], reached, out,
                    (input, weight), threads, algorithm, here)  # fmt: skip


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
    here = session(None, "grad_output", grad_output, weight=weight)
    weight, grad = _operand(here, "weight", weight), as_array("grad_output", grad_output) if here is None else here.input
    p = _gradient("bwd_data", _size("input_size", input_size), weight.shape, grad, weight.dtype, stride, padding, dilation, groups)
    return _planned(p, grad, weight, None, (p.n, p.ic, p.ih, p.iw), DTYPES[p.dst], lambda x: x, None, (), None, None, here)


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
    here = session(None, "input", input, grad_output=grad_output)
    image, grad = as_array("input", input) if here is None else here.input, _operand(here, "grad_output", grad_output)
    p = _gradient("bwd_weight", image.shape, _size("weight_size", weight_size), grad, image.dtype, stride, padding, dilation, groups)
    return _planned(p, image, grad, None, (p.oc, p.ic // p.g, p.kh, p.kw), DTYPES[p.dst], lambda x: x, None, (), None, None, here)


def _operand(here: Any, name: str, value: Any) -> Any:
    return as_array(name, value) if here is None else here.take(name, value)


def _size(name: str, value: Any) -> tuple[int, ...]:
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
    dilation: Any, groups: int,
) -> Problem:  # fmt: skip
    layout = arranged("NCHW", image, kernel, (4,))
    g = group_count(groups)
    (n, ic, ih, iw), (oc, icg, kh, kw) = layout.extents(image), layout.filters(kernel)
    check_channels(ic, g, oc, icg, kernel)
    (sh, sw), (dh, dw), (ph, pw) = pair("stride", stride, 1), pair("dilation", dilation, 1), pair("padding", padding, 0)
    name = dtype_name(result_type(grad.dtype, other, None))
    p = Problem(op=op, n=n, g=g, ic=ic, ih=ih, iw=iw, oc=oc, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=ph, pb=ph, pl=pw, pr=pw,
                src=dtype_name(grad.dtype), wei=dtype_name(other), dst=name, acc=accumulator(name))  # fmt: skip
    if grad.shape != (p.n, p.oc, p.oh, p.ow):
        raise ValueError(f"grad_output must have shape {(p.n, p.oc, p.oh, p.ow)}, got {grad.shape}")
    return p


def _planned(
    p: Problem, src: np.ndarray, wei: np.ndarray, bias: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype[Any], view: Any,
    out: np.ndarray | None, inputs: tuple[np.ndarray, ...], threads: Any, algorithm: str | None, here: Any,
) -> np.ndarray:  # fmt: skip
    if here is not None:
        result, to = here.destination(out, shape, dtype)
        if 0 not in shape:
            here.run(p, src, wei, bias, view(to), 0, algorithm)
        return here.deliver(result, to)
    dst = destination(out, shape, dtype, *inputs, bias)
    if dst.size:
        plan = plan_problem(p, threads=thread_count(threads), algorithm=algorithm)
        if bias is not None:
            with np.errstate(invalid="ignore"):  # a NaN becomes an integer as C makes it one
                bias = np.ascontiguousarray(bias, DTYPES[p.acc])
        plan.run(src, plan.pack(wei), bias, view(dst))
    return delivered(dst, out)
