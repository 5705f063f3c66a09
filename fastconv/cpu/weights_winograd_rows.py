"""weights_winograd_rows: rows of blocks of pixels and of gradients, read and transformed for `weights_winograd`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from ..planning.winograd_points import pixels_of
from .border import LINE
from .compile import helper
from .depthwise_tile import interleave
from .memory import copy, peek, poke
from .simd import KINDS
from .weights_winograd_split import SUMS, M
from .weights_winograd_tile import transformed_gradients
from .winograd_frame import OUTSIDE
from .winograd_shallow_tile import column_pixels
from .winograd_tile import transformed_pixels

# The integers that the kernel receives: these, the image row behind each row of the blocks, the column behind each column.
Head = namedtuple(
    "Head",
    "tile n icg ocg ic_part oc_part ic_parts oc_parts columns width ih iw inside pl oh ow rows across tall planes whole strip strip_rows "
    "row_strips pixel_point pixel_strip pixel_vector grad_point grad_strip grad_block sum_point line staged flag sn sc sy sx gn gc gy gx "
    "go gi dy dx",
)
TABLES_AT = 8 * len(Head._fields)

# Where a thread's workspace has the fill value and zeros, a vector each; where rows lie, and the bytes between their vectors, of a row of
# blocks and of a column; addresses of planes; sums of magnitudes of gradients; gradients of a block at the edge; rows of points; planes in
# lanes; sums; transformed pixels and gradients.
Space = namedtuple("Space", "fills zeros lines column_lines table totals edge points staged sums pixels grads")
LINES = 3  # of a table of rows


def space_maker(kind: str, lanes: int, stride: int) -> Any:
    """What kernels find their :data:`Space` with."""
    size, reads = KINDS[kind][2], pixels_of(M, stride)
    vector = lanes * size

    @helper
    def space_of(e: Any, start: Any) -> Any:
        lines = start + (2 * vector + LINE - 1) // LINE * LINE
        table = lines + 2 * LINES * LINE
        totals = table + (lanes * 8 + LINE - 1) // LINE * LINE
        edge = totals + e.oc_part * size
        points = edge + M * M * vector
        staged = points + reads * e.line
        sums = staged + e.staged
        pixels = sums + SUMS * e.sum_point
        grads = pixels + e.ic_part // lanes * e.pixel_vector
        return Space(start, start + vector, lines, lines + LINES * LINE, table, totals, edge, points, staged, sums, pixels, grads)

    return space_of


def _rows_finder(kind: str, lanes: int) -> tuple[Any, Any]:
    """What readies an image's planes, before its rows are read, and where a row of it lies, with the bytes between its vectors."""
    size = KINDS[kind][2]

    @helper
    def stage(dst: Any, planes: Any, at: Any, step: Any, count: Any) -> None:
        """``dst[x][lane] = planes[lane][at + x*step]`` for ``count`` of x; ``planes`` is the address of a table of addresses."""
        if step == size and count >= lanes:
            interleave(kind, lanes, dst, planes, at, count)
        else:
            for x in range(count):
                for lane in range(lanes):
                    poke(kind, dst + (x * lanes + lane) * size, peek(kind, peek("i64", planes + lane * 8) + at + x * step))

    @helper
    def ready(e: Any, space: Any, image: Any, plane: Any, step: Any, count: Any) -> None:
        """The addresses of planes ``plane`` bytes apart, and their ``count`` pixels in lanes where these are put there as a whole."""
        for lane in range(lanes * e.planes):
            poke("i64", space.table + lane * 8, image + lane * plane)
        if e.whole:
            stage(space.staged, space.table, 0, step, count)

    @helper
    def place_row(e: Any, space: Any, number: Any, image: Any, row: Any, sy: Any, sx: Any, columns: Any) -> None:
        """Of row ``row`` of an image, the one of this number in a row of blocks, where it lies; one of planes is put into lanes."""
        place, step = image + row * sy, sx
        if e.planes:
            place, step = space.staged + (row if e.whole else number) * columns * lanes * size, lanes * size
            if not e.whole:
                stage(place, space.table, row * sy, sx, columns)
        poke("i64", space.lines + 16 * number, place)
        poke("i64", space.lines + 16 * number + 8, step)

    return ready, place_row


def pixels_transformer(kind: str, lanes: int, stride: int, fma: int) -> Any:
    """What transforms a vector of channels' pixels of ``tall`` rows of blocks, from the ``first`` on; it is the v-th of a unit."""
    vector, m, apart, reads = lanes * KINDS[kind][2], M, M * stride, pixels_of(M, stride)
    pixels_spec, line_spec = (kind, lanes, m, stride, 1, fma), (kind, lanes, m, stride, 1, 1, fma)
    ready, place_row = _rows_finder(kind, lanes)

    @helper
    def transform_pixels(at: Any, e: Any, space: Any, row_at: Any, column_at: Any, channel: Any, v: Any, first: Any, tall: Any) -> None:
        columns = e.across * apart + reads - apart
        before = min(e.pl, columns)
        inside = max(min(columns - before, e.inside), 0)
        held = -1
        for k in range(tall):
            n, ty = (first + k) // e.rows, (first + k) % e.rows
            image = at.src + n * e.sn + channel * e.sc
            if held != n:
                held = n
                ready(e, space, image, e.sc, e.sx, e.ih * e.iw)
            for r in range(reads):
                row = peek("i64", row_at + 8 * (ty * apart + r))
                if row >= 0:
                    place_row(e, space, r, image, row, e.sy, e.sx, e.iw)
                else:
                    poke("i64", space.lines + 16 * r, space.fills if row == OUTSIDE else space.zeros)
                    poke("i64", space.lines + 16 * r + 8, 0)
            column_pixels(pixels_spec, space.points + before * vector, e.line, space.lines, inside)
            # those outside the image one by one
            for turn in range(columns - inside):
                x = turn if turn < before else turn + inside
                column = peek("i64", column_at + 8 * x)
                for r in range(reads):
                    row = peek("i64", row_at + 8 * (ty * apart + r))
                    place = peek("i64", space.lines + 16 * r) + column * peek("i64", space.lines + 16 * r + 8)
                    if column < 0:
                        place = space.fills if min(row, column) == OUTSIDE else space.zeros
                    poke("i64", space.column_lines + 16 * r, place)
                    poke("i64", space.column_lines + 16 * r + 8, 0)
                column_pixels(pixels_spec, space.points + x * vector, e.line, space.column_lines, 1)
            for part in range(e.row_strips):
                strip = k * e.row_strips + part if e.row_strips > 1 else k // e.strip_rows
                to = space.pixels + v * e.pixel_vector + strip * e.pixel_strip + k % e.strip_rows * e.across * vector
                points = space.points + part * e.strip * apart * vector
                for i in range(reads):
                    transformed_pixels(line_spec, to + i * reads * e.pixel_point, vector, e.pixel_point, points + i * e.line,
                                       apart * vector, vector, min(e.across - part * e.strip, e.strip))  # fmt: skip

    return transform_pixels


def gradients_transformer(kind: str, lanes: int, stride: int, fma: int) -> Any:
    """What transforms a vector of filters' gradients of ``tall`` rows of blocks, from the ``first`` on, and adds up their magnitudes."""
    size, m, spec = KINDS[kind][2], M, (kind, lanes, M, stride, fma)
    vector = lanes * size
    ready, place_row = _rows_finder(kind, lanes)

    @helper
    def transform_gradients(at: Any, e: Any, space: Any, filters: Any, v: Any, first: Any, tall: Any) -> None:
        total, lines, block = space.totals + v * vector, space.lines, e.width * size
        held = -1
        for k in range(tall):
            n, ty = (first + k) // e.rows, (first + k) % e.rows
            image = at.wei + n * e.gn + filters * e.gc
            if held != n:
                held = n
                ready(e, space, image, e.gc, e.gx, e.oh * e.ow)
            for a in range(m):
                if ty * m + a < e.oh:
                    place_row(e, space, a, image, ty * m + a, e.gy, e.gx, e.ow)
                else:
                    poke("i64", lines + 16 * a, space.zeros)
                    poke("i64", lines + 16 * a + 8, 0)
            for part in range(e.row_strips):
                strip, x0 = k * e.row_strips + part if e.row_strips > 1 else k // e.strip_rows, part * e.strip
                to = space.grads + v * lanes // e.width * e.grad_block + strip * e.grad_strip
                to += k % e.strip_rows * e.across * block + v * lanes % e.width * size
                many = min(e.across - x0, e.strip)
                full = min(e.ow // m - x0, many)
                for a in range(m * (part > 0)):
                    poke("i64", lines + 16 * a, peek("i64", lines + 16 * a) + e.strip * m * peek("i64", lines + 16 * a + 8))
                transformed_gradients(spec, to, block, e.grad_point, lines, full, total)
                if full < many:
                    for a in range(m):
                        place, step = peek("i64", lines + 16 * a), peek("i64", lines + 16 * a + 8)
                        for b in range(m):
                            x = full * m + b
                            pixel = place + x * step if x0 * m + x < e.ow else space.zeros
                            copy(kind, lanes, space.edge + (a * m + b) * vector, pixel, lanes)
                        poke("i64", lines + 16 * a, space.edge + a * m * vector)
                        poke("i64", lines + 16 * a + 8, vector)
                    transformed_gradients(spec, to + full * block, block, e.grad_point, lines, 1, total)

    return transform_gradients
