"""Keras 3's `Conv2DTranspose`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gradients import TransposedPlan
from ..planning.layout import arranged
from ..planning.problem import LIMIT
from ..planning.thread_count import thread_count
from .convolution import ACTIVATIONS, Conv2D
from .layer import Shape, standard_shape


class Conv2DTranspose(Conv2D):
    """Transposed 2-D convolution layer with Keras 3's arguments, defaults and weight shapes; it runs, and does not train.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, strides, dilation_rate : int or (int, int)
        Rows, columns.  Strides and dilation cannot both exceed 1.
    padding : {"valid", "same"}
        ``"same"``: results have ``n * stride`` rows; where padding is uneven, more is cut off at the end.
    output_padding : int or (int, int), optional
        Less than the stride.  ``(n - 1) * stride + span + output_padding`` rows for ``"valid"``, by default at least a stride for
        each pixel; for ``"same"`` 1 or, of an even span, 0 in the span's place.
    data_format, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, \
activity_regularizer, kernel_constraint, bias_constraint, **kwargs
        See `Conv2D`.

    Examples
    --------
    >>> layer = Conv2DTranspose(1, 2, strides=2, kernel_initializer="ones")
    >>> layer(np.array([[1.0, 2.0]]).reshape(1, 1, 2, 1))[0, :, :, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]], dtype=float32)
    >>> Conv2DTranspose(4, 3, strides=2, padding="same").compute_output_shape((None, 7, None, 8))
    (None, 14, None, 4)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if "groups" in kwargs:
            raise ValueError(f"Unrecognized keyword arguments passed to {type(self).__name__}: {{'groups': {kwargs['groups']!r}}}")
        super().__init__(
            filters, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias, kernel_initializer,
            bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, **kwargs,
        )  # fmt: skip
        self.output_padding = None if output_padding is None else _paddings(output_padding)
        if self.output_padding is not None and any(p >= s for p, s in zip(self.output_padding, self.strides, strict=True)):
            raise ValueError(f"`output_padding` must be < `strides`. output_padding={self.output_padding}, strides={self.strides}")

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, self.filters, channels)

    @property
    def _channels(self) -> int:
        return self._weights[0].shape[3]

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The result's shape for a batch's shape; None stays None."""
        shape = standard_shape(input_shape)
        if len(shape) != 4:
            kernel = self._kernel_shape(shape[self._channel_axis] if len(shape) > 1 else None)  # type: ignore[arg-type]
            raise ValueError(
                f"Kernel shape must have the same length as input, but received kernel of shape {kernel} and input of shape {shape}."
            )
        last = self.data_format == "channels_last"
        extents = shape[1:3] if last else shape[2:]
        result = [None if n is None else self._axis(axis, n)[1] for axis, n in enumerate(extents)]
        return (shape[0], *result, self.filters) if last else (shape[0], self.filters, *result)

    def _axis(self, axis: int, n: int) -> tuple[int, int]:
        """What is cut off before the first result of an axis of ``n`` pixels, and how many results there are."""
        stride = self.strides[axis]
        span = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
        extra = None if self.output_padding is None else self.output_padding[axis]
        if self.padding == "valid":
            return 0, (n - 1) * stride + span + (max(stride - span, 0) if extra is None else extra)
        size = n * stride if extra is None else (n - 1) * stride + span % 2 + extra
        # of what the result, spread to every stride, lacks to a full correlation, the larger half comes first
        lacking = size - (n - 1) * stride + span - 2
        return span - 1 - min(lacking - lacking // 2, span - 1), size

    def _plan(self, src: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None) -> Any:
        last = self.data_format == "channels_last"
        weight = kernel if last else kernel.transpose(3, 2, 0, 1)
        layout = arranged(self.data_format, src.shape, weight.shape, (4,))
        _, _, *extents = layout.extents(src.shape)
        (top, rows), (left, columns) = (self._axis(axis, n) for axis, n in enumerate(extents))
        activation = None if callable(self.activation) else ACTIVATIONS[self.activation]
        return TransposedPlan(layout, src, weight, bias, self.strides, self.dilation_rate, 1, (top, left), (rows, columns), activation,
                              None, "default", thread_count(None), None)  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """The arguments, with which `from_config` here or in Keras makes the same layer."""
        config = super().get_config()
        del config["groups"]
        return config if self.output_padding is None else config | {"output_padding": self.output_padding}


def _paddings(value: Any) -> tuple[int, int]:
    """An int or two that are not negative; Keras's texts."""
    text = f"The `output_padding` argument must be a tuple of 2 integers. Received output_padding={value}"
    both = (value, value) if hasattr(value, "__index__") else tuple(value) if hasattr(value, "__iter__") else ()
    if len(both) != 2:
        raise ValueError(text)
    for element in both:
        if not hasattr(element, "__index__"):
            raise ValueError(f"{text}including element {element} of type {type(element)}")
    first, second = (element.__index__() for element in both)
    refused = {extent for extent in (first, second) if not 0 <= extent < LIMIT}
    if refused:
        raise ValueError(f"{text}, including values {refused} that do not satisfy `value >= 0`")
    return first, second
