"""Multi-task training of a frozen T5 with a routed inventory of adapters."""

__version__ = "0.1.0"
