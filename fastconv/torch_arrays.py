"""What tensors are as arrays, how their batches and borders lie in memory, and whether torch watches what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .planning.bfloat import BITS
from .planning.layout import FORMATS, PADDING_MODES

_PLAIN = torch.float32, torch.float64
_KINDS = torch.Tensor, torch.nn.Parameter
_ACTIVATIONS = {
    "": lambda x, slope: x,
    "relu": lambda x, slope: torch.relu(x),
    "relu6": lambda x, slope: torch.clamp(x, 0, 6),
    "sigmoid": lambda x, slope: torch.sigmoid(x),
    "tanh": lambda x, slope: torch.tanh(x),
    "silu": lambda x, slope: torch.nn.functional.silu(x),
    "gelu": lambda x, slope: torch.nn.functional.gelu(x),
    "leaky_relu": lambda x, slope: torch.nn.functional.leaky_relu(x, slope),
}


def plain(tensor: torch.Tensor) -> bool:
    """Whether an array of a tensor's memory has its values: float32 or float64 on the CPU, no negative view."""
    return tensor.dtype in _PLAIN and tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg()


def is_bfloat(tensor: torch.Tensor) -> bool:
    """Whether its type is bfloat16."""
    return tensor.dtype == torch.bfloat16


def array_of(tensor: torch.Tensor) -> Any:
    """A tensor as an array: in place, but for conjugate and negative views; of a card itself, without its gradient."""
    if plain(tensor):
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    if tensor.is_cuda:
        return tensor.detach()
    if tensor.dtype == torch.bfloat16:
        words: np.ndarray = tensor.detach().view(torch.int16).numpy()
        return words.view(BITS)
    array: np.ndarray = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array


def is_last(image: Any) -> bool:
    """Whether a batch's second axis lies last in memory."""
    last: bool = image.dim() == 4 and image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
    return last


def channels_last(tensor: torch.Tensor, data_format: str) -> bool:
    """Whether a batch of NCHW lies in memory as NHWC."""
    return FORMATS[data_format] == "nchw" and is_last(tensor)


def turned(array: Any, *axes: int) -> Any:
    """An array of the host, or a tensor of a card, with its axes in another order."""
    return array.permute(axes) if isinstance(array, torch.Tensor) else array.transpose(axes)


def lies_last(image: Any, *others: Any) -> bool:
    """Whether a call is of an image on a card whose channels lie last, and torch need not see it."""
    if not (isinstance(image, torch.Tensor) and image.is_cuda and is_last(image)):
        return False
    return not seen(*(value for value in (image, *others) if isinstance(value, torch.Tensor)))


def as_nhwc(function: Callable[..., Any], image: torch.Tensor, weight: Any, out: Any, **arguments: Any) -> Any:
    """A function of an image on a card whose channels lie last, as one of NHWC; the result's do, too."""
    kernel = turned(weight if isinstance(weight, torch.Tensor) else np.asarray(weight), 2, 3, 1, 0)
    to = None if out is None else out.permute(0, 2, 3, 1)
    result = function(image.permute(0, 2, 3, 1), kernel, data_format="NHWC", out=to, **arguments)
    return result.permute(0, 3, 1, 2) if out is None else out


def laid(image: torch.Tensor, weight: torch.Tensor, data_format: str) -> tuple[Any, Any, str, bool]:
    """An image and weights as arrays, their format, and whether it is another than the tensors'."""
    if channels_last(image, data_format):
        return turned(array_of(image), 0, 2, 3, 1), turned(array_of(weight), 2, 3, 1, 0), "NHWC", True
    return array_of(image), array_of(weight), data_format, False


def tensor_of(image: Any, last: bool) -> torch.Tensor:
    """A result, seen as NCHW where it was computed as NHWC."""
    return of_array(turned(image, 0, 3, 1, 2) if last else image)


def without_border(padded: torch.Tensor, padding: Sequence[int], padding_mode: str, axes: tuple[int, int]) -> torch.Tensor:
    """The gradient of an image from that of the image with its border written out: each pixel's, and those of its copies.

    ``axes`` are those of rows and columns; copies are added row by row and column by column, in their order.
    """
    for axis, before, after in ((axes[0], *padding[:2]), (axes[1], *padding[2:])):
        extent = padded.shape[axis] - before - after
        source = np.pad(np.arange(extent), (before, after), PADDING_MODES[padding_mode])  # type: ignore[call-overload]
        image = padded.narrow(axis, before, extent).clone()
        for place in (*range(before), *range(before + extent, len(source))):
            image.narrow(axis, int(source[place]), 1).add_(padded.narrow(axis, place, 1))
        padded = image
    return padded


def of_array(array: Any) -> torch.Tensor:
    """An array as a tensor, in place."""
    if isinstance(array, torch.Tensor):
        return array
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if array.dtype == BITS else torch.from_numpy(array)


def seen(*tensors: torch.Tensor) -> bool:
    """Whether torch has to see an operator of these tensors: for its gradient, or because it is `watched`.

    What no gradient is wanted of, as in a step of training or where a network is only used, is computed without torch's dispatcher,
    which takes 80 to 110 us (gradients of 16 channels at 14x14; 2026-11).
    """
    return watched(*tensors) or recorded(*tensors)


def recorded(*tensors: torch.Tensor) -> bool:
    """Whether torch records what is done with one of them, for a gradient."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def watched(*tensors: torch.Tensor) -> bool:
    """Whether an operator of these tensors is traced or transformed."""
    if torch.compiler.is_compiling():  # whose tracing cannot follow the rest
        return True
    for tensor in tensors:
        if type(tensor) not in _KINDS or torch._C._functorch.is_legacy_batchedtensor(tensor):
            return True
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_mode()
    )


def forward_mode() -> bool:
    """Whether torch differentiates in forward mode."""
    return torch.autograd.forward_ad._current_level >= 0


def tangent(tensor: torch.Tensor) -> torch.Tensor | None:
    """A tensor's, in forward mode."""
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent


def activated(result: torch.Tensor, activation: str) -> torch.Tensor:
    """A result with an activation's text, as torch computes and differentiates it."""
    name, _, slope = activation.partition(":")
    finished: torch.Tensor = _ACTIVATIONS[name](result, float(slope or 0))
    return finished
