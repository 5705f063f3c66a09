"""bfloat16: read and stored by kernels, summed in float32, rounded to nearest even; ml_dtypes' arrays and torch's tensors in place."""

import pickle

import numpy as np
import pytest

import fastconv
from fastconv import nn
from fastconv.cpu.target import detect
from fastconv.nn import Epilogue
from fastconv.planning.bfloat import BITS, narrowed, widened
from fastconv.planning.operands import random
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits
from tests.problems import ALGORITHMS

U = 2.0**-8  # half a unit in the last place, of bfloat16


def test_rounding_is_to_nearest_even_and_nan_stays_nan():
    words = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, np.uint64).astype("u4")
    words[:12] = (0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x3F808001, 0x00008000, 0x80000000, 0x7F800000,
                  0x00018000, 0xFF7F8000)  # fmt: skip
    values = words.view("f4")
    got = narrowed(values).view("u2")
    with np.errstate(all="ignore"):
        exact = widened(got.view(BITS)).astype("f8")
        low, high = ((words >> 16 << 16).view("f4").astype("f8"), ((words >> 16) + 1 << 16).view("f4").astype("f8"))
        below, above = np.abs(values - low), np.abs(high - values)
        expected = np.where(below == above, exact, np.where(below < above, low, high))
    plain = np.isfinite(values) & np.isfinite(high)
    assert (exact[plain] == expected[plain]).all()
    assert got[3:12].tolist() == [0x7F80, 0x3F80, 0x3F82, 0x3F81, 0, 0x8000, 0x7F80, 2, 0xFF80]
    assert (np.isnan(exact) == np.isnan(values)).all()


CASES = {
    "blocked": ("ic20ih9iw21_oc40k3_p1_{}_bias+relu", "n2_ic17ih20_oc33k3_s2_p1_{}_nhwc_hwio", "ic40ih7_oc48k1_{}"),
    "panel": ("ih40_k3_p1_{}", "ic3ih30_oc4k5_s2_p2_edge_{}_bias+leaky_relu:0.25"),
    "direct": ("ih70_k3_p1_{}", "ic3ih30_oc4k3_s3_reflect_{}_bias+relu6"),
    "depthwise": ("g20_ic20ih9_oc20k3_p1_{}_nhwc_hwio", "g24_ic24ih14_oc24k3_s2_p1_{}_bias"),
    "activated": ("ic8ih12_oc16k3_{}_bias+tanh",),
}
SLOW = {("blocked", 2), ("direct", 1), ("depthwise", 1), ("panel", 1)}


@pytest.mark.parametrize(("name", "text"), [
    pytest.param(name, text, marks=[pytest.mark.slow] * ((name, n) in SLOW))
    for name, texts in CASES.items() for n, text in enumerate(texts)
])  # fmt: skip
@pytest.mark.parametrize("types", ["bf16:f32:bf16:f32", "bf16:f32:f32:f32"])
def test_every_algorithm_that_takes_it(name, text, types, exercised):
    """Whole numbers whose sums are exact, so that results are rounded once; a NaN and an infinite pixel."""
    p = Problem.parse(text.format(types))
    rng = np.random.default_rng(1)
    order = (0, 2, 3, 1) if p.src_layout == "nhwc" else (0, 1, 2, 3)
    back = np.argsort(order)
    x = rng.integers(-9, 10, [(p.n, p.ic, p.ih, p.iw)[axis] for axis in order]).astype("f4")
    x.flat[5], x.flat[-2] = np.nan, np.inf
    x = narrowed(x).transpose(back)
    w = rng.integers(-9, 10, (p.oc, p.ic // p.g, p.kh, p.kw)).astype("f4")
    bias = rng.integers(-9, 10, p.oc).astype("f4") if "bias" in p.epilogue else None
    results = []
    for algorithm in ("reference", name):
        plan = plan_problem(p, algorithm=algorithm, threads=2)
        dst = np.empty([(p.n, p.oc, p.oh, p.ow)[axis] for axis in order], BITS if p.dst == "bf16" else "f4").transpose(back)
        plan.run(x, plan.pack(w), bias, dst)
        results.append(widened(dst))
    wide = p.replace(src="f32", dst="f32")
    sums = np.empty((p.n, p.oc, p.oh, p.ow), "f4")
    plan = plan_problem(wide, algorithm="reference")
    plan.run(widened(x), plan.pack(w), bias, sums)
    expected = widened(narrowed(sums)) if p.dst == "bf16" else sums
    np.testing.assert_array_equal(results[0], expected)
    if "tanh" in p.epilogue:
        np.testing.assert_allclose(results[1], expected, rtol=2 * U)
    else:
        np.testing.assert_array_equal(results[1], expected)
    exercised(name, str(p))


def test_what_does_not_take_it_says_so():
    p = Problem.parse("ic64ih30_oc64k3_p1_bf16:f32:bf16:f32")
    reasons = {name: algorithm.reject(p, detect()) for name, algorithm in ALGORITHMS.items()}
    assert {name for name, reason in reasons.items() if reason is None} == {"reference", "blocked", "panel", "direct"}
    assert reasons["winograd"] == "reads and stores no bfloat16"
    assert ALGORITHMS["reference"].reject(p.replace(op="bwd_data"), detect()) == "no gradient is of bfloat16"
    assert "bf16:f32:bf16:f32" in fastconv.explain(np.zeros((1, 64, 30, 30), BITS), np.zeros((64, 64, 3, 3), BITS))


@pytest.mark.parametrize("fields", [{"scale": 1 / 3}, {"activation": "tanh"}, {"scale": np.float64(1 / 3)}], ids=str)
def test_an_epilogue_makes_it_of_float32(fields):
    x, w = np.linspace(-1, 1, 30, dtype="f4").reshape(5, 6), np.ones((3, 3), "f4")
    got = nn.conv2d(x, w, epilogue=nn.Epilogue(**fields, dtype=BITS), algorithm="reference")
    expected = nn.conv2d(x, w, epilogue=nn.Epilogue(**fields), algorithm="reference")
    assert got.dtype == BITS
    assert_same_bits(got.view("u2"), narrowed(expected).view("u2"))


def test_random_operands_are_numbers():
    src, *_ = random(Problem.parse("ih9_k3_bf16:f32:bf16:f32"))
    assert set(np.unique(widened(src))) <= set(range(9))


def test_arrays_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: its arrays are not convolved")
    kind = np.dtype(ml_dtypes.bfloat16)
    rng = np.random.default_rng(2)
    x, w, b = (rng.standard_normal(shape).astype(kind) for shape in ((2, 20, 40, 41), (33, 20, 3, 3), (33,)))
    wide = [array.astype("f4") for array in (x, w, b)]
    given = {"padding": 1, "activation": "relu", "algorithm": "blocked"}
    sums = nn.conv2d(*wide, **given)
    for _ in range(3):
        result = nn.conv2d(x, w, b, **given)
        assert result.dtype == kind
        assert_same_bits(result.view("u2"), sums.astype(kind).view("u2"))
        out = np.empty_like(result)
        assert nn.conv2d(x, w, b, out=out, **given) is out
        assert_same_bits(out.view("u2"), result.view("u2"))
        same = nn.conv2d(x, wide[1], wide[2], **given)
        assert same.dtype == np.float32
        assert_same_bits(same, sums)
    assert_same_bits(nn.conv2d(x, w, dtype="f4", padding=1, algorithm="blocked"), nn.conv2d(*wide[:2], padding=1, algorithm="blocked"))
    held = fastconv.plan(x, w, b, **given)
    for plan in (held, pickle.loads(pickle.dumps(held))):
        for _ in range(3):
            assert_same_bits(plan(x).view("u2"), result.view("u2"))
    image = x[0, 0]
    for _ in range(3):
        plane = nn.conv2d(image, w[0, 0], padding=1)
        assert plane.dtype == kind
        expected = nn.conv2d(image.astype("f4"), w[0, 0].astype("f4"), padding=1, precision="strict")
        assert np.abs(plane.astype("f8") - expected).max() <= 2 * U * np.abs(expected).max()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [(lambda x: nn.conv2d(x, np.zeros((3, 3))), TypeError, "input and weight must both be"),
     (lambda x: nn.conv2d(np.zeros((5, 5), "f2"), x[:3, :3]), TypeError, "input and weight must both be"),
     (lambda x: nn.conv2d(x, x[:3, :3], dtype="f8"), TypeError, "dtype must be bfloat16 or float32"),
     (lambda x: nn.conv2d(np.zeros((5, 5)), np.zeros((3, 3)), dtype=BITS), TypeError, "dtype must not be bfloat16"),
     (lambda x: nn.conv2d(x, x[:3, :3], epilogue=Epilogue(scale=2.0)), TypeError, "epilogue must be None"),
     (lambda x: nn.conv_transpose2d(x[None, None], x[None, None, :3, :3]), TypeError, "input must be an array of"),
     (lambda x: nn.conv2d_input((1, 1, 7, 7), x[None, None, :3, :3], x[None, None]), TypeError, "must be an array of"),
     (lambda x: nn.conv2d(np.zeros((5, 5), "V3"), x[:3, :3]), TypeError, "input must be an array of"),
     (lambda x: fastconv.correlate2d(x, x[:3, :3]), ValueError, "not available for this type"),
     (lambda x: nn.conv2d(x, x[:3, :3], algorithm="winograd"), ValueError, "reads and stores no bfloat16")],
)  # fmt: skip
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call(np.zeros((5, 5), BITS))


def test_tensors_of_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed: its tensors are not convolved")
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in ((2, 20, 14, 15), (33, 20, 3, 3), (33,)))
    exact = [t.detach().double().requires_grad_() for t in (x, w, b)]
    result, expected = nn.conv2d(x, w, b, 2, 1), torch.nn.functional.conv2d(*exact, 2, 1)
    assert result.dtype == torch.bfloat16
    scale = torch.nn.functional.conv2d(*(t.abs() for t in exact), 2, 1)
    assert ((result.double() - expected).abs() <= U * expected.abs() + 2**-15 * scale).all()  # one rounding, and the sums' in float32
    theirs = torch.nn.functional.conv2d(x, w, b, 2, 1)
    assert ((result.double() - theirs.double()).abs() <= 4 * U * expected.abs() + 2**-15 * scale).all()
    weights = torch.randn(expected.shape, generator=generator).bfloat16()
    for one, other in zip(torch.autograd.grad((result * weights).sum(), (x, w, b)),
                          torch.autograd.grad((expected * weights.double()).sum(), exact), strict=True):  # fmt: skip
        assert one.dtype == torch.bfloat16
        assert (one.double() - other).abs().max() <= 4 * U * other.abs().max()
    last = nn.conv2d(x.detach().to(memory_format=torch.channels_last), w.detach(), b.detach(), 2, 1)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, result)
    v = torch.randn((33, 4, 2, 2), generator=generator).bfloat16()
    back = nn.conv_transpose2d(result.detach(), v, None, 2)
    wide = torch.nn.functional.conv_transpose2d(result.detach().double(), v.double(), None, 2)
    assert (back.double() - wide).abs().max() <= 2 * U * wide.abs().max()
    with torch.no_grad():
        assert torch.equal(fastconv.plan(x, w, b, 2, 1)(x), result)
    half = [t.detach().half() for t in (x, w, b)]
    assert nn.conv2d(*half, 2, 1).dtype == torch.float16
