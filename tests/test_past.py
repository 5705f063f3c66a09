"""Large results go past the caches: whole aligned vectors in the middle of a row, its ends in another way, and nothing outside it."""

import itertools
import sys

import numpy as np
import pytest

from fastconv.cpu import blocked, carried, depthwise, direct
from fastconv.cpu.target import detect
from fastconv.planning import cost, planner
from fastconv.planning.problem import BORDERS, DTYPES, Problem
from tests.children import command, ending
from tests.oracles import assert_close, assert_same_bits
from tests.problems import operands, result_array, run

LINE = 64  # bytes of a cache line, and of the widest vector


def problems(dtype):
    """Rows of 3 to 5 tiles, some with a rest, over two bands' ends; each border of tiles that carry pixels, and two tiles that do not."""
    lanes = detect().lanes(DTYPES[dtype].itemsize)
    for vecs, kernel in ((2, "kh4kw3"), (4, "k3"), (4, "kh7kw2")):
        width = vecs * lanes
        for ow, oh in ((3 * width, 8), (3 * width - 1, 13), (3 * width + 1, 9), (4 * width + lanes // 2, 66), (5 * width, 21)):
            p = Problem.parse(f"g2_ic2ih9_oc2{kernel}_{dtype}")
            p = p.replace(ih=oh + p.kh - 1, iw=ow + p.kw - 1)
            yield p
            if kernel == "k3":
                yield from (p.replace(ih=oh, iw=ow, pt=1, pb=1, pl=1, pr=1, border=border) for border in BORDERS)


def guarded(p, offset, pitch):
    """A poisoned array for the result, ``offset`` elements behind a multiple of `LINE`, and the memory around it."""
    dtype = DTYPES[p.dst]
    plane = (p.oh + 1) * pitch
    memory = np.full(4 * LINE + offset * dtype.itemsize + p.oc * plane, 0xFF, np.uint8)  # NaN
    start = -memory.ctypes.data % LINE + LINE + offset * dtype.itemsize
    dst = np.ndarray((1, p.oc, p.oh, p.ow), dtype, memory, start, (p.oc * plane, plane, pitch, dtype.itemsize))
    return memory, dst


def check(dtype):
    """Every address of a result within a cache line, rows that are multiples of one and others, 1 and 2 threads."""
    cost.PAST_SHARE = cost.PARALLEL_SECONDS = 0
    planner.forget()
    size = DTYPES[dtype].itemsize
    for p in problems(dtype):
        src, wei, bias = operands(p, True)
        expected = run(p, src, wei, bias, "reference", fill=2)
        for offset, wider, threads in itertools.product(range(16), (0, LINE, size), (1, 2)):
            pitch = -(-p.ow * size // LINE) * LINE + wider
            memory, dst = guarded(p, offset, pitch)
            print(f"{p} offset={offset} pitch={pitch} threads={threads}", flush=True)
            run(p, src, wei, bias, "direct", threads, 2, dst)
            assert_close(dst, expected, 0, p)
            dst.view(np.uint8)[...] = 0xFF
            assert (memory == 0xFF).all(), "something was written outside the result"
    print("done")


LAYERS = {
    "depthwise": ("g112_ic112ih16iw17_oc112k3_p1", "g64_ic64ih17iw15_oc64k3_s2_p1_bias+relu6", "g40_ic40ih9iw16_oc40k3_p1",
                  "g48_ic48ih8iw9_oc48k5_p2", "g16_ic64ih7iw9_oc64k3_p1_bias"),
    "blocked": ("ic16ih9iw11_oc96k1", "ic20ih13iw7_oc64k1_bias+relu6", "ic16ih9iw11_oc40k1", "ic24ih9iw15_oc80k1_s2_bias",
                "g2_ic34ih9iw14_oc96k3_p1", "ic1ih9iw14_oc32k2_bias"),
}  # fmt: skip


def guarded_pixels(p, offset, wider):
    """As `guarded`, channels last, pixels ``wider`` elements apart."""
    shape, dtype = result_array(p).shape, DTYPES[p.dst]
    n, channels, rows, columns = shape
    dx = (channels + wider) * dtype.itemsize
    dy = columns * dx
    memory = np.full(4 * LINE + offset * dtype.itemsize + n * rows * dy, 0xFF, np.uint8)
    start = -memory.ctypes.data % LINE + LINE + offset * dtype.itemsize
    return memory, np.ndarray(shape, dtype, memory, start, (rows * dy, dtype.itemsize, dy, dx))


def check_layers(algorithm, dtype):
    """Results and images at places within a cache line, pixels that are whole lines and others, 1 and 2 threads: the same bits."""
    for text, wider in itertools.product(LAYERS[algorithm], (0, 8, 16)):
        p = Problem.parse(f"n2_{text}_{dtype}_nhwc")
        src, wei, bias = operands(p)
        cost.LAYER_PAST_SHARE = cost.DEPTHWISE_FAR_SHARE = 1e9
        planner.forget()
        expected = run(p, src, wei, bias, algorithm)
        cost.LAYER_PAST_SHARE = cost.DEPTHWISE_FAR_SHARE = cost.PARALLEL_SECONDS = 0
        planner.forget()
        for offset, threads in itertools.product(range(0, 16, 3), (1, 2)):
            space = np.empty(src.size + 2 * LINE, src.dtype)
            beside = space[-space.ctypes.data % LINE // src.itemsize + offset :][: src.size].reshape(src.transpose(0, 2, 3, 1).shape)
            beside[...] = src.transpose(0, 2, 3, 1)
            for place in (0, offset):
                memory, dst = guarded_pixels(p, place, wider)
                print(f"{p} offset={offset} place={place} wider={wider} threads={threads}", flush=True)
                run(p, beside.transpose(0, 3, 1, 2), wei, bias, algorithm, threads, 0, dst)
                assert_same_bits(dst.copy(), expected, p)
                dst.view(f"u{dst.itemsize}")[...] = np.iinfo(f"u{dst.itemsize}").max
                assert (memory == 0xFF).all(), "something was written outside the result"
    print("done")


@pytest.mark.parametrize("dtype", ["f32", "u8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("f64", "i32"))])
def test_every_address_and_pitch(dtype):
    """In a process of its own: a vector at an odd address would end it."""
    finishes("check", dtype)


@pytest.mark.parametrize("algorithm", LAYERS)
@pytest.mark.parametrize("dtype", ["f32", pytest.param("f64", marks=pytest.mark.slow)])
def test_every_place_of_layers(algorithm, dtype):
    finishes("check_layers", algorithm, dtype)


def finishes(name, *arguments):
    """A function of this file comes to its end in another process."""
    done = command([sys.executable, "-c", f"from tests.test_past import {name}; {name}(*{arguments!r})"], check=False)
    last = (done.stdout.splitlines() or ["nothing was run"])[-1]
    assert done.returncode == 0, f"{ending(done)} in {last}\n{done.stderr[-3000:]}"
    assert last == "done"


@pytest.mark.parametrize(
    ("kernel", "place"),
    [("k5_p2", len(direct.Shape._fields) + direct.Head._fields.index("past")), ("k3_p1", carried.Head._fields.index("past"))],
)
def test_only_large_results_with_even_rows(kernel, place, monkeypatch):
    """Which results the kernel is told to store so; otherwise the test above would test nothing."""
    if kernel == "k3_p1" and detect().registers < 32:
        place = len(direct.Shape._fields) + direct.Head._fields.index("past")
    told = []
    launcher = direct.Region.launcher

    def spy(region, extents, *arguments, **keywords):
        told.append(int(extents[place]))
        return launcher(region, extents, *arguments, **keywords)

    monkeypatch.setattr(direct.Region, "launcher", spy)
    p = Problem.parse(f"ih12iw256_{kernel}_f32")
    src, wei, bias = operands(p)
    for share, wider in ((1e9, 0), (0, 0), (0, LINE), (0, 4)):
        monkeypatch.setattr(cost, "PAST_SHARE", share)
        planner.forget()
        _, dst = guarded(p, 3, 1024 + wider)
        run(p, src, wei, bias, "direct", dst=dst)
    planner.forget()
    assert told == [0, 1, 1, 0]


@pytest.mark.skipif(detect().bits // 8 != LINE, reason="vectors are no cache lines")
def test_only_large_results_of_layers_in_whole_lines(monkeypatch):
    """Which tiles are told to, by where results begin: otherwise `check_layers` would test nothing."""
    p = Problem.parse("g48_ic48ih9iw16_oc48k3_p1_f32_nhwc")
    for share, channels, expected in ((1e9, 48, 0), (0, 48, 1), (0, 40, 0)):
        monkeypatch.setattr(cost, "LAYER_PAST_SHARE", share)
        q = p.replace(g=channels, ic=channels, oc=channels)
        head = depthwise._layout(q, detect(), 1)[1]
        assert head.past == expected
        assert ("_far" in depthwise.build(q, detect(), planner.plan_problem).kernel) == bool(expected)


@pytest.mark.skipif(detect().bits // 8 != LINE, reason="vectors are no cache lines")
def test_only_large_results_of_products_in_whole_lines(monkeypatch):
    """Which the kernel is told to store so, by shares, output channels, groups and what lies between pixels."""
    told = []
    launcher = blocked.Region.launcher

    def spy(region, extents, *arguments, **keywords):
        told.append(int(extents[len(blocked.Shape._fields) + blocked.Head._fields.index("past")]))
        return launcher(region, extents, *arguments, **keywords)

    for share, channels, groups, wider, expected in (
        (1e9, 64, 1, 0, 0), (0, 64, 1, 0, 1), (0, 64, 1, 16, 1), (0, 64, 1, 4, 0), (0, 40, 1, 0, 0), (0, 64, 2, 0, 1), (0, 80, 2, 0, 0)
    ):  # fmt: skip
        monkeypatch.setattr(cost, "LAYER_PAST_SHARE", share)
        p = Problem.parse(f"g{groups}_ic16ih9iw14_oc{channels}k1_f32_nhwc")
        plan = blocked.build(p, detect(), planner.plan_problem)
        src, wei, _ = operands(p)
        packed = plan.pack(wei)
        with monkeypatch.context() as watched:
            watched.setattr(blocked.Region, "launcher", spy)
            plan.prepare(src, packed, guarded_pixels(p, 0, wider)[1])
        assert told.pop() == expected, f"{p} {share} {wider}"
