"""Entry point: runs the command, or says how to install what it needs."""

from __future__ import annotations

import sys

EXTRA = ("PIL", "click", "matplotlib", "rich", "tifffile")


def main() -> None:
    """Run ``fastconv`` on the process's arguments."""
    try:
        from .commands import fastconv

        fastconv(prog_name="fastconv")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA or not _importer(error).startswith("fastconv.cli"):
            raise
        sys.exit(f"fastconv: this command needs the package {error.name}: pip install 'fastconv[cli]'")


def _importer(error: ImportError) -> str:
    """The module that holds the import that failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""


if __name__ == "__main__":
    main()
