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
from ..planning.problem import DTYPES
from .memory import call_kernel, copy, fill_row, integers, peek, poke, put_integers, unrolled_by_hand
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
