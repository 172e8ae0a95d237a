"""Launching a run: one description of a job, rendered for every place that rents out accelerators."""
