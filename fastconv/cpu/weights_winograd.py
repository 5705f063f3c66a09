"""weights_winograd: the gradient of 3x3 weights, at strides 1 and 2, by F(4x4, 3x3) seen from the weights.

``G^T [sum_t (A g_t A^T) * (B^T x_t B)] G`` of blocks ``x_t`` of 6x6 pixels and the ``g_t`` of 4x4 gradients that they meet: 36
multiplications where the direct sums take 144, at stride 2, of 9x9 pixels, 81, as in `winograd`, whose transforms these are, turned round.
Wins where channels are so many that sums of products, not transforms, take the time.
A unit of work are some channels of image and result, over all blocks: what it sums, for all 36 points, stays in a second-level cache,
while rows of blocks are transformed, multiplied point by point by `weights`' tile, and forgotten.
Order of accumulation per point: images, rows of blocks, blocks of a row, some rows after the other, whose sums are added up; between the
transforms of :mod:`fastconv.planning.winograd_points`.
Error of each weight: as `winograd`'s outputs', with a term for each block.  What the transform cannot do is done by direct sums, all
weights at once: where some are not finite, or tiny, or gradients out of range.
"""

from __future__ import annotations

from collections import deque, namedtuple
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, Problem
from ..planning.winograd_points import pixels_of, points_of
from .border import LINE, too_large, whole_lines
from .compile import helper
from .depthwise_tile import interleave, separate
from .memory import call_kernel, copy, fill_row, integers, peek, poke, unrolled_by_hand
from .panels import beside_in_turn, in_turn, not_summed
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .tile import fitting
from .values import finish_values
from .weights_winograd_split import SUMS, Cut, M, cut_of, seconds_of, squares_of, strips_of, tall_of
from .weights_winograd_tile import weights_winograd_tile_kernel, summed_taps, transformed_gradients
from .winograd_frame import OUTSIDE, columns_read, not_3x3, sources, stride_of
from .winograd_shallow_tile import column_pixels
from .winograd_tile import transformed_pixels

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
    Tile(32, mr=2, columns=8),  # 16 accumulators, 2 gradients, 1 pixel of 32 registers; for 26 channels do not fit vectors
    Tile(32, mr=1, columns=16),
    Tile(16, mr=2, columns=4),  # 8 accumulators, 2 gradients, 1 pixel of 16 registers
    Tile(16, mr=1, columns=8),
)

# The integers that the kernel receives: these, the image row behind each row of the blocks, the column behind each column.
Head = namedtuple(
    "Head",
    "tile n icg ocg ic_part oc_part ic_parts oc_parts columns width ih iw inside pl oh ow rows across tall planes whole strip strip_rows "
    "row_strips pixel_point pixel_strip pixel_vector grad_point grad_strip grad_block sum_point line staged flag sn sc sy sx gn gc gy gx "
    "go gi dy dx",
)
_TABLES_AT = 8 * len(Head._fields)


def lanes_stager(kind: str, lanes: int) -> Any:
    """What kernels put planes into lanes with: ``dst[x][lane] = planes[lane][at + x*step]`` for ``count`` of x."""
    size = KINDS[kind][2]

    @helper
    def stage(dst: Any, planes: Any, at: Any, step: Any, count: Any) -> None:
        if step == size and count >= lanes:
            interleave(kind, lanes, dst, planes, at, count)
        else:
            for x in range(count):
                for lane in range(lanes):
                    poke(kind, dst + (x * lanes + lane) * size, peek(kind, peek("i64", planes + lane * 8) + at + x * step))

    return stage


def _factory(kind: str, lanes: int, stride: int, fma: int) -> Any:
    """The kernel: units of work are (group, ``ic_part`` channels of the image, ``oc_part`` of the result), over all images.

    ``tall`` rows of ``across`` blocks at a time are transformed to ``[vector][strip][point][block][lane]`` of pixels and of gradients,
    whose vectors are ``width`` long, and their products added to ``[point][ic][oc]``; these are transformed to taps in the end.  A strip
    is ``strip_rows`` rows of blocks, or one of ``row_strips`` of a row; it ends with zeros where blocks are fewer.  Channels in lanes:
    those of planes are put there.  The word at ``flag`` becomes 1 where taps are to be done again.
    Workspace: a vector of the fill value, ``width`` zeros, two tables of where rows lie, addresses of planes, sums of magnitudes of
    gradients, gradients of a block at the edge, rows of points, rows of planes in lanes, sums, transformed pixels, transformed gradients;
    taps take the place of these two.
    """
    size = KINDS[kind][2]
    vector, m, apart, reads, points = lanes * size, M, M * stride, pixels_of(M, stride), points_of(M, stride)
    pixels_spec, line_spec, spec = (kind, lanes, m, stride, 1, fma), (kind, lanes, m, stride, 1, 1, fma), (kind, lanes, m, stride, fma)
    more, sums_of = reads - apart, m + 2  # what a block reads of the next one; points of sums
    stage = lanes_stager(kind, lanes)
    least, most, halves = LEAST, MOST, sums_of**2 // 2

    def weights_winograd(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        row_at = at.extents + _TABLES_AT
        column_at = row_at + 8 * (e.rows * apart + more)
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        fills = at.workspace + index * at.scratch
        zeros = fills + vector
        lines = (zeros + vector + LINE - 1) // LINE * LINE
        column_lines = lines + 3 * LINE
        table = column_lines + 3 * LINE
        totals = table + (lanes * 8 + LINE - 1) // LINE * LINE
        edge = totals + e.oc_part * size
        points_at = edge + m * m * vector
        staged = points_at + reads * e.line
        sums = staged + e.staged
        pixels = sums + sums_of * sums_of * e.sum_point
        grads = pixels + e.ic_part // lanes * e.pixel_vector
        fill_row(kind, lanes, fills, lanes, fill)
        fill_row(kind, lanes, zeros, lanes, zero)
        columns, all_rows = e.across * apart + more, e.n * e.rows
        before = min(e.pl, columns)
        inside = max(min(columns - before, e.inside), 0)
        for u in range(u0, u1):
            rest, oc_part = u // e.oc_parts, u % e.oc_parts
            group, ic_part = rest // e.ic_parts, rest % e.ic_parts
            c0, o0 = ic_part * e.ic_part, oc_part * e.oc_part
            deep, wide = min(e.ic_part, e.icg - c0), min(e.oc_part, e.ocg - o0)
            channel, filters = group * e.icg + c0, group * e.ocg + o0
            fill_row(kind, lanes, totals, wide, zero)
            for first in range(0, all_rows, e.tall):
                tall = min(e.tall, all_rows - first)
                strips = tall * e.row_strips if e.row_strips > 1 else (tall + e.strip_rows - 1) // e.strip_rows
                if strips * e.strip != tall * e.across:
                    fill_row(kind, lanes, pixels, (grads - pixels + wide // e.width * e.grad_block) // size, zero)
                for v in range(deep // lanes):
                    held = -1
                    for k in range(tall):
                        n, ty = (first + k) // e.rows, (first + k) % e.rows
                        image = at.src + n * e.sn + (channel + v * lanes) * e.sc
                        if e.planes:
                            for lane in range(lanes):
                                poke("i64", table + lane * 8, image + lane * e.sc)
                            if e.whole and held != n:
                                held = n
                                stage(staged, table, 0, size, e.ih * e.iw)
                        for r in range(reads):
                            row = peek("i64", row_at + 8 * (ty * apart + r))
                            place, step = zeros if row != OUTSIDE else fills, 0
                            if row >= 0 and e.planes:
                                place, step = staged + (row if e.whole else r) * e.iw * vector, vector
                                if not e.whole:
                                    stage(place, table, row * e.sy, e.sx, e.iw)
                            elif row >= 0:
                                place, step = image + row * e.sy, e.sx
                            poke("i64", lines + 16 * r, place)
                            poke("i64", lines + 16 * r + 8, step)
                        column_pixels(pixels_spec, points_at + before * vector, e.line, lines, inside)
                        for turn in range(columns - inside):
                            x = turn if turn < before else turn + inside
                            column = peek("i64", column_at + 8 * x)
                            for r in range(reads):
                                row = peek("i64", row_at + 8 * (ty * apart + r))
                                place = peek("i64", lines + 16 * r) + column * peek("i64", lines + 16 * r + 8)
                                if column < 0:
                                    place = fills if min(row, column) == OUTSIDE else zeros
                                poke("i64", column_lines + 16 * r, place)
                                poke("i64", column_lines + 16 * r + 8, 0)
                            column_pixels(pixels_spec, points_at + x * vector, e.line, column_lines, 1)
                        for part in range(e.row_strips):
                            strip = k * e.row_strips + part if e.row_strips > 1 else k // e.strip_rows
                            away = k % e.strip_rows * e.across
                            to = pixels + v * e.pixel_vector + strip * e.pixel_strip + away * vector
                            for i in range(reads):
                                transformed_pixels(line_spec, to + i * reads * e.pixel_point, vector, e.pixel_point,
                                                   points_at + i * e.line + part * e.strip * apart * vector, apart * vector, vector,
                                                   min(e.across - part * e.strip, e.strip))  # fmt: skip
                for v in range(wide // lanes):
                    held = -1
                    for k in range(tall):
                        n, ty = (first + k) // e.rows, (first + k) % e.rows
                        image = at.wei + n * e.gn + (filters + v * lanes) * e.gc
                        if e.planes:
                            for lane in range(lanes):
                                poke("i64", table + lane * 8, image + lane * e.gc)
                            if e.whole and held != n:
                                held = n
                                stage(staged, table, 0, size, e.oh * e.ow)
                        for a in range(m):
                            y, place, step = ty * m + a, zeros, 0
                            if y < e.oh and e.planes:
                                place, step = staged + (y if e.whole else a) * e.ow * vector, vector
                                if not e.whole:
                                    stage(place, table, y * e.gy, e.gx, e.ow)
                            elif y < e.oh:
                                place, step = image + y * e.gy, e.gx
                            poke("i64", lines + 16 * a, place)
                            poke("i64", lines + 16 * a + 8, step)
                        for part in range(e.row_strips):
                            strip = k * e.row_strips + part if e.row_strips > 1 else k // e.strip_rows
                            away = k % e.strip_rows * e.across
                            to = grads + v * lanes // e.width * e.grad_block + strip * e.grad_strip
                            to += (away * e.width + v * lanes % e.width) * size
                            x0 = part * e.strip
                            many = min(e.across - x0, e.strip)
                            full = min(e.ow // m - x0, many)
                            for a in range(m if x0 else 0):
                                poke("i64", lines + 16 * a, peek("i64", lines + 16 * a) + e.strip * m * peek("i64", lines + 16 * a + 8))
                            transformed_gradients(spec, to, e.width * size, e.grad_point, lines, full, totals + v * vector)
                            if full < many:
                                for a in range(m):
                                    place, step = peek("i64", lines + 16 * a), peek("i64", lines + 16 * a + 8)
                                    for b in range(m):
                                        x = full * m + b
                                        inner = x0 * m + x < e.ow
                                        copy(kind, lanes, edge + (a * m + b) * vector, place + x * step if inner else zeros, lanes)
                                    poke("i64", lines + 16 * a, edge + a * m * vector)
                                    poke("i64", lines + 16 * a + 8, vector)
                                transformed_gradients(spec, to + full * e.width * size, e.width * size, e.grad_point, lines, 1,
                                                      totals + v * vector)  # fmt: skip
                # the next rows of blocks: lines that follow each other, through all products
                sum_step, n, ty = e.oc_part * size, (first + tall) // e.rows, (first + tall) % e.rows
                many = deep // e.columns * (wide // e.width) * strips * e.strip
                soon, soon_step = at.wei + n * e.gn + ty * m * e.gy, tall * e.gn // e.rows // (halves * many) + 1
                later, later_step = at.src + n * e.sn + ty * apart * e.sy, tall * e.sn // e.rows // (halves * many) + 1
                if e.gx > 2 * wide * size:
                    soon, soon_step = sums, 0
                if e.sx > 2 * deep * size:
                    later, later_step = sums, 0
                for point in range(sums_of * sums_of):
                    if point == halves:
                        soon, soon_step = later, later_step
                    # at stride 2 the last weight in either direction is that of four points of odd pixels, whose gradients are the first
                    i, j, calls, parts, grad_part, pixel_part = point // sums_of, point % sums_of, 1, 1, 0, 0
                    if stride > 1 and max(i, j) == m + 1:
                        parts, calls = m, m if i == j else 1
                        grad_part, pixel_part = (1, 1) if j == m + 1 else (points, reads)
                    pixel_of, grad_of = i * reads + j, i % points * points + j % points
                    for call in range(calls):
                        pixel_at, grad_at = (
                            pixels + (pixel_of + call * reads) * e.pixel_point,
                            grads + (grad_of + call * points) * e.grad_point,
                        )
                        for c in range(0, deep, e.columns):
                            pixel = pixel_at + c // lanes * e.pixel_vector + c % lanes * size
                            for o in range(0, wide, e.width):
                                to = sums + point * e.sum_point + c * sum_step + o * size
                                grad = grad_at + o // e.width * e.grad_block
                                call_kernel(e.tile, (to, sum_step, first + call, grad, grad_part * e.grad_point, e.grad_strip, pixel,
                                                     pixel_part * e.pixel_point, e.pixel_strip, parts, strips, e.strip, soon,
                                                     soon_step))  # fmt: skip
                                soon += parts * strips * e.strip * soon_step
            for v in range(wide // lanes):
                wrong = 0
                for lane in range(v * lanes, v * lanes + lanes):
                    total = peek(kind, totals + lane * size)
                    if not (least <= total <= most or total == zero):
                        wrong = 1
                for c in range(deep):
                    wrong |= summed_taps(spec, pixels + 9 * c * vector, vector, sums + (c * e.oc_part + v * lanes) * size, e.sum_point)
                if wrong:
                    poke("i64", e.flag, 1)
                result = at.dst + (filters + v * lanes) * e.go + c0 * e.gi
                if e.gi == 9 * size and e.dy == 3 * size and e.dx == size and 9 * deep >= lanes:
                    for lane in range(lanes):
                        poke("i64", table + lane * 8, result + lane * e.go)
                    separate(kind, lanes, table, 0, pixels, 9 * deep)
                    continue
                for tap in range(9 * deep):
                    to = result + tap // 9 * e.gi + tap % 9 // 3 * e.dy + tap % 3 * e.dx
                    if e.go == size:
                        copy(kind, lanes, to, pixels + tap * vector, lanes)
                    else:
                        for lane in range(lanes):
                            poke(kind, to + lane * e.go, peek(kind, pixels + tap * vector + lane * size))

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
    fixed = (2 + M * M) * vector + 7 * LINE + whole_lines(8 * lanes, 1) + cut.oc * size
    lines = pixels_of(M, stride_of(p)) * _line(p, lanes) + _staged(p, lanes)
    return whole_lines(fixed + lines + max(cut.bytes_held(p, size), SUMS * cut.sum_point(size) + 9 * cut.ic * vector), 1)


def _line(p: Problem, lanes: int) -> int:
    """Bytes of a row of points."""
    every = stride_of(p)
    return ((-(-p.ow // M) - 1) * M * every + pixels_of(M, every)) * lanes * DTYPES[p.acc].itemsize


def _staged(p: Problem, lanes: int) -> int:
    """Bytes of what is put into lanes at once."""
    if p.src_layout == "nhwc":
        return 0
    pixels = max(p.ih * p.iw, p.oh * p.ow) if _whole(p, lanes) else max(pixels_of(M, stride_of(p)) * p.iw, M * p.ow)
    return pixels * lanes * DTYPES[p.acc].itemsize


def _whole(p: Problem, lanes: int) -> bool:
    """Whether rows are so short that planes are put into lanes as a whole."""
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
                direct = plan(p.replace(n=images, precision="strict"), t, threads)
                direct.prepare(src, grad, result, fill)(src, grad, None, result)
            idle.append((flag, run))
            if resume:
                with np.errstate(all="ignore"):
                    dst += result

        return launch

    prepare = (in_turn if planes else beside_in_turn)(p, most, launch_of)
    return Plan(problem=p, algorithm="weights_winograd", kernel=code.name, cost=cost(p, t), pack_weights=lambda p, wei: wei,
                prepare_launch=prepare, workspace=scratch * threads + child.workspace, threads=threads, children=(child,))  # fmt: skip
