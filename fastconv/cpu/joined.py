"""joined: launches of several kernels as one, whose units of work are those of all of them.

Threads are woken, and waited for, once; each has its share of every launch, and the last units even out what the first did not.  The four
phases of the gradient of 128 to 128 channels at 56x56, 3x3, stride 2, take 1630 us together, 2020 one after the other (two cores, Emerald
Rapids, 2026-11).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..planning import cost as costs
from ..planning.plans import Launch, QuickLaunch
from ..planning.problem import DTYPES, Problem
from .depthwise_image_tile import finite
from .memory import alternate, call_kernel, copy, fill_row, integers, peek, poke, put_integers, unrolled_by_hand
from .simd import KINDS
from .threads import JOB_WORDS, Job, Region

# The integers of one range of a launch's units: its kernel; bytes from the job's arrays to its own; of values and integers in the job's
# integers; the first unit and the end, counted over all ranges, and the unit of its own that the first is.
Entry = namedtuple("Entry", "function src wei dst values extents first end own")
_ENTRY_BYTES = 8 * len(Entry._fields)
JOB_BYTES = 8 * JOB_WORDS  # of the workspace of one thread, besides that of the members


class Member(NamedTuple):
    """A launch of one kernel, and the bytes from the first image, weight and result of the whole to its own."""

    launch: Launch
    src: int
    wei: int
    dst: int


def _factory() -> Any:
    """Units of all members, those of one range after those of the other.  Workspace: a member's job, its workspace."""

    def joined(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        own = at.workspace + index * at.scratch
        for n in range(peek("i64", at.extents)):
            e = integers(at.extents + 8 + n * _ENTRY_BYTES, Entry)
            first, end = max(u0, e.first), min(u1, e.end)
            if first < end:
                poke("i64", at.workspace + JOB_BYTES + index * at.scratch, 0)
                put_integers(own, Job(at.src + e.src, at.wei + e.wei, at.bias, at.extents + e.values, at.dst + e.dst,
                                      at.workspace + JOB_BYTES, at.extents + e.extents, at.scratch))  # fmt: skip
                call_kernel(e.function, (own, index, first - e.first + e.own, end - e.first + e.own))

    return joined


def joined(members: Sequence[Member], kind: str, threads: int, src: np.ndarray, wei: np.ndarray, dst: np.ndarray) -> Launch | None:
    """One launch of all members, none of which reads what another writes; None where one of them is not of a single kernel.

    A thread begins with its share of each member, in their order.
    """
    parts = [member.launch.part for member in members if isinstance(member.launch, QuickLaunch)]
    if len(parts) < len(members) or None in parts:
        return None
    ranges = [(number, part.units * slot // threads, part.units * (slot + 1) // threads)
              for slot in range(threads) for number, part in enumerate(parts)]  # fmt: skip
    ranges = [found for found in ranges if found[1] < found[2]]
    numbers: list[np.ndarray] = []
    offsets, entries, units, at = [], list[int](), 0, 8 + _ENTRY_BYTES * len(ranges)
    for part in parts:
        words = part.values.view(np.uint8)
        values = np.concatenate([words, np.zeros(-len(words) % 8, np.uint8)]).view(np.int64)
        numbers += [values, part.extents]
        offsets.append((at, at + values.nbytes))
        at += values.nbytes + part.extents.nbytes
    for number, first, end in ranges:
        _, src_at, wei_at, dst_at = members[number]
        entries += Entry(parts[number].function, src_at, wei_at, dst_at, *offsets[number], units, units + end - first, first)
        units += end - first
    extents = np.concatenate([np.array([len(ranges), *entries], np.int64), *numbers])
    scratch = JOB_BYTES + -(-max(part.scratch for part in parts) // 64) * 64
    seconds = sum(part.seconds for part in parts)
    values = np.zeros(8, DTYPES[kind])
    return Region("joined", _factory, (), kind).launcher(extents, values, scratch, units, threads, seconds, src, wei, dst)


Filled = namedtuple("Filled", "oh ow oc bias dn dy dx")


def _fill_factory(kind: str, lanes: int) -> Any:
    """Rows of pixels whose channels, side by side, are the addends or zeros."""

    def fill_pixels(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Filled)
        for u in range(u0, u1):
            line = at.dst + u // e.oh * e.dn + u % e.oh * e.dy
            for x in range(e.ow):
                if e.bias:
                    copy(kind, lanes, line + x * e.dx, at.bias, e.oc)
                else:
                    fill_row(kind, lanes, line + x * e.dx, e.oc, peek(kind, at.values))

    return fill_pixels


def filled(kind: str, lanes: int, bias: bool, threads: int, src: np.ndarray, wei: np.ndarray, dst: np.ndarray) -> Launch:
    """A launch that writes the addends, or zeros, to every pixel of results whose channels lie side by side."""
    n, oc, oh, ow = dst.shape
    dn, _, dy, dx = dst.strides
    extents = np.array(Filled(oh, ow, oc, int(bias), dn, dy, dx), np.int64)
    region, values = Region(f"fill_pixels_{kind}_{lanes}", _fill_factory, (kind, lanes), kind), np.zeros(8, DTYPES[kind])
    return region.launcher(extents, values, 0, n * oh, threads, dst.nbytes / costs.BYTES_PER_SECOND, src, wei, dst)


# Rows and columns of a phase, and of the result; bytes between the result's images, channels and rows.
Placed = namedtuple("Placed", "ic sh sw many_y many_x ih iw dn dc dy")


def _placing_factory(kind: str, lanes: int) -> Any:
    """Images ``[n][phase of rows][phase of columns][c][y][x]`` put into place; units of work are (image, channel, row of a phase).

    Columns of the result are side by side.  The addend of each unit becomes whether all that it read is finite.
    """
    size = KINDS[kind][2]

    def place(job: Any, index: Any, u0: Any, u1: Any) -> None:
        unrolled_by_hand()
        at = integers(job, Job)
        e = integers(at.extents, Placed)
        for u in range(u0, u1):
            rest, y = u // e.many_y, u % e.many_y
            n, c = rest // e.ic, rest % e.ic
            fits = 1
            for a in range(min(e.sh, e.ih - y * e.sh)):
                to = at.dst + n * e.dn + c * e.dc + (y * e.sh + a) * e.dy
                line = at.src + ((((n * e.sh + a) * e.sw * e.ic + c) * e.many_y + y) * e.many_x) * size
                apart = e.ic * e.many_y * e.many_x * size
                for b in range(e.sw):
                    fits &= finite(kind, lanes, line + b * apart, e.many_x // lanes)
                    for x in range(e.many_x // lanes * lanes, e.many_x):
                        fits &= finite(kind, 1, line + b * apart + x * size, 1)
                first = 0
                if e.sw == 2:
                    first = e.iw // 2
                    alternate(kind, lanes, to, line, line + apart, first)
                for x in range(first * e.sw, e.iw):
                    poke(kind, to + x * size, peek(kind, line + x % e.sw * apart + x // e.sw * size))
            poke(kind, at.bias + u * size, fits)

    return place


def placing(p: Problem, lanes: int, threads: int, many_y: int, many_x: int, sums: np.ndarray, results: np.ndarray) -> Launch:
    """Launch that puts the phases of an image's gradient, of so many rows and columns each, into place.

    Its addends, ``n * ic * many_y``, become whether all that a unit of work read is finite.
    """
    extents = np.array(Placed(p.ic, p.sh, p.sw, many_y, many_x, p.ih, p.iw, *results.strides[:3]), np.int64)
    region, values = Region(f"place_phases_{p.acc}_{lanes}", _placing_factory, (p.acc, lanes), p.acc), np.zeros(8, DTYPES[p.acc])
    seconds, units = 2 * sums.nbytes / costs.BYTES_PER_SECOND, len(results) * p.ic * many_y
    return region.launcher(extents, values, 0, units, threads, seconds, sums, sums, results)
