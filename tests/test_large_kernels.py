"""Large kernels on floats in the dialects: transformed, within the transform's promise; never where precision is strict."""

import numpy as np
import pytest
import scipy.signal

import fastconv
from fastconv import ndimage, opencv
from tests.oracles import assert_close, peer_bound, transform_bound

SIZE, TAPS = 400, 41
_rng = np.random.default_rng(8)
IMAGE = _rng.standard_normal((SIZE, SIZE)).astype("f4")
WEIGHTS = _rng.standard_normal((TAPS, TAPS)).astype("f4")
EXACT = scipy.signal.fftconvolve(np.pad(IMAGE.astype("f8"), TAPS // 2, "reflect"), WEIGHTS[::-1, ::-1].astype("f8"), "valid")
DIALECTS = {
    "opencv.filter2D": lambda image, **how: opencv.filter2D(image, -1, WEIGHTS, **how),
    "ndimage.correlate": lambda image, **how: ndimage.correlate(image, WEIGHTS, mode="mirror", **how),
    "ndimage.convolve": lambda image, **how: ndimage.convolve(image, WEIGHTS[::-1, ::-1], mode="mirror", **how),
    "conv2d": lambda image, **how: fastconv.conv2d(image, WEIGHTS, padding="same", padding_mode="reflect", **how),
}


def test_they_are_transformed():
    assert "plan: (fft" in fastconv.explain(IMAGE, WEIGHTS, padding="same", padding_mode="reflect")


@pytest.mark.parametrize("name", DIALECTS)
def test_within_the_transforms_bound_and_nan_in_its_windows(name):
    allowed = transform_bound("fft", "f4", IMAGE, WEIGHTS)
    assert_close(DIALECTS[name](IMAGE), EXACT, allowed, name)
    image = IMAGE.copy()
    image[200, 150] = np.nan
    expected = EXACT.copy()
    reach = TAPS // 2
    expected[200 - reach : 201 + reach, 150 - reach : 151 + reach] = np.nan
    assert_close(DIALECTS[name](image), expected, allowed, name)


@pytest.mark.parametrize("name", ["opencv.filter2D", "conv2d"])
def test_strict_sums_are_the_direct_ones(name):
    image = np.zeros((SIZE, SIZE), "f4")
    image[7, 9] = 1
    result = DIALECTS[name](image, precision="strict")
    assert np.count_nonzero(result[100:]) == 0
    magnitude = scipy.signal.fftconvolve(np.pad(np.abs(IMAGE.astype("f8")), TAPS // 2, "reflect"), np.abs(WEIGHTS[::-1, ::-1]), "valid")
    assert_close(DIALECTS[name](IMAGE, precision="strict"), EXACT, peer_bound("f4", TAPS * TAPS, magnitude), name)
