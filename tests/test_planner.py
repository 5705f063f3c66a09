"""Which algorithm is chosen for what, on machines that need not be here; and that the planner tells."""

import ast
import functools
import types
from dataclasses import replace

import numpy as np
import pytest

from bench.cases import NAMES, load
from fastconv.cpu.target import TARGETS, detect
from fastconv.planning import planner
from fastconv.planning.planner import explain_problem, plan_problem
from fastconv.planning.problem import BORDERS, Problem
from tests.problems import ALGORITHMS, CASES, ROOT, any_problem, fitted

# Choices that are clear on every target (the next candidate is predicted to take half as long again, or more).
PINNED = {
    "ih512_k3_p1": "direct",
    "ih8_k3_p1_reflect": "direct",
    "ih512_k9_p4": "fast_fir",
    "ih512_k31_p15": "fft",
    "ih512_k31_p15_f64": "fft",
    "ih40_k15_p7": "direct",
    "ih512_k3_s2": "direct",
    "ih512_sh2sw1_k3": "direct",
    "ih512_k3_f64": "direct",
    "ih512_k3_u8": "direct",
    "ih512_k3_i64": "direct",
    "ih512_k3_c64": "complex",
    "ih512_k5_fld": "reference",
    "ih64_k3_b8": "reference",
    "ih64_k3_f16:f16:f16:f32": "panel",
    "ic3ih224_oc64k7_s2_p3_nhwc_hwio": "winograd_rows_last",
    "ic1ih224_oc8k5_p2": "shallow",
    "g32_ic128ih56_oc128k3_p1": "shallow",
    "ic64ih56_oc64k3_p1": "winograd",
    "ic64ih56_oc64k3_p1_nhwc_hwio": "winograd_shallow",
    "ic64ih56_oc64k3_p1_bias+relu": "winograd",
    "ic64ih56_oc64k3_p1_bias+gelu": "activated",
    "ic64ih56_oc64k3_p1_f64": "winograd",
    "ic64ih56_oc64k3_p1_strict": "blocked",
    "ic256ih56_oc64k1": "blocked",
    "ic512ih7_oc512k3_p1_strict": "blocked",
    "g144_ic144ih28_oc144k3_p1": "depthwise",
    "g144_ic144ih28_oc144k3_p1_nhwc_hwio": "depthwise",
    "g144_ic144ih56_oc144k3_s2_p1": "depthwise",
    "g32_ic256ih28_oc256k3_p1_nhwc_hwio": "winograd_shallow",
    "g32_ic128ih56_oc128k3_p1_nhwc_hwio_strict": "depthwise",
    "ic64ih56_oc64k3_p1_i32": "direct",
    "ic64ih56_oc64k3_p1_c64": "complex",
    "ic64ih56_oc1k3_p1": "direct",
    "ih64_k3_strict": "direct",
    "ih512_k7_p3_structure=rank1": "separable",
    "ih512_k7_p3_structure=box": "separable",
    "ih512_k15_p7_f64_structure=rank1": "separable",
    "ih512_k9_s2_structure=rank1": "separable",
    "ih512_k5_p2_reflect_u8:f32:u8:f32_saturate_structure=rank1": "separable",
    "g3_ic3ih512_oc3k9_structure=rank1": "separable",
    "ih512_k15_p7_structure=lowrank(2)": "lowrank",
    "ih512_k13_p6": "fast_fir",
    "ih256_k15_p7_f64": "fast_fir",
    "ih1024_k7_p3": "direct",
    "ih512_k3_structure=lowrank(2)": "direct",
    "ih512_k15_p7_structure=sparse(15)": "sparse",
    "ih512_k3_p1_structure=sparse(5)": "direct",
    "ih512_k7_p3_strict_structure=rank1": "direct",
    "ih512_k7_u8_structure=box": "direct",
}
MOST_KERNELS = 40  # for one type


def chosen(p, target):
    return plan_problem(p, target).algorithm


@pytest.mark.parametrize("text", PINNED)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_choice(target, text):
    p = Problem.parse(text)
    assert chosen(p, target) == PINNED[text], f"\n{explain_problem(p, target)}"


def test_calibrated_numbers_have_a_name_in_one_file():
    """Fractions and powers of ten are in planning/cost.py and card_cost.py, each at the start of a line as ``NAME = ...``."""
    planning = ROOT / "fastconv" / "planning"
    for path in [*ROOT.glob("fastconv/cpu/*.py"), *(planning / f"{name}.py" for name in ("reference", "cost", "card_cost"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node for line in tree.body if isinstance(line, ast.Assign) for node in ast.walk(line)} if "cost" in path.stem else set()
        numbers = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
        bare = [f"{path.name}:{node.lineno}: {node.value}" for node in numbers if node not in named and node.value not in (0, 1)]
        assert not bare


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_choices_depend_neither_on_the_batch_nor_on_threads(target):
    """Otherwise the bits of an image's result would."""
    problems = [p for name in NAMES for p in load(name) if p.ih <= 512] + list(CASES.values())
    for p in problems:
        algorithm = chosen(p, target)
        for n, threads in ((2, 1), (7, 2), (64, 16)):
            found = plan_problem(p.replace(n=n), target, threads).algorithm
            assert found == algorithm, f"{p}: {algorithm}, with n={n} threads={threads} {found}"


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_explain_lists_every_algorithm(target):
    for p in CASES.values():
        first, second, *lines, last = explain_problem(p, target).splitlines()
        assert first == str(p)
        assert second == f"target: {target}"
        assert [line.split()[0] for line in lines] == list(ALGORITHMS)
        costs = {}
        for line, (name, algorithm) in zip(lines, ALGORITHMS.items(), strict=True):
            reason = algorithm.reject(p, target)
            if reason is None:
                assert line.endswith(" predicted")
                assert f"{algorithm.cost(p.replace(n=1), target) * 1e3:.4g} ms" in line
                costs[name] = algorithm.cost(p.replace(n=1), target)
            else:
                assert line.endswith(f"no: {reason}")
                assert reason == reason.strip()
                assert reason
        plan = plan_problem(p, target)
        assert last == f"plan: {plan}"
        assert plan.algorithm == min(costs, key=costs.get)
        assert plan.cost == ALGORITHMS[plan.algorithm].cost(p, target)


def test_a_plan_prints_a_problem_that_can_be_planned_again():
    for name, algorithm in ALGORITHMS.items():
        for p in list(CASES.values())[::5]:
            if algorithm.reject(p, detect()) is None:
                plan = plan_problem(p, threads=2, algorithm=name)
                words = str(plan).strip("()").split()
                assert words[:2] == [plan.algorithm, plan.kernel]
                assert Problem.parse(words[2]) == p
                assert f"threads={plan.threads}" in words
                assert plan.workspace == 0 or f"workspace={plan.workspace}" in str(plan)


def test_wrong_names_are_refused_with_reasons():
    p = Problem.parse("ih9_k3_fld")
    with pytest.raises(ValueError, match=r"algorithm must be None or one of .*reference.*, got 'fastest'"):
        plan_problem(p, algorithm="fastest")
    with pytest.raises(ValueError, match="effort must be"):
        plan_problem(p, effort="exhaustive")
    for name, algorithm in ALGORITHMS.items():
        reason = algorithm.reject(p, detect())
        if reason is not None:
            with pytest.raises(ValueError, match=f"algorithm '{name}' cannot run") as caught:
                plan_problem(p, algorithm=name)
            assert reason in str(caught.value)


def test_measured_effort_runs_every_candidate():
    p = Problem.parse("ih9iw40_k3")
    assert plan_problem(p, effort="measure").algorithm in ALGORITHMS


def fake(name, cost=1.0, reason=None, error=None):
    """An algorithm's module."""

    def build(p, t, plan, threads=1):
        if error:
            raise error
        return planner.Plan(p, name, "none", cost, lambda p, w: w)

    return types.SimpleNamespace(__name__=f"x.{name}", CASES=(), reject=lambda p, t: reason, cost=lambda p, t: cost, build=build)


@pytest.fixture
def candidates(monkeypatch):
    def use(*algorithms):
        monkeypatch.setattr(planner, "algorithms", lambda backend="cpu": algorithms)

    planner.forget()
    yield use
    planner.forget()


def test_the_cheapest_is_chosen_and_ties_go_to_the_earlier(candidates):
    p = Problem.parse("ih9")
    candidates(fake("a", 2.0), fake("b", 1.0), fake("c", 1.0), fake("d", 0.5, reason="cannot"))
    assert plan_problem(p).algorithm == "b"
    assert plan_problem(p, algorithm="c").algorithm == "c"
    with pytest.raises(ValueError, match=r"cannot run .*: cannot"):
        plan_problem(p, algorithm="d")


def test_an_error_in_an_algorithm_is_not_a_rejection(candidates):
    candidates(fake("a", error=ZeroDivisionError("bug")), fake("b", 2.0))
    with pytest.raises(ZeroDivisionError, match="bug"):
        plan_problem(Problem.parse("ih9"))


def test_plans_are_remembered_up_to_a_limit(candidates):
    candidates(fake("a"))
    first = plan_problem(Problem.parse("ih9"))
    assert plan_problem(Problem.parse("ih9")) is first
    assert plan_problem(Problem.parse("ih9"), threads=2) is not first
    for n in range(planner.MOST_PLANS + 10):
        plan_problem(Problem(ih=n + 10))
    assert len(planner._plans) == planner.MOST_PLANS
    assert plan_problem(Problem.parse("ih9")) is not first


def kernels(plan):
    return {plan.kernel}.union(*map(kernels, plan.children))


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8", "f16:f16:f16:f32", "c64"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_few_kernels_serve_all_problems(target, dtype):
    rng = np.random.default_rng(30)
    found = set()
    for _ in range(250):
        g = int(rng.choice([1, 1, 4, 30]))
        kh, kw, sh, sw, dh, dw = (int(rng.integers(1, most)) for most in (40, 40, 6, 6, 4, 4))
        layouts = [("nchw", "oihw"), ("nhwc", "hwio")][rng.integers(2)]
        p = Problem.parse(f"ih9_{dtype}").replace(
            g=g, ic=g * int(rng.integers(1, 70)), oc=g * int(rng.integers(1, 70)), ih=kh * dh + int(rng.integers(0, 90)),
            iw=kw * dw + int(rng.integers(0, 90)), kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=int(rng.integers(5)),
            pl=int(rng.integers(5)), border=str(rng.choice(BORDERS)), epilogue=str(rng.choice(["", "bias"])),
            src_layout=layouts[0], wei_layout=layouts[1])  # fmt: skip
        found |= kernels(plan_problem(p, target))
    assert len(found) <= MOST_KERNELS, sorted(found)
    if target == detect() or dtype == "f32":
        assert any(name != "numpy" for name in found)


@functools.cache
def many_problems(dtype):
    """800 of them, the fewest hundreds that reach every kernel; drawing one takes longer than planning it."""
    rng = np.random.default_rng(31)
    return [any_problem(rng, dtype) for _ in range(800)]


# each of two numbers of registers on one target; on another that has as many when there is time
@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=pytest.mark.slow if t.name in ("avx2", "neon") else (), id=t.name) for t in TARGETS]
)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_bound_of_kernels_holds_and_is_near(name, target, monkeypatch):
    """An algorithm compiles for one type at most as many as it says, each of its own name, and for some type not many fewer."""
    module = ALGORITHMS[name]
    if not module.most_kernels(target):
        assert not hasattr(module, "Region"), "an algorithm that compiles nothing of its own needs no region"
        return
    owner = ALGORITHMS[{"int8": "blocked", "lowrank": "separable"}.get(name, name)]  # whose band kernels it is made of
    found = {}

    class Region(owner.Region):
        def __init__(self, kernel, factory, spec, kind):
            found.setdefault(dtype, set()).add((kernel, factory, spec))
            super().__init__(kernel, factory, spec, kind)

    monkeypatch.setattr(owner, "Region", Region)

    def recorded(make):
        def made(*given):
            tile = make(*given)
            found.setdefault(dtype, set()).add((tile.name, tile.factory, tile.spec))
            return tile

        return made

    for maker in [maker for maker in vars(owner) if maker.endswith(("_tile_kernel", "turn_kernel"))]:
        monkeypatch.setattr(owner, maker, recorded(getattr(owner, maker)))
    for dtype in ("f32", "f64", "i32", "u8", "f16:f16:f16:f32", "u8:f32:u8:f32_saturate", "u8:i8:i32:i32"):
        for drawn in many_problems(dtype):
            p = fitted(name, drawn)
            if module.reject(p, target) is None:
                # some kernels are for problems larger than caches
                on = target if drawn.ih % 2 else replace(target, l2=1 << 10, l3=1 << 12)
                plan = module.build(p, on, plan_problem)
                made = {kernel for kernel, _, _ in found[dtype]}
                assert set(plan.kernel.partition(":")[0].split("_or_")) <= made
    for kernels in found.values():
        assert len({kernel for kernel, _, _ in kernels}) == len(kernels), "two kernels have one name"
    most = max(map(len, found.values()))
    assert module.most_kernels(target) / 1.5 <= most <= module.most_kernels(target), found
