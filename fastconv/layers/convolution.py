"""Keras 3's `Conv2D`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import fastconv

from ..planning.calls import Bounded
from ..tensors import is_tensor, of_tensors
from . import initializers
from .layer import Layer, Shape, Variable, pair, standard_shape

DTYPES = ("float16", "float32", "float64")
MOST_PLANS = 8  # per layer: the input shapes it is ready for

# Keras's activation -> conv2d's; the slope of leaky_relu is 0.2 in Keras.
ACTIVATIONS: dict[str, Any] = {
    "linear": None,
    "relu": "relu",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "leaky_relu": ("leaky_relu", 0.2),
}


def _padding(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        raise ValueError(f"`padding` must be either `'valid'` or `'same'`. Received {value}.")
    padding = value.lower() if isinstance(value, str) else value
    if padding not in ("valid", "same"):
        raise ValueError(f"The `padding` argument must be a list/tuple or one of {{'valid', 'same'}}. Received: {padding}")
    return str(padding)


def _data_format(value: Any) -> str:
    data_format = "channels_last" if value is None else str(value).lower()
    if data_format not in ("channels_first", "channels_last"):
        raise ValueError(
            f"The `data_format` argument must be one of {{'channels_first', 'channels_last'}}. Received: data_format={data_format}"
        )
    return data_format


def _activation(identifier: Any) -> Any:
    if identifier is None:
        return "linear"
    if not callable(identifier) and not (isinstance(identifier, str) and identifier in ACTIVATIONS):
        error = ValueError(f"Could not interpret activation function identifier: {identifier}")
        error.add_note(f"Known: {', '.join(ACTIVATIONS)}, and any callable on arrays.")
        raise error
    return identifier


class Conv2D(Layer):
    """2-D convolution layer with Keras 3's arguments, defaults and weight shapes; it runs, and does not train.

    Unlike Keras's, it accepts integer images (cast to the layer's type) and an empty batch.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, strides, dilation_rate : int or (int, int)
        Rows, columns.  Strides and dilation cannot both exceed 1.
    padding : {"valid", "same"}
        ``"same"`` pads to ``ceil(n / stride)`` results, the odd row or column at the end.
    data_format : {"channels_last", "channels_first"}
        (n, h, w, channels) by default, or (n, channels, h, w).
    groups : int
        Divides input channels and filters.
    activation : str or callable, optional
        ``linear relu relu6 sigmoid tanh silu swish gelu leaky_relu`` (slope 0.2), or a function of the result array.
    use_bias : bool
        Whether there is a second weight, (filters,).
    kernel_initializer, bias_initializer : str, dict, array or callable
        See `fastconv.layers.initializers.get`.
    kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        Kept for `get_config`; they act in training only.
    **kwargs
        ``name``, ``trainable``, ``dtype`` (``"float32"`` by default; also ``"float16"``, ``"float64"``), and
        ``input_shape``, of which Keras 3 warns.

    Examples
    --------
    >>> layer = Conv2D(1, 3, strides=(2, 1), kernel_initializer="ones")
    >>> layer(np.ones((1, 512, 512, 1))).shape
    (1, 255, 510, 1)
    >>> [weight.shape for weight in layer.get_weights()]
    [(3, 3, 1, 1), (1,)]
    >>> Conv2D(1, 3, padding="same", kernel_initializer="ones")(np.ones((1, 3, 3, 1)))[0, :, :, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
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
        super().__init__(name=kwargs.pop("name", None), trainable=kwargs.pop("trainable", True))
        self.dtype = _dtype(kwargs.pop("dtype", None))
        self.batch_input_shape: Shape | None = None  # set by the argument `input_shape` only
        if kwargs.get("input_shape") is not None:
            warnings.warn(
                "Do not pass an `input_shape`/`input_dim` argument to a layer. When using Sequential models, prefer "
                "using an `Input(shape)` object as the first layer in the model instead.",
                stacklevel=2,
            )
            self.batch_input_shape = (None, *standard_shape(kwargs["input_shape"]))
        kwargs.pop("input_shape", None)
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments passed to {type(self).__name__}: {kwargs}")
        self.filters = filters
        self.groups = groups
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.strides = pair(strides, "strides")
        self.dilation_rate = pair(dilation_rate, "dilation_rate")
        self.padding = _padding(padding)
        self.data_format = _data_format(data_format)
        self.activation = _activation(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get("glorot_uniform" if kernel_initializer is None else kernel_initializer)
        self.bias_initializer = initializers.get("zeros" if bias_initializer is None else bias_initializer)
        self.kernel_regularizer = kernel_regularizer
        self.bias_regularizer = bias_regularizer
        self.activity_regularizer = activity_regularizer
        self.kernel_constraint = kernel_constraint
        self.bias_constraint = bias_constraint
        if not hasattr(filters, "__index__") or filters <= 0:
            raise ValueError(f"Invalid value for argument `filters`. Expected a strictly positive value. Received filters={filters}.")
        if not hasattr(groups, "__index__") or groups <= 0:
            raise ValueError(f"The number of groups must be a positive integer. Received: groups={groups}.")
        if filters % groups:
            raise ValueError(
                f"The number of filters must be evenly divisible by the number of groups. Received: groups={groups}, filters={filters}."
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides > 1` not supported in conjunction with `dilation_rate > 1`. "
                f"Received: strides={self.strides} and dilation_rate={self.dilation_rate}"
            )
        self._weights: list[Variable] = []
        # The weights' values that are packed in the plans, and the plans: replaced together, so that a call in another
        # thread never finds plans of other weights.
        self._plans: tuple[tuple[np.ndarray, ...], Bounded[Any]] = (), Bounded(MOST_PLANS)

    @property
    def _channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    @property
    def weights(self) -> list[Variable]:
        """Kernel (kh, kw, channels / groups, filters) and, with ``use_bias``, bias (filters,)."""
        return list(self._weights)

    @property
    def kernel(self) -> Variable:
        """The filters, (kh, kw, channels / groups, filters)."""
        if not self.built:
            raise AttributeError("You must build the layer before accessing `kernel`.")
        return self._weights[0]

    @property
    def bias(self) -> Variable | None:
        """The bias (filters,), None without ``use_bias``."""
        if not self.built:
            raise AttributeError("You must build the layer before accessing `bias`.")
        return self._weights[1] if self.use_bias else None

    def build(self, input_shape: Any) -> None:
        """Create the weights for a batch's shape; extents may be None, all but the channels."""
        if self.built:
            raise ValueError(
                "You cannot add new elements of state (variables or sub-layers) to a layer that is already built. "
                "All state must be created in the `__init__()` method or in the `build()` method."
            )
        shape = standard_shape(input_shape)
        self.compute_output_shape(shape)
        channels = shape[self._channel_axis]
        if not channels:
            raise ValueError(f"The input's channels must be known and at least 1. Received: input_shape={shape}")
        if channels % self.groups:
            raise ValueError(
                f"The number of input channels must be evenly divisible by the number of groups. Received "
                f"groups={self.groups}, but the input has {channels} channels (full input shape is {shape})."
            )
        self._weights = self._new_weights(channels)
        self.built = True

    def _new_weights(self, channels: int) -> list[Variable]:
        kernel = self._new_weight("kernel", self._kernel_shape(channels), self.kernel_initializer)
        return [kernel, self._new_weight("bias", (self._results(channels),), self.bias_initializer)] if self.use_bias else [kernel]

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, channels // self.groups, self.filters)

    @property
    def _channels(self) -> int:
        """Of the input, as the kernel says."""
        return self._weights[0].shape[2] * self.groups

    def _results(self, channels: int | None) -> Any:
        """How many channels the result has, for so many of the input; None where that depends on what is not known."""
        return self.filters

    def _new_weight(self, name: str, shape: tuple[int, ...], initializer: Any) -> Variable:
        value = np.array(initializer(shape, dtype=self.dtype), self.dtype)
        if value.shape != shape:
            raise ValueError(f"The `{name}` initializer must return shape {shape}. Received shape={value.shape}")
        return Variable(value, name, f"{self.name}/{name}")

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The result's shape for a batch's shape; None stays None.

        Examples
        --------
        >>> Conv2D(4, 3, strides=2, padding="same").compute_output_shape((None, 5, None, 1))
        (None, 3, None, 4)
        """
        shape = standard_shape(input_shape)
        channels = shape[self._channel_axis] if len(shape) > 1 else None
        filters = self._results(channels)
        kernel = (*self.kernel_size, channels, filters)
        if len(shape) != 4:
            raise ValueError(
                f"Kernel shape must have the same length as input, but received kernel of shape {kernel} and input of shape {shape}."
            )
        extents = shape[1:3] if self.data_format == "channels_last" else shape[2:]
        result: list[int | None] = []
        for n, k, s, d in zip(extents, self.kernel_size, self.strides, self.dilation_rate, strict=True):
            span = (k - 1) * d + 1 if self.padding == "valid" else 1
            result.append(None if n is None else (n - span) // s + 1)
        if self.padding == "valid" and any(extent is not None and extent <= 0 for extent in result):
            raise ValueError(
                f"Computed output size would be zero or negative. Received `inputs shape={shape}`, "
                f"`kernel shape={kernel}`, `dilation_rate={np.array(self.dilation_rate)}`, "
                f"`strides={self.strides}`, `padding={self.padding}`."
            )
        if self.data_format == "channels_last":
            return (shape[0], *result, filters)
        return (shape[0], filters, *result)

    def __call__(self, inputs: Any, training: bool | None = None) -> np.ndarray:
        """Convolve a batch, (n, h, w, channels) by default; builds the layer at the first call.  A `torch.Tensor` gives one."""
        if is_tensor(inputs):
            return of_tensors(self._run, {"inputs": inputs})
        return self._run(inputs, None)

    def _run(self, inputs: Any, out: np.ndarray | None) -> np.ndarray:
        """The result, in ``out`` where the activation is one of its plan's."""
        src = self._as_array(inputs)
        if src.ndim < 4:
            raise ValueError(
                f"Input 0 with name 'None' of layer '{self.name}' is incompatible with the layer: expected min_ndim=4, "
                f"found ndim={src.ndim}. Full shape received: {src.shape}"
            )
        if not self.built:
            self.build(src.shape)
        values = tuple(weight.value for weight in self._weights)
        packed, plans = self._plans
        if len(packed) != len(values) or any(a is not b for a, b in zip(packed, values, strict=True)):
            plans = Bounded(MOST_PLANS)
            self._plans = values, plans
        key = (src.shape, fastconv.threads())
        plan = plans.get(key)
        if plan is None:
            self._check_channels(src.shape)
            shape = self.compute_output_shape(src.shape)
            if not src.shape[0]:
                return np.zeros(tuple(extent or 0 for extent in shape), self.dtype)
            plan = self._plan(src, *values)
            plans.keep(key, plan)
        if callable(self.activation):
            return np.asarray(self.activation(plan(src)))
        dst: np.ndarray = plan(src, out=out)
        return dst

    def _as_array(self, inputs: Any) -> np.ndarray:
        array = np.asarray(inputs)
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"Inputs to a layer should be tensors. Got '{inputs}' (of type {type(inputs)}) as input for layer '{self.name}'."
            )
        return array.astype(self.dtype, copy=False)

    def _check_channels(self, shape: tuple[int, ...]) -> None:
        axis, channels = self._channel_axis, self._channels
        if len(shape) > axis and shape[axis] != channels:
            raise ValueError(
                f"Input 0 with name 'None' of layer '{self.name}' is incompatible with the layer: expected axis {axis} "
                f"of input shape to have value {channels}, but received input with shape {shape}"
            )

    def _plan(self, src: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None) -> Any:
        return fastconv.plan(
            src,
            kernel if self.data_format == "channels_last" else kernel.transpose(3, 2, 0, 1),
            bias,
            stride=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            activation=None if callable(self.activation) else ACTIVATIONS[self.activation],
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": ((), Bounded(MOST_PLANS))}

    def get_config(self) -> dict[str, Any]:
        """The arguments, with which `from_config` here or in Keras makes the same layer.

        Examples
        --------
        >>> Conv2D.from_config(Conv2D(2, 3, name="edges").get_config())
        <Conv2D name=edges, built=False>
        """
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": self.dtype,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
            "activity_regularizer": self.activity_regularizer,
            "kernel_constraint": self.kernel_constraint,
            "bias_constraint": self.bias_constraint,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Conv2D:
        """The layer that `get_config`, here or in Keras, describes."""
        return cls(**config)


def _dtype(value: Any) -> str:
    """The type's name; Keras's serialised policies are read too."""
    if isinstance(value, dict):
        value = value.get("config", {}).get("name")
    name = "float32" if value is None else value if isinstance(value, str) else getattr(value, "__name__", str(value))
    if name not in DTYPES:
        raise ValueError(f"The `dtype` argument must be one of {DTYPES}. Received: dtype={value}")
    return str(name)
