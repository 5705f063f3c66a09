"""Keras 3's convolution layers and `Sequential`: names, arguments, defaults, weight shapes and error texts, on NumPy arrays.

A layer creates its weights, keeps a `fastconv.plan` per input shape and calls it; there is no training.  Results are
NumPy arrays.  Error texts and the rules of building are those of Keras 3.15 (`keras/src/layers/layer.py`,
`layers/convolutional/base_conv.py`, `models/sequential.py`, `ops/operation_utils.py`); where Keras lets a bad argument
fail later, or as an AttributeError, its text is raised at once as a ValueError.

Examples
--------
>>> import numpy as np
>>> from fastconv.layers import Conv2D, Input, Sequential
>>> model = Sequential([Input(shape=(512, 512, 1)), Conv2D(1, (3, 3), strides=(2, 1))])
>>> model.output_shape
(None, 255, 510, 1)
>>> model.set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
>>> result = model.predict(np.ones((1, 512, 512, 1)))
>>> result.shape, result.dtype.name, float(result[0, 0, 0, 0])
((1, 255, 510, 1), 'float32', 9.0)
"""

from .convolution import Conv2D
from .initializers import set_random_seed
from .layer import Layer, Variable
from .separable import DepthwiseConv2D, SeparableConv2D
from .sequential import Input, InputLayer, Sequential
from .transposed import Conv2DTranspose

__all__ = [
    "Conv2D",
    "Conv2DTranspose",
    "DepthwiseConv2D",
    "Input",
    "InputLayer",
    "Layer",
    "SeparableConv2D",
    "Sequential",
    "Variable",
    "set_random_seed",
]
