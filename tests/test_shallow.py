"""shallow where the general cases do not lead: what lies between rows, every phase of a padding, bands, rows of a view."""

import numpy as np
import pytest

from fastconv.cpu import shallow
from fastconv.cpu.target import AVX2, AVX512, TARGETS, detect
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import DTYPES, Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import operands, result_array, run


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("pt", "pb", "pl", "pr"), [(0, 0, 0, 0), (1, 2, 3, 0), (2, 5, 0, 40), (9, 0, 21, 2), (0, 3, 38, 19)])
def test_paddings_of_every_phase(pt, pb, pl, pr, stride):
    """Narrower and wider than a vector, even and odd, on bands that lie in them."""
    p = Problem(ic=3, ih=9, iw=19, oc=5, kh=3, kw=3, sh=stride, sw=stride, pt=pt, pb=pb, pl=pl, pr=pr)
    src, wei, bias = operands(p)
    for fill in (0, -3):
        exact = truth(p, src, wei, bias, fill)
        assert_within(run(p, src, wei, algorithm="shallow", threads=2, fill=fill), p, exact, "shallow")


@pytest.mark.parametrize("text", ["ic3ih24iw41_oc9k3_s2_p1_bias", "g3_ic12ih20iw9_oc15k3_p1_bias+relu", "ic2ih17iw70_oc8k5_d2_p2"])
def test_bands_and_threads_have_the_same_bits(text, monkeypatch):
    p = Problem.parse(text)
    src, wei, bias = operands(p)
    expected = run(p, src, wei, bias, "shallow")
    assert_within(expected, p, truth(p, src, wei, bias), "shallow")
    for rows in (1, 2, 5):
        monkeypatch.setattr(shallow, "_cut", lambda p, t, tile, threads, rows=rows: shallow._cuts(p, t, tile, rows)[0])
        for tile in shallow.TILES[:2] if detect().registers == 32 else shallow.TILES[2:]:
            for threads in (1, 3):
                plan = shallow.build(p, detect(), plan_problem, threads, tile)
                dst = result_array(p)
                plan.run(src, plan.pack(wei), bias, dst)
                assert_same_bits(dst, expected, f"{plan} bands of {rows}")


@pytest.mark.parametrize("text", ["g2_ic8ih9iw7_oc10k3_p1", "ic3ih9iw40_oc8k3_p1", "ic1ih6iw3_oc4k2"])
def test_nothing_is_written_between_the_rows_and_planes_of_a_view(text):
    p = Problem.parse(text)
    src, wei, _ = operands(p)
    memory = np.full((p.n, p.oc + 2, p.oh + 3, p.ow + 5), 77, np.float32)
    inside = (slice(None), slice(1, -1), slice(1, -2), slice(2, -3))
    run(p, src, wei, algorithm="shallow", dst=memory[inside])
    assert_same_bits(memory[inside].copy(), run(p, src, wei, algorithm="shallow"), text)
    memory[inside] = 77
    assert (memory == 77).all()
    below = np.full(p.n * p.oc * p.oh * p.ow + 64, 77, np.float32)
    dense = below[:-64].reshape(p.n, p.oc, p.oh, p.ow)
    run(p, src, wei, algorithm="shallow", dst=dense)
    assert (below[-64:] == 77).all()


def test_images_of_any_strides():
    p = Problem.parse("g2_ic6ih15iw22_oc8k3_s2_p1")
    src, wei, _ = operands(p)
    expected = run(p, src, wei, algorithm="shallow")
    wide = np.full((p.n, p.ic, p.ih, p.iw + 9), np.nan, np.float32)
    wide[..., 4 : 4 + p.iw] = src
    assert_same_bits(run(p, wide[..., 4 : 4 + p.iw], wei, algorithm="shallow"), expected, "a view")
    down = np.ascontiguousarray(src[:, ::-1, ::-1])[:, ::-1, ::-1]
    assert_same_bits(run(p, down, wei, algorithm="shallow"), expected, "rows and channels backwards")
    assert_same_bits(run(p, np.asfortranarray(src), wei, algorithm="shallow"), expected, "columns apart")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g4_ic4ih9_oc8k3_f32", "at least 3 results of each channel, not 2"),
        ("ic65ih9_oc7k3_f32", "at most 64 channels, not 65"),
        ("ic49ih9_oc16k3_f32", "at most 48 channels, not 49"),
        ("ic49ih9_oc7k3_f32_nhwc", "at most 48 channels, not 49"),
        ("ic3ih9_oc8k3_i32", "sums in f32 or f64"),
        ("ic3ih9_oc8k3_f32_gelu", "does not fuse gelu"),
        ("ic32ih9iw9000000_oc8k3_f32", "MiB of workspace"),
    ],
)
def test_reasons(text, reason):
    assert reason in shallow.reject(Problem.parse(text), AVX2)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_what_is_counted_is_what_is_taken(target):
    for text in shallow.CASES:
        p = Problem.parse(text)
        lanes = target.lanes(DTYPES[p.acc].itemsize)
        for tile in (tile for tile in shallow.TILES if tile.registers <= target.registers):
            for cut in shallow._cuts(p, target, tile):
                head, (offsets, *_), scratch = shallow._layout(p, tile, lanes, cut)
                length = p.ow if head.rowwise else (cut.rows - 1) * cut.pitch + p.ow
                last = int(offsets.max()) // DTYPES[p.acc].itemsize + (cut.rows - 1) * cut.pitch * head.rowwise + length
                assert last <= head.planes * cut.plane
                assert scratch >= cut.bytes
                assert cut.seconds > 0


def test_it_is_chosen_for_what_it_is_for():
    for text in (
        "ic3ih224_oc64k3_p1",
        "ic3ih224_oc32k3_s2_p1",
        "g32_ic128ih56_oc128k3_p1",
        "g32_ic256ih28_oc256k3_p1",
        "g6_ic30ih28_oc30k3_p1",
        "ic64ih224_oc3k3_p1",
        "ic64ih112_oc12k4_p2",
    ):
        assert plan_problem(Problem.parse(text), AVX512).algorithm == "shallow", text
