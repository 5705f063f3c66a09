"""fastconv: 2-D convolution in Numba-compiled kernels, a drop-in for SciPy's, torch's, Keras's and OpenCV's.

Ten names, bound when first used; ``import fastconv`` imports neither numba nor scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "correlate2d": "signal",
    "convolve2d": "signal",
    "conv2d": "nn",
    "conv_transpose2d": "nn",
    "plan": "nn",
    "explain": "nn",
    "threads": "planning.thread_count",
    "warmup": "machine",
    "info": "machine",
    "patch": "accelerate",
}
_SUBMODULES = ("layers", "ndimage", "nn", "onnx", "opencv", "signal")
__all__ = [
    "conv2d",
    "conv_transpose2d",
    "convolve2d",
    "correlate2d",
    "explain",
    "info",
    "patch",
    "plan",
    "threads",
    "warmup",
]

if TYPE_CHECKING:
    from .accelerate import patch
    from .machine import info, warmup
    from .nn import conv2d, conv_transpose2d, explain, plan
    from .planning.thread_count import threads
    from .signal import convolve2d, correlate2d


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, *_SUBMODULES])
