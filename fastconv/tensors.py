"""tensors: whether an argument is one of torch's, without importing torch."""

from __future__ import annotations

import sys
from typing import Any


def is_tensor(value: Any) -> bool:
    """Whether it is a `torch.Tensor` on the CPU; where nobody has imported torch there are none.

    Examples
    --------
    >>> is_tensor([1.0])
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.device.type == "cpu"


def torch_ops() -> Any:
    """The module `fastconv.torch_ops`, which imports torch; by a statement that torch's compiler can follow."""
    from . import torch_ops as module

    return module
