"""layout: how the arrays of a network's convolution lie, and what its calls have in common: borders, paddings, bias.

Images are seen as (n, c, h, w) and weights as (oc, ic/g, kh, kw), whatever the caller's order; those of a transposed
convolution, (ic, oc/g, kh, kw), are the weights of the convolution whose gradient it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .arguments import as_array, choice, pair
from .bfloat import bits, is_bfloat, widened
from .calls import View
from .problem import dtype_name

FORMATS = {"NCHW": "nchw", "channels_first": "nchw", "NHWC": "nhwc", "channels_last": "nhwc"}
PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}

# (layout, dimensions) -> the view of an image, and of its weights
_IMAGES: dict[tuple[str, int], View] = {
    ("nchw", 4): lambda x: x,
    ("nchw", 3): lambda x: x[None],
    ("nhwc", 4): lambda x: x.transpose(0, 3, 1, 2),
    ("nhwc", 3): lambda x: x.transpose(2, 0, 1)[None],
    ("nchw", 2): lambda x: x[None, None],
    ("nhwc", 2): lambda x: x[None, None],
}
_WEIGHTS: dict[tuple[str, int], View] = {
    ("nchw", 4): lambda w: w,
    ("nhwc", 4): lambda w: w.transpose(3, 2, 0, 1),
    ("nchw", 2): lambda w: w[None, None],
    ("nhwc", 2): lambda w: w[None, None],
}


class Layout(NamedTuple):
    """The order of a call's axes: views of its arrays, and their shapes."""

    name: str  # nchw | nhwc
    ndim: int  # of image and result
    image: View
    weights: View

    @property
    def weights_name(self) -> str:
        """Problem's word: oihw or hwio."""
        return "oihw" if self.name == "nchw" else "hwio"

    def extents(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """``(n, c, h, w)`` of an image of this shape."""
        if self.ndim == 2:
            return 1, 1, shape[0], shape[1]
        n = shape[0] if self.ndim == 4 else 1
        first, second, third = shape[-3:]
        return (n, first, second, third) if self.name == "nchw" else (n, third, first, second)

    def filters(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """``(oc, ic/g, kh, kw)`` of weights of this shape."""
        if len(shape) == 2:
            return 1, 1, shape[0], shape[1]
        a, b, c, d = shape
        return (a, b, c, d) if self.name == "nchw" else (d, c, a, b)

    def shape(self, n: int, c: int, h: int, w: int) -> tuple[int, ...]:
        """Of the caller's image that is seen as ``(n, c, h, w)``."""
        if self.ndim == 2:
            return h, w
        image = (c, h, w) if self.name == "nchw" else (h, w, c)
        return (n, *image) if self.ndim == 4 else image


def arranged(data_format: Any, shape: tuple[int, ...], weight_shape: tuple[int, ...], allowed: tuple[int, ...]) -> Layout:
    """The layout of an input and weights of these shapes; ``allowed`` are the input's numbers of dimensions.

    Raises
    ------
    ValueError
        Another format or number of dimensions, or an empty extent other than the batch.
    """
    choice("data_format", data_format, FORMATS)
    name = FORMATS[data_format]
    if len(shape) not in allowed:
        wanted = " or ".join(filter(None, (", ".join(map(str, allowed[:-1])), str(allowed[-1]))))
        raise ValueError(f"input must have {wanted} dimensions, got shape {shape}")
    dimensions = 2 if len(shape) == 2 else 4
    if len(weight_shape) != dimensions:
        raise ValueError(f"weight must have {dimensions} dimensions for input of shape {shape}, got shape {weight_shape}")
    if 0 in shape[-3:] or 0 in weight_shape:
        raise ValueError(f"input and weight must not be empty (only the batch may be), got shapes {shape} and {weight_shape}")
    return Layout(name, len(shape), _IMAGES[name, len(shape)], _WEIGHTS[name, dimensions])


def views_of(layout: Layout, *dtypes: np.dtype[Any]) -> tuple[View, View]:
    """The views of images and of weights of a call whose arrays have these types: bfloat16's bits, and weights of the host as float32."""
    if not any(map(is_bfloat, dtypes)):
        return layout.image, layout.weights

    def weights(w: Any) -> Any:
        return widened(layout.weights(w)) if isinstance(w, np.ndarray) else bits(layout.weights(w))

    return lambda x: bits(layout.image(x)), weights


def weights_name(dtype: np.dtype[Any]) -> str:
    """The short name of the type of weights as kernels of the CPU see them, by `views_of`."""
    return "f32" if is_bfloat(dtype) else dtype_name(dtype)


def check_channels(ic: int, g: int, oc: int, icg: int, weight_shape: tuple[int, ...]) -> None:
    """Weights of ``oc`` filters of ``icg`` channels fit ``ic`` channels in ``g`` groups."""
    if ic != icg * g or oc % g:
        raise ValueError(f"weight must have input channels / groups = {ic} / {g} channels and a multiple of {g} filters, "
                         f"got shape {weight_shape} ({oc} filters of {icg} channels)")  # fmt: skip


def paddings(padding: Any, image: tuple[int, int], span: tuple[int, int], stride: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """``((top, bottom), (left, right))`` of any spelling, for a kernel that spans so many rows and columns.

    Raises
    ------
    TypeError, ValueError
        Naming ``padding``.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding == "full":
            return (span[0] - 1,) * 2, (span[1] - 1,) * 2
        if padding in ("same", "same_lower"):
            # the rule of TensorFlow and ONNX: ceil(i / s) outputs; the odd pixel goes to the end, or to the start
            total = [max((-(-i // s) - 1) * s + k - i, 0) for i, k, s in zip(image, span, stride, strict=True)]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            before, after = (small, large) if padding == "same" else (large, small)
            return (before[0], after[0]), (before[1], after[1])
    elif isinstance(padding, (tuple, list)) and len(padding) == 2 and all(isinstance(p, (tuple, list)) for p in padding):
        (top, bottom), (left, right) = pair("padding", padding[0], 0), pair("padding", padding[1], 0)
        return (top, bottom), (left, right)
    else:
        rows, cols = pair("padding", padding, 0)
        return (rows, rows), (cols, cols)
    raise ValueError("padding must be an int, (rows, columns), ((top, bottom), (left, right)), 'valid', 'same', 'same_lower' "
                     f"or 'full', got {padding!r}")  # fmt: skip


def bias_array(bias: Any, oc: int, weight_ndim: int, acc: str) -> np.ndarray | None:
    """A bias as an array of shape ``(oc,)``; of weights of one plane it may be a scalar.

    Raises
    ------
    TypeError, ValueError
        Naming ``bias``: no array, another shape, or complex where the sums are real.
    """
    if bias is None:
        return None
    array = widened(as_array("bias", bias, True))
    if array.dtype.kind == "c" and acc[0] != "c":
        raise TypeError(f"bias must be real for a real result, got dtype {array.dtype}")
    return checked_bias(array, oc, weight_ndim).reshape(-1)


def checked_bias(array: Any, oc: int, weight_ndim: int) -> Any:
    """A bias that fits so many channels, or None for none.

    Raises
    ------
    ValueError
        Naming ``bias``: another shape.
    """
    if array is None:
        return None
    if array.shape != (oc,) and not (weight_ndim == 2 and array.ndim == 0):
        wanted = "a scalar or of shape (1,)" if weight_ndim == 2 else f"of shape {(oc,)}"
        raise ValueError(f"bias must be {wanted}, got shape {array.shape}")
    return array
