"""tensors: whether an argument is one of torch's, without importing torch, and calls that take arrays made to take them."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
