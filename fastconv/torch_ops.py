"""torch's tensors in `fastconv.nn`'s functions: custom operators with shapes for tracing and gradients, and modules that call them.

Imported by `fastconv.nn` at the first call with a tensor, or by `replace_convs`; only this module and `torch_arrays` import torch.
Tensors are read in place, on the CPU or on a card; a batch in torch's channels_last format is convolved as NHWC, and gives one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import library

from . import gradients, nn, torch_arrays
from .epilogue import Epilogue, activation_text
from .planning.arguments import choice, group_count, pair, spans
from .planning.devices import received
from .planning.layout import FORMATS, paddings
from .planning.problem import PRECISIONS
from .planning.thread_count import thread_count
from .torch_arrays import activated, array_of, channels_last, forward_mode, of_array, recorded, seen, tangent, watched
from .torch_calls import convolved, known_result, remember, result_key, transposed
from .torch_gradients import Ints, Key, axes_of, image_gradient, key_of, known_image, known_weights, weight_gradient


@torch.compiler.disable
def of_tensors(function: Callable[..., Any], given: dict[str, Any], out: Any) -> Any:
    """See `fastconv.tensors.of_tensors`."""
    arrays = {}
    for name, value in {**given, "out": out}.items():
        arrays[name] = value
        if not isinstance(value, torch.Tensor):
            continue
        _check_tensor(name, value)
        if value.is_cuda:
            raise TypeError(f"{name} must be a tensor on the CPU, as the others are, got one on {value.device}")
        if recorded(value) or (forward_mode() and tangent(value) is not None):
            raise TypeError(f"{name} must not require a gradient here: fastconv.nn.conv2d has gradients; or call it under torch.no_grad()")
        if name == "out" and (value.is_conj() or value.is_neg()):
            raise TypeError("out must not be a conjugate or negative view")
        arrays[name] = array_of(value)
    result = function(*arrays.values())
    if isinstance(out, torch.Tensor):
        out.detach().narrow(0, 0, 0).zero_()  # which tells torch that its values are others than before
    if out is not None:
        return out
    first = next(iter(given.values()))
    return of_array(result) if isinstance(first, torch.Tensor) else result


def _kernel(weight: torch.Tensor, data_format: str) -> tuple[int, int, int, int]:
    """``(oc, ic/g, kh, kw)``."""
    a, b, c, d = weight.shape
    return (a, b, c, d) if FORMATS[data_format] == "nchw" else (d, c, a, b)


def _empty(like: torch.Tensor, c: Any, h: Any, w: Any, data_format: str) -> torch.Tensor:
    """What a result of ``like``'s batch, type and layout is to tracing."""
    n = like.shape[0]
    if FORMATS[data_format] == "nhwc":
        return like.new_empty((n, h, w, c))
    if channels_last(like, data_format):
        return like.new_empty((n, h, w, c)).permute(0, 3, 1, 2)
    return like.new_empty((n, c, h, w))


@library.custom_op("fastconv::conv2d", mutates_args=())
def conv2d_op(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int,
    padding_mode: str, data_format: str, activation: str, precision: str, threads: int, algorithm: str,
) -> torch.Tensor:  # fmt: skip
    """`fastconv.nn.conv2d` of a batch, where torch has to see it."""
    result: torch.Tensor = convolved(input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation,
                                     precision, threads, algorithm)  # fmt: skip
    return result


@library.custom_op("fastconv::conv2d_input", mutates_args=())
def conv2d_input_op(
    size: Ints, weight: torch.Tensor, grad: torch.Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int, padding_mode: str,
    data_format: str, precision: str, threads: int,
) -> torch.Tensor:  # fmt: skip
    """The gradient of `conv2d_op` with respect to an input of this size, in the layout of ``grad``."""
    result: torch.Tensor = image_gradient(size, weight, grad, stride, padding, dilation, groups, padding_mode, data_format, precision,
                                          threads)  # fmt: skip
    return result


@library.custom_op("fastconv::conv2d_weight", mutates_args=())
def conv2d_weight_op(
    input: torch.Tensor, size: Ints, grad: torch.Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int, padding_mode: str,
    data_format: str, precision: str, threads: int,
) -> torch.Tensor:  # fmt: skip
    """The gradient of `conv2d_op` with respect to weights of this size."""
    result: torch.Tensor = weight_gradient(input, size, grad, stride, padding, dilation, groups, padding_mode, data_format, precision,
                                           threads)  # fmt: skip
    return result


def _of_image(size: Ints, weight: torch.Tensor, grad: torch.Tensor, *rest: Any, key: Key | None = None) -> torch.Tensor:
    """`conv2d_input_op`, seen where that matters."""
    if seen(weight, grad):
        return conv2d_input_op(size, weight, grad, *rest)
    key = key or key_of("image", grad, weight, (*map(_fixed, (size, *rest)),), rest[-1])
    known = known_image(key, weight, grad, rest[5])
    return image_gradient(size, weight, grad, *rest, key=key) if known is None else known


def _of_weight(input: torch.Tensor, size: Ints, grad: torch.Tensor, *rest: Any, key: Key | None = None) -> torch.Tensor:
    """`conv2d_weight_op`, seen where that matters."""
    if seen(input, grad):
        return conv2d_weight_op(input, size, grad, *rest)
    key = key or key_of("weights", input, grad, (*map(_fixed, (size, *rest)),), rest[-1])
    known = known_weights(key, input, grad)
    return weight_gradient(input, size, grad, *rest, key=key) if known is None else known


def _fixed(value: Any) -> Any:
    """An operator's argument as a key needs it."""
    return tuple(value) if isinstance(value, list) else value


@library.custom_op("fastconv::conv_transpose2d", mutates_args=())
def conv_transpose2d_op(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Ints, padding: Ints, output_padding: Ints, groups: int,
    dilation: Ints, data_format: str, activation: str, precision: str, threads: int, algorithm: str,
) -> torch.Tensor:  # fmt: skip
    """`fastconv.nn.conv_transpose2d` of a batch, where torch has to see it."""
    result: torch.Tensor = transposed(input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, activation,
                                      precision, threads, algorithm)  # fmt: skip
    return result


@conv2d_op.register_fake
def _conv2d_shape(input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any,
                  data_format: Any, *rest: Any) -> Any:  # fmt: skip
    (_, h, w), (oc, _, kh, kw) = axes_of(data_format), _kernel(weight, data_format)
    pt, pb, pl, pr = padding
    return _empty(input, oc, (input.shape[h] + pt + pb - (kh - 1) * dilation[0] - 1) // stride[0] + 1,
                  (input.shape[w] + pl + pr - (kw - 1) * dilation[1] - 1) // stride[1] + 1, data_format)  # fmt: skip


@conv2d_input_op.register_fake
def _conv2d_input_shape(size: Any, weight: Any, grad: Any, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any,
                        data_format: Any, *rest: Any) -> Any:  # fmt: skip
    c, h, w = axes_of(data_format)
    return _empty(grad, size[c], size[h], size[w], data_format)


@conv2d_weight_op.register_fake
def _conv2d_weight_shape(input: Any, size: Any, *rest: Any) -> Any:
    return input.new_empty(size)


@conv_transpose2d_op.register_fake
def _conv_transpose2d_shape(input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any,
                            data_format: Any, *rest: Any) -> Any:  # fmt: skip
    (_, h, w), (_, ocg, kh, kw) = axes_of(data_format), _kernel(weight, data_format)
    oh, ow = (
        (input.shape[axis] - 1) * stride[at] - 2 * padding[at] + dilation[at] * (k - 1) + output_padding[at] + 1
        for at, (axis, k) in enumerate(((h, kh), (w, kw)))
    )
    return _empty(input, ocg * groups, oh, ow, data_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], tensors: tuple[int, int]) -> None:
    ctx.save_for_backward(*(inputs[n] for n in tensors))
    ctx.rest = tuple(None if isinstance(value, torch.Tensor) else value for value in inputs)


def _bias_gradient(grad: torch.Tensor, data_format: str) -> torch.Tensor:
    c, _, _ = axes_of(data_format)
    return grad.sum([axis for axis in range(4) if axis != c])


def _conjugate(tensor: torch.Tensor) -> torch.Tensor:
    """What a gradient is multiplied by where the formula has this tensor."""
    return tensor.conj().resolve_conj() if tensor.is_complex() else tensor


def _conv2d_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _keep(ctx, inputs, (0, 1))


def _conv2d_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    stride, padding, dilation, groups, mode, form, activation, precision, threads, _ = ctx.rest[3:]
    if activation:
        raise RuntimeError("fastconv::conv2d has no gradient with an activation of its own; fastconv.nn.conv2d applies it behind it")
    arguments = stride, padding, dilation, groups, mode, form, precision, threads
    wanted = ctx.needs_input_grad
    return (
        _of_image(input.shape, _conjugate(weight), grad, *arguments) if wanted[0] else None,
        _of_weight(_conjugate(input), weight.shape, grad, *arguments) if wanted[1] else None,
        _bias_gradient(grad, form) if wanted[2] else None,
        *[None] * 10,
    )


class _Recorded(torch.autograd.Function):
    """`conv2d_op` where torch records it and nothing else: by the way of custom operators a call takes 130 us more (2026-11)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        """Compute, and keep what the gradients need."""
        _keep(ctx, inputs, (0, 1))
        return convolved(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        """The gradients of the tensors."""
        return _conv2d_backward(ctx, grad)


def _conv2d_input_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _keep(ctx, inputs, (1, 2))


def _conv2d_input_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    weight, of_result = ctx.saved_tensors
    stride, padding, dilation, groups, mode, form, precision, threads = ctx.rest[3:]
    return (
        None,
        _of_weight(grad, weight.shape, _conjugate(of_result), *ctx.rest[3:]) if ctx.needs_input_grad[1] else None,
        conv2d_op(grad, _conjugate(weight), None, stride, padding, dilation, groups, mode, form, "", precision, threads, "")
        if ctx.needs_input_grad[2] else None,
        *[None] * 8,
    )  # fmt: skip


def _conv2d_weight_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _keep(ctx, inputs, (0, 2))


def _conv2d_weight_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    input, of_result = ctx.saved_tensors
    stride, padding, dilation, groups, mode, form, precision, threads = ctx.rest[3:]
    return (
        _of_image(input.shape, grad, _conjugate(of_result), *ctx.rest[3:]) if ctx.needs_input_grad[0] else None,
        None,
        conv2d_op(_conjugate(input), grad, None, stride, padding, dilation, groups, mode, form, "", precision, threads, "")
        if ctx.needs_input_grad[2] else None,
        *[None] * 8,
    )  # fmt: skip


def _conv_transpose2d_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _keep(ctx, inputs, (0, 1))


def _conv_transpose2d_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    """Its image's gradient is a convolution; what output padding added and no tap reached has none."""
    input, weight = ctx.saved_tensors
    stride, padding, _, groups, dilation, form, activation, precision, threads, _ = ctx.rest[3:]
    if activation:
        raise RuntimeError("fastconv::conv_transpose2d has no gradient with an activation of its own; fastconv.nn applies it behind it")
    _, h, w = axes_of(form)
    _, _, *kernel = _kernel(weight, form)
    ends, reached = [], grad
    for at, axis in enumerate((h, w)):
        extent = (input.shape[axis] - 1) * stride[at] + dilation[at] * (kernel[at] - 1) + 1 - padding[at]
        ends += [padding[at], max(extent - grad.shape[axis], 0)]
        if extent < grad.shape[axis]:
            reached = reached.narrow(axis, 0, extent)
    wanted = ctx.needs_input_grad
    return (
        conv2d_op(reached, _conjugate(weight), None, stride, ends, dilation, groups, "zeros", form, "", precision, threads, "")
        if wanted[0] else None,
        _of_weight(reached, weight.shape, _conjugate(input), stride, ends, dilation, groups, "zeros", form, precision, threads)
        if wanted[1] else None,
        _bias_gradient(grad, form) if wanted[2] else None,
        *[None] * 10,
    )  # fmt: skip


for op, backward, setup in (
    (conv2d_op, _conv2d_backward, _conv2d_setup),
    (conv2d_input_op, _conv2d_input_backward, _conv2d_input_setup),
    (conv2d_weight_op, _conv2d_weight_backward, _conv2d_weight_setup),
    (conv_transpose2d_op, _conv_transpose2d_backward, _conv_transpose2d_setup),
):
    op.register_autograd(backward, setup_context=setup)


def _check(function: Any, tensors: dict[str, Any]) -> None:
    """All are tensors on the CPU or on one card, of one type that NumPy has.

    Raises
    ------
    TypeError
        One is none, lies elsewhere, or has a type that NumPy has not.
    RuntimeError
        torch's own, of mixed types.
    """
    first = next(iter(tensors.values()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, as the other arguments are, got {type(tensor).__name__}")
        _check_tensor(name, tensor, torch.bool)
        if isinstance(first, torch.Tensor) and tensor.device != first.device:
            raise TypeError(f"{name} must be on {first.device}, as the other arguments are, got one on {tensor.device}")
    types = [tensor.dtype for tensor in tensors.values()]
    if len(set(types)) > 1:
        function(*(torch.ones((1,) * (1 if name == "bias" else 4), dtype=dtype) for name, dtype in zip(tensors, types, strict=True)))
        raise RuntimeError(f"{', '.join(tensors)} must have one type, got {', '.join(map(str, types))}")


def _check_tensor(name: str, tensor: torch.Tensor, *refused: torch.dtype) -> None:
    if not (tensor.is_cpu or tensor.is_cuda):
        raise TypeError(f"{name} must be a tensor on the CPU or a CUDA device, got one on {tensor.device}")
    if tensor.layout is not torch.strided or tensor.dtype in refused:
        raise TypeError(f"{name} must be a dense tensor of numbers, got {tensor.dtype}, {tensor.layout}")


def _checked_tail(tensors: dict[str, Any], precision: Any, threads: Any, algorithm: Any) -> tuple[int, str]:
    """The operators' ``threads`` and ``algorithm``: 0 and an empty text for None."""
    choice("precision", precision, PRECISIONS)
    if algorithm is not None and not isinstance(algorithm, str):
        raise TypeError(f"algorithm must be a name or None, got {algorithm!r}")
    if forward_mode() and any(tangent(tensor) is not None for tensor in tensors.values()):
        raise NotImplementedError("fastconv.nn has gradients in reverse mode only")
    return 0 if threads is None else thread_count(threads), algorithm or ""


def _refuse(tensor: Any, device: Any, **arguments: Any) -> None:
    """Arguments that are for arrays, and another place than the tensors'."""
    own = "cuda" if tensor.is_cuda else "cpu"
    for name, value in {**arguments, "device": None if device == own else device}.items():
        if value is not None:
            why = " that torch records or that are traced" if tensor.is_cuda and name != "device" else ""
            raise TypeError(f"{name} must be None for tensors{why}, got {value!r}")


def _fused(activation: Any, tensors: dict[str, Any]) -> tuple[str, str]:
    """The activation's text for the operator, and for torch behind it where gradients are wanted."""
    if activation is None:
        return "", ""
    float_or_int = np.dtype("f4") if tensors["input"].is_floating_point() else np.dtype("c8" if tensors["input"].is_complex() else "i8")
    text = activation_text(activation, float_or_int)
    return ("", text) if recorded(*tensors.values()) else (text, "")


def conv2d(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: str, data_format: str,
    activation: Any, epilogue: Any, out: Any, dtype: Any, precision: str, threads: int | None, device: Any, algorithm: str | None,
) -> torch.Tensor:  # fmt: skip
    """`fastconv.nn.conv2d` of tensors, of any number of dimensions."""
    if torch_arrays.lies_last(input, weight, bias):
        if isinstance(epilogue, Epilogue) and epilogue.residual is not None:
            residual = received("residual", epilogue.residual)
            epilogue = replace(epilogue, residual=residual.transpose(0, 2, 3, 1) if residual.ndim == 4 else residual)
        return torch_arrays.as_nhwc(
            nn.conv2d, input, weight, out, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
            padding_mode=padding_mode, activation=activation, epilogue=epilogue, dtype=dtype, precision=precision, threads=threads,
            device=device, algorithm=algorithm,
        )  # fmt: skip
    here = epilogue is None and out is None and dtype is None and device is None
    rest = stride, padding, dilation, groups, padding_mode, data_format, activation, precision, threads, algorithm
    key = result_key(input, weight, bias, *rest) if here else None
    known = known_result(key, input, weight, bias)
    if known is not None:
        return known
    tensors = {name: value for name, value in (("input", input), ("weight", weight), ("bias", bias)) if value is not None}
    _check(torch.nn.functional.conv2d, tensors)
    _refuse(input, device, epilogue=epilogue, out=out, dtype=dtype)
    count, named = _checked_tail(tensors, precision, threads, algorithm)
    fused, behind = _fused(activation, tensors)
    missing = (4 - input.dim()) * (FORMATS.get(data_format) is not None)
    image = input
    for axis in range(missing):
        image = image.unsqueeze(0 if axis == 0 or FORMATS[data_format] == "nchw" else -1)
    kernel = weight if weight.dim() != 2 else weight[None, None] if FORMATS.get(data_format) == "nchw" else weight[:, :, None, None]
    if image.dim() != 4 or kernel.dim() != 4 or data_format not in FORMATS or (weight.dim() == 2) != (input.dim() == 2):
        nn.conv2d(array_of(input), array_of(weight), data_format=data_format)  # which raises
    _, h, w = axes_of(data_format)
    _, _, kh, kw = _kernel(kernel, data_format)
    steps, apart = pair("stride", stride, 1), pair("dilation", dilation, 1)
    around = paddings(padding, (image.shape[h], image.shape[w]), spans((kh, kw), apart), steps)
    operator = conv2d_op if watched(*tensors.values()) else _Recorded.apply if recorded(*tensors.values()) else convolved
    addend, padded = None if bias is None else bias.reshape(-1), [*around[0], *around[1]]
    how = steps, padded, apart, group_count(groups), padding_mode, data_format, fused, precision, count, named
    finish = partial(activated, activation=behind)
    result: torch.Tensor = operator(image, kernel, addend, *how)
    remember(key, operator, how, finish)
    if input.dim() == 2:
        result = result[0, 0] if FORMATS[data_format] == "nchw" else result[0, :, :, 0]
    elif missing:
        result = result[0]
    return finish(result)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any, data_format: str,
    activation: Any, out: Any, dtype: Any, precision: str, threads: int | None, device: Any, algorithm: str | None,
) -> torch.Tensor:  # fmt: skip
    """`fastconv.nn.conv_transpose2d` of tensors."""
    if torch_arrays.lies_last(input, weight, bias):
        return torch_arrays.as_nhwc(
            gradients.conv_transpose2d, input, weight, out, bias=bias, stride=stride, padding=padding, output_padding=output_padding,
            groups=groups, dilation=dilation, activation=activation, dtype=dtype, precision=precision, threads=threads, device=device,
            algorithm=algorithm,
        )  # fmt: skip
    tensors = {name: value for name, value in (("input", input), ("weight", weight), ("bias", bias)) if value is not None}
    _check(torch.nn.functional.conv_transpose2d, tensors)
    _refuse(input, device, out=out, dtype=dtype)
    count, named = _checked_tail(tensors, precision, threads, algorithm)
    fused, behind = _fused(activation, tensors)
    single = input.dim() == 3
    image = input[None] if single else input
    if image.dim() != 4 or weight.dim() != 4 or data_format not in FORMATS:
        gradients.conv_transpose2d(array_of(input), array_of(weight), data_format=data_format)  # which raises
    operator = conv_transpose2d_op if seen(*tensors.values()) else transposed
    result: torch.Tensor = operator(
        image, weight, bias, pair("stride", stride, 1), pair("padding", padding, 0), pair("output_padding", output_padding, 0),
        group_count(groups), pair("dilation", dilation, 1), data_format, fused, precision, count, named,
    )  # fmt: skip
    return activated(result[0] if single else result, behind)


def _key(name: str, first: Any, second: Any, *values: Any) -> Key | None:
    """What a call of `conv2d_input` or `conv2d_weight` is known by; None where torch has to see it."""
    return None if seen(first, second) else key_of(name, first, second, values)


def conv2d_input(size: Any, weight: Any, grad: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> torch.Tensor:
    """`fastconv.nn.conv2d_input` of tensors."""
    key = _key("input", grad, weight, size, stride, padding, dilation, groups)
    known = known_image(key, weight, grad, "NCHW")
    if known is not None:
        return known
    _check(torch.nn.functional.conv2d, {"weight": weight, "grad_output": grad})
    (ph, pw), steps, apart = pair("padding", padding, 0), pair("stride", stride, 1), pair("dilation", dilation, 1)
    return _of_image(gradients.four("input_size", size), weight, grad, steps, (ph, ph, pw, pw), apart, group_count(groups), "zeros",
                     "NCHW", "default", 0, key=key)  # fmt: skip


def conv2d_weight(input: Any, size: Any, grad: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> torch.Tensor:
    """`fastconv.nn.conv2d_weight` of tensors."""
    key = _key("weight", input, grad, size, stride, padding, dilation, groups)
    known = known_weights(key, input, grad)
    if known is not None:
        return known
    _check(torch.nn.functional.conv2d, {"input": input, "grad_output": grad})
    (ph, pw), steps, apart = pair("padding", padding, 0), pair("stride", stride, 1), pair("dilation", dilation, 1)
    return _of_weight(input, gradients.four("weight_size", size), grad, steps, (ph, ph, pw, pw), apart, group_count(groups), "zeros",
                      "NCHW", "default", 0, key=key)  # fmt: skip


class Conv2d(torch.nn.Conv2d):
    """`torch.nn.Conv2d` on fastconv's kernels."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        result: torch.Tensor = nn.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups,
                                         padding_mode=self.padding_mode)  # fmt: skip
        return result


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on fastconv's kernels."""

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Transposed convolution, of the output size among those possible that is asked for."""
        if self.padding_mode != "zeros":
            raise ValueError("Only `zeros` padding mode is supported for ConvTranspose2d")
        extra = self._output_padding(input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation)
        result: torch.Tensor = nn.conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups,
                                                   self.dilation)  # fmt: skip
        return result


def replace_convs(model: torch.nn.Module) -> torch.nn.Module:
    """See `fastconv.nn.replace_convs`."""
    classes = {torch.nn.Conv2d: Conv2d, torch.nn.ConvTranspose2d: ConvTranspose2d}
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
    return model
