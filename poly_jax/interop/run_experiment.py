"""The experiment of a run that is read for its weights, whether or not it says on which data."""

import gin

from poly_jax.experiment import Data, Experiment

_NO_DATA = {"mixture": "", "inputs_length": 0, "targets_length": 0}


def run_experiment() -> Experiment:
    """The experiment that gin describes; its data is `Data("", 0, 0)` where gin names no mixture.

    An imported run says what its model is, and leaves it to the user to say what to do with it.
    """
    if "mixture" not in gin.get_bindings(Data, resolve_references=False):
        with gin.unlock_config():
            for name, value in _NO_DATA.items():
                gin.bind_parameter(f"Data.{name}", value)
    return gin.get_configurable(Experiment)()
