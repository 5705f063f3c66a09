"""winograd_band: the band kernel of `winograd`, from pixels to results."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from ..planning.winograd_points import pixels_of, points_of, weight_pairs
from .compile import helper
from .memory import call_kernel, copy_apart, copy_asking, fill_row, integers, peek, poke, put_integers, unrolled_by_hand
from .simd import KINDS
from .threads import JOB_WORDS, Job
from .winograd_frame import OUTSIDE
from .winograd_pack import HEAD, SPARE
from .winograd_tile import CHUNK, block_results, products, transformed_pixels, turned_pixels

# The integers that the kernel receives: these, the image row behind each row of the blocks, the column behind each column.
Head = namedtuple(
    "Head",
    "n planes icg ocg ih iw oh ow rows columns images gy gx groups_y groups_x parts part_blocks blocks pad_x padded_x bias finish flags "
    "pack pack_extents pack_scratch packed_at soon_low soon_calls soon_lines soon_outer soon_step wo wc sn sc sy sx dn dc dy dx",
)
_HEAD_BYTES = 8 * len(Head._fields)


def band_factory(kind: str, lanes: int, m: int, stride: int, mr: int, nt: int, fma: int) -> Any:
    """The band kernel: units of work are (images, group of ``gy x gx`` blocks of each, group of channels, part of the output channels).

    Raw pixels of a vector of channels, ``[row][column][lanes]``, with borders resolved, are transformed along columns and then along rows
    to ``[i][j][c / lanes][block][lanes]``; products lie as ``[block][i][j][mr * lanes]``.  A block whose results are to be repaired is
    marked in the words at ``flags``, ``[n][block row][block column]``, behind one that tells whether any is.
    Products of blocks beyond the group's last, up to a tile, are of what lies there and never used.
    Workspace: bias of the output channels, a vector of zeros, results of a block, raw pixels, a row of blocks transformed along columns,
    transformed pixels, products; ``packed_at`` bytes on, the job of the kernel at ``pack``, its workspace, what it transforms.
    Where ``pack`` is not 0, the weights are the caller's, and those of a chunk of channels are transformed just before they are used, a
    pair of rows after the other: all at once, of 64 output channels by F(4x4), they take more than a megabyte (256 channels at 14x14
    690 us instead of 575, 128 at 28x28 506 and 385; two cores, Emerald Rapids, 2026-11);
    the first ``soon_calls`` products of a chunk ask for those of the next one, each for one of ``soon_lines`` columns of lines that lie
    ``soon_step`` bytes apart, from ``soon_low`` behind its first weight on, then ``soon_outer`` bytes further.
    """
    spec = (kind, lanes, m, stride, mr, nt, fma)
    size = KINDS[kind][2]
    vector, width, taps, chunk, spare = lanes * size, mr * lanes, (m + 2) ** 2, CHUNK // lanes, SPARE * lanes
    step, reads, points = m * stride, pixels_of(m, stride), points_of(m, stride)
    beyond = reads - step  # pixels that two blocks share
    order = tuple(row for pair in weight_pairs(m, stride) for row in pair)

    @helper
    def in_place(rows: Any, block: Any) -> Any:
        """Whether the rows of pixels that a row of blocks reads are neighbours in the image."""
        first = peek("i64", rows + 8 * block * step)
        return first >= 0 and peek("i64", rows + 8 * (block * step + reads - 1)) == first + reads - 1

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
        pixel_bytes = (depth * e.images * e.gy * e.gx + 1) * vector
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
            first_image, by = rest // e.groups_y * e.images, rest % e.groups_y
            images = min(e.images, e.n - first_image)
            ty, tx = by * e.gy, bx * e.gx
            tall, wide = min(e.gy, e.rows - ty), min(e.gx, e.columns - tx)
            each = tall * wide
            many = images * each
            columns = wide * step + beyond
            left = tx * step - e.pad_x  # image column of the group's first
            c0, c1 = max(left, 0), min(left + columns, e.iw)
            inside = max(c1 - c0, 0)
            before = min(c0 - left, columns)
            readable = e.iw - c0 if e.iw < lanes else lanes
            for place_of_vector in range(depth * images):
                cb, image = place_of_vector // images, place_of_vector % images
                channels = min(lanes, e.icg - cb * lanes)
                plane = at.src + (first_image + image) * e.sn + (group * e.icg + cb * lanes) * e.sc
                beside = e.sc == size and channels == lanes
                reads_in_place = beside and stride > 1
                for r in range(tall * step + beyond):
                    row = peek("i64", row_at + 8 * (ty * step + r))
                    to = raw + r * row_bytes + vector * lanes
                    # Of blocks whose rows are read where they are, only what lies beside the image is copied: 8 images of 128 channels at
                    # 56x56, stride 2, take 2.65 ms instead of 2.89; at stride 1 rows are read half as often again (two threads, Zen 5).
                    y, shared = r // step, r >= step and r % step < beyond
                    read = reads_in_place and (y == tall or in_place(row_at, ty + y)) and (not shared or in_place(row_at, ty + y - 1))
                    if row < 0:
                        padded = min(columns, e.padded_x - tx * step) if row == OUTSIDE else 0
                        fill_row(kind, lanes, to, padded * lanes, fill)
                        fill_row(kind, lanes, to + padded * vector, (columns - padded) * lanes, zero)
                        continue
                    line = plane + row * e.sy
                    first = line + c0 * e.sx
                    place = to + before * vector
                    if inside == 0 or read:
                        pass
                    elif e.sx == size:
                        turned_pixels(spec, place, first, e.sc, channels, zeros, inside, readable, e.iw - lanes - c0)
                    elif beside:
                        copy_asking(kind, lanes, place, vector, first, e.sx, inside, vector)  # the next group's
                    else:
                        fill_row(kind, lanes, place, inside * lanes, zero)
                        for x in range(inside):
                            for c in range(channels):
                                poke(kind, place + x * vector + c * size, peek(kind, first + x * e.sx + c * e.sc))
                    for side in range(2):
                        for x in range(before + inside if side else 0, columns if side else before):
                            column = peek("i64", column_at + 8 * (tx * step + x))
                            fill_row(kind, lanes, to + x * vector, lanes, fill if column == OUTSIDE else zero)
                            if column >= 0:
                                for c in range(channels):
                                    poke(kind, to + x * vector + c * size, peek(kind, line + c * e.sc + column * e.sx))
                for y in range(tall):
                    first = raw + y * step * row_bytes + vector * lanes
                    read = reads_in_place and in_place(row_at, ty + y)
                    for third in range(3 if read else 1):
                        # what lies before the image's columns, they, what lies behind; or all
                        x0 = 0 if third == 0 else before if third == 1 else before + inside
                        x1 = columns if third == 2 or not read else before if third == 0 else before + inside
                        if read and third == 1:
                            line = plane + peek("i64", row_at + 8 * (ty + y) * step) * e.sy + c0 * e.sx
                            transformed_pixels(spec, middle + x0 * vector, vector, middle_bytes, line, e.sx, e.sy, x1 - x0)
                        else:
                            transformed_pixels(
                                spec, middle + x0 * vector, vector, middle_bytes, first + x0 * vector, vector, row_bytes, x1 - x0
                            )
                    for i in range(reads):
                        to = pixels + i * reads * pixel_bytes + (cb * many + image * each + y * wide) * vector
                        transformed_pixels(spec, to, vector, pixel_bytes, middle + i * middle_bytes, step * vector, vector, wide)
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
                    # at stride 2 all products of a chunk, as where its weights are transformed just before
                    span = chunk if stride > 1 else held
                    for part_of_sums in range((high - low + span - 1) // span * taps):
                        begin, n = low + part_of_sums // taps * span, part_of_sums % taps
                        ky, kx = n // (m + 2), n % (m + 2)
                        i = n
                        if e.pack != 0:
                            # two rows of transformed weights at a time, which leave pixels and sums in the second-level cache
                            pair, i = ky // 2 + 1, n % (2 * m + 4)
                            ky = order[ky]
                            if i == 0:
                                wei = packed
                                to = packed - place_of_block
                                workspace = pack_job + 8 * JOB_WORDS
                                put_integers(pack_job, Job(at.wei, 0, 0, at.values, to, workspace, e.pack_extents, -pair))
                                call_kernel(e.pack, (pack_job, 0, filters * depth + low, filters * depth + high))
                        # at stride 2 the last weights meet all odd pixels, whose products are added to those of the even ones
                        down, across = m if ky >= points else 1, m if kx >= points else 1
                        for c in range(begin, min(begin + span, high), chunk):
                            first = wei + (i * (held * width + SPARE) * lanes + (c - low) * lanes * width) * size
                            channels = min(chunk, depth - c)
                            onward = (held * width + SPARE) * vector if stride > 1 else channels * lanes * width * size
                            later = c + (ky >= points) + (kx >= points)
                            for j in range(down * across):
                                ny, nx = ky + j // across, kx + j % across
                                to = sums + (ny % points * points + nx % points) * width * size
                                place = pixels + (ny * reads + nx) * pixel_bytes + c * many * vector
                                for t in range(0, many, nt):
                                    # the next weights, a part with each tile of these: asked for all at once they come no sooner, and
                                    # hold up what is needed now (256 channels at 14x14: 0.9 ms instead of 1.1; Emerald Rapids)
                                    soon, ahead = first + onward + channels * lanes * (t // nt) * soon_step, soon_step
                                    if call < e.soon_calls:
                                        soon, ahead = source + call // e.soon_lines * e.soon_outer + call % e.soon_lines * 64, e.soon_step
                                    elif e.pack != 0 or j > 0:
                                        ahead = 0
                                    call += 1
                                    products(spec, to + t * sum_bytes, sum_bytes, place + t * vector, many * vector, first, channels, later,
                                             soon, ahead)  # fmt: skip
                for t in range(many):
                    n, inner = first_image + t // each, t % each
                    by, bx = ty + inner // wide, tx + inner % wide
                    y, x = by * m, bx * m
                    to = at.dst + n * e.dn + (group * e.ocg + o) * e.dc + y * e.dy + x * e.dx
                    for lane in range(0, min(width, e.ocg - o), lanes):
                        result = to + lane * e.dc
                        whole = y + m <= e.oh and x + m <= e.ow and o + lane + lanes <= e.ocg
                        way = (1 if e.dc == size else 2 if e.dx == size else 0) if whole else 0
                        finish = e.finish * (at.values + size)
                        wrong = block_results(spec, sums + t * sum_bytes + lane * size, bias_at + lane * size, finish,
                                              result if way else tile_at, e.dy, e.dx, e.dc, way)  # fmt: skip
                        if wrong:
                            poke("i64", e.flags, 1)
                            poke("i64", e.flags + 8 * (1 + (n * e.rows + by) * e.columns + bx), 1)
                        if way == 0:
                            for a in range(min(m, e.oh - y)):
                                if e.dc == size and o + lane + lanes <= e.ocg:
                                    copy_apart(kind, lanes, result + a * e.dy, e.dx, tile_at + a * m * vector, vector, min(m, e.ow - x))
                                    continue
                                for b in range(min(m, e.ow - x)):
                                    pixel = tile_at + (a * m + b) * vector
                                    for c in range(min(lanes, e.ocg - o - lane)):
                                        poke(kind, result + a * e.dy + b * e.dx + c * e.dc, peek(kind, pixel + c * size))

    return winograd
