"""Pictures of images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

INCHES = (3.6, 6.0)  # the largest panel fits into this height and width
SLOT_INCHES = 2.0  # room for the title of a narrow panel
DPI = 110
TITLE_INCHES = 0.65
GAP_INCHES = 0.25


def panels(path: Path, pictures: Sequence[tuple[str, np.ndarray]], caption: str = "") -> None:
    """Write a PNG with the pictures in a row, all at the same scale: a pixel is as large in each, and square.

    Parameters
    ----------
    path : Path
    pictures : sequence of (title, array)
        ``(h, w)`` is shown in grey, ``(h, w, 3 or 4)`` in colour.  Integers are shown as they are, from 0 to the type's
        largest; floats from their least to their largest value.
    caption : str
        A line below.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    extents = np.array([array.shape[:2] for _, array in pictures])
    scale = min(np.array(INCHES) / extents.max(axis=0))
    slots = [max(columns * scale, SLOT_INCHES) for _, columns in extents]
    width = sum(slots) + GAP_INCHES * (len(pictures) + 1)
    bottom = 0.4 if caption else GAP_INCHES
    top = bottom + extents[:, 0].max() * scale
    height = top + TITLE_INCHES
    figure = Figure(figsize=(width, height), dpi=DPI)
    left = GAP_INCHES
    for (title, array), (rows, columns), slot in zip(pictures, extents * scale, slots, strict=True):
        box = (left + (slot - columns) / 2) / width, (top - rows) / height, columns / width, rows / height
        axes = figure.add_axes(box)
        axes.imshow(_shown(array), cmap="gray", vmin=0, vmax=1, interpolation="antialiased", aspect="equal")
        axes.set_axis_off()
        figure.text((left + slot / 2) / width, (top + 0.08) / height, title, ha="center", va="bottom", fontsize=9)
        left += slot + GAP_INCHES
    if caption:
        figure.text(0.5, 0.1 / height, caption, ha="center", va="bottom", fontsize=8, color="0.35")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    grey = all(array.ndim == 2 for _, array in pictures)
    Image.open(drawn).convert("L" if grey else "RGB").save(path, format="png", optimize=True)


def _shown(array: np.ndarray) -> np.ndarray:
    """Values in [0, 1]; what is not finite is shown as 0."""
    values = array.astype(np.float64)
    if array.dtype.kind == "u":
        return values / np.iinfo(array.dtype).max
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = values[finite].min(), values[finite].max()
    return np.where(finite, (np.where(finite, values, 0) - low) / ((high - low) or 1), 0)
