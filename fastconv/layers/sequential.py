"""Keras 3's `Sequential` and `Input`."""

from __future__ import annotations

import math
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..planning.workspaces import new_result
from ..tensors import is_tensor, of_tensors
from .convolution import Conv2D
from .layer import Layer, Shape, Variable, serialized, standard_shape
from .separable import DepthwiseConv2D, SeparableConv2D
from .transposed import Conv2DTranspose

BATCH_SIZE = 32  # Keras's default in predict
MOST_BUFFERS = 4  # pairs that are kept of a model
SUMMARY_WIDTH = 88
SUMMARY_EDGES = (0.45, 0.8, 1.0)  # of the columns, in widths
SUMMARY_FRAME = (3, 4, 3)  # lines and blanks, as rich takes them off the columns in Keras


class InputLayer(Layer):
    """The shape of a model's input; `Input` is another name for it.

    Parameters
    ----------
    shape : sequence of int or None
        Without the batch.
    batch_size : int, optional
    dtype : str, optional
        Kept; a layer converts to its own type.
    batch_shape : sequence of int or None, optional
        With the batch, instead of ``shape``.
    name : str, optional

    Examples
    --------
    >>> InputLayer((512, 512, 1)).shape
    (None, 512, 512, 1)
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        batch_shape: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if shape is not None and batch_shape is not None:
            raise ValueError("You cannot pass both `shape` and `batch_shape` at the same time.")
        if batch_size is not None and batch_shape is not None:
            raise ValueError("You cannot pass both `batch_size` and `batch_shape` at the same time.")
        if shape is None and batch_shape is None:
            raise ValueError("You must pass a `shape` argument.")
        self.batch_shape = standard_shape((batch_size, *standard_shape(shape)) if batch_shape is None else batch_shape)
        self.dtype = "float32" if dtype is None else str(dtype)
        self.built = True

    @property
    def shape(self) -> Shape:
        """With the batch."""
        return self.batch_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"batch_shape": self.batch_shape, "dtype": self.dtype, "name": self.name}


Input = InputLayer
_LAYERS = {layer.__name__: layer for layer in (Conv2D, Conv2DTranspose, DepthwiseConv2D, SeparableConv2D)}


class Sequential(Layer):
    """A stack of layers with Keras 3's methods; `predict` and calling it return NumPy arrays.

    Parameters
    ----------
    layers : iterable of Layer, optional
        The first may be `Input`; without it the model is built when it first sees data.
    trainable : bool
    name : str, optional

    Examples
    --------
    >>> model = Sequential([Input(shape=(6, 6, 1)), Conv2D(2, 3, name="first"), Conv2D(1, 3, name="second")])
    >>> [weight.shape for weight in model.weights]
    [(3, 3, 1, 2), (2,), (3, 3, 2, 1), (1,)]
    >>> model.predict(np.zeros((4, 6, 6, 1))).shape
    (4, 2, 2, 1)
    """

    def __init__(self, layers: Iterable[Layer] | None = None, trainable: bool = True, name: str | None = None) -> None:
        super().__init__(name=name, trainable=trainable)
        self._layers: list[Conv2D | Sequential] = []
        self._input: InputLayer | None = None
        self._shapes: list[Shape] = []  # of the input and of each layer's result, once built
        self._buffers: deque[list[np.ndarray]] = deque(maxlen=MOST_BUFFERS)  # two for each call that ran beside others
        self.compiled = False
        self.compile_config: dict[str, Any] = {}
        for layer in layers or ():
            self.add(layer)

    @property
    def layers(self) -> list[Conv2D | Sequential]:
        """The layers, without `Input`."""
        return list(self._layers)

    @property
    def weights(self) -> list[Variable]:
        """All layers' weights."""
        return [weight for layer in self._layers for weight in layer.weights]

    @property
    def input_shape(self) -> Shape:
        """With the batch; AttributeError before the model is built."""
        return self._built_shapes("input")[0]

    @property
    def output_shape(self) -> Shape:
        """With the batch; AttributeError before the model is built."""
        return self._built_shapes("output")[-1]

    def _built_shapes(self, which: str) -> list[Shape]:
        if not self._shapes:
            raise AttributeError(f"Sequential model '{self.name}' has no defined {which} shape yet.")
        return self._shapes

    def add(self, layer: Layer) -> None:
        """Put a layer on top; with a known input shape it is built at once.

        Examples
        --------
        >>> model = Sequential()
        >>> model.add(Conv2D(1, 3, name="only"))
        >>> model.add(Conv2D(1, 3, name="only"))
        Traceback (most recent call last):
            ...
        ValueError: All layers added to a Sequential model should have unique names. Name 'only' is already the name of
        a layer in this model. Update the `name` argument to pass a unique name.
        """
        if isinstance(layer, InputLayer):
            self._add_input(layer)
            return
        if not isinstance(layer, (Conv2D, Sequential)):
            raise ValueError(
                f"Only instances of `keras.Layer` can be added to a Sequential model. Received: {layer} (of type {type(layer)})"
            )
        if any(layer.name == other.name for other in self._layers):
            raise ValueError(
                f"All layers added to a Sequential model should have unique names. Name '{layer.name}' is already the "
                "name of a layer in this model. Update the `name` argument to pass a unique name."
            )
        first = not self._layers and self._input is None
        if first and isinstance(layer, Conv2D) and layer.batch_input_shape is not None:
            self._input = InputLayer(batch_shape=layer.batch_input_shape)
        self._layers.append(layer)
        self._rebuild()

    def _add_input(self, layer: InputLayer) -> None:
        if self._input is not None:
            raise ValueError(
                f"Sequential model '{self.name}' has already been configured to use input shape "
                f"{self._input.batch_shape}. You cannot add a different Input layer to it."
            )
        if self._layers:
            raise ValueError(f"Input must be the first layer of a model. Sequential model '{self.name}' has others")
        self._input = layer

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._layers:
            raise ValueError(f"Sequential model '{self.name}' has no layers")
        layer = self._layers.pop()
        self._rebuild()
        return layer

    def _rebuild(self) -> None:
        self.built, self._shapes = False, []
        if self._input is not None and self._layers:
            try:
                self.build(self._input.batch_shape)
            except ValueError:
                self._layers.pop()  # the layer that does not fit
                raise

    def build(self, input_shape: Any = None) -> None:
        """Create all layers' weights for a batch's shape."""
        shape = standard_shape(input_shape)
        if not self._layers:
            raise ValueError(f"Sequential model {self.name} cannot be built because it has no layers. Call `model.add(layer)`.")
        if self._input is not None and self._input.batch_shape != shape:
            raise ValueError(
                f"Sequential model '{self.name}' has already been configured to use input shape "
                f"{self._input.batch_shape}. You cannot build it with input_shape {shape}"
            )
        shapes = [shape]
        for layer in self._layers:
            if not layer.built:
                layer.build(shapes[-1])
            shapes.append(layer.compute_output_shape(shapes[-1]))
        self._input = self._input or InputLayer(batch_shape=shape)
        self._shapes, self.built = shapes, True

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The result's shape for a batch's shape."""
        shape = standard_shape(input_shape)
        for layer in self._layers:
            shape = layer.compute_output_shape(shape)
        return shape

    def __call__(self, inputs: Any, training: bool | None = None) -> np.ndarray:
        """Apply all layers; builds the model at the first call.  A `torch.Tensor` gives one."""
        if is_tensor(inputs):
            return of_tensors(self._run, {"inputs": inputs})
        return self._run(inputs, None)

    def _run(self, inputs: Any, out: np.ndarray | None) -> np.ndarray:
        """The result, in ``out`` where the last layer can; what lies between the layers alternates between two buffers."""
        result = inputs if isinstance(inputs, np.ndarray) else np.asarray(inputs)
        if not self.built:
            self.build(result.shape)
        layers = list(self._flat())
        try:
            buffers = self._buffers.pop()
        except IndexError:  # the first call, or others run beside this one
            buffers = [np.empty(0, np.uint8)] * 2
        if layers and result.dtype != layers[0].dtype and result.dtype.kind in "biuf":
            converted = _kept(buffers, 1, result.shape, layers[0].dtype)
            np.copyto(converted, result, casting="unsafe")
            result = converted
        for number, layer in enumerate(layers):
            to = out
            if number < len(layers) - 1:
                # an activation of the caller's may keep what it is given
                plain = result.ndim == 4 and not callable(layer.activation)
                to = _kept(buffers, number % 2, layer.compute_output_shape(result.shape), layer.dtype) if plain else None
            result = layer._run(result, to)
        self._buffers.append(buffers)
        return result

    def _flat(self) -> Iterator[Conv2D]:
        """All layers, those of models within included."""
        for layer in self._layers:
            if isinstance(layer, Sequential):
                yield from layer._flat()
            else:
                yield layer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_buffers": deque(maxlen=MOST_BUFFERS)}

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: int | None = None, callbacks: Any = None
    ) -> np.ndarray:
        """Apply the model to all images, ``batch_size`` (32) at a time, and join the results.

        Parameters
        ----------
        x : array_like
            A batch of images.
        batch_size : int, optional
        verbose
            Accepted; nothing is printed.
        steps : int, optional
            Stop after so many batches.
        callbacks
            Must be None or empty.

        Examples
        --------
        >>> model = Sequential([Conv2D(1, 3)])
        >>> model.predict(np.zeros((70, 8, 8, 1)), verbose=0).shape
        (70, 6, 6, 1)
        """
        if callbacks:
            raise ValueError(f"callbacks must be None or empty: fastconv's predict calls none. Received: {callbacks}")
        for name, value in (("batch_size", batch_size), ("steps", steps)):
            if value is not None and (not hasattr(value, "__index__") or value < 1):
                raise ValueError(f"{name} must be None or a positive int. Received: {name}={value!r}")
        if is_tensor(x):
            return of_tensors(lambda x, out: self.predict(x, batch_size, verbose, steps), {"x": x})
        src = np.asarray(x)
        size = batch_size or BATCH_SIZE
        if steps is not None:
            src = src[: steps * size]
        if src.ndim == 0 or len(src) <= size:
            return self(src)
        first = self(src[:size])
        dst = new_result((len(src), *first.shape[1:]), first.dtype)
        dst[:size] = first
        for start in range(size, len(src), size):
            to = dst[start : start + size]
            result = self._run(src[start : start + size], to)
            if result is not to:
                to[...] = result
        return dst

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Keep the arguments in ``compile_config``; nothing here trains."""
        self.compile_config = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }
        self.optimizer, self.loss, self.compiled = optimizer, loss, True

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name or by index."""
        if index is not None and name is not None:
            raise ValueError(f"Provide only a layer name or a layer index. Received: index={index}, name={name}.")
        if index is not None:
            if index >= len(self._layers):
                raise ValueError(f"Was asked to retrieve layer at index {index} but model only has {len(self._layers)} layers.")
            return self._layers[index]
        if name is None:
            raise ValueError("Provide either a layer name or layer index at `get_layer`.")
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No such layer: {name}. Existing layers are: {[layer.name for layer in self._layers]}.")

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
        """Write Keras's table of layers, result shapes and parameters to standard output, or give it to ``print_fn``.

        Examples
        --------
        >>> Sequential([Input((6, 6, 1)), Conv2D(1, 3, name="edges")], name="lesson").summary(line_length=60)
        Model: "lesson"
        ┏━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┓
        ┃ Layer (type)             ┃ Output Shape      ┃   Param # ┃
        ┡━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━┩
        │ edges (Conv2D)           │ (None, 4, 4, 1)   │        10 │
        └──────────────────────────┴───────────────────┴───────────┘
         Total params: 10 (40.00 B)
         Trainable params: 10 (40.00 B)
         Non-trainable params: 0 (0.00 B)
        """
        width = line_length or min(SUMMARY_WIDTH, shutil.get_terminal_size().columns - 4)
        rows = [("Layer (type)", "Output Shape", "Param #")]
        for index, layer in enumerate(self._layers):
            shape = str(self._shapes[index + 1]) if self._shapes else "?"
            count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
            rows.append((f"{layer.name} ({type(layer).__name__})", shape, count))
        text = "\n".join([f'Model: "{self.name}"', *_table(rows, width), *self._totals(), ""])
        (print_fn or sys.stdout.write)(text)

    def _totals(self) -> list[str]:
        def line(kind: str, weights: list[Variable]) -> str:
            count = sum(math.prod(weight.shape) for weight in weights)
            return f" {kind} params: {count:,} ({_readable(sum(weight.value.nbytes for weight in weights))})"

        trainable = [w for layer in self._layers if layer.trainable and self.trainable for w in layer.weights]
        fixed = [w for w in self.weights if not any(w is other for other in trainable)]
        return [line("Total", self.weights), line("Trainable", trainable), line("Non-trainable", fixed)]

    def get_config(self) -> dict[str, Any]:
        """Name and layers, with which `from_config` here or in Keras makes the same model, with new weights."""
        stack: list[Any] = [self._input, *self._layers] if self._input is not None else [*self._layers]
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": [serialized(type(layer).__name__, layer.get_config()) for layer in stack],
            "build_input_shape": None if self._input is None else self._input.batch_shape,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        """The model that `get_config`, here or in Keras, describes.

        Examples
        --------
        >>> model = Sequential([Input((6, 6, 1)), Conv2D(1, 3)], name="lesson")
        >>> Sequential.from_config(model.get_config()).output_shape
        (None, 4, 4, 1)
        """
        if "name" not in config or "layers" not in config:
            raise ValueError(
                f"A Sequential model configuration must be a dictionary containing the 'name' and 'layers' keys. Received: config={config}"
            )
        model = cls(trainable=config.get("trainable", True), name=config["name"])
        for entry in config["layers"]:
            arguments = dict(entry["config"])
            if entry["class_name"] == "InputLayer":
                keep = ("batch_shape", "dtype", "name")
                model.add(InputLayer(**{key: arguments[key] for key in keep if key in arguments}))
            elif entry["class_name"] in _LAYERS:
                model.add(_LAYERS[entry["class_name"]].from_config(arguments))
            elif entry["class_name"] == "Sequential":
                model.add(Sequential.from_config(arguments))
            else:
                raise ValueError(f"layers must be InputLayer, {', '.join(_LAYERS)} or Sequential. Received: {entry['class_name']}")
        return model


def _kept(buffers: list[np.ndarray], which: int, shape: Shape, dtype: str) -> np.ndarray:
    """An array in one of two buffers, which grows where it is too small."""
    extents = [extent or 0 for extent in shape]
    size = math.prod(extents) * np.dtype(dtype).itemsize
    if buffers[which].size < size:
        buffers[which] = np.empty(size, np.uint8)
    return buffers[which][:size].view(dtype).reshape(extents)


def _table(rows: list[tuple[str, str, str]], width: int) -> list[str]:
    """Keras's box: bold header, a line between rows; columns widen to what they hold."""
    edges = [0, *(int(edge * width) for edge in SUMMARY_EDGES)]
    widths = [max(edges[i + 1] - edges[i] - SUMMARY_FRAME[i], *(len(row[i]) for row in rows)) for i in range(len(SUMMARY_EDGES))]

    def rule(left: str, middle: str, right: str, dash: str) -> str:
        return left + middle.join(dash * (column + 2) for column in widths) + right

    def cells(row: tuple[str, str, str], bar: str) -> str:
        return f"{bar} {row[0]:<{widths[0]}} {bar} {row[1]:<{widths[1]}} {bar} {row[2]:>{widths[2]}} {bar}"

    lines = [rule("┏", "┳", "┓", "━"), cells(rows[0], "┃"), rule("┡", "╇", "┩", "━")]
    for index, row in enumerate(rows[1:]):
        lines += [rule("├", "┼", "┤", "─")] * (index > 0) + [cells(row, "│")]
    return [*lines, rule("└", "┴", "┘", "─")]


def _readable(size: float) -> str:
    """Bytes as Keras writes them: ``40.00 B``, ``1.50 KB``."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"
