"""Elements of other types as kernels load and store them: NumPy's values, on this processor's vectors and on narrower ones."""

from collections import namedtuple

import numba
import numpy as np
import pytest

from fastconv.cpu import convert
from fastconv.cpu.border import Span, stage_row
from fastconv.cpu.compile import kernel
from fastconv.cpu.convert import INTEGERS, LOADED, STORED, store_row
from fastconv.cpu.memory import address, call_kernel, integers, peek
from fastconv.planning.bfloat import BITS, narrowed, widened
from fastconv.planning.problem import DTYPES
from fastconv.planning.reference import rounded
from tests.oracles import assert_same_bits

Work = namedtuple("Work", "dst src span maps fill count")
LANES = {"f32": 16, "f64": 8}
COUNTS = (1, 2, 3, 7, 8, 15, 16, 17, 40, 77)


@numba.njit
def call(function, job):
    call_kernel(function, (address(job), 0, 0, 0))


def staging(kind, lanes, name, tag):
    def stage(job, index, u0, u1):
        w = integers(job, Work)
        stage_row(kind, lanes, name, w.dst, w.src, w.span, w.maps, peek(kind, w.fill))

    return stage


def storing(kind, lanes, name, rounding, tag):
    def store(job, index, u0, u1):
        w = integers(job, Work)
        store_row(kind, lanes, name, rounding, w.dst, w.src, w.count)

    return store


def run(factory, spec, *, dst, src, span=None, maps=None, fill=None, count=0):
    compiled = kernel(f"{factory.__name__}_{'_'.join(map(str, spec))}", factory, spec)
    at = [0 if x is None else x.ctypes.data for x in (dst, src, span)] + [0 if maps is None else maps[0].ctypes.data + 8 * maps[1]]
    call(compiled.address, np.array([*at, 0 if fill is None else fill.ctypes.data, count], np.int64))
    return compiled


def shown(array):
    """As numbers that NumPy knows."""
    return widened(array) if array.dtype == BITS else array


def values_of(name, count, seed=0):
    """Random ones of the whole range, and what is special in it."""
    if name == "bf16":
        return narrowed(values_of("f32", count, seed), BITS)
    rng, dtype = np.random.default_rng(seed), DTYPES[name]
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        x = rng.integers(limits.min, limits.max, count, dtype, endpoint=True)
        special = [limits.min, limits.max, 0]
    else:
        x = (rng.standard_normal(count) * 10.0 ** rng.integers(-9, 5, count)).astype(dtype)
        limits = np.finfo(dtype)
        special = [np.nan, np.inf, -np.inf, -0.0, limits.max, limits.smallest_subnormal, -limits.smallest_normal]
    special = special[:count]
    x[rng.permutation(count)[: len(special)]] = special
    return x


def check_staging(kind, name, lanes, tag=""):
    src = values_of(name, 90)
    maps = np.array([*[5, 4, -1], *[88, -1, -1, 2]], np.int64)  # of columns -3 .. -1 and 90 .. 93
    fill = np.array([2.5], DTYPES[kind])
    for inside in (0, *COUNTS):
        span = Span(2, -2, inside, 4, 3, 1)
        dst = np.full(inside + 7, 99, DTYPES[kind])
        run(staging, (kind, lanes, name, tag), dst=dst[1:], src=src, span=np.array(span, np.int64), maps=(maps[0:], 3), fill=fill)
        with np.errstate(all="ignore"):
            wide = shown(src).astype(DTYPES[kind])
        expected = [99, wide[4], 2.5, *wide[4 : 4 + inside], 2.5, 2.5, wide[2], 99]
        assert_same_bits(dst, np.array(expected, DTYPES[kind]), f"{name} as {kind}, {inside} elements")


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("kind", LANES)
def test_rows_are_staged_as_numpy_converts(kind, name):
    if (kind, name) == ("f64", "bf16"):
        with pytest.raises(AssertionError, match="summed in float32"):
            check_staging(kind, name, LANES[kind])
        return
    check_staging(kind, name, LANES[kind])


def sums(kind, name, seed):
    """Floats around every boundary of an integer type, and all over float16."""
    if name not in INTEGERS:
        return values_of(kind, 400, seed)
    rng, limits = np.random.default_rng(seed), np.iinfo(DTYPES[name])
    near = np.concatenate([np.arange(end - 3, end + 3, 0.25) for end in (limits.min, 0, limits.max)])
    far = [np.nan, np.inf, -np.inf, 1e9, -1e9, 3e38, -0.0, 0.49999997, -0.49999997, 2147483647.0, -2147483648.0]
    return np.concatenate([near, far, rng.uniform(limits.min, limits.max, 200)]).astype(DTYPES[kind])


def check_storing(kind, name, rounding, lanes, tag=""):
    src = sums(kind, name, 1)
    dtype = DTYPES[name]
    with np.errstate(all="ignore"):
        # an array's end is converted one by one in other instructions; beyond 32 bits those differ
        whole = src.astype(np.int64) if name == "u32" else src  # as C does it, where NumPy's vectors do not
        expected = rounded(rounding, src, dtype) if rounding else narrowed(np.tile(whole, 8), dtype)[: src.size]
    for count in (*COUNTS, src.size):
        for start in (0, src.size - count):
            dst = narrowed(np.full(count + 2, 77, src.dtype), dtype)
            run(storing, (kind, lanes, name, rounding, tag), dst=dst[1:], src=src[start:], count=count)
            got, wanted = shown(dst), shown(expected[start : start + count])
            assert got[0] == got[-1] == 77
            assert_same_bits(got[1:-1], wanted, f"{kind} as {name} {rounding}, {count} elements")


ROUNDED = [(name, rounding) for name in STORED if name in ("i8", "u8", "i16", "u16", "i32") for rounding in ("saturate", "half_up")]


@pytest.mark.parametrize(("name", "rounding"), [*((name, "") for name in STORED), *ROUNDED])
@pytest.mark.parametrize("kind", LANES)
def test_rows_are_stored_as_numpy_converts_or_rounded(kind, name, rounding):
    if kind == "f64" and name in ("f16", "bf16"):
        with pytest.raises(AssertionError, match="twice" if name == "f16" else "stored from float32"):
            run(storing, (kind, 8, name, "", ""), dst=np.zeros(1, DTYPES[name]), src=np.zeros(1), count=1)
        return
    check_storing(kind, name, rounding, LANES[kind])


def test_half_without_instructions_for_it(monkeypatch):
    """Every float16 through integer operations, there and back; floats between them."""
    monkeypatch.setattr(convert, "converts_half", lambda: False)
    check_staging("f32", "f16", 4, "integers")
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    wide = np.empty(every.size, "f4")
    span = np.array(Span(0, 0, every.size, 0, 0, 0), np.int64)
    staged = run(staging, ("f32", 16, "f16", "integers"), dst=wide, src=every, span=span, fill=np.zeros(1, "f4"))
    assert_same_bits(wide, every.astype("f4"))
    with np.errstate(all="ignore"):
        between = (wide + np.roll(wide, -1)) / 2
        steps = [np.nextafter(x, np.float32(end)) for x in (wide, between) for end in (np.inf, -np.inf)]
    for x in (wide, between, *steps, values_of("f32", 5000)):
        back = np.empty(x.size, "f2")
        stored = run(storing, ("f32", 16, "f16", "", "integers"), dst=back, src=x, count=x.size)
        with np.errstate(all="ignore"):
            assert_same_bits(back, x.astype("f2"))
    for made in (staged, stored):
        if not made.dispatcher._cache.hit:
            assert "vcvtp" not in made.assembly().replace("vcvtps2ph(", "")


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [2, 4, 8])
@pytest.mark.parametrize("kind", LANES)
def test_narrower_vectors(kind, lanes):
    for name in LOADED:
        check_staging(kind, name, lanes)
    for name, rounding in [*((name, "") for name in STORED if (kind, name) != ("f64", "f16")), *ROUNDED]:
        check_storing(kind, name, rounding, lanes)
