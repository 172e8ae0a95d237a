"""The arguments of `train` in a configuration, for the commands that train, plan and launch a run."""

from typing import Any

from poly_jax.configurables import OF_A_RUN
from poly_jax.configuration import Loaded


def training_arguments(loaded: Loaded, output_dir: str) -> dict[str, Any]:
    """Return the arguments that a configuration gives `train`.

    Args:
      loaded: the configuration.
      output_dir: the run's folder.

    Raises:
      UserError: a binding of the command line is not read, or contradicts the router's number of skills; or
        an argument cannot be made.
    """
    loaded.check_read(*OF_A_RUN)
    # Other commands' configurations are checked without the libraries that this imports.
    from poly_jax.training.guards import check_given_skills

    arguments = loaded.arguments("train", output_dir=output_dir)
    check_given_skills(loaded.given, arguments["experiment"].adapters)
    return arguments
