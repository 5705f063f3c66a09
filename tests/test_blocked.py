"""`blocked`: where its tiles read and write."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv
from fastconv.cpu import blocked, blocked_split
from fastconv.cpu.blocked_split import merged, split_of, strip_rows
from fastconv.cpu.target import TARGETS, detect
from fastconv.planning import cost
from fastconv.planning.calls import MOST_HELD
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import assert_same_bits, assert_within, truth
from tests.problems import meets_what_was_left, operands, result_array


def broken(*arguments):
    raise AssertionError("packed")


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pixels_of_one_tap_are_read_where_they_lie(stride, monkeypatch):
    p = Problem(n=2, ic=40, ih=15, iw=22, oc=33, sh=stride, sw=stride, src_layout="nhwc")
    src, wei, bias = operands(p, False)
    dst = result_array(p)
    head = blocked.Body(p, blocked._form(p, detect()), blocked.tile_of(p, detect()), detect().lanes(4), 1)
    assert head._one_tap
    plan = blocked.build(p, detect(), plan_problem, 1)
    plan.run(src, plan.pack(wei), bias, dst)
    assert_within(dst, p, truth(p, src, wei, bias), "blocked", f"{plan}")


def test_packed_weights_begin_with_a_cache_line():
    for oc in (32, 48, 80):
        p = Problem(ic=16, ih=5, iw=17, oc=oc)
        plan = blocked.build(p, detect(), plan_problem, 1)
        assert plan.pack(operands(p, False)[1]).ctypes.data % 64 == 0


@pytest.mark.parametrize("text", ["ic20ih9_oc130k3", "g2_ic34ih9_oc140k3", "g3_ic9ih9_oc21k2", "ic300ih9_oc64k1", "ic1ih9_oc40k3"])
@pytest.mark.parametrize("threads", [1, 2])
def test_filters_side_by_side_are_packed_as_others_are(text, threads, monkeypatch):
    """Turned by half a turn and beside other filters, of which none is packed, too."""
    monkeypatch.setattr(cost, "PARALLEL_SECONDS", 0)
    p = Problem.parse(text)
    wei = np.ascontiguousarray(operands(p)[1])
    plan = blocked.build(p, detect(), plan_problem, threads)
    last = np.ascontiguousarray(wei.transpose(2, 3, 1, 0))
    wide = np.full((*last.shape[:3], p.oc + 3), np.nan, last.dtype)
    wide[..., 2:-1] = last
    turned = np.ascontiguousarray(last[::-1, ::-1])[::-1, ::-1]
    for found in (last, wide[..., 2:-1], turned):
        packed = plan.pack(found.transpose(3, 2, 0, 1))
        assert np.isfinite(packed).all()
        assert_same_bits(plan.pack_weights.unpack(packed), wei, text)


def test_a_plan_of_large_weights_remembers_its_calls(monkeypatch):
    image, weight = np.ones((1, 600, 3, 14), "f4"), np.ones((128, 600, 1, 1), "f4")
    assert weight.nbytes > MOST_HELD
    plan = fastconv.plan(image, weight)
    first = plan(image)
    monkeypatch.setattr(type(plan._held.plan), "prepare", broken)
    np.testing.assert_array_equal(plan(image), first)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("text", ["ic40ih7_oc150_f32_nhwc_hwio", "g2_ic34ih14_oc40k3_p1_f32_bias", "ic17ih20_oc33k5_d2_p4_f64"])
def test_given_weights_are_packed_where_they_are_used_to_the_same_bits(text, threads):
    """Of any strides: side by side in a filter, or its channels, filters side by side, turned by half a turn."""
    p = Problem.parse(text)
    plan = blocked.build(p, detect(), plan_problem, threads)
    given = plan.given()
    assert given.given is None
    src, wei, bias = operands(p)
    expected, result = result_array(p), result_array(p)
    plan.run(src, plan.pack(wei), bias, expected)
    for strided in (np.ascontiguousarray(wei), np.asfortranarray(wei), np.ascontiguousarray(wei[:, ::-1, ::-1])[:, ::-1, ::-1],
                    np.ascontiguousarray(wei.swapaxes(0, 1)).swapaxes(0, 1),
                    np.ascontiguousarray(wei.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):  # fmt: skip
        assert np.shares_memory(given.pack(strided), strided)
        result[...] = 9
        given.run(src, given.pack(strided), bias, result)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("taps", ["", "k3_p1"])
def test_given_weights_that_a_thread_holds_are_packed_once_for_all_its_bands(taps, monkeypatch):
    """And again in the next call, though the workspace is the same; pixels in place, or bands of them in a panel."""
    p = Problem.parse(f"ic40ih20iw30_oc150{taps}_f32")
    monkeypatch.setattr(blocked_split, "_PANEL_BYTES", 60_000)
    src, wei, bias = operands(p)
    given, calls = blocked.build(p, detect(), plan_problem, 2).given(), []
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)
    kernel = given.prepare(src, wei, result_array(p)) and blocked.FilterPacker(p, "f32", detect().lanes(4), 32, 1).kernel()
    counting = function(lambda *arguments: calls.append(arguments[-2:]) or function(kernel.address)(*arguments))
    counted = SimpleNamespace(address=ctypes.cast(counting, ctypes.c_void_p).value)
    monkeypatch.setattr(blocked.FilterPacker, "kernel", lambda self: counted)
    tile, lanes = blocked.tile_of(p, detect()), detect().lanes(4)
    blocks = -(-p.oc // (tile.mr * lanes))
    assert p.oh // split_of(p, tile, lanes, 4, 2, not taps, True, detect().l2).band_rows > 2
    launch, result = given.prepare(src, wei, result_array(p)), result_array(p)
    for weights in (wei, wei + 1):
        calls.clear()
        launch(src, weights, bias, result)
        assert len(calls) in (blocks, 2 * blocks)
        assert_within(result, p, truth(p, src, weights, bias), "blocked")


def test_functional_calls_pack_nothing_where_one_band_reads_the_weights(monkeypatch):
    image, weight = np.ones((1, 40, 7, 7), "f4"), np.ones((160, 40, 1, 1), "f4")
    expected = fastconv.plan(image, weight, threads=1, algorithm="blocked")(image)
    monkeypatch.setattr(blocked.FilterPacker, "__call__", broken)
    np.testing.assert_array_equal(fastconv.conv2d(image, weight, threads=1, algorithm="blocked"), expected)


@pytest.mark.parametrize("channels", [256, 512])
def test_given_weights_of_several_taps_are_shared_by_threads(channels):
    """Each packs its own half: 512 to 512 channels at 14x14, stride 2, take 1090 us instead of 1500, packed by both beforehand."""
    p, target = Problem.parse(f"ic{channels}ih{7168 // channels}_oc{channels}k3_s2_p1_f32_nhwc_hwio"), detect()
    plan = blocked.build(p, target, plan_problem, 2)
    tile, lanes = blocked.tile_of(p, target), target.lanes(4)
    assert target.l2 < 2 << 20 or (plan.given is not None and split_of(p, tile, lanes, 4, 2, False, True, target.l2).parts == 2)


def test_given_weights_of_many_bands_are_packed_once():
    assert blocked.build(Problem.parse("n4_ic40ih7_oc160_f32"), detect(), plan_problem).given is None


def test_large_workspaces_are_used_again(monkeypatch):
    """One that is made for each call is a mapping of its own, whose end all processors wait for."""
    image, weight = np.ones((1, 64, 30, 30), "f4"), np.ones((64, 64, 3, 3), "f4")
    plan = fastconv.plan(image, weight, padding=1, algorithm="blocked", threads=1)
    out = plan(image)
    assert plan._held.plan.workspace > 128 << 10
    for _ in range(2):  # the first of which is remembered, the second prepared
        plan(image, out=out)
    monkeypatch.setattr(np, "empty", broken)
    plan(image, out=out)


def test_small_images_are_shared_by_rows_and_filters():
    """Five blocks of filters, or seven rows, are no halves: 960 to 160 channels at 7x7 take 58 us instead of 64."""
    p, target = Problem(ic=40, ih=7, iw=7, oc=160, src_layout="nhwc"), detect()
    tile, lanes = blocked.tile_of(p, target), target.lanes(4)
    split = split_of(p, tile, lanes, 4, 2, in_place=True)
    assert (split.parts > 1) == (split.band_rows < p.oh) or (160 // (tile.mr * lanes)) % 2 == 0
    src, wei, bias = operands(p, False)
    results = []
    for threads in (1, 2, 3):
        plan = blocked.build(p, target, plan_problem, threads)
        results.append(result_array(p))
        plan.run(src, plan.pack(wei), bias, results[-1])
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


def test_threads_share_a_small_images_blocks_of_filters():
    """Each packs its own, and what one is late with is another's: 256 to 1024 channels at 14x14 take 559 us instead of 853."""
    p, target = Problem(ic=40, ih=14, iw=14, oc=600), detect()
    tile, lanes = blocked.tile_of(p, target), target.lanes(4)
    blocks = -(-p.oc // (tile.mr * lanes))
    for given in (False, True):
        split = split_of(p, tile, lanes, 4, 2, True, given)
        assert (split.band_rows, split.pass_blocks) == (p.oh, 3)
        assert split.parts in (-(-blocks // (blocks // 8)), -(-blocks // -(-blocks // 8)))
    src, wei, bias = operands(p, False)
    plan, results = blocked.build(p, target, plan_problem, 2), [result_array(p), result_array(p)]
    plan.run(src, plan.pack(wei), bias, results[0])
    plan.given().run(src, wei, bias, results[1])
    assert_within(results[0], p, truth(p, src, wei, bias), "blocked")
    np.testing.assert_array_equal(*results)


def test_a_pass_over_all_channels_where_sums_would_wait_for_the_next():
    """128 to 128 channels at 56x56, stride 2, take 1017 us instead of 1089 in lower bands (two cores, Emerald Rapids, 2026-11)."""
    p = Problem.parse("ic128ih56_oc128k3_s2_p1_f32_nhwc_hwio")
    tile = next(tile for tile in blocked.TILES if (tile.registers, tile.mr, tile.nx) == (32, 2, 14))
    assert split_of(p, tile, 16, 4, 1).pass_blocks == 8


@pytest.mark.parametrize("given", [False, True])
def test_an_image_beyond_the_cache_is_swept_forth_and_back(given, monkeypatch):
    """By one thread, too, whose weights are packed once all the same."""
    p, launches = Problem(ic=40, ih=20, iw=30, oc=150, src_layout="nhwc"), []
    monkeypatch.setattr(cost, "SWEPT_BYTES", 4 * 600 * 100)
    launcher = blocked.Region.launcher
    monkeypatch.setattr(blocked.Region, "launcher", lambda self, *rest: launches.append(rest) or launcher(self, *rest))
    plan, (src, wei, _) = blocked.build(p, detect(), plan_problem), operands(p)
    plan = plan.given() if given else plan
    packed = plan.pack(wei)
    launches.clear()
    launch, result = plan.prepare(src, packed, result_array(p)), result_array(p)
    assert launches[0][3] >= 4, "units of work, of which some come first and others last"
    assert launches[0][-1], "they turn"
    for _ in range(2):
        launch(src, packed, None, result)
        assert_within(result, p, truth(p, src, wei), "blocked")


def test_an_image_beyond_the_cache_is_read_once():
    p = Problem(ic=256, ih=56, iw=56, oc=64, src_layout="nhwc")
    tile, lanes = blocked.tile_of(p, detect()), detect().lanes(4)
    assert split_of(p, tile, lanes, 4, 2, in_place=True).parts == 1


@pytest.mark.parametrize(
    "case", ["ic32ih8_oc32k3_p1_f32", "ic32ih11_oc32k3_s2_p1_f32", "ic20ih3iw5_oc40k1_p1_f32", "ic32ih8_oc32k3_p1_f32_nhwc_hwio"]
)
def test_tiles_of_narrow_planes_multiply_nothing_that_was_left_in_memory(case, monkeypatch):
    """It may be subnormal numbers, which take ten times as long."""
    p = Problem.parse(case)
    plan = blocked.build(p, detect(), plan_problem)
    src, wei, bias = operands(p)
    dst = result_array(p)
    assert not meets_what_was_left(plan, (src, plan.pack(wei), bias, dst), monkeypatch)
    assert_within(dst, p, truth(p, src, wei, bias), "blocked")


@pytest.mark.parametrize("channels", [96, 144])
def test_layers_of_one_tap_have_tiles_whose_vectors_their_channels_fill(channels):
    """Channels last; of planes and of several taps more pixels in a row are worth more."""
    target = next(target for target in TARGETS if target.registers == 32 and target.lanes(4) == 16)
    p = Problem(ic=24, ih=56, iw=56, oc=channels, src_layout="nhwc")
    assert blocked.tile_of(p, target)[1:] == (3, 1, 9)
    for other in (p.replace(src_layout="nchw"), p.replace(kh=3, kw=3, pt=1, pb=1, pl=1, pr=1)):
        assert blocked.tile_of(other, target)[1:] == (2, 1, 14)


@pytest.mark.parametrize(("threads", "shape", "n"), [(1, (4, 6), 2), (2, (4, 6), 5), (1, (3, 9), 5)])
def test_pixels_in_rows_of_one_tile_and_rows_apart_give_the_same_bits(threads, shape, n):
    """Of the images, of the result, and where the weights are given, which of five images apart are packed beforehand."""
    p = Problem(n=n, ic=20, ih=14, iw=14, oc=60, src_layout="nhwc")
    tile = next(tile for tile in blocked.TILES if (tile.mr, tile.nx) == shape) if detect().registers == 32 else None
    assert tile is None or merged(p, tile).ih == -(-196 * n // tile.nx)
    plan = blocked.build(p, detect(), plan_problem, threads, tile)
    src, wei, _ = operands(p)
    expected = result_array(p)
    plan.run(src, plan.pack(wei), None, expected)
    assert_within(expected, p, truth(p, src, wei), "blocked")
    apart = [np.zeros((p.n, p.ih, p.iw + 3, c), "f4")[:, :, : p.iw].transpose(0, 3, 1, 2) for c in (p.ic, p.oc)]
    images_apart = np.zeros((p.n, p.ih + 1, p.iw, p.ic), "f4")[:, : p.ih].transpose(0, 3, 1, 2)
    apart[0][...] = images_apart[...] = src
    for own in (plan, plan.given()) if plan.given else (plan,):
        for image, dst in ((apart[0], result_array(p)), (src, apart[1]), (*apart,), (images_apart, result_array(p))):
            dst[...] = 9
            own.run(image, own.pack(wei), None, dst)
            np.testing.assert_array_equal(dst, expected)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_tiles_one_after_the_other_are_one_call(layout, monkeypatch):
    """As long as they differ in nothing but their places."""
    p = Problem(n=2, ic=24, ih=9, iw=43, oc=128, src_layout=layout)
    function, calls, make = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 12), [], blocked.blocked_tile_kernel

    def counted(*rest):
        code = function(make(*rest).address)
        counting.append(function(lambda *arguments: calls.append(arguments[-4]) or code(*arguments)))
        return SimpleNamespace(address=ctypes.cast(counting[-1], ctypes.c_void_p).value)

    counting = []
    monkeypatch.setattr(blocked, "blocked_tile_kernel", counted)
    plan = blocked.build(p, detect(), plan_problem)
    src, wei, bias = operands(p)
    result = result_array(p)
    plan.run(src, plan.pack(wei), bias, result)
    assert_within(result, p, truth(p, src, wei, bias), "blocked")
    tile = blocked.tile_of(p, detect())
    whole = merged(p, tile)
    assert sum(calls) == whole.n * whole.oh // tile.ny * -(-whole.ow // tile.nx) * (p.oc // (tile.mr * detect().lanes(4)))
    assert 2 * len(calls) <= sum(calls)


@pytest.mark.parametrize("given", [False, True])
def test_bands_are_shared_evenly(given):
    """Seven of 4 rows are no halves: 256 to 512 channels at 56x56, stride 2, take 433 us instead of 463 (two cores, Zen 5, 2026-11)."""
    p = Problem(ic=256, ih=56, iw=56, oc=512, sh=2, sw=2, src_layout="nhwc")
    tile = next(tile for tile in blocked.TILES if (tile.registers, tile.mr, tile.nx) == (32, 2, 14))
    bands = p.oh / split_of(p, tile, 16, 4, 2, True, given).band_rows
    assert bands % 2 == 0
    assert blocked_split.few_bands(p, tile, 16, 4, 2, True, detect().l2), "each thread packs what it holds"


def test_all_blocks_of_given_weights_are_packed_once_for_all_strips(monkeypatch):
    """A unit's strips of rows are gone through by one block after the other: its weights are packed for the first alone."""
    p = Problem.parse("ic40ih20iw30_oc150_f32_nhwc_hwio")
    monkeypatch.setattr(blocked_split, "_STRIP_BYTES", 10000)
    plan = blocked.build(p, detect(), plan_problem)
    given = plan.given()
    src, wei, bias = operands(p)
    tile = blocked.tile_of(p, detect())
    whole = merged(p, tile)
    split = split_of(whole, tile, detect().lanes(4), 4, 1, True, True)
    assert split.band_rows == whole.oh
    assert strip_rows(whole, tile, detect().lanes(4), 4, split) < split.band_rows
    expected, result = result_array(p), result_array(p)
    plan.run(src, plan.pack(wei), bias, expected)
    given.run(src, given.pack(wei), bias, result)
    np.testing.assert_array_equal(result, expected)
    assert_within(result, p, truth(p, src, wei, bias), "blocked")


def test_rows_apart_have_a_tile_of_their_own():
    """Rows of 7 are no tiles of 6: the image's gradient of 1024 to 2048 channels at 14x14, stride 2, takes 3.98 ms instead of 7.16."""
    target = next(target for target in TARGETS if target.registers == 32 and target.lanes(4) == 16)
    p = Problem(n=8, ic=64, ih=7, iw=7, oc=128, src_layout="nhwc")
    assert blocked.tile_of(p, target)[1:] == (4, 1, 6)
    assert blocked.tile_of(p, target, apart=True)[1:] == (2, 1, 7)
