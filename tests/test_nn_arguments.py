"""What fastconv.nn refuses and how it says so; ``out``; memory of every kind; plans."""

import concurrent.futures
import pickle

import numpy as np
import pytest

import fastconv
from fastconv.planning.planner import MOST_PLANS
from tests.oracles import assert_same_bits
from tests.problems import random_array
from tests.test_signal_arguments import MEMORY

X, W = np.ones((2, 6, 9, 14), "f4"), np.ones((8, 6, 3, 3), "f4")

BAD = [
    # argument, its value, exception
    ("input", np.ones(5), ValueError), ("input", np.ones((1, 1, 1, 3, 3)), ValueError), ("input", "image", TypeError),
    ("input", np.zeros((2, 6, 9, 14), object), TypeError), ("input", np.zeros((2, 6, 9, 14), "M8[s]"), TypeError),
    ("input", np.ones((2, 6, 0, 14), "f4"), ValueError), ("input", np.ones((2, 5, 9, 14), "f4"), ValueError),
    ("input", None, TypeError), ("weight", np.ones((8, 6, 3), "f4"), ValueError),
    ("weight", np.ones((8, 6, 0, 3), "f4"), ValueError),
    ("weight", np.ones((8, 3, 3, 3), "f4"), ValueError), ("weight", {"a": 1}, TypeError),
    ("bias", np.ones(7, "f4"), ValueError), ("bias", np.ones((8, 1), "f4"), ValueError), ("bias", 1.0, ValueError),
    ("bias", "x", TypeError), ("stride", 0, ValueError), ("stride", -1, ValueError), ("stride", 1.5, TypeError),
    ("stride", (1, 2, 3), TypeError), ("stride", "1", TypeError), ("stride", None, TypeError), ("stride", True, TypeError),
    ("dilation", 0, ValueError), ("dilation", (1, "2"), TypeError), ("padding", -1, ValueError), ("padding", (1, -1), ValueError),
    ("padding", ((1, 2), (3, -4)), ValueError), ("padding", "mirror", ValueError), ("padding", (1, 2, 3, 4), TypeError),
    ("padding", 0.5, TypeError), ("padding", None, TypeError), ("groups", 0, ValueError), ("groups", 1.0, ValueError),
    ("groups", True, ValueError), ("groups", "2", ValueError), ("padding_mode", "constant", ValueError),
    ("padding_mode", None, ValueError), ("data_format", "CHWN", ValueError), ("data_format", 1, ValueError),
    ("activation", "swish", ValueError), ("activation", ("relu", 1), ValueError), ("activation", "leaky_relu", ValueError),
    ("activation", ("leaky_relu", "0.1"), ValueError), ("activation", 3, ValueError), ("epilogue", "relu", TypeError),
    ("out", [1], TypeError), ("dtype", "O", TypeError), ("dtype", "U5", TypeError), ("precision", "exact", ValueError),
    ("threads", 0, ValueError), ("threads", 1.5, TypeError), ("threads", "all", TypeError), ("device", "cuda:0", ValueError),
    ("algorithm", "magic", ValueError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error"), BAD, ids=lambda v: v if isinstance(v, str) else None)
def test_bad_arguments_raise_naming_the_argument(name, value, error):
    out = np.full((2, 8, 7, 12), 7, "f4")
    arguments = {"input": X, "weight": W, "out": out} | {name: value}
    with pytest.raises(error) as caught:
        fastconv.conv2d(**arguments)
    text = str(caught.value)
    shown = {"groups": "groups", "input": "input|weight", "weight": "weight", "padding": "padding"}.get(name, name)
    assert any(word in text for word in shown.split("|")), text
    assert np.all(out == 7)


def test_a_kernel_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="kernel must fit into the padded image"):
        fastconv.conv2d(X, np.ones((8, 6, 10, 3), "f4"))


def test_groups_must_divide_the_filters():
    with pytest.raises(ValueError, match="weight"):
        fastconv.conv2d(X, np.ones((8, 2, 3, 3), "f4"), groups=3)


def test_empty_batch():
    x = np.ones((0, 6, 9, 14), "f4")
    assert fastconv.conv2d(x, W).shape == (0, 8, 7, 12)
    out = np.empty((0, 8, 7, 12), "f4")
    assert fastconv.conv2d(x, W, out=out) is out


def test_arrays_of_other_libraries_are_read():
    torch = pytest.importorskip("torch", reason="torch is not installed: its tensors are not read")
    expected = fastconv.conv2d(X, W)
    assert_same_bits(np.asarray(fastconv.conv2d(torch.from_numpy(X), torch.from_numpy(W))), expected)
    assert_same_bits(fastconv.conv2d(X.tolist(), W.astype("f8").tolist(), dtype="f4"), expected)


@pytest.mark.parametrize("kind", MEMORY)
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_memory_of_every_kind_is_read_alike(kind, data_format):
    rng = np.random.default_rng(4)
    planes = [random_array(rng, (17, 23), "f4") for _ in range(8)]
    shown = [MEMORY[kind](plane) for plane in planes]
    x, w = shown[0], shown[1][:3, :4]
    expected = fastconv.conv2d(np.ascontiguousarray(x, "f4"), np.ascontiguousarray(w, "f4"), data_format=data_format)
    assert_same_bits(fastconv.conv2d(x, w, data_format=data_format), expected)

    batch = MEMORY[kind](np.stack(planes).reshape(8 * 17, 23)).reshape(2, 4, 17, 23)
    weight = rng.standard_normal((5, 4, 3, 3)).astype("f4")
    if data_format == "NHWC":
        batch, weight = batch.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0)
    expected = fastconv.conv2d(np.ascontiguousarray(batch, "f4"), weight, data_format=data_format, padding=1)
    assert_same_bits(fastconv.conv2d(batch, weight, data_format=data_format, padding=1), expected)


class TestOut:
    def test_is_returned(self):
        for data_format in ("NCHW", "NHWC"):
            x, w = (X, W) if data_format == "NCHW" else (X.transpose(0, 2, 3, 1), W.transpose(2, 3, 1, 0))
            expected = fastconv.conv2d(x, w, data_format=data_format)
            out = np.empty_like(expected)
            assert fastconv.conv2d(x, w, data_format=data_format, out=out) is out
            assert_same_bits(out, expected)

    def test_may_have_any_positive_strides(self):
        rng = np.random.default_rng(6)
        x, w = random_array(rng, X.shape, "f4"), random_array(rng, W.shape, "f4")
        expected = fastconv.conv2d(x, w)
        for memory, out in (
            (m := np.full((2, 8, 7, 36), 7, "f4"), m[..., ::3]),
            (m := np.full((4, 8, 14, 12), 7, "f4"), m[::2, :, ::2]),
            (m := np.full((2, 7, 12, 8), 7, "f4"), m.transpose(0, 3, 1, 2)),
            (m := np.full((12, 7, 8, 2), 7, "f4"), m.T),
            (m := np.full((2, 8, 9, 14), 7, "f4"), m[:, :, 1:-1, 1:-1]),
        ):
            assert fastconv.conv2d(x, w, out=out) is out
            assert_same_bits(out.copy(), expected)
            assert np.count_nonzero(memory == 7) == memory.size - out.size

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_may_share_memory_with_any_input(self, which):
        rng = np.random.default_rng(8)
        x, w = rng.standard_normal((1, 3, 5, 5)), rng.standard_normal((3, 3, 5, 5))
        bias = rng.standard_normal(75)
        arguments = [x, w, bias[:3]]
        expected = fastconv.conv2d(*(a.copy() for a in arguments), padding="same")
        out = [x, w[:1], bias.reshape(1, 3, 5, 5)][which]
        assert fastconv.conv2d(*arguments, padding="same", out=out) is out
        assert_same_bits(out, expected)

    @pytest.mark.parametrize(
        "out",
        [
            np.full((2, 8, 7, 11), 7, "f4"), np.full((2, 8, 7, 12), 7, "f8"), np.full((2, 8, 7, 12), 7, ">f4"),
            np.full((2, 8, 7, 12), 7, "f4")[..., ::-1], np.broadcast_to(np.float32(7), (2, 8, 7, 12)),
        ],
    )  # fmt: skip
    def test_a_wrong_one_raises_and_is_untouched(self, out):
        with pytest.raises(ValueError, match="out must"):
            fastconv.conv2d(X, W, out=out)
        assert np.all(out == 7)


class TestPlan:
    def test_equals_the_call(self):
        rng = np.random.default_rng(9)
        x, w, b = rng.standard_normal((2, 4, 11, 19)), rng.standard_normal((6, 2, 3, 3)), rng.standard_normal(6)
        arguments = {"stride": 2, "padding": (1, 2), "groups": 2, "padding_mode": "reflect", "activation": "relu"}
        expected = fastconv.conv2d(x, w, b, **arguments)
        plan = fastconv.plan(x, w, b, **arguments)
        assert_same_bits(plan(x), expected)
        assert_same_bits(plan(np.asfortranarray(x)), expected)
        assert_same_bits(plan(x.tolist()), expected)
        by_shape = fastconv.plan(x.shape, w.shape, True, dtype="f8", **arguments)
        assert_same_bits(by_shape(x, w, b), expected)
        out = np.empty_like(expected)
        assert fastconv.plan(x, w, b, **arguments)(x, out=out) is out
        assert_same_bits(out, expected)

    def test_copies_its_weights(self):
        rng = np.random.default_rng(10)
        for shape in ((6, 3, 3, 3), (3, 3)):
            x, w = rng.standard_normal((3, 9, 19) if len(shape) == 4 else (9, 19)), rng.standard_normal(shape)
            bias = rng.standard_normal(shape[0] if len(shape) == 4 else 1)
            plan = fastconv.plan(x, w, bias)
            expected = plan(x)
            w[...], bias[...] = 0, 0
            assert_same_bits(plan(x), expected)

    def test_set_weight(self):
        rng = np.random.default_rng(11)
        x, w, b = rng.standard_normal((3, 9, 19)), rng.standard_normal((6, 3, 3, 3)), rng.standard_normal(6)
        plan = fastconv.plan(x, w, b)
        plan.set_weight(-w, 2 * b)
        assert_same_bits(plan(x), fastconv.conv2d(x, -w, 2 * b))
        for weight, bias in ((w[:5], b), (w.astype("f4"), b), (w, None), (w, b[:5])):
            with pytest.raises(ValueError, match=r"weight|bias"):
                plan.set_weight(weight, bias)
        assert_same_bits(plan(x), fastconv.conv2d(x, -w, 2 * b))

    def test_pickles(self):
        rng = np.random.default_rng(12)
        x, w, b = rng.standard_normal((3, 9, 19)), rng.standard_normal((6, 3, 3, 3)), rng.standard_normal(6)
        plan = fastconv.plan(x, w, b, activation="relu")
        expected = plan(x)
        again = pickle.loads(pickle.dumps(plan))
        assert_same_bits(again(x), expected)
        assert str(again) == str(plan)
        plan.set_weight(2 * w, b)
        assert_same_bits(pickle.loads(pickle.dumps(plan))(x), plan(x))
        by_shape = pickle.loads(pickle.dumps(fastconv.plan(x.shape, w.shape, dtype="f8")))
        assert_same_bits(by_shape(x, w), fastconv.conv2d(x, w))

    def test_refuses_other_shapes_types_and_weights(self):
        plan = fastconv.plan(X, W)
        for x in (X[:1], X.astype("f8"), X[..., :-1]):
            with pytest.raises(ValueError, match="input must have shape"):
                plan(x)
        with pytest.raises(ValueError, match="weight and bias"):
            plan(X, W)
        by_shape = fastconv.plan(X.shape, W.shape, True)
        with pytest.raises(ValueError, match="weight"):
            by_shape(X)
        with pytest.raises(ValueError, match="bias"):
            by_shape(X, W)
        with pytest.raises(ValueError, match="weight must have shape"):
            by_shape(X, W[:4], np.ones(4, "f4"))

    def test_bad_arguments_raise_when_planning(self):
        for name, value, error in BAD:
            if name in ("input", "weight", "bias", "out", "epilogue") or (name, value) == ("dtype", "O"):
                continue
            with pytest.raises(error):
                fastconv.plan(X, W, **{name: value})
        with pytest.raises(ValueError, match="effort"):
            fastconv.plan(X, W, effort="patient")

    def test_out_may_be_the_input(self):
        x, w = np.random.default_rng(13).standard_normal((9, 19)), np.ones((3, 3))
        plan = fastconv.plan(x, w, padding="same")
        expected = plan(x)
        assert plan(x, out=x) is x
        assert_same_bits(x, expected)

    def test_many_threads_share_one_plan(self):
        rng = np.random.default_rng(14)
        x, w = rng.standard_normal((6, 4, 60, 70)).astype("f4"), rng.standard_normal((8, 4, 5, 5)).astype("f4")
        plan = fastconv.plan(x[:1].shape, w, padding="same", threads=2)
        expected = [plan(x[n : n + 1]) for n in range(len(x))]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [(n, pool.submit(plan, x[n : n + 1])) for _ in range(10) for n in range(len(x))]
            for n, job in jobs:
                assert_same_bits(job.result(), expected[n])

    def test_prints_its_decisions(self):
        plan = fastconv.plan(X, W, threads=1)
        assert plan.algorithm in str(plan)
        assert str(plan.problem) in str(plan)
        assert "threads=1" in str(plan)
        assert str(plan) in fastconv.explain(X, W, threads=1)

    def test_measured_effort_gives_a_right_answer(self):
        x, w = np.ones((9, 40), "f4"), np.ones((3, 3), "f4")
        assert np.all(fastconv.plan(x, w, effort="measure")(x) == 9)


def test_more_calls_than_are_remembered():
    x = np.ones((4, MOST_PLANS + 44), "f4")
    for round_trip in range(2):
        for width in range(40, x.shape[1], 1 + 40 * round_trip):
            assert np.all(fastconv.conv2d(x[:, :width], np.ones((3, 3), "f4"), algorithm="reference") == 9)


def test_a_list_as_argument_is_not_a_key_but_works():
    assert_same_bits(fastconv.conv2d(X, W, stride=[2, 1]), fastconv.conv2d(X, W, stride=(2, 1)))
    assert_same_bits(fastconv.conv2d(X, W, stride=np.int64(2)), fastconv.conv2d(X, W, stride=2))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("stride", 1, True), ("stride", 2, 2.0), ("stride", (1, 1), (1.0, 1)), ("padding", 1, 1.0), ("padding", 0, False),
     ("dilation", 1, 1.0), ("groups", 1, True), ("groups", 1, 1.0), ("threads", 1, True), ("threads", 1, 1.0)],
)  # fmt: skip
def test_a_wrong_argument_that_equals_a_right_one_is_still_wrong(name, good, bad):
    """1 == True == 1.0, also as a key of the remembered calls."""
    for function, x, w in ((fastconv.conv2d, X, W), (fastconv.correlate2d, X[0, 0], W[0, 0])):
        if function is fastconv.conv2d or name in ("stride", "dilation", "threads"):
            function(x, w, **{name: good})
            with pytest.raises((TypeError, ValueError), match=name):
                function(x, w, **{name: bad})


def test_equal_arguments_of_other_types_are_the_same_call():
    x = np.linspace(0, 1, 54, dtype="f4").reshape(6, 9)
    expected = fastconv.conv2d(x, x[:3, :3], stride=2, padding=1, activation=("leaky_relu", 1.0))
    for number in (np.int64(2), np.uint8(2)):
        assert_same_bits(fastconv.conv2d(x, x[:3, :3], stride=number, padding=np.int8(1), activation=("leaky_relu", 1)), expected)
    for dtype in ("f8", np.float64, np.dtype("f8"), float):
        assert fastconv.conv2d(x, x[:3, :3], dtype=dtype).dtype == np.float64


def test_every_function_documents_what_it_raises():
    functions = [getattr(fastconv, name) for name in fastconv.__all__ if name != "info"]
    for function in (*functions, fastconv.nn.conv2d_input, fastconv.nn.conv2d_weight):
        assert "    Raises\n    ------\n" in function.__doc__, function.__name__


def test_namespace():
    assert fastconv.conv2d is fastconv.nn.conv2d
    assert fastconv.conv_transpose2d is fastconv.nn.conv_transpose2d
    names = "conv2d conv_transpose2d convolve2d correlate2d explain info patch plan threads warmup"
    assert sorted(fastconv.__all__) == names.split()
    with pytest.raises(AttributeError, match="no attribute 'conv3d'"):
        _ = fastconv.conv3d
    assert set(fastconv.__all__) <= set(dir(fastconv))
