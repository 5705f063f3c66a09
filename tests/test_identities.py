"""What convolution is, without an oracle: linear, shift-invariant, and the same problem seen in other ways.

Whole numbers, so that every algorithm of the sum class must agree exactly.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv.cpu.target import detect
from fastconv.planning.problem import BORDERS, Problem
from tests.oracles import TRANSFORM, assert_close, peer_bound
from tests.problems import ALGORITHMS, CASES, operands, run, shapes

bounded = settings(max_examples=12, deadline=None, derandomize=True)
extents = st.tuples(st.integers(7, 15), st.integers(7, 40))
kernels = st.tuples(st.integers(1, 5), st.integers(1, 6))
seeds = st.integers(0, 2**31)


def whole(seed, *shape):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype("f4")


def every(p, *arguments, **keywords):
    """(algorithm, result) of each algorithm that takes the problem."""
    for name, algorithm in ALGORITHMS.items():
        if algorithm.reject(p, detect()) is None:
            yield name, run(p, *arguments, algorithm=name, **keywords)


def agree(name, result, expected, p):
    """Equal, or for a transform within its own noise on numbers of this size."""
    allowed = peer_bound("f4", TRANSFORM[name](p), np.full(expected.shape, 1e3)) if name in TRANSFORM else 0
    assert_close(result, expected, allowed, f"{name} {p}")


@st.composite
def problems(draw):
    (ih, iw), (kh, kw) = draw(extents), draw(kernels)
    g = draw(st.integers(1, 2))
    return Problem(
        n=draw(st.integers(1, 2)), g=g, ic=g * draw(st.integers(1, 4)), oc=g * draw(st.integers(1, 18)), ih=ih, iw=iw, kh=kh, kw=kw,
        sh=draw(st.integers(1, 2)), sw=draw(st.integers(1, 2)), pt=draw(st.integers(0, 3)), pb=draw(st.integers(0, 3)),
        pl=draw(st.integers(0, 3)), pr=draw(st.integers(0, 3)), border=draw(st.sampled_from(BORDERS)),
    )  # fmt: skip


@bounded
@given(problems(), seeds, st.integers(-3, 3))
def test_linear_in_the_image_and_in_the_weights(p, seed, factor):
    src, wei, _, _ = shapes(p)
    x, y, w, v = whole(seed, *src), whole(seed + 1, *src), whole(seed + 2, *wei), whole(seed + 3, *wei)
    of_x, of_y, of_v = (dict(every(p, *pair)) for pair in ((x, w), (y, w), (x, v)))
    for name, result in every(p, x + factor * y, w):
        agree(name, result, of_x[name] + factor * of_y[name], p)
    for name, result in every(p, x, w + factor * v):
        agree(name, result, of_x[name] + factor * of_v[name], p)


@bounded
@given(extents, kernels, seeds)
def test_an_impulse_returns_the_kernel_reversed(size, kernel, seed):
    p = Problem(ih=size[0], iw=size[1], kh=kernel[0], kw=kernel[1], oc=3, pt=kernel[0] - 1, pb=kernel[0] - 1,
                pl=kernel[1] - 1, pr=kernel[1] - 1)  # fmt: skip
    w = whole(seed, *shapes(p)[1])
    y, x = seed % size[0], seed // 7 % size[1]
    impulse = np.zeros(shapes(p)[0], "f4")
    impulse[0, 0, y, x] = 1
    for name, result in every(p, impulse, w):
        expected = np.zeros(result.shape, "f4")
        expected[0, :, y : y + kernel[0], x : x + kernel[1]] = w[:, 0, ::-1, ::-1]
        agree(name, result, expected, p)


@bounded
@given(problems(), seeds, st.integers(0, 3), st.integers(0, 3))
def test_shifting_the_image_shifts_the_result(p, seed, rows, cols):
    p = p.replace(sh=1, sw=1, pt=0, pb=0, pl=0, pr=0)
    w, x = whole(seed, *shapes(p)[1]), whole(seed + 1, *shapes(p)[0])
    shifted = np.zeros_like(x)
    shifted[..., rows:, cols:] = x[..., : p.ih - rows, : p.iw - cols]
    plain = dict(every(p, x, w))
    for name, result in every(p, shifted, w):
        agree(name, result[..., rows:, cols:], plain[name][..., : p.oh - rows, : p.ow - cols], p)


@bounded
@given(problems(), seeds)
def test_flips_and_transposition(p, seed):
    p = p.replace(sh=1, sw=1)
    w, x = whole(seed, *shapes(p)[1]), whole(seed + 1, *shapes(p)[0])
    plain = dict(every(p, x, w))
    for name, result in every(p.replace(pt=p.pb, pb=p.pt), x[..., ::-1, :], w[..., ::-1, :]):
        agree(name, result[..., ::-1, :], plain[name], p)
    for name, result in every(p.replace(pl=p.pr, pr=p.pl), x[..., ::-1], w[..., ::-1]):
        agree(name, result[..., ::-1], plain[name], p)
    turned = p.replace(ih=p.iw, iw=p.ih, kh=p.kw, kw=p.kh, pt=p.pl, pb=p.pr, pl=p.pt, pr=p.pb)
    for name, result in every(turned, x.swapaxes(2, 3), w.swapaxes(2, 3)):
        agree(name, result.swapaxes(2, 3), plain[name], p)


@bounded
@given(problems(), seeds)
def test_groups_are_a_concatenation(p, seed):
    p = p.replace(g=2, ic=2 * p.ic, oc=2 * p.oc)
    x, w = whole(seed, *shapes(p)[0]), whole(seed + 1, *shapes(p)[1])
    half = p.replace(g=1, ic=p.ic // 2, oc=p.oc // 2)
    parts = [dict(every(half, x[:, s * half.ic :][:, : half.ic], w[s * half.oc :][: half.oc])) for s in (0, 1)]
    for name, result in every(p, x, w):
        # an algorithm for groups refuses one alone
        agree(name, result, np.concatenate([part.get(name, part["reference"]) for part in parts], axis=1), p)


@bounded
@given(problems(), seeds)
def test_channels_are_a_sum_and_images_a_stack(p, seed):
    p = p.replace(g=1)
    x, w = whole(seed, *shapes(p)[0]), whole(seed + 1, *shapes(p)[1])
    one = p.replace(ic=1, n=1)
    expected = np.stack([sum(run(one, x[n : n + 1, c : c + 1], w[:, c : c + 1], algorithm="reference")[0] for c in range(p.ic))
                         for n in range(p.n)])  # fmt: skip
    for name, result in every(p, x, w):
        agree(name, result, expected, p)


@bounded
@given(problems(), seeds)
def test_stride_is_a_slice_and_padding_a_larger_image(p, seed):
    x, w = whole(seed, *shapes(p)[0]), whole(seed + 1, *shapes(p)[1])
    padded = np.pad(x, ((0, 0), (0, 0), (p.pt, p.pb), (p.pl, p.pr)), mode=p.border)
    dense = p.replace(sh=1, sw=1, pt=0, pb=0, pl=0, pr=0, ih=p.ih_padded, iw=p.iw_padded)
    full = dict(every(dense, padded, w))
    for name, result in every(p, x, w):
        agree(name, result, full[name][..., :: p.sh, :: p.sw], p)


@bounded
@given(problems(), seeds, st.integers(1, 3), st.integers(1, 3))
def test_dilation_spreads_the_kernel(p, seed, dh, dw):
    p = p.replace(dh=dh, dw=dw, ih=p.ih + 10, iw=p.iw + 12)
    x, w = whole(seed, *shapes(p)[0]), whole(seed + 1, *shapes(p)[1])
    spread = np.zeros((*w.shape[:2], p.kh_span, p.kw_span), "f4")
    spread[..., ::dh, ::dw] = w
    dense = dict(every(p.replace(dh=1, dw=1, kh=p.kh_span, kw=p.kw_span), x, spread))
    for name, result in every(p, x, w):
        agree(name, result, dense[name], p)


@pytest.mark.parametrize("name", CASES)
def test_a_zero_image_gives_exact_zeros(name):
    p = CASES[name]
    src, wei, _ = operands(p)
    bias = np.zeros(p.oc, "f4") if p.epilogue.startswith("bias") else None
    for algorithm, result in every(p, np.zeros_like(src), wei, bias):
        assert not result.any(), f"{algorithm} {p}"


@bounded
@given(extents, kernels, seeds)
def test_full_convolution_commutes(size, kernel, seed):
    x, w = whole(seed, *size), whole(seed + 1, *kernel)
    assert np.array_equal(fastconv.convolve2d(x, w), fastconv.convolve2d(w, x))
    assert np.array_equal(fastconv.correlate2d(x, w), fastconv.convolve2d(x, w[::-1, ::-1]))
    assert np.array_equal(fastconv.correlate2d(x, w), fastconv.correlate2d(w, x)[::-1, ::-1])
    third = whole(seed + 2, 2, 3)
    nested = fastconv.convolve2d(fastconv.convolve2d(x, w), third)
    assert np.array_equal(nested, fastconv.convolve2d(x, fastconv.convolve2d(w, third)))
