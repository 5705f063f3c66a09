"""winograd: 3x3 kernels of many channels by F(m x m, 3 x 3): fewer multiplications, in the domain of transformed blocks of pixels.

Wins where dense products run at the peak already: 36 multiplications for 16 results of F(4x4) instead of 144.  Blocks of ``m x m`` results
lie in a grid anchored at the image's origin; m is chosen from the extents of one image, so no result depends on threads, groups of
blocks or the batch.  For a group of blocks that fits the cache pixels are transformed, multiplied by weights that were transformed when
they were packed, and transformed back: nothing of it leaves the cache.  Order of accumulation: chunks of 128 channels, a chunk's
channels, between the transforms of :mod:`fastconv.planning.winograd_points`.
Error of each output: ``|error| <= C u max|x| sum|w|``, max over the block, with the C of `most_error`.  What a transform cannot do is done
by direct sums, block by block: where results are not finite, or tiny, and where weights are not finite or out of range.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque, namedtuple
from collections.abc import Iterator
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem, border_indices, parse_epilogue
from ..planning.winograd_points import POINTS
from .border import too_large
from .memory import call_kernel, copy, fill_row, integers, peek, poke, put_integers, unrolled_by_hand
from .simd import KINDS
from .stage import staged_launch
from .target import Target
from .threads import JOB_WORDS, Job, Region
from .tile import fitting
from .values import finish_values, not_of_one_type
from .weights_tile import turn_kernel
from .winograd_pack import HEAD, SPARE, Packing, packing_kernel, transformable, weights_of
from .winograd_tile import CHUNK, block_results, pixels_of, points_of, products, transformed_pixels, turned_pixels

CASES = ("ic64ih28_oc64k3_p1_f32", "n2_ic40ih15iw19_oc48k3_p1_reflect_f32_nhwc_hwio_bias+relu", "g2_ic34ih14_oc40k3_p1_f64")


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``nt`` transformed blocks."""

    registers: int  # of the target, at least
    mr: int
    nt: int


TILES = (
    Tile(32, mr=4, nt=4),  # 16 accumulators, 4 weights, 1 pixel of 32 registers; images of networks have few blocks, often 16 or 49
    Tile(32, mr=2, nt=8),
    Tile(32, mr=1, nt=16),
    Tile(16, mr=2, nt=6),  # 12 accumulators, 2 weights, 1 pixel of 16 registers
)

_MOST_BLOCKS = 128  # of a group
_PATCHES = 16  # blocks of one call of direct sums
_OUTSIDE, _BEYOND = -1, -2  # the image: the fill value; the padded image: 0
# The integers that the kernel receives: these, the image row behind each row of the blocks, the column behind each column.
Head = namedtuple(
    "Head",
    "planes icg ocg ih iw oh ow rows columns gy gx groups_y groups_x parts part_blocks blocks pad_x padded_x bias flags "
    "pack pack_extents pack_scratch packed_at soon_low soon_calls soon_lines soon_outer soon_step wo wc sn sc sy sx dn dc dy dx",
)
_HEAD_BYTES = 8 * len(Head._fields)


def _factory(kind: str, lanes: int, m: int, stride: int, mr: int, nt: int, fma: int) -> Any:
    """The band kernel: units of work are (image, group of ``gy x gx`` blocks, group of channels, part of the output channels).

    Raw pixels of a vector of channels, ``[row][column][lanes]``, with borders resolved, are transformed along columns and then along rows
    to ``[i][j][c / lanes][block][lanes]``; products lie as ``[block][i][j][mr * lanes]``.  A block whose results are to be repaired is
    marked in the words at ``flags``, ``[n][block row][block column]``, behind one that tells whether any is.
    Products of blocks beyond the group's last, up to a tile, are of what lies there and never used.
    Workspace: bias of the output channels, a vector of zeros, results of a block, raw pixels, a row of blocks transformed along columns,
    transformed pixels, products; ``packed_at`` bytes on, the job of the kernel at ``pack``, its workspace, what it transforms.
    Where ``pack`` is not 0, the weights are the caller's, and those of a chunk of channels are transformed just before they are used;
    the first ``soon_calls`` products of a chunk ask for those of the next one, each for one of ``soon_lines`` columns of lines that lie
    ``soon_step`` bytes apart, from ``soon_low`` behind its first weight on, then ``soon_outer`` bytes further.
    """
    spec = (kind, lanes, m, stride, mr, nt, fma)
    size = KINDS[kind][2]
    vector, width, taps, chunk, spare = lanes * size, mr * lanes, (m + 2) ** 2, CHUNK // lanes, SPARE * lanes
    step, reads, points = m * stride, pixels_of(m, stride), points_of(m, stride)
    beyond = reads - step  # pixels that two blocks share

    def winograd(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        row_at = at.extents + _HEAD_BYTES
        column_at = row_at + 8 * (e.rows * step + beyond)
        fill = peek(kind, at.values)
        zero = peek(kind, at.values + 4 * size)
        bias_at = at.workspace + index * at.scratch
        zeros = bias_at + width * size
        tile_at = zeros + vector
        raw = tile_at + m * m * vector
        row_bytes = (e.gx * step + beyond + 2 * lanes) * vector
        middle = raw + (e.gy * step + beyond) * row_bytes
        middle_bytes = (e.gx * step + beyond) * vector
        pixels = middle + reads * middle_bytes
        depth = (e.icg + lanes - 1) // lanes
        pixel_bytes = (depth * e.gy * e.gx + 1) * vector
        sums = pixels + reads**2 * pixel_bytes
        sum_bytes = points**2 * width * size
        fill_row(kind, lanes, zeros, lanes, zero)
        pack_job = bias_at + e.packed_at
        packed = pack_job + 8 * JOB_WORDS + e.pack_scratch
        held = depth if e.pack == 0 else chunk
        turns = (depth + held - 1) // held
        for u in range(u0, u1):
            rest, part = u // e.parts, u % e.parts
            rest, group = rest // e.planes, rest % e.planes
            rest, bx = rest // e.groups_x, rest % e.groups_x
            n, by = rest // e.groups_y, rest % e.groups_y
            ty, tx = by * e.gy, bx * e.gx
            tall, wide = min(e.gy, e.rows - ty), min(e.gx, e.columns - tx)
            many = tall * wide
            columns = wide * step + beyond
            left = tx * step - e.pad_x  # image column of the group's first
            c0, c1 = max(left, 0), min(left + columns, e.iw)
            inside = max(c1 - c0, 0)
            before = min(c0 - left, columns)
            readable = e.iw - c0 if e.iw < lanes else lanes
            for cb in range(depth):
                channels = min(lanes, e.icg - cb * lanes)
                plane = at.src + n * e.sn + (group * e.icg + cb * lanes) * e.sc
                for r in range(tall * step + beyond):
                    row = peek("i64", row_at + 8 * (ty * step + r))
                    to = raw + r * row_bytes + vector * lanes
                    if row < 0:
                        padded = min(columns, e.padded_x - tx * step) if row == _OUTSIDE else 0
                        fill_row(kind, lanes, to, padded * lanes, fill)
                        fill_row(kind, lanes, to + padded * vector, (columns - padded) * lanes, zero)
                        continue
                    line = plane + row * e.sy
                    first = line + c0 * e.sx
                    place = to + before * vector
                    if inside == 0:
                        pass
                    elif e.sx == size:
                        turned_pixels(spec, place, first, e.sc, channels, zeros, inside, readable, e.iw - lanes - c0)
                    elif e.sc == size and channels == lanes:
                        for x in range(inside):
                            copy(kind, lanes, place + x * vector, first + x * e.sx, lanes)
                    else:
                        fill_row(kind, lanes, place, inside * lanes, zero)
                        for x in range(inside):
                            for c in range(channels):
                                poke(kind, place + x * vector + c * size, peek(kind, first + x * e.sx + c * e.sc))
                    for side in range(2):
                        for x in range(before + inside if side else 0, columns if side else before):
                            column = peek("i64", column_at + 8 * (tx * step + x))
                            fill_row(kind, lanes, to + x * vector, lanes, fill if column == _OUTSIDE else zero)
                            if column >= 0:
                                for c in range(channels):
                                    poke(kind, to + x * vector + c * size, peek(kind, line + c * e.sc + column * e.sx))
                for y in range(tall):
                    first = raw + y * step * row_bytes + vector * lanes
                    transformed_pixels(spec, middle, vector, middle_bytes, first, vector, row_bytes, columns)
                    for i in range(reads):
                        transformed_pixels(spec, pixels + i * reads * pixel_bytes + (cb * many + y * wide) * vector, vector, pixel_bytes,
                                           middle + i * middle_bytes, step * vector, vector, wide)  # fmt: skip
            for block in range(part * e.part_blocks, min((part + 1) * e.part_blocks, e.blocks)):
                o = block * width
                for lane in range(width):
                    has = e.bias and o + lane < e.ocg
                    poke(kind, bias_at + lane * size, peek(kind, at.bias + (group * e.ocg + o + lane) * size) if has else zero)
                soon_step = max(width * size // ((many + nt - 1) // nt), 16)
                filters = group * e.blocks + block
                for turn in range(turns):
                    low, high = turn * held, min((turn + 1) * held, depth)
                    place_of_block = (HEAD + filters * taps * (depth * lanes * width + spare) + low * lanes * width) * size
                    wei = at.wei + place_of_block
                    source = at.wei + (group * e.ocg + (block + (high == depth)) * width) * e.wo + e.soon_low
                    source += (high if high < depth else 0) * lanes * e.wc
                    call = 0
                    if e.pack != 0:
                        wei = packed
                        to = packed - place_of_block
                        put_integers(pack_job, Job(at.wei, 0, 0, at.values, to, pack_job + 8 * JOB_WORDS, e.pack_extents, 0))
                        call_kernel(e.pack, (pack_job, 0, filters * depth + low, filters * depth + high))
                    for i in range(taps):
                        ky, kx = i // (m + 2), i % (m + 2)
                        # at stride 2 the last weights meet all odd pixels, whose products are added to those of the even ones
                        down, across = m if ky >= points else 1, m if kx >= points else 1
                        for c in range(low, high, chunk):
                            first = wei + (c - low) * lanes * width * size
                            channels = min(chunk, depth - c)
                            later = c + (ky >= points) + (kx >= points)
                            for j in range(down * across):
                                ny, nx = ky + j // across, kx + j % across
                                to = sums + (ny % points * points + nx % points) * width * size
                                place = pixels + (ny * reads + nx) * pixel_bytes + c * many * vector
                                for t in range(0, many, nt):
                                    # the next weights, a part with each tile of these: asked for all at once they come no sooner, and hold
                                    # up what is needed now (256 channels at 14x14: 0.9 ms instead of 1.1; one core, Emerald Rapids, 2026-11)
                                    soon, ahead = first + channels * lanes * (width * size + t // nt * soon_step), soon_step
                                    if call < e.soon_calls:
                                        soon, ahead = source + call // e.soon_lines * e.soon_outer + call % e.soon_lines * 64, e.soon_step
                                    elif e.pack != 0 or j > 0:
                                        ahead = 0
                                    call += 1
                                    products(spec, to + t * sum_bytes, sum_bytes, place + t * vector, many * vector, first, channels, later,
                                             soon, ahead)  # fmt: skip
                        wei += (held * width + SPARE) * vector
                for t in range(many):
                    by, bx = ty + t // wide, tx + t % wide
                    y, x = by * m, bx * m
                    to = at.dst + n * e.dn + (group * e.ocg + o) * e.dc + y * e.dy + x * e.dx
                    for lane in range(0, min(width, e.ocg - o), lanes):
                        result = to + lane * e.dc
                        whole = y + m <= e.oh and x + m <= e.ow and o + lane + lanes <= e.ocg
                        way = (1 if e.dc == size else 2 if e.dx == size else 0) if whole else 0
                        wrong = block_results(spec, sums + t * sum_bytes + lane * size, bias_at + lane * size, at.values + size,
                                              result if way else tile_at, e.dy, e.dx, e.dc, way)  # fmt: skip
                        if wrong:
                            poke("i64", e.flags, 1)
                            poke("i64", e.flags + 8 * (1 + (n * e.rows + by) * e.columns + bx), 1)
                        if way == 0:
                            for a in range(min(m, e.oh - y)):
                                for b in range(min(m, e.ow - x)):
                                    pixel = tile_at + (a * m + b) * vector
                                    for c in range(min(lanes, e.ocg - o - lane)):
                                        poke(kind, result + a * e.dy + b * e.dx + c * e.dc, peek(kind, pixel + c * size))

    return winograd


def reject(p: Problem, t: Target) -> str | None:
    """Forward, 3x3 at every pixel, float32 and float64."""
    reason = not_of_one_type(p, transforms=True)
    if reason is not None:
        return reason
    if (p.kh, p.kw, p.dh, p.dw) != (3, 3, 1, 1) or p.strides not in ((1, 1), (2, 2)):
        return f"3x3 windows at every pixel or every other, not {p.kh}x{p.kw}, strides {p.strides} and dilations {p.dh, p.dw}"
    choice = _choice(p.replace(n=1), t)
    if choice is None:
        return f"needs more than {costs.MOST_WORKSPACE >> 20} MiB of workspace a thread"
    return too_large(p, _scratch(p, t, choice))


def most_error(p: Problem) -> int:
    """C of the bound of each output.

    Of F(4x4), 44 is the largest seen of one channel, and 3.4 for each channel of a chunk where all channels are equal and have one tap; of
    random layers 2.  Of F(6x6) eight times that.
    """
    icg = p.ic // p.g
    return (8 if 6 in variants(p) else 1) * (64 + 4 * min(icg, CHUNK) + 4 * icg // CHUNK)


class Choice(NamedTuple):
    """How a problem is computed: the extent of a block, the tile, rows and columns of blocks of a group, parts of the output channels."""

    m: int
    tile: Tile
    gy: int
    gx: int
    parts: int


def cost(p: Problem, t: Target) -> float:
    """Groups of blocks, the cheapest way to cut them."""
    choice = _choice(p.replace(n=1), t)
    assert choice is not None
    return costs.WINOGRAD_CALL_SECONDS + p.n * _seconds(p.replace(n=1), t, choice, 1, costs.WINOGRAD_CACHE_BYTES)


def most_kernels(t: Target) -> int:
    """How many kernels of one type can ever be compiled: tiles x extents of a block, for each extent one that packs, one that turns."""
    return (len(fitting(TILES, t)) + 1) * len(POINTS) + 1


def variants(p: Problem) -> tuple[int, ...]:
    """The extents m that keep what the precision promises: of layers in float32, results of F(6x6) are up to 2e-5 of the largest off."""
    return tuple(POINTS) if p.precision == "fast" else (2, 4)


@functools.lru_cache(maxsize=256)
def _choice(p: Problem, t: Target) -> Choice | None:
    """The cheapest for one image on one thread; None where all need too much workspace.  Only m changes a sum."""
    cache = costs.WINOGRAD_CACHE_BYTES
    found = [(_seconds(p, t, choice, 1, cache), choice) for m in variants(p) for choice in _choices(p, t, m, 1)]
    return min(found)[1] if found else None


@functools.lru_cache(maxsize=256)
def _split(p: Problem, t: Target, m: int, threads: int) -> Choice:
    """The quickest on so many threads, of one m."""
    return min((_seconds(p, t, choice, threads, t.l2), choice) for choice in _choices(p, t, m, threads))[1]


def _choices(p: Problem, t: Target, m: int, threads: int) -> Iterator[Choice]:
    rows, columns = -(-p.oh // m), -(-p.ow // m)
    for tile, across, parts in itertools.product(fitting(TILES, t), (1, 2, 3, 4), {1, threads}):
        gx = min(-(-columns // across), _MOST_BLOCKS)
        for gy in {min(tall, rows) for tall in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, -(-rows // 2), -(-rows // 3))}:
            if gy == 1 or gy * gx <= _MOST_BLOCKS:
                choice = _shorter(p, t, Choice(m, tile, gy, gx, parts))
                if _scratch(p, t, choice) <= costs.MOST_WORKSPACE:
                    yield choice


def _shorter(p: Problem, t: Target, choice: Choice) -> Choice:
    """The same with so many parts that no unit of work takes long."""
    blocks = -(-(p.oc // p.g) // (choice.tile.mr * t.lanes(DTYPES[p.acc].itemsize)))
    seconds = _unit_seconds(p, t, choice._replace(parts=1), costs.WINOGRAD_CACHE_BYTES)
    return choice._replace(parts=min(max(choice.parts, ceil(seconds / costs.UNIT_SECONDS)), blocks))


def _unit_seconds(p: Problem, t: Target, choice: Choice, cache: int) -> float:
    size = DTYPES[p.acc].itemsize
    m, tile, gy, gx, parts = choice
    lanes, extents = t.lanes(size), (pixels_of(m, p.sh), points_of(m, p.sh), m + 2)
    depth, blocks = -(-(p.ic // p.g) // lanes), -(-(p.oc // p.g) // (tile.mr * lanes))
    return costs.winograd_unit_seconds(gy * gx, extents, depth, -(-blocks // parts), lanes, tile.mr, tile.nt, size, cache)


def _seconds(p: Problem, t: Target, choice: Choice, threads: int, cache: int) -> float:
    """Of the thread with the most units."""
    units = p.n * p.g * -(-p.oh // (choice.m * choice.gy)) * -(-p.ow // (choice.m * choice.gx)) * choice.parts
    return ceil(units / threads) * _unit_seconds(p, t, choice, cache)


def _scratch(p: Problem, t: Target, choice: Choice) -> int:
    """Bytes of workspace of one thread."""
    m, tile, gy, gx, _ = choice
    size = DTYPES[p.acc].itemsize
    lanes, reads = t.lanes(size), pixels_of(m, p.sh)
    many = -(-gy * gx // tile.nt) * tile.nt
    rows, columns = ((many_of - 1) * m * p.sh + reads for many_of in (gy, gx))
    depth = -(-(p.ic // p.g) // lanes)
    raw, pixels = rows * (columns + 2 * lanes) + reads * columns, reads**2 * (depth * gy * gx + 1)
    vectors = tile.mr + 1 + m * m + raw + pixels + points_of(m, p.sh) ** 2 * tile.mr * many + tile.nt
    return -(-vectors * lanes * size // 64) * 64


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1, m: int = 0, given: bool = False) -> Plan:
    """A plan whose child computes blocks that no transform can.

    ``given``: of the caller's weights, transformed as they are used, or first of all where many groups of blocks use them.
    """
    kind, lanes = p.acc, t.lanes(DTYPES[p.acc].itemsize)
    choice = _choice(p.replace(n=1), t)
    assert choice is not None
    m, tile, *_ = choice = _split(p, t, m or choice.m, threads)
    packing = Region(*packing_kernel(kind, lanes, m, p.sh, tile.mr, int(t.fma)), kind)
    pack = Packing(packing, turn_kernel(kind, lanes), kind, lanes, m, tile.mr, threads)
    scratch = packed_at = _scratch(p, t, choice)
    head, tables = _layout(p, lanes, choice)
    few = p.n * head.groups_y * head.groups_x <= costs.WINOGRAD_GIVEN_GROUPS * threads
    as_used, before = given and few, given and not few
    if as_used:
        scratch += 8 * JOB_WORDS + pack.scratch + (m + 2) ** 2 * (CHUNK * tile.mr + SPARE) * lanes * KINDS[kind][2]
    name = f"winograd_{kind}_{m}x{m}" + f"_s{p.sh}" * (p.sh > 1) + f"_{tile.mr}x{tile.nt}_{lanes}"
    region = Region(name, _factory, (kind, lanes, m, p.sh, tile.mr, tile.nt, int(t.fma)), kind)
    units = p.n * p.g * head.groups_y * head.groups_x * head.parts
    seconds = cost(p, t)
    patch = p.replace(n=_PATCHES, ih=pixels_of(m, p.sh), iw=pixels_of(m, p.sh), pt=0, pb=0, pl=0, pr=0, border="constant", precision="strict", src_layout="nchw")
    child = plan(patch, t, threads)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        dtype = DTYPES[p.acc]
        if src.dtype != dtype or dst.dtype != dtype:

            def band(q: Problem, t: Target, _: None, threads: int) -> Plan:
                return build(q, t, plan, threads, m, given)

            return staged_launch(p, own.threads, band, t, src, packed, dst, fill, multiple=m)
        (sn, sc, sy, sx), (dn, dc, dy, dx) = src.strides, dst.strides
        placed = head._replace(sn=sn, sc=sc, sy=sy, sx=sx, dn=dn, dc=dc, dy=dy, dx=dx)
        values = finish_values(p, fill)

        def state() -> _State:
            flags = np.zeros(1 + p.n * head.rows * head.columns, np.int64)
            here, own_head = placed._replace(flags=flags.ctypes.data), None
            if as_used:
                own_head = pack.head(p, packed, CHUNK // lanes)
                here = here._replace(pack=pack.region.kernel().address, pack_extents=own_head[0].ctypes.data, pack_scratch=pack.scratch,
                                     packed_at=packed_at, **pack.ahead(packed))  # fmt: skip
            extents = np.concatenate([np.array(here, np.int64), tables])
            return _State(flags, own_head, region.launcher(extents, values, scratch, units, own.threads, seconds, src, packed, dst))

        # one for each of the threads that run this launch at once
        idle = deque([state()], maxlen=4)

        def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            try:
                found = idle.pop()
            except IndexError:
                found = state()
            flags, own_head, run = found
            wei, packed = packed, pack(p, packed, kept=False) if before else packed
            if own_head is not None or packed[0, 0, 0, 0]:
                run(src, packed, bias, dst)
            else:
                flags[:] = 1
            if own_head is not None and not transformable(own_head[1]):
                flags[:] = 1
            if flags[0]:
                wrong = np.argwhere(flags[1:].reshape(p.n, head.rows, head.columns))
                _repair(p, m, child, wrong, src, wei if given else weights_of(p, packed), bias, dst, fill)
                flags[:] = 0
            idle.append(found)

        return launch

    def as_given(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei.astype(DTYPES[p.acc], copy=False)

    return Plan(problem=p, algorithm="winograd", kernel=name, cost=seconds, pack_weights=as_given if given else pack,
                prepare_launch=prepare, workspace=scratch * threads, threads=threads, children=(child,),
                given=None if given else functools.partial(build, p, t, plan, threads, m, True))  # fmt: skip


class _State(NamedTuple):
    """What one run of a launch has to itself: flags of blocks, head and totals of given weights, the kernel bound to them."""

    flags: np.ndarray
    head: tuple[np.ndarray, np.ndarray] | None
    run: Launch


def _layout(p: Problem, lanes: int, choice: Choice) -> tuple[Head, np.ndarray]:
    """The kernel's integers but for the strides, and its tables."""
    m, tile, gy, gx, parts = choice
    rows, columns = -(-p.oh // m), -(-p.ow // m)
    blocks = -(-(p.oc // p.g) // (tile.mr * lanes))
    part_blocks = -(-blocks // parts)
    head = Head(*[0] * len(Head._fields))._replace(
        planes=p.g, icg=p.ic // p.g, ocg=p.oc // p.g, ih=p.ih, iw=p.iw, oh=p.oh, ow=p.ow, rows=rows, columns=columns, gy=gy, gx=gx,
        groups_y=-(-rows // gy), groups_x=-(-columns // gx), parts=-(-blocks // part_blocks), part_blocks=part_blocks, blocks=blocks,
        pad_x=p.pl, padded_x=p.iw_padded, bias=int(parse_epilogue(p.epilogue).bias),
    )  # fmt: skip
    return head, np.concatenate(_sources(p, m))


def _sources(p: Problem, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The image row behind each row that a block reads, and the column behind each column."""
    found = []
    for before, extent, padded, out in ((p.pt, p.ih, p.ih_padded, p.oh), (p.pl, p.iw, p.iw_padded, p.ow)):
        places = border_indices(-before, (-(-out // m) - 1) * m * p.sh + pixels_of(m, p.sh), 1, extent, p.border)
        places[padded:] = _BEYOND
        found.append(places)
    return found[0], found[1]


def _repair(
    p: Problem, m: int, child: Plan, wrong: np.ndarray, src: np.ndarray, wei: np.ndarray, bias: np.ndarray | None, dst: np.ndarray,
    fill: Any,
) -> None:  # fmt: skip
    """Direct sums for the blocks at ``wrong``, rows of (image, block row, block column)."""
    dtype = DTYPES[p.acc]
    own, step, reads = child.pack(wei), m * p.sh, pixels_of(m, p.sh)
    rows, columns = _sources(p, m)
    patches = np.zeros((_PATCHES, p.ic, reads, reads), dtype)
    results = np.empty((_PATCHES, p.oc, m, m), dtype)
    run = child.prepare(patches, own, results)
    for first in range(0, len(wrong), _PATCHES):
        chunk = wrong[first : first + _PATCHES]
        for patch, (n, ty, tx) in zip(patches, chunk, strict=False):
            down, across = rows[ty * step : ty * step + reads], columns[tx * step : tx * step + reads]
            patch[...] = src[n][:, np.maximum(down, 0)[:, None], np.maximum(across, 0)]
            for places, axis in ((down, 1), (across, 2)):
                outside = np.moveaxis(patch, axis, 0)
                outside[places == _OUTSIDE] = fill
            for places, axis in ((down, 1), (across, 2)):
                np.moveaxis(patch, axis, 0)[places == _BEYOND] = 0
        run(patches, own, bias, results)
        for result, (n, ty, tx) in zip(results, chunk, strict=False):
            to = dst[n, :, ty * m : ty * m + m, tx * m : tx * m + m]
            to[...] = result[:, : to.shape[1], : to.shape[2]]
