"""Adapters of PEFT, in and out."""
