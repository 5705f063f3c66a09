"""Strides, paddings, dilations and groups too large for any array: one exception that names the caller's argument and its value."""

import numpy as np
import pytest
from click.testing import CliRunner

import fastconv
from fastconv.layers import Conv2D
from fastconv.nn import conv2d_input, conv2d_weight
from fastconv.planning.problem import LIMIT, Problem

BEYOND = (LIMIT, 10**25)
X, W, Y = np.ones((1, 4, 8, 8), "f4"), np.ones((4, 4, 3, 3), "f4"), np.ones((1, 4, 6, 6), "f4")
PLANE, KERNEL = X[0, 0], W[0, 0]
CALLS = {
    "conv2d": lambda **huge: fastconv.conv2d(X, W, **huge),
    "plane": lambda **huge: fastconv.conv2d(PLANE, KERNEL, **huge),
    "plan": lambda **huge: fastconv.plan(X.shape, W.shape, **huge),
    "explain": lambda **huge: fastconv.explain(X.shape, W.shape, **huge),
    "conv_transpose2d": lambda **huge: fastconv.conv_transpose2d(X, W, **huge),
    "conv2d_input": lambda **huge: conv2d_input(X.shape, W, Y, **huge),
    "conv2d_weight": lambda **huge: conv2d_weight(X, W.shape, Y, **huge),
    "correlate2d": lambda **huge: fastconv.correlate2d(PLANE, KERNEL, **huge),
    "convolve2d": lambda **huge: fastconv.convolve2d(PLANE, KERNEL, "same", "wrap", **huge),
    "Conv2D": lambda **huge: Conv2D(4, 3, padding="same", **huge)(X),
}
WORDS = {"Conv2D": {"stride": "strides", "dilation": "dilation_rate", "padding": None},
         "correlate2d": {"padding": None, "groups": None}, "convolve2d": {"padding": None, "groups": None}}  # fmt: skip


@pytest.mark.parametrize("value", BEYOND)
@pytest.mark.parametrize("argument", ["stride", "padding", "dilation", "groups"])
@pytest.mark.parametrize("call", CALLS)
def test_beyond_every_array(call, argument, value):
    word = WORDS.get(call, {}).get(argument, argument)
    if word is None:
        return
    for given in (value,) if argument == "groups" else (value, (1, value)):
        with pytest.raises(ValueError, match=rf"{word}\b.*{value}"):
            CALLS[call](**{word: given})


@pytest.mark.parametrize("mode", ["same", "same_lower", "full"])
def test_paddings_that_follow_from_a_dilation(mode):
    for dilation in (LIMIT // 2, LIMIT - 1, (1, LIMIT // 2)):
        with pytest.raises(ValueError, match=f"dilation.*{np.max(dilation)}"):
            fastconv.conv2d(PLANE, KERNEL, padding=mode, dilation=dilation)
    with pytest.raises(ValueError, match=f"dilation.*{LIMIT // 2}"):
        fastconv.correlate2d(PLANE, KERNEL, mode.removesuffix("_lower"), dilation=LIMIT // 2)


def test_sizes_that_only_together_exceed_every_array():
    for argument, value in (("padding", 2**50), ("dilation", 2**50)):
        with pytest.raises(ValueError, match=f"must stay below.*{argument}.*{value}"):
            fastconv.conv2d(PLANE, KERNEL, **{"padding": "same", argument: value})
    with pytest.raises(ValueError, match=f"stride.*{2**61}"):
        fastconv.conv_transpose2d(X, W, stride=2**61)
    with pytest.raises(ValueError, match=f"must stay below.*stride.*{2**40}"):
        fastconv.conv_transpose2d(X, W, stride=2**40)
    with pytest.raises(ValueError, match="input_size must be four ints"):
        conv2d_input((1, 4, LIMIT, 8), W, Y)


def test_large_strides_are_no_error():
    assert fastconv.conv2d(PLANE, KERNEL, stride=LIMIT - 1).tolist() == [[9]]
    assert fastconv.correlate2d(PLANE, KERNEL, "valid", stride=LIMIT - 1).tolist() == [[9]]


@pytest.mark.parametrize(("field", "word"), [("sw", "stride"), ("dh", "dilation"), ("pl", "padding"), ("g", "groups")])
def test_a_problems_fields_are_explained(field, word):
    with pytest.raises(ValueError, match=rf"^{field} \({word}\) must be .* got {LIMIT}"):
        Problem(**{field: LIMIT})


def test_the_command(tmp_path):
    from fastconv.cli.commands import fastconv as command

    np.save(tmp_path / "in.npy", PLANE)
    for option in ("stride", "dilation", "padding"):
        arguments = ["filter", f"{tmp_path}/in.npy", "-o", f"{tmp_path}/out.npy", "-k", "box", f"--{option}", str(10**25)]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code in (1, 2)
        assert option in result.stderr
        assert str(10**25) in result.stderr
    result = CliRunner().invoke(command, ["explain", f"ih9_k3_s{10**25}"])
    assert result.exit_code == 2
    assert "stride" in result.stderr
