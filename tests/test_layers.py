"""fastconv.layers against Keras 3: shapes, weights, error texts, and answers that are exact in float32."""

import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

import fastconv
from fastconv.layers import Conv2D, Input, InputLayer, Sequential, initializers, set_random_seed

# keras.layers.Conv2D's, in Keras 3.15
ARGUMENTS = {
    "filters": inspect.Parameter.empty,
    "kernel_size": inspect.Parameter.empty,
    "strides": (1, 1),
    "padding": "valid",
    "data_format": None,
    "dilation_rate": (1, 1),
    "groups": 1,
    "activation": None,
    "use_bias": True,
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
}


def built(shape=(None, 5, 5, 2), **arguments):
    layer = Conv2D(**{"filters": 1, "kernel_size": 3, "name": "lay", **arguments})
    layer.build(shape)
    return layer


def model(*layers, shape=(6, 6, 1)):
    return Sequential([Input(shape), *(layers or [Conv2D(2, 3, name="c")])], name="m")


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def correlated(x, kernel, bias, strides, dilation, groups, padding):
    """The layer by SciPy, channel by channel; x (n, h, w, c), all values small integers: every sum is exact."""
    spread = np.zeros(tuple((k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)) + kernel.shape[2:])
    spread[:: dilation[0], :: dilation[1]] = kernel
    if padding == "same":
        before_after = []
        for n, k, s in zip(x.shape[1:3], spread.shape[:2], strides, strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            before_after.append((total // 2, total - total // 2))
        x = np.pad(x, ((0, 0), *before_after, (0, 0)))
    per_group, out_per_group = kernel.shape[2], kernel.shape[3] // groups
    planes = []
    for oc in range(kernel.shape[3]):
        channels = range(oc // out_per_group * per_group, (oc // out_per_group + 1) * per_group)
        planes.append([
            sum(signal.correlate2d(image[:, :, c], spread[:, :, i, oc], "valid") for i, c in enumerate(channels)) + bias[oc]
            for image in x.astype(np.float64)
        ])  # fmt: skip
    return np.moveaxis(np.array(planes), 0, -1)[:, :: strides[0], :: strides[1]]


def test_signature_is_keras():
    found = {name: p.default for name, p in inspect.signature(Conv2D).parameters.items() if name != "kwargs"}
    assert found == ARGUMENTS
    assert list(found) == list(ARGUMENTS)


def test_lesson():
    image = np.random.default_rng(0).integers(0, 256, (512, 512))
    x = image.reshape(1, 512, 512, 1)
    layer = Conv2D(filters=1, kernel_size=(3, 3), strides=(2, 1))
    assert layer(x).shape == (1, 255, 510, 1)
    assert [w.shape for w in layer.get_weights()] == [(3, 3, 1, 1), (1,)]
    assert layer.count_params() == 10
    layer.set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
    result = layer(x)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[0, :, :, 0], signal.correlate2d(image, np.ones((3, 3), int), "valid")[::2])
    same = Conv2D(1, 3, padding="same", kernel_initializer="ones")
    np.testing.assert_array_equal(same(x)[0, :, :, 0], signal.correlate2d(image, np.ones((3, 3), int), "same"))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("strides", "dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 3))])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_answers(data_format, padding, strides, dilation, groups, use_bias):
    x = integers(2, 9, 10, 4)
    kernel, bias = integers(3, 2, 4 // groups, 6, seed=1), integers(6, seed=2) * use_bias
    layer = Conv2D(6, (3, 2), strides, padding, data_format, dilation, groups, use_bias=use_bias)
    src = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    layer.build(src.shape)
    layer.set_weights([kernel, bias][: 1 + use_bias])
    result = layer(src)
    assert result.shape == layer.compute_output_shape(src.shape)
    if data_format == "channels_first":
        result = result.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(result, correlated(x, kernel, bias, strides, dilation, groups, padding))


def test_strided_same_pads_at_the_end():
    row = np.arange(6.0).reshape(1, 1, 6, 1)
    layer = Conv2D(1, (1, 3), strides=(1, 2), padding="same", kernel_initializer="ones")
    assert layer(row).ravel().tolist() == [3, 9, 9]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (None, [-8, 0, 8]),
        ("linear", [-8, 0, 8]),
        ("relu", [0, 0, 8]),
        ("relu6", [0, 0, 6]),
        ("leaky_relu", [np.float32(-8) * np.float32(0.2), 0, 8]),
        (np.abs, [8, 0, 8]),
        (lambda values: values[:, :, :2], [-8, 0]),
    ],
)
def test_activation(activation, expected):
    layer = Conv2D(1, 1, activation=activation, kernel_initializer="ones")
    assert layer(np.array([-8.0, 0, 8]).reshape(1, 1, 3, 1)).ravel().tolist() == expected


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "silu", "swish", "gelu"])
def test_smooth_activations_have_their_limits(activation):
    layer = Conv2D(1, 1, activation=activation, kernel_initializer="ones")
    low, high = layer(np.array([-200.0, 200]).reshape(1, 1, 2, 1)).ravel()
    assert (low, high) == {"sigmoid": (0, 1), "tanh": (-1, 1)}.get(activation, (0, 200))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float16", "float64", ">f4"])
def test_computes_in_float32(dtype):
    x = np.arange(2 * 5 * 5).reshape(2, 5, 5, 1).astype(dtype)
    result = Conv2D(1, 3, kernel_initializer="ones")(x)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, correlated(x, np.ones((3, 3, 1, 1)), [0], (1, 1), (1, 1), 1, "valid"))


def test_other_types_by_argument():
    layer = Conv2D(1, 3, dtype="float64", kernel_initializer="ones")
    assert layer(np.full((1, 3, 3, 1), 1 + 2.0**-40)).item() == 9 * (1 + 2.0**-40)
    assert layer.get_weights()[0].dtype == np.float64


def test_new_weights_are_used():
    x = np.ones((1, 3, 3, 1))
    layer = built((None, 3, 3, 1), kernel_initializer="ones")
    assert layer(x).item() == 9
    layer.set_weights([np.full((3, 3, 1, 1), 2), np.ones(1)])
    assert layer(x).item() == 19
    layer.kernel.assign(np.zeros((3, 3, 1, 1)))
    layer.bias.assign([5])
    assert layer(x).item() == 5


def test_weights_are_copies():
    given = np.ones((3, 3, 1, 1), np.float32)
    layer = built((None, 3, 3, 1), kernel_initializer=given)
    layer.set_weights([given, np.zeros(1)])
    given[:] = 7
    layer.get_weights()[0][:] = 7
    layer.kernel.numpy()[:] = 7
    with pytest.raises(ValueError, match="read-only"):
        layer.kernel.value[:] = 7
    assert layer(np.ones((1, 3, 3, 1))).item() == 9
    assert np.asarray(layer.kernel).sum() == layer.kernel[..., 0, 0].sum() == 9


def test_set_weights_changes_all_or_nothing():
    layer = built(kernel_initializer="ones")
    with pytest.raises(ValueError, match="not compatible"):
        layer.set_weights([np.zeros((3, 3, 2, 1)), np.zeros(2)])
    assert layer.get_weights()[0].all()


def test_images_of_several_sizes_and_threads():
    layer = built((None, None, None, 1), kernel_initializer="ones")
    for n in (*range(3, 3 + 2 * 8), 3):
        with fastconv.threads(1 + n % 2):
            assert layer(np.ones((1, n, 4, 1))).shape == (1, n - 2, 2, 1)


def test_empty_batch():
    assert built(padding="same")(np.ones((0, 5, 5, 2))).shape == (0, 5, 5, 1)
    assert model().predict(np.ones((0, 6, 6, 1))).shape == (0, 4, 4, 2)


def test_predict_in_batches():
    x = integers(70, 6, 6, 1)
    m = model(Conv2D(2, 3), Conv2D(1, 2, padding="same"))
    m.set_weights([integers(*w.shape, seed=i) for i, w in enumerate(m.get_weights())])
    whole = m(x)
    np.testing.assert_array_equal(m.predict(x), whole)
    np.testing.assert_array_equal(m.predict(x, batch_size=9, verbose=2), whole)
    np.testing.assert_array_equal(m.predict(x, batch_size=9, steps=2), whole[:18])
    np.testing.assert_array_equal(m.predict(x, 100, 0, None, None), whole)


def test_model_is_built_by_its_first_data():
    m = Sequential()
    m.add(Conv2D(1, 3, name="c"))
    assert (m.built, m.weights, m.get_weights()) == (False, [], [])
    m.predict(np.ones((3, 6, 6, 1)))
    assert (m.built, m.input_shape, m.output_shape, m.count_params()) == (True, (3, 6, 6, 1), (3, 4, 4, 1), 10)
    assert m.predict(np.ones((2, 9, 8, 1))).shape == (2, 7, 6, 1)
    assert repr(m.layers) == "[<Conv2D name=c, built=True>]"


def test_model_is_built_as_layers_are_added():
    m = model(shape=(None, None, 3))
    assert (m.input_shape, m.output_shape) == ((None, None, None, 3), (None, None, None, 2))
    m.add(Conv2D(4, 3, strides=2, padding="same", name="d"))
    assert m.output_shape == (None, None, None, 4)
    assert [w.shape for w in m.weights] == [(3, 3, 3, 2), (2,), (3, 3, 2, 4), (4,)]
    assert m.get_layer("d") is m.get_layer(index=1) is m.pop()
    assert m.output_shape == (None, None, None, 2)
    with pytest.raises(ValueError, match="would be zero or negative"):
        model(Conv2D(1, 9))


def test_models_nest():
    inner = model(Conv2D(2, 3, name="a"))
    outer = Sequential([Input((8, 8, 1)), Conv2D(1, 3, name="b"), inner])
    assert outer.output_shape == (None, 4, 4, 2)
    x = integers(2, 8, 8, 1)
    np.testing.assert_array_equal(outer.predict(x), inner(outer.get_layer("b")(x)))


def test_input_shape_argument_warns_and_builds():
    with pytest.warns(UserWarning, match="Do not pass an `input_shape`/`input_dim` argument to a layer"):
        layer = Conv2D(1, 3, strides=(2, 1), input_shape=(512, 512, 1))
    assert Sequential([layer]).output_shape == (None, 255, 510, 1)


def test_compile_keeps_its_arguments():
    m = model()
    assert not m.compiled
    m.compile(optimizer="adam", loss="mse", metrics=["mae"])
    assert (m.compiled, m.optimizer, m.loss, m.compile_config["metrics"]) == (True, "adam", "mse", ["mae"])


# Keras 3.15.1's own output at 80 columns
SUMMARY = """\
Model: "m"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ c (Conv2D)                      │ (None, 255, 510, 1)    │            10 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ d (Conv2D)                      │ (None, 255, 510, 64)   │         1,664 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 1,674 (6.54 KB)
 Trainable params: 10 (40.00 B)
 Non-trainable params: 1,664 (6.50 KB)
"""


def test_summary(capsys):
    first, second = Conv2D(1, 3, strides=(2, 1), name="c"), Conv2D(64, 5, padding="same", name="d", trainable=False)
    m = model(first, second, shape=(512, 512, 1))
    m.summary(line_length=76)
    assert capsys.readouterr().out == SUMMARY
    texts = []
    m.summary(print_fn=texts.append, line_length=76)
    assert texts == [SUMMARY]
    Sequential([Conv2D(1, 3)]).summary()
    assert "│ ?  " in (printed := capsys.readouterr().out)
    assert "0 (unbuilt)" in printed


def test_config_round_trip():
    layer = Conv2D(
        4, (3, 2), (2, 1), "same", "channels_first", (1, 1), 2, "relu", False, name="q", trainable=False, dtype="float64",
        kernel_initializer={"class_name": "HeNormal", "config": {"seed": 3}},
    )  # fmt: skip
    again = Conv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    for one in (layer, again):
        one.build((None, 4, 8, 8))
    np.testing.assert_array_equal(again.get_weights()[0], layer.get_weights()[0])
    m = model()
    assert Sequential.from_config(m.get_config()).get_config() == m.get_config()


def test_keras_config_is_read():
    """As keras 3.15.1's Conv2D(2, 3, activation="relu", name="k").get_config() gives it."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    glorot = {
        "module": "keras.initializers", "class_name": "GlorotUniform", "registered_name": None,
        "config": {"seed": None, "input_axes": None, "output_axes": None},
    }  # fmt: skip
    zeros = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
    config = {
        "name": "k", "trainable": True, "dtype": policy, "filters": 2, "kernel_size": (3, 3), "strides": (1, 1),
        "padding": "valid", "data_format": "channels_last", "dilation_rate": (1, 1), "groups": 1, "activation": "relu",
        "use_bias": True, "kernel_initializer": glorot, "bias_initializer": zeros, "kernel_regularizer": None,
        "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None, "bias_constraint": None,
    }  # fmt: skip
    layer = Conv2D.from_config(config)
    assert (layer.name, layer.filters, layer.activation, layer.dtype) == ("k", 2, "relu", "float32")
    assert layer.kernel_initializer.class_name == "GlorotUniform"


def test_pickle():
    m = model()
    x = integers(1, 6, 6, 1)
    before = m.predict(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(m)).predict(x), before)


@pytest.mark.parametrize("name", [*initializers.INITIALIZERS, *map(initializers.snake, initializers.INITIALIZERS)])
def test_initializers_by_name(name):
    set_random_seed(1)
    values = built((None, 9, 9, 4), filters=8, kernel_initializer=name).get_weights()[0]
    set_random_seed(1)
    np.testing.assert_array_equal(built((None, 9, 9, 4), filters=8, kernel_initializer=name).get_weights()[0], values)
    constant = {"zeros": 0, "ones": 1, "constant": 0}.get(initializers.snake(name))
    if constant is None:
        assert np.unique(values).size > values.size // 2
    else:
        assert (values == constant).all()


@pytest.mark.parametrize(("name", "variance"), [("glorot_uniform", 2 / (36 + 72)), ("he_uniform", 2 / 36), ("lecun_uniform", 1 / 36)])
def test_uniform_initializers_fill_their_interval(name, variance):
    """(3, 3, 4, 8): 36 inputs and 72 outputs.  Of 288 numbers, none is beyond the limit and one is near it."""
    values = np.abs(built((None, 9, 9, 4), filters=8, kernel_initializer=name).get_weights()[0])
    limit = np.float32(np.sqrt(3 * variance))
    assert limit * np.float32(0.9) < values.max() <= limit


def test_initializer_callables_and_arrays():
    calls = []

    def twos(shape, dtype=None):
        calls.append((shape, dtype))
        return np.full(shape, 2)

    layer = built(kernel_initializer=twos, bias_initializer=np.array([3.0]))
    assert calls == [((3, 3, 2, 1), "float32")]
    assert (layer.get_weights()[0] == 2).all()
    assert layer.bias.numpy() == 3
    with pytest.raises(ValueError, match=r"The `kernel` initializer must return shape \(3, 3, 2, 1\)"):
        built(kernel_initializer=lambda shape, dtype=None: np.zeros(3))


def test_names_count_up():
    first, second, sequence = Conv2D(1, 1), Conv2D(1, 1), Sequential()
    stem, _, number = first.name.rpartition("_")
    assert first.name == "conv2d" or (stem == "conv2d" and second.name == f"conv2d_{int(number) + 1}")
    assert sequence.name.startswith("sequential")


TEXTS = dict(re.findall(r"^(\w.*)\n    (.*)$", (Path(__file__).parent / "keras_texts.txt").read_text(), re.MULTILINE))


def test_all_keras_texts_are_read():
    assert len(TEXTS) == 48


@pytest.mark.parametrize("call", TEXTS)
def test_keras_error_text(call):
    with pytest.raises(ValueError) as caught:
        eval(call)
    assert str(caught.value) == TEXTS[call]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: built((None, 5, 5, None)), "channels must be known"),
        (lambda: Conv2D("a", 3), "Invalid value for argument `filters`"),
        (lambda: Conv2D(1, 3, padding=1), "The `padding` argument must be .* Received: 1"),
        (lambda: Conv2D(1, 3, padding=(1, 1)), r"`padding` must be either `'valid'` or `'same'`. Received \(1, 1\)."),
        (lambda: Conv2D(1, 3, dtype="bfloat16"), "`dtype` argument must be one of"),
        (lambda: Conv2D(1, 3, kernel_initializer={"class_name": "Ones", "config": {"scale": 1}}), "Ones takes no arguments"),
        (lambda: model().predict(np.ones((1, 6, 6, 1)), batch_size=0), "batch_size must be None or a positive int"),
        (lambda: model().predict(np.ones((1, 6, 6, 1)), callbacks=[print]), "callbacks must be None or empty"),
        (lambda: built()(np.ones((1, 5, 5, 2), complex)), "should be tensors"),
        (lambda: Sequential([Conv2D(1, 3), Input((5, 5, 1))]), "Input must be the first layer"),
        (lambda: Sequential().pop(), "has no layers"),
    ],
)
def test_errors_of_our_own(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_weights_do_not_exist_before_build(name):
    with pytest.raises(AttributeError, match=f"You must build the layer before accessing `{name}`"):
        getattr(Conv2D(1, 3), name)


@pytest.mark.parametrize("name", ["input_shape", "output_shape"])
def test_shapes_do_not_exist_before_build(name):
    with pytest.raises(AttributeError, match="has no defined"):
        getattr(Sequential(), name)


def test_input_is_inputlayer():
    assert Input is InputLayer
    assert Input((5, 5, 1), batch_size=2).shape == (2, 5, 5, 1)


def test_import_is_light():
    code = "import sys, fastconv.layers; sys.exit(bool({'numba', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
