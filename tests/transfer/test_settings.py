"""The settings of adapting that a configuration binds, with the defaults of `adapt` for the others."""

from poly_jax import configuration
from poly_jax.transfer.settings import adapting_settings


def test_settings_that_are_not_bound_have_the_defaults_of_adapt():
    loaded = configuration.load(["recipes/skillbench/mhr.gin"], ["adapt.steps = 7"])
    settings = adapting_settings(loaded, "mhr-z")
    assert (settings.steps, settings.batch_size) == (7, 16)
    assert (settings.shots, settings.split_name) == (None, "train")
    assert settings.optimizer.learning_rate == 1e-3
    assert settings.variant.name == "mhr-z"
