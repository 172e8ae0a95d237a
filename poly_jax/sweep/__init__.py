"""Sweeps over tasks, methods and seeds: many few-shot adaptations, their scores and a table of the scores."""
