"""structure: what weights are found to be, at the call or when they are packed, and the plans that use it.

The proof is the backend's (:mod:`fastconv.cpu.factor`): for each tap |w - u v| <= 4 eps |w| in the accumulator's epsilon, for sums of
several products that of all taps, sum |w - u v - ...| <= 4 eps sum |w|; all weights finite.  It costs a few microseconds, so it is asked
for only where an image is predicted to take ``cost.EXAMINED_SECONDS`` directly, and another algorithm would compute weights of low rank;
or where it takes ``cost.SINGLE_SECONDS``, and weights of one tap that is 1 would be a copy.  The same weights, bit by bit, in the next call
are not looked at again (`fastconv.planning.calls.GivenWeights`).
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from . import cost as costs
from .calls import Rivals
from .planner import cheapest, plan_problem, refused, short_name
from .problem import DTYPES, Problem

_FLOATS = {name: DTYPES[name] for name in ("f32", "f64")}


def structure_of(acc: str, wei: np.ndarray, most: int = 0, most_taps: int = 0) -> str:
    """What is proven about filters of one channel each, summed in the type ``acc``: ``full`` (nothing) or another structure.

    ``rank1`` and ``box`` (equal weights) of each filter for itself; ``identity`` (one tap that is 1, the others 0) and ``zero`` of all;
    ``sparse(t)`` where each has at most t taps that are not zero; ``lowrank(r)`` where each is the sum of at most r products of a
    column and a row.

    Parameters
    ----------
    acc : str
        A key of `fastconv.planning.problem.DTYPES`.
    wei : ndarray (oc, 1, kh, kw)
        Of any type and strides; only floats are looked at.
    most, most_taps : int
        Products of a column and a row, and taps that are not zero, that are worth finding.

    Examples
    --------
    >>> column, row = np.array([1.0, 2, 1]), np.array([1.0, 0, -1])
    >>> [structure_of("f32", w[None, None]) for w in (np.outer(column, row), np.ones((3, 3)), np.eye(3))]
    ['rank1', 'box', 'full']
    >>> structure_of("f32", (np.outer(column, row) + np.outer(row, column))[None, None], 2)
    'lowrank(2)'
    >>> structure_of("f32", np.eye(9)[None, None], most_taps=20)
    'sparse(9)'
    """
    if acc not in _FLOATS or wei.dtype not in _FLOATS.values() or wei.shape[1] != 1:
        return "full"
    oc, _, kh, kw = wei.shape
    taps = np.count_nonzero(wei)
    if taps in (0, oc) and kh * kw > 1:
        if not taps:
            return "zero"
        if (np.count_nonzero(wei, axis=(1, 2, 3)) == 1).all() and (wei.sum((1, 2, 3)) == 1).all():
            return "identity"
    backend = _backend()
    name: str = backend.FOUND[backend.factor(wei, np.empty((oc, 1, 1, backend.words(kh, kw)), _FLOATS[acc]))]
    if name == "full" and taps <= oc * most_taps and np.isfinite(wei).all():
        found = int(np.count_nonzero(wei, axis=(1, 2, 3)).max())
        if found <= most_taps:
            return f"sparse({found})"
    rank = backend.factor_sum(wei, np.empty((oc, most, kh + kw), _FLOATS[acc])) if most and name == "full" else 0
    return f"lowrank({rank})" if rank else name


@functools.cache
def _backend() -> Any:
    return importlib.import_module("fastconv.cpu.factor")


def structured(p: Problem, wei: np.ndarray | None, algorithm: str | None = None) -> Problem:
    """The problem with what is found about the weights, where that may change its plan.

    A named algorithm's may where it refuses weights of which nothing is known.
    """
    if wei is None or not (_is_open(p) and refused(p, algorithm) if algorithm is not None else rivals_of(p, 1)):
        return p
    found = structure_of(p.acc, wei, most_rank(p, algorithm), most_taps(p, algorithm))
    return p if found == "full" else p.replace(structure=found)


def most_rank(p: Problem, algorithm: str | None = None) -> int:
    """Up to which rank weights are worth finding: where ``lowrank`` would compute them, or takes them at all if it is named."""
    if p.masked or algorithm not in (None, "lowrank") or (algorithm is None and cheapest(p)[0] < costs.RANKED_SECONDS):
        return 0
    for rank in range(costs.MOST_RANK, 1, -1):
        ranked = p.replace(structure=f"lowrank({rank})")
        if not refused(ranked, "lowrank") and (algorithm or short_name(cheapest(ranked)[1]) == "lowrank"):
            return rank
    return 0


def most_taps(p: Problem, algorithm: str | None = None) -> int:
    """Up to how many taps that are not zero are worth counting: where ``sparse`` would compute them, or takes them if it is named."""
    if p.masked or algorithm not in (None, "sparse"):
        return 0
    taps = p.kh * p.kw
    for most in (taps - 1, taps * 3 // 4, taps // 2, taps * 3 // 8, taps // 4, taps // 8):
        counted = p.replace(structure=f"sparse({most})")
        if not refused(counted, "sparse") and (algorithm or short_name(cheapest(counted)[1]) == "sparse"):
            return most
    return 0


def rivals_of(p: Problem, threads: int, algorithm: str | None = None) -> Rivals | None:
    """The plans for weights that turn out to be of rank 1 or single taps, or None where there is nothing to be gained."""
    if algorithm is not None or not _is_open(p):
        return None
    seconds, plain = cheapest(p)
    factored = seconds >= costs.EXAMINED_SECONDS and cheapest(p.replace(structure="rank1"))[1] is not plain
    copied = seconds >= costs.SINGLE_SECONDS and cheapest(p.replace(structure="identity"))[1] is not plain
    if not (factored or copied):
        return None
    return Rivals(
        functools.partial(structure_of, p.acc, most=most_rank(p), most_taps=most_taps(p)),
        lambda name: plan_problem(p.replace(structure=name), threads=threads),
    )


def looked_at(p: Problem, wei: np.ndarray, target: Any, algorithm: str | None = None) -> Problem:
    """The problem for a card with what is found about weights of the host, where another algorithm would compute those of rank 1."""
    if not _is_open(p) or algorithm not in (None, "separable"):
        return p
    if algorithm is None and cheapest(p.replace(structure="rank1"), target)[1] is cheapest(p, target)[1]:
        return p
    found = structure_of(p.acc, wei)
    return p if found == "full" else p.replace(structure=found)


def _is_open(p: Problem) -> bool:
    """Whether weights of which nothing is known yet may be looked at."""
    several = p.kh > 1 and p.kw > 1
    return several and p.structure == "full" and p.precision != "strict" and p.op == "fwd" and p.acc in _FLOATS and p.wei in _FLOATS
