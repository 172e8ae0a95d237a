"""Importing this makes poly_jax's configurables known to gin: gin/t5x does it before other files are read.

Its programs are left out: t5x's are called train, evaluate and infer too, and `infer.mode` has to mean t5x's.
"""

from poly_jax.configurables import import_configurables

import_configurables(programs=False)
