"""The tests can fail: algorithms that are wrong on purpose turn the comparisons of this suite red."""

import types

import numpy as np
import pytest

from fastconv.cpu.target import detect
from fastconv.planning import planner
from fastconv.planning.plans import Plan
from fastconv.planning.problem import DTYPES
from tests import conftest, problems, test_algorithms
from tests.oracles import COMPOSED, TRANSFORM, assert_close, assert_same_bits, assert_within, bound, transform_constant, truth
from tests.problems import ALGORITHMS, BACKWARD, CASES, fitted, operands, run, runs, typed


def _first_row_of_taps(p, src, wei, bias, dst, again, threads):
    wei = wei.copy()
    wei[-1, -1, 0] *= wei.dtype.type(1 + 1e-3)
    again(p, src, wei, bias, dst)


def _last_column(p, src, wei, bias, dst, again, threads):
    kept = dst[..., -1].copy()
    again(p, src, wei, bias, dst)
    dst[..., -1] = kept


def _last_row_of_the_last_channel(p, src, wei, bias, dst, again, threads):
    kept = dst[-1, -1, -1].copy()
    again(p, src, wei, bias, dst)
    dst[-1, -1, -1] = kept


def _other_border(p, src, wei, bias, dst, again, threads):
    again(p.replace(border={"reflect": "symmetric", "symmetric": "reflect"}.get(p.border, "edge")), src, wei, bias, dst)


def _no_bias(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, None if bias is None else bias * 0, dst)


def _no_activation(p, src, wei, bias, dst, again, threads):
    again(p.replace(epilogue="bias" if "bias" in p.epilogue else ""), src, wei, bias, dst)


def _convolves(p, src, wei, bias, dst, again, threads):
    again(p, src, wei[..., ::-1, ::-1], bias, dst)


def _shifted(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, bias, dst)
    dst[...] = np.roll(dst, 1, axis=3)


def _other_channel(p, src, wei, bias, dst, again, threads):
    again(p, src[:, ::-1], wei, bias, dst)


def _one_pixel_beyond_its_bound(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, bias, dst)
    dst[0, 0, 0, 0] += 2 * bound(p, truth(p, src, wei, bias), "broken")[0, 0, 0, 0]


def _single_precision(p, src, wei, bias, dst, again, threads):
    again(p, src.astype("F" if src.dtype.kind == "c" else "f4"), wei, bias, dst)


def _second_thread(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, bias, dst)
    if threads == 2:
        dst[0, 0, 0, 0] *= 1 + 2.0**-50


def _channels_last(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, bias, dst)
    if p.src_layout == "nhwc":
        dst[0, 0, 0, 0] += 1


def _leaks_nan(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, bias, dst)
    dst[-1, -1, -1, -1] = np.nan


def _nothing(p, src, wei, bias, dst, again, threads):
    again(p, src, wei, bias, dst)


# sabotage -> a case that shows it, in float64 or complex128 (channels last in float32)
SABOTAGE = {
    _first_row_of_taps: "3x3.channels", _last_column: "image.width", _last_row_of_the_last_channel: "3x3.channels",
    _other_border: "image.reflect", _no_bias: "3x3.padded", _no_activation: "3x3.padded", _convolves: "rect.channels",
    _shifted: "image.width", _other_channel: "3x3.channels", _one_pixel_beyond_its_bound: "image.wrap",
    _single_precision: "tall.17x2", _second_thread: "image.plain", _channels_last: "rect.width", _leaks_nan: "1x1.plain",
}  # fmt: skip


def broken(monkeypatch, algorithm, sabotage):
    """Put an algorithm on the lists that runs another one, wrongly."""

    def build(p, t, plan, threads=1):
        def rerun(q, src, wei, bias, dst):
            inner = ALGORITHMS[algorithm].build(q, t, planner.plan_problem, threads)
            inner.run(src, inner.pack(wei), bias, dst)

        def run_arrays(p, src, packed, bias, dst, fill):
            sabotage(p, src, packed, bias, dst, rerun, threads)

        return Plan(p, "broken", "none", 1.0, lambda p, wei: wei, run_arrays)

    module = types.SimpleNamespace(
        __name__="tests.broken", CASES=(), reject=ALGORITHMS[algorithm].reject, cost=lambda p, t: 1.0, build=build
    )
    monkeypatch.setitem(problems.ALGORITHMS, "broken", module)
    if algorithm in (*TRANSFORM, *COMPOSED):
        monkeypatch.setitem(TRANSFORM, "broken", lambda p: transform_constant(p, algorithm))
    monkeypatch.setattr(planner, "algorithms", lambda backend="cpu": tuple(problems.ALGORITHMS.values()))
    planner.forget()


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda f: f.__name__.strip("_"))
# no case here is a gradient's; `identity` reads no weights, and a mask stands where a bias does
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in (*BACKWARD, "identity", "masked")])
def test_a_wrong_algorithm_is_noticed(algorithm, sabotage, monkeypatch):
    plain = typed(CASES[SABOTAGE[sabotage]], "f64")
    if sabotage is _channels_last:  # in a type that interleaved channels are compiled for anyway
        plain = typed(plain, "f32").replace(src_layout="nhwc")
    plain = fitted(algorithm, plain)
    if plain.structure == "box":  # of which one weight is read
        plain = plain.replace(structure="rank1")
    bare = plain.epilogue.removesuffix("+relu")
    activated = plain.replace(epilogue=f"{bare}+silu".removeprefix("+"))
    candidates = plain, activated, plain.replace(epilogue=bare), typed(plain.replace(epilogue=bare), "c128")
    p = next((q for q in candidates if ALGORITHMS[algorithm].reject(q, detect()) is None), None)
    if p is None:
        pytest.skip(f"{algorithm} takes none of these")
    if sabotage is _no_activation and p.epilogue == bare:
        pytest.skip(f"{algorithm} has no activation")
    if sabotage is _channels_last and p.src_layout == "nchw":
        pytest.skip(f"{algorithm} takes planes")
    broken(monkeypatch, algorithm, sabotage)
    with pytest.raises(AssertionError, match=r"outputs are wrong|other (bits|signs)|NaN in other places"):
        test_algorithms.compare("broken", p, lambda *_: None)
    planner.forget()


@pytest.mark.parametrize("dtype", ["f32", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("f64", "c64"))])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_without_sabotage_passes(algorithm, dtype, monkeypatch):
    broken(monkeypatch, algorithm, _nothing)
    refused = []
    for name in set(SABOTAGE.values()):
        if runs(CASES[name], dtype):
            test_algorithms.compare("broken", fitted(algorithm, typed(CASES[name], dtype)), lambda *pair: refused.append(pair))
    planner.forget()


def test_integers_may_not_be_off_by_one_or_saturate():
    p = typed(CASES["image.width"], "u8")
    src, wei, bias = operands(p)
    exact = truth(p, src, wei, bias)
    result = run(p, src, wei, bias)
    assert_within(result, p, exact)
    saturated = np.minimum(truth(typed(p, "i64"), src, wei).value, 255).astype("u1")
    for wrong in (result + np.uint8(1), saturated):
        with pytest.raises(AssertionError, match="outputs are wrong"):
            assert_within(wrong, p, exact)


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64", "c64"])
def test_bounds_are_tight_enough_to_tell_a_type_from_a_narrower_one(dtype):
    """What a narrower type would give is refused."""
    p = typed(CASES["image.width"], dtype)
    src, wei, _ = operands(p)
    exact = truth(p, src, wei)
    narrower = {"f16": "f4", "f32": "f2", "f64": "f4", "c64": None}[dtype]
    right = exact.value.astype(DTYPES[dtype])
    assert_within(right, p, exact)
    if dtype == "f16":
        rough = np.round(right.astype("f4"), 2).astype("f2")
    elif narrower is None:
        rough = (right.real.astype("f2") + 1j * right.imag.astype("f2")).astype(right.dtype)
    else:
        rough = right.astype(narrower).astype(right.dtype)
    with pytest.raises(AssertionError, match="outputs are wrong"):
        assert_within(rough, p, exact)


def test_comparisons_see_what_arrays_can_hide():
    one = np.array([1.0, 2.0])
    for wrong in ([1.0, np.nan], [1.0, np.inf], [1.0, 2.1]):
        with pytest.raises(AssertionError):
            assert_close(np.array(wrong), one, 0.05)
    with pytest.raises(AssertionError):
        assert_close(np.array([np.inf]), np.array([-np.inf]), np.inf)
    with pytest.raises(AssertionError):
        assert_close(np.array([5.0]), np.array([np.nan]), np.inf)
    with pytest.raises(AssertionError):
        assert_close(np.array([np.nan]), np.array([5.0]), np.nan)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(one, one[:1], 1)
    with pytest.raises(AssertionError, match="signs"):
        assert_same_bits(np.array([0.0]), np.array([-0.0]))
    with pytest.raises(AssertionError, match="dtype"):
        assert_same_bits(one, one.astype("f4"))
    with pytest.raises(AssertionError, match="bits"):
        assert_same_bits(one, np.nextafter(one, 3))
    assert_same_bits(np.array([np.nan]), np.array([-np.nan]))


def test_memory_that_fastconv_asks_for_is_poisoned():
    inside, outside = {"__name__": "fastconv.x", "np": np}, {"__name__": "elsewhere", "np": np}
    for code, dtype in (("np.empty((4, 5), 'f4')", "f4"), ("np.empty_like(np.zeros(3))", "f8"), ("np.empty(2, complex)", "c16")):
        assert np.isnan(eval(code, inside)).all(), code
        assert eval(code, inside).dtype == np.dtype(dtype)
    assert np.all(eval("np.empty(3, np.uint8)", inside) == 0xA5)
    assert np.all(eval("np.zeros(3)", inside) == 0)
    assert not np.isnan(eval("[np.empty(3).fill(1), np.ones(3)][1]", outside)).any()


class Terminal:
    """As much of pytest's terminal reporter as the summary reads."""

    def __init__(self, exercised, args_source="TESTPATHS", **options):
        names = {"keyword": "", "markexpr": "", "deselect": None, "maxfail": 0, "collectonly": False, "lf": False}
        sources = types.SimpleNamespace(ARGS="ARGS", TESTPATHS="TESTPATHS")
        self.config = types.SimpleNamespace(option=types.SimpleNamespace(**(names | options)), args_source=args_source, ArgsSource=sources)
        self.stats = {"passed": [types.SimpleNamespace(user_properties=[("exercised", pair)]) for pair in exercised]}


def test_a_full_run_that_exercises_too_little_fails():
    plenty = [(name, str(n)) for name in {*ALGORITHMS, *conftest.LEAST_EXERCISED} for n in range(1000)]
    assert conftest._too_few(Terminal(plenty)) == []
    missing = conftest._too_few(Terminal([pair for pair in plenty if pair[0] != "direct"]))
    assert len(missing) == 1
    assert missing[0].startswith("direct: 0 cases")
    few = [("reference", str(n % 5)) for n in range(1000)] + [pair for pair in plenty if pair[0] != "reference"]
    assert conftest._too_few(Terminal(few))[0].startswith("reference: 5 cases")
    assert conftest._too_few(Terminal([], keyword="signal")) == []
    assert conftest._too_few(Terminal([], args_source="ARGS")) == []
