"""Kernels by name, by file or written out: what ``--kernel`` accepts.

Taps are kept apart from a divisor, so that whole-numbered kernels, such as the mean, are summed without rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MOST_TAPS = 2**24


@dataclass(frozen=True)
class Kernel:
    """``taps / divisor``, applied without flipping."""

    taps: np.ndarray
    divisor: float = 1.0

    def __post_init__(self) -> None:
        if self.taps.ndim != 2 or not self.taps.size or not np.isfinite(self.taps).all():
            raise ValueError(f"a kernel is a table of finite numbers, at least 1x1; got shape {self.taps.shape}")

    @property
    def whole(self) -> bool:
        """Whether all taps are whole numbers."""
        return bool((self.taps == np.rint(self.taps)).all())


def _box(size: float) -> Kernel:
    if size != int(size) or size < 1 or size * size > MOST_TAPS:
        raise ValueError(f"box:SIZE needs a whole size from 1 to {int(MOST_TAPS**0.5)}, got {size:g}")
    return Kernel(np.ones((int(size), int(size))), size * size)


def _gaussian(sigma: float) -> Kernel:
    """Cut off at four sigma, as scipy.ndimage does."""
    radius = int(4 * sigma + 0.5)
    if not 0 < sigma or (2 * radius + 1) ** 2 > MOST_TAPS:
        raise ValueError(f"gaussian:SIGMA needs a positive sigma up to {MOST_TAPS**0.5 / 8:g}, got {sigma:g}")
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    line /= line.sum()
    return Kernel(np.outer(line, line))


def _fixed(*rows: tuple[int, ...]) -> Kernel:
    return Kernel(np.array(rows, np.float64))


# name -> (kernel or its maker, the parameter's default, what it does)
KERNELS: dict[str, tuple[Kernel | Callable[[float], Kernel], float | None, str]] = {
    "box": (_box, 3, "mean of 3x3 pixels; box:N of N x N"),
    "gaussian": (_gaussian, 1, "blur of 1 pixel; gaussian:S of S pixels"),
    "sobel-x": (_fixed((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), None, "upright edges"),
    "sobel-y": (_fixed((-1, -2, -1), (0, 0, 0), (1, 2, 1)), None, "level edges"),
    "sharpen": (_fixed((0, -1, 0), (-1, 5, -1), (0, -1, 0)), None, "sharper"),
    "emboss": (_fixed((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), None, "relief"),
    "laplacian": (_fixed((0, 1, 0), (1, -4, 1), (0, 1, 0)), None, "second differences"),
}
FILES = (".npy", ".txt")


def parse_kernel(text: str) -> Kernel:
    """The kernel that ``--kernel`` names.

    Parameters
    ----------
    text : str
        A name in ``KERNELS``, with ``:parameter`` if it takes one; a ``.npy`` or ``.txt`` file; or numbers, rows
        separated by semicolons.

    Raises
    ------
    ValueError
        Saying what is allowed.

    Examples
    --------
    >>> parse_kernel("1 0 -1; 2 0 -2; 1 0 -1").taps
    array([[ 1.,  0., -1.],
           [ 2.,  0., -2.],
           [ 1.,  0., -1.]])
    >>> parse_kernel("box:2")
    Kernel(taps=array([[1., 1.],
           [1., 1.]]), divisor=4.0)
    """
    name, colon, parameter = text.strip().partition(":")
    if name in KERNELS:
        return _named(name, parameter if colon else None)
    if Path(text).suffix.lower() in FILES:
        return _from_file(Path(text))
    try:
        rows = [[float(number) for number in row.replace(",", " ").split()] for row in text.strip(" ;").split(";")]
        return Kernel(np.array(rows))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no kernel ({error}): give {', '.join(KERNELS)}, a .npy or .txt file, or rows of numbers such "
            "as '1 0 -1; 2 0 -2; 1 0 -1'"
        ) from None


def _named(name: str, parameter: str | None) -> Kernel:
    kernel, default, _ = KERNELS[name]
    if isinstance(kernel, Kernel) or default is None:
        if parameter is not None:
            raise ValueError(f"{name} takes no parameter, got {name}:{parameter}")
        assert isinstance(kernel, Kernel)
        return kernel
    try:
        value = default if parameter is None else float(parameter)
    except ValueError:
        raise ValueError(f"{name}:NUMBER needs a number, got {name}:{parameter}") from None
    if not np.isfinite(value):
        raise ValueError(f"{name}:NUMBER needs a finite number, got {name}:{parameter}")
    return kernel(value)


def _from_file(path: Path) -> Kernel:
    try:
        taps = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _text_table(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"kernel file {path}: {error}") from error
    if not isinstance(taps, np.ndarray) or taps.dtype.kind not in "biuf":
        raise ValueError(f"kernel file {path} must hold one table of real numbers")
    try:
        return Kernel(taps.astype(np.float64))
    except ValueError as error:
        raise ValueError(f"kernel file {path}: {error}") from None


def _text_table(path: Path) -> np.ndarray:
    """Rows of numbers separated by blanks or commas; ``#`` starts a comment."""
    lines = [line.partition("#")[0].replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
    return np.array([[float(number) for number in line] for line in lines if line], ndmin=2)
