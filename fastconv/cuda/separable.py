"""separable: weights of rank 1 as two passes, down the columns and along the rows, with the column sums between them in device memory.

``wei[ky, kx] = v[ky] u[kx]``, proven on the host before (:mod:`fastconv.planning.structure`); so only weights given as NumPy arrays come
here.  Pays where the multiply-adds of all taps take longer than the sums' way to memory and back.  Order of accumulation per output:
`direct`'s, of the columns and then of the rows.  Sum class: the factors are weights and quotients of weights, rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..planning.plans import Launch, Plan, PlanFn
from ..planning.problem import DTYPES, ROUNDINGS, Problem, not_computed
from .arrays import DeviceArray
from .driver import Memory
from .finish import cannot_finish
from .target import Target

CASES = (
    "ih20iw70_k5_p2_f32_structure=rank1", "n2_g2_ic2ih15iw60_oc2kh4kw7_s2_p3_wrap_f64_structure=rank1",
    "ih20iw70_k9_p4_reflect_f32_bias+relu_structure=rank1", "ih20iw70_k5_p2_u8:f32:u8:f32_saturate_structure=box",
    "g3_ic3ih9iw40_oc3kh4kw5_p2_edge_f32_nhwc_structure=rank1_shared",
    "ih12iw40_k5_p2_f32:f32:u8:f32_scale+shift+residual+saturate_structure=rank1",
)  # fmt: skip


def reject(p: Problem, t: Target) -> str | None:
    """Forward float sums of one channel, whose weights are known to be of rank 1."""
    reason = not_computed(p, "fwd", roundings=(None, *ROUNDINGS), scalings=True, halves=True) or cannot_finish(p)
    if reason is not None:
        return reason
    if p.structure not in ("rank1", "box"):
        return f"weights are {p.structure}, not known to be of rank 1"
    if p.precision == "strict":
        return "precision strict sums the weights' own products"
    if p.acc[0] != "f" or p.ic != p.g:
        return "sums floats of one channel"
    if min(p.kh, p.kw) == 1:
        return "one row or column of taps is one pass"
    return None


def _passes(p: Problem) -> tuple[Problem, Problem]:
    """Down the columns of every plane, along the rows of the sums."""
    acc = {"wei": p.acc, "structure": "full", "shared": False, "wei_layout": "oihw"}
    down = p.replace(kw=1, sw=1, dw=1, pl=0, pr=0, dst=p.acc, epilogue="", **acc)
    along = p.replace(g=p.oc, ic=p.oc, ih=p.oh, kh=1, sh=1, dh=1, pt=0, pb=0, src=p.acc, **acc)
    return down, along


def cost(p: Problem, t: Target) -> float:
    from . import direct

    return sum(direct.cost(one, t) for one in _passes(p))


def most_kernels(t: Target) -> int:
    """None: its children's."""
    return 0


def build(p: Problem, t: Target, plan: PlanFn, threads: int = 1) -> Plan:
    """Two children, and a third on the whole weights for images in a border that holds anything but 0."""
    down, along = (plan(one, t) for one in _passes(p))
    whole = plan(p.replace(structure="full", shared=False, wei=p.acc), t)

    def pack(p: Problem, wei: Any) -> Any:
        if isinstance(wei, DeviceArray):
            raise TypeError("weights of a structure that was proven on the host must be given as an array of the host")
        v, u = np.zeros((p.oc, 1, p.kh, 1), DTYPES[p.acc]), np.zeros((p.oc, 1, 1, p.kw), DTYPES[p.acc])
        for n, plane in enumerate(np.asarray(wei, np.float64)[:, 0]):
            v[n, 0, :, 0], u[n, 0, 0] = factors(plane)
        parts: tuple[Any, ...] = down.pack(v), along.pack(u), whole.pack(np.asarray(wei, DTYPES[p.acc]))
        first = parts[0]
        return DeviceArray(first.address, first.shape, first.strides, first.dtype, first.stream, first.device, parts)

    def prepare(own: Plan, src: Any, packed: Any, dst: Any, fill: Any) -> Launch:
        v, u, all_taps = _parts(packed)
        if p.border == "constant" and p.pl + p.pr and not fill == 0:
            launch = whole.prepare(src, all_taps, dst, fill)
            return lambda src, packed, bias, dst: launch(src, _parts(packed)[2], bias, dst)
        sums: Any = _sums(p, src, 0)
        first, second = down.prepare(src, v, sums, fill), along.prepare(sums, u, dst, fill)

        def run(src: Any, packed: Any, bias: Any, dst: Any) -> None:
            memory = Memory(size, src.device, src.stream)
            (v, u, _), sums = _parts(packed), _sums(p, src, memory.address)
            first(src, v, None, sums)
            second(sums, u, bias, dst)

        return run

    size = p.n * p.oc * p.oh * p.iw * DTYPES[p.acc].itemsize
    return Plan(problem=p, algorithm="separable", kernel="passes", cost=cost(p, t), pack_weights=pack, prepare_launch=prepare,
                workspace=size, children=(down, along))  # fmt: skip


def _parts(packed: Any) -> Any:
    """What the children packed: the taps of the columns, of the rows, all."""
    return packed.owner


def _sums(p: Problem, src: Any, address: int) -> Any:
    """The sums of columns at an address, laid out as the problem is."""
    n, c, h, w = p.n, p.oc, p.oh, p.iw
    if p.src_layout == "nchw":
        return DeviceArray(address, (n, c, h, w), None, DTYPES[p.acc], src.stream, src.device)
    return DeviceArray(address, (n, h, w, c), None, DTYPES[p.acc], src.stream, src.device).transpose(0, 3, 1, 2)


def factors(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``v`` and ``u`` of weights of rank 1; whole numbers times a power of two where the weights are, so that their sums are exact.

    Examples
    --------
    >>> v, u = factors(np.outer([1.0, 2, 1], [0.75, 1.5, 2.25]))
    >>> v.tolist(), u.tolist()
    ([1.0, 2.0, 1.0], [0.75, 1.5, 2.25])
    """
    ky, kx = np.unravel_index(int(np.argmax(np.abs(plane))), plane.shape)
    column, row = plane[:, kx], plane[ky]
    if not plane[ky, kx]:
        return np.zeros(len(column)), np.zeros(len(row))
    _, exponents = np.frexp(column[column != 0])
    scaled = np.ldexp(column, 53 - int(exponents.max()))  # the largest has 53 bits
    divisor = float(np.gcd.reduce(scaled.astype(np.int64))) if (scaled == np.rint(scaled)).all() else scaled[ky]
    v: np.ndarray = scaled / divisor
    return v, row / v[ky]
