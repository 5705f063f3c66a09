"""byte_tile: the steps of a thread of `direct` where pixels and taps are bytes: four products and their sum are one instruction.

A row of pixels is kept as the words that begin at each of its bytes; a row of taps as words of four, the last filled up with zeros.
Sums are integers that wrap, so that nothing depends on the order of their products.
"""

from __future__ import annotations

from typing import Any

from .direct_tile import WARPS, Thread
from .driver import parts
from .simd import VECTOR
from .target import LANES

_WORD = 4


class ByteThread(Thread):
    """As `Thread`, for strides of 1 and dense pixels."""

    def reach(self, width: int) -> int:
        """Bytes of a row that words of ``width`` columns of taps meet."""
        return self.s.px - 1 + parts(width, _WORD) * _WORD

    def word(self, taps: Any, first: Any) -> Any:
        """Taps ``first .. first + 3`` of a row in memory as a word; zeros behind the last."""
        e, total = self.e, self.e.i32(0)
        for n in range(_WORD):

            def one(word: list[Any], n: int = n) -> list[Any]:
                (tap,) = e.load("u8", "i32", taps + self.at.wx * (first + n), 1)
                return [word[0] | tap << 8 * n]

            (total,) = e.when(first + n < self.x.kw, [total], one)
        return total

    def stage(self, taps: Any, thread: Any) -> None:
        """Copy a channel's taps to shared memory, rows ``pitch`` words apart."""
        e, x, threads = self.e, self.x, LANES * WARPS
        e.barrier()  # nobody reads the channel's before

        def copy(i: Any, nothing: list[Any]) -> list[Any]:
            place = i * threads + thread

            def one(nothing: list[Any]) -> list[Any]:
                ky, n = place // x.pitch, place % x.pitch
                e.shared_store("i32", e.shared() + place * _WORD, [self.word(taps + self.at.wy * ky, n * _WORD)])
                return nothing

            e.when(place < x.kh * x.pitch, [], one)
            return nothing

        e.loop((x.kh * x.pitch + (threads - 1)) // threads, [], copy)
        e.barrier()

    def row_of_taps(self, ky: Any, first: Any, width: int) -> list[Any]:
        """The words of ``width`` taps of a row in shared memory, from a multiple of four on."""
        place = self.e.shared() + ky * self.x.pitch * _WORD + first
        return [self.e.shared_load("i32", place + n * _WORD, 1)[0] for n in range(parts(width, _WORD))]

    def row_in_registers(self, taps: Any) -> list[Any]:
        """The words of a row of the taps that stay in registers."""
        return [self.word(taps, self.e.i32(n)) for n in range(0, self.s.fixed, _WORD)]

    def pixels(self, plane: Any, row: Any, columns: Any, count: int, inside: bool) -> list[Any]:
        """The words that begin at each of a row's bytes, but for the last three."""
        e = self.e
        line, exists = self.line(plane, row)
        needed = parts(count, _WORD)

        def whole(_: list[Any]) -> list[Any]:
            address = line + e.i64(columns)
            offset = e.below(address, VECTOR)
            words = e.words(address - e.i64(offset), 4 * self.vectors(count))
            return e.when(offset > 0, words[:needed], lambda _: e.aligned(words, offset, 1)[:needed])

        def singly(_: list[Any]) -> list[Any]:
            words = [e.i32(0)] * needed
            for n, column in enumerate(columns):
                (pixel,) = e.load("u8", "i32", line + self.at.sx * e.most(column, 0), 1)
                words[n // _WORD] = words[n // _WORD] | e.pick(column < 0, self.v.fill & 0xFF, pixel) << 8 * (n % _WORD)
            return words

        words = e.when(exists, [(self.v.fill & 0xFF) * 0x01010101] * needed, whole if inside else singly)
        return [e.permute(words[n // _WORD], words[min(n // _WORD + 1, needed - 1)], 0x3210 + 0x1111 * (n % _WORD)) if n % _WORD
                else words[n // _WORD] for n in range(count - _WORD + 1)]  # fmt: skip

    def add_row(self, pixels: list[Any], taps: list[Any], sums: list[Any]) -> list[Any]:
        """One row of taps over one row of pixels."""
        e, s = self.e, self.s
        sums, signs = list(sums), s.src[0] + s.wei[0]
        for n, tap in enumerate(taps):
            for i in range(s.px):
                sums[i] = e.dot(pixels[i + n * _WORD], tap, sums[i], signs.replace("i", "s"))
        return sums
