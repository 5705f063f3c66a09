"""patch: an installed library's functions replaced by fastconv's, until undone."""

from __future__ import annotations

import importlib
from types import TracebackType
from typing import Any

# library -> (module, name, fastconv's submodule): what has the same signature and the same results
REPLACED = {
    "scipy.signal": (("scipy.signal", "correlate2d", "signal"), ("scipy.signal", "convolve2d", "signal")),
}


class Patch:
    """Undo with ``undo()``, or use as a context manager."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def _replace(self, module: str, name: str, submodule: str) -> None:
        place = importlib.import_module(module)
        self._originals.append((place, name, getattr(place, name)))
        setattr(place, name, getattr(importlib.import_module(f"fastconv.{submodule}"), name))

    def undo(self) -> None:
        """Put the originals back."""
        while self._originals:
            setattr(*self._originals.pop())

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.undo()


def patch(*libraries: str) -> Patch:
    """Make ``scipy.signal.correlate2d`` and ``convolve2d`` fastconv's.

    Names imported from the library before the call keep the originals.

    Parameters
    ----------
    *libraries : str
        Names in ``REPLACED``; all of them by default.

    Returns
    -------
    Patch

    Raises
    ------
    ValueError
        A library that fastconv does not replace.

    Examples
    --------
    >>> import fastconv, scipy.signal
    >>> with patch("scipy.signal"):
    ...     scipy.signal.correlate2d is fastconv.correlate2d
    True
    """
    for library in libraries:
        if library not in REPLACED:
            raise ValueError(f"libraries must be among {', '.join(REPLACED)}, got {library!r}")
    undo = Patch()
    for library in libraries or REPLACED:
        for entry in REPLACED[library]:
            undo._replace(*entry)
    return undo
