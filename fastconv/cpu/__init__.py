"""The CPU backend: its ordered candidate list."""

from ..planning import reference
from . import blocked, complex, direct

ALGORITHMS = (complex, blocked, direct, reference)
