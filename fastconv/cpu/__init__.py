"""The CPU backend: its ordered candidate list."""

from ..planning import reference
from . import complex, direct

ALGORITHMS = (complex, direct, reference)
