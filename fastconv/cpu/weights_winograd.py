"""weights_winograd: the gradient of 3x3 weights, at strides 1 and 2, by F(4x4, 3x3) seen from the weights.

``G^T [sum_t (A g_t A^T) * (B^T x_t B)] G`` of blocks ``x_t`` of 6x6 pixels and the ``g_t`` of 4x4 gradients that they meet: 36
multiplications where the direct sums take 144, at stride 2, of 9x9 pixels, 81, as in `winograd`, whose transforms these are, turned round.
Wins where channels are so many that sums of products, not transforms, take the time.
A unit of work are some channels of image and result, over all blocks: what it sums, for all 36 points, stays in a second-level cache,
while rows of blocks are transformed, multiplied point by point, and forgotten.
Order of accumulation per point: images, rows of blocks, blocks of a row, some rows after the other, whose sums are added up; between the
transforms of :mod:`fastconv.planning.winograd_points`.
Error of each weight: as `winograd`'s outputs', with a term for each block.  What the transform cannot do is done by direct sums, all
weights at once: where some are not finite, or tiny, or gradients out of range.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem
from ..planning.winograd_points import pixels_of, points_of
from .border import LINE, too_large, whole_lines
from .compile import helper
from .depthwise_tile import separate
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .panels import beside_in_turn, in_turn, not_summed
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values
from .weights_winograd_rows import LINES, TABLES_AT, Head, gradients_transformer, pixels_transformer, space_maker
from .weights_winograd_split import SUMS, Cut, M, cut_of, seconds_of, squares_of, strips_of, tall_of
from .weights_winograd_tile import summed_taps, weights_winograd_tile_kernel
from .winograd_frame import columns_read, not_3x3, sources, stride_of

CASES = ("n2_ic32ih15_oc64k3_p1_bwd-weight_f32_nhwc_hwio", "ic32ih9iw21_oc32k3_bwd-weight_f32", "ic32ih30iw13_oc48k3_s2_p1_bwd-weight_f32",
         "n3_g2_ic32ih6_oc64k3_p1_reflect_bwd-weight_f32", "n2_ic16ih11iw7_oc32k3_p1_bwd-weight_f64_nhwc",
         "n2_g2_ic32ih19_oc32k3_s2_p1_bwd-weight_f32_nhwc")  # fmt: skip

LEAST, MOST = 1 / 2**100, 2**40  # sum of the magnitudes of a result's gradients
_BATCH = 4  # images of the fewest whose cost is told


class Tile(NamedTuple):
    """``mr`` vectors of output channels x ``columns`` channels, of one vector."""

    registers: int  # of the target, at least
    mr: int
    columns: int


TILES = (
    Tile(32, mr=2, columns=8),  # 16 accumulators, 2 gradients, 1 pixel of 32 registers; vectors are no multiple of 13 channels
    Tile(32, mr=1, columns=16),
    Tile(16, mr=2, columns=4),  # 8 accumulators, 2 gradients, 1 pixel of 16 registers
    Tile(16, mr=1, columns=8),
)


def _factory(kind: str, lanes: int, stride: int, fma: int) -> Any:
    """The kernel: units of work are (group, ``ic_part`` channels of the image, ``oc_part`` of the result), over all images.

    ``tall`` rows of ``across`` blocks at a time are transformed to ``[vector][strip][point][block][lane]`` of pixels and of gradients,
    whose vectors are ``width`` long, and their products added to ``[point][ic][oc]``; these are transformed to taps in the end.  A strip
    is ``strip_rows`` rows of blocks, or one of ``row_strips`` of a row; it ends with zeros where blocks are fewer.  Channels in lanes:
    those of planes are put there.  The word at ``flag`` becomes 1 where taps are to be done again.
    Workspace: :data:`fastconv.cpu.weights_winograd_rows.Space`; taps take the place of transformed pixels.
    """
    size = KINDS[kind][2]
    vector, m, apart, reads, points = lanes * size, M, M * stride, pixels_of(M, stride), points_of(M, stride)
    sums_of, spec = m + 2, (kind, lanes, m, stride, fma)
    space_of = space_maker(kind, lanes, stride)
    transform_pixels, transform_gradients = (make(kind, lanes, stride, fma) for make in (pixels_transformer, gradients_transformer))
    least, most, halves = LEAST, MOST, sums_of**2 // 2

    @helper
    def multiply(at: Any, e: Any, space: Any, first: Any, tall: Any, strips: Any, deep: Any, wide: Any) -> None:
        """Products at all points; lines of the next rows of blocks are asked for meanwhile, but not where others' channels lie between."""
        sum_step, n, ty = e.oc_part * size, (first + tall) // e.rows, (first + tall) % e.rows
        many = halves * (deep // e.columns) * (wide // e.width) * strips * e.strip
        soon, soon_step = at.wei + n * e.gn + ty * m * e.gy, tall * e.gn // e.rows // many + 1
        later, later_step = at.src + n * e.sn + ty * apart * e.sy, tall * e.sn // e.rows // many + 1
        if e.planes or e.gx > 2 * wide * size:
            soon, soon_step = space.sums, 0
        if e.planes or e.sx > 2 * deep * size:
            later, later_step = space.sums, 0
        for point in range(sums_of * sums_of):
            if point == halves:
                soon, soon_step = later, later_step
            # at stride 2 the last weight in either direction is that of four points of odd pixels, whose gradients are the first
            i, j, calls, parts, grad_part, pixel_part = point // sums_of, point % sums_of, 1, 1, 0, 0
            if stride > 1 and max(i, j) == m + 1:
                parts, calls = m, m if i == j else 1
                grad_part, pixel_part = (e.grad_point, e.pixel_point) if j == m + 1 else (points * e.grad_point, reads * e.pixel_point)
            for call in range(calls):
                pixels = space.pixels + ((i + call) * reads + j) * e.pixel_point
                grads = space.grads + ((i % points + call) * points + j % points) * e.grad_point
                for c in range(0, deep, e.columns):
                    pixel = pixels + c // lanes * e.pixel_vector + c % lanes * size
                    for o in range(0, wide, e.width):
                        to = space.sums + point * e.sum_point + c * sum_step + o * size
                        grad = grads + o // e.width * e.grad_block
                        call_kernel(e.tile, (to, sum_step, first + call, grad, grad_part, e.grad_strip, pixel, pixel_part, e.pixel_strip,
                                             parts, strips, e.strip, soon, soon_step))  # fmt: skip
                        soon += parts * strips * e.strip * soon_step

    @helper
    def store_taps(e: Any, space: Any, result: Any, v: Any, deep: Any) -> Any:
        """Of a vector of filters; whether they are to be done again."""
        wrong, taps = 0, space.pixels
        for lane in range(v * lanes, v * lanes + lanes):
            total = peek(kind, space.totals + lane * size)
            if not (least <= total <= most or total == 0):
                wrong = 1
        for c in range(deep):
            wrong |= summed_taps(spec, taps + 9 * c * vector, vector, space.sums + (c * e.oc_part + v * lanes) * size, e.sum_point)
        if e.gi == 9 * size and e.dy == 3 * size and e.dx == size:
            for lane in range(lanes):
                poke("i64", space.table + lane * 8, result + lane * e.go)
            separate(kind, lanes, space.table, 0, taps, 9 * deep)
        else:
            for tap in range(9 * deep):
                to = result + tap // 9 * e.gi + tap % 9 // 3 * e.dy + tap % 3 * e.dx
                if e.go == size:
                    copy(kind, lanes, to, taps + tap * vector, lanes)
                else:
                    for lane in range(lanes):
                        poke(kind, to + lane * e.go, peek(kind, taps + tap * vector + lane * size))
        return wrong

    def weights_winograd(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        space = space_of(e, at.workspace + index * at.scratch)
        row_at = at.extents + TABLES_AT
        column_at = row_at + 8 * (e.rows * apart + reads - apart)
        zero, all_rows = peek(kind, at.values + 4 * size), e.n * e.rows
        fill_row(kind, lanes, space.fills, lanes, peek(kind, at.values))
        fill_row(kind, lanes, space.zeros, lanes, zero)
        for u in range(u0, u1):
            rest, oc_part = u // e.oc_parts, u % e.oc_parts
            group, ic_part = rest // e.ic_parts, rest % e.ic_parts
            c0, o0 = ic_part * e.ic_part, oc_part * e.oc_part
            deep, wide = min(e.ic_part, e.icg - c0), min(e.oc_part, e.ocg - o0)
            channel, filters = group * e.icg + c0, group * e.ocg + o0
            fill_row(kind, lanes, space.totals, wide, zero)
            for first in range(0, all_rows, e.tall):
                tall = min(e.tall, all_rows - first)
                strips = tall * e.row_strips if e.row_strips > 1 else (tall + e.strip_rows - 1) // e.strip_rows
                if strips * e.strip != tall * e.across:
                    fill_row(kind, lanes, space.pixels, (space.grads - space.pixels + wide // e.width * e.grad_block) // size, zero)
                for v in range(deep // lanes):
                    transform_pixels(at, e, space, row_at, column_at, channel + v * lanes, v, first, tall)
                for v in range(wide // lanes):
                    transform_gradients(at, e, space, filters + v * lanes, v, first, tall)
                multiply(at, e, space, first, tall, strips, deep, wide)
            for v in range(wide // lanes):
                if store_taps(e, space, at.dst + (filters + v * lanes) * e.go + c0 * e.gi, v, deep):
                    poke("i64", e.flag, 1)

    return weights_winograd


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of 3x3 weights at strides 1 and 2, everything float32 or everything float64, of whole vectors of channels."""
    reason = not_summed(p, transforms=True) or not_3x3(p, 2)
    if reason is not None:
        return reason
    lanes, icg, ocg = t.lanes(DTYPES[p.acc].itemsize), p.ic // p.g, p.oc // p.g
    if icg % lanes or ocg % lanes:
        return f"sums whole vectors of {lanes} channels, not {icg} and {ocg}"
    cut = cut_of(p, t, _tile(p, t).mr * lanes, 1)
    seconds = seconds_of(p.replace(n=1), t, cut)
    if seconds > costs.MOST_SECONDS:
        return f"needs {seconds:.1f} s for an image"
    return too_large(p, _scratch(p, lanes, cut))


def most_error(p: Problem) -> int:
    """C of the bound of each weight: of the transforms, of the blocks of one sum, and of the sums that are added up.

    Of random images 7 is the largest seen, of equal ones 40 (448 sums of 56 blocks), where direct sums err 33000.
    """
    rows, tall = p.n * -(-p.oh // M), tall_of(p)
    return 64 + 4 * min(rows, tall) * -(-p.ow // M) + -(-rows // tall)


def cost(p: Problem, t: Target) -> float:
    """Products at every point, the transforms of each part's channels, and of a batch's share of the taps.

    Gradients of weights are those of batches, and algorithms are chosen by one image, which alone takes as long as `weights` where four
    are quicker: 512 channels at 7x7 2.40 ms and 2.22, 8 images 7.4 and 13.6 (one core, Emerald Rapids, 2026-11).
    """
    batch = p.replace(n=max(p.n, _BATCH))
    return seconds_of(batch, t, cut_of(batch, t, _tile(p, t).mr * t.lanes(DTYPES[p.acc].itemsize), 1)) * p.n / batch.n


def most_kernels(t: Target) -> int:
    """The units at each stride, and each tile."""
    return 2 + len(fitting(TILES, t))


def _tile(p: Problem, t: Target) -> Tile:
    """The one of the most output channels that a group's are a multiple of."""
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    tile = max((tile for tile in fitting(TILES, t) if p.oc // p.g % (tile.mr * lanes) == 0), key=lambda tile: tile.mr)
    return tile._replace(columns=min(tile.columns, lanes))


def _scratch(p: Problem, lanes: int, cut: Cut) -> int:
    """Bytes of workspace of one thread, a multiple of a line."""
    size = DTYPES[p.acc].itemsize
    vector = lanes * size
    tables = whole_lines(2 * vector, 1) + 2 * LINES * LINE + whole_lines(8 * lanes, 1)
    fixed = tables + cut.oc * size + M * M * vector
    lines = pixels_of(M, stride_of(p)) * _line(p, lanes) + _staged(p, lanes)
    return whole_lines(fixed + lines + max(cut.bytes_held(p, size), SUMS * cut.sum_point(size) + 9 * cut.ic * vector), 1)


def _line(p: Problem, lanes: int) -> int:
    """Bytes of a row of points."""
    every = stride_of(p)
    return ((-(-p.ow // M) - 1) * M * every + pixels_of(M, every)) * lanes * DTYPES[p.acc].itemsize


def _staged(p: Problem, lanes: int) -> int:
    """Bytes of what is put into lanes at once: rows of blocks, whole planes where they may be."""
    if p.src_layout == "nhwc":
        return 0
    whole = max(p.ih * p.iw, p.oh * p.ow) if _whole(p, lanes) else 0
    pixels = max(pixels_of(M, stride_of(p)) * p.iw, M * p.ow, whole)
    return pixels * lanes * DTYPES[p.acc].itemsize


def _whole(p: Problem, lanes: int) -> bool:
    """Whether rows are so short that planes are put into lanes as a whole, where their rows follow each other."""
    return min(p.iw, p.ow) < lanes and p.ih * p.iw <= 4 * lanes * lanes


def _head(p: Problem, t: Target, threads: int) -> tuple[Head, int]:
    """The kernel's integers but for addresses and strides, and bytes of workspace of one thread."""
    size, tile, strips = DTYPES[p.acc].itemsize, _tile(p, t), strips_of(p)
    lanes, icg, ocg = t.lanes(size), p.ic // p.g, p.oc // p.g
    vector, width = lanes * size, tile.mr * lanes
    cut = cut_of(p, t, width, threads)
    # a vector more, so that strips lie in different sets of a cache
    pixel_strip, grad_strip = (
        (squares * strips.blocks + 1) * many * size for squares, many in zip(squares_of(p), (lanes, width), strict=True)
    )
    head = Head(
        tile=0, n=p.n, icg=icg, ocg=ocg, ic_part=cut.ic, oc_part=cut.oc, ic_parts=-(-icg // cut.ic), oc_parts=-(-ocg // cut.oc),
        columns=tile.columns, width=width, ih=p.ih, iw=p.iw, inside=columns_read(p), pl=p.pl, oh=p.oh, ow=p.ow, rows=-(-p.oh // M),
        across=-(-p.ow // M), tall=tall_of(p), planes=int(p.src_layout == "nchw"), whole=0, strip=strips.blocks, strip_rows=strips.rows,
        row_strips=strips.of_row, pixel_point=strips.blocks * vector, pixel_strip=pixel_strip, pixel_vector=strips.together * pixel_strip,
        grad_point=strips.blocks * width * size, grad_strip=grad_strip, grad_block=strips.together * grad_strip,
        sum_point=cut.sum_point(size), line=_line(p, lanes), staged=_staged(p, lanes), flag=0,
        sn=0, sc=0, sy=0, sx=0, gn=0, gc=0, gy=0, gx=0, go=0, gi=0, dy=0, dx=0,
    )  # fmt: skip
    return head, _scratch(p, lanes, cut)


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is, and whose child computes what no transform can."""
    kind, size, every, planes = p.acc, DTYPES[p.acc].itemsize, stride_of(p), p.src_layout == "nchw"
    lanes, tile = t.lanes(size), _tile(p, t)
    code = weights_winograd_tile_kernel((kind, lanes, tile.mr, tile.columns, int(t.fma)))
    region = Region(f"weights_winograd_{kind}_{lanes}_s{every}", _factory, (kind, lanes, every, int(t.fma)), kind)
    (head, scratch), maps = _head(p, t, threads), sources(p, M)
    image = seconds_of(p.replace(n=1), t, cut_of(p, t, tile.mr * lanes, 1))
    most = max(int(costs.MOST_SECONDS / image), 1)  # images of one launch
    child = plan(p.replace(precision="strict"), t, threads)

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        (sn, sc, sy, sx), (gn, gc, gy, gx) = src.strides, grad.strides
        go, gi, dy, dx = (np.empty_like(dst) if resume else dst).strides
        whole = planes and _whole(p, lanes) and (sy, sx, gy, gx) == (p.iw * size, size, p.ow * size, size)
        e = head._replace(tile=code.address, n=images, whole=int(whole), sn=sn, sc=sc, sy=sy, sx=sx, gn=gn, gc=gc, gy=gy, gx=gx,
                          go=go, gi=gi, dy=dy, dx=dx)  # fmt: skip
        units = p.g * head.ic_parts * head.oc_parts

        def state() -> tuple[np.ndarray, Launch]:
            flag = np.zeros(1, np.int64)
            extents = np.concatenate([np.array(e._replace(flag=flag.ctypes.data), np.int64), *maps])
            return flag, region.launcher(extents, finish_values(p, fill), scratch, units, threads, images * image, src, grad, dst)

        # one for each of the threads that run this launch at once
        idle = deque([state()], maxlen=4)

        def launch(src: np.ndarray, grad: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
            result = np.empty_like(dst) if resume else dst
            try:
                flag, run = idle.pop()
            except IndexError:
                flag, run = state()
            run(src, grad, None, result)
            if flag[0]:
                flag[0] = 0
                direct = child if images == p.n else plan(p.replace(n=images, precision="strict"), t, threads)
                direct.prepare(src, grad, result, fill)(src, grad, None, result)
            idle.append((flag, run))
            if resume:
                with np.errstate(all="ignore"):
                    dst += result

        return launch

    prepare = (in_turn if planes else beside_in_turn)(p, most, launch_of)
    return Plan(problem=p, algorithm="weights_winograd", kernel=code.name, cost=cost(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=prepare, workspace=scratch * threads + child.workspace, threads=threads, children=(child,))  # fmt: skip
