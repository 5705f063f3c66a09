"""fastconv's benchmarks: cases, peers, ceilings, the issue's figures, reports."""
