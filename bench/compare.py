"""Two runs cell by cell: what became slower, corrected for what happened to the machine.

Peers do not change between two commits, so their ratios are the machine's drift: the median ratio of the peers that ran
in the same rounds on the same case, or of all peers where a case has none. fastconv's ratios are divided by it.
"""

from dataclasses import dataclass
from itertools import chain
from statistics import geometric_mean, median

REGRESSION = 1.05
OURS = "fastconv"


@dataclass(frozen=True)
class Change:
    """One cell in both runs; ``ratio`` is new over old time, drift removed; ``apart`` if the quartile ranges do not meet."""

    cell: str
    before_s: float
    after_s: float
    ratio: float
    apart: bool

    @property
    def slower(self):
        return self.ratio > REGRESSION and self.apart


def key_of(cell):
    """What a cell is called in both runs; the default number of threads is one setting whatever its value."""
    threads = "all" if cell["default_threads"] else "1"
    return f"{cell['suite']} {cell['problem']} {cell['peer']} threads={threads}" + (" out=" if cell["out"] else "")


def compare(before, after):
    """Changes of fastconv's cells that both runs have, and the drift.

    Returns
    -------
    changes : list of Change
        The slowest first.
    drift : float
        New time over old time of all peers together; 1.0 where the runs share none.
    """
    old, new = ({key_of(cell): cell for cell in document["cells"]} for document in (before, after))
    shared = [key for key in new if key in old]
    by_case, changes = {}, []
    for key in shared:
        if not new[key]["peer"].startswith(OURS):
            by_case.setdefault(new[key]["problem"], []).append(new[key]["median_s"] / old[key]["median_s"])
    overall = geometric_mean(chain(*by_case.values())) if by_case else 1.0
    for key in shared:
        a, b = old[key], new[key]
        if b["peer"].startswith(OURS):
            drift = median(by_case.get(b["problem"], [overall]))
            apart = b["q1_s"] > drift * a["q3_s"] or drift * a["q1_s"] > b["q3_s"]
            changes.append(Change(key, a["median_s"], b["median_s"], b["median_s"] / a["median_s"] / drift, apart))
    return sorted(changes, key=lambda change: -change.ratio), overall
