"""Adapting a trained inventory of skills to new tasks: variants, initial values and few-shot examples."""
