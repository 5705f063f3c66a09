"""The same bits for any number of threads, of images, strides and addresses of memory, tile and position."""

import itertools

import numpy as np
import pytest

import fastconv
from fastconv.cpu import direct
from fastconv.cpu.target import detect
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import TRANSFORM, assert_same_bits
from tests.problems import ALGORITHMS, dense, fitted, operands, result_array, run, shapes, typed

# a random image repeated with this period, coprime to every block
PERIOD = (7, 11)
PROBLEMS = ("n3_ih40iw90_k3_p1", "ih33iw100_k5_p2_reflect", "n2_ih45iw64_k4_s2_p1", "ih21iw70_kh9kw2", "n3_ic5ih20iw33_oc9k3_p1",
            "n2_ic35ih17iw26_oc50k3_bias", "n3_g6_ic12ih23iw34_oc12k3_p1", "ic20ih15iw20_oc33k1", "n2_ic18ih19iw27_oc20k3_s2",
            "n2_ic6ih25iw40_oc7k3_d2_p2", "ih40iw71_k3_s3", "ic48ih9iw14_oc64k3_p1_nhwc_hwio")  # fmt: skip


def accepted(texts=PROBLEMS, dtypes=("f32", "f64")):
    for algorithm, text, dtype in itertools.product(ALGORITHMS, texts, dtypes):
        p = typed(Problem.parse(text), dtype)
        if ALGORITHMS[algorithm].reject(p, detect()) is None and (dtype == "f32" or dense(p)):
            yield pytest.param(algorithm, p, id=f"{algorithm}-{text}-{dtype}")


@pytest.mark.parametrize(("algorithm", "p"), list(accepted()))
def test_for_any_number_of_threads_and_images(algorithm, p):
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, algorithm, 1)
    for threads in (2, 3, 7):
        assert_same_bits(run(p, src, wei, bias, algorithm, threads), expected, f"{threads} threads")
    for n in range(p.n):
        single = run(p.replace(n=1), src[n : n + 1], wei, bias, algorithm, 1 + n)
        assert_same_bits(single, expected[n : n + 1], f"image {n} alone")


def _displaced(x, elements):
    """A copy whose first element lies ``elements`` items behind an address divisible by 64."""
    order = np.argsort([-stride for stride in x.strides], kind="stable")
    dense = np.ascontiguousarray(x.transpose(order))
    memory = np.empty(dense.size + 64 + elements, x.dtype)
    start = -(memory.ctypes.data // x.itemsize) % (64 // x.itemsize) + elements
    copy = memory[start : start + dense.size].reshape(dense.shape)
    copy[...] = dense
    return copy.transpose(np.argsort(order))


@pytest.mark.parametrize(("algorithm", "p"), list(accepted(PROBLEMS[::3], ("f32",))))
def test_for_any_address(algorithm, p):
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, algorithm)
    for one, two, three in ((0, 0, 0), (1, 3, 5), (7, 1, 2), (15, 14, 13), (8, 4, 1)):
        dst = _displaced(result_array(p), three)
        run(p, _displaced(src, one), _displaced(wei, two), bias, algorithm, dst=dst)
        assert_same_bits(dst, expected, f"{one} {two} {three}")


@pytest.mark.parametrize(
    "text", ["n2_ih70iw90_k7_p3_reflect", "ih45iw70_kh9kw4_s2_pt3pb4pl1pr2_wrap", "ih60iw200_k7_d3_p9_symmetric", "ih12iw9_k5_p4_edge"]
)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_for_any_pitch(text, dtype, monkeypatch):
    """Rows a power of two apart are read from a copy."""
    p = typed(Problem.parse(text), dtype)
    if dtype == "f64" and not dense(p):
        pytest.skip("strided and dilated kernels are compiled for float32 only")
    crowded, told = direct._crowded, []
    monkeypatch.setattr(direct, "_crowded", lambda *arguments: told.append(crowded(*arguments[:-1], 32 << 10)) or told[-1])
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "direct")
    for pitch in (1 << 12, 1 << 13, 1 << 14):
        apart = np.zeros((*src.shape[:3], pitch // src.itemsize), src.dtype)[..., : p.iw]
        apart[...] = src
        assert_same_bits(run(p, apart, wei, bias, "direct", 2), expected, f"{pitch}")
    assert told == [False, True, True, True]


@pytest.mark.parametrize(("kh", "ways", "copied"), [(5, 8, False), (9, 8, True), (9, 12, False), (21, 12, False), (21, 9, True)])
def test_rows_are_copied_where_the_first_level_cache_has_too_few_lines(kh, ways, copied):
    p, tile = Problem.parse(f"ih64iw1024_kh{kh}kw3_f32"), direct.Tile(32, rows=4, vecs=4, tall=8)
    assert direct._crowded(p, tile, 64, 1 << 12, ways << 12) is copied
    assert not direct._crowded(p, tile, 64, (1 << 12) + 512, ways << 12)


@pytest.mark.parametrize(("algorithm", "p"), [case for case in accepted() if case.values[0] not in TRANSFORM])
def test_for_any_position(algorithm, p):
    """A periodic image gives a periodic result, bit by bit, and equal filters equal channels; a transform's rounding has places."""
    rng = np.random.default_rng(6)
    src_shape, wei_shape, bias_shape, _ = shapes(p)
    dtype = {"f32": "f4", "f64": "f8"}[p.dst]
    patch = rng.standard_normal((1, src_shape[1], *PERIOD))
    repeat = (p.n, 1, -(-p.ih // PERIOD[0]), -(-p.iw // PERIOD[1]))
    src = np.tile(patch, repeat)[..., : p.ih, : p.iw].astype(dtype)
    # the filters of a group are one filter
    wei = np.repeat(rng.standard_normal((p.g, *wei_shape[1:])), p.oc // p.g, axis=0).astype(dtype)
    bias = np.full(bias_shape, 0.3, dtype) if p.epilogue else None
    if p.src_layout == "nhwc":
        src = np.ascontiguousarray(src.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    result = run(p, src, wei, bias, algorithm, 2)
    # outputs whose window lies inside the image
    y0, x0 = -(-p.pt // p.sh), -(-p.pl // p.sw)
    y1, x1 = (p.ih + p.pt - p.kh_span) // p.sh + 1, (p.iw + p.pl - p.kw_span) // p.sw + 1
    inside = result[..., y0:y1, x0:x1]
    rows, cols = PERIOD  # coprime to every stride here: the result's period is the image's
    assert inside.shape[2] > rows or inside.shape[3] > cols
    assert_same_bits(inside[..., rows:, :].copy(), inside[..., : max(inside.shape[2] - rows, 0), :].copy(), "rows")
    assert_same_bits(inside[..., cols:].copy(), inside[..., : max(inside.shape[3] - cols, 0)].copy(), "columns")
    for channel in range(p.oc):
        first = channel // (p.oc // p.g) * (p.oc // p.g)
        assert_same_bits(result[:, channel], result[:, first], "channels")
    for n in range(p.n):
        assert_same_bits(result[n], result[0], "images")


TABLES = [(name, registers) for name, algorithm in ALGORITHMS.items()
          for registers in sorted({tile.registers for tile in getattr(algorithm, "TILES", ())})]  # fmt: skip


# rows for fewer registers than this processor's: those of two algorithms, the rest with --slow
@pytest.mark.parametrize(("name", "registers"), [
    pytest.param(name, registers, marks=[pytest.mark.slow] * (registers < detect().registers and name not in ("direct", "separable")))
    for name, registers in TABLES
])  # fmt: skip
def test_for_any_tile(name, registers, monkeypatch):
    """The tiles of one class of targets differ in speed only."""
    module = ALGORITHMS[name]
    tiles = [tile for tile in module.TILES if tile.registers == registers]
    size = len(module.TILES)
    if detect().registers < registers:
        pytest.skip(f"the tiles need {registers} registers")
    for text in ("ic5ih20iw73_oc40k3_p1_bias", "ic2ih31iw50_oc33kh11kw2"):
        p = fitted(name, Problem.parse(text))
        if module.reject(p, detect()) is not None:
            continue
        src, wei, bias = operands(p)
        results = []
        for tile in tiles:
            monkeypatch.setattr(module, "TILES", (tile,) * size)
            if name == "shallow_last" and module.reject(p, detect()) is not None:  # of groups, or of first layers
                continue
            plan = module.build(p, detect(), plan_problem, 1)
            results.append(result_array(p))
            plan.run(src, plan.pack(wei), bias, results[-1])
            assert_same_bits(results[-1], results[0], f"{plan.kernel} {text}")


def test_for_every_way_to_call():
    rng = np.random.default_rng(9)
    x, w = rng.standard_normal((3, 20, 22, 31)).astype("f4"), rng.standard_normal((30, 20, 3, 3)).astype("f4")
    expected = fastconv.conv2d(x, w, padding=1)
    for threads in (1, 2, 64):
        assert_same_bits(fastconv.conv2d(x, w, padding=1, threads=threads), expected)
        assert_same_bits(fastconv.plan(x, w, padding=1, threads=threads)(x), expected)
        with fastconv.threads(threads):
            assert_same_bits(fastconv.conv2d(x, w, padding=1), expected)
    assert_same_bits(fastconv.conv2d(x[2], w, padding=1), expected[2])
    assert_same_bits(fastconv.conv2d(x, w, padding="same", out=np.empty_like(expected)), expected)
    image, kernel = x[0, 0], w[0, 0]
    assert_same_bits(fastconv.correlate2d(image, kernel, "same"), fastconv.conv2d(image, kernel, padding="same"))


def test_repeated_calls():
    rng = np.random.default_rng(10)
    x, w = rng.standard_normal((1, 3, 64, 64)).astype("f4"), rng.standard_normal((16, 3, 5, 5)).astype("f4")
    expected = fastconv.conv2d(x, w)
    for _ in range(20):
        assert_same_bits(fastconv.conv2d(x, w), expected)
