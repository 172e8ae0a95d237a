"""`poly-jax prepare`: makes seqio's offline cache of a mixture's tasks, in parallel, with a report."""
