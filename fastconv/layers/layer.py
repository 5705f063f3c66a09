"""What every layer has: a name, weights, being built once; and Keras's checks of pairs and shapes."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from ..planning.problem import LIMIT
from .initializers import snake

Shape = tuple[int | None, ...]

_names: dict[str, int] = {}
_names_lock = threading.Lock()


def layer_name(name: Any, class_name: str) -> str:
    """The given name, or ``conv2d``, ``conv2d_1``, ...: one counter per class in this process."""
    if name is None:
        automatic = snake(class_name)
        with _names_lock:
            count = _names[automatic] = _names.get(automatic, -1) + 1
        return f"{automatic}_{count}" if count else automatic
    if not isinstance(name, str) or "/" in name:
        raise ValueError(f"Argument `name` must be a string and cannot contain character `/`. Received: name={name} (of type {type(name)})")
    return name


def pair(value: Any, name: str) -> tuple[int, int]:
    """An int or two positive ints; Keras's texts (`utils/argument_validation.py`)."""
    text = f"The `{name}` argument must be a tuple of 2 integers. Received {name}={value}"
    try:
        both = (value, value) if hasattr(value, "__index__") else tuple(value)
    except TypeError:
        raise ValueError(text) from None
    if len(both) != 2:
        raise ValueError(text)
    for element in both:
        if not hasattr(element, "__index__"):
            raise ValueError(f"{text}including element {element} of type {type(element)}")
    first, second = (element.__index__() for element in both)
    for rule, refused in (
        ("value > 0", {extent for extent in (first, second) if extent <= 0}),
        ("value < 2**62", {extent for extent in (first, second) if extent >= LIMIT}),
    ):
        if refused:
            raise ValueError(f"{text}, including values {refused} that do not satisfy `{rule}`")
    return first, second


def standard_shape(value: Any) -> Shape:
    """A shape of ints and Nones; Keras's texts (`backend/common/variables.py`)."""
    if value is None:
        raise ValueError("Undefined shapes are not supported.")
    if not hasattr(value, "__iter__"):
        raise ValueError(f"Cannot convert '{value}' to a shape.")
    for extent in value:
        if extent is not None and not hasattr(extent, "__index__"):
            raise ValueError(f"Cannot convert '{value}' to a shape. Found invalid dimension '{extent}' of type '{type(extent)}'. ")
    shape = tuple(None if extent is None else extent.__index__() for extent in value)
    if any(extent is not None and extent < 0 for extent in shape):
        raise ValueError(f"Cannot convert '{value}' to a shape. Negative dimensions are not allowed.")
    return shape


def serialized(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Keras's serialised form of a layer."""
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


class Variable:
    """A layer's weight: values with a name.  `assign` replaces them; `numpy`, `np.asarray` and indexing read them.

    Examples
    --------
    >>> from fastconv.layers import Conv2D
    >>> layer = Conv2D(1, 3)
    >>> layer.build((None, 8, 8, 1))
    >>> layer.bias.assign([0.5])
    >>> layer.bias.numpy()
    array([0.5], dtype=float32)
    """

    def __init__(self, value: np.ndarray, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self._value = value
        value.setflags(write=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self._value.shape

    @property
    def dtype(self) -> str:
        """The type's name, as in Keras."""
        return self._value.dtype.name

    @property
    def value(self) -> np.ndarray:
        """The values, read-only; another array after each `assign`."""
        return self._value

    def numpy(self) -> np.ndarray:
        """A copy of the values."""
        return self._value.copy()

    def assign(self, value: Any) -> None:
        """Replace the values; the shape stays the same."""
        new = np.array(value, self.dtype)
        if new.shape != self.shape:
            raise ValueError(
                "The shape of the target variable and the shape of the target value in `variable.assign(value)` must "
                f"match. variable.shape={self.shape}, Received: value.shape={new.shape}. Target variable: {self}"
            )
        new.setflags(write=False)
        self._value = new

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._value, dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return self._value[index]

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}, value={self._value}>"


class Layer:
    """What `Conv2D` and `Sequential` share: a name, weights, and being built once."""

    def __init__(self, *, name: str | None = None, trainable: bool = True) -> None:
        if not isinstance(trainable, bool):
            raise ValueError(f"Expected `trainable` to be a boolean. Received: trainable={trainable} (of type {type(trainable)})")
        self.name = layer_name(name, type(self).__name__)
        self.trainable = trainable
        self.built = False

    @property
    def weights(self) -> list[Variable]:
        """The weights, in Keras's order; none before the layer is built."""
        return []

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the weights' values."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Replace all weights' values; none is changed unless all shapes fit.

        Examples
        --------
        >>> from fastconv.layers import Conv2D
        >>> layer = Conv2D(1, 3)
        >>> layer.build((None, 8, 8, 1))
        >>> layer.set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
        >>> layer.set_weights([np.ones((3, 3, 1, 1))])
        Traceback (most recent call last):
            ...
        ValueError: You called `set_weights(weights)` on layer '...' with a weight list of length 1, but the layer was
        expecting 2 weights.
        """
        own = self.weights
        if len(own) != len(weights):
            raise ValueError(
                f"You called `set_weights(weights)` on layer '{self.name}' with a weight list of length "
                f"{len(weights)}, but the layer was expecting {len(own)} weights."
            )
        values = [np.asarray(value) for value in weights]
        for weight, value in zip(own, values, strict=True):
            if weight.shape != value.shape:
                raise ValueError(
                    f"Layer {self.name} weight shape {weight.shape} is not compatible with provided weight shape {value.shape}."
                )
        for weight, value in zip(own, values, strict=True):
            weight.assign(value)

    def count_params(self) -> int:
        """Numbers in all weights."""
        if not self.built:
            raise ValueError(
                f"You tried to call `count_params` on layer '{self.name}', but the layer isn't built. "
                "You can build it manually via: `layer.build(input_shape)`."
            )
        return sum(math.prod(weight.shape) for weight in self.weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"
