"""Target: what a kernel may know of a graphics card.  Read from the device, or named for compilation without one."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from . import driver
from .simd import SIMULATED


@dataclass(frozen=True, slots=True)
class Target:
    """A card as the tile tables see it.

    Attributes
    ----------
    cc : (int, int)
        Compute capability.
    units : int
        Streaming multiprocessors.
    shared : int
        Bytes of shared memory that one block may ask for.
    l2 : int
        Bytes of the cache that all share.
    bandwidth, fma : float
        Bytes per second of device memory, read and written, and float32 multiply-adds per second: nominal, for predicted costs only.
    name : str
    """

    cc: tuple[int, int]
    units: int
    shared: int
    l2: int
    bandwidth: float
    fma: float
    name: str = ""

    @property
    def backend(self) -> str:
        """Whose algorithms run on it."""
        return "cuda"

    @property
    def arch(self) -> str:
        """As the compiler spells it: ``sm_90``."""
        return f"sm_{self.cc[0]}{self.cc[1]}"

    def __str__(self) -> str:
        return f"{self.name or self.arch} (compute capability {self.cc[0]}.{self.cc[1]}, {self.units} multiprocessors, L2 {self.l2 >> 20}M)"


SM75 = Target((7, 5), 40, 64 << 10, 4 << 20, 3.2e11, 4.0e12, "T4")
SM80 = Target((8, 0), 108, 163 << 10, 40 << 20, 1.55e12, 9.7e12, "A100")
SM90 = Target((9, 0), 132, 227 << 10, 60 << 20, 4.8e12, 3.3e13, "H200")
SM100 = Target((10, 0), 148, 227 << 10, 126 << 20, 8.0e12, 3.7e13, "B200")
TARGETS = (SM75, SM80, SM90, SM100)
LANES = 32  # threads of a warp


@functools.cache
def _described(device: int) -> Target:
    if SIMULATED:
        return SM90
    found = driver.properties(device)
    per_unit = 64 if found.cc in ((7, 0), (7, 2), (7, 5), (8, 0)) else 128
    bandwidth = 2 * found.memory_clock * found.bus or SM90.bandwidth  # two words a clock
    return Target(found.cc, found.units, found.shared, found.l2, bandwidth, found.units * per_unit * (found.clock or 1.7e9), found.name)


def detect(device: int | None = None) -> Target:
    """The card of the current device, or of the numbered one.

    Raises
    ------
    DriverError
        No card, no driver, or one that does not fit the toolkit: with what was found.
    """
    return _described(driver.current(device))
