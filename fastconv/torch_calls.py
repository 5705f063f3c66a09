"""Convolutions of tensors that torch need not see: computed without its dispatcher, those of `conv2d` known when they come again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from . import gradients, nn
from .planning.calls import Bounded
from .planning.planner import MOST_PLANS
from .tensors import is_tensor, on_card
from .torch_arrays import array_of, is_bfloat, laid, plain, recorded, tensor_of, watched
from .torch_gradients import Ints, Key, four, key_of


class Known(NamedTuple):
    """A call whose arguments were looked at: what computes it, what that is given behind the tensors, and what is done with the result."""

    operator: Callable[..., Any]
    how: tuple[Any, ...]
    finish: Callable[[Any], Any]


_known: Bounded[Known] = Bounded(MOST_PLANS)


def convolved(
    input: Any, weight: Any, bias: Any, stride: Ints, padding: Ints, dilation: Ints, groups: int, padding_mode: str, data_format: str,
    activation: str, precision: str, threads: int, algorithm: str,
) -> Any:  # fmt: skip
    """`fastconv.nn.conv2d` of a batch."""
    image, kernel, form, last = laid(input, weight, data_format)
    name, _, slope = activation.partition(":")
    with on_card():
        return tensor_of(nn.conv2d(
            image, kernel, None if bias is None else array_of(bias), tuple(stride), four(padding), tuple(dilation), groups,
            padding_mode=padding_mode, data_format=form, activation=(name, float(slope)) if slope else name or None, precision=precision,
            threads=threads or None, algorithm=algorithm or None,
        ), last)  # fmt: skip


def transposed(
    input: Any, weight: Any, bias: Any, stride: Ints, padding: Ints, output_padding: Ints, groups: int, dilation: Ints, data_format: str,
    activation: str, precision: str, threads: int, algorithm: str,
) -> Any:  # fmt: skip
    """`fastconv.nn.conv_transpose2d` of a batch; on the CPU of bfloat16 by a copy in float32."""
    if is_bfloat(input) and not input.is_cuda:
        return transposed(input.float(), weight.float(), None if bias is None else bias.float(), stride, padding, output_padding, groups,
                          dilation, data_format, activation, precision, threads, algorithm).bfloat16()  # fmt: skip
    image, kernel, form, last = laid(input, weight, data_format)
    name, _, slope = activation.partition(":")
    with on_card():
        return tensor_of(gradients.conv_transpose2d(
            image, kernel, None if bias is None else array_of(bias), tuple(stride), tuple(padding), tuple(output_padding), groups,
            tuple(dilation), data_format=form, activation=(name, float(slope)) if slope else name or None, precision=precision,
            threads=threads or None, algorithm=algorithm or None,
        ), last)  # fmt: skip


def result_key(input: Any, weight: Any, bias: Any, *values: Any) -> Key | None:
    """What a call of `conv2d` is known by; None where it is traced or transformed, or none of batches in float32 or float64."""
    tensors = (input, weight) if bias is None else (input, weight, bias)
    if not all(is_tensor(tensor) for tensor in tensors) or watched(*tensors) or (input.dim(), weight.dim()) != (4, 4):
        return None
    own = None
    if bias is not None:
        if not plain(bias):
            return None
        own = bias.shape, bias.stride(), bias.dtype
    key = key_of("result", input, weight, values)
    return None if key is None else (*key, own, recorded(*tensors))


def known_result(key: Key | None, input: Any, weight: Any, bias: Any) -> Any:
    """The result of a call where the key tells one that came before, or None."""
    known = None if key is None else _known.find(key)
    if known is None:
        return None
    return known.finish(known.operator(input, weight, None if bias is None else bias.reshape(-1), *known.how))


def remember(key: Key | None, *known: Any) -> None:
    """Have the key tell, from now on, a `Known` call."""
    if key is not None:
        with contextlib.suppress(TypeError):  # a list among the arguments
            _known.keep(key, Known(*known))
