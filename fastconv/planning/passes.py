"""passes: calls of an image alone: a plan, with the weights and addends that it holds, and what its zero taps must not see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .addends import Addends
from .calls import Call, Inputs, View
from .plans import GatheringLaunch, Launch, Plan, Quick, QuickLaunch
from .problem import Problem, border_indices

_REPAIRED = 1 << 16  # outputs that are repaired at a time
_MOST_NDIM = 4  # of images that a quick call takes


class ZeroTaps(NamedTuple):
    """Filters whose zero taps are no taps, so that a pixel under one leaves no trace where it is NaN or inf.

    ``weights`` are (kh, kw), in the type of the sums, ``fill`` what lies beyond a constant border.
    """

    problem: Problem
    weights: np.ndarray
    fill: float = 0.0
    addend: float = 0.0

    def repair(self, src: np.ndarray, dst: np.ndarray, flat: np.ndarray) -> None:
        """Compute outputs that are not finite from the other taps; where one is finite, so is every pixel under its taps.

        ``src`` and ``dst`` are (n, c, h, w); ``flat`` is dst as the caller has it.
        """
        with np.errstate(all="ignore"):
            if flat.flags.c_contiguous:
                flat = flat.reshape(-1)
                total = np.dot(flat, flat)  # one pass, no temporary array
            else:
                total = np.add.reduce(flat, axis=None)
            if np.isfinite(total):
                return
            p, weights = self.problem, self.weights
            wrong = np.nonzero(~np.isfinite(dst))
            rows = border_indices(-p.pt, p.ih_padded, 1, p.ih, p.border)
            cols = border_indices(-p.pl, p.iw_padded, 1, p.iw, p.border)
            for first in range(0, len(wrong[0]), _REPAIRED):
                n, c, y, x = (index[first : first + _REPAIRED] for index in wrong)
                sums = np.full(len(n), self.addend, weights.dtype)
                for ky, kx in np.argwhere(weights):
                    row, col = rows[y + ky], cols[x + kx]
                    pixels = src[n, c, row, col].astype(weights.dtype)
                    pixels[(row < 0) | (col < 0)] = self.fill
                    sums += weights[ky, kx] * pixels
                dst[n, c, y, x] = sums


@dataclass(slots=True)
class Pass(Call):
    """A launch that is prepared, and the weights and addends that it holds: ``inputs`` are the image alone."""

    src_view: View  # (n, c, h, w)
    dst_view: View
    launch: Launch
    packed: np.ndarray
    bias: Any  # an array, None or `Addends`
    zero_taps: ZeroTaps | None
    ndim: int  # of image and result, 0 where a quick call does not take them
    compiled: tuple[Quick, np.ndarray, int] | None = None  # with weights, of 2 dimensions for fewer than 4, and the bias's address

    @property
    def held(self) -> int:
        """Bytes of weights that it holds."""
        return self.packed.nbytes

    def quick(self, inputs: Inputs, dst: np.ndarray) -> bool:
        """As `Call.quick`."""
        (src,) = inputs
        if self.compiled is None:
            if not self.ndim or not isinstance(self.launch, QuickLaunch):
                return False
            taps = self.packed if self.ndim > 3 else self.packed[(0,) * (self.packed.ndim - 2)]
            self.compiled = self.launch.quick(self.ndim, taps.ndim), taps, 0 if self.bias is None else self.bias.ctypes.data
        run, taps, place = self.compiled
        if not run(src, taps, place, dst):
            return False
        if self.zero_taps is not None:
            self.zero_taps.repair(self.src_view(src), self.dst_view(dst), dst)
        return True

    def holding(self, packed: np.ndarray, bias: Any) -> Pass:
        """The same with other weights, packed by the same plan."""
        if isinstance(bias, Addends) and not isinstance(self.bias, Addends):
            bias = bias.ready
        return replace(self, packed=packed, bias=bias, compiled=None)

    def run(self, inputs: Inputs, dst: np.ndarray) -> None:
        """As `Call.run`."""
        (src,) = inputs
        image, result = self.src_view(src), self.dst_view(dst)
        self.launch(image, self.packed, self.bias, result)
        if self.zero_taps is not None:
            self.zero_taps.repair(image, result, dst)


def bound(
    plan: Plan, packed: np.ndarray, src: np.ndarray, dst: np.ndarray, src_view: View, dst_view: View, fill: float = 0.0,
    bias: Any = None, zero_taps: ZeroTaps | None = None,
) -> Pass:  # fmt: skip
    """The pass of a plan with packed weights, for ``src``, ``dst`` and arrays like them."""
    launch = plan.prepare(src_view(src), packed, dst_view(dst), fill)
    if isinstance(launch, GatheringLaunch) and bias.ready is not None:
        launch, bias = launch.plain, bias.ready
    ndim = dst.ndim if src.ndim == dst.ndim <= _MOST_NDIM else 0
    return Pass(dst.shape, dst.dtype, src_view, dst_view, launch, packed, bias, zero_taps, ndim)


def with_addends(chosen: Plan, addends: Addends) -> Plan:
    """A plan whose launches take a bias, and read an epilogue's arrays besides, or take all of them."""

    def prepare(plan: Plan, src: np.ndarray, packed: np.ndarray, dst: np.ndarray, fill: Any) -> Launch:
        launch: Any = chosen.prepare_launch(plan, src, packed, dst, fill)

        def run(src: np.ndarray, packed: np.ndarray, bias: Any, dst: np.ndarray) -> None:
            launch(src, packed, bias if isinstance(bias, Addends) else addends._replace(bias=bias), dst)

        return GatheringLaunch(run, launch.plain) if isinstance(launch, GatheringLaunch) else run

    return replace(chosen, prepare_launch=prepare)
