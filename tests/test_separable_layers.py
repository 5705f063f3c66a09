"""DepthwiseConv2D and SeparableConv2D against Keras 3: arguments, weights, error texts, and answers that are exact in float32."""

import inspect
import pickle

import numpy as np
import pytest

from fastconv.layers import DepthwiseConv2D, Input, SeparableConv2D, Sequential
from tests.test_layers import correlated, integers

REQUIRED = inspect.Parameter.empty
SHARED = {"strides": (1, 1), "padding": "valid", "data_format": None, "dilation_rate": (1, 1), "activation": None, "use_bias": True,
          "bias_initializer": "zeros", "bias_regularizer": None, "activity_regularizer": None, "bias_constraint": None,
          "depth_multiplier": 1, "depthwise_initializer": "glorot_uniform",
          "depthwise_regularizer": None, "depthwise_constraint": None}  # fmt: skip
# keras.layers' in Keras 3
ARGUMENTS = {
    DepthwiseConv2D: {"kernel_size": REQUIRED, **SHARED},
    SeparableConv2D: {
        "filters": REQUIRED, "kernel_size": REQUIRED, **SHARED, "pointwise_initializer": "glorot_uniform",
        "pointwise_regularizer": None, "pointwise_constraint": None,
    },
}  # fmt: skip
POSITIONAL = {
    DepthwiseConv2D: "kernel_size strides padding depth_multiplier data_format dilation_rate activation use_bias",
    SeparableConv2D: "filters kernel_size strides padding data_format dilation_rate depth_multiplier activation use_bias",
}
LAYERS = (DepthwiseConv2D(3, name="d"), SeparableConv2D(5, 3, name="s"))


def between(x, kernel, bias, strides, dilation, padding):
    """The depthwise convolution of (n, h, w, c) by SciPy."""
    kh, kw, channels, multiplier = kernel.shape
    return correlated(x, kernel.reshape(kh, kw, 1, channels * multiplier), bias, strides, dilation, channels, padding)


@pytest.mark.parametrize("layer", ARGUMENTS)
def test_signatures_are_keras(layer):
    found = {name: p.default for name, p in inspect.signature(layer).parameters.items() if name != "kwargs"}
    assert found == ARGUMENTS[layer]
    assert list(found)[: len(POSITIONAL[layer].split())] == POSITIONAL[layer].split()


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(("strides", "dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 3))])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_answers(data_format, padding, strides, dilation, multiplier):
    x = integers(2, 9, 10, 4)
    kernel, bias = integers(3, 2, 4, multiplier, seed=1), integers(4 * multiplier, seed=2)
    pointwise, last = integers(1, 1, 4 * multiplier, 5, seed=3), integers(5, seed=4)
    src = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    depthwise = between(x, kernel, bias, strides, dilation, padding)
    separable = correlated(between(x, kernel, 0 * bias, strides, dilation, padding), pointwise, last, (1, 1), (1, 1), 1, "valid")
    common = {"strides": strides, "padding": padding, "data_format": data_format, "dilation_rate": dilation}
    common["depth_multiplier"] = multiplier
    for layer, weights, expected in (
        (DepthwiseConv2D((3, 2), **common), [kernel, bias], depthwise),
        (SeparableConv2D(5, (3, 2), **common), [kernel, pointwise, last], separable),
    ):
        layer.build(src.shape)
        layer.set_weights(weights)
        result = layer(src)
        assert result.shape == layer.compute_output_shape(src.shape)
        np.testing.assert_array_equal(result if data_format == "channels_last" else result.transpose(0, 2, 3, 1), expected)


def test_weights_and_their_names():
    depthwise, separable = DepthwiseConv2D(3, depth_multiplier=2), SeparableConv2D(5, 3, depth_multiplier=2)
    for layer in (depthwise, separable):
        with pytest.raises(AttributeError, match="You must build the layer"):
            layer.bias  # noqa: B018
        layer.build((None, 8, 8, 4))
    assert [(weight.name, weight.shape) for weight in depthwise.weights] == [("kernel", (3, 3, 4, 2)), ("bias", (8,))]
    assert [(weight.name, weight.shape) for weight in separable.weights] == [
        ("depthwise_kernel", (3, 3, 4, 2)), ("pointwise_kernel", (1, 1, 8, 5)), ("bias", (5,))]  # fmt: skip
    assert separable.depthwise_kernel is separable.weights[0]
    assert separable.pointwise_kernel is separable.weights[1]
    assert separable.bias is separable.weights[2]
    with pytest.raises(AttributeError, match="no attribute 'kernel'"):
        separable.kernel  # noqa: B018
    assert DepthwiseConv2D(3).compute_output_shape((None, 8, None, None)) == (None, 6, None, None)


def test_activation_and_no_bias():
    x = integers(1, 6, 6, 3)
    plain, active = SeparableConv2D(4, 3, use_bias=False), SeparableConv2D(4, 3, use_bias=False, activation="relu")
    for layer in (plain, active):
        layer.build(x.shape)
        layer.set_weights([integers(3, 3, 3, 1, seed=5), integers(1, 1, 3, 4, seed=6)])
    assert plain.bias is None
    np.testing.assert_array_equal(active(x), np.maximum(plain(x), 0))
    doubled = DepthwiseConv2D(1, activation=lambda y: 2 * y, depthwise_initializer="ones")
    np.testing.assert_array_equal(doubled(x), 2 * x)


def test_models_are_made_again_from_their_configuration():
    model = Sequential([Input((8, 8, 4)), DepthwiseConv2D(3, name="d"), SeparableConv2D(5, 3, activation="relu", name="s")], name="m")
    other = Sequential.from_config(model.get_config())
    other.set_weights(model.get_weights())
    x = integers(2, 8, 8, 4)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))
    for layer in LAYERS:
        config = layer.get_config()
        assert set(config) - {"name", "trainable", "dtype"} == set(ARGUMENTS[type(layer)])
        assert type(layer).from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: DepthwiseConv2D(3, depth_multiplier=0),
         "Invalid value for argument `depth_multiplier`. Expected a strictly positive value. Received depth_multiplier=0."),
        (lambda: SeparableConv2D(2, 3, depth_multiplier=-1), "Received depth_multiplier=-1."),
        (lambda: SeparableConv2D(0, 3), "Invalid value for argument `filters`. Expected a strictly positive value. Received filters=0."),
        (lambda: DepthwiseConv2D(3, strides=2, dilation_rate=2), "`strides > 1` not supported in conjunction with `dilation_rate > 1`"),
        (lambda: DepthwiseConv2D(3, groups=2), "Unrecognized keyword arguments passed to DepthwiseConv2D: {'groups': 2}"),
        (lambda: SeparableConv2D(2, 3, kernel_initializer="ones"), "Unrecognized keyword arguments passed to SeparableConv2D"),
        (lambda: DepthwiseConv2D(9)(np.zeros((1, 4, 4, 2))), "kernel shape=(9, 9, 2, 2)"),
    ],
)  # fmt: skip
def test_errors_are_keras(make, text):
    with pytest.raises(ValueError) as caught:
        make()
    assert text in str(caught.value)


def test_other_channels_are_refused():
    layer = DepthwiseConv2D(3, name="lay")
    layer.build((None, 8, 8, 4))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 4"):
        layer(np.zeros((1, 8, 8, 5)))
