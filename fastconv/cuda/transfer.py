"""transfer: NumPy arrays to a device and back, in pieces through pinned memory: while one travels, the next is copied beside it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from . import driver
from .arrays import DeviceArray
from .driver import Event, Memory

PIECE = 4 << 20  # bytes
_local = threading.local()


class _Lane:
    """Two pinned pieces of one thread, each with the event behind its last copy."""

    def __init__(self) -> None:
        self.pieces = [driver.pinned(PIECE) for _ in range(2)]
        self.events = [Event() for _ in range(2)]


def _lane() -> _Lane:
    lane: _Lane | None = getattr(_local, "lane", None)
    if lane is None:
        lane = _local.lane = _Lane()
    return lane


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def to_device(array: np.ndarray, device: int | None = None, stream: int = 0) -> DeviceArray:
    """A C-contiguous copy of an array on a device, queued on a stream; ``array`` may be changed on return."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    memory = Memory(native.nbytes, device, stream)
    result = DeviceArray(memory.address, array.shape, None, native.dtype, stream, memory.device, memory)
    data, lane = _bytes(native), _lane()
    for number, first in enumerate(range(0, data.size, PIECE)):
        part, piece, event = data[first : first + PIECE], lane.pieces[number % 2], lane.events[number % 2]
        event.wait()  # its copy before; at once where there was none
        piece[: part.size] = part
        driver.write(memory.address + first, piece.ctypes.data, part.size, stream)
        event.record(stream)
    for event in lane.events:
        event.wait()
    return result


def to_host(array: DeviceArray, out: Any = None) -> np.ndarray:
    """The contents of a C-contiguous device array, behind its stream's work: in ``out``, or a new array."""
    assert array.dense
    result = out if out is not None and out.flags.c_contiguous else np.empty(array.shape, array.dtype)
    data, lane = _bytes(result), _lane()
    firsts = list(range(0, data.size, PIECE))

    def start(number: int) -> None:
        size = min(PIECE, data.size - firsts[number])
        driver.read(lane.pieces[number % 2].ctypes.data, array.address + firsts[number], size, array.stream)
        lane.events[number % 2].record(array.stream)

    for number, first in enumerate(firsts):
        if number == 0:
            start(0)
        if number + 1 < len(firsts):
            start(number + 1)
        lane.events[number % 2].wait()
        size = min(PIECE, data.size - first)
        data[first : first + size] = lane.pieces[number % 2][:size]
    if out is not None and result is not out:
        np.copyto(out, result)
        result = out
    return result
