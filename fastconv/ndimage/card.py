"""card: the passes of a filter on arrays of a CUDA device: SciPy's conversions between them by kernels, queued on the array's stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..planning.calls import View
from ..planning.card import CardPass, card_pass
from ..planning.devices import Session, backend
from ..planning.passes import ZeroTaps
from ..planning.planes import planes
from ..planning.plans import Plan
from ..planning.problem import ORDERS, Problem, dtype_name
from .passes import Stencil, as_bytes


@dataclass(slots=True)
class _Converted:
    """A step, and what becomes of its result, element by element."""

    inner: CardPass
    finish: str
    size: int
    dtype: np.dtype[Any]

    @property
    def held(self) -> int:
        return self.inner.held

    def run(self, here: Session, src: Any, dst: Any) -> None:
        between = here.memory(dst.shape, self.inner.dtype)
        self.inner.run(here, src, between)
        backend("pointwise").applied(self.finish, dtype_name(between.dtype), dst, between, values=(self.size, 0, 0))


@dataclass(slots=True)
class _Copied:
    """A step without taps."""

    dtype: np.dtype[Any]
    held = 0

    def run(self, here: Session, src: Any, dst: Any) -> None:
        backend("pointwise").applied("convert", dtype_name(src.dtype), dst, src)


@dataclass(slots=True)
class _Weighed:
    """A filter whose weights nobody has looked at."""

    problem: Problem
    view: View
    stencil: Stencil
    dtype: np.dtype[Any]
    held = 0

    def run(self, here: Session, src: Any, dst: Any) -> None:
        p, f = self.problem, self.stencil
        taps = f.taps.reshape((p.kh, p.kw))
        backend("weighed").weighed(p, f.rule, self.view(src), taps, self.view(dst), f.fill)


@dataclass(slots=True)
class _Running:
    """SciPy's running sums along one axis, with its roundings."""

    view: View
    upright: bool
    stencil: Stencil
    dtype: np.dtype[Any]
    held = 0

    def run(self, here: Session, src: Any, dst: Any) -> None:
        f = self.stencil
        image, result = self.view(src), self.view(dst)
        if self.upright:
            image, result = image.transpose(0, 1, 3, 2), result.transpose(0, 1, 3, 2)
        backend("running").means(image, result, f.taps.size, f.before[0], f.border, f.fill)


@dataclass(slots=True)
class CardBranches:
    """Branches of passes into arrays of one shape and type; see `passes.Branches`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    branches: tuple[tuple[Any, ...], ...]
    combine: str
    copied: bool
    aside: bool

    @property
    def held(self) -> int:
        """Bytes of weights that it holds."""
        return sum(step.held for branch in self.branches for step in branch)

    def run(self, here: Session, src: Any, dst: Any) -> None:
        """Queue it; ``dst`` may share memory with ``src``."""
        if self.copied:
            src = backend("copy").converted(src, src.dtype)
        to = here.memory(self.shape, self.dtype) if self.aside or backend("arrays").overlap(dst, src) else dst
        src, bools, total = as_bytes(src), self.dtype.kind == "b", as_bytes(to)
        kind, apply = dtype_name(total.dtype), backend("pointwise").applied
        norm = self.combine == "norm"
        for i, branch in enumerate(self.branches):
            result = here.memory(self.shape, total.dtype) if i else total
            between = src
            for step in branch[:-1]:
                after = here.memory(self.shape, step.dtype)
                step.run(here, between, after)
                between = after
            branch[-1].run(here, between, result)
            if bools and (norm or i):  # whose products and sums are and, and or
                apply("either", kind, total, total, result)
            elif norm:
                apply("square", kind, total, result, total if i else None)
            elif i:
                apply("add", kind, total, total, result)
        if norm and not bools:
            apply("root", kind if kind[0] == "f" else "f64", total, total)
        if to is not dst:
            backend("copy").copied(total, as_bytes(dst))


class Card:
    """What passes are made of on a card; as `passes.Host`.

    Parameters
    ----------
    target : fastconv.cuda.target.Target
    device : int
    """

    orders = ORDERS

    def __init__(self, target: Any, device: int) -> None:
        self.target = target
        self.device = device

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """What has a shape, strides and a type, and no memory."""
        return backend("arrays").DeviceArray(0, shape, None, dtype)

    def launched(self, plan: Plan, weights: np.ndarray, src: Any, dst: Any, view: View, fill: float, zero_taps: ZeroTaps | None) -> Any:
        """A step that convolves."""
        return card_pass(plan, weights, view, view, dst.dtype, self.device, fill, zero_taps=zero_taps)

    def converted(self, dst: Any, inner: Any, finish: str, size: int, limit: float | None) -> Any:
        """A step, and what becomes of its result."""
        return _Converted(inner, finish, size, dst.dtype)

    def copied(self, src: Any, dst: Any) -> Any:
        """A step without taps."""
        return _Copied(dst.dtype)

    def weighed(self, p: Problem, src: Any, dst: Any, f: Stencil) -> Any:
        """A step with weights that lie on the card."""
        return _Weighed(p, planes(src.shape, f.axes).view(), f, dst.dtype)

    def running(self, src: Any, dst: Any, f: Stencil) -> Any:
        """A step that computes SciPy's running sums."""
        seen = planes(src.shape, f.axes)
        return _Running(seen.view(), f.axes[0] in seen.axes[1], f, dst.dtype)

    def combined(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], src: np.dtype[Any], branches: Any, combine: str, copied: bool, aside: bool
    ) -> CardBranches:  # fmt: skip
        """The call of all branches."""
        return CardBranches(shape, dtype, branches, combine, copied, aside)
