"""seqio tasks and mixtures of the benchmarks."""
