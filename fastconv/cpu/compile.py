"""The one place that compiles."""

from __future__ import annotations

import functools


@functools.cache
def magic() -> tuple[str, str, str]:
    """(triple, cpu name, feature string) that Numba compiles for."""
    from numba.core.registry import cpu_target

    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, features
