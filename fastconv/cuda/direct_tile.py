"""direct_tile: the steps of a thread of `direct`: its rows of pixels from memory, times rows of taps, into its sums."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import border
from .arithmetic import SIZES
from .driver import parts
from .finish import SUMS
from .simd import VECTOR
from .target import LANES

GROUP, LAST = 8, 11  # columns of taps that a row of pixels in registers serves, and the last of them
WARPS = 4  # of a block, one below the other


class Spec(NamedTuple):
    """What a kernel is compiled for."""

    src: str
    wei: str  # the type of taps in memory: that of the sums, or bytes
    acc: str
    dst: str
    rounding: str
    px: int
    rows: int
    h: int  # stride of columns, 1 or 2; 0: any strides, of pixels too
    full: int  # whether there are groups of GROUP columns before the last
    last: int  # columns of the last group
    fixed: int  # width and height of taps in registers, or 0
    dots: int  # whether four products are one instruction: pixels and taps are bytes
    phase: int  # bytes from a multiple of 16 to a thread's first pixel in every row, or -1: known when a row is loaded
    tail: str = ""  # see `finish.tail_of`


AT = ("src", "wei", "bias", "dst", "sn", "sc", "sy", "sx", "wo", "wc", "wy", "wx", "dn", "dc", "dy", "dx")
EXTENTS = (
    "tiles", "bands", "icg", "ocg", "oh", "ow", "kh", "kw", "sw", "dw", "pt", "pl", "phase_rows", "tile_rows", "row_step", "row_jump",
    "held", "phases", "padded", "pitch", "last", "biased", "activated", "dense",
    *(f"y_{name}" for name in border.FIELDS), *(f"x_{name}" for name in border.FIELDS),
)  # fmt: skip


class Thread(NamedTuple):
    """One thread's place in the problem, and its steps through a channel."""

    e: Any
    s: Spec
    at: Any
    v: Any
    x: Any
    ox: Any
    row0: Any  # of the padded image, under the first result and tap
    col0: Any  # of the image, likewise

    def stage(self, taps: Any, thread: Any) -> None:
        """Copy a channel's taps to shared memory, rows ``pitch`` taps apart."""
        e, s, at, x = self.e, self.s, self.at, self.x
        kind, threads = SUMS[s.acc], LANES * WARPS
        e.barrier()  # nobody reads the channel's before

        def copy(i: Any, nothing: list[Any]) -> list[Any]:
            place = i * threads + thread

            def one(nothing: list[Any]) -> list[Any]:
                ky, kx = place // x.kw, place % x.kw
                tap = e.load(s.wei, kind, taps + at.wy * ky + at.wx * kx, 1)
                e.shared_store(kind, e.shared() + (ky * x.pitch + kx) * SIZES[kind], tap)
                return nothing

            e.when(place < x.kh * x.kw, [], one)
            return nothing

        e.loop((x.kh * x.kw + (threads - 1)) // threads, [], copy)
        e.barrier()

    def add(self, plane: Any, taps: Any, sums: list[Any]) -> list[Any]:
        """A channel's products."""
        e, s, x = self.e, self.s, self.x
        if not s.h:
            return self.add_apart(plane, sums)
        vector = VECTOR // SIZES[s.src]
        before = vector - 1 if s.phase < 0 else s.phase // SIZES[s.src]
        # the vectors of the last group, and of the one before it, end inside the row
        beyond = max(self.loaded(s.last) - s.last, self.loaded(GROUP) - GROUP - s.last if s.full else 0)
        inside = (self.col0 >= before) & (self.col0 + x.kw + beyond <= x.x_inside)
        return e.when(inside, sums, lambda sums: self.add_groups(plane, taps, sums, True),
                      lambda sums: self.add_groups(plane, taps, sums, False))  # fmt: skip

    def add_groups(self, plane: Any, taps: Any, sums: list[Any], inside: bool) -> list[Any]:
        """A channel's products, group of columns after group."""
        e, s, x = self.e, self.s, self.x
        if s.fixed:
            return self.add_fixed(plane, taps, sums, inside)
        first: Any = 0
        if s.full:
            groups = (x.kw - s.last) // GROUP  # whole
            sums = e.loop(groups, sums, lambda g, sums: self.add_rows(plane, g * GROUP, GROUP, sums, inside))
            first = groups * GROUP
        return self.add_rows(plane, first, s.last, sums, inside)

    def line(self, plane: Any, row: Any) -> tuple[Any, Any]:
        """The address of a row of the padded image, and whether there is one: not in a constant border."""
        e, x = self.e, self.x
        y = e.least(row, x.padded - 1) - x.pt
        outside = (y < 0) | (y >= x.y_inside)
        (y,) = e.when(outside, [e.i32(y)], lambda _: [border.mapped(e, x, "y", y)])
        return plane + self.at.sy * e.most(y, 0), y >= 0

    def pixels(self, plane: Any, row: Any, columns: Any, count: int, inside: bool) -> list[Any]:
        """``count`` pixels of a row of the padded image: from column ``columns`` on, or from each of them."""
        e, s = self.e, self.s
        line, exists = self.line(plane, row)
        size, kind = SIZES[s.src], SUMS[s.acc]

        def whole(_: list[Any]) -> list[Any]:
            address, needed = line + e.i64(columns * size), parts(count * size, 4)
            if s.phase >= 0:
                words = e.words(address - s.phase, 4 * parts(s.phase + count * size, VECTOR))
                return e.elements(s.src, kind, words[s.phase // 4 :], count)
            offset = e.below(address, VECTOR)
            words = e.words(address - e.i64(offset), 4 * self.vectors(count))
            words = e.when(offset > 0, words[:needed], lambda _: e.aligned(words, offset, size)[:needed])
            return e.elements(s.src, kind, words, count)

        def singly(_: list[Any]) -> list[Any]:
            found = []
            for column in columns:
                (pixel,) = e.load(s.src, kind, line + self.at.sx * e.most(column, 0), 1)
                found.append(e.pick(column < 0, self.v.fill, pixel))
            return found

        return e.when(exists, [self.v.fill] * count, whole if inside else singly)

    def columns(self, first: Any, count: int, inside: bool) -> Any:
        """What `pixels` needs to know of ``count`` columns of taps from column ``first`` on."""
        if inside:
            return self.col0 + first
        return [border.mapped(self.e, self.x, "x", self.col0 + first + i) for i in range(count)]

    def reach(self, width: int) -> int:
        """Pixels of a row that ``width`` columns of taps need."""
        return (self.s.px - 1) * self.s.h + width

    def loaded(self, width: int) -> int:
        """Pixels from a thread's first to the end of the vectors that hold those of ``width`` columns of taps."""
        size = SIZES[self.s.src]
        if self.s.phase >= 0:
            return (VECTOR * parts(self.s.phase + self.reach(width) * size, VECTOR) - self.s.phase) // size
        return VECTOR * self.vectors(self.reach(width)) // size

    def vectors(self, count: int) -> int:
        """Vectors that hold ``count`` pixels wherever these begin."""
        size = SIZES[self.s.src]
        return parts(parts(count * size, 4) + (3 if size >= 4 else 4), 4)  # `aligned` gives so many words fewer

    def row_of_taps(self, ky: Any, first: Any, width: int) -> list[Any]:
        """``width`` taps of a row in shared memory, from a multiple of four on."""
        e, kind = self.e, SUMS[self.s.acc]
        place = e.shared() + (ky * self.x.pitch + first) * SIZES[kind]
        return e.shared_load(kind, place, -(-width // 4) * 4)[:width]

    def row_in_registers(self, taps: Any) -> list[Any]:
        """A row of the taps that stay in registers."""
        e, s = self.e, self.s
        return [e.load(s.wei, SUMS[s.acc], taps + self.at.wx * kx, 1)[0] for kx in range(s.fixed)]

    def add_row(self, pixels: list[Any], taps: list[Any], sums: list[Any]) -> list[Any]:
        """One row of taps over one row of pixels."""
        e, s = self.e, self.s
        sums = list(sums)
        for kx, tap in enumerate(taps):
            for i in range(s.px):
                sums[i] = e.fma(pixels[i * s.h + kx], tap, sums[i])
        return sums

    def add_rows(self, plane: Any, first: Any, width: int, sums: list[Any], inside: bool) -> list[Any]:
        """The products of ``width`` columns of taps from column ``first`` on: row of pixels after row."""
        e, s, x = self.e, self.s, self.x
        count = self.reach(width)
        columns = self.columns(first, count, inside)

        def step(m: Any, values: list[Any]) -> list[Any]:
            (row, part), sums = values[:2], values[2:]
            pixels = self.pixels(plane, row, columns, count, inside)
            for j in range(s.rows):
                ky = m - x.held * j

                def meet(part: list[Any], ky: Any = ky) -> list[Any]:
                    return self.add_row(pixels, self.row_of_taps(ky, first, width), part)

                mine = slice(j * s.px, (j + 1) * s.px)
                sums[mine] = e.when((ky >= 0) & (ky < x.kh), sums[mine], meet)
            return [*self.next_row(row, part), *sums]

        return e.loop(x.held * (s.rows - 1) + x.kh, [self.row0, e.i32(0), *sums], step)[2:]

    def next_row(self, row: Any, part: Any) -> tuple[Any, Any]:
        """The row of pixels that comes after ``row``, the ``part``-th of the ``held`` that one row of results adds."""
        e, x = self.e, self.x
        last = part + 1 >= x.held
        return row + e.pick(last, x.row_jump, x.row_step), e.pick(last, 0, part + 1)

    def add_fixed(self, plane: Any, taps: Any, sums: list[Any], inside: bool) -> list[Any]:
        """The products of a square of taps that stay in registers; strides are 1."""
        s, at = self.s, self.at
        k, count = s.fixed, self.reach(s.fixed)
        square = [self.row_in_registers(taps + at.wy * ky) for ky in range(k)]
        columns = self.columns(0, count, inside)
        sums = list(sums)
        for m in range(s.rows - 1 + k):
            pixels = self.pixels(plane, self.row0 + self.x.row_step * m, columns, count, inside)
            for j in range(s.rows):
                if 0 <= m - j < k:
                    sums[j * s.px : (j + 1) * s.px] = self.add_row(pixels, square[m - j], sums[j * s.px : (j + 1) * s.px])
        return sums

    def add_apart(self, plane: Any, sums: list[Any]) -> list[Any]:
        """A channel's products where columns of pixels are strided, dilated or apart: each is loaded for each tap; in the same order."""
        e, s, x = self.e, self.s, self.x
        kind = SUMS[s.acc]
        groups = (x.kw - x.last) // GROUP

        def group(g: Any, sums: list[Any]) -> list[Any]:
            first, width = g * GROUP, e.pick(g < groups, GROUP, x.last)

            def step(m: Any, values: list[Any]) -> list[Any]:
                (row, part), sums = values[:2], values[2:]

                def column(n: Any, sums: list[Any]) -> list[Any]:
                    kx, sums = first + n, list(sums)
                    columns = [border.mapped(e, x, "x", self.col0 + x.sw * i + kx * x.dw) for i in range(s.px)]
                    pixels = self.pixels(plane, row, columns, s.px, False)
                    for j in range(s.rows):
                        ky = m - x.held * j

                        def meet(part: list[Any], ky: Any = ky) -> list[Any]:
                            (tap,) = e.shared_load(kind, e.shared() + (ky * x.pitch + kx) * SIZES[kind], 1)
                            return [e.fma(pixel, tap, total) for pixel, total in zip(pixels, part, strict=True)]

                        mine = slice(j * s.px, (j + 1) * s.px)
                        sums[mine] = e.when((ky >= 0) & (ky < x.kh), sums[mine], meet)
                    return sums

                return [*self.next_row(row, part), *e.loop(width, sums, column)]

            return e.loop(x.held * (s.rows - 1) + x.kh, [self.row0, e.i32(0), *sums], step)[2:]

        return e.loop(groups + 1, sums, group)
