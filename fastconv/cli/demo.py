"""``fastconv demo``: a lesson on the convolution layer, on a photograph that comes with the package.

The photograph, ``camera.png`` beside this file, is scikit-image's `camera` (skimage/data/camera.png), CC0 by its
photographer, Lav Varshney.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from rich.console import Console

from . import figures, images

PHOTO = Path(__file__).parent / "camera.png"
RUNS = 9
SEED = 0


@click.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("demo.png"),
    show_default=True,
    help="Where the picture goes.",
)
def demo(out: Path) -> None:
    """The lesson: a photograph through a convolution layer, step by step, with a picture and SciPy's time beside ours."""
    from fastconv.layers import Conv2D, set_random_seed

    console = Console(highlight=False, soft_wrap=True)
    say = console.print
    set_random_seed(SEED)
    photo = images.read(PHOTO).pixels[:, :, 0]
    x = photo.astype(np.float32).reshape(1, 512, 512, 1)
    say("[bold]1. A photograph as a tensor[/bold]: batch, rows, columns, channels")
    say(f"   x.shape = {x.shape}, {x.dtype}, values {photo.min()} to {photo.max()}  (camera, CC0, by Lav Varshney)\n")

    layer = Conv2D(filters=1, kernel_size=(3, 3), strides=(2, 1))
    random = layer(x)
    kernel, bias = layer.get_weights()
    say("[bold]2. One 3x3 filter with random weights, every second row[/bold]")
    say("   layer = Conv2D(filters=1, kernel_size=(3, 3), strides=(2, 1))")
    say(f"   layer(x).shape = {random.shape}: (512 - 3) // 2 + 1 = 255 rows, (512 - 3) // 1 + 1 = 510 columns")
    say(f"   kernel {kernel.shape} and bias {bias.shape}: {layer.count_params()} weights")
    say(_indented(str(kernel[:, :, 0, 0])), markup=False)

    layer.set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
    ones = layer(x)
    say("[bold]3. A filter of ones[/bold]: each result is the sum of 9 pixels, a blur 9 times as bright")
    say("   layer.set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])", markup=False)
    say(f"   layer(x).shape = {ones.shape}, values {ones.min():g} to {ones.max():g}\n")

    same = Conv2D(filters=1, kernel_size=(3, 3), padding="same", kernel_initializer="ones")
    whole = same(x)
    say('[bold]4. padding="same", stride 1[/bold]: a border of zeros keeps the size')
    say('   layer = Conv2D(filters=1, kernel_size=(3, 3), padding="same", kernel_initializer="ones")')
    say(f"   layer(x).shape = {whole.shape}\n")

    say("[bold]5. The same answers as SciPy, and the time[/bold]")
    random_same = Conv2D(filters=1, kernel_size=(3, 3), padding="same", kernel_initializer=kernel)
    _check(say, "random weights, strides (2, 1)", x[0, :, :, 0], kernel[:, :, 0, 0], random[0, :, :, 0], "valid", 2)
    _check(say, "ones, same padding", x[0, :, :, 0], np.ones((3, 3), np.float32), whole[0, :, :, 0], "same", 1)
    _race(say, lambda: random_same(x), x[0, :, :, 0], kernel[:, :, 0, 0])

    figures.panels(
        out,
        [
            (f"photograph\n{x.shape}", photo),
            (f"random 3x3 weights, strides (2, 1)\n{random.shape}", random[0, :, :, 0]),
            (f"ones, strides (2, 1)\n{ones.shape}", ones[0, :, :, 0]),
            (f'ones, padding="same"\n{whole.shape}', whole[0, :, :, 0]),
        ],
        caption="fastconv demo.  All panels at the same scale; each result from its darkest to its brightest value.",
    )
    say(f"\nPicture: {out.resolve()}")


def _indented(text: str) -> str:
    return "".join(f"   {line}\n" for line in text.rstrip("\n").split("\n"))


def _check(
    say: Callable[..., Any],
    what: str,
    x: np.ndarray,
    kernel: np.ndarray,
    result: np.ndarray,
    mode: Literal["valid", "same"],
    stride: int,
) -> None:
    """Compare with SciPy's float64 sums, each result against its own bound: 2 (T+4) u sum|w x|, u = eps/2."""
    from scipy import signal

    image, weights = x.astype(np.float64), kernel.astype(np.float64)
    exact = signal.correlate2d(image, weights, mode)[::stride]
    magnitude = signal.correlate2d(np.abs(image), np.abs(weights), mode)[::stride]
    bound = 2 * (kernel.size + 4) * np.finfo(result.dtype).eps / 2 * magnitude
    difference = np.abs(result - exact)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    agree = bool((difference <= bound).all())
    say(
        f"   {what}: largest difference {difference[worst]:.3g}, allowed there {bound[worst]:.3g}: "
        + ("[green]equal within rounding[/green]" if agree else "[red]DIFFERENT[/red]")
    )
    if not agree:
        raise click.ClickException(f"{what}: the results differ from SciPy's by more than rounding explains")


def _race(say: Callable[..., Any], ours: Callable[[], Any], x: np.ndarray, kernel: np.ndarray) -> None:
    """Median times of both, warm, taken in turn."""
    from scipy import signal

    contenders: dict[str, Callable[[], Any]] = {"fastconv": ours, "SciPy": lambda: signal.correlate2d(x, kernel, "same")}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(RUNS):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    say(f"   512x512 float32, 3x3, same size; median of {RUNS} runs, warm:")
    say(f"   fastconv {median['fastconv'] * 1e3:.3f} ms, scipy.signal.correlate2d {median['SciPy'] * 1e3:.3f} ms: ", end="")
    say(f"{median['SciPy'] / median['fastconv']:.1f} times as fast")
