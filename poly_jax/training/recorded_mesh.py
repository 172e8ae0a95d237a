"""Runs that were trained on other devices: their mesh is fitted to the devices that read them."""

from typing import Any

from poly_jax.configuration import Loaded


def arguments_here(loaded: Loaded, program: str, **given: Any) -> dict[str, Any]:
    """Return the arguments of a program that reads a run, with a mesh that the devices here can form.

    The run's folder records the mesh that the run was trained on. It is fitted to the devices here, unless
    the user binds `Partitioning`.

    Args:
      loaded: the configuration of the run and of the user.
      program: the program's name in gin, which has an argument `partitioning`.
      **given: arguments that win over bindings.

    Raises:
      UserError: `Loaded.arguments` raises it.
    """
    arguments = loaded.arguments(program, **given)
    if loaded.mesh_is_recorded:
        arguments["partitioning"] = arguments["partitioning"].fitted()
    return arguments
