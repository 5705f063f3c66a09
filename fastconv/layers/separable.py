"""Keras 3's `DepthwiseConv2D` and `SeparableConv2D`."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv

from . import initializers
from .convolution import ACTIVATIONS, Conv2D
from .layer import Variable

_RENAMED = {f"kernel_{word}": f"depthwise_{word}" for word in ("initializer", "regularizer", "constraint")}


class DepthwiseConv2D(Conv2D):
    """Depthwise 2-D convolution layer with Keras 3's arguments, defaults and weight shapes; it runs, and does not train.

    Each channel has ``depth_multiplier`` filters of its own, whose results lie side by side.

    Parameters
    ----------
    kernel_size, strides, dilation_rate : int or (int, int)
        Rows, columns.  Strides and dilation cannot both exceed 1.
    depth_multiplier : int
        Results of each input channel.
    depthwise_initializer, depthwise_regularizer, depthwise_constraint
        Of the kernel, (kh, kw, channels, depth_multiplier).
    padding, data_format, activation, use_bias, bias_initializer, bias_regularizer, activity_regularizer, bias_constraint, **kwargs
        See `Conv2D`.

    Examples
    --------
    >>> layer = DepthwiseConv2D(3, depth_multiplier=3, depthwise_initializer="ones")
    >>> layer(np.ones((4, 10, 10, 12))).shape
    (4, 8, 8, 36)
    >>> [weight.shape for weight in layer.get_weights()]
    [(3, 3, 12, 3), (36,)]
    """

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        _refuse(self, kwargs, "filters")
        super().__init__(
            1, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias, depthwise_initializer,
            bias_initializer, depthwise_regularizer, bias_regularizer, activity_regularizer, depthwise_constraint,
            bias_constraint, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = _multiplier(depth_multiplier)

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, channels, self.depth_multiplier)

    def _results(self, channels: int | None) -> Any:
        return None if channels is None else channels * self.depth_multiplier

    def _plan(self, src: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None) -> Any:
        return _depthwise_plan(self, src, kernel, bias, None if callable(self.activation) else ACTIVATIONS[self.activation])

    def get_config(self) -> dict[str, Any]:
        """The arguments, with which `from_config` here or in Keras makes the same layer."""
        config = {_RENAMED.get(name, name): value for name, value in super().get_config().items() if name not in ("filters", "groups")}
        return config | {"depth_multiplier": self.depth_multiplier}


class SeparableConv2D(Conv2D):
    """Depthwise convolution, then a 1x1 one, with Keras 3's arguments, defaults and weight shapes; it runs, and does not train.

    Parameters
    ----------
    filters : int
        Output channels of the 1x1 convolution, which adds the bias.
    kernel_size, strides, dilation_rate : int or (int, int)
        Rows, columns, of the depthwise one.  Strides and dilation cannot both exceed 1.
    depth_multiplier : int
        Results of each input channel, in between.
    depthwise_initializer, depthwise_regularizer, depthwise_constraint
        Of the depthwise kernel, (kh, kw, channels, depth_multiplier).
    pointwise_initializer, pointwise_regularizer, pointwise_constraint
        Of the other one, (1, 1, channels * depth_multiplier, filters).
    padding, data_format, activation, use_bias, bias_initializer, bias_regularizer, activity_regularizer, bias_constraint, **kwargs
        See `Conv2D`.

    Examples
    --------
    >>> layer = SeparableConv2D(3, 4, 3, activation="relu")
    >>> layer(np.ones((4, 10, 10, 12))).shape
    (4, 3, 3, 3)
    >>> [weight.shape for weight in layer.get_weights()]
    [(4, 4, 12, 1), (1, 1, 12, 3), (3,)]
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        _refuse(self, kwargs)
        super().__init__(
            filters, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias, depthwise_initializer,
            bias_initializer, depthwise_regularizer, bias_regularizer, activity_regularizer, depthwise_constraint,
            bias_constraint, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = _multiplier(depth_multiplier)
        self.pointwise_initializer = initializers.get("glorot_uniform" if pointwise_initializer is None else pointwise_initializer)
        self.pointwise_regularizer = pointwise_regularizer
        self.pointwise_constraint = pointwise_constraint

    @property
    def depthwise_kernel(self) -> Variable:
        """The filters of each channel, (kh, kw, channels, depth_multiplier)."""
        return self._built("depthwise_kernel", 0)

    @property
    def pointwise_kernel(self) -> Variable:
        """The filters of all channels, (1, 1, channels * depth_multiplier, filters)."""
        return self._built("pointwise_kernel", 1)

    @property
    def kernel(self) -> Variable:
        """There are two."""
        raise AttributeError(f"'{type(self).__name__}' object has no attribute 'kernel'")

    @property
    def bias(self) -> Variable | None:
        """The bias (filters,), None without ``use_bias``."""
        return self._built("bias", 2) if self.use_bias or not self.built else None

    def _built(self, name: str, place: int) -> Variable:
        if not self.built:
            raise AttributeError(f"You must build the layer before accessing `{name}`.")
        return self._weights[place]

    def _new_weights(self, channels: int) -> list[Variable]:
        between = channels * self.depth_multiplier
        weights = [
            self._new_weight("depthwise_kernel", (*self.kernel_size, channels, self.depth_multiplier), self.kernel_initializer),
            self._new_weight("pointwise_kernel", (1, 1, between, self.filters), self.pointwise_initializer),
        ]
        return [*weights, self._new_weight("bias", (self.filters,), self.bias_initializer)] if self.use_bias else weights

    def _plan(self, src: np.ndarray, *weights: Any) -> Any:
        depthwise, pointwise = weights[:2]
        bias = weights[2] if self.use_bias else None
        first = _depthwise_plan(self, src, depthwise, None, None)
        last = self.data_format == "channels_last"
        between = list(self.compute_output_shape(src.shape))
        between[self._channel_axis] = pointwise.shape[2]
        second = fastconv.plan(
            tuple(between),
            pointwise if last else pointwise.transpose(3, 2, 0, 1),
            bias,
            data_format=self.data_format,
            activation=None if callable(self.activation) else ACTIVATIONS[self.activation],
            dtype=self.dtype,
        )
        return lambda src: second(first(src))

    def get_config(self) -> dict[str, Any]:
        """The arguments, with which `from_config` here or in Keras makes the same layer."""
        config = {_RENAMED.get(name, name): value for name, value in super().get_config().items() if name != "groups"}
        return config | {
            "depth_multiplier": self.depth_multiplier,
            "pointwise_initializer": initializers.serialize(self.pointwise_initializer),
            "pointwise_regularizer": self.pointwise_regularizer,
            "pointwise_constraint": self.pointwise_constraint,
        }


def _refuse(layer: Conv2D, given: dict[str, Any], *more: str) -> None:
    """`Conv2D`'s own arguments, which these layers do not have."""
    for name in (*more, "groups", *_RENAMED):
        if name in given:
            raise ValueError(f"Unrecognized keyword arguments passed to {type(layer).__name__}: {{{name!r}: {given[name]!r}}}")


def _multiplier(value: Any) -> int:
    if not hasattr(value, "__index__") or value <= 0:
        raise ValueError(
            f"Invalid value for argument `depth_multiplier`. Expected a strictly positive value. Received depth_multiplier={value}."
        )
    return int(value)


def _depthwise_plan(layer: Conv2D, src: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, activation: Any) -> Any:
    """The plan of a kernel (kh, kw, channels, results of each)."""
    kh, kw, channels, multiplier = kernel.shape
    filters = kernel.reshape(kh, kw, 1, channels * multiplier)
    return fastconv.plan(
        src,
        filters if layer.data_format == "channels_last" else filters.transpose(3, 2, 0, 1),
        bias,
        stride=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        groups=channels,
        data_format=layer.data_format,
        activation=activation,
    )
