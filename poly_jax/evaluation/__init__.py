"""Predictions, scores and metrics of trained models."""
