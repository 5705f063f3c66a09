"""``fastconv filter``: image files through a kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

import fastconv

from ..epilogue import saturate
from . import figures, images
from .images import Picture
from .kernels import KERNELS, Kernel, parse_kernel

BORDERS = ("zeros", "reflect", "symmetric", "replicate", "circular")
EXACT_IN_FLOAT32 = 2**24
KERNEL_HELP = (
    ", ".join(f"{name} ({meaning})" for name, (_, _, meaning) in KERNELS.items())
    + "; a .npy or .txt file; or rows of numbers such as '1 0 -1; 2 0 -2; 1 0 -1'."
)


@dataclass(frozen=True)
class Filter:
    """A kernel and where it is applied; called with a picture."""

    kernel: Kernel
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str | int = "same"
    border: str = "reflect"
    absolute: bool = False

    def __call__(self, picture: Picture) -> Picture:
        """The filtered picture, in the picture's own type: integers rounded half to even and saturated.

        Alpha is not filtered: each result takes it from the pixel at its kernel's centre.
        """
        dtype = picture.pixels.dtype.newbyteorder("=")
        with np.errstate(all="ignore"):  # taps, sums or results beyond a float's range are infinite
            values = self._convolve(picture.pixels, self.kernel.taps, _sum_type(picture.pixels, self.kernel))
            values /= self.kernel.divisor
            if self.absolute:
                np.abs(values, out=values)
            pixels = saturate(values, dtype) if dtype.kind in "iu" else values.astype(dtype, copy=False)
        if picture.alpha is None:
            return replace(picture, pixels=pixels)
        axes = zip(picture.alpha.shape, self.kernel.taps.shape, self.stride, self.dilation, pixels.shape[:2], strict=True)
        rows, columns = (self._centres(*extents) for extents in axes)
        return replace(picture, pixels=pixels, alpha=picture.alpha[np.ix_(rows, columns)])

    def _centres(self, n: int, k: int, stride: int, dilation: int, count: int) -> np.ndarray:
        """The pixel under the kernel's centre for each result along one axis; for those outside, the nearest."""
        span = (k - 1) * dilation + 1
        before = {"valid": 0, "same": max((count - 1) * stride + span - n, 0) // 2, "full": span - 1}
        first = (k - 1) // 2 * dilation - before.get(str(self.padding), self.padding if isinstance(self.padding, int) else 0)
        return np.clip(first + stride * np.arange(count), 0, n - 1)

    def _convolve(self, pixels: np.ndarray, taps: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Each channel of (h, w, c) by itself."""
        planes = fastconv.conv2d(
            np.moveaxis(pixels, -1, 0)[:, None],
            taps.astype(dtype)[None, None],
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            padding_mode=self.border,
            dtype=dtype,
        )
        return np.moveaxis(planes[:, 0], 0, -1)


def _sum_type(pixels: np.ndarray, kernel: Kernel) -> np.dtype[Any]:
    """float32 where it loses nothing, else float64: then each integer result is the exact one, rounded once."""
    if pixels.dtype.kind == "f":
        return np.dtype(np.float64 if pixels.dtype.itemsize > 4 else np.float32)
    largest = max(np.iinfo(pixels.dtype).max, -np.iinfo(pixels.dtype).min)
    exact = kernel.whole and largest * np.abs(kernel.taps).sum() <= EXACT_IN_FLOAT32
    return np.dtype(np.float32 if exact else np.float64)


def _pair(text: str) -> tuple[int, int]:
    numbers = text.replace("x", ",").split(",")
    if len(numbers) > 2 or not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise ValueError(f"{text!r} is not a positive whole number or two, rows and columns, such as 2 or 2,1")
    return int(numbers[0]), int(numbers[-1])


def _padding(text: str) -> str | int:
    if text in ("same", "valid", "full"):
        return text
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not same, valid, full or a number of pixels")
    return int(text)


def _parsed(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """An option's callback: the parser's ValueError becomes a usage error."""

    def callback(context: click.Context, parameter: click.Parameter, value: str) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return callback


def destinations(sources: tuple[Path, ...], out: str) -> list[Path]:
    """Where each file's result goes: into a directory under its name, by a pattern with ``{name}``, or to the one file.

    Examples
    --------
    >>> [str(path) for path in destinations((Path("in/a.png"), Path("in/b.tif")), "out/{name}-blur")]
    ['out/a-blur.png', 'out/b-blur.tif']
    """
    if "{name}" in out:
        paths = [Path(out.replace("{name}", source.stem)) for source in sources]
        if Path(out).suffix:
            return paths
        return [path.with_name(path.name + source.suffix) for path, source in zip(paths, sources, strict=True)]
    directory = out.endswith(("/", os.sep)) or Path(out).is_dir()
    if not directory and Path(out).suffix:
        if len(sources) > 1:
            raise click.BadParameter(
                f"{out!r} is one file for {len(sources)}: give a directory or a pattern such as 'out/{{name}}-blur.png'",
                param_hint="OUT",
            )
        return [Path(out)]
    return [Path(out) / source.name for source in sources]


@click.command("filter")
@click.argument("sources", nargs=-1, required=True, metavar="IN...", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, help="A file, a directory, or a pattern with {name}, the input's name.")
@click.option("-k", "--kernel", required=True, callback=_parsed(parse_kernel), help=KERNEL_HELP)
@click.option("--stride", callback=_parsed(_pair), metavar="N[,M]", default="1", show_default=True, help="Keep every N-th row and column.")
@click.option("--dilation", callback=_parsed(_pair), metavar="N[,M]", default="1", show_default=True, help="Distance between taps.")
@click.option(
    "--padding",
    callback=_parsed(_padding),
    metavar="same|valid|full|N",
    default="same",
    show_default=True,
    help="Pixels added around the image.",
)
@click.option(
    "--border",
    type=click.Choice(BORDERS),
    default="reflect",
    show_default=True,
    help="What they hold. reflect does not repeat the edge, as in OpenCV; symmetric does.",
)
@click.option("--absolute", is_flag=True, help="Keep the magnitude: else negative results of 8- and 16-bit images become 0.")
@click.option("--preview", type=click.Path(path_type=Path), help="Also write a PNG with the first image before and after.")
def filter_images(
    sources: tuple[Path, ...],
    out: str,
    kernel: Kernel,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: str | int,
    border: str,
    absolute: bool,
    preview: Path | None,
) -> None:
    """Filter image files.

    PNG, JPEG, TIFF, WebP, BMP, PPM and .npy; 8 or 16 bits or floats, grey or colour.

    The kernel is not flipped (correlation, as in OpenCV). Each channel is filtered by itself; alpha is carried through
    unfiltered, matched to the stride. The result has the input's type: integers are rounded, half to even, and
    saturated. Files that fail are named, the others are still done, and the exit status is 1.
    """
    apply = Filter(kernel, stride, dilation, padding, border, absolute)
    targets = destinations(sources, out)
    inputs = {source.resolve() for source in sources}
    if preview is not None and preview.resolve() in inputs.union(target.resolve() for target in targets):
        raise click.BadParameter(f"{preview} is an input or a result; the preview would replace it", param_hint="--preview")
    errors, done = Console(stderr=True, soft_wrap=True, highlight=False), set[Path]()
    with Progress(console=errors, transient=True, disable=len(sources) == 1) as progress:
        task = progress.add_task("filtering", total=len(sources))
        for source, target in zip(sources, targets, strict=True):
            try:
                if target.resolve() in inputs:
                    raise ValueError(f"its result would replace the input {target}")
                if target.resolve() in done:
                    raise ValueError(f"its result would replace that of another input, {target}")
                before = images.read(source)
                after = apply(before)
                images.write(target, after)
                if preview is not None and not done:
                    _preview(preview, source, before, after)
                done.add(target.resolve())
                if len(sources) == 1:
                    click.echo(f"{source} ({before}) -> {target} ({after})")
            except (OSError, ValueError, MemoryError) as error:
                errors.print(f"{source}: {_reason(error, source)}", markup=False, style="red")
            progress.advance(task)
    if len(sources) > 1:
        click.echo(f"{len(done)} of {len(sources)} images filtered")
    if len(done) < len(sources):
        raise SystemExit(1)


def _reason(error: Exception, source: Path) -> str:
    """What an exception says, without the source's own name."""
    if isinstance(error, OSError) and error.strerror:
        other = error.filename is not None and Path(error.filename) != source
        return f"{error.strerror}: {error.filename}" if other else error.strerror
    return str(error) or type(error).__name__


def _preview(path: Path, source: Path, before: Picture, after: Picture) -> None:
    def shown(picture: Picture) -> np.ndarray:
        colour = picture.pixels.shape[2] == 3
        return picture.pixels if colour else picture.pixels[:, :, 0]

    figures.panels(path, [(f"{source.name}\n{before}", shown(before)), (f"after\n{after}", shown(after))])
    click.echo(f"preview: {path}")
