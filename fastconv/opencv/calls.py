"""calls: a described filter run on an image: the call looked up, or the problem planned, and ``dst`` filled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..planning.arguments import check_choices
from ..planning.calls import MOST_HELD, Calls, View, arguments_of, destination, values_of
from ..planning.card import card_pass
from ..planning.devices import Session, backend, on_card, session
from ..planning.passes import Pass, ZeroTaps, bound
from ..planning.planner import MOST_PLANS, plan_problem
from ..planning.problem import DTYPES, Problem, dtype_name
from ..planning.structure import looked_at, structured
from ..planning.thread_count import thread_count
from .arguments import F64, I32, Image, described, image

_LARGEST = 2.0**60  # weight of which two make a product in float32


class Filter(NamedTuple):
    """A correlation of every channel with the same weights, and what becomes of the sums."""

    weights: Any  # (kh, kw), float64; or an array of a card, at which nobody looks
    dtype: np.dtype[Any]  # of the result
    border: str
    anchor: tuple[int, int]  # x, y
    delta: float = 0.0
    structure: str = "full"
    rounding: str = "saturate"  # of integer results
    wide: bool = False  # float64 sums even where neither image nor result needs them
    drops: bool = False  # zero taps are no taps: NaN under them is not seen


_calls: Calls[Pass] = Calls(MOST_PLANS)
_card_calls: Calls[Any] = Calls(MOST_PLANS)
_VIEWS: dict[int, View] = {  # dimensions of the caller's image -> (1, c, h, w)
    0: lambda x: x[None, None, None, None],
    1: lambda x: x[None, None, None],
    2: lambda x: x[None, None],
    3: lambda x: x.transpose(2, 0, 1)[None],
}


def filtered(
    describe: Callable[..., Filter], src: Any, dst: Any, kernels: tuple[Any, ...], arguments: tuple[Any, ...],
    precision: str, threads: int | None, device: str | None, algorithm: str | None,
) -> np.ndarray:  # fmt: skip
    """What ``describe(image, *kernels, *arguments)`` says, done to an image; ``dst`` where it fits, else a new array."""
    count = thread_count(threads)
    key: tuple[Any, ...] | None = None
    if type(src) is np.ndarray and (dst is None or type(dst) is np.ndarray):
        values = values_of(kernels) if kernels else ()
        if values is not None:
            place = None if dst is None else (dst.shape, dst.strides, dst.dtype)
            key = (describe, place, src.shape, src.strides, src.dtype, values, arguments_of(arguments), precision, count, device, algorithm)
            call = _calls.find(key)
            if call is not None:
                result = call.result((src,)) if dst is None else call.into((src,), dst)
                if result is not None:
                    return result
    here = session(device, "src", src, dst=dst, **dict(zip(("kernel", "another kernel"), kernels, strict=False)))
    check_choices(precision)
    if here is not None:
        return _on_card(here, describe, dst, kernels, arguments, precision, algorithm)
    array, known = image(src)
    f = describe(known, *kernels, *arguments)
    shape = (known.h, known.w) if known.c == 1 else (known.h, known.w, known.c)
    if dst is not None and not _fits(dst, shape, f.dtype):
        key = dst = None
    into = destination(dst, shape if dst is None else dst.shape, f.dtype, array)
    return _calls.first(key, _pass(array, known, f, into, precision, count, algorithm), (array,), dst, into)


def _on_card(
    here: Session, describe: Callable[..., Filter], dst: Any, kernels: tuple[Any, ...], arguments: tuple[Any, ...], precision: str,
    algorithm: str | None,
) -> Any:  # fmt: skip
    """`filtered` for an array of a card, or of the host that is copied there and the result back."""
    src = here.input
    known = described(src)
    kernels = tuple(here.take("kernel", value) if on_card(value) else value for value in kernels)
    f = describe(known, *kernels, *arguments)
    shape = (known.h, known.w) if known.c == 1 else (known.h, known.w, known.c)
    if dst is not None:
        into = dst if here.hosted else here.take("dst", dst)
        if here.hosted and not _fits(dst, shape, f.dtype):
            dst = None
        elif into.dtype != f.dtype or into.shape not in (shape, (*shape[:2], 1) if len(shape) == 2 else shape):
            dst = None  # OpenCV leaves it alone, too
        else:
            shape = into.shape
    result, to = here.destination(dst, shape, f.dtype, "dst")
    values = values_of(kernels)
    key: Any = None
    if values is not None:
        key = (describe, here.target, src.device, src.shape, src.strides, src.dtype, to.ndim, to.strides, values, arguments_of(arguments),
               precision, algorithm)  # fmt: skip
    call = _card_calls.find(key)
    if call is None:
        p, weights, bias, zero_taps = _planned(known, f, precision)
        if isinstance(weights, np.ndarray):
            wei: Any = np.broadcast_to(weights, (known.c, 1, p.kh, p.kw))
            p = looked_at(p, wei, here.target, algorithm)
        else:
            weights = backend("copy").converted(weights, DTYPES[p.wei])
            zero_taps = None if zero_taps is None else zero_taps._replace(weights=weights)
            wei = weights.strided((known.c, 1, p.kh, p.kw), (0, 0, *weights.strides))
        plan = plan_problem(p, here.target, algorithm=algorithm)
        call = card_pass(plan, wei, _VIEWS[src.ndim], _VIEWS[to.ndim], f.dtype, src.device, bias=bias, zero_taps=zero_taps)
        if key is not None and call.held <= MOST_HELD:
            with contextlib.suppress(TypeError):  # a list among the arguments
                _card_calls.keep(key, call)
    if backend("arrays").overlap(to, src):
        aside = here.memory(to.shape, to.dtype)
        call.run(here, src, aside)
        backend("copy").copied(aside, to)
    else:
        call.run(here, src, to)
    return here.deliver(result, to)


def _planned(known: Image, f: Filter, precision: str) -> tuple[Problem, Any, np.ndarray | None, ZeroTaps | None]:
    """The problem of a filter, its weights in two dimensions, its addends, and what its zero taps must not see."""
    p, weights = _problem(known, f, precision)
    with np.errstate(over="ignore"):
        bias = np.full(known.c, f.delta, DTYPES[p.acc]) if f.delta else None
    is_seen = f.drops and known.dtype.kind == "f" and not (isinstance(weights, np.ndarray) and weights.all())
    return p, weights, bias, ZeroTaps(p, weights, addend=f.delta) if is_seen else None


def _pass(
    src: np.ndarray, known: Image, f: Filter, dst: np.ndarray, precision: str, threads: int, algorithm: str | None
) -> Pass:  # fmt: skip
    p, weights, bias, zero_taps = _planned(known, f, precision)
    wei = np.broadcast_to(weights, (known.c, 1, p.kh, p.kw))
    plan = plan_problem(structured(p, wei, algorithm), threads=threads, algorithm=algorithm)
    return bound(plan, plan.pack(wei), src, dst, _VIEWS[src.ndim], _VIEWS[dst.ndim], bias=bias, zero_taps=zero_taps)


def _fits(dst: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether OpenCV would write into ``dst``; an array of another shape or type it leaves alone, and returns a new one."""
    if not isinstance(dst, np.ndarray):
        raise TypeError(f"dst must be None or a numpy.ndarray, got {type(dst).__name__}")
    if dst.dtype != dtype or dst.shape not in (shape, (*shape[:2], 1) if len(shape) == 2 else shape):
        return False
    if not dst.flags.writeable:
        raise ValueError("dst must be writeable, got a read-only array")
    if any(stride <= 0 for stride, extent in zip(dst.strides, dst.shape, strict=True) if extent > 1):
        raise ValueError(f"dst must have positive strides, got {dst.strides}")
    return True


def _problem(src: Image, f: Filter, precision: str) -> tuple[Problem, Any]:
    """The problem, and its weights in two dimensions."""
    wide = f.wide or src.dtype == F64 or f.dtype in (F64, I32)
    acc = "f64" if wide else "f32"
    seen = isinstance(f.weights, np.ndarray)
    structure = f.structure if precision != "strict" and seen and _is_moderate(f.weights) else "full"
    # structure is found again in the weights: in float64 rank 1 is not blurred by a rounding of each product
    wei = "f64" if structure == "rank1" else acc
    with np.errstate(over="ignore", under="ignore"):
        weights = f.weights.astype(DTYPES[wei]) if seen else f.weights
    kh, kw = weights.shape
    pl, pt = f.anchor
    pb, pr = kh - 1 - pt, kw - 1 - pl
    if f.drops and seen:
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
