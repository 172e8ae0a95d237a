"""Adapters of the reference implementation, microsoft/mttl."""
