"""What tensors are as arrays, how their batches lie in memory, and whether torch watches what is done with them."""

from __future__ import annotations

import numpy as np
import torch

from .planning.bfloat import BITS
from .planning.layout import FORMATS

_PLAIN = torch.float32, torch.float64
_KINDS = torch.Tensor, torch.nn.Parameter


def plain(tensor: torch.Tensor) -> bool:
    """Whether an array of a tensor's memory has its values: float32 or float64 on the CPU, no negative view."""
    return tensor.dtype in _PLAIN and tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg()


def is_bfloat(tensor: torch.Tensor) -> bool:
    """Whether its type is bfloat16."""
    return tensor.dtype == torch.bfloat16


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array: in place, but for conjugate and negative views."""
    if plain(tensor):
        own: np.ndarray = (tensor.detach() if tensor.requires_grad else tensor).numpy()
        return own
    if tensor.dtype == torch.bfloat16:
        words: np.ndarray = tensor.detach().view(torch.int16).numpy()
        return words.view(BITS)
    array: np.ndarray = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array


def channels_last(tensor: torch.Tensor, data_format: str) -> bool:
    """Whether a batch of NCHW lies in memory as NHWC."""
    return FORMATS[data_format] == "nchw" and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def laid(image: torch.Tensor, weight: torch.Tensor, data_format: str) -> tuple[np.ndarray, np.ndarray, str, bool]:
    """An image and weights as arrays, their format, and whether it is another than the tensors'."""
    if channels_last(image, data_format):
        return array_of(image).transpose(0, 2, 3, 1), array_of(weight).transpose(2, 3, 1, 0), "NHWC", True
    return array_of(image), array_of(weight), data_format, False


def tensor_of(image: np.ndarray, turned: bool) -> torch.Tensor:
    """A result, seen as NCHW where it was computed as NHWC."""
    result = of_array(image)
    return result.permute(0, 3, 1, 2) if turned else result


def of_array(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor, in place."""
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if array.dtype == BITS else torch.from_numpy(array)


def seen(*tensors: torch.Tensor) -> bool:
    """Whether torch has to see an operator of these tensors: for its gradient, or because it is traced or transformed.

    A gradient of which no gradient is wanted, as in a step of training, is computed without torch's dispatcher,
    which takes 80 to 110 us (16 channels at 14x14; 2026-11).
    """
    for tensor in tensors:
        if type(tensor) not in _KINDS or (tensor.requires_grad and torch.is_grad_enabled()):
            return True
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_mode()
        or torch.compiler.is_compiling()
    )


def forward_mode() -> bool:
    """Whether torch differentiates in forward mode."""
    return torch.autograd.forward_ad._current_level >= 0


def tangent(tensor: torch.Tensor) -> torch.Tensor | None:
    """A tensor's, in forward mode."""
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent
