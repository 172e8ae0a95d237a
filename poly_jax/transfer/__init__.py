"""Adapting a trained inventory of skills to new tasks: variants, their starts, and few-shot examples."""
