"""Target: what a kernel may know of the machine.  Detected from Numba's own target configuration, or named for tests."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """A processor as the tile tables see it.

    Attributes
    ----------
    name : str
    bits, registers : int
        Width of a vector register, and how many there are.
    fma : bool
        Fused multiply-add in hardware; without it the emitter multiplies and adds.
    l1, l2, l3 : int
        Cache bytes: per core, per core, shared.
    """

    name: str
    bits: int
    registers: int
    fma: bool
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 8 << 20

    def lanes(self, itemsize: int) -> int:
        """Elements of ``itemsize`` bytes in one vector."""
        return self.bits // (8 * itemsize)

    def __str__(self) -> str:
        fma = "fma" if self.fma else "no fma"
        return f"{self.name} ({self.registers} x {self.bits} bits, {fma}, L1 {self.l1 >> 10}K, L2 {self.l2 >> 10}K, L3 {self.l3 >> 10}K)"


AVX512 = Target("avx512", 512, 32, fma=True, l1=48 << 10)
AVX2 = Target("avx2", 256, 16, fma=True)
SSE2 = Target("sse2", 128, 16, fma=False)
NEON = Target("neon", 128, 32, fma=True)
TARGETS = (AVX512, AVX2, SSE2, NEON)


def classify(triple: str, features: str, caches: tuple[int, int, int] | None = None) -> Target:
    """The target of an LLVM triple and feature string.

    Examples
    --------
    >>> classify("x86_64-unknown-linux-gnu", "+avx2,+fma,-avx512f").name
    'avx2'
    """
    on = {name[1:] for name in features.split(",") if name.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        base = NEON
    elif {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= on:
        base = AVX512
    elif {"avx2", "fma"} <= on:
        base = AVX2
    else:
        base = SSE2
    l1, l2, l3 = caches or (base.l1, base.l2, base.l3)
    return Target(base.name, base.bits, base.registers, base.fma, l1, l2, l3)


@functools.cache
def detect() -> Target:
    """The target that Numba compiles for in this process."""
    from .compile import magic

    triple, _, features = magic()
    return classify(triple, features, _caches())


def _caches() -> tuple[int, int, int] | None:
    """L1d, L2, L3 bytes from Linux's sysfs; None where it says nothing."""
    sizes: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind = (index / "level").read_text().strip(), (index / "type").read_text().strip()
            text = (index / "size").read_text().strip()
        except OSError:
            return None
        if kind != "Instruction" and text.endswith("K"):
            sizes[level] = int(text[:-1]) << 10
    if "1" not in sizes or "2" not in sizes:
        return None
    return sizes["1"], sizes["2"], sizes.get("3", sizes["2"])
