"""The gradients of depthwise layers, small groups and few channels: their own kernels, bit by bit, and weights that come with an image."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import depthwise, depthwise_image, depthwise_weights, shallow, weights_rows
from fastconv.cpu.target import detect
from fastconv.planning.planner import forget, plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run


def beside(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "text", ["n2_g24_ic24ih15iw17_oc24k3_s2_p1_nhwc", "n2_g20_ic20ih14iw9_oc20k3_s2_p1", "n2_g8_ic32ih13_oc32k3_s2_p1"]
)
def test_quads_have_the_same_bits(text):
    """On any number of threads, of planes and channels last, at odd and even starts, for any strides of the weights."""
    p = Problem.parse(text).replace(op="bwd_data")
    assert plan_problem(p).algorithm == "depthwise_image"
    src, wei, _ = operands(p)
    expected = run(p, src, wei)
    assert_within(expected, p, truth(p, src, wei))
    for threads in (2, 3, 7):
        assert_same_bits(run(p, src, wei, threads=threads), expected, f"{threads} threads")
    other = p.replace(src_layout="nchw" if p.src_layout == "nhwc" else "nhwc")
    assert_same_bits(run(other, src, wei), expected, "the other layout")
    assert_same_bits(run(other, beside(src), wei), expected, "the other layout, in place")
    assert_same_bits(run(p, src.astype(">f4"), wei), expected, "bytes swapped")
    given = plan_problem(p).given()
    for strided in (wei, np.asfortranarray(wei), wei[..., ::-1, ::-1].copy()[..., ::-1, ::-1]):
        assert given.pack(strided) is strided
        dst = result_array(p)
        given.run(src, strided, None, dst)
        assert_same_bits(dst, expected, f"strides {strided.strides}")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("text", ["n2_g20_ic20ih14iw9_oc20k3_s2_p1_bias+relu", "g24_ic24ih15iw17_oc24k3_s2_p1_nhwc_hwio"])
def test_weights_that_are_not_finite_meet_no_zeros_around_a_gradient(text, value):
    p = Problem.parse(text).replace(op="bwd_data")
    src, wei, bias = operands(p)
    wei[3, 0, 0, 1] = wei[7, 0, 2, 2] = value
    result = run(p, src, wei, bias)
    assert_within(result, p, truth(p, src, wei, bias))
    assert np.isfinite(np.delete(result, (3, 7), axis=1)).all()


@pytest.mark.parametrize(("module", "text"), [(depthwise_weights, "n3_g40_ic40ih15iw17_oc40k3_p1_nhwc"),
                                              (depthwise_weights, "n3_g152_ic152ih15iw17_oc152k3_s2_p1_nhwc"),
                                              (weights_rows, "n3_ic3ih33iw30_oc40k3_s2_p1_nhwc")])  # fmt: skip
def test_weights_of_channels_side_by_side_have_the_same_bits(module, text, monkeypatch):
    p = Problem.parse(text).replace(op="bwd_weight")
    name = module.__name__.rsplit(".", 1)[-1]
    assert plan_problem(p).algorithm == name
    src, wei, _ = operands(p)
    expected = run(p, src, wei)
    assert_within(expected, p, truth(p, src, wei))
    for threads in (2, 3, 7):
        assert_same_bits(run(p, beside(src), beside(wei), threads=threads), expected, f"{threads} threads")
    assert_same_bits(run(p, beside(src).astype(">f4"), beside(wei)), expected, "bytes swapped")
    monkeypatch.setattr(module.costs, "MOST_SECONDS", 2.5e-6)
    monkeypatch.setattr(module.costs, f"{name}_seconds", lambda *arguments: 1e-6)
    if module is weights_rows:
        monkeypatch.setattr(weights_rows, "_unit_seconds", lambda *arguments: 2e-6)
        monkeypatch.setattr(weights_rows, "_PANEL_BYTES", 1)
    for threads in (1, 2, 3):  # blocks of channels that overlap, too
        forget()
        assert_same_bits(run(p, beside(src), beside(wei), threads=threads), expected, f"some images at a time, {threads} threads")
    forget()


PACKED = ((shallow, "g8_ic32ih14_oc32k3_p1"), (shallow, "ic3ih56_oc32k7_s2_p3"), (depthwise, "g32_ic32ih28_oc32k3_p1_nhwc"),
          (depthwise, "g24_ic24ih14_oc24k3_s2_p1"))  # fmt: skip


@pytest.mark.parametrize(("algorithm", "text"), PACKED)
def test_weights_of_a_call_are_packed_where_they_are_used_to_the_same_bits(algorithm, text):
    """Of any strides, as those of a gradient are, which lie backwards."""
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    expected, dst = run(p, src, wei, algorithm=algorithm.__name__.rsplit(".", 1)[-1]), result_array(p)
    turned = np.ascontiguousarray(wei[..., ::-1, ::-1])[..., ::-1, ::-1]
    for strided in (wei, turned, np.ascontiguousarray(wei.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1), wei.astype(">f4")):
        for threads in (1, 2):
            plan = algorithm.build(p, detect(), plan_problem, threads).given()
            plan.run(src, plan.pack(strided), None, dst)
            assert_same_bits(dst, expected, f"strides {strided.strides}, {threads} threads")


def test_the_weights_gradient_of_channels_last_tensors_is_planned_as_such():
    torch = pytest.importorskip("torch")
    p = Problem.parse("g40_ic40ih15iw17_oc40k3_p1")
    rng = np.random.default_rng(2)
    image, grad = (torch.from_numpy(rng.standard_normal((1, 40, 15, 17)).astype("f4")) for _ in range(2))
    last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, grad)]
    found = fastconv.nn.conv2d_weight(last[0], (40, 1, 3, 3), last[1], 1, 1, 1, 40)
    of_nhwc = p.replace(op="bwd_weight", src_layout="nhwc")
    assert_same_bits(found.numpy(), run(of_nhwc, image.numpy(), grad.numpy(), algorithm="depthwise_weights"))
    planes = fastconv.nn.conv2d_weight(image, (40, 1, 3, 3), grad, 1, 1, 1, 40)
    np.testing.assert_allclose(planes.numpy(), found.numpy(), rtol=1e-4, atol=1e-3)


def test_what_quads_refuse():
    p, t = Problem.parse("g24_ic24ih15_oc24k3_s2_p1_bwd-data"), detect()
    for change, word in (({"sh": 1}, "stride"), ({"dw": 2}, "dilation"), ({"kw": 2}, "columns"), ({"border": "wrap"}, "border")):
        assert word in depthwise_image.reject(p.replace(**change), t)
