"""layers.Conv2DTranspose against Keras 3's rules, and against a sum over pixels that is exact in float32."""

import concurrent.futures
import inspect
import pickle
import tracemalloc

import numpy as np
import pytest

from fastconv.layers import Conv2D, Conv2DTranspose, Input, Sequential

# keras.layers.Conv2DTranspose's
ARGUMENTS = {
    "filters": inspect.Parameter.empty, "kernel_size": inspect.Parameter.empty, "strides": (1, 1), "padding": "valid",
    "output_padding": None, "data_format": None, "dilation_rate": (1, 1), "activation": None, "use_bias": True,
    "kernel_initializer": "glorot_uniform", "bias_initializer": "zeros", "kernel_regularizer": None, "bias_regularizer": None,
    "activity_regularizer": None, "kernel_constraint": None, "bias_constraint": None,
}  # fmt: skip


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def spread(x, kernel, strides, dilation):
    """Every pixel times the kernel, laid down a stride apart: the whole result, (n, h, w, oc)."""
    n, h, w, _ = x.shape
    kh, kw, oc, _ = kernel.shape
    whole = np.zeros((n, (h - 1) * strides[0] + (kh - 1) * dilation[0] + 1, (w - 1) * strides[1] + (kw - 1) * dilation[1] + 1, oc))
    for y, column, ky, kx in np.ndindex(h, w, kh, kw):
        whole[:, y * strides[0] + ky * dilation[0], column * strides[1] + kx * dilation[1]] += x[:, y, column] @ kernel[ky, kx].T
    return whole


def jax_window(n, k, s, d, padding, extra):
    """Keras's rule in JAX's words: the input spread to every stride, padded (low, high), correlated; (first result, how many)."""
    k = (k - 1) * d + 1
    if padding == "valid":
        low, high = k - 1, k - 1 + (max(k, s) - k if extra is None else extra)
    else:
        total = s + k - 2 if extra is None else k + k % 2 - 2 + extra
        low = min(total // 2 + total % 2, k - 1)
        high = total - low
    return k - 1 - low, (n - 1) * s + 1 + low + high - (k - 1)


@pytest.mark.parametrize("output_padding", [None, 0, (1, 0), (1, 2)])
@pytest.mark.parametrize(("strides", "dilation"), [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((3, 4), (1, 1)), ((1, 1), (2, 3))])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel_size", [(3, 2), (2, 5), (1, 1)])
def test_answers(kernel_size, padding, strides, dilation, output_padding):
    pair = output_padding if isinstance(output_padding, tuple) else (output_padding,) * 2
    if output_padding and any(p >= s for p, s in zip(pair, strides, strict=True)):
        with pytest.raises(ValueError, match=r"`output_padding` must be < `strides`\. output_padding=\(1, "):
            Conv2DTranspose(1, 3, strides, output_padding=output_padding)
        return
    x, kernel, bias = integers(2, 4, 5, 3), integers(*kernel_size, 2, 3, seed=1), integers(2, seed=2)
    windows = [jax_window(*axis, padding, extra) for axis, extra in
               zip(zip((4, 5), kernel_size, strides, dilation, strict=True), pair, strict=True)]  # fmt: skip
    whole = np.pad(spread(x, kernel, strides, dilation), ((0, 0), (0, 9), (0, 9), (0, 0)))
    expected = whole[(slice(None), *(slice(first, first + many) for first, many in windows))] + bias
    for data_format in ("channels_last", "channels_first"):
        layer = Conv2DTranspose(2, kernel_size, strides, padding, output_padding, data_format, dilation)
        src = x if data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        layer.build(src.shape)
        layer.set_weights([kernel, bias])
        result = layer(src)
        assert result.shape == layer.compute_output_shape(src.shape)
        np.testing.assert_array_equal(result if data_format == "channels_last" else result.transpose(0, 2, 3, 1), expected)


def test_signature_is_keras():
    found = {name: p.default for name, p in inspect.signature(Conv2DTranspose).parameters.items() if name != "kwargs"}
    assert found == ARGUMENTS
    assert list(found) == list(ARGUMENTS)


def test_activations_types_and_copies():
    x = integers(1, 3, 4, 2)
    layer = Conv2DTranspose(3, 2, 2, activation="relu", name="up")
    result = layer(x)
    assert result.dtype == np.float32
    assert (result >= 0).all()
    layer.activation = np.abs
    assert (layer(x) >= result).all()
    for other in (pickle.loads(pickle.dumps(layer)), Conv2DTranspose.from_config(layer.get_config())):
        other.activation = "relu"
        if not other.built:
            other.build(x.shape)
            other.set_weights(layer.get_weights())
        np.testing.assert_array_equal(other(x), result)
    assert [weight.shape for weight in layer.weights] == [(2, 2, 3, 2), (3,)]
    layer.set_weights([weight * 0 for weight in layer.get_weights()])
    assert not layer(x).any()
    assert Conv2DTranspose(1, 2, dtype="float64", strides=2)(x[:0]).shape == (0, 6, 8, 1)


def test_in_a_model():
    model = Sequential([Input((8, 8, 1)), Conv2D(4, 3, 2, "same", activation="relu"), Conv2DTranspose(1, 3, 2, "same", output_padding=1)])
    assert model.output_shape == (None, 8, 8, 1)
    again = Sequential.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    x = integers(3, 8, 8, 1)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize("dtype", ["f4", "u1"])
def test_a_model_keeps_its_buffers(dtype):
    """Nothing but the result is allocated after the first call; results stay as they are; models copy without buffers."""
    layers = [Conv2D(8, 3, padding="same", activation="relu"), Sequential([Conv2D(8, 3, padding="same"), Conv2D(4, 3, 2, "same")]),
              Conv2DTranspose(1, 2, 2)]  # fmt: skip
    model = Sequential([Input((96, 128, 1)), *layers])
    x = np.random.default_rng(3).integers(0, 9, (5, 96, 128, 1)).astype(dtype)
    expected = x
    for layer in model._flat():
        expected = layer(expected)
    first = model.predict(x, batch_size=2)
    np.testing.assert_array_equal(first, expected)
    tracemalloc.start()
    try:
        second = model.predict(x, batch_size=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    between = 2 * 96 * 128 * 8 * 4  # bytes of a batch between two layers
    assert peak < second.nbytes + 2 * second.nbytes // 5 + between // 4
    np.testing.assert_array_equal(second, expected)
    other = model.predict(x[::-1], batch_size=2)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(other, expected[::-1])
    assert len(pickle.dumps(model)) < between // 4
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result in pool.map(model.predict, [x, x[::-1]] * 6):
            assert np.array_equal(result, expected) or np.array_equal(result, expected[::-1])


def test_a_models_callable_activation_may_keep_what_it_is_given():
    kept = []
    model = Sequential([Conv2D(2, 3, activation=lambda values: kept.append(values) or values), Conv2D(1, 3)])
    x = integers(1, 8, 8, 1)
    model(x)
    before = kept[0].copy()
    model(x + 1)
    np.testing.assert_array_equal(kept[0], before)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"filters": 0}, "Invalid value for argument `filters`. Expected a strictly positive value. Received filters=0."),
        ({"output_padding": (1, 1, 1)}, "The `output_padding` argument must be a tuple of 2 integers. Received output_padding="),
        ({"output_padding": -1}, "that do not satisfy `value >= 0`"),
        ({"output_padding": 1.5}, "The `output_padding` argument must be a tuple of 2 integers"),
        ({"output_padding": ("1", 0)}, "including element 1 of type <class 'str'>"),
        ({"strides": 2, "dilation_rate": 2}, "`strides > 1` not supported in conjunction with `dilation_rate > 1`"),
        ({"padding": "full"}, "The `padding` argument must be a list/tuple or one of"),
        ({"groups": 2}, "Unrecognized keyword arguments passed to Conv2DTranspose: {'groups': 2}"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError) as caught:
        Conv2DTranspose(**({"filters": 1, "kernel_size": 3} | arguments))
    assert text in str(caught.value)


def test_wrong_inputs():
    layer = Conv2DTranspose(1, 3, name="up")
    layer.build((None, 5, 5, 2))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 2, but received input with shape"):
        layer(np.ones((1, 5, 5, 3)))
    with pytest.raises(ValueError, match="Kernel shape must have the same length as input"):
        layer.compute_output_shape((1, 5, 5))
