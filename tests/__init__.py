"""Tests: generated from the lists in fastconv (algorithms, their cases and tiles) and judged by `tests.oracles` alone."""
