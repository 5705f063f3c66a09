"""The house rules that no tool has a rule for: exit status 1 and one line per breach.

Run from the root of the repository; ruff, mypy and import-linter, set up in pyproject.toml, check the rest.
"""

import re
import sys
from pathlib import Path

MAX_LINES = 500
FOLDERS = ("fastconv", "tests", "bench", ".ci")
# Fast-math assumes finite values; NaN and inf go where the direct formula puts them.
FORBIDDEN = {re.compile(r"\bfastmath\s*="): "fastmath is not used: NaN and inf keep their places"}


def breaches(path: Path) -> list[str]:
    """Say what is wrong with one file, a line for each breach."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"{path}: {len(lines)} lines; at most {MAX_LINES}"] if len(lines) > MAX_LINES else []
    for number, line in enumerate(lines, start=1):
        found += [f"{path}:{number}: {reason}" for pattern, reason in FORBIDDEN.items() if pattern.search(line)]
    return found


if __name__ == "__main__":
    found = [line for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py")) for line in breaches(path)]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
