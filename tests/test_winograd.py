"""3x3 kernels by transformed blocks: matrices, error over layers, what is repaired, how work is cut."""

import itertools

import numpy as np
import pytest

import fastconv
from bench.cases import load
from fastconv.cpu import winograd
from fastconv.cpu.target import TARGETS, detect
from fastconv.cpu.weights_tile import turn_kernel
from fastconv.cpu.winograd_pack import HEAD, SPARE, Head, Packing, weights_of
from fastconv.cpu.winograd_tile import CHUNK
from fastconv.planning import cost
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import BORDERS, Problem
from fastconv.planning.winograd_points import POINTS, STRIDED_POINTS, StridedTransform, Transform
from tests.oracles import assert_close, assert_same_bits, assert_within, bound, stored, truth, unit
from tests.problems import operands, repaired, result_array, run, typed

LAYERS = [p for name in ("resnet50", "vgg16") for p in load(name) if winograd.reject(p, detect()) is None and p.ic >= 32]


class Numbers:
    """An emitter whose vectors are arrays."""

    builder = None

    def __init__(self):
        self.builder = self

    fadd, fsub, fmul = (staticmethod(function) for function in (np.add, np.subtract, np.multiply))

    def number(self, value):
        return value

    def multiply_add(self, a, b, c):
        return a * b + c


@pytest.mark.parametrize("m", POINTS)
def test_transforms_make_a_correlation(m):
    """In float64, of one row of pixels and of all pairs of a pixel and a tap."""
    transform = Transform(Numbers(), m)
    pixels, taps = np.eye(m + 2), np.eye(3)
    products = np.array(transform.pixels(list(pixels)))[:, :, None] * np.array(transform.weights(list(taps)))[:, None, :]
    expected = [[[float(j == i + k) for k in range(3)] for j in range(m + 2)] for i in range(m)]
    np.testing.assert_allclose(transform.results(list(products)), expected, atol=1e-13)


@pytest.mark.parametrize("m", STRIDED_POINTS)
def test_transforms_make_a_correlation_at_stride_2(m):
    """The odd pixels' transforms all meet the last weights, and are added to the even ones' of the same points."""
    transform = StridedTransform(Numbers(), m)
    pixels, taps = (np.array(made) for made in (transform.pixels(list(np.eye(2 * m + 1))), transform.weights(list(np.eye(3)))))
    products = pixels[: m + 1, :, None] * taps[: m + 1, None, :]
    products[:m] += pixels[m + 1 :, :, None] * taps[m + 1]
    expected = [[[float(j == 2 * i + k) for k in range(3)] for j in range(2 * m + 1)] for i in range(m)]
    np.testing.assert_allclose(transform.results(list(products)), expected, atol=1e-13)


@pytest.mark.parametrize("points", [*POINTS.values(), *STRIDED_POINTS.values()], ids=str)
def test_products_of_points_are_exact_in_float32(points):
    m = 2 * len(points)
    for powers in itertools.product(range(m), repeat=len(points)):
        product = np.prod([p**n for p, n in zip(points, powers, strict=True)])
        if sum(powers) < m:
            assert np.float32(product) == product


def layer_error(p, m, seed=0):
    """The largest error over the largest result, of rectified random pixels."""
    src, wei, _ = operands(p, seed=seed)
    src = np.maximum(src, 0)
    plan = winograd.build(p, detect(), plan_problem, 2, m)
    dst = result_array(p)
    plan.run(src, plan.pack(wei), None, dst)
    exact = truth(p, src, wei).value
    return float(np.abs(dst - exact).max() / np.abs(exact).max())


# of the largest result; F(6x6) is for precision fast
PROMISED = {2: 2e-6, 4: 1e-5, 6: 1e-4}
FORMS = [*((m, 1) for m in PROMISED), *((m, 2) for m in STRIDED_POINTS)]


@pytest.mark.parametrize(("m", "stride"), FORMS)
def test_error_of_layers(m, stride):
    for text in ("ic64ih28_oc64k3_p1", "ic512ih14_oc64k3_p1", "ic128ih40_oc32k3_p1"):
        p = Problem.parse(text).replace(sh=stride, sw=stride)
        error = layer_error(p, m)
        assert unit("f4") < error < PROMISED[m] / 2, (text, error)


@pytest.mark.slow
@pytest.mark.parametrize("p", LAYERS, ids=str)
def test_error_of_every_layer(p):
    for m in PROMISED if p.strides == (1, 1) else STRIDED_POINTS:
        error = layer_error(p, m)
        print(f"F({m}x{m}) {p}: {error:.1e}")
        assert error < PROMISED[m] / 2


def test_the_promise_of_a_precision_decides_what_may_be_used():
    p = Problem.parse("ic64ih224_oc64k3_p1")
    for precision, promised in (("default", 1e-5), ("fast", 1e-4)):
        assert {m for m, error in PROMISED.items() if error <= promised} == set(winograd.variants(p.replace(precision=precision)))
    assert "strict" in winograd.reject(p.replace(precision="strict"), detect())


@pytest.mark.parametrize("ic", [1, 40, 300])
def test_error_stays_below_what_is_stated_for_hard_images(ic):
    """Equal channels and filters of one tap, whose errors add up."""
    rng = np.random.default_rng(ic)
    shape = (1, ic, 10, 10)
    images = {
        "constant": np.full(shape, 1.1),
        "signs": (-1.0) ** np.indices((10, 10)).sum(0) * np.full((1, ic, 1, 1), 1.3),
        "equal channels": rng.standard_normal((1, 1, 10, 10)) * np.ones((1, ic, 1, 1)),
        "two values": rng.choice([-1.1, 1.1], shape),
    }
    filters = {
        "one tap": np.eye(9).reshape(9, 1, 3, 3) * np.full((1, ic, 1, 1), 1 / 3),
        "equal": rng.standard_normal((9, 1, 3, 3)) * np.ones((1, ic, 1, 1)),
        "positive": rng.random((9, ic, 3, 3)),
    }
    for (m, stride), (_, image), (_, weights) in itertools.product(FORMS, images.items(), filters.items()):
        p = Problem(ic=ic, ih=10, iw=10, oc=9, kh=3, kw=3, sh=stride, sw=stride, precision="fast" if m == 6 else "default")
        src, wei = image.astype("f4"), weights.astype("f4")
        plan = winograd.build(p, detect(), plan_problem, 1, m)
        dst = result_array(p)
        plan.run(src, plan.pack(wei), None, dst)
        assert_within(dst, p, truth(p, src, wei), "winograd", f"F({m}x{m}) at stride {stride}")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("m", [2, 4])
def test_every_border_tail_and_extent(m, stride, exercised):
    """Images of less than a block and of several groups, channels of less than a vector and more, in both layouts."""
    texts = ("ic3ih1iw2_oc5k3_p1", "n2_ic17ih13iw70_oc70k3_pt0pb3pl2pr0", "g3_ic9ih6iw19_oc6k3_p2", "ic20ih9iw3_oc33k3_p1",
             "ic16ih30iw200_oc16k3", "ic5ih3iw3_oc8k3_p7")  # fmt: skip
    for (text, border), layout in itertools.product(zip(texts, (*BORDERS, "reflect"), strict=True), ("nchw", "nhwc")):
        p = Problem.parse(f"{text}_{border}_bias+leaky_relu:0.1").replace(src_layout=layout, sh=stride, sw=stride)
        src, wei, bias = operands(p)
        fill = 3 if border == "constant" else 0
        results = []
        for threads in (1, 2):
            plan = winograd.build(p, detect(), plan_problem, threads, m)
            results.append(result_array(p))
            plan.run(src, plan.pack(wei), bias, results[-1], fill)
        assert_within(results[0], p, truth(p, src, wei, bias, fill), "winograd", f"F({m}x{m})")
        assert_same_bits(*results, f"{p} on 2 threads")
        exercised("winograd", f"F({m}x{m}) {p}")


def test_results_do_not_depend_on_how_work_is_cut(monkeypatch):
    p = Problem.parse("n5_ic40ih30iw33_oc150k3_p1_bias")
    src, wei, bias = operands(p)
    results = []
    for gy, gx, parts, tile, images in (
        (1, 1, 1, 0, 1), (1, 9, 2, -1, 1), (3, 4, 3, 0, 1), (8, 9, 1, -1, 1), (8, 9, 2, 0, 2), (8, 9, 1, -1, 3), (8, 9, 1, 0, 5)
    ):  # fmt: skip
        chosen = winograd.Choice(4, winograd.fitting(winograd.TILES, detect())[tile], gy, gx, parts, images)
        monkeypatch.setattr(winograd, "_split", lambda p, t, m, threads, given, mr=0, chosen=chosen: chosen)
        plan = winograd.build(p, detect(), plan_problem, 2, 4)
        results.append(result_array(p))
        plan.run(src, plan.pack(wei), bias, results[-1])
        assert_same_bits(results[-1], results[0], f"{chosen}")
    assert_within(results[0], p, truth(p, src, wei, bias), "winograd")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("text", "pixels", "blocks", "rows"),
    [("n2_ic20ih30iw33_oc40k3_p1", ((1, 13, 17), (1, 29, 0)), [[1, 3, 4], [1, 7, 0]], slice(16, 28)),
     ("n2_ic16ih36iw33_oc40k3_s2_p1", ((1, 13, 17), (0, 35, 0)), [[0, 8, 0], [1, 3, 4]], slice(8, 18))],
)  # fmt: skip
def test_blocks_that_are_not_finite_are_computed_again_and_no_others(text, pixels, blocks, rows, layout, monkeypatch):
    """``rows`` of the last image lie in other blocks."""
    p = Problem.parse(f"{text}_bias+relu").replace(src_layout=layout)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "winograd")
    calls = repaired(monkeypatch)
    for (n, y, x), value, channel in zip(pixels, (np.inf, np.nan), (3, 7), strict=True):
        src[n, channel, y, x] = value
    result = run(p, src, wei, bias, "winograd", 2)
    assert_within(result, p, truth(p, src, wei, bias), "winograd")
    assert [wrong.tolist() for wrong in calls] == [blocks]
    assert_same_bits(result[1, :, rows].copy(), expected[1, :, rows].copy())
    assert_same_bits(run(p, src, wei, bias, "winograd", 1), result, "repaired")


@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_an_image_of_one_column_are_computed_again(stride):
    p = Problem.parse("ic20ih30iw1_oc40k3_p1_bias+relu").replace(sh=stride, sw=stride)
    src, wei, bias = operands(p)
    src[0, 3, 13, 0] = np.nan
    assert_within(run(p, src, wei, bias, "winograd"), p, truth(p, src, wei, bias), "winograd")


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_magnitudes_that_transforms_do_not_stand(dtype, monkeypatch):
    p = typed(Problem.parse("n2_ic4ih9iw12_oc6k3_p1_bias"), dtype)
    limits = np.finfo(operands(p)[0].dtype)
    calls = repaired(monkeypatch)
    for pixel, weight in ((limits.max / 4, 2.0**-30), (limits.tiny, 1), (1, limits.tiny), (limits.max / 1e4, limits.tiny),
                          (limits.smallest_subnormal * 100, 1), (1, limits.max / 1e4)):  # fmt: skip
        src, wei, bias = operands(p)
        src, wei = np.sign(src) * src.dtype.type(pixel), np.sign(wei) * wei.dtype.type(weight)
        src[1] /= src.dtype.type(pixel)  # the other image is as ever
        for fill in (0, limits.max / 1e9):
            exact = truth(p, src, wei, bias, fill)
            if (np.abs(exact.value) < limits.max).all():
                allowed = np.maximum(bound(p, exact, "winograd"), bound(p, exact, "direct"))
                assert_close(run(p, src, wei, bias, "winograd", fill=fill), stored(p, exact), allowed, f"{pixel} {weight} {fill}")
    assert len(calls) >= 7


def test_zeros_stay_zeros(monkeypatch):
    p = Problem.parse("ic20ih40iw21_oc20k3_p1")
    calls = repaired(monkeypatch)
    src, wei, _ = operands(p)
    src[:, :, 10:] = 0
    wei[3] = 0
    result = run(p, src, wei, algorithm="winograd")
    assert (result[:, :, 12:] == 0).all()
    assert (result[:, 3] == 0).all()
    assert (run(p, src * 0, wei, algorithm="winograd") == 0).all()
    assert (run(p, src, wei * 0, algorithm="winograd") == 0).all()
    assert not calls


def test_other_byte_orders_give_the_same_bits():
    """Bands of rows are whole blocks, whatever the border."""
    for text, fill in (("ic64ih70iw90_oc8k3_p1", 5), ("ic64ih70iw90_oc8k3_pt2pb0pl1pr3_reflect_nhwc", 0)):
        p = Problem.parse(text)
        src, wei, _ = operands(p)
        expected = run(p, src, wei, algorithm="winograd", fill=fill)
        swapped = src.astype(src.dtype.newbyteorder())
        assert_same_bits(run(p, swapped, wei, algorithm="winograd", fill=fill, threads=2), expected, text)


def test_a_plan_runs_on_many_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 32, 30, 30)).astype("f4"), rng.standard_normal((32, 32, 3, 3)).astype("f4")
    plan = fastconv.plan(x, w, padding=1, algorithm="winograd", threads=1)
    spoilt = x.copy()
    spoilt[0, 0, 4, 4] = np.nan
    expected = [plan(x), plan(spoilt)]
    with ThreadPoolExecutor(8) as pool:
        for number, result in enumerate(pool.map(lambda n: plan((x, spoilt)[n % 2]), range(64))):
            assert_same_bits(result, expected[number % 2])


def test_variants_depend_on_one_image_only():
    for p, target in itertools.product(LAYERS, TARGETS):
        chosen = winograd._choice(p, target).m
        for n, threads in ((1, 2), (8, 1), (7, 16)):
            plan = winograd.build(p.replace(n=n), target, plan_problem, threads)
            assert f"_{chosen}x{chosen}_" in plan.kernel
            assert plan.workspace <= threads * cost.MOST_WORKSPACE
        smaller = target.__class__(target.name, target.bits, target.registers, target.fma, 1 << 14, 1 << 17, 1 << 20)
        assert winograd._choice(p, smaller).m == chosen, "the caches of a processor must not change its results"


@pytest.mark.parametrize("n", [1, 5])  # 5 are transformed before they are used
@pytest.mark.parametrize(("value", "repairs"), [(1.0, False), (1e-15, True), (np.nan, True)])
def test_given_weights_are_transformed_where_they_are_used_to_the_same_bits(value, repairs, n, monkeypatch):
    p = Problem.parse(f"n{n}_ic150ih7iw9_oc70k3_p1_f32")
    plan = plan_problem(p, algorithm="winograd", threads=1)
    given = plan.given()
    assert given.given is None
    src, wei, bias = operands(p)
    dst = result_array(p)
    wei[3] *= np.float32(value)
    expected, place = np.empty_like(dst), repaired(monkeypatch)
    plan.run(src, plan.pack(wei), bias, expected)
    assert bool(place) == repairs
    for strided in (wei, np.asfortranarray(wei), np.ascontiguousarray(wei[::-1])[::-1]):
        assert np.shares_memory(given.pack(strided), strided)
        place.clear()
        dst.fill(9)
        given.run(src, given.pack(strided), bias, dst)
        np.testing.assert_array_equal(dst, expected)
        assert bool(place) == repairs


@pytest.mark.parametrize(
    "text", ["n3_ic150ih9iw10_oc70k3_p1", "n2_ic150ih9iw10_oc70k3_s2_p1_nhwc", "g2_ic280ih12_oc32k3_s2_p1_bias", "ic64ih18_oc64k3_p1"]
)
@pytest.mark.parametrize("near", [0, cost.WINOGRAD_NEAR_BYTES])
def test_given_weights_of_several_chunks_have_the_same_bits(text, near, monkeypatch):
    monkeypatch.setattr(cost, "WINOGRAD_NEAR_BYTES", near)
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    plan = plan_problem(p, algorithm="winograd", threads=2)
    expected, found = result_array(p), result_array(p)
    plan.run(src, plan.pack(wei), bias, expected)
    given = plan.given()
    for weights in (wei, np.ascontiguousarray(wei.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)):
        given.run(src, given.pack(weights), bias, found)
        assert_same_bits(found, expected, text)


@pytest.mark.parametrize(("m", "text", "bits"), [(6, "s1_f32", 512), (2, "s2_f64", 512), (4, "s1_f32", 256), (4, "s2_f32", 512)])
def test_given_weights_of_any_transform_and_target_have_the_same_bits(m, text, bits):
    """Each pair of rows of transformed weights; what 256-bit targets compute runs on wider ones, too."""
    target = next((target for target in TARGETS if target.fma and target.bits == bits), detect()) if bits < detect().bits else detect()
    p = Problem.parse(f"ic140ih14_oc70k3_p1_{text}")
    src, wei, bias = operands(p)
    expected, found = result_array(p), result_array(p)
    plan = winograd.build(p, target, plan_problem, 1, m)
    plan.run(src, plan.pack(wei), bias, expected)
    given = winograd.build(p, target, plan_problem, 1, m, True)
    for weights in (wei, np.ascontiguousarray(wei.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)):
        given.run(src, given.pack(weights), bias, found)
        assert_same_bits(found, expected, text)


def test_given_weights_of_many_groups_of_blocks_are_packed_once_a_call(monkeypatch):
    """And not kept: the caller's serve where blocks are computed again."""
    monkeypatch.setattr(cost, "WINOGRAD_GIVEN_GROUPS", 0)  # how many there are depends on the processor's caches
    p = Problem.parse("n5_ic150ih7iw9_oc70k3_p1")
    given = plan_problem(p, algorithm="winograd", threads=1).given()
    src, wei, bias = operands(p)
    launch = given.prepare(src, given.pack(wei), dst := result_array(p))
    packs, pack = [], winograd.Packing.__call__
    monkeypatch.setattr(winograd.Packing, "__call__", lambda *args, **how: packs.append(how) or pack(*args, **how))
    launch(src, wei, bias, dst)
    assert packs == [{"kept": False}]


@pytest.mark.parametrize("filters_first", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_weights_of_a_call_are_asked_for_before_they_are_transformed(filters_first, turned):
    """Every line of a chunk of channels: of a filter's taps side by side, or of filters, forwards or turned by half a turn."""
    icg, ocg, lanes, mr = CHUNK, 64, 16, 4
    numbers = np.arange(icg * ocg * 9, dtype="f4")
    if turned:  # as a gradient has them: channels of input and output swapped
        wei = numbers.reshape((3, 3, icg, ocg) if filters_first else (icg, ocg, 3, 3))
        wei = wei.transpose((3, 2, 0, 1) if filters_first else (1, 0, 2, 3))[:, :, ::-1, ::-1]
    else:
        wei = numbers.reshape((3, 3, icg, ocg) if filters_first else (ocg, icg, 3, 3))
        wei = wei.transpose(3, 2, 0, 1) if filters_first else wei
    soon = Packing(None, None, "f32", lanes, 4, mr, 1).ahead(wei)
    first = wei.ctypes.data - numbers.ctypes.data + soon["soon_low"]
    asked = {
        (first + call // soon["soon_lines"] * soon["soon_outer"] + call % soon["soon_lines"] * 64 + channel * soon["soon_step"]) // 64
        for call in range(soon["soon_calls"])
        for channel in range(CHUNK)
    }
    every = set(range(numbers.nbytes // 64))
    assert every <= asked
    assert len(asked) <= len(every) + ocg


def test_transformed_weights_of_a_filter_lie_in_many_sets_of_a_cache():
    """Of those of one channel and filter, at each (i, j) one, few have addresses that are equal modulo a page."""
    p = Problem(ic=256, oc=256, ih=14, iw=14, kh=3, kw=3, pt=1, pb=1, pl=1, pr=1)
    head, _ = Packing(None, turn_kernel("f32", 16), "f32", 16, 4, 4, 1).head(p, operands(p)[1], CHUNK // 16)
    pitch = int(head[Head._fields.index("pitch")])
    assert len({place * pitch % 4096 // 64 for place in range(36)}) == 36


def test_functional_calls_pack_nothing_where_weights_are_given(monkeypatch):
    p = Problem.parse("ic150ih7iw9_oc70k3_p1_f32")
    src, wei, _ = operands(p)
    expected = fastconv.plan(src, wei, padding=1, threads=1, algorithm="winograd")(src)
    monkeypatch.setattr(winograd.Packing, "__call__", None)
    assert_same_bits(fastconv.conv2d(src, wei, padding=1, threads=1, algorithm="winograd"), expected)


@pytest.mark.parametrize("order", ["OIHW", "OHWI", "HWIO", "HWOI"])
@pytest.mark.parametrize("ic", [64, 19])
def test_weights_are_packed_as_their_copies(ic, order):
    """Each order in memory, as it is and as a gradient has it: channels and filters exchanged and turned by half a turn, in place."""
    p = Problem.parse(f"ic{ic}ih28_oc64k3_p1")
    plan, lanes = winograd.build(p, detect(), plan_problem, 1, 2), detect().lanes(4)
    rows = 16 * -(-p.oc // (plan.pack_weights.mr * lanes))
    sizes = {"O": 64, "I": ic, "H": 3, "W": 3}
    memory = np.random.default_rng(0).standard_normal([sizes[axis] for axis in order]).astype("f4")
    forward = memory.transpose([order.index(axis) for axis in "OIHW"])
    gradient = memory.transpose([order.index(axis) for axis in "IOHW"])[:, :, ::-1, ::-1]
    for wei in (forward, gradient) if ic == p.oc else (forward,):
        expected, found = plan.pack(np.ascontiguousarray(wei)), plan.pack(wei)
        # of each place of a transform, but for what is spare behind them
        places = [packed[0, 0, 0, HEAD : packed.size - wei.size].reshape(rows, -1)[:, : -SPARE * lanes] for packed in (found, expected)]
        assert_same_bits(*places, "transformed weights")
        assert_same_bits(weights_of(p, found), wei, "weights as they are")
        assert weights_of(p, found).strides == wei.strides, "or they were turned to be copied"


def test_weights_that_are_repeated_with_gaps_are_kept_as_they_are():
    """As many bytes from the first to the last as there are weights: 2 equal filters of 4 channels, which lie 21 elements apart."""
    p = Problem.parse("ic4ih28_oc2k3_p1")
    memory = np.random.default_rng(0).standard_normal(72).astype("f4")
    wei = np.lib.stride_tricks.as_strided(memory, (2, 4, 3, 3), (0, 84, 12, 4))
    assert_same_bits(weights_of(p, winograd.build(p, detect(), plan_problem, 1, 2).pack(wei)), wei, "weights as they are")
