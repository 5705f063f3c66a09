"""`tests.card_filters` in Numba's simulator: one line ``NAME: verdict`` for each check; with an argument ``slow``, all of them.

Run as ``NUMBA_ENABLE_CUDASIM=1 python -m tests.simulated_filters [slow]``.
"""

import sys
import traceback

from tests.card_filters import checks
from tests.exporters import Interface


def main():
    for name, check in checks("slow" in sys.argv[1:]).items():
        try:
            check(Interface)
            answer = "right"
        except Exception:  # noqa: BLE001 (the parent fails with it)
            answer = "wrong: " + traceback.format_exc().replace("\n", "\\n")
        print(f"{name}: {answer}", flush=True)


if __name__ == "__main__":
    main()
