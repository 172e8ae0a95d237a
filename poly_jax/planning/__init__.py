"""Plans of runs: what a step takes on accelerators that nobody has rented yet."""
