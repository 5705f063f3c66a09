"""Every row of every TILES table, at extents around its block: block - 1, block, block + 1, 2 block + tail."""

import itertools

import pytest

from fastconv.cpu.target import TARGETS, detect
from fastconv.planning.planner import plan_problem
from fastconv.planning.problem import Problem
from tests.oracles import TRANSFORM, assert_close, assert_within, stored, truth
from tests.problems import ALGORITHMS, fitted, operands, result_array, typed

# a tile's fields -> the extent that they cut into blocks, and whether they count vectors of it
BLOCKS = {
    "rows": ("oh", False),
    "ny": ("oh", False),
    "nx": ("ow", False),
    "vecs": ("ow", True),
    "wide": ("ow", True),
    "mr": ("oc", True),
    "filters": ("oc", False),
    "columns": ("ic", False),
    "nt": ("ow", False),
    "taps": ("kw", False),
    "tall": ("kh", False),
}
OTHER_FIELDS = {"registers", "carries", "tail", "grouped"}

ROWS = [(name, tile) for name, algorithm in ALGORITHMS.items() for tile in getattr(algorithm, "TILES", ())]


def around(block):
    return sorted({max(block - 1, 1), block, block + 1, 2 * block + max(block // 2, 1)})


def blocks(tile, lanes):
    """The extents around each of the tile's blocks."""
    found = {}
    for field, value in tile._asdict().items():
        if field not in OTHER_FIELDS:
            extent, vectors = BLOCKS[field]
            found[extent] = around(value * lanes if vectors else value)
    return found


def problems(tile, lanes):
    """All combinations of rows, columns and channels; then the heights of kernels, each on one uneven image."""
    extents = blocks(tile, lanes)
    if "kw" in extents:
        for kw, kh in itertools.product(extents["kw"], (1, 2)):
            yield Problem(g=3, ic=6, oc=9, ih=5, iw=kw + 17, kh=kh, kw=kw, pl=1, pr=2)
        return
    if "ic" in extents:
        for ic, oc, (kh, kw, sw) in itertools.product(extents["ic"], extents["oc"], ((1, 1, 1), (3, 2, 2))):
            yield Problem(ic=ic, ih=5, iw=17, oc=oc, kh=kh, kw=kw, sw=sw)
        return
    for oh, ow, oc in itertools.product(extents.get("oh", [1, 30]), extents["ow"], extents.get("oc", [2])):
        yield Problem(ic=5, ih=oh, iw=ow, oc=oc, kh=3, kw=3, pt=1, pb=1, pl=1, pr=1, epilogue="bias")
    oh, ow, oc = extents.get("oh", [9])[-1], extents["ow"][-2], extents.get("oc", [1])[0]
    for kh in extents.get("kh", [1, 2, 5]):
        yield Problem(ic=2, ih=oh + kh - 1, iw=ow + 1, oc=oc, kh=kh, kw=2)
        yield Problem(ic=3, ih=oh, iw=ow, oc=oc, kh=kh, kw=4, pt=kh // 2, pb=(kh - 1) // 2, pl=2, pr=1, border="reflect")


def run_tile(name, tile, p, target, monkeypatch):
    """Build with this tile alone on the list, and compare whole numbers exactly and random floats within their bound."""
    module, p = ALGORITHMS[name], fitted(name, p)
    monkeypatch.setattr(module, "TILES", (tile,) * len(module.TILES))
    if module.reject(p, target) is not None:
        return 0
    plan = module.build(p, target, plan_problem, 1)
    for integers in (True, False):
        src, wei, bias = operands(p, integers)
        dst = result_array(p)
        plan.run(src, plan.pack(wei), bias, dst)
        exact = truth(p, src, wei, bias)
        if integers and name not in TRANSFORM and not p.masked:  # a quotient is rounded
            assert_close(dst, stored(p, exact), 0, f"{plan}")
        else:
            assert_within(dst, p, exact, name, f"{plan}")
    return 1


def test_every_field_of_a_tile_is_known():
    for _, tile in ROWS:
        assert set(tile._fields) <= set(BLOCKS) | OTHER_FIELDS, f"say in BLOCKS what {tile} cuts into blocks"


def own_and_others():
    """Rows for this processor, and with --slow those for fewer registers, which tests/test_targets.py compiles for theirs."""
    most = max(tile.registers for _, tile in ROWS if tile.registers <= detect().registers)
    for name, tile in ROWS:
        # kernels of `weights` compile for seconds: its other tiles with --slow
        fast = tile.registers >= most and (name != "weights" or tile == ALGORITHMS[name].TILES[0])
        yield pytest.param(name, tile, id=f"{name}-{tile}", marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("name", "tile"), [*own_and_others()])
def test_around_the_block(name, tile, monkeypatch):
    target = detect()
    if tile.registers > target.registers:
        pytest.skip(f"the tile needs {tile.registers} registers, {target.name} has {target.registers}")
    layouts = ("nchw", "oihw") if ROWS.index((name, tile)) % 2 else ("nhwc", "hwio")
    count = 0
    for p in problems(tile, target.lanes(4)):
        count += run_tile(name, tile, p.replace(src_layout=layouts[0], wei_layout=layouts[1]), target, monkeypatch)
    assert count


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("layouts", [("nchw", "oihw"), ("nhwc", "hwio")])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("name", "tile"), ROWS, ids=str)
def test_around_the_block_for_every_target(name, tile, target, layouts, dtype, monkeypatch):
    """Vectors of any target's width compile on any processor: into more or fewer registers."""
    if tile.registers > target.registers:
        pytest.skip(f"the tile needs more registers than {target.name} has")
    lanes = target.lanes(8 if dtype == "f64" else 4)
    for p in problems(tile, lanes):
        run_tile(name, tile, typed(p, dtype).replace(src_layout=layouts[0], wei_layout=layouts[1]), target, monkeypatch)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_tables_serve_every_target(name):
    """On each target some row fits its registers, and no row is the same as another."""
    tiles = getattr(ALGORITHMS[name], "TILES", None)
    if tiles is None:
        without = (
            "complex",
            "activated",
            "transposed",
            "depthwise_image",
            "depthwise_weights",
            "weights_rows",
            "weights_planes",
            "weights_shallow",
            "fft",
            "folded",
            "identity",
            "int8",
            "lowrank",
            "quotient",
            "reference",
            "weights_parts",
        )
        assert name in without, "an algorithm with register tiles has a table of them"
        return
    assert len(set(tiles)) == len(tiles)
    for target in TARGETS:
        assert any(tile.registers <= target.registers for tile in tiles), target
