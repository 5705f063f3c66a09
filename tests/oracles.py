"""Independent truth, and every tolerance of the test suite: nothing outside this file decides how far off a result may be.

*Sum class* (the default): ``|error| <= 2 (T + 4) u sum|w x|`` for each output on its own, T products per sum, u half the
epsilon of the accumulator.  *Transform class*: ``|error| <= C u max|x| sum|w|`` with the C stated in `TRANSFORM`.  *Reduced class*:
the sum class's, and what `REDUCED` says of each factor.  Integers are equal, wrapped.  The exact value is summed from
`numpy.pad`'s borders in float64 (longdouble for 64-bit results), without fastconv's code.
"""

import warnings
from typing import NamedTuple

import cv2
import numpy as np
import scipy.ndimage
import scipy.signal
from scipy import special

from fastconv.cpu import fast_fir, fft_repair, lowrank, weights_winograd, winograd, winograd_rows, winograd_rows_last, winograd_shallow
from fastconv.planning.bfloat import BITS, widened
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import DTYPES, Problem, parse_epilogue

# C, for a problem, of the algorithms that do not add up the products of the direct formula
TRANSFORM = {
    "fft": lambda p: fft_repair.MOST_ERROR,
    "winograd": winograd.most_error,
    "lowrank": lowrank.most_error,
    "fast_fir": fast_fir.most_error,
    "winograd_shallow": winograd_shallow.most_error,
    "weights_winograd": weights_winograd.most_error,
    "winograd_rows": winograd_rows.most_error,
    "winograd_rows_last": winograd_rows_last.most_error,
    "cuda winograd": lambda p: _of_a_card(p),
}
# How much larger than its children's an algorithm's C is: a complex number's parts are bounded by its modulus, sums of two by twice that.
COMPOSED = {"transposed": 1, "activated": 1, "complex": 2}
# relative error of a factor, of algorithms that round pixels and weights before they multiply (precision "fast")
REDUCED = {"tensor": 2.0**-11}
# largest |slope| of each activation
STEEPNESS = {"relu": 1.0, "relu6": 1.0, "sigmoid": 0.25, "tanh": 1.0, "silu": 1.1, "gelu": 1.13, "leaky_relu": 1.0}
ACTIVATION_ULPS = 8  # of an activation's own evaluation, in units of u (|y| + min(|x|, 1))


def children_on_card(p):
    """The plans that an image's gradient is made of on the simulator's card."""
    from fastconv.cuda.target import SM90

    return plan_problem(p, SM90, algorithm="transposed").children


def _of_a_card(p):
    """Of the m that the simulator's card takes."""
    from fastconv.cuda import winograd as on_card
    from fastconv.cuda.target import SM90

    return on_card.most_error(p, on_card.extent(p, SM90))


class Truth(NamedTuple):
    """``value``: the result before storage.  ``magnitude``: sum|w x| + |bias| per output.  ``scale``: max|x| sum|w|."""

    value: np.ndarray
    magnitude: np.ndarray
    scale: np.ndarray


def unit(dtype):
    """Half the epsilon of a floating type (the largest relative error of one rounding); 0 for integers."""
    dtype = np.dtype(dtype)
    return 2.0**-8 if dtype == BITS else np.finfo(dtype).eps / 2 if dtype.kind in "fc" else 0


def smallest(dtype):
    """The least positive number of a floating type."""
    return 2.0**-133 if dtype == BITS else float(np.finfo(dtype).smallest_subnormal)


def wide(dtype):
    """The type in which sums of ``dtype`` are exact enough to judge them."""
    dtype = np.dtype(dtype)
    if dtype.kind in "biu":
        return np.dtype(np.int64)  # wraps modulo 2**64: equal to any narrower wrapped sum after a cast
    narrow = dtype.itemsize // (2 if dtype.kind == "c" else 1) < 8
    names = (np.complex128, np.clongdouble) if dtype.kind == "c" else (np.float64, np.longdouble)
    return np.dtype(names[0 if narrow else 1])


def pad(x, p, fill=0):
    """The image with its border written out by `numpy.pad`."""
    widths = (*((0, 0),) * (x.ndim - 2), (p.pt, p.pb), (p.pl, p.pr))
    if not any(map(any, widths)):
        return x
    return np.pad(x, widths, constant_values=fill) if p.border == "constant" else np.pad(x, widths, mode=p.border)


def _window(x, p, ky, kx):
    """The pixels of a padded image under tap (ky, kx), for all outputs."""
    y, x0 = ky * p.dh, kx * p.dw
    return x[..., y : y + (p.oh - 1) * p.sh + 1 : p.sh, x0 : x0 + (p.ow - 1) * p.sw + 1 : p.sw]


def _sum_channels(wei, pixels):
    """``[n, g, o, pixel] = sum_c wei[g, o, c] * pixels[n, g, c, pixel]``; every product is formed where one is not finite."""
    if wei.dtype.kind == "i" or (np.isfinite(wei).all() and np.isfinite(pixels).all()):
        return np.matmul(wei, pixels)
    return np.einsum("goc,ngcp->ngop", wei, pixels)


def _forward(p, src, wei, fill):
    n, g, pixels = p.n, p.g, p.oh * p.ow
    padded = pad(src, p, fill)
    weights = wei.reshape(g, p.oc // g, p.ic // g, p.kh, p.kw)
    total = np.zeros((n, g, p.oc // g, pixels), src.dtype)
    for ky in range(p.kh):
        for kx in range(p.kw):
            total += _sum_channels(weights[..., ky, kx], _window(padded, p, ky, kx).reshape(n, g, p.ic // g, pixels))
    return total.reshape(n, p.oc, p.oh, p.ow)


def _backward_data(p, src, wei, fill):
    n, g = p.n, p.g
    grad = src.reshape(n, g, p.oc // g, p.oh * p.ow)
    weights = wei.reshape(g, p.oc // g, p.ic // g, p.kh, p.kw).swapaxes(1, 2)
    padded = np.zeros((n, p.ic, p.ih_padded, p.iw_padded), src.dtype)
    for ky in range(p.kh):
        for kx in range(p.kw):
            _window(padded, p, ky, kx)[...] += _sum_channels(weights[..., ky, kx], grad).reshape(n, p.ic, p.oh, p.ow)
    if p.border == "constant":
        return padded[:, :, p.pt : p.pt + p.ih, p.pl : p.pl + p.iw]
    rows = np.pad(np.arange(p.ih), (p.pt, p.pb), mode=p.border)
    cols = np.pad(np.arange(p.iw), (p.pl, p.pr), mode=p.border)
    dst = np.zeros((n, p.ic, p.ih, p.iw), src.dtype)
    np.add.at(dst, (slice(None), slice(None), rows[:, None], cols), padded)
    return dst


def _backward_weight(p, src, wei, fill):
    n, g = p.n, p.g
    grad = wei.reshape(n, g, p.oc // g, p.oh * p.ow)
    padded = pad(src, p, fill)
    dst = np.empty((g, p.oc // g, p.ic // g, p.kh, p.kw), src.dtype)
    for ky in range(p.kh):
        for kx in range(p.kw):
            pixels = _window(padded, p, ky, kx).reshape(n, g, p.ic // g, p.oh * p.ow)
            dst[..., ky, kx] = np.matmul(grad, pixels.swapaxes(2, 3)).sum(0)
    return dst.reshape(p.oc, p.ic // g, p.kh, p.kw)


_SUMS = {"fwd": _forward, "bwd_data": _backward_data, "bwd_weight": _backward_weight}


def terms(p):
    """T: the most products in one output."""
    return {"fwd": p.taps, "bwd_data": p.oc // p.g * p.kh * p.kw, "bwd_weight": p.n * p.oh * p.ow}[p.op]


def activation(epilogue, x):
    """The epilogue's activation in the type of ``x``, written differently from fastconv's."""
    _, name, slope, _ = parse_epilogue(epilogue)
    if name is None:
        return x
    with np.errstate(over="ignore"):
        return {
            "relu": lambda: np.maximum(x, 0),
            "relu6": lambda: np.minimum(np.maximum(x, 0), 6),
            "leaky_relu": lambda: np.maximum(x, 0) + slope * np.minimum(x, 0),
            "tanh": lambda: np.tanh(x),
            "sigmoid": lambda: 1 / (1 + np.exp(-x)),
            "silu": lambda: x / (1 + np.exp(-x)),
            "gelu": lambda: x * special.erfc(-x.astype(np.float64) / np.sqrt(2)) / 2,
        }[name]()


def _masked_truth(p, src, wei, mask):
    """Both sums, and what their errors, and that of the quotient, come to in the quotient."""
    valid = ~np.isnan(src) if mask is None else mask.reshape(src.shape)
    plain = p.replace(masked=False)
    total, weight = (truth(plain, x, wei) for x in (np.where(valid, src, src.dtype.type(0)), valid.astype(DTYPES[p.acc])))
    with np.errstate(all="ignore"):
        value = np.where(weight.value == 0, np.nan, total.value / weight.value)
        size = np.abs(weight.value).astype(np.float64)
        magnitude = (total.magnitude + np.abs(value).astype(np.float64) * weight.magnitude) / size
    return Truth(value, np.where(size == 0, 0, magnitude), total.scale)


def truth(p, src, wei, bias=None, fill=0):
    """The exact result of a problem and its two scales of error.

    Parameters
    ----------
    p : Problem
    src, wei, bias : ndarray
        As `fastconv.planning.plans.Plan.run` takes them, NCHW and OIHW.
    fill : scalar
        Outside the image under the constant border.

    Of a masked problem ``bias`` is the mask.
    """
    if p.masked:
        return _masked_truth(p, src, wei, bias)
    kind = wide(DTYPES[p.acc])
    sums = _SUMS[p.op]
    with np.errstate(all="ignore"):
        src, wei = widened(src), widened(wei)
        value = sums(p, src.astype(kind), wei.astype(kind), fill)
        if kind.kind == "i":
            magnitude, scale = np.zeros(value.shape), np.zeros(1)
        else:
            absolute = [np.abs(x.astype(kind)).astype(np.float64) for x in (src, wei)]
            magnitude = sums(p, *absolute, abs(fill))
            largest = max(float(absolute[0].max(initial=0, where=np.isfinite(absolute[0]))), abs(fill) if np.isfinite(fill) else 0)
            each = absolute[1].sum((2, 3))
            if p.op == "bwd_weight":  # `wei` is the gradient of the result, of all images
                scale = largest * each.sum(0)[:, None, None, None]
            else:
                of_group = each.reshape(p.g, p.oc // p.g, -1).sum(1) if p.op == "bwd_data" else each.sum(1)
                scale = largest * of_group.reshape(-1)[:, None, None]
        if bias is not None:
            value = value + bias.astype(kind)[:, None, None]
            magnitude = magnitude + np.abs(bias.astype(np.complex128))[:, None, None]
    return Truth(value, magnitude, scale)


def transform_constant(p, algorithm):
    """C of an algorithm whose sums, or whose children's, are transforms; 0 of direct sums."""
    if algorithm in TRANSFORM:
        return TRANSFORM[algorithm](p)
    if algorithm == "cuda transposed":
        return max((transform_constant(child.problem, of_card(child.algorithm)) for child in children_on_card(p)), default=0)
    if algorithm is None and p.op == "bwd_data":
        algorithm = plan_problem(p).algorithm
    children = plan_problem(p, algorithm=algorithm).children if algorithm in COMPOSED else ()
    found = [TRANSFORM[child.algorithm](child.problem) for child in children if child.algorithm in TRANSFORM]
    return COMPOSED[algorithm] * max(found) if found else 0


def bound(p, exact, algorithm=None):
    """How far each output may be from `stored(p, exact)`: the promise of the algorithm's class."""
    acc, dst = DTYPES[p.acc], DTYPES[p.dst]
    u = unit(acc)
    if not u:
        return np.zeros(exact.value.shape)
    constant = transform_constant(p, algorithm)
    if constant:
        allowed = constant * u * exact.scale + 8 * u * exact.magnitude
    else:
        allowed = 2 * (terms(p) + 4) * u * exact.magnitude
    used = [child.algorithm for child in children_on_card(p)] if algorithm == "cuda transposed" else [algorithm]
    reduced = max(REDUCED.get(name, 0) for name in (*used, None))
    if reduced:
        # the hardware's sums are not rounded to nearest either
        allowed = 2 * allowed + 2 * reduced * (1 + reduced) * exact.magnitude
    allowed = allowed + terms(p) * smallest(acc)
    _, name, slope, _ = parse_epilogue(p.epilogue)
    if name is not None:
        value = activation(p.epilogue, exact.value).astype(np.float64)
        own = ACTIVATION_ULPS * u * (np.abs(value) + np.minimum(np.abs(exact.value.astype(np.float64)), 1))
        allowed = allowed * max(STEEPNESS[name], slope) + own
    if parse_epilogue(p.epilogue).rounding:
        # sums on either side of a half round apart; where the bound is 0, sums are exact
        value = activation(p.epilogue, exact.value)
        with np.errstate(invalid="ignore"):
            near = np.abs(value + 0.5 - np.rint(value + 0.5)) <= allowed
        return np.where((allowed > 0) & np.isfinite(allowed), np.floor(allowed) + near, 0)
    if dst != acc and unit(dst):
        allowed = allowed * (1 + unit(dst)) + unit(dst) * np.abs(stored(p, exact)) + smallest(dst)
    return allowed


def of_card(name):
    """Under which name a CUDA algorithm's tolerance is stated: its own, unless it differs from that of the CPU's namesake."""
    return f"cuda {name}" if f"cuda {name}" in TRANSFORM or name in COMPOSED else name


def stored(p, exact):
    """The exact result as the problem stores it: activated, integers wrapped before, floats rounded into integers where it says so."""
    dst = DTYPES[p.dst]
    rounding = parse_epilogue(p.epilogue).rounding
    if rounding:
        value = activation(p.epilogue, exact.value)
        whole = np.rint(value) if rounding == "saturate" else np.floor(value + 0.5)
        return np.nan_to_num(np.clip(whole, np.iinfo(dst).min, np.iinfo(dst).max))
    return activation(p.epilogue, exact.value.astype(dst) if dst.kind in "iu" else exact.value)


def assert_within(result, p, exact, algorithm=None, what=""):
    """Every output is finite where the truth is, and within its own bound."""
    assert_close(widened(result), stored(p, exact), bound(p, exact, algorithm), f"{what or algorithm or ''} {p}")


def assert_close(result, expected, allowed, what=""):
    """``|result - expected| <= allowed`` element by element; NaN where NaN, inf where inf, and finite elsewhere."""
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.shape == expected.shape, f"{what}: shape {result.shape}, expected {expected.shape}"
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.isfinite(result) & ((result == expected) | (np.abs(result - expected) <= allowed))
        cast = expected.astype(result.dtype, copy=False)  # what float16 cannot hold is infinite in it
        right = np.where(np.isfinite(cast), near, (result == cast) | (np.isnan(result) & np.isnan(cast)))
    if right.all():
        return
    wrong = np.argwhere(~right)
    places = "\n".join(
        f"  {tuple(map(int, at))}: {result[tuple(at)]!r}, expected {expected[tuple(at)]!r}"
        f" within {np.broadcast_to(allowed, result.shape)[tuple(at)]:.3g}"
        for at in wrong[:4]
    )
    raise AssertionError(f"{what}: {len(wrong)} of {result.size} outputs are wrong\n{places}")


def assert_same_bits(result, expected, what=""):
    """Equal shape, type and every bit (NaNs of any payload are equal)."""
    assert result.dtype == expected.dtype, f"{what}: dtype {result.dtype}, expected {expected.dtype}"
    assert result.shape == expected.shape, f"{what}: shape {result.shape}, expected {expected.shape}"
    if result.dtype.kind in "fc":
        assert np.array_equal(np.isnan(result), np.isnan(expected)), f"{what}: NaN in other places"
        for part in ("real", "imag")[: 1 + (result.dtype.kind == "c")]:
            signs = [np.signbit(getattr(x, part)) & ~np.isnan(x) for x in (result, expected)]
            assert np.array_equal(*signs), f"{what}: other signs"
        assert np.array_equal(result, expected, equal_nan=True), f"{what}: other bits"
    else:
        assert np.array_equal(result, expected), f"{what}: other values"


def transform_bound(algorithm, dtype, image, weights):
    """How far a transform's sums of one channel may be from the exact ones: ``C u max|x| sum|w|``."""
    return TRANSFORM[algorithm](Problem()) * unit(dtype) * float(np.abs(image).max()) * float(np.abs(weights).sum())


def peer_bound(dtype, taps, magnitude):
    """What two libraries that both sum in ``dtype`` may differ by: the sum class's bound, once for each."""
    return 4 * (taps + 4) * unit(dtype) * np.asarray(magnitude).astype(np.float64)


def assert_as_near(result, peer, exact, what=""):
    """No output of a whole network is further from the exact one than four times the peer's furthest, both computed in one type."""
    result, peer, exact = (np.asarray(x) for x in (result, peer, exact))
    allowed = 4 * np.abs(peer - exact).max() + 8 * unit(result.dtype) * np.abs(exact).max()
    assert_close(result, exact, allowed, what)


def scipy_signal(name, in1, in2, mode="full", boundary="fill", fillvalue=0):
    """SciPy's own result of ``correlate2d`` or ``convolve2d``, and how far from it fastconv's may be (equal for integers)."""
    function = getattr(scipy.signal, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # casts of fillvalue
        expected = function(in1, in2, mode, boundary, fillvalue)
        if expected.dtype.kind in "biu":
            return expected, 0
        in1, in2 = (np.abs(np.asarray(x, expected.dtype)) for x in (in1, in2))
        fill = float(np.abs(np.asarray(fillvalue, expected.dtype)).reshape(-1)[0])
        magnitude = function(in1, in2, mode, boundary, fill)
    return expected, peer_bound(expected.dtype, min(in1.size, in2.size), np.abs(magnitude))


class Peer(NamedTuple):
    """``expected``: another library's own result.  ``allowed``: how far from it fastconv's may be, 0 where it must be equal."""

    expected: np.ndarray
    allowed: np.ndarray | int


def opencv(name, src, *arguments, weights, **keywords):
    """OpenCV's own result of a filter and how far from it fastconv's may be.

    ``weights``: the filter in two dimensions, float64, from which the exact sums are formed; equal where every partial sum is exact
    in float32 (integers, whole weights); otherwise two sums, each within its bound, that may round to two integers.  Where its
    filter2D transforms, whose noise covers the image, and where its running sums of float64 drift, the exact sums stand in for it.
    """
    expected = getattr(cv2, name)(src, *arguments, **keywords)
    sums, magnitude = (x.reshape(expected.shape) for x in opencv_sums(src, weights, **keywords))
    transforms = name == "filter2D" and weights.size >= _transformed_from(src.dtype, expected.dtype)
    if transforms or (name == "boxFilter" and src.dtype == np.float64):
        if expected.dtype.kind in "iu":
            limits = np.iinfo(expected.dtype)
            expected = np.clip(np.rint(sums), limits.min, limits.max).astype(expected.dtype)
        else:
            expected = sums.astype(expected.dtype)
    delta = float(keywords.get("delta", 0))
    if src.dtype.kind in "iu" and (weights == np.rint(weights)).all() and delta.is_integer() and magnitude.max() < 2**24:
        return Peer(expected, 0)
    single = src.dtype != np.float64 and (expected.dtype != np.float64 or name == "Laplacian")
    allowed = peer_bound(np.float32 if single else np.float64, weights.size, magnitude)
    if expected.dtype.kind in "iu":
        near = np.abs(sums + 0.5 - np.rint(sums + 0.5)) <= allowed
        allowed = np.floor(allowed) + near
    return Peer(expected, allowed)


def _transformed_from(src, dst):
    """Taps from which OpenCV's filter2D is a discrete Fourier transform."""
    return 130 if (src, dst) in ((np.uint8, np.uint8), (np.uint8, np.int16), (np.float32, np.float32)) else 50


def opencv_sums(src, weights, anchor=(-1, -1), delta=0, borderType=cv2.BORDER_DEFAULT, **others):
    """The exact sums of a filter in float64, channel by channel, before they are rounded, and their sum|w x| + |delta|."""
    planes = np.atleast_3d(src).astype(np.float64)
    h, w = planes.shape[:2]
    kh, kw = weights.shape
    x, y = kw // 2 if anchor[0] < 0 else anchor[0], kh // 2 if anchor[1] < 0 else anchor[1]
    border = {0: "constant", 1: "edge", 2: "symmetric", 4: "reflect"}[borderType & ~cv2.BORDER_ISOLATED]
    padded = np.pad(planes, ((y, kh - 1 - y), (x, kw - 1 - x), (0, 0)), mode=border)
    exact, magnitude = np.full(planes.shape, float(delta)), np.full(planes.shape, abs(float(delta)))
    for ky, kx in np.argwhere(weights):
        products = padded[ky : ky + h, kx : kx + w] * weights[ky, kx]
        exact += products
        magnitude += np.abs(products)
    return exact, magnitude


def _lines(name, ndim, args, kw):
    """Branches of passes (axis, taps, mode, origin) that scipy.ndimage makes of a call of one of its separable filters."""
    axes = tuple(range(ndim)) if kw.get("axes") is None else tuple(axis % ndim for axis in kw["axes"])

    def each(value, count=None):
        return list(value) if np.iterable(value) and not isinstance(value, str) else [value] * (count or len(axes))

    modes = each(kw.get("mode", "reflect"))
    if name in ("correlate1d", "convolve1d"):
        taps, origin = np.asarray(args[0], float), kw.get("origin", 0)
        if name == "convolve1d":
            taps, origin = taps[::-1], -origin - (len(taps) % 2 == 0)
        return [[(kw.get("axis", -1) % ndim, taps, modes[0], origin)]]
    if name in ("sobel", "prewitt"):
        axis, across = kw.get("axis", -1) % ndim, [1, 2, 1] if name == "sobel" else [1, 1, 1]
        return [[(axis, [-1, 0, 1], modes[axis], 0), *((i, across, modes[i], 0) for i in range(ndim) if i != axis)]]
    if name == "laplace":
        return [[(axis, [1, -2, 1], mode, 0)] for axis, mode in zip(axes, modes, strict=True)]
    if name == "uniform_filter":
        sizes, origins = each(args[0]), each(kw.get("origin", 0))
        return [[(a, np.ones(s) / s, m, o) for a, s, m, o in zip(axes, sizes, modes, origins, strict=True) if s > 1]]

    def gaussians(axes, orders, modes, sigmas):
        lines = []
        for axis, order, mode, sigma in zip(axes, orders, modes, sigmas, strict=True):
            r = int(kw.get("truncate", 4) * sigma + 0.5) if kw.get("radius") is None else kw["radius"]
            if sigma > 0:
                answer = scipy.ndimage.gaussian_filter1d(np.eye(1, 2 * r + 1, r)[0], sigma, order=order, mode="constant", radius=r)
                lines.append((axis, answer[::-1], mode, 0))
        return lines

    if name == "gaussian_filter":
        return [gaussians(axes, each(kw.get("order", 0)), modes, each(args[0]))]
    order = {"gaussian_laplace": 2, "gaussian_gradient_magnitude": 1}[name]
    inner = tuple(range(ndim))
    sigmas = each(args[0], ndim if order == 1 else len(axes))
    if order == 2:
        sigmas = [sigmas[axes.index(axis)] if axis in axes else 0 for axis in inner]
    return [gaussians(inner, [order * (axis == i) for i in inner], [mode] * ndim, sigmas) for axis, mode in zip(axes, modes, strict=True)]


def _line_magnitudes(name, input, args, kw):
    """For each branch: the products in one output, and sum|w x|."""
    cval = abs(kw.get("cval", 0.0))
    for branch in _lines(name, input.ndim, args, kw):
        magnitude, count = np.abs(input.astype(np.float64)), 1
        for axis, taps, mode, origin in branch:
            magnitude, count = scipy.ndimage.correlate1d(magnitude, np.abs(taps), axis, None, mode, cval, origin), count * len(taps)
        yield count, magnitude


def scipy_ndimage(name, input, *args, output=None, **kw):
    """SciPy's own result of one of `scipy.ndimage`'s filters, and how far from it fastconv's may be (equal for integers).

    Both round in the result's type, at each of at most three passes; a running sum drifts by two roundings a pixel.
    """
    input = np.asarray(input)
    with np.errstate(all="ignore"):
        expected = getattr(scipy.ndimage, name)(input, *args, output=output, **kw)
        drifts = name == "uniform_filter" and expected.dtype.kind == "f"
        if expected.dtype.kind != "f" or (input.dtype.kind != "f" and not drifts):
            return expected, 0
        unit_type = expected.dtype
        if name in ("correlate", "convolve"):
            both = {**kw, "cval": abs(kw.get("cval", 0.0))}
            magnitudes = [(args[0].size, getattr(scipy.ndimage, name)(np.abs(input.astype(np.float64)), np.abs(args[0]), **both))]
        else:
            magnitudes = list(_line_magnitudes(name, input, args, kw))
        errors = [peer_bound(unit_type, count, magnitude) for count, magnitude in magnitudes]
        if name == "gaussian_gradient_magnitude":
            return expected, np.sqrt(sum(e * e for e in errors)) + 8 * unit(unit_type) * np.abs(expected)
        allowed = sum(errors)
        if drifts:
            allowed = allowed + 4 * input.size * unit(np.float64) * np.abs(input.astype(np.float64)).max(initial=abs(kw.get("cval", 0.0)))
    return expected, allowed
