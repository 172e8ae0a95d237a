"""Adapting a trained inventory of skills to new tasks."""
