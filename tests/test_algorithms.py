"""Every algorithm of the list on every case it accepts: types, layouts, 1 and 2 threads; what it refuses is counted."""

import functools
import importlib
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv.cpu.target import TARGETS, detect
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import DTYPES, Problem
from tests.oracles import assert_close, assert_same_bits, assert_within, stored, transform_constant, truth
from tests.problems import (
    ALGORITHMS,
    CASES,
    ROOT,
    declared,
    dense,
    operands,
    random_array,
    result_array,
    run,
    runs,
    shapes,
    structured,
    typed,
)

LAYOUTS = (("nchw", "oihw"), ("nhwc", "hwio"))
# float32 is run on every case, float64 on every dense one, the others on a few (with --slow, all on every case)
MAIN = ("f32", "f64")
OTHERS = ("f16", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "fld", "c64", "c128", "cld")
MIXED = ("u8:f32:f32:f32", "f32:f64:f64:f64", "i16:u8:i16:i16", "b8:f32:f32:f32", "f16:f32:f32:f32", "f64:f32:f32:f32",
         "u8:i8:i32:i32", "f32:c64:c64:c64")  # fmt: skip
FEW = ("3x3.channels", "depthwise.padded", "image.uneven", "larger.reflect", "filters.plain")


@functools.lru_cache(maxsize=4)
def expected(p, integers):
    """Operands in NCHW and the exact result, shared by all algorithms, layouts and threads."""
    src, wei, bias = operands(p, integers)
    return src, wei, bias, truth(p, src, wei, bias)


def laid_out(x, last, order):
    """The same array with its channels last in memory, if asked for."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order)) if last else x


def is_exact(p):
    """Whether sums of small whole numbers, and what follows them, have no rounding; quotients of sums have."""
    return not p.masked and DTYPES[p.dst] == DTYPES[p.acc] and p.epilogue.removeprefix("bias").removeprefix("+") in ("", "relu", "relu6")


def compare(algorithm, p, record_property):
    """Run a problem in both layouts, on 1 and 2 threads, on whole numbers and random floats; how many runs there were."""
    count = 0
    for src_layout, wei_layout in LAYOUTS:
        q = p.replace(src_layout=src_layout, wei_layout=wei_layout)
        reason = ALGORITHMS[algorithm].reject(q, detect())
        if reason is not None:
            record_property("refused", f"{algorithm}: {reason}")
            continue
        last = src_layout == "nhwc"
        for integers in (True, False) if DTYPES[p.dst].kind in "fc" else (False,):
            src, wei, bias, exact = expected(p, integers)
            src, wei = laid_out(src, last, (0, 2, 3, 1)), laid_out(wei, last, (2, 3, 1, 0))
            results = [run(q, src, wei, bias, algorithm, threads) for threads in (1, 2)]
            what = f"{algorithm} {'on whole numbers' if integers else ''}"
            if integers and is_exact(p) and not transform_constant(q, algorithm):
                assert_close(results[0], stored(q, exact), 0, what)
            else:
                assert_within(results[0], q, exact, algorithm, what)
            assert_same_bits(results[1], results[0], f"{what} on 2 threads {q}")
            count += 1
    return count


def problems_of(name, types):
    p = CASES[name]
    for text in types:
        src, wei, dst, acc = text.split(":") if ":" in text else (text, text, text, "f32" if text == "f16" else text)
        if runs(p, dst):
            yield p.replace(src=src, wei=wei, dst=dst, acc=acc)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_case(algorithm, name, exercised, record_property):
    # `blocked` compiles for seconds: its float64 is shown by the 3x3 cases, the rest with --slow
    types = MAIN if dense(CASES[name]) and (algorithm != "blocked" or name.startswith("3x3")) else MAIN[:1]
    if sum([compare(algorithm, p, record_property) for p in problems_of(name, types)]):
        exercised(algorithm, name)


@pytest.mark.parametrize("dtype", [*OTHERS, *MIXED])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_other_types(algorithm, dtype, exercised, record_property):
    # kernels of many tiles: the rest with --slow
    for name in FEW[: {"blocked": 1, "int8": 3, "direct": 3}.get(algorithm, len(FEW))]:
        if sum([compare(algorithm, p, record_property) for p in problems_of(name, [dtype])]):
            exercised(algorithm, f"{name} {dtype}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*MAIN[1:], *OTHERS, *MIXED])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_case_in_other_types(algorithm, dtype, record_property):
    for name in CASES:
        sum([compare(algorithm, p, record_property) for p in problems_of(name, [dtype])])


DECLARED = [(name, p) for name, algorithm in ALGORITHMS.items() if not isinstance(algorithm.CASES, str) for p in declared(algorithm)]


@pytest.mark.parametrize(("algorithm", "p"), DECLARED, ids=str)
def test_declared_cases_are_accepted_and_right(algorithm, p, exercised):
    for target in (detect(), *TARGETS):
        assert ALGORITHMS[algorithm].reject(p, target) is None, target
    src, wei, bias = operands(p)
    result = run(p, src, wei, bias, algorithm, 2)
    assert_within(result, p, truth(p, src, wei, bias), algorithm)
    exercised(algorithm, str(p))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_declares_cases(algorithm):
    assert ALGORITHMS[algorithm].CASES
    assert algorithm == "reference" or isinstance(ALGORITHMS[algorithm].CASES, tuple)


def test_the_reference_is_last_and_refuses_no_case():
    assert list(ALGORITHMS)[-1] == "reference"
    for p in CASES.values():
        for target in TARGETS:
            assert ALGORITHMS["reference"].reject(p, target) is None


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_predicted_costs_are_positive_and_grow_with_the_image(algorithm, target):
    module = ALGORITHMS[algorithm]
    for p in CASES.values():
        if module.reject(p, target) is None:
            cost = module.cost(p, target)
            assert 0 < cost < 60
            assert module.cost(p.replace(n=64), target) > cost


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reads_arrays_of_any_strides_and_writes_them(algorithm, exercised):
    for name in ("image.reflect", "3x3.channels", "strided.padded", "image.dilated", "depthwise.padded"):
        p = CASES[name]
        if ALGORITHMS[algorithm].reject(p, detect()) is not None:
            continue
        src, wei, bias, exact = expected(p, False)
        dense = run(p, src, wei, bias, algorithm)
        assert_within(dense, p, exact, algorithm)
        n, c, h, w = shapes(p)[3]
        targets = (
            np.full((n, c, h, 2 * w + 6), np.nan, "f4")[..., 3:-3:2],
            np.full((n, c, h, w + 9), np.nan, "f4")[..., 4:-5],
            np.full((w, h, c, n), np.nan, "f4").T,
            np.full((n, h, w, c + 1), np.nan, "f4")[..., :-1].transpose(0, 3, 1, 2),
        )
        sources = (np.repeat(src, 2, axis=3)[..., ::2], np.asfortranarray(src), src[:, :, ::-1].copy()[:, :, ::-1],
                   np.repeat(src, 2, axis=1)[:, ::2], src[..., ::-1].copy()[..., ::-1])  # fmt: skip
        weights = (np.asfortranarray(wei), wei[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1], np.repeat(wei, 3, axis=3)[..., ::3])
        for strided in sources:
            assert_same_bits(run(p, strided, wei, bias, algorithm), dense, f"{name} source {strided.strides}")
        for strided in weights:
            assert_same_bits(run(p, src, strided, bias, algorithm), dense, f"{name} weights {strided.strides}")
        for dst in targets:
            memory = dst.base if dst.base is not None else dst
            while memory.base is not None:
                memory = memory.base
            assert_same_bits(run(p, src, wei, bias, algorithm, dst=dst).copy(), dense, f"{name} result {dst.strides}")
            assert np.count_nonzero(np.isnan(memory)) == memory.size - dst.size, "wrote outside its result"
        exercised(algorithm, f"{name} strided")


@pytest.mark.parametrize("fill", [2.5, -1e6])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_fill_value(algorithm, fill, exercised):
    for name in ("image.constant", "larger.constant", "3x3.padded", "image.uneven"):
        for dtype in MAIN:
            p = typed(CASES[name], dtype).replace(border="constant")
            if ALGORITHMS[algorithm].reject(p, detect()) is None:
                src, wei, bias = operands(p)
                result = run(p, src, wei, bias, algorithm, fill=fill)
                assert_within(result, p, truth(p, src, wei, bias, fill), algorithm)
                exercised(algorithm, f"{name} {dtype} fill")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_plan_runs_again_with_other_arrays_and_weights(algorithm):
    p = declared(ALGORITHMS[algorithm])[0]
    plan = plan_problem(p, algorithm=algorithm)
    rng = np.random.default_rng(0)
    for _ in range(3):
        src, wei = random_array(rng, shapes(p)[0], DTYPES[p.src]), structured(rng, p)
        dst = result_array(p)
        packed = plan.pack(wei)
        launch = plan.prepare(src, packed, dst)
        for factor in (1, 2):
            scaled = src * src.dtype.type(factor)
            launch(scaled, packed, None, dst)
            assert_within(dst, p, truth(p, scaled, wei), algorithm)


def test_every_file_with_a_reject_is_listed():
    files = [path.stem for path in Path(fastconv.__file__).parent.joinpath("cpu").glob("*.py") if path.stem != "__init__"]
    with_reject = {name for name in files if hasattr(importlib.import_module(f"fastconv.cpu.{name}"), "reject")}
    assert with_reject | {"reference"} == set(ALGORITHMS)
    assert (ROOT / "fastconv").exists()


def test_random_problems(exercised):
    """What no list holds: 60 small random problems, on every algorithm that takes them."""
    rng = np.random.default_rng(20)
    borders = ("constant", "edge", "reflect", "symmetric", "wrap")
    for number in range(60):
        g = int(rng.choice([1, 1, 2, 3]))
        kh, kw, sh, sw, dh, dw = (int(rng.choice(choices)) for choices in
                                  (range(1, 12), range(1, 12), (1, 1, 2, 3), (1, 1, 2, 3), (1, 1, 2), (1, 1, 3)))  # fmt: skip
        pads = {name: int(v) for name, v in zip(("pt", "pb", "pl", "pr"), rng.choice([0, 1, 2, 5], 4), strict=True)}
        ih = max(int(rng.integers(1, 30)), (kh - 1) * dh + 1 - pads["pt"] - pads["pb"])
        iw = max(int(rng.integers(1, 80)), (kw - 1) * dw + 1 - pads["pl"] - pads["pr"])
        p = Problem(n=int(rng.integers(1, 3)), g=g, ic=g * int(rng.integers(1, 9)), oc=g * int(rng.integers(1, 20)), ih=ih, iw=iw,
                    kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, border=str(rng.choice(borders)),
                    epilogue=str(rng.choice(["", "bias", "bias+relu"])), **pads)  # fmt: skip
        src, wei, bias, exact = expected(p, False)
        for algorithm, module in ALGORITHMS.items():
            if module.reject(p, detect()) is None:
                assert_within(run(p, src, wei, bias, algorithm, 1 + number % 2), p, exact, algorithm)
                exercised(algorithm, f"random {number}")
