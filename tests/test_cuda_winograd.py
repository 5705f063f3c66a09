"""Errors of a card's F(2x2) and F(4x4), whose arithmetic is done here with arrays of float32, and which of them is chosen."""

import itertools

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from bench.cases import load
from fastconv.cuda import winograd, winograd_block, winograd_large
from fastconv.cuda.target import SM75, SM80, SM90
from fastconv.planning.problem import Problem
from fastconv.planning.winograd_points import Transform
from tests.oracles import truth, unit
from tests.problems import operands
from tests.test_cuda_simulator import NOT_FINITE

F = np.float32


class Single:
    """An emitter of arrays of float32; what is fused is rounded once, as good as always."""

    plus, times = staticmethod(np.add), staticmethod(np.multiply)

    def number(self, kind, value):
        return F(value)

    def fma(self, a, b, c):
        return (np.float64(a) * np.float64(b) + c).astype(F)


def computed(src, wei, m):
    """What kernels make of whole squares of an image and weights, both float32."""
    e, extent = Single(), m + 2
    down, across = (src.shape[1] - 2) // m, (src.shape[2] - 2) // m
    squares = np.lib.stride_tricks.sliding_window_view(src, (extent, extent), axis=(1, 2))[:, ::m, ::m]
    pixels = [squares[..., i, j].reshape(len(src), -1) for i in range(extent) for j in range(extent)]
    taps = [wei[:, :, i, j] for i in range(3) for j in range(3)]
    if m == 2:
        pixels = winograd_block.transformed(e, winograd_block.pixel_points, pixels, 4)
        weights = winograd_block.transformed(e, winograd_block.weight_points, taps, 3)
    else:
        points, scale = Transform(winograd_large.Points(e), m), F(winograd_large.SCALE)
        pixels = winograd_block.transformed(e, lambda _, x: points.pixels(x), [x * scale for x in pixels], extent)
        weights = winograd_large.scaled_weight_points(e, taps, m)
    sums = []
    for x, w in zip(pixels, weights, strict=True):
        total = np.zeros((len(wei), x.shape[1]), F)
        for c in range(len(src)):
            total = e.fma(w[:, c, None], x[c], total)
        sums.append(total)
    if m == 2:
        found = winograd_block.transformed(e, winograd_block.results_of_points, sums, 4)
    else:
        found = winograd_block.transformed(e, lambda _, x: points.results(x), sums, extent)
        found = [x * F(winograd_large.SCALE**-2) for x in found]
    return np.array(found).reshape(m, m, len(wei), down, across).transpose(2, 3, 0, 4, 1).reshape(len(wei), down * m, across * m)


@pytest.mark.parametrize(("m", "promised"), [(2, 5e-6), (4, 5e-6)])
def test_error_of_layers(m, promised):
    """Half of what precision "default" promises is left."""
    for ic in (64, winograd.MOST_CHANNELS):
        p = Problem(ic=ic, ih=14, iw=14, oc=8, kh=3, kw=3)
        src, wei, _ = operands(p)
        src = np.maximum(src, 0)
        exact = truth(p, src, wei).value[0]
        error = np.abs(computed(src[0], wei, m) - exact).max() / np.abs(exact).max()
        assert unit("f4") < error < promised, (ic, error)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("ic", [1, 40, 300])
def test_error_stays_below_what_is_stated_for_hard_images(m, ic):
    """Equal channels and filters of one tap, whose errors add up."""
    rng = np.random.default_rng(ic)
    shape = (1, ic, 10, 10)
    images = (np.full(shape, 1.1), (-1.0) ** np.indices((10, 10)).sum(0) * np.full((1, ic, 1, 1), 1.3),
              rng.standard_normal((1, 1, 10, 10)) * np.ones((1, ic, 1, 1)), rng.choice([-1.1, 1.1], shape))  # fmt: skip
    filters = (np.eye(9).reshape(9, 1, 3, 3) * np.full((1, ic, 1, 1), 1 / 3), rng.standard_normal((9, 1, 3, 3)) * np.ones((1, ic, 1, 1)),
               rng.random((9, ic, 3, 3)))  # fmt: skip
    p = Problem(ic=ic, ih=10, iw=10, oc=9, kh=3, kw=3)
    for image, weights in itertools.product(images, filters):
        src, wei = image.astype(F), weights.astype(F)
        exact = truth(p, src, wei)
        assert np.all(np.abs(computed(src[0], wei, m) - exact.value[0]) <= winograd.most_error(p, m) * unit(F) * exact.scale)


def test_small_and_large_numbers_lose_nothing():
    p = Problem(ic=3, ih=10, iw=10, oc=4, kh=3, kw=3)
    src, wei, _ = operands(p)
    for low, high in ((2.0**-145, 2.0**100), (2.0**90, 2.0**-145)):
        x, w = src * F(low), wei * F(high)
        exact = truth(p, x, w)
        allowed = winograd.most_error(p, 4) * unit(F) * exact.scale + 27 * float(np.finfo(F).smallest_subnormal)
        assert np.all(np.abs(computed(x[0], w, 4) - exact.value[0]) <= allowed)


def chosen(text, target=SM90):
    p = Problem.parse(text)
    assert winograd.extent(p, target) == winograd.best_tile(p, target).m
    return winograd.extent(p, target)


def test_the_extent_is_that_of_one_image_and_the_card():
    assert [chosen(f"ic64ih{size}_oc64k3_p1") for size in (7, 14, 28, 56)] == [2, 2, 4, 4]
    assert [chosen(f"n64_ic64ih{size}_oc64k3_p1") for size in (7, 14, 28, 56)] == [2, 2, 4, 4]
    assert [chosen("ic64ih56_oc64k3_p1", target) for target in (SM75, SM80, SM90)] == [2, 4, 4]
    assert chosen("ic1024ih56_oc64k3_p1") == 2
    assert chosen("ic1024ih56_oc64k3_p1_fast") == 4


def test_layers_that_take_each_extent():
    layers = [p for name in ("resnet50", "vgg16", "resnext50") for p in load(name) if winograd.reject(p, SM90) is None]
    assert {winograd.extent(p, SM90) for p in layers} == {2, 4}


def test_blocks_fit_the_cards_they_are_for():
    for tile in winograd.TILES:
        assert tile.shared <= (99 << 10 if tile.m == 4 else SM80.shared)
        assert tile.step % (tile.threads * winograd_block.VECTOR) == 0


def test_the_simulator_is_shown_both_extents():
    for cases, least in ((winograd.CASES, 3), (itertools.chain(*NOT_FINITE["winograd"]), 4)):
        found = [winograd.extent(Problem.parse(case.split()[0]), SM90) for case in cases]
        assert min(found.count(2), found.count(4)) >= least, found
