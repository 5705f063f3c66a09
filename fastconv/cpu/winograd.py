"""winograd: 3x3 kernels of many channels by F(m x m, 3 x 3): fewer multiplications, in the domain of transformed blocks of pixels.

Wins where dense products run at the peak already: 36 multiplications for 16 results of F(4x4) instead of 144, at stride 2 81.
Blocks of ``m x m`` results lie in a grid anchored at the image's origin; m is chosen from the extents of one image, so no result depends
on threads, groups of blocks or the batch.  For a group of blocks that fits the cache, of one image or of several small ones, pixels are
transformed, multiplied by weights that were transformed when they were packed, and transformed back: nothing of it leaves the cache.
Order of accumulation: chunks of 128 channels, at stride 2 even pixels of each first, a chunk's channels, between the transforms of
:mod:`fastconv.planning.winograd_points`.
Error of each output: ``|error| <= C u max|x| sum|w|``, max over the block, with the C of `most_error`.  What a transform cannot do is done
by direct sums, block by block: where results are not finite, or tiny, and where weights are not finite or out of range.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, parse_epilogue
from ..planning.winograd_cost import winograd_given_seconds, winograd_unit_seconds
from ..planning.winograd_points import POINTS, STRIDED_POINTS, pixels_of, points_of
from .border import too_large
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import JOB_WORDS, Region
from .tile import fitting
from .values import finish_values, not_of_one_type
from .weights_tile import turn_kernel
from .winograd_band import Head, band_factory
from .winograd_frame import columns_read, extents_read, not_3x3, sources, stride_of
from .winograd_pack import SPARE, Packing, packing_kernel, transformable
from .winograd_repair import patch_of, repaired_blocks
from .winograd_tile import CHUNK, error_of

CASES = ("ic64ih28_oc64k3_p1_f32", "n2_ic40ih15iw19_oc48k3_p1_reflect_f32_nhwc_hwio_bias+relu", "g2_ic34ih14_oc40k3_p1_f64",
         "ic48ih29iw31_oc40k3_s2_p1_f32_nhwc_bias", "n2_ic34ih31iw18_oc70k3_s2_p1_symmetric_f32")  # fmt: skip


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``nt`` transformed blocks."""

    registers: int  # of the target, at least
    mr: int
    nt: int


TILES = (
    Tile(32, mr=4, nt=4),  # 16 accumulators, 4 weights, 1 pixel of 32 registers; images of networks have few blocks, often 16 or 49
    Tile(32, mr=1, nt=16),  # of groups of few channels: 16 of 32 groups at 14x14 take 110 us, `shallow_last`'s tiles 130 (one core, Zen 5)
    Tile(16, mr=2, nt=6),  # 12 accumulators, 2 weights, 1 pixel of 16 registers
)

_MOST_BLOCKS = 128  # of a group


def reject(p: Problem, t: Target) -> str | None:
    """Forward, 3x3 at every pixel or every other of both directions, float32 and float64."""
    reason = not_of_one_type(p, transforms=True) or not_3x3(p, 2)
    if reason is not None:
        return reason
    choice = _choice(p.replace(n=1), t)
    if choice is None:
        return f"needs more than {costs.MOST_WORKSPACE >> 20} MiB of workspace a thread"
    return too_large(p, _scratch(p, t, choice))


def most_error(p: Problem) -> int:
    """C of the bound of each output: of F(6x6) eight times that of F(4x4), at stride 2 half of it."""
    return (8 if 6 in variants(p) else 1) * error_of(p.ic // p.g)


class Choice(NamedTuple):
    """How a problem is computed: the extent of a block, the tile, the blocks of a group, parts of the output channels.

    A group has ``gy`` rows of ``gx`` blocks, of so many ``images``.
    """

    m: int
    tile: Tile
    gy: int
    gx: int
    parts: int
    images: int = 1


def cost(p: Problem, t: Target) -> float:
    """Groups of blocks, the cheapest way to cut them."""
    choice = _choice(p.replace(n=1), t)
    assert choice is not None
    return costs.WINOGRAD_CALL_SECONDS + p.n * _seconds(p.replace(n=1), t, choice, 1, costs.WINOGRAD_CACHE_BYTES)


def most_kernels(t: Target) -> int:
    """How many kernels of one type can ever be compiled: tiles x extents of a block, for each of both one that packs, one that turns."""
    return 2 * len(fitting(TILES, t)) * (len(POINTS) + len(STRIDED_POINTS)) + 1


def variants(p: Problem) -> tuple[int, ...]:
    """The extents m that keep what the precision promises: of layers in float32, results of F(6x6) are up to 2e-5 of the largest off."""
    return tuple(POINTS) if p.precision == "fast" and stride_of(p) == 1 else tuple(STRIDED_POINTS)


@functools.lru_cache(maxsize=256)
def _choice(p: Problem, t: Target) -> Choice | None:
    """The cheapest for one image on one thread; None where all need too much workspace.  Only m changes a sum."""
    cache = costs.WINOGRAD_CACHE_BYTES
    found = [(_seconds(p, t, choice, 1, cache), choice) for m in variants(p) for choice in _choices(p, t, m, 1)]
    return min(found)[1] if found else None


@functools.lru_cache(maxsize=256)
def _split(p: Problem, t: Target, m: int, threads: int, given: bool = False, mr: int = 0) -> Choice:
    """The quickest on so many threads, of one m; ``given`` weights are to be transformed in every call.

    Where ``mr`` is not 0 weights are packed for tiles of so many vectors.
    """

    def seconds(choice: Choice) -> float:
        return _seconds(p, t, choice, threads, t.l2) + (_packing_seconds(p, t, choice, threads) if given else 0.0)

    return min((seconds(choice), choice) for choice in _choices(p, t, m, threads) if mr in (0, choice.tile.mr))[1]


def _groups(p: Problem, choice: Choice) -> int:
    """Of blocks, of all images."""
    return -(-p.n // choice.images) * -(-p.oh // (choice.m * choice.gy)) * -(-p.ow // (choice.m * choice.gx))


def _as_used(p: Problem, choice: Choice, threads: int) -> bool:
    """Whether so few groups of blocks use weights that are given that each transforms them for itself."""
    return _groups(p, choice) <= costs.WINOGRAD_GIVEN_GROUPS * threads


def _packing_seconds(p: Problem, t: Target, choice: Choice, threads: int) -> float:
    size, width = DTYPES[p.acc].itemsize, choice.tile.mr * t.lanes(DTYPES[p.acc].itemsize)
    vectors = p.g * -(-(p.oc // p.g) // width) * choice.tile.mr * -(-(p.ic // p.g) // t.lanes(size))
    times = _groups(p, choice) if _as_used(p, choice, threads) else 0
    return winograd_given_seconds(vectors, choice.m, t.lanes(size), size, times) / threads


def _choices(p: Problem, t: Target, m: int, threads: int) -> Iterator[Choice]:
    rows, columns = -(-p.oh // m), -(-p.ow // m)
    for tile, across, parts in itertools.product(fitting(TILES, t), (1, 2, 3, 4), {1, threads}):
        gx = min(-(-columns // across), _MOST_BLOCKS)
        for gy in {min(tall, rows) for tall in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, -(-rows // 2), -(-rows // 3))}:
            if gy == 1 or gy * gx <= _MOST_BLOCKS:
                for images in _together(p, t, m, gy * gx) if (gy, gx) == (rows, columns) else {1}:
                    choice = _shorter(p, t, Choice(m, tile, gy, gx, parts, images))
                    if _scratch(p, t, choice) <= costs.MOST_WORKSPACE:
                        yield choice


def _together(p: Problem, t: Target, m: int, blocks: int) -> set[int]:
    """Images, of so many blocks each, that may be one group: as even numbers of them as there are, of few transformed pixels."""
    lanes, size = t.lanes(DTYPES[p.acc].itemsize), DTYPES[p.acc].itemsize
    each = pixels_of(m, stride_of(p)) ** 2 * -(-(p.ic // p.g) // lanes) * lanes * size * blocks
    most = min(p.n, _MOST_BLOCKS // blocks, costs.WINOGRAD_IMAGES_BYTES // each, costs.WINOGRAD_GROUPED_IMAGES if p.g > 1 else p.n)
    return {1} | {-(-p.n // -(-p.n // images)) for images in range(2, most + 1)}


def _shorter(p: Problem, t: Target, choice: Choice) -> Choice:
    """The same with so many parts that no unit of work takes long."""
    blocks = -(-(p.oc // p.g) // (choice.tile.mr * t.lanes(DTYPES[p.acc].itemsize)))
    seconds = _unit_seconds(p, t, choice._replace(parts=1), costs.WINOGRAD_CACHE_BYTES)
    return choice._replace(parts=min(max(choice.parts, ceil(seconds / costs.UNIT_SECONDS)), blocks))


def _unit_seconds(p: Problem, t: Target, choice: Choice, cache: int) -> float:
    size = DTYPES[p.acc].itemsize
    m, tile, gy, gx, parts, images = choice
    lanes = t.lanes(size)
    depth, blocks = -(-(p.ic // p.g) // lanes), -(-(p.oc // p.g) // (tile.mr * lanes))
    many, each = images * gy * gx, -(-blocks // parts)
    return winograd_unit_seconds(many, m, stride_of(p), depth, each, blocks, lanes, tile.mr, tile.nt, size, cache)


def _seconds(p: Problem, t: Target, choice: Choice, threads: int, cache: int) -> float:
    """Of the thread with the most units."""
    units = _groups(p, choice) * p.g * choice.parts
    return ceil(units / threads) * _unit_seconds(p, t, choice, cache)


def _scratch(p: Problem, t: Target, choice: Choice) -> int:
    """Bytes of workspace of one thread."""
    m, tile, gy, gx, _, images = choice
    size = DTYPES[p.acc].itemsize
    lanes, stride = t.lanes(size), stride_of(p)
    reads, many = pixels_of(m, stride), -(-images * gy * gx // tile.nt) * tile.nt
    rows, columns = ((blocks - 1) * m * stride + reads for blocks in (gy, gx))
    depth = -(-(p.ic // p.g) // lanes)
    raw, pixels = rows * (columns + 2 * lanes) + reads * columns, reads**2 * (depth * images * gy * gx + 1)
    vectors = tile.mr + 1 + m * m + raw + pixels + points_of(m, stride) ** 2 * tile.mr * many + tile.nt
    return -(-vectors * lanes * size // 64) * 64


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1, m: int = 0, given: bool = False, mr: int = 0) -> Plan:
    """A plan whose child computes blocks that no transform can.

    ``given``: of the caller's weights, transformed as they are used, or first of all where many groups of blocks use them.
    ``m`` and ``mr`` are those of the plan that has packed the weights, of whose image this one's is a band; 0 where there is none.
    """
    kind, lanes = p.acc, t.lanes(DTYPES[p.acc].itemsize)
    choice = _choice(p.replace(n=1), t)
    assert choice is not None
    m, tile, *_ = choice = _split(p, t, m or choice.m, threads, given, mr)
    stride = stride_of(p)
    packing = Region(*packing_kernel(kind, lanes, m, stride, tile.mr, int(t.fma)), kind)
    pack = Packing(packing, turn_kernel(kind, lanes), kind, lanes, m, tile.mr, threads)
    scratch = packed_at = _scratch(p, t, choice)
    head, tables = _layout(p, lanes, choice)
    as_used = given and _as_used(p, choice, threads)
    before = given and not as_used
    if as_used:
        kept = pack.scratch(CHUNK // lanes * tile.mr)
        scratch += 8 * JOB_WORDS + kept + 2 * (m + 2) * (CHUNK * tile.mr + SPARE) * lanes * KINDS[kind][2]
    name = f"winograd_{kind}_{m}x{m}" + f"_s{stride}" * (stride > 1) + f"_{tile.mr}x{tile.nt}_{lanes}"
    region = Region(name, band_factory, (kind, lanes, m, stride, tile.mr, tile.nt, int(t.fma)), kind)
    units = _groups(p, choice) * p.g * head.parts
    seconds = cost(p, t)
    child = plan(patch_of(p, m), t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        dtype = DTYPES[p.acc]
        if src.dtype != dtype or dst.dtype != dtype:

            def band(q: Problem, t: Target, _: None, threads: int) -> Plan:
                return build(q, t, plan, threads, m, given, tile.mr)

            return staged_launch(p, own.threads, band, t, src, packed, dst, fill, multiple=m)
        (sn, sc, sy, sx), (dn, dc, dy, dx) = src.strides, dst.strides
        placed = head._replace(sn=sn, sc=sc, sy=sy, sx=sx, dn=dn, dc=dc, dy=dy, dx=dx)
        values = finish_values(p, fill)

        def bind(flags: np.ndarray) -> Launch:
            here, own_head = placed._replace(flags=flags.ctypes.data), None
            if as_used:
                own_head = pack.head(p, packed, CHUNK // lanes)
                here = here._replace(pack=pack.region.kernel().address, pack_extents=own_head[0].ctypes.data, pack_scratch=kept,
                                     packed_at=packed_at, **pack.ahead(packed))  # fmt: skip
            extents = np.concatenate([np.array(here, np.int64), tables])
            run = region.launcher(extents, values, scratch, units, own.threads, seconds, src, packed, dst)

            def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
                packed = pack(p, packed, kept=False) if before else packed
                if own_head is not None or packed[0, 0, 0, 0]:
                    run(src, packed, bias, dst)
                else:
                    flags[:] = 1
                if own_head is not None and not transformable(own_head[1]):
                    flags[:] = 1

            return launch

        return repaired_blocks(p, m, child, fill, bind, given)

    def as_given(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(DTYPES[p.acc], copy=False)

    return Plan(problem=p, algorithm="winograd", kernel=name, cost=seconds, pack_weights=as_given if given else pack,
                prepare_launch=prepare, workspace=scratch * threads, threads=threads, children=(child,),
                given=None if given else partial(build, p, t, plan, threads, m, True))  # fmt: skip


def _layout(p: Problem, lanes: int, choice: Choice) -> tuple[Head, np.ndarray]:
    """The kernel's integers but for the strides, and its tables."""
    m, tile, gy, gx, parts, images = choice
    rows, columns = -(-p.oh // m), -(-p.ow // m)
    blocks = -(-(p.oc // p.g) // (tile.mr * lanes))
    part_blocks = -(-blocks // parts)
    has_bias, activation, *_ = parse_epilogue(p.epilogue)
    head = Head(*[0] * len(Head._fields))._replace(
        n=p.n, planes=p.g, icg=p.ic // p.g, ocg=p.oc // p.g, ih=p.ih, iw=columns_read(p), oh=p.oh, ow=p.ow, rows=rows, columns=columns,
        images=images, gy=gy, gx=gx,
        groups_y=-(-rows // gy), groups_x=-(-columns // gx), parts=-(-blocks // part_blocks), part_blocks=part_blocks, blocks=blocks,
        pad_x=p.pl, padded_x=extents_read(p)[1], bias=int(has_bias),
        finish=int(activation is not None),
    )  # fmt: skip
    return head, np.concatenate(sources(p, m))
