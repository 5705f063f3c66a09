"""tensors: whether an argument is one of torch's, without importing torch, and calls that take arrays made to take them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Whether it is a `torch.Tensor` on the CPU; where nobody has imported torch there are none.

    Examples
    --------
    >>> is_tensor([1.0])
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.device.type == "cpu"


def of_torch(data_format: Any, image: Any, other: Any, bias: Any = None) -> bool:
    """Whether `fastconv.torch_ops` computes a call.

    Of an image or weights on the CPU; of tensors on a card that torch has to see, for a gradient or because they are traced; and of an
    image on a card whose channels lie last though its format says first.

    Examples
    --------
    >>> of_torch("NCHW", [1.0], [1.0])
    False
    """
    if is_tensor(image) or is_tensor(other):
        return True
    torch = sys.modules.get("torch")
    if torch is None or _here.on_card:
        return False
    tensors = [value for value in (image, other, bias) if isinstance(value, torch.Tensor) and value.is_cuda]
    if not tensors:
        return False
    from . import torch_arrays

    lies_last = tensors[0] is image and data_format in ("NCHW", "channels_first") and torch_arrays.is_last(image)
    return lies_last or torch_arrays.seen(*tensors)


class _Here(threading.local):
    on_card = False


_here = _Here()


@contextlib.contextmanager
def on_card() -> Iterator[None]:
    """Meanwhile, in this thread, tensors on a card are arrays of it: torch sees the operator that is being computed."""
    before, _here.on_card = _here.on_card, True
    try:
        yield
    finally:
        _here.on_card = before


def detached(value: Any) -> Any:
    """A tensor as an array, without its gradient; anything else as it is.

    Examples
    --------
    >>> detached([1.0])
    [1.0]
    """
    return torch_ops().array_of(value) if is_tensor(value) else value


def of_tensors(function: Callable[..., np.ndarray], given: dict[str, Any], out: Any = None) -> np.ndarray:
    """``function(*arrays, out)`` of tensors and others; its result is ``out``, or of the first one's kind, and has no gradient.

    Raises
    ------
    TypeError
        A tensor that does not lie on the CPU, has a type that NumPy has not, or requires a gradient.
    """
    result: np.ndarray = torch_ops().of_tensors(function, given, out)
    return result


def torch_ops() -> Any:
    """The module `fastconv.torch_ops`, which imports torch; by a statement that torch's compiler can follow."""
    from . import torch_ops as module

    return module
