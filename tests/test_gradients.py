"""conv_transpose2d, conv2d_input and conv2d_weight: against torch, against the exact sums, and as adjoints."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.cpu import joined, transposed, weights, weights_grouped, weights_split
from fastconv.cpu.target import TARGETS, detect
from fastconv.nn import conv2d_input, conv2d_weight
from fastconv.planning.planner import forget, plan_problem
from fastconv.planning.problem import DTYPES, Problem
from tests.oracles import activation, assert_close, assert_same_bits, assert_within, peer_bound, truth
from tests.problems import meets_what_was_left, operands, random_array, result_array, run, shapes

GRID = [
    # n, c, (h, w), oc, (kh, kw), stride, padding, dilation, groups
    (1, 1, (6, 7), 1, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    (2, 4, (5, 9), 6, (3, 2), (2, 1), (1, 0), (1, 1), 1),
    (1, 6, (7, 6), 4, (2, 3), (2, 3), (1, 1), (2, 1), 2),
    (3, 2, (4, 5), 2, (1, 1), (3, 2), (0, 0), (1, 1), 2),
    (1, 3, (8, 8), 5, (5, 4), (1, 1), (4, 3), (1, 1), 1),
    (2, 8, (4, 4), 8, (3, 3), (2, 2), (1, 1), (1, 2), 8),
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: its results are not compared")


def integers(rng, *shape):
    return rng.integers(-9, 10, shape).astype("f8")


@pytest.mark.parametrize("row", GRID, ids=str)
def test_adjoints_exactly(row):
    """<conv(x, w), y> = <x, input(w, y)> = <w, weight(x, y)>: sums of whole numbers, so equal."""
    n, c, size, oc, kernel, stride, padding, dilation, groups = row
    rng = np.random.default_rng(0)
    x, w = integers(rng, n, c, *size), integers(rng, oc, c // groups, *kernel)
    arguments = (stride, padding, dilation, groups)
    result = fastconv.conv2d(x, w, None, *arguments)
    y = integers(rng, *result.shape)
    inner = (result * y).sum()
    from_input = conv2d_input(x.shape, w, y, *arguments)
    from_weight = conv2d_weight(x, w.shape, y, *arguments)
    assert from_input.shape == x.shape
    assert from_weight.shape == w.shape
    assert (x * from_input).sum() == inner
    assert (w * from_weight).sum() == inner
    # every entry, from impulses
    rows = [tuple(rng.integers(0, extent) for extent in x.shape) for _ in range(5)]
    for at in rows:
        impulse = np.zeros_like(x)
        impulse[at] = 1
        assert from_input[at] == (fastconv.conv2d(impulse, w, None, *arguments) * y).sum()
    for at in [tuple(rng.integers(0, extent) for extent in w.shape) for _ in range(5)]:
        impulse = np.zeros_like(w)
        impulse[at] = 1
        assert from_weight[at] == (fastconv.conv2d(x, impulse, None, *arguments) * y).sum()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("row", GRID, ids=str)
def test_torchs_gradients(torch, row, dtype):
    n, c, size, oc, kernel, stride, padding, dilation, groups = row
    rng = np.random.default_rng(1)
    x, w = random_array(rng, (n, c, *size), dtype), random_array(rng, (oc, c // groups, *kernel), dtype)
    y = random_array(rng, fastconv.conv2d(x, w, None, stride, padding, dilation, groups).shape, dtype)
    arguments = (stride, padding, dilation, groups)
    grad = torch.nn.grad
    for ours, theirs, one, shape, other in ((conv2d_input, grad.conv2d_input, None, x.shape, w),
                                            (conv2d_weight, grad.conv2d_weight, x, w.shape, None)):  # fmt: skip
        first = (shape, other, y) if one is None else (one, shape, y)
        tensors = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in first]
        absolute = [a.abs().double() if isinstance(a, torch.Tensor) else a for a in tensors]
        result = ours(*first, *arguments)
        assert result.dtype == np.dtype(dtype)
        expected, magnitude = (theirs(*group, *arguments).numpy() for group in (tensors, absolute))
        assert_close(result, expected, peer_bound(dtype, max(y.size, w.size), magnitude), ours.__name__)


TRANSPOSED = [
    {},
    {"stride": 2},
    {"stride": (2, 3), "padding": 1},
    {"stride": 2, "padding": (1, 0), "output_padding": (1, 0)},
    {"dilation": 2, "padding": 1},
    {"groups": 2, "stride": 2, "output_padding": 1},
    {"stride": 3, "padding": 2, "output_padding": 2, "dilation": (2, 1), "groups": 2},
]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
@pytest.mark.parametrize("arguments", TRANSPOSED, ids=str)
def test_torchs_conv_transpose2d(torch, arguments, dtype):
    rng = np.random.default_rng(2)
    groups = arguments.get("groups", 1)
    for kernel, biased in itertools.product(((3, 3), (1, 1), (2, 5)), (False, True)):
        x, w, b = (random_array(rng, shape, dtype) for shape in ((2, 4, 5, 6), (4, 6 // groups, *kernel), (6,)))
        bias = b if biased else None
        tensors = [None if a is None else torch.from_numpy(a) for a in (x, w, bias)]
        expected = torch.nn.functional.conv_transpose2d(*tensors, **arguments).numpy()
        allowed = 0
        if dtype[0] == "f":
            absolute = (None if t is None else t.abs().double() for t in tensors)
            allowed = peer_bound(dtype, w.size, torch.nn.functional.conv_transpose2d(*absolute, **arguments).numpy())
        result = fastconv.conv_transpose2d(x, w, bias, **arguments)
        assert result.dtype == expected.dtype
        assert_close(result, expected, allowed, f"{arguments} {kernel}")
        positional = ("stride", "padding", "output_padding", "groups", "dilation")
        defaults = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1} | arguments
        assert_same_bits(fastconv.conv_transpose2d(x, w, bias, *(defaults[name] for name in positional)), result)
        assert_same_bits(fastconv.conv_transpose2d(x[0], w, bias, **arguments), result[0])
        last = fastconv.conv_transpose2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), bias, data_format="NHWC", **arguments)
        assert last.flags.c_contiguous
        assert_close(last.transpose(0, 3, 1, 2), expected, allowed, f"NHWC {arguments}")


def test_transposed_activation_and_out():
    rng = np.random.default_rng(3)
    x, w, b = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(3)
    sums = fastconv.conv_transpose2d(x, w, b, stride=2)
    magnitude = fastconv.conv_transpose2d(*map(np.abs, (x, w, b)), stride=2)
    for name in ("relu", "tanh", ("leaky_relu", 0.1)):
        text = name if isinstance(name, str) else "leaky_relu:0.1"
        result = fastconv.conv_transpose2d(x, w, b, stride=2, activation=name)
        assert_close(result, activation(text, sums), peer_bound("f8", w.size, magnitude))
    out = np.empty_like(sums)
    assert fastconv.conv_transpose2d(x, w, b, stride=2, out=out) is out
    assert_same_bits(out, sums)
    square = rng.standard_normal((1, 4, 5, 6))
    expected = fastconv.conv_transpose2d(square, np.ones((4, 4, 1, 1)))
    assert fastconv.conv_transpose2d(square, np.ones((4, 4, 1, 1)), out=square) is square
    assert_same_bits(square, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0}, {"padding": -1}, {"output_padding": 1}, {"output_padding": -1}, {"groups": 3}, {"groups": 0},
        {"dilation": 0}, {"data_format": "HWC"}, {"padding": 9}, {"bias": np.ones(5)}, {"weight": np.ones((5, 3, 3, 3))},
        {"activation": "x"}, {"input": np.ones((5, 6))}, {"weight": np.ones((3, 3))},
        {"out": np.ones((1, 1))}, {"precision": "x"}, {"device": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_of_conv_transpose2d(change):
    with pytest.raises(ValueError, match=next(iter(change)) + "|weight"):
        fastconv.conv_transpose2d(**({"input": np.ones((2, 4, 5, 6)), "weight": np.ones((4, 3, 3, 3))} | change))


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0}, {"stride": 1.5}, {"padding": -1}, {"dilation": (1, "2")}, {"groups": 0}, {"groups": True}, {"data_format": "HWC"},
        {"bias": np.ones(5)}, {"bias": np.ones(4, "c16")}, {"input": np.ones((1, 2, 4, 5, 6))}, {"input": np.ones((2, 4, 0, 6))},
        {"weight": np.ones((4, 4, 3))}, {"weight": np.ones((4, 4, 0, 3))}, {"activation": "x"}, {"dtype": "O"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_are_refused_as_conv2d_refuses_them(change):
    """In the same words, but for the numbers of dimensions that are allowed."""
    texts = []
    for function in (fastconv.conv2d, fastconv.conv_transpose2d):
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**({"input": np.ones((2, 4, 5, 6)), "weight": np.ones((4, 4, 3, 3))} | change))
        texts.append((caught.type, str(caught.value).replace("2, 3 or 4", "3 or 4")))
    assert texts[0] == texts[1]


def test_bad_arguments_of_the_gradients():
    x, w, y = np.ones((1, 2, 5, 6)), np.ones((3, 2, 3, 3)), np.ones((1, 3, 3, 4))
    with pytest.raises(ValueError, match="grad_output must have shape"):
        conv2d_input(x.shape, w, y[..., 1:])
    with pytest.raises(ValueError, match="grad_output must have shape"):
        conv2d_weight(x, w.shape, y[:, 1:])
    with pytest.raises(ValueError, match="input_size must be four ints"):
        conv2d_input((5, 6), w, y)
    with pytest.raises(ValueError, match="channels"):
        conv2d_weight(x, (3, 1, 3, 3), y)
    for bad in ({"stride": 0}, {"padding": -1}, {"dilation": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            conv2d_input(x.shape, w, y, **bad)


def test_a_gradient_by_transforms_is_of_their_class():
    p = Problem.parse("ih130iw110_k31_p7_bwd-data")
    src, wei, _ = operands(p)
    (child,) = plan_problem(p).children
    assert child.algorithm == "fft"
    assert_within(run(p, src, wei, algorithm="transposed"), p, truth(p, src, wei), "fft")
    strict = p.replace(precision="strict")
    assert_within(run(strict, src, wei, algorithm="transposed"), strict, truth(strict, src, wei))


@pytest.mark.parametrize("text", ["n4_g20_ic20ih9_oc20k3_p1", "n3_g5_ic20ih11_oc10k5_s2_p2_f64_nhwc_hwio"])
def test_the_gradient_of_small_groups_has_the_same_bits(text, monkeypatch):
    p = Problem.parse(text).replace(op="bwd_weight")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm="weights")
    for threads in (1, 2, 5):
        assert_same_bits(run(p, src, wei, algorithm="weights_grouped", threads=threads), expected, f"{threads} threads")
    monkeypatch.setattr(weights_grouped, "_PANEL_BYTES", 1)
    monkeypatch.setattr(weights_grouped.costs, "MOST_SECONDS", 1e-12)
    monkeypatch.setattr(weights_grouped, "_unit_seconds", lambda *arguments: 1e-12 / 2)
    forget()
    assert_same_bits(run(p, src, wei, algorithm="weights_grouped"), expected, "a row, two images at a time")
    forget()


@pytest.mark.parametrize("text", ["n5_ic20ih9_oc40k3_p1", "n3_ic14ih21_oc20k1_f64", "n7_g2_ic6ih13_oc8k5_s2_p2_nhwc_hwio"])
def test_the_gradient_of_the_weights_has_the_same_bits(text, monkeypatch):
    """On any number of threads, in any parts and bands, in launches of any number of images."""
    p = Problem.parse(text).replace(op="bwd_weight")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm="weights")
    assert_within(expected, p, truth(p, src, wei))
    for threads in (2, 3, 7):
        assert_same_bits(run(p, src, wei, algorithm="weights", threads=threads), expected, f"{threads} threads")
    for name, value in (("_BAND_PIXELS", 3), ("_SUM_BYTES", 1), ("_PANEL_BYTES", 1)):
        monkeypatch.setattr(weights_split, name, value)
        forget()
        assert_same_bits(run(p, src, wei, algorithm="weights"), expected, name)
    monkeypatch.setattr(weights.costs, "MOST_SECONDS", 1e-12)
    monkeypatch.setattr(weights, "unit_seconds", lambda *arguments: 1e-12 / 2)
    forget()
    dst = np.full((*shapes(p)[3][:3], 2 * p.kw), np.nan, DTYPES[p.dst])[..., ::2]
    assert_same_bits(run(p, src, wei, algorithm="weights", dst=dst).copy(), expected, "two images at a time")
    assert np.isnan(dst.base[..., 1::2]).all()
    forget()


def test_channels_side_by_side_are_read_where_they_lie_to_the_same_bits():
    p = Problem.parse("n2_ic30ih9iw12_oc70k1_s2").replace(op="bwd_weight")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm="weights")
    beside = [np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for array in (src, wei)]
    for image, grad in ((beside[0], wei), (src, beside[1]), beside):
        assert_same_bits(run(p, image, grad, algorithm="weights"), expected)
    head = weights._layout(p, weights.TILES[0], 16, 4, 1)[0]
    assert head.one_tap
    assert not weights._layout(p.replace(pt=1), weights.TILES[0], 16, 4, 1)[0].one_tap


@pytest.mark.parametrize("stride", [1, 2])
def test_image_and_gradient_are_exchanged_to_the_same_bits(stride):
    """Lanes hold the channels that lie side by side in the result."""
    p = Problem(op="bwd_weight", n=2, ic=40, ih=9, iw=12, oc=40, sh=stride, sw=stride)
    src, wei, _ = operands(p)
    results = []
    for wei_layout, threads in itertools.product(("oihw", "hwio"), (1, 2)):
        q = p.replace(wei_layout=wei_layout)
        assert stride > 1 or (weights._arranged(q, detect())[0] is q) == (wei_layout == "hwio")
        results.append(run(q, src, wei, algorithm="weights", threads=threads))
        assert_same_bits(np.ascontiguousarray(results[-1]), np.ascontiguousarray(results[0]), f"{wei_layout} {threads}")


def test_weights_gradients_are_turned_where_channels_lie_side_by_side_across_the_lanes(monkeypatch):
    """Whatever lies between the rows of a kernel that has one."""
    p, heads, launcher = Problem.parse("ic40ih9_oc70k1_bwd-weight_f32_nhwc_hwio"), [], weights.Region.launcher
    exchanged = p.replace(ic=p.oc, oc=p.ic, wei_layout="oihw")
    src, grad, _ = operands(p)
    expected = run(p, src, grad, algorithm="weights")
    tile = weights._arranged(p, detect())[1]
    monkeypatch.setattr(weights, "_arranged", lambda p, t: (exchanged, tile))
    monkeypatch.setattr(weights.Region, "launcher", lambda self, *rest: heads.append(rest[0]) or launcher(self, *rest))
    result = np.zeros((1, 1, p.ic, p.oc), "f4").transpose(3, 2, 0, 1)
    plan = weights.build(p, detect(), plan_problem)
    plan.run(src, plan.pack(grad), None, result)
    assert heads[0][weights.Head._fields.index("way")] == 1
    assert_same_bits(result, expected)


def test_threads_share_parts_of_which_the_last_are_smaller():
    """Of 5 x 5 blocks two threads share parts of 3 and 2 as 13 and 12, where no one's part is less than half of a narrow pixel."""
    target = next(target for target in TARGETS if target.registers == 32 and target.lanes(4) == 16)
    for oc, ic, split in ((240, 40, (1, 3)), (144, 24, (2, 3))):
        p = Problem(op="bwd_weight", n=8, ic=ic, ih=56, iw=56, oc=oc, src_layout="nhwc", wei_layout="hwio")
        q, tile = weights._arranged(p, target)
        assert tile[1:] == (3, 8)
        assert weights.split_of(q, tile, target.lanes(4), 4, 2)[:2] == split


def test_more_threads_have_as_many_units_of_the_weights_gradient():
    """Each unit reads the pixels and gradients of its part."""
    for p, parts in ((Problem(ic=256, ih=56, iw=56, oc=128), 1), (Problem(ic=256, ih=56, iw=56, oc=128), 2)):
        q, tile = weights._arranged(p.replace(op="bwd_weight", src_layout="nhwc"), detect())
        lanes = detect().lanes(4)
        split = weights.split_of(q, tile, lanes, 4, parts)
        assert split.units(*weights.counts_of(q, tile, lanes)) == parts


@pytest.mark.parametrize("text", ["ic20ih9iw12_oc24k1_bwd-weight_f32_nhwc_hwio", "ic14ih9_oc40k1_s2_p1_bwd-weight_f32_nhwc_hwio"])
def test_the_gradient_of_the_weights_multiplies_nothing_that_was_left_in_memory(text, monkeypatch):
    """Of 144 to 24 channels at 56x56 lanes that no channel fills held subnormal numbers: 25 ms instead of 0.2."""
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    dst = result_array(p)
    assert not meets_what_was_left(weights.build(p, detect(), plan_problem), (src, wei, None, dst), monkeypatch)
    assert_within(dst, p, truth(p, src, wei), "weights")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_where_the_formula_puts_it(value):
    """The weights of a forward problem would meet its padding."""
    for text in ("ic3ih9iw11_oc5k3_p1_bwd-data", "ic2ih9iw10_oc3k3_s2_bwd-data_f64", "ih20iw31_k3_d2_bwd-data",
                 "n2_ic20ih9iw11_oc18k3_p1_bwd-weight", "ic20ih9iw11_oc18k1_bwd-data"):  # fmt: skip
        p = Problem.parse(text)
        src, wei, _ = operands(p)
        for array, at in ((wei, (0, 0, 0, -1)), (src, (0, 0, 0, 0)), (src, (-1, -1, -1, 2))):
            changed = array.copy()
            changed[at] = value
            arrays = (src, changed) if array is wei else (changed, wei)
            assert_within(run(p, *arrays), p, truth(p, *arrays))
            plan, result = plan_problem(p), result_array(p)
            if plan.given is not None:
                given = plan.given()
                given.run(arrays[0], given.pack(arrays[1]), None, result)
                assert_same_bits(result, run(p, *arrays))


@pytest.mark.filterwarnings("ignore:overflow")
def test_weights_that_only_their_sums_type_does_not_hold_stay_where_the_formula_puts_them():
    p = Problem.parse("ic3ih9iw11_oc5k3_p1_bwd-data_f32:f64:f32:f32")
    src, wei, _ = operands(p)
    wei[1, 2, 0, 0] = 1e300
    expected, result, given = run(p, src, wei, algorithm="reference"), result_array(p), plan_problem(p).given()
    given.run(src, given.pack(wei), None, result)
    for found in (result, run(p, src, wei)):
        np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_given_weights_are_looked_at_only_where_results_are_not_finite(monkeypatch):
    p = Problem.parse("ic3ih9iw11_oc5k3_p1_bwd-data")
    src, wei, _ = operands(p)
    plan = plan_problem(p).given()
    plan.run(src, plan.pack(wei), None, result_array(p))  # numba is loaded: it looks at all of NumPy's functions
    looked, isfinite = [], np.isfinite
    monkeypatch.setattr(transposed.np, "isfinite", lambda array: looked.append(array.shape) or isfinite(array))
    plan.run(src, plan.pack(wei), None, result_array(p))
    assert looked == [(3, 1, 1)], "a result of each channel"
    src[0, 0, 1, 1] = np.inf
    plan.run(src, plan.pack(wei), None, result_array(p))
    assert looked[1:] == [(3, 1, 1), wei.shape]


@pytest.mark.parametrize("text", ["g2_ic34ih9iw13_oc40k3_s2_p1", "ic40ih7_oc160k1", "g4_ic32ih14_oc32k3_p1", "g4_ic64ih14_oc64k3_p1_nhwc"])
def test_given_weights_of_the_images_gradient_are_packed_as_they_lie_to_the_same_bits(text):
    """Filters exchanged with channels, turned by half a turn, in groups, every second tap: of any strides, without a copy."""
    p = Problem.parse(text).replace(op="bwd_data")
    src, wei, _ = operands(p)
    expected, result, given = run(p, src, wei), result_array(p), plan_problem(p).given()
    for strided in (wei, np.asfortranarray(wei), np.ascontiguousarray(wei.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        packed = given.pack(strided)
        assert any(np.shares_memory(part, strided) for part in packed[:-1] if part.dtype == wei.dtype)
        given.run(src, packed, None, result)
        assert_same_bits(result, expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("text", ["g2_ic34ih9iw13_oc40k3_s2_p1", "ic34ih12iw13_oc40k1_s2", "ic34ih12iw13_oc40k1_s2_bias"])
def test_phases_are_one_launch_of_the_same_bits(text, threads, monkeypatch):
    """With the pixels that no tap reaches, which are the bias or zeros."""
    p = Problem.parse(text).replace(op="bwd_data", src_layout="nhwc", wei_layout="hwio")
    src, wei, bias = operands(p)
    expected, result, given, launches = run(p, src, wei, bias), result_array(p), plan_problem(p, threads=threads).given(), []
    monkeypatch.setattr(transposed, "joined", lambda *given: launches.append(joined.joined(*given)) or launches[-1])
    for _ in range(2):
        result[...] = 9
        given.run(src, given.pack(wei), bias, result)
        assert_same_bits(result, expected)
    assert len(launches) == 2
    assert None not in launches
    for value in (np.nan, np.inf):
        changed = wei.copy()
        changed[1, 2] = value
        given.run(src, given.pack(changed), bias, result)
        assert_within(result, p, truth(p, src, changed, bias))


def test_phases_of_kernels_that_take_no_axis_of_groups():
    p = Problem.parse("n1_g2_ic2ih4iw3_oc2kh2kw2_sh2sw1_pt1pb0pl2pr1_f64").replace(op="bwd_data")
    src, wei, _ = operands(p)
    expected, result, given = run(p, src, wei, algorithm="transposed"), result_array(p), plan_problem(p, algorithm="transposed").given()
    given.run(src, given.pack(wei), None, result)
    assert_same_bits(result, expected)


def test_phases_of_which_one_is_staged_are_launched_one_by_one():
    p = Problem.parse("ic34ih12iw13_oc40k1_s2_bwd-data_f32_nhwc_hwio_bias")
    src, wei, bias = operands(p)
    expected, result, given = run(p, src, wei, bias), result_array(p).astype(">f4"), plan_problem(p).given()
    given.run(src, given.pack(wei), bias, result)
    assert_same_bits(result.astype("f4"), expected)


def test_given_weights_are_alike_for_all_images_where_few_are_computed_at_a_time(monkeypatch):
    """Of four images, for which weights are rather packed at once, and of the last one, for which they are not."""
    p = Problem.parse("n5_g2_ic34ih9iw13_oc40k3_s2_p1").replace(op="bwd_data")
    monkeypatch.setattr(transposed.costs, "MOST_BUFFER", 4 * transposed._buffer_bytes(p, 1))
    src, wei, _ = operands(p)
    given, result = transposed.build(p, detect(), plan_problem).given(), result_array(p)
    given.run(src, given.pack(wei), None, result)
    assert_within(result, p, truth(p, src, wei))


@pytest.mark.parametrize("change", [{"kh": 9, "pt": 0, "pb": 0}, {"dst": "i32"}, {"epilogue": "relu"}])
def test_results_that_do_not_tell(change):
    p = Problem.parse("ic3ih9iw11_oc5k3_p1_bwd-data")
    assert transposed._telling(p) is not None
    assert transposed._telling(p.replace(**change)) is None


@pytest.mark.parametrize("op", ["bwd_data", "bwd_weight"])
@pytest.mark.parametrize("text", ["n2_g2_ic4ih9iw13_oc6k3_s2_p1", "ic3ih7iw8_oc5kh2kw3_d2_pt1pb2pl3pr0",
                                  "ic2ih6iw7_oc3k3_p2_reflect", "ih5iw6_k3_p4_wrap"])  # fmt: skip
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
def test_backward_problems(op, text, dtype):
    p = Problem.parse(f"{text}_{dtype}").replace(op=op)
    src, wei, bias = operands(p)
    assert_within(run(p, src, wei, bias), p, truth(p, src, wei, bias))


@pytest.mark.parametrize(("text", "expanded"), [("ic512ih14_oc512k3_p1_bwd-weight", False), ("ic3ih224_oc64k7_s2_p3_bwd-weight", True),
                                                ("ic20ih14_oc64k3_p1_bwd-weight", True)])  # fmt: skip
def test_columns_of_a_kernel_are_expanded_where_that_saves_a_tenth(text, expanded):
    """Not for one block of 120: the lines that are made take longer."""
    assert weights_split.is_expanded(Problem.parse(text), weights.TILES[0]) == expanded
