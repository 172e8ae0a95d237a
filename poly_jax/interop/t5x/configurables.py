"""Registers poly_jax's configurables with gin; gin/t5x imports this module before it reads other files.

The programs of poly_jax are left out, because t5x has programs with the same names (train, evaluate, infer),
and `infer.mode` has to mean t5x's program.
"""

from poly_jax.configurables import import_configurables

import_configurables(programs=False)
