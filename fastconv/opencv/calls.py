"""filtering: a described filter run on an image: parsed calls remembered, the problem planned, ``dst`` filled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..planning.arguments import check_choices, exact
from ..planning.calls import Bounded, View, aside, delivered, destination
from ..planning.planner import MOST_PLANS, plan_problem
from ..planning.plans import Launch, Quick, SerialLaunch
from ..planning.problem import DTYPES, Problem, border_indices, dtype_name
from ..planning.structure import structured
from ..planning.thread_count import thread_count
from ..planning.workspaces import new_result
from .arguments import F64, I32, Image, image

_LARGEST = 2.0**60  # weight of which two make a product in float32
_REPAIRED = 1 << 16  # outputs that are repaired at a time
_MOST_HELD = 1 << 18  # bytes of packed weights of a remembered call: of all of them, 64 MiB
MOST_TAPS = 1024  # of a kernel whose values are part of a remembered call's key; larger ones are packed at each call


class Filter(NamedTuple):
    """A correlation of every channel with the same weights, and what becomes of the sums."""

    weights: np.ndarray  # (kh, kw), float64
    dtype: np.dtype[Any]  # of the result
    border: str
    anchor: tuple[int, int]  # x, y
    delta: float = 0.0
    structure: str = "full"
    rounding: str = "saturate"  # of integer results
    wide: bool = False  # float64 sums even where neither image nor result needs them
    drops: bool = False  # zero taps are no taps: NaN under them is not seen


@dataclass(slots=True)
class Call:
    """A parsed and planned call: what is left to do for arrays of the same shapes, strides and types, and the same taps."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fits: bool  # the ``dst`` it was made with
    source: View
    result: View
    packed: np.ndarray
    bias: np.ndarray | None
    launch: Launch
    repaired: tuple[Problem, np.ndarray, float] | None  # problem, weights, delta where zero taps may meet NaN or inf
    quick: Quick | None = None
    first: tuple[np.ndarray, int] | None = None  # packed weights of two dimensions where they have more, address of the bias

    def run(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """Write the result into ``dst``, which shares no memory with ``src``, and return it."""
        self.launch(self.source(src), self.packed, self.bias, self.result(dst))
        return self._repaired(src, dst)

    def _repaired(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        if self.repaired is not None:
            _repair(*self.repaired, self.source(src), self.result(dst), dst)
        return dst

    def again(self, src: np.ndarray, dst: np.ndarray | None) -> np.ndarray | None:
        """`run` for a call that has come before; None where the result must be computed aside."""
        given = dst is not None and self.fits
        if dst is None or not given:
            dst = new_result(self.shape, self.dtype, src)
        elif not dst.flags.writeable:
            return None
        if self.first is None and isinstance(self.launch, SerialLaunch) and src.ndim == dst.ndim:
            taps = self.packed[0, 0] if self.packed.ndim == 4 else self.packed
            self.quick, self.first = self.launch.quick(src.ndim, taps.ndim), (taps, 0 if self.bias is None else self.bias.ctypes.data)
        quick, first = self.quick, self.first
        if quick is not None and first is not None and quick(src, first[0], first[1], dst):
            return self._repaired(src, dst)
        return None if given and aside(dst, src) else self.run(src, dst)


_calls: Bounded[Call] = Bounded(MOST_PLANS)
_VIEWS: dict[int, View] = {  # dimensions of the caller's image -> (1, c, h, w)
    0: lambda x: x[None, None, None, None],
    1: lambda x: x[None, None, None],
    2: lambda x: x[None, None],
    3: lambda x: x.transpose(2, 0, 1)[None],
}


def _repair(p: Problem, weights: np.ndarray, delta: float, src: np.ndarray, dst: np.ndarray, flat: np.ndarray) -> None:
    """Outputs that are not finite, from the taps that are not zero; where one is finite, so is every pixel under its taps.

    ``src`` and ``dst`` are (1, c, h, w); ``flat`` is dst as the caller has it.
    """
    with np.errstate(all="ignore"):
        if flat.flags.c_contiguous and np.isfinite(np.dot(flat.reshape(-1), flat.reshape(-1))):  # one pass, no temporary array
            return
        wrong = np.nonzero(~np.isfinite(dst))
        rows = border_indices(-p.pt, p.ih_padded, 1, p.ih, p.border)
        cols = border_indices(-p.pl, p.iw_padded, 1, p.iw, p.border)
        for first in range(0, len(wrong[0]), _REPAIRED):
            n, c, y, x = (index[first : first + _REPAIRED] for index in wrong)
            sums = np.full(len(n), delta, DTYPES[p.acc])
            for ky, kx in np.argwhere(weights):
                row, col = rows[y + ky], cols[x + kx]
                pixels = src[n, c, row, col].astype(DTYPES[p.acc])
                pixels[(row < 0) | (col < 0)] = 0
                sums += weights[ky, kx] * pixels
            dst[n, c, y, x] = sums


def _held(kernels: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What distinguishes kernels, or None where that is too much to be part of a key."""
    held: tuple[Any, ...] = ()
    for kernel in kernels:
        if type(kernel) is not np.ndarray or kernel.size > MOST_TAPS:
            return None
        held += (kernel.shape, kernel.dtype, kernel.tobytes())
    return held


def filtered(
    describe: Callable[..., Filter], src: Any, dst: Any, kernels: tuple[Any, ...], arguments: tuple[Any, ...],
    precision: str, threads: int | None, device: str | None, algorithm: str | None,
) -> np.ndarray:  # fmt: skip
    """What ``describe(image, *kernels, *arguments)`` says, done to an image; ``dst`` where it fits, else a new array."""
    count = thread_count(threads)
    key: tuple[Any, ...] | None = None
    if type(src) is np.ndarray and (dst is None or type(dst) is np.ndarray):
        held = _held(kernels) if kernels else ()
        if held is not None:
            place = None if dst is None else (dst.shape, dst.strides, dst.dtype)
            kinds = tuple(map(type, arguments))
            if tuple in kinds:
                kinds = exact(*arguments)
            key = (describe, place, src.shape, src.strides, src.dtype, held, arguments, kinds, precision, count, device, algorithm)
            try:
                call = _calls.get(key)
            except TypeError:  # a list as ksize or anchor
                key = None
            else:
                if call is not None:
                    result = call.again(src, dst)
                    if result is not None:
                        return result
    return _general(key, describe, src, dst, kernels, arguments, precision, count, device, algorithm)


def _general(
    key: tuple[Any, ...] | None, describe: Callable[..., Filter], src: Any, dst: Any, kernels: tuple[Any, ...],
    arguments: tuple[Any, ...], precision: str, count: int, device: str | None, algorithm: str | None,
) -> np.ndarray:  # fmt: skip
    check_choices(precision, device)
    array, known = image(src)
    f = describe(known, *kernels, *arguments)
    shape = (known.h, known.w) if known.c == 1 else (known.h, known.w, known.c)
    out = dst if _fits(dst, shape, f.dtype) else None
    p, weights = _problem(known, f, precision)
    wei = np.broadcast_to(weights, (known.c, 1, p.kh, p.kw))
    plan = plan_problem(structured(p, wei, algorithm), threads=count, algorithm=algorithm)
    with np.errstate(over="ignore"):
        bias = np.full(known.c, f.delta, DTYPES[p.acc]) if f.delta else None
    into = destination(out, shape if out is None else out.shape, f.dtype, array)
    source, result = _VIEWS[array.ndim], _VIEWS[into.ndim]
    packed = plan.pack(wei)
    repaired = (p, weights, f.delta) if f.drops and known.dtype.kind == "f" and not weights.all() else None
    call = Call(shape, f.dtype, out is not None, source, result, packed, bias,
                plan.prepare(source(array), packed, result(into)), repaired)  # fmt: skip
    call.run(array, into)
    if key is not None and (out is None or into is out) and packed.nbytes <= _MOST_HELD:
        call.source = _VIEWS[src.ndim]  # of an image of fewer than two dimensions, which `image` made two
        _calls.keep(key, call)
    return delivered(into, out)


def _fits(dst: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether OpenCV would write into ``dst``; an array of another shape or type it leaves alone, and returns a new one."""
    if dst is None:
        return False
    if not isinstance(dst, np.ndarray):
        raise TypeError(f"dst must be None or a numpy.ndarray, got {type(dst).__name__}")
    if dst.dtype != dtype or dst.shape not in (shape, (*shape[:2], 1) if len(shape) == 2 else shape):
        return False
    if not dst.flags.writeable:
        raise ValueError("dst must be writeable, got a read-only array")
    if any(stride <= 0 for stride, extent in zip(dst.strides, dst.shape, strict=True) if extent > 1):
        raise ValueError(f"dst must have positive strides, got {dst.strides}")
    return True


def _problem(src: Image, f: Filter, precision: str) -> tuple[Problem, np.ndarray]:
    """The problem, and its weights in two dimensions."""
    wide = f.wide or src.dtype == F64 or f.dtype in (F64, I32)
    acc = "f64" if wide else "f32"
    structure = f.structure if precision != "strict" and _is_moderate(f.weights) else "full"
    # structure is found again in the weights: in float64 rank 1 is not blurred by a rounding of each product
    wei = "f64" if structure == "rank1" else acc
    with np.errstate(over="ignore", under="ignore"):
        weights = f.weights.astype(DTYPES[wei])
    kh, kw = weights.shape
    pl, pt = f.anchor
    pb, pr = kh - 1 - pt, kw - 1 - pl
    if f.drops:
        weights, (pt, pb, pl, pr) = _trimmed(weights, (pt, pb, pl, pr))
        kh, kw = weights.shape
    rounding = f.rounding if f.dtype.kind in "iu" else ""
    p = Problem(
        g=src.c, ic=src.c, oc=src.c, ih=src.h, iw=src.w, kh=kh, kw=kw, pt=pt, pb=pb, pl=pl, pr=pr, border=f.border,
        src=dtype_name(src.dtype), wei=wei, dst=dtype_name(f.dtype), acc=acc, src_layout="nchw" if src.c == 1 else "nhwc",
        epilogue="+".join(filter(None, ("bias" if f.delta else "", rounding))), precision=precision,
        structure=structure, shared=src.c > 1,
    )  # fmt: skip
    return p, weights


def _is_moderate(weights: np.ndarray) -> bool:
    """Whether every factor of these weights is a normal float32, so that what is known of them can be proven of the factors."""
    sizes = np.abs(weights[weights != 0])
    return sizes.size == 0 or bool(_LARGEST > sizes.max() and sizes.min() > 1 / _LARGEST)


def _trimmed(weights: np.ndarray, pads: tuple[int, int, int, int]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Weights without the rows and columns of zeros at their edges, as far as there is padding to take away with them."""
    pt, pb, pl, pr = pads
    while pt and not weights[0].any():
        weights, pt = weights[1:], pt - 1
    while pb and not weights[-1].any():
        weights, pb = weights[:-1], pb - 1
    while pl and not weights[:, 0].any():
        weights, pl = weights[:, 1:], pl - 1
    while pr and not weights[:, -1].any():
        weights, pr = weights[:, :-1], pr - 1
    return weights, (pt, pb, pl, pr)
