"""What fastconv.signal adds to SciPy's arguments, and whatever kind of memory the arrays live in."""

import itertools

import numpy as np
import pytest
import scipy.signal

import fastconv
from tests.oracles import TRANSFORM, assert_close, assert_same_bits, assert_within, peer_bound, scipy_signal, truth
from tests.problems import random_array

FUNCTIONS = ("correlate2d", "convolve2d")
MODES = ("full", "same", "valid")


def pair(dtype="f8", one=(13, 38), two=(3, 4), seed=1):
    rng = np.random.default_rng(seed)
    return random_array(rng, one, dtype), random_array(rng, two, dtype)


STRIDES = [1, 2, 3, (2, 1), (1, 2), (4, 3), (50, 60)]


@pytest.mark.parametrize(("dtype", "stride"), [*itertools.product(("f4",), STRIDES), ("f8", 2), ("u1", 2),
                                               pytest.param("u1", (2, 1), marks=pytest.mark.slow)])  # fmt: skip
def test_stride_slices_the_full_result(dtype, stride):
    sh, sw = stride if isinstance(stride, tuple) else (stride, stride)
    in1, in2 = pair(dtype)
    for name, mode, boundary in itertools.product(FUNCTIONS, MODES, ("fill", "symm")):
        expected, allowed = scipy_signal(name, in1, in2, mode, boundary)
        result = getattr(fastconv, name)(in1, in2, mode, boundary, stride=stride)
        assert result.flags.c_contiguous
        assert_close(result, expected[::sh, ::sw], np.asarray(allowed)[::sh, ::sw] if np.ndim(allowed) else allowed, name)


def spread(in2, dilation):
    dh, dw = dilation
    wide = np.zeros(((in2.shape[0] - 1) * dh + 1, (in2.shape[1] - 1) * dw + 1), in2.dtype)
    wide[::dh, ::dw] = in2
    return wide


@pytest.mark.parametrize("dilation", [(2, 2), (1, 3), (3, 1), (2, 5)])
@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_dilation_spreads_in2_first(dilation, stride):
    in1, in2 = pair("f4", (19, 41), (3, 4))
    for name, mode, boundary in itertools.product(FUNCTIONS, MODES, ("fill", "wrap")):
        wide = spread(in2, dilation)
        expected, allowed = scipy_signal(name, in1, wide, mode, boundary, 0)
        rows, cols = (stride, stride) if stride == 1 else stride
        result = getattr(fastconv, name)(in1, in2, mode, boundary, dilation=dilation, stride=stride)
        assert_close(result, expected[::rows, ::cols], allowed[::rows, ::cols], f"{name} {mode}")


def test_an_exchanged_valid_with_stride_or_dilation_raises():
    large, little = pair()
    for extra in ({"stride": 2}, {"dilation": 2}, {"stride": (1, 2)}):
        with pytest.raises(ValueError, match="stride and dilation must be 1 in mode 'valid'"):
            fastconv.correlate2d(little, large, "valid", **extra)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("stride", 0, ValueError), ("stride", -1, ValueError), ("stride", (1, 0), ValueError), ("stride", 1.5, TypeError),
        ("stride", (1, 2, 3), TypeError), ("stride", "2", TypeError), ("stride", None, TypeError), ("stride", True, TypeError),
        ("dilation", 0, ValueError), ("dilation", (2.0, 1), TypeError), ("threads", 0, ValueError), ("threads", 1.0, TypeError),
        ("precision", "double", ValueError), ("device", "tpu", ValueError), ("algorithm", "magic", ValueError),
        ("mask", "inf", ValueError), ("mask", np.ones((3, 3), bool), ValueError), ("mask", np.ones((13, 38)), TypeError),
        ("out", [1], TypeError), ("dtype", "O", ValueError), ("dtype", "f2", ValueError), ("dtype", bool, ValueError),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(name, value, error):
    in1, in2 = pair()
    for function in FUNCTIONS:
        with pytest.raises(error) as caught:
            getattr(fastconv, function)(in1, in2, **{name: value})
        if name != "dtype":  # SciPy's text
            assert name in str(caught.value)


def test_dtype_is_that_of_the_result_and_the_sums():
    in1, in2 = pair("u1")
    result = fastconv.correlate2d(in1, in2, dtype="i8")
    assert_same_bits(result, scipy.signal.correlate2d(in1.astype("i8"), in2.astype("i8")))
    result = fastconv.correlate2d(in1, in2, dtype=np.float32)
    assert result.dtype == np.float32
    assert np.array_equal(result, scipy.signal.correlate2d(in1.astype("i8"), in2.astype("i8")))
    with pytest.raises(ValueError, match="complex"):
        fastconv.correlate2d(in1, in2 * 1j, dtype="f8")


class TestOut:
    def test_is_returned_and_equal(self):
        for dtype, name, mode in itertools.product(("f4", "i2", "D"), FUNCTIONS, MODES):
            in1, in2 = pair(dtype)
            expected = getattr(fastconv, name)(in1, in2, mode)
            out = np.empty_like(expected)
            assert getattr(fastconv, name)(in1, in2, mode, out=out) is out
            assert_same_bits(out, expected)

    def test_exchanged_valid(self):
        large, little = pair()
        expected = fastconv.correlate2d(little, large, "valid")
        out = np.empty_like(expected)
        assert fastconv.correlate2d(little, large, "valid", out=out) is out
        assert_same_bits(out, expected)

    @pytest.mark.parametrize("make", [lambda s: np.empty((s[0] * 2, s[1] * 3))[::2, ::3], lambda s: np.empty(s[::-1]).T,
                                      lambda s: np.empty((s[0], s[1] + 5))[:, 2:-3]])  # fmt: skip
    def test_may_have_any_positive_strides(self, make):
        in1, in2 = pair()
        expected = fastconv.correlate2d(in1, in2)
        out = make(expected.shape)
        around = out.base if out.base is not None else out
        around.fill(77)
        assert fastconv.correlate2d(in1, in2, out=out) is out
        assert_same_bits(out, expected)
        assert np.count_nonzero(around == 77) == around.size - out.size

    @pytest.mark.parametrize("which", ["in1", "in2"])
    def test_may_be_an_input(self, which):
        in1, in2 = pair("f8", (9, 9), (9, 9))
        expected = fastconv.correlate2d(in1.copy(), in2.copy(), "same")
        out = {"in1": in1, "in2": in2}[which]
        assert fastconv.correlate2d(in1, in2, "same", out=out) is out
        assert_same_bits(out, expected)

    def test_may_overlap_an_input(self):
        memory = np.random.default_rng(0).standard_normal((40, 50))
        in1, out = memory[:30], memory[5:35]
        kernel = np.ones((3, 3)) / 9
        expected = fastconv.correlate2d(in1.copy(), kernel, "same")
        fastconv.correlate2d(in1, kernel, "same", out=out)
        assert_same_bits(out, expected)

    @pytest.mark.parametrize(
        ("out", "error"),
        [
            (np.full((13, 37), 7.0), ValueError), (np.full((15, 41), 7, "f4"), ValueError),
            (np.full((15, 41), 7, ">f8"), ValueError), (np.full((15, 41), 7.0)[::-1], ValueError),
            (np.broadcast_to(7.0, (15, 41)), ValueError),
            (np.full((1, 15, 41), 7.0), ValueError), ([[7.0] * 41] * 15, TypeError),
        ],
    )  # fmt: skip
    def test_a_wrong_one_raises_and_is_untouched(self, out, error):
        in1, in2 = pair()
        with pytest.raises(error, match="out must"):
            fastconv.correlate2d(in1, in2, out=out)
        assert np.all(np.asarray(out) == 7)

    def test_read_only_raises(self):
        out = np.full((15, 41), 7.0)
        out.flags.writeable = False
        with pytest.raises(ValueError, match="writeable"):
            fastconv.correlate2d(*pair(), out=out)

    def test_is_untouched_after_bad_input(self):
        in1, in2 = pair()
        out = np.full((15, 41), 7.0)
        for bad in ({"mode": "x"}, {"boundary": "x"}, {"stride": 0}, {"fillvalue": "x"}, {"precision": "x"}, {"threads": 0},
                    {"algorithm": "x"}, {"mask": "x"}):  # fmt: skip
            with pytest.raises(ValueError):
                fastconv.correlate2d(in1, in2, out=out, **bad)
            assert np.all(out == 7), bad


class TestMask:
    @staticmethod
    def expected(name, in1, in2, valid, mode, boundary):
        function = getattr(scipy.signal, name)
        total = function(np.where(valid, in1, 0), in2, mode, boundary)
        weight = function(valid.astype(in2.dtype), in2, mode, boundary)
        with np.errstate(all="ignore"):
            return np.where(weight == 0, np.nan, total / weight)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("boundary", ["fill", "symm"])
    def test_weighted_mean_of_the_valid_pixels(self, mode, boundary):
        rng = np.random.default_rng(5)
        in1, in2 = rng.standard_normal((12, 33)), np.abs(rng.standard_normal((3, 4))) + 0.5
        valid = rng.random(in1.shape) < 0.6
        valid[2:9, 3:12] = False
        for name in FUNCTIONS:
            result = getattr(fastconv, name)(in1, in2, mode, boundary, mask=valid)
            expected = self.expected(name, in1, in2, valid, mode, boundary)
            assert np.isnan(expected).any()
            # two sums of at most 12 products of numbers below 4 with weights of at least 0.5, then a division
            assert_close(result, expected, peer_bound("f8", 12, np.full(expected.shape, 4 * 12 * 4 / 0.5)), name)

    def test_nan_means_the_finite_and_infinite_pixels(self):
        in1, in2 = np.arange(24.0).reshape(4, 6), np.ones((3, 3))
        in1[1, 2] = np.nan
        result = fastconv.correlate2d(in1, in2, "same", mask="nan")
        assert np.array_equal(result, fastconv.correlate2d(in1, in2, "same", mask=~np.isnan(in1)), equal_nan=True)
        assert not np.isnan(result).any()
        assert result[1, 2] == np.mean([1, 2, 3, 7, 9, 13, 14, 15])

    def test_integers_give_floats(self):
        valid = np.zeros((4, 5), bool)
        valid[1, 1] = True
        result = fastconv.correlate2d(np.full((4, 5), 3, "u1"), np.ones((3, 3), "u1"), "same", mask=valid)
        assert result.dtype == np.float64
        assert np.array_equal(result[:3, :3], np.full((3, 3), 3.0))
        assert np.isnan(result[3]).all()

    def test_out_stride_and_masked_pixels_that_are_not_finite(self):
        in1, in2 = (np.rint(8 * x) for x in pair())  # whole numbers, whose sums are exact in any order
        valid = np.isfinite(in1)
        in1[3, 3], valid[3, 3] = np.inf, False
        expected = fastconv.correlate2d(in1, in2, "same", mask=valid)[::2, ::3]
        assert np.isfinite(expected).all()
        out = np.empty(expected.shape)
        assert fastconv.correlate2d(in1, in2, "same", mask=valid, stride=(2, 3), out=out) is out
        assert_same_bits(out, np.ascontiguousarray(expected))


def _misaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


MEMORY = {
    "fortran": np.asfortranarray,
    "columns": lambda x: np.repeat(x, 3, axis=1)[:, ::3],
    "rows": lambda x: np.repeat(x, 2, axis=0)[::2],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "field": lambda x: np.rec.fromarrays([x, x.astype("u1") if x.dtype.kind != "c" else x.real.astype("u1")], names="a,b")["a"],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "misaligned": _misaligned,
    "read-only": _read_only,
    "window": lambda x: np.pad(x, 7)[7:-7, 7:-7],
    "plane": lambda x: np.stack([x, x, x], axis=-1)[..., 1],
}


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8", "D"])
@pytest.mark.parametrize("kind", MEMORY)
def test_memory_of_every_kind_is_read_alike(kind, dtype):
    in1, in2 = pair(dtype, (11, 40), (4, 3))
    one, two = MEMORY[kind](in1), MEMORY[kind](in2)
    before = one.copy(), two.copy()
    for name in FUNCTIONS:
        function = getattr(fastconv, name)
        plain = [np.ascontiguousarray(x, x.dtype.newbyteorder("=")) for x in (one, two)]
        expected = function(*plain, "same", "symm")
        assert_close(expected, *scipy_signal(name, *plain, "same", "symm"))
        for arguments in ((one, two), (one, plain[1]), (plain[0], two)):
            result = function(*arguments, "same", "symm")
            assert result.dtype == np.dtype(dtype).newbyteorder("=")
            assert_same_bits(result, expected, kind)
    assert np.array_equal(one, before[0])
    assert np.array_equal(two, before[1])


def test_memmap(tmp_path):
    in1, in2 = pair("f4", (40, 30), (3, 3))
    in1.tofile(tmp_path / "image")
    mapped = np.memmap(tmp_path / "image", "f4", "r", shape=in1.shape)
    result = fastconv.correlate2d(mapped, in2)
    assert type(result) is np.ndarray
    assert_same_bits(result, fastconv.correlate2d(in1, in2))


def test_longdouble_keeps_its_digits():
    in1, in2 = np.full((3, 3), np.longdouble(1)) / 3, np.full((2, 2), np.longdouble(1))
    expected = scipy.signal.correlate2d(in1, in2)
    assert_same_bits(fastconv.correlate2d(in1, in2), expected)


def test_every_algorithm_can_be_named_or_says_why_not():
    in1, in2 = pair()
    expected, allowed = scipy_signal("correlate2d", in1, in2)
    ran = []
    for line in fastconv.explain(in1, in2, padding="full").splitlines()[2:-1]:
        name = line.split()[0]
        if " no: " in line and name != "lowrank":  # which is looked for where it is named; three rows are of rank 3 at most
            with pytest.raises(ValueError, match=f"algorithm '{name}' cannot run"):
                fastconv.correlate2d(in1, in2, algorithm=name)
        else:
            result = fastconv.correlate2d(in1, in2, algorithm=name)
            p = fastconv.plan(in1, in2, padding="full").problem
            p = p.replace(structure=f"lowrank({min(in2.shape)})") if name == "lowrank" else p
            if name in TRANSFORM:
                assert_within(result[None, None], p, truth(p, in1[None, None], in2[None, None]), name)
            else:
                assert_close(result, expected, allowed, name)
            ran.append(name)
    assert "reference" in ran


def test_strict_precision_and_threads_give_the_same_values():
    in1, in2 = pair("f4", (70, 90), (5, 5))
    expected, allowed = scipy_signal("correlate2d", in1, in2)
    for precision in ("strict", "default", "fast"):
        one = fastconv.correlate2d(in1, in2, precision=precision, threads=1)
        assert_close(one, expected, allowed, precision)
        assert_same_bits(fastconv.correlate2d(in1, in2, precision=precision, threads=2), one, precision)
