"""The CPU backend: its ordered candidate list."""

from ..planning import reference

ALGORITHMS = (reference,)
