"""The fault matrix: what happens to which program in which phase, and what must be true afterwards."""

import importlib

from place import CASES, Case, Place

# Each of these modules adds its cases when it is imported.
for _module in ("stop_cases", "kill_cases", "host_cases", "launched_cases", "damage_cases"):
    importlib.import_module(_module)

__all__ = ["CASES", "Case", "Place"]
