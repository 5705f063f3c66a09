"""depthwise_image: the gradient of the image of depthwise layers and small groups of stride 2; channels in lanes, quads of results.

A quad is the 2 x 2 results that one pixel of the result's gradient reaches first; all four are summed from the same pixels, each with every
second tap of a row and a column, and written side by side.  `transposed`'s four phases read the pixels four times, write every second
pixel of a row, and pack and begin one by one: 144 channels at 56x56 190 us instead of 455, one core, Emerald Rapids,
2026-11.
Channels that lie side by side are read and written in place, those of groups of several copied; planes are interleaved, as many as there
are lanes, and their results separated.  Pixels beyond the gradient are one pixel of zeros, results beyond the image are written to a place
that nobody reads.  The caller's weights are packed by each unit of work, into the first-level cache.
Order of accumulation per result: see :func:`fastconv.cpu.depthwise_image_tile.quads_tile`; it depends on the group only.  A channel some of
whose weights are not finite is summed again, without zeros: one product after the other, as pixels and then taps come.
"""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan
from ..planning.problem import DTYPES, Problem, parse_epilogue
from .blocked_tile import Form
from .border import too_large
from .depthwise_image_tile import finite, quads_tile
from .depthwise_tile import FIXED, OUTSIDE, Shape, addresses, interleave, separate
from .lanes_pack import lanes_packer
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .simd import KINDS
from .strided_image import STEP, image_in_turn, not_strided_image
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values

CASES = ("g24_ic24ih15iw17_oc24k3_s2_p1_bwd-data_f32_nhwc_hwio", "n2_g20_ic20ih14iw9_oc20k3_s2_p1_bwd-data_f32_bias+relu",
         "g8_ic32ih13_oc32k3_s2_p1_bwd-data_f32_nhwc", "g18_ic18ih12_oc18kh2kw3_s2_pt0pb1pl2pr2_bwd-data_f64_nhwc_bias",
         "g3_ic3ih9_oc3k3_s2_p1_bwd-data_f64")  # fmt: skip


class Tile(NamedTuple):
    """``quads`` side by side, of depthwise layers and of groups of several channels."""

    registers: int  # of the target, at least
    quads: int
    grouped: int


_TILES = (
    Tile(32, quads=4, grouped=3),  # 16 accumulators, 6 taps of 3 columns, 1 pixel; 12, 12 of two channels, 3
    Tile(16, quads=2, grouped=1),  # 8, 6, 1 of 16 registers; 4, 12, of which some are read from memory
)

_IN_PLACE, _LANES, _COPIED = 0, 1, 2  # what `Head.staged` says: planes are put into lanes, pixels copied
_HELD_BYTES = 20 << 10  # of a unit's weights and the pixels of a tile: they stay in a first-level cache
_STAGED_BYTES = 384 << 10  # of staged pixels and results: half of a second-level cache

# The integers that the kernel receives: those of the tile, these, bytes to each column of pixels and of results.
Head = namedtuple(
    "Head",
    "channels block blocks bands band_rows down across first_y first_x before iw ih ow oh pt pl columns reach pitch target_pitch finish "
    "bias depth channels_last staged held_rows held_results capacity packer wo wi wy wx sn sc sy sx dn dc dy dx",
)
_HEAD_AT = 8 * len(Shape._fields)
_TABLES_AT = _HEAD_AT + 8 * len(Head._fields)


def _factory(kind: str, lanes: int, quads: int, kw: int, depth: int, fma: int) -> Any:
    """The band kernel: units of work are (image, block of channels, band of rows of quads).

    The first quad's first result is row ``2 first_y - pt`` and column ``2 first_x - pl`` of the image.  Of images that are put into lanes a
    block is one vector; lanes beyond the last channel repeat its group.  ``wei`` is the caller's: ``wo, wi, wy, wx`` bytes apart.
    Workspace: first addends of the block, a pixel of zeros, one that nobody reads, addresses of planes of source and result and of
    filters, tables of results and of pixels, weights ``[ky][kx][c][i]``, staged pixels, results.
    """
    spec = (lanes, 2, STEP * quads, 0, kw, STEP, depth, 0, *Form(kind=kind, how="fma" if fma else "multiply", src=kind, dst=kind))
    size = KINDS[kind][2]
    vector, words = lanes * size, lanes * size // 8

    def depthwise_image(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        s, e = integers(at.extents, Shape), integers(at.extents + _HEAD_AT, Head)
        columns = at.extents + _TABLES_AT
        target_columns = columns + e.columns * 8
        zero = peek(kind, at.values + 4 * size)
        finish = e.finish * (at.values + size)
        start = at.workspace + index * at.scratch
        fill_at = start + e.capacity * size
        junk = fill_at + e.capacity * size
        sources = junk + e.capacity * size
        results = sources + lanes * 8
        lines = results + lanes * 8
        targets = lines + lanes * 8
        table = targets + 2 * e.target_pitch
        taps = s.kh * kw
        weights = (table + (e.band_rows + e.before) * e.pitch + 63) // 64 * 64
        staged_at = weights + taps * depth * s.wei_step
        aside_at = staged_at + e.held_rows * e.ow * e.capacity * size
        packed = -1
        fill_row(kind, lanes, fill_at, e.capacity, zero)
        for u in range(u0, u1):
            rest, band = u // e.bands, u % e.bands
            n, part = rest // e.blocks, rest % e.blocks
            c0 = part * e.block
            many = e.channels - c0 if part == e.blocks - 1 else e.block
            held = lanes if e.staged == _LANES else many
            # the rows of quads, of pixels and of results of this band
            q0 = e.first_y + band * e.band_rows
            quad_rows = min(e.band_rows, e.down - band * e.band_rows)
            first, last = max(q0 - e.before, 0), max(min(q0 + quad_rows, e.oh), q0 - e.before, 0)
            y0, y1 = max(STEP * q0 - e.pt, 0), min(STEP * (q0 + quad_rows) - e.pt, e.ih)
            for lane in range(held):
                own = c0 + (lane if lane < many else many - depth + lane % depth)
                poke(kind, start + lane * size, peek(kind, at.bias + own * size) if e.bias else zero)
                if e.staged == _LANES:
                    poke("i64", sources + lane * 8, at.src + n * e.sn + own * e.sc)
                    poke("i64", results + lane * 8, at.dst + n * e.dn + y0 * e.dy + own * e.dc)
            if packed != part:
                packed = part
                for o in range(0, held, lanes):
                    for c in range(depth):
                        to = weights + c * s.wei_step + o * size
                        for lane in range(lanes):
                            own = c0 + (o + lane if o + lane < many else many - depth + lane % depth)
                            poke("i64", lines + lane * 8, at.wei + (own // depth * depth + c) * e.wo + own % depth * e.wi)
                        call_kernel(e.packer, (to, depth * s.wei_step, lines, 0, taps, kw, e.wy, e.wx))
            base, sy = at.src + n * e.sn + c0 * e.sc, e.sy
            to, dy = at.dst + n * e.dn + c0 * e.dc, e.dy
            if e.staged:
                dense = e.channels_last == 0 and e.sy == e.ow * size
                runs, length = (1, (last - first) * e.ow) if dense else (last - first, e.ow)
                for run in range(runs):
                    away, place = (first + run) * e.sy, staged_at + run * length * e.capacity * size
                    if e.staged == _COPIED:
                        for x in range(length):
                            copy(kind, lanes, place + x * e.capacity * size, base + away + x * e.sx, many)
                    elif e.channels_last == 0 and length >= lanes:
                        interleave(kind, lanes, place, sources, away, length)
                    else:
                        for x in range(length):
                            for lane in range(lanes):
                                poke(kind, place + x * vector + lane * size, peek(kind, peek("i64", sources + lane * 8) + away + x * e.sx))
                sy = e.ow * e.capacity * size
                base = staged_at - first * sy
            if e.staged == _LANES:
                dy = e.iw * vector
                to = aside_at - y0 * dy
            for x in range(0, e.across, quads):
                xt = max(min(x, e.across - quads), 0)
                for r in range(quad_rows + e.before):
                    row = q0 - e.before + r
                    if 0 <= row < e.oh:
                        addresses(words, table + r * e.pitch, base + row * sy, columns + xt * 8, fill_at, e.reach)
                    else:
                        fill_row("i64", words, table + r * e.pitch, e.reach, fill_at)
                for r in range(quad_rows):
                    for a in range(STEP):
                        row = STEP * (q0 + r) + a - e.pt
                        line = targets + a * e.target_pitch
                        if 0 <= row < e.ih:
                            addresses(words, line, to + row * dy, target_columns + STEP * xt * 8, junk, STEP * quads)
                        else:
                            fill_row("i64", words, line, STEP * quads, junk)
                    quads_tile(spec, at.extents, table + r * e.pitch, weights, start, finish, targets, e.target_pitch, held - lanes)
            if finite(kind, lanes, weights, taps * depth * s.wei_step // vector) == 0:
                dx = vector if e.staged == _LANES else e.dx
                sx = e.sx if e.staged == _IN_PLACE else e.capacity * size
                for lane in range(held):  # of planes the lanes past the last channel, too, which are written to the last group's
                    own, c_step = weights + lane * size, s.wei_step
                    sums = zero
                    for tap in range(taps * depth):
                        sums += peek(kind, own + tap * c_step) - peek(kind, own + tap * c_step)
                    if sums == zero:
                        continue
                    for y in range(y0, y1):
                        for x in range(e.iw):
                            sums = peek(kind, start + lane * size)
                            for ky in range((y + e.pt) % STEP, s.kh, STEP):
                                for kx in range((x + e.pl) % STEP, kw, STEP):
                                    row, column = (y + e.pt - ky) // STEP, (x + e.pl - kx) // STEP
                                    if 0 <= row < e.oh and 0 <= column < e.ow:
                                        pixel, tap = base + row * sy + column * sx + lane // depth * depth * size, (ky * kw + kx) * depth
                                        for c in range(depth):
                                            sums += peek(kind, pixel + c * size) * peek(kind, own + (tap + c) * c_step)
                            if e.finish:
                                sums = sums * peek(kind, finish) if sums < zero else sums
                                sums = peek(kind, finish + size) if sums < peek(kind, finish + size) else sums
                                sums = peek(kind, finish + 2 * size) if sums > peek(kind, finish + 2 * size) else sums
                            poke(kind, to + y * dy + x * dx + lane * size, sums)
            if e.staged == _LANES:
                dense = e.channels_last == 0 and e.dy == e.iw * size
                runs, length = (1, (y1 - y0) * e.iw) if dense else (y1 - y0, e.iw)
                for run in range(runs):
                    line = aside_at + run * length * vector
                    if e.channels_last == 0 and length >= lanes:
                        separate(kind, lanes, results, run * e.dy, line, length)
                    else:
                        for x in range(length):
                            for lane in range(many):
                                value = peek(kind, line + x * vector + lane * size)
                                poke(kind, peek("i64", results + lane * 8) + run * e.dy + x * e.dx, value)

    return depthwise_image


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of an image that stride 2 went through, of one channel for each result, or of as many as results in a small group."""
    reason = not_strided_image(p)
    if reason is not None:
        return reason
    lanes, depth = t.lanes(DTYPES[p.acc].itemsize), p.ic // p.g
    if p.g == 1 or p.oc != p.ic:
        return "is for several groups with as many results as channels"
    if (depth, p.kw) not in FIXED or depth > lanes:
        return f"has no kernel for groups of {depth} channels and {p.kw} columns of taps"
    return too_large(p, _layout(p, t, 1)[3])


def cost(p: Problem, t: Target) -> float:
    """Vectors of quads, and the way of planes into lanes and back."""
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    return costs.depthwise_image_seconds(p, lanes, _quads(p, t), _staged(p, lanes) == _LANES)


def most_kernels(t: Target) -> int:
    return sum(depth <= t.lanes(4) for depth, _ in FIXED)


def _quads(p: Problem, t: Target) -> int:
    tile = fitting(_TILES, t)[0]
    return tile.quads if p.ic == p.g else tile.grouped


def _staged(p: Problem, lanes: int) -> int:
    """Planes, and fewer channels than lanes, are put into lanes first; of groups of several a vector's pixels lie far apart."""
    if p.src_layout == "nchw" or p.ic < lanes:
        return _LANES
    return _IN_PLACE if p.ic == p.g else _COPIED


def _layout(p: Problem, t: Target, threads: int) -> tuple[Shape, Head, tuple[np.ndarray, np.ndarray], int]:
    """The kernel's integers but for the strides, columns of pixels and results (or -1), and the bytes of workspace of one thread."""
    size, quads, depth = KINDS[p.acc][2], _quads(p, t), p.ic // p.g
    lanes = t.lanes(size)
    words, staged, vectors = lanes * size // 8, _staged(p, lanes), -(-p.ic // lanes)
    first_y, first_x = p.pt // STEP, p.pl // STEP
    down, across = (p.ih - 1 + p.pt) // STEP - first_y + 1, (p.iw - 1 + p.pl) // STEP - first_x + 1
    before_y, before_x = -(-p.kh // STEP) - 1, -(-p.kw // STEP) - 1
    reach = quads + before_x
    of_channel = (p.kh * p.kw * depth + (1 + before_y) * reach) * size
    most = 1 if staged == _LANES else max(_HELD_BYTES // (of_channel * lanes), 1)
    # even blocks, and none of less than a vector
    block = -(-vectors // -(-vectors // most)) * lanes
    blocks = -(-p.ic // block)
    if staged != _LANES:
        blocks = max(blocks - (0 < p.ic % block < lanes), 1)
    capacity = max(block, -(-(p.ic - (blocks - 1) * block) // lanes) * lanes)
    row_seconds = costs.depthwise_image_seconds(p.replace(n=1), lanes, quads, staged == _LANES) / (down * blocks)
    row_bytes = max((p.ow + 2 * p.iw * (staged == _LANES)) * capacity * size, 1) if staged else 1
    deepest = max(min(_STAGED_BYTES // row_bytes, int(costs.UNIT_SECONDS / row_seconds)), 1)
    bands = max(-(-down // deepest), min(-(-4 * threads // max(p.n * blocks, 1)), -(-down // 4)) if threads > 1 else 1)
    band_rows = -(-down // bands)
    bands = -(-down // band_rows)
    pitch, target_pitch = (-(-many // words) * words * 8 for many in (reach, STEP * quads))
    columns = np.arange(max(across, quads) + before_x + words) + first_x - before_x
    targets = STEP * first_x - p.pl + np.arange(STEP * max(across, quads) + words)
    columns, targets = (np.where((x >= 0) & (x < wide), x, -1) for x, wide in ((columns, p.ow), (targets, p.iw)))
    has_bias, activation, _, _ = parse_epilogue(p.epilogue)
    shape = Shape(kh=p.kh, kw=p.kw, below=pitch, tap=0, column=8, wei_step=capacity * size, down=0)
    head = Head(
        channels=p.ic, block=block, blocks=blocks, bands=bands, band_rows=band_rows, down=down, across=across, first_y=first_y,
        first_x=first_x, before=before_y, iw=p.iw, ih=p.ih, ow=p.ow, oh=p.oh, pt=p.pt, pl=p.pl, columns=len(columns), reach=reach,
        pitch=pitch, target_pitch=target_pitch, finish=int(activation is not None), bias=int(has_bias), depth=depth,
        channels_last=int(p.src_layout == "nhwc"), staged=staged, held_rows=(band_rows + before_y) * (staged > 0),
        held_results=STEP * band_rows * (staged == _LANES), capacity=capacity,
        packer=0, wo=0, wi=0, wy=0, wx=0, sn=0, sc=0, sy=0, sx=0, dn=0, dc=0, dy=0, dx=0,
    )  # fmt: skip
    scratch = (3 + p.kh * p.kw * depth) * capacity * size + 24 * lanes + 2 * target_pitch + (band_rows + before_y) * pitch + 128
    scratch += (head.held_rows * p.ow + head.held_results * p.iw) * capacity * size + lanes * lanes * size
    return shape, head, (columns, targets), -(-scratch // 64) * 64


def build(p: Problem, t: Target, plan: Any, threads: int = 1, given: bool = False) -> Plan:
    """A plan whose packed weights are a copy of the caller's, or ``given`` with every image."""
    size = KINDS[p.acc][2]
    lanes, quads, depth = t.lanes(size), _quads(p, t), p.ic // p.g
    name = f"depthwise_image_{p.acc}_2x{STEP * quads}_{lanes}" + f"_g{depth}" * (depth > 1) + f"_kw{p.kw}"
    region = Region(name, _factory, (p.acc, lanes, quads, p.kw, depth, int(t.fma)), p.acc)
    shape, head, (columns, targets), scratch = _layout(p, t, threads)
    seconds = cost(p, t)

    def pack(p: Problem, wei: np.ndarray) -> np.ndarray:
        return wei if given and wei.dtype == DTYPES[p.acc] else np.array(wei, DTYPES[p.acc], order="C")

    def launch_of(src: np.ndarray, packed: np.ndarray, dst: np.ndarray) -> Launch:
        (sn, sc, sy, sx), (dn, dc, dy, dx), (wo, wi, wy, wx) = src.strides, dst.strides, packed.strides
        if p.src_layout == "nchw":  # columns are side by side, or there is one: rows that are, too, are gone through as one
            sx, dx = src.itemsize, dst.itemsize
        e = head._replace(
            packer=lanes_packer(size, lanes).address, wo=wo, wi=wi, wy=wy, wx=wx, sn=sn, sc=sc, sy=sy, sx=sx, dn=dn, dc=dc, dy=dy, dx=dx
        )
        steps = head.capacity * size if head.staged else sx, lanes * size if head.staged == _LANES else dx
        places = [np.where(x < 0, OUTSIDE, x * step) for x, step in zip((columns, targets), steps, strict=True)]
        extents = np.concatenate([np.array((*shape, *e), np.int64), *places])
        units = len(src) * head.blocks * head.bands
        return region.launcher(extents, finish_values(p, 0), scratch, units, threads, seconds, src, packed, dst)

    def prepare(own: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        axis = 1 if p.src_layout == "nhwc" else 3
        if all(x.dtype == DTYPES[p.acc] and (x.strides[axis] == size or x.shape[axis] == 1) for x in (src, dst)):
            return launch_of(src, packed, dst)
        return image_in_turn(p, launch_of)

    return Plan(problem=p, algorithm="depthwise_image", kernel=name, cost=seconds, pack_weights=pack, prepare_launch=prepare,
                workspace=scratch * threads, threads=threads,
                given=None if given else partial(build, p, t, plan, threads, True))  # fmt: skip
