"""strided_image: what the gradients of images that stride 2 went through have in common: which they are, images in turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..planning.plans import Launch
from ..planning.problem import DTYPES, Problem, not_computed
from .values import not_fused

STEP = 2


def not_strided_image(p: Problem) -> str | None:
    """Why it is no gradient of an image, of one floating-point type, that stride 2 went through."""
    reason = not_computed(p, "bwd_data")
    if reason is not None:
        return reason
    if p.acc not in ("f32", "f64") or not p.src == p.wei == p.dst == p.acc:
        return f"sums products of f32 or f64 in the same type, not {p.src} and {p.wei} in {p.acc} for {p.dst}"
    if p.border != "constant":
        return f"folds no border {p.border} back into the image"
    if (p.sh, p.sw, p.dh, p.dw) != (STEP, STEP, 1, 1):
        return f"is for stride 2 without dilation, not {p.sh} x {p.sw} and {p.dh} x {p.dw}"
    return not_fused(p)


def image_in_turn(p: Problem, launch_of: Callable[[np.ndarray, np.ndarray, np.ndarray], Launch]) -> Launch:
    """Of byte-swapped arrays and others of odd strides, copied an image at a time; ``launch_of(src, packed, dst)`` prepares one's."""
    known: list[Launch] = []

    def launch(src: np.ndarray, packed: np.ndarray, bias: np.ndarray | None, dst: np.ndarray) -> None:
        for n in range(p.n):
            image = _like(p, src[n : n + 1])
            result = np.empty_like(_like(p, dst[n : n + 1]))
            if not known:
                known.append(launch_of(image, packed, result))
            known[0](image, packed, bias, result)
            dst[n : n + 1] = result

    return launch


def _like(p: Problem, images: np.ndarray) -> np.ndarray:
    """A dense copy of the sums' type in the problem's layout."""
    if p.src_layout == "nchw":
        return np.ascontiguousarray(images, DTYPES[p.acc])
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1), DTYPES[p.acc]).transpose(0, 3, 1, 2)
