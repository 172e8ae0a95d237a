"""`python -m poly_jax.cli`, the same as `poly-jax`."""

import sys

from poly_jax.cli import main

sys.exit(main())
