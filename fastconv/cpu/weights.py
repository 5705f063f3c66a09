"""weights: the gradient of the weights, a product of two packed panels summed over all pixels of all images.

A register tile holds ``mr`` vectors of output channels at a few *columns* for one tap.  Columns are the group's input channels or, where
these are few, its channels times the columns of the kernel; the other taps are rows (and columns) of the same panel further on.
Panels hold a band of some hundred pixels, the sums of a unit's tiles stay in its workspace between bands.
Order of accumulation per weight: images, rows of the result, its columns, one after the other, from zero.
"""

from __future__ import annotations

from collections import namedtuple
from math import ceil
from typing import Any, cast

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, Plan, Quick, QuickLaunch
from ..planning.problem import DTYPES, Problem, border_indices
from .border import row_map, too_large
from .memory import call_kernel, copy, fill_row, integers, peek, poke, split, unrolled_by_hand
from .panels import in_turn, not_summed, steps_between
from .simd import KINDS
from .target import Target
from .threads import Job, Region
from .values import finish_values
from .weights_split import Split, Tile, counts_of, is_expanded, lies, split_of, unit_seconds
from .weights_tile import AHEAD, turn_kernel, weights_tile_kernel

CASES = (
    "n2_ic24ih15_oc40k3_p1_bwd-weight_f32",
    "n3_ic33ih9_oc17k1_bwd-weight_f32",
    "ic3ih33_oc24k7_s2_p3_bwd-weight_f32",
    "n2_g2_ic34ih12iw13_oc40k3_s2_p1_bwd-weight_f32_nhwc_hwio",
    "ic17ih14_oc33k3_d2_p2_reflect_bwd-weight_f64",
    "n5_ic20ih7_oc34k3_p1_bwd-weight_f64",
    "ic5ih20_oc6k4_s3_p1_wrap_bwd-weight_f32",
    "n2_g5_ic5ih12_oc10k3_p1_bwd-weight_f32",
    "n2_ic30ih9iw12_oc70k1_s2_bwd-weight_f32_nhwc_hwio",
)


TILES = (
    Tile(32, mr=2, columns=13),  # 26 accumulators, 2 gradients, 1 pixel of 32 registers; 5, 10, 20 blocks of 64, 128, 256 channels
    Tile(32, mr=4, columns=6),  # 24 accumulators, 4 gradients, 1 pixel; of channels side by side
    Tile(32, mr=3, columns=8),  # 24 accumulators, 3 gradients; 24 to 144 channels at 56x56, 8 images, take 456 us instead of 600 (Zen 5)
    Tile(32, mr=2, columns=8),  # of 32 channels, and of a few dozen
    Tile(32, mr=1, columns=26),  # one vector of output channels
    Tile(32, mr=1, columns=16),  # of 16, 48, 96, 144 channels none is computed in vain
    Tile(16, mr=2, columns=6),
    Tile(16, mr=1, columns=12),
)

# 512 to 256 channels at 28x28, whose pixels lie 2 KB apart, take 2118 us of gradients that are packed instead of 2553 (one core, Emerald
# Rapids, 2026-11); 8 images of 256 gradients, 1 KB apart, 4060 instead of 4360 (two cores, Zen 5)
_CROWDED_BYTES = 1024
_MOST_TAPS = 1 << 16

# The integers that the kernel receives: these, the row map, the image column of each padded column, the panel's bytes to each tap, and
# the result's to each column and to each tap.
Head = namedtuple(
    "Head",
    "tile turn width pitch block n planes icg ocg oh ow columns taps expanded kx_step parts part_blocks column_parts column_blocks "
    "tap_parts tap_many band_images band_rows g q kh_rows padded_rows padded_columns row positions before after left inside step "
    "pixel_step panel grads flat way resume result_step one_tap sn sc sy sx gn gc gy gx go",
)
_TABLES_AT = 8 * len(Head._fields)


def _factory(kind: str, lanes: int) -> Any:
    """The band kernel of all tiles: units of work are (group, part of the output channels, part of the columns, part of the taps), each
    over all pixels.

    Panel of pixels: ``[column block][image][row][position][pitch]``, a position being a pixel of a padded row that some tap reads, its
    ``columns`` values padded to whole vectors; panel of gradients: ``[oc block][image][row][pixel][width]``, ``mr`` vectors wide.
    Whole blocks whose channels are side by side are read where they lie: gradients, and pixels that a single tap reads; but gradients
    whose pixels lie so far apart that few lines of a first-level cache hold them.
    Workspace: zeros, sums ``[oc block][column][tap][width]``, panel of pixels, panel of gradients, padded row, lines, what no tap reads
    of one.  The last band's sums of whole blocks are stored where the result lies, if its output channels do side by side.
    What lies beyond the last column or channel is zeros (left by others it may be subnormal numbers, of which a product takes 150 cycles),
    or computed in vain, and never stored.
    """
    crowded, size = _CROWDED_BYTES, KINDS[kind][2]

    def weights(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Head)
        width, pitch, columns = e.width, e.pitch, e.block
        rows_at = at.extents + _TABLES_AT
        columns_at = rows_at + e.padded_rows * 8
        taps_at = columns_at + e.padded_columns * 8
        column_out = taps_at + e.taps * 8
        tap_out = column_out + e.columns * 8
        fill, zero = peek(kind, at.values), peek(kind, at.values + 4 * size)
        zeros = at.workspace + index * at.scratch
        sums = zeros + width * size
        fill_row(kind, lanes, zeros, width, zero)
        panel = sums + e.part_blocks * e.column_blocks * columns * e.tap_many * width * size
        grads = panel + e.column_blocks * e.panel
        padded = grads + e.part_blocks * e.grads
        line_bytes = (e.positions + lanes) * size
        lines = padded + (e.padded_columns + 3 * lanes) * size
        junk = lines + columns * line_bytes
        across = 1 if e.expanded == 0 else e.expanded
        grads_lie, pixels_lie = e.gc == size and e.gx % crowded != 0, e.sc == size and e.one_tap != 0
        for u in range(u0, u1):
            rest, tap_part = u // e.tap_parts, u % e.tap_parts
            rest, column_part = rest // e.column_parts, rest % e.column_parts
            group, part = rest // e.parts, rest % e.parts
            t0 = tap_part * e.tap_many
            t1 = min(t0 + e.tap_many, e.taps)
            j0 = column_part * e.column_blocks * columns
            j1 = min(j0 + e.column_blocks * columns, e.columns)
            o0 = part * e.part_blocks * width
            o1 = min(o0 + e.part_blocks * width, e.ocg)
            blocks, oc_blocks = (j1 - j0 + columns - 1) // columns, (o1 - o0 + width - 1) // width
            block_bytes = e.column_blocks * columns * e.tap_many * width * size
            if (o1 - o0) % width != 0:
                fill_row(kind, lanes, grads + (oc_blocks - 1) * e.grads, e.grads // size, zero)
            if (j1 - j0) % columns != 0:
                fill_row(kind, lanes, panel + (blocks - 1) * e.panel, e.panel // size, zero)
            result = at.dst + (group * e.ocg + o0) * e.go
            if e.resume:
                for o in range(o1 - o0):
                    place = sums + o // width * block_bytes + o % width * size
                    for j in range(j0, j1):
                        for t in range(t0, t1):
                            to = result + o * e.go + peek("i64", column_out + j * 8) + peek("i64", tap_out + t * 8)
                            poke(kind, place + ((j - j0) * e.tap_many + t - t0) * width * size, peek(kind, to))
            for i0 in range(0, e.n, e.band_images):
                images = min(e.band_images, e.n - i0)
                for y0 in range(0, e.oh, e.band_rows):
                    rows = min(e.band_rows, e.oh - y0)
                    opening = i0 + y0 == 0 and e.resume == 0
                    closing = i0 + images == e.n and y0 + rows == e.oh and e.way == 2
                    # gradients
                    for i in range(images):
                        for b in range(oc_blocks):
                            o = o0 + b * width
                            if grads_lie and o + width <= o1:
                                continue
                            to = grads + b * e.grads + i * rows * e.ow * width * size
                            plane = at.wei + (i0 + i) * e.gn + group * e.ocg * e.gc + y0 * e.gy
                            if e.gx == size:
                                runs, many = (1, rows * e.ow) if e.gy == e.ow * size else (rows, e.ow)
                                for m in range(width // lanes):
                                    first = min(o + m * lanes, o1 - 1)
                                    left = min(o1 - first, lanes)
                                    for r in range(runs):
                                        call_kernel(e.turn, (to + (r * many * width + m * lanes) * size, width * size,
                                                             plane + first * e.gc + r * e.gy, e.gc, left, many))  # fmt: skip
                            else:
                                for r in range(rows):
                                    for x in range(e.ow):
                                        pixel, place = plane + o * e.gc + r * e.gy + x * e.gx, to + (r * e.ow + x) * width * size
                                        if e.gc == size:
                                            copy(kind, lanes, place, pixel, min(width, o1 - o))
                                        else:
                                            for lane in range(min(width, o1 - o)):
                                                poke(kind, place + lane * size, peek(kind, pixel + lane * e.gc))
                    # pixels
                    for i in range(images):
                        plane = at.src + (i0 + i) * e.sn + group * e.icg * e.sc
                        used = (rows - 1) * e.q + e.kh_rows
                        for b in range(blocks):
                            j = j0 + b * columns
                            many = min(columns, j1 - j)
                            if pixels_lie and many == columns:
                                continue
                            start = panel + b * e.panel + i * ((e.band_rows - 1) * e.q + e.kh_rows) * e.row
                            runs, positions = (1, used * e.positions) if e.flat else (used, e.positions)
                            for r in range(runs):
                                row = peek("i64", rows_at + (y0 * e.q + r) * e.g * 8)
                                to = start + r * e.row
                                if row < 0:
                                    fill_row(kind, lanes, to, e.positions * pitch, fill)
                                elif e.sx == size and e.expanded == 0 and e.step == 1:
                                    line = plane + j * e.sc + row * e.sy
                                    first = peek("i64", columns_at + e.before * 8)
                                    for m in range(pitch // lanes):
                                        c = min(m * lanes, many - 1)
                                        call_kernel(e.turn, (to + (e.before * pitch + m * lanes) * size, pitch * size,
                                                             line + c * e.sc + first * size, e.sc, min(many - c, lanes),
                                                             positions - e.before - e.after))  # fmt: skip
                                    if e.before + e.after:
                                        for at_side in range(e.before + e.after):
                                            x = at_side if at_side < e.before else e.positions - e.before - e.after + at_side
                                            place = to + x * pitch * size
                                            column = peek("i64", columns_at + x * 8)
                                            for c in range(many):
                                                value = fill if column < 0 else peek(kind, line + c * e.sc + column * size)
                                                poke(kind, place + c * size, value)
                                elif e.sc == size and e.expanded == 0:
                                    line = plane + j * size + row * e.sy
                                    for x in range(e.positions):
                                        column = peek("i64", columns_at + x * e.step * 8)
                                        place = to + x * pitch * size
                                        if column < 0:
                                            fill_row(kind, lanes, place, columns, fill)
                                        else:
                                            copy(kind, lanes, place, line + column * e.sx, many)
                                else:
                                    channel = -1
                                    for column in range(many):
                                        c, kx = (j + column) // across, (j + column) % across
                                        if c != channel:
                                            channel = c
                                            line = plane + c * e.sc + row * e.sy
                                            copied = e.sx == size
                                            if copied:
                                                copy(kind, lanes, padded + e.left * size, line, e.inside)
                                            within = e.inside if copied else 0
                                            for side in range(e.padded_columns - within):
                                                x = side if side < e.left else side + within
                                                source = peek("i64", columns_at + x * 8)
                                                poke(kind, padded + x * size, fill if source < 0 else peek(kind, line + source * e.sx))
                                        own, source_at = lines + column * line_bytes, padded + kx * e.kx_step * size
                                        if e.step == 2:
                                            split(kind, lanes, own, junk, source_at, e.positions)
                                        else:
                                            for x in range(e.positions):
                                                poke(kind, own + x * size, peek(kind, source_at + x * e.step * size))
                                    for m in range(pitch // lanes):
                                        c = min(m * lanes, many - 1)
                                        call_kernel(e.turn, (to + m * lanes * size, pitch * size, lines + c * line_bytes,
                                                             line_bytes, min(many - c, lanes), e.positions))  # fmt: skip
                    image_step = ((e.band_rows - 1) * e.q + e.kh_rows) * e.row
                    image = at.src + i0 * e.sn + group * e.icg * e.sc + y0 * e.q * e.g * e.sy
                    gradient = at.wei + i0 * e.gn + group * e.ocg * e.gc + y0 * e.gy
                    # the next band's lines, one of each pixel for a tile: so far apart no prefetcher of the processor finds them (256 to
                    # 64 channels at 56x56: 432 us instead of 732; two cores, Emerald Rapids, 2026-11)
                    number, lines_of_pixel, lines_of_grad = 0, (j1 - j0) * size // 64 + 1, (o1 - o0) * size // 64 + 1
                    within = y0 + rows < e.oh
                    next_pixels = image + rows * e.q * e.g * e.sy if within else at.src + (i0 + images) * e.sn + group * e.icg * e.sc
                    next_grads = gradient + rows * e.gy if within else at.wei + (i0 + images) * e.gn + group * e.ocg * e.gc
                    for b in range(blocks):
                        lie = pixels_lie and j0 + (b + 1) * columns <= j1
                        right, below, behind = (e.step * e.sx, e.q * e.g * e.sy, e.sn) if lie else (e.pixel_step, e.q * e.row, image_step)
                        for t in range(t0, t1):
                            pixels = image + (j0 + b * columns) * size if lie else panel + b * e.panel + peek("i64", taps_at + t * 8)
                            place = sums + (b * columns * e.tap_many + t - t0) * width * size
                            for o in range(oc_blocks):
                                here = grads_lie and o0 + (o + 1) * width <= o1
                                grad = gradient + (o0 + o * width) * size if here else grads + o * e.grads
                                gx, gy, gn = (e.gx, e.gy, e.gn) if here else (width * size, e.ow * width * size, rows * e.ow * width * size)
                                dense = below == e.ow * right and gy == e.ow * gx
                                own, own_step = place + o * block_bytes, e.tap_many * width * size
                                to, to_step = own, own_step
                                if closing and o0 + (o + 1) * width <= o1 and j0 + (b + 1) * columns <= j1 and e.result_step != 0:
                                    column = peek("i64", column_out + (j0 + b * columns) * 8) + peek("i64", tap_out + t * 8)
                                    to, to_step = result + o * width * size + column, e.result_step
                                ahead, ahead_step = grad, 0
                                if dense and lie and number < lines_of_pixel:
                                    ahead, ahead_step = next_pixels + j0 * size + number * 64, right
                                elif dense and here and number < lines_of_pixel + lines_of_grad:
                                    ahead, ahead_step = next_grads + o0 * size + (number - lines_of_pixel) * 64, gx
                                number += AHEAD
                                arguments = (
                                    zeros if opening else own, 0 if opening else own_step, to, to_step, grad, gx, gy, gn,
                                    pixels, right, below, behind, images, 1 if dense else rows, rows * e.ow if dense else e.ow,
                                    ahead, ahead_step,
                                )  # fmt: skip
                                call_kernel(e.tile, arguments)
            places = (j1 - j0) * e.tap_many
            for b in range(oc_blocks):
                many = min(width, o1 - o0 - b * width)
                stored = e.way == 2 and many == width and e.result_step != 0
                to = result + b * width * e.go
                if e.way == 1 and places >= lanes:
                    to += peek("i64", column_out + j0 * 8)
                    for m in range((many + lanes - 1) // lanes):
                        left = min(many - m * lanes, lanes)
                        for place in range(0, places, lanes):
                            first = min(place, places - lanes)
                            call_kernel(e.turn, (to + m * lanes * e.go + first * size, e.go,
                                                 sums + b * block_bytes + (first * width + m * lanes) * size, width * size,
                                                 lanes, left))  # fmt: skip
                else:
                    for j in range(j0 + (j1 - j0) // columns * columns if stored else j0, j1):
                        for t in range(t0, t1):
                            place = sums + b * block_bytes + ((j - j0) * e.tap_many + t - t0) * width * size
                            out = to + peek("i64", column_out + j * 8) + peek("i64", tap_out + t * 8)
                            if e.way == 2:
                                copy(kind, lanes, out, place, many)
                            else:
                                for lane in range(many):
                                    poke(kind, out + lane * e.go, peek(kind, place + lane * size))

    return weights


def reject(p: Problem, t: Target) -> str | None:
    """The gradient of the weights, everything float32 or everything float64."""
    reason = not_summed(p)
    if reason is not None:
        return reason
    if p.kh * p.kw > _MOST_TAPS:
        return f"keeps a table of at most {_MOST_TAPS} taps, not {p.kh * p.kw}"
    size = DTYPES[p.acc].itemsize
    (p, tile), lanes = _arranged(p, t), t.lanes(size)
    split = split_of(p, tile, lanes, size, 1)
    if unit_seconds(p, tile, lanes, split) > costs.MOST_SECONDS:
        return f"needs {unit_seconds(p, tile, lanes, split):.1f} s for one image's part of the weights"
    return too_large(p, _layout(p, tile, lanes, size, 1)[2])


def cost(p: Problem, t: Target) -> float:
    """FMAs in padded blocks of the best tile, and the packing of both panels."""
    p, tile = _arranged(p, t)
    return costs.weights_seconds(p, t.lanes(DTYPES[p.acc].itemsize), tile.mr, tile.columns, is_expanded(p, tile))


def most_kernels(t: Target) -> int:
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    return sum(tile.registers == most for tile in TILES) + 2  # the bands, and what turns squares


def _arranged(p: Problem, t: Target) -> tuple[Problem, Tile]:
    """The tile of the fewest padded multiplications, and the problem that it is for; ties go to the earlier.

    Of a kernel of one tap image and gradient may be exchanged, ``op`` apart: the weights' gradient is then the other's, transposed.  So
    lanes hold the channels that lie side by side in the result, or those of fewer blocks: 144 to 24 channels at 56x56 take 205 us of
    output channels in lanes and 175 of the image's.  No tile changes a sum, nor does the exchange.
    """
    most = max(tile.registers for tile in TILES if tile.registers <= t.registers)
    lanes = t.lanes(DTYPES[p.acc].itemsize)
    ways = [p]
    if p.kh * p.kw * p.g == 1 and p.pt == p.pb == p.pl == p.pr == 0:
        ways.insert(p.wei_layout == "hwio", p.replace(ic=p.oc, oc=p.ic, ih=p.oh, iw=p.ow, sh=1, sw=1))
    choices = [(way, tile) for way in ways for tile in TILES if tile.registers == most]

    def seconds(choice: tuple[Problem, Tile]) -> float:
        way, tile = choice
        seconds = costs.weights_seconds(way, lanes, tile.mr, tile.columns, is_expanded(way, tile))
        if len(ways) > 1 and (way is p) == (p.wei_layout == "oihw"):  # lanes hold channels that lie apart in the result
            seconds += costs.WEIGHTS_TURN_SECONDS * p.ic * p.oc / lanes
        if lies(way):
            return seconds + costs.weights_loads_seconds(way, lanes, tile.mr, tile.columns)
        return seconds * 2 if lanes > 2 * tile.columns else seconds  # of a panel that is mostly empty

    return min(choices, key=seconds)


def _exchanged(launch: Launch) -> Launch:
    """A launch of image and gradient exchanged."""

    def run(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        launch(packed, src, bias, dst)

    def quick(image_ndim: int, weight_ndim: int) -> Quick:
        own = cast("QuickLaunch", launch).quick(weight_ndim, image_ndim)
        return lambda src, packed, bias, dst: own(packed, src, bias, dst)

    return QuickLaunch(run, quick) if isinstance(launch, QuickLaunch) else run


def _layout(p: Problem, tile: Tile, lanes: int, size: int, threads: int) -> tuple[Head, np.ndarray, int]:
    """The kernel's integers but for strides, its tables but for the result's, bytes of workspace of one thread."""
    expanded = is_expanded(p, tile)
    s, split = steps_between(p, expanded), split_of(p, tile, lanes, size, threads)
    oc_blocks, column_blocks, taps = counts_of(p, tile, lanes)
    width, pitch = tile.mr * lanes, ceil(tile.columns / lanes) * lanes
    row = s.positions * pitch * size
    panel_rows = (split.rows - 1) * s.q + s.kh_rows
    panel, grads = split.images * panel_rows * row, split.images * split.rows * p.ow * width * size
    padded = (s.positions - 1) * s.gx + ((p.kw - 1) * p.dw if expanded else 0) + 1
    before = min(p.pl, s.positions)
    left = min(p.pl, padded)
    head = Head(
        tile=0, turn=0, width=width, pitch=pitch, block=tile.columns,
        n=p.n, planes=p.g, icg=p.ic // p.g, ocg=p.oc // p.g, oh=p.oh, ow=p.ow, columns=p.ic // p.g * (p.kw if expanded else 1), taps=taps,
        expanded=p.kw if expanded else 0, kx_step=p.dw, parts=ceil(oc_blocks / split.part_blocks), part_blocks=split.part_blocks,
        column_parts=ceil(column_blocks / split.column_blocks), column_blocks=split.column_blocks, tap_parts=ceil(taps / split.tap_many),
        tap_many=split.tap_many, band_images=split.images, band_rows=split.rows, g=s.g, q=s.q, kh_rows=s.kh_rows,
        padded_rows=p.ih_padded, padded_columns=padded, row=row, positions=s.positions, before=before,
        after=max(s.positions - before - p.iw, 0), left=left, inside=min(padded - left, p.iw), step=s.gx,
        pixel_step=s.qx * pitch * size, panel=panel, grads=grads, flat=0, way=0, resume=0, result_step=0,
        one_tap=int(p.kh * p.kw == 1 and p.pt == p.pb == p.pl == p.pr == 0),
        sn=0, sc=0, sy=0, sx=0, gn=0, gc=0, gy=0, gx=0, go=0,
    )  # fmt: skip
    down = np.arange(p.kh) * s.down * row
    right = np.arange(1 if expanded else p.kw) * s.across * pitch * size
    tables = np.concatenate([row_map(p), border_indices(-p.pl, padded, 1, p.iw, p.border), (down[:, None] + right).reshape(-1)])
    scratch = (1 + split.part_blocks * split.column_blocks * tile.columns * split.tap_many) * width * size
    scratch += split.column_blocks * panel + split.part_blocks * grads
    scratch += (padded + 4 * lanes) * size + (tile.columns + 1) * (s.positions + lanes) * size
    return head, tables, ceil(scratch / 64) * 64


def build(p: Problem, t: Target, plan: Any, threads: int = 1) -> Plan:
    """A plan whose packed weights are the result's gradient, as it is."""
    whole, kind = p, p.acc
    size, (p, tile) = KINDS[kind][2], _arranged(p, t)
    exchanged = p is not whole
    lanes = t.lanes(size)
    code = weights_tile_kernel(kind, lanes, tile.mr, tile.columns, int(t.fma))
    turning = turn_kernel(kind, lanes)
    region = Region(f"weights_bands_{kind}_{lanes}", _factory, (kind, lanes), kind)
    head, tables, scratch = _layout(p, tile, lanes, size, threads)
    units = p.g * head.parts * head.column_parts * head.tap_parts
    own = Split(head.part_blocks, head.column_blocks, head.tap_many, 1, 1)
    most = max(int(costs.MOST_SECONDS / unit_seconds(p, tile, lanes, own)), 1)  # images of one launch
    expanded = bool(head.expanded)

    def launch_of(images: int, resume: int, src: np.ndarray, grad: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        if exchanged:
            src, grad, dst = grad, src[:, :, :: whole.sh, :: whole.sw], dst.swapaxes(0, 1)
        (sn, sc, sy, sx), (gn, gc, gy, gx), (go, dc, dy, dx) = src.strides, grad.strides, dst.strides
        columns = np.arange(p.ic // p.g) * dc
        down, across = np.arange(p.kh) * dy, np.arange(p.kw) * dx
        if expanded:
            out = (columns[:, None] + across).reshape(-1), down
        else:
            out = columns, (down[:, None] + across).reshape(-1)
        # a single row or column of taps may lie any number of bytes apart: 512 to 1024 channels at 28x28, stride 2, whose result has output
        # channels side by side, take 524 us instead of 2100 (two cores, Zen 5, 2026-11)
        beside = dc == p.kh * p.kw * size and (p.kh == 1 or dy == p.kw * size) and (p.kw == 1 or dx == size)
        dense = not expanded and head.tap_parts == 1 and beside
        flat = p.kh * p.kw == p.sh == p.sw == 1 and p.iw == p.ow and p.ih == p.oh and (sy, sx) == (p.iw * size, size)
        e = head._replace(tile=code.address, turn=turning.address, n=images, resume=resume, flat=int(flat),
                          way=2 if go == size else int(dense), result_step=0 if expanded else dc, sn=sn, sc=sc, sy=sy, sx=sx,
                          gn=gn, gc=gc, gy=gy, gx=gx, go=go)  # fmt: skip
        extents = np.concatenate([np.array(e, np.int64), tables, *out])
        seconds = costs.weights_seconds(p.replace(n=images), lanes, tile.mr, tile.columns, expanded)
        launch = region.launcher(extents, finish_values(p, fill), scratch, units, threads, seconds, src, grad, dst)
        return _exchanged(launch) if exchanged else launch

    return Plan(problem=whole, algorithm="weights", kernel=code.name, cost=cost(whole, t), pack_weights=lambda p, wei: wei,
                prepare_launch=in_turn(whole, most, launch_of), workspace=scratch * threads, threads=threads)  # fmt: skip
