"""The gradients of `conv2d` for tensors, by those for arrays; a step of training repeats its calls, which tensors' strides then tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import gradients
from .planning.arguments import exact
from .planning.devices import session
from .planning.layout import FORMATS
from .planning.thread_count import thread_count
from .torch_arrays import array_of, channels_last, is_bfloat, laid, of_array, plain, tensor_of, without_border

Ints = Sequence[int]
Key = tuple[Any, ...]

_FIXED = int, float, str, tuple, type(None)  # of an argument's types those whose values do not change


def key_of(name: str, first: Any, second: Any, values: tuple[Any, ...], threads: int = 0) -> Key | None:
    """What a call of two tensors is known by; None where one is not read in place, or ``values`` may change, as lists and tensors do.

    Calls that come again look at nothing else: 16 to 16 channels at 4x4 take 15 us instead of 55 (one core, Emerald Rapids, 2026-11).
    """
    if not all(isinstance(value, _FIXED) for value in values) or not (plain(first) and plain(second)):
        return None
    return (name, first.shape, first.stride(), first.dtype, second.shape, second.stride(), second.dtype, values, exact(*values),
            thread_count(threads or None))  # fmt: skip


def known_image(key: Key | None, weight: Any, grad: Any, data_format: str) -> Any:
    """The gradient of an image where the key tells a call that came before, or None."""
    call = None if key is None else gradients.known(key)
    if call is None:
        return None
    result = call.repeated(array_of(grad), array_of(weight))
    if result is not None:
        return tensor_of(result, channels_last(grad, data_format))
    image, kernel, _, turned = laid(grad, weight, data_format)
    return tensor_of(call.result((image, kernel, None)), turned)


def known_weights(key: Key | None, input: Any, grad: Any) -> Any:
    """The gradient of weights where the key tells a call that came before, or None."""
    call = None if key is None else gradients.known(key)
    return None if call is None else of_array(call.result((array_of(input), array_of(grad), None)))


def image_gradient(
    size: Ints, weight: Any, grad: Any, stride: Ints, padding: Ints, dilation: Ints, groups: int, padding_mode: str, data_format: str,
    precision: str, threads: int, *, key: Key | None = None,
) -> Any:  # fmt: skip
    """The gradient of `conv2d` with respect to an input of this size, in the layout of ``grad``; the ``key`` tells it from now on."""
    if is_bfloat(grad) and not grad.is_cuda:
        return image_gradient(size, weight.float(), grad.float(), stride, padding, dilation, groups, padding_mode, data_format, precision,
                              threads).bfloat16()  # fmt: skip
    if grad.is_cuda and padding_mode != "zeros" and any(padding):
        _, h, w = axes_of(data_format)
        around = [extent + {h: padding[0] + padding[1], w: padding[2] + padding[3]}.get(axis, 0) for axis, extent in enumerate(size)]
        sums = (weight.float(), grad.float()) if grad.element_size() == 2 else (weight, grad)  # as sums are, until they are rounded
        padded = image_gradient(around, *sums, stride, (0, 0, 0, 0), dilation, groups, "zeros", data_format, precision, threads)
        return without_border(padded, padding, padding_mode, (h, w)).to(grad.dtype)
    image, kernel, form, turned = laid(grad, weight, data_format)
    n, a, b, c = size
    here = session(None, "grad_output", image, True, weight=kernel) if grad.is_cuda else None
    if here is not None:
        image, kernel = here.input, here.take("weight", kernel, True)
    return tensor_of(gradients.image_gradient(
        (n, b, c, a) if turned else (n, a, b, c), kernel, image, tuple(stride), four(padding), tuple(dilation), groups, padding_mode, form,
        precision, threads or None, here, key=key,
    ), turned)  # fmt: skip


def weight_gradient(
    input: Any, size: Ints, grad: Any, stride: Ints, padding: Ints, dilation: Ints, groups: int, padding_mode: str, data_format: str,
    precision: str, threads: int, *, key: Key | None = None,
) -> Any:  # fmt: skip
    """The gradient of `conv2d` with respect to weights of this size; the ``key`` tells it from now on."""
    if is_bfloat(grad) and not grad.is_cuda:
        return weight_gradient(input.float(), size, grad.float(), stride, padding, dilation, groups, padding_mode, data_format, precision,
                               threads).bfloat16()  # fmt: skip
    image, other = array_of(input), array_of(grad)
    here = session(None, "input", image, True, grad_output=other) if grad.is_cuda else None
    if here is not None:
        image, other = here.input, here.take("grad_output", other, True)
    return of_array(gradients.weight_gradient(
        image, tuple(size), other, tuple(stride), four(padding), tuple(dilation), groups, padding_mode, data_format, precision,
        threads or None, here, key=key,
    ))  # fmt: skip


def axes_of(data_format: str) -> tuple[int, int, int]:
    """Those of channels, rows and columns."""
    return (1, 2, 3) if FORMATS[data_format] == "nchw" else (3, 1, 2)


def four(padding: Ints) -> tuple[tuple[int, int], tuple[int, int]]:
    """Paddings of the operators as ``((top, bottom), (left, right))``."""
    pt, pb, pl, pr = padding
    return (pt, pb), (pl, pr)
