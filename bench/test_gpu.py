"""`python -m bench.gpu` where there is no card: says so; what it computes without one."""

import itertools
import json

import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed (fastconv[cuda])")

from bench import gpu, gpu_ceilings, gpu_figures, gpu_peers
from fastconv.cuda import compile as compiler
from fastconv.cuda.compile import Kernel
from fastconv.cuda.driver import DriverError
from fastconv.cuda.target import SM90
from fastconv.planning.problem import Problem


def test_without_a_card_it_says_what_was_found(monkeypatch, capsys):
    def detect(device=None):
        raise DriverError("no CUDA: the driver sees no device")

    monkeypatch.setattr(gpu.target, "detect", detect)
    assert gpu.main([]) == 2
    assert "needs a CUDA card: no CUDA: the driver sees no device\nNothing was measured" in capsys.readouterr().err


def test_a_whole_run_without_a_card(monkeypatch, capsys, tmp_path):
    """What it writes and prints, of answers that are given here."""
    monkeypatch.setattr(gpu.target, "detect", lambda: SM90)
    for name, value in {
        "correctness": {"right": 3, "wrong": []},
        "sanitized": "no error",
        "compiled_ahead": {"kernels": 3, "compiled": 3},
        "ceilings": CEILINGS,
    }.items():
        monkeypatch.setattr(gpu, name, lambda *_, value=value: value)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "ours", lambda p: (1e-3, "plan"))
    monkeypatch.setattr(gpu, "peers", lambda p, seconds, count: {"torch": lambda: 2e-3})
    assert gpu.main(["--save", "dry"]) == 0
    document = json.loads((tmp_path / "dry.json").read_text())
    problems = [*gpu.problems()]
    assert [row["problem"] for row in document["cells"]] == [str(p) for p in problems]
    assert all(row["peers"] == {"torch": 2e-3} for row in document["cells"])
    assert {p.src for p in problems if p.precision == "fast"} == {"f32", "f16", "bf16"}
    printed = capsys.readouterr().out
    assert printed.count("torch 2.00x") == len(problems)
    assert "not measured" in printed
    assert document["figures"] == gpu.figures(document["cells"])
    assert "compute-sanitizer: no error" in printed


class Hands:
    """A clock that shows what it is told to."""

    def __init__(self, hours):
        self.hours = iter(hours)

    def left(self):
        return next(self.hours)


CEILINGS = {"copy": 1e12, "fma": 1e13, "tf32": 1e14, "f16": 2e14, "bf16": 2e14, "peak tf32": 2e14, "peak f16": 4e14, "peak bf16": 4e14}


def measured(monkeypatch, left, peers):
    """What `cells` finds of three problems with a clock and peers."""
    problems = [Problem.parse(f"ih{size}_k3_p1") for size in (64, 128, 256)]
    monkeypatch.setattr(gpu, "problems", lambda: problems)
    monkeypatch.setattr(gpu, "ours", lambda p: (p.ih * 1e-6, "plan"))
    monkeypatch.setattr(gpu, "buffers", lambda p: 2)
    monkeypatch.setattr(gpu, "peers", lambda p, seconds, count: peers)
    found = {}
    steps = sum(1 for _ in gpu.cells(Hands(left), CEILINGS, found))
    return found, steps


def test_every_problem_is_measured_before_any_peer(monkeypatch):
    def missing():
        raise ImportError("no cupy")

    def failing():
        raise RuntimeError("out of memory")

    peers = {"torch": lambda: 1e-3, "cupy ndimage": missing, "cupy signal": missing, "cudnn direct": failing}
    found, steps = measured(monkeypatch, [500.0] * 100, peers)
    assert steps == 6
    assert [row["seconds"] for row in found["cells"]] == [64e-6, 128e-6, 256e-6]
    assert all(row["peers"] == {"torch": 1e-3, "cudnn direct": "RuntimeError: out of memory"} for row in found["cells"])
    assert found["missing"] == {"cupy": "no cupy"}
    assert "torch 15.6" in gpu.text(found["cells"][0])


def test_what_is_not_reached_is_counted_and_no_step_begins_late(monkeypatch):
    found, _ = measured(monkeypatch, [500.0, 400, 400, *[gpu.STEP_SECONDS - 1.0] * 20], {"torch": lambda: 1e-3})
    assert sum(row.get("not reached", False) for row in found["cells"]) == 1
    assert gpu.text(next(row for row in found["cells"] if "seconds" not in row)).endswith("not reached in time")
    assert not any(row.get("peers") for row in found["cells"])
    assert gpu.SECONDS + 2 * gpu.STEP_SECONDS < 600


@pytest.mark.parametrize("count", [1, 2, 3, 100, 198])
def test_peers_are_measured_all_over_the_list(count):
    order = gpu.spread(count)
    assert sorted(order) == [*range(count)]
    if count >= 100:
        assert max(b - a for a, b in itertools.pairwise(sorted([0, *order[: count // 4], count]))) < count // 8


def test_peers_of_a_problem():
    def names(text):
        return [*gpu_peers.peers(Problem.parse(text), None, 2)]

    assert names("n32_ic64ih56_oc64k3_p1") == ["torch", "cudnn direct", "torch channels_last", "torch tf32", "cudnn direct tf32",
                                                "torch channels_last tf32"]  # fmt: skip
    for half in ("f16", "bf16"):
        text = f"n32_ic64ih56_oc64k3_p1_nhwc_{half}:{half}:{half}:f32_fast"
        assert names(text) == ["torch", "torch channels_last", "cudnn direct channels_last"]
    assert names("ih64_k3_p1_u8:u8:u8:u8") == ["cupy ndimage", "cupy signal"]
    assert names("ic4ih9_oc4k3_pt1pb0pl1pr1") == []


def test_cudnn_alone_is_asked_for_direct_sums():
    """With a stand-in of its frontend, which only remembers."""
    from types import SimpleNamespace

    calls = []

    class Tensor:
        def __getattr__(self, name):
            return lambda value: calls.append((name, value)) or self

    class Graph:
        def __init__(self, **types):
            calls.append(("graph", types))

        def tensor(self, **described):
            calls.append(("tensor", described))
            return Tensor()

        def conv_fprop(self, **described):
            calls.append(("conv_fprop", described))
            return Tensor()

    cudnn = SimpleNamespace(data_type=SimpleNamespace(FLOAT="single", HALF="half"), pygraph=Graph)
    p = Problem.parse("n2_g2_ic8ih9iw7_oc6k3_sh2sw1_pt1pb1pl2pr2_f16:f16:f16:f32")
    shapes = ((p.n, p.ic, p.ih, p.iw), (p.oc, p.ic // p.g, 3, 3), (p.n, p.oc, p.oh, p.ow))
    arrays = [SimpleNamespace(shape=shape, stride=lambda: (4, 3, 2, 1)) for shape in shapes]
    gpu_peers.cudnn_graph(cudnn, p, *arrays, "handle")
    said = dict(calls)
    assert said["graph"] == {"io_data_type": "half", "intermediate_data_type": "single", "compute_data_type": "single", "handle": "handle"}
    fprop = said["conv_fprop"]
    assert (fprop["padding"], fprop["stride"], fprop["dilation"]) == ([1, 2], [2, 1], [1, 1])
    assert said["set_dim"] == [2, 6, 5, 9]
    assert [described["dim"] for name, described in calls if name == "tensor"] == [list(shape) for shape in shapes[:2]]
    single = Problem.parse("ic8ih9_oc8k3")
    assert {"WINOGRAD", "FFT"} <= set(gpu_peers.excluded(single, True)) < set(gpu_peers.excluded(single, False))


def test_the_sanitizer_is_shown_every_algorithm(monkeypatch):
    monkeypatch.setattr(gpu.target, "detect", lambda: SM90)
    assert {name for name, _ in gpu.sample()} == {gpu.short_name(a) for a in gpu.algorithms("cuda") if not isinstance(a.CASES, str)}


def test_the_peak_is_of_multiply_adds_alone():
    kernel = Kernel("fma_peak", gpu_ceilings._fma_body, (), ("dst",), ("f32", ("start", "factor")), ("turns",), (256, 1, 1), 64)
    code = compiler.code(kernel, SM90.cc)
    assert code.ptx.count("fma.rn.f32") >= 256
    assert code.resources.spills == code.resources.stack == 0


@pytest.mark.parametrize("factor", gpu_ceilings.FACTORS)
def test_the_peak_is_of_tensor_cores_alone(factor):
    code = compiler.code(gpu_ceilings.tensor_kernel(factor), SM90.cc)
    assert code.ptx.count("mma.sync") >= 2 * gpu_ceilings.TILES
    assert code.resources.spills == code.resources.stack == 0


def test_a_problem_on_tensor_cores_is_judged_by_theirs(monkeypatch):
    monkeypatch.setattr(gpu, "ours", lambda p: (1e-3, "plan"))
    p = Problem.parse("n32_ic512ih28_oc512k3_p1_nhwc_bf16:bf16:bf16:f32_fast")
    row = gpu.cell(p, CEILINGS)
    assert row["roof"] == "bf16"
    assert row["share"] == pytest.approx(p.flops / 2 / 2e14 / 1e-3)
    assert row["peak"] == row["share"] / 2
    assert "% of the card's peak)" in gpu.text(row)
    assert gpu.cell(p.replace(precision="default"), CEILINGS)["roof"] == "fma"


def test_a_problem_or_a_peer_that_fails_ends_nothing(monkeypatch):
    def ours(p):
        raise OverflowError("too large")

    def compiled_without_cuda():
        raise AssertionError("Torch not compiled with CUDA enabled")

    found, _ = measured(monkeypatch, [500.0] * 100, {"torch": compiled_without_cuda})
    assert {row["peers"]["torch"] for row in found["cells"]} == {"AssertionError: Torch not compiled with CUDA enabled"}
    monkeypatch.setattr(gpu, "ours", ours)
    assert gpu.cell(Problem.parse("ih64_k3_p1"), CEILINGS)["error"] == "OverflowError: too large"


def test_a_peer_is_measured_once_for_both_layouts(monkeypatch):
    problems, calls = [Problem.parse(f"ic4ih9_oc4k3_p1{layout}") for layout in ("", "_nhwc")], []
    monkeypatch.setattr(gpu, "problems", lambda: problems)
    monkeypatch.setattr(gpu, "ours", lambda p: (1e-6, "plan"))
    monkeypatch.setattr(gpu, "buffers", lambda p: 2)
    monkeypatch.setattr(gpu, "peers", lambda p, seconds, count: {"torch": lambda: calls.append(p) or 1e-3})
    found = {}
    assert sum(1 for _ in gpu.cells(Hands([500.0] * 20), CEILINGS, found)) == 4
    assert len(calls) == 1
    assert [row["peers"] for row in found["cells"]] == [{"torch": 1e-3}] * 2


def test_figures_are_judged_by_their_rows():
    def row(text, seconds, shares, **peers):
        return {
            "problem": text,
            "seconds": seconds,
            "shares": shares,
            "peers": {name.replace("_", " "): value for name, value in peers.items()},
        }

    rows = [row("ih8192_k3_p1", 1e-3, {"copy": 0.95, "fma": 0.1}, torch=8e-3, cupy_ndimage=2e-3, cupy_signal="no"),
            row("ih8192_k5_p2", 1e-3, {"copy": 0.85, "fma": 0.2}, cupy_signal=8e-3), {"problem": "ih8192_k9_p4", "not reached": True},
            row("n32_ic64ih56_oc64k3_p1", 1e-3, {"copy": 0.1, "fma": 0.9}, torch=9e-4, cudnn_direct=2e-3)]  # fmt: skip
    lines = gpu_figures.figures(rows)
    assert len(lines) == len(gpu_figures.FIGURES)
    assert "one channel, float32, k 3, 5: share of copy bandwidth: mean 0.899, least 0.85, 2 of 2 (each 0.9: FAIL)" in lines
    assert "one channel, float32, k 9 to 21: share of FMA peak: not measured" in lines
    assert "one channel, over CuPy and torch: mean 4, least 2, 2 of 3 (mean 4, each 1.5: pass)" in lines
    assert "layers, float32, over cuDNN without transforms: mean 2, least 2, 1 of 1 (mean 1: pass)" in lines
    assert "layers, float32, over cuDNN free to choose (torch): mean 0.9, least 0.9, 1 of 1" in lines


def test_cells_are_problems_that_the_list_can_run():
    for p in gpu.problems():
        assert any(a.reject(p, SM90) is None for a in gpu.algorithms("cuda")), p


def test_a_row_of_the_table():
    row = {"problem": "ih8192_k3_p1", "seconds": 1e-4, "share": 0.9, "roof": "copy", "peers": {"torch": 4e-4, "cupy ndimage": "no"}}
    assert gpu.text(row).split() == ["ih8192_k3_p1", "0.1000", "ms", "90.0%", "of", "copy", "torch", "4.00x"]
    assert "not reached in time" in gpu.text({"problem": "ih8192_k3_p1", "not reached": True})
