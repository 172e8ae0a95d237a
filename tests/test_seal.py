"""A run's `config.gin` is refused where it has changed since the run wrote it."""

import pathlib

import pytest

from poly_jax import configuration
from poly_jax.configuration import Texts
from poly_jax.errors import UserError
from poly_jax.training.run_folder import claim

TEXT = "T5Config.num_heads = 6\nAdapters.n_skills = 8\n"


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    claim(tmp_path / "run", Texts(TEXT))
    return tmp_path / "run" / "config.gin"


def test_what_a_run_wrote_is_read(config):
    assert configuration.run_config(config.parent) == str(config)
    assert configuration.load([], recorded=str(config)).bound("T5Config") == {"num_heads": 6}


@pytest.mark.parametrize(("old", "new"), [("= 6", "= 4"), ("Adapters.n_skills = 8\n", ""), ("= 8\n", "= 8")])
def test_a_change_is_refused_in_one_line_that_says_how_to_accept_it(config, old, new):
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(
        UserError, match=r"config.gin has changed since .*; copy it again, or delete its first line"
    ):
        configuration.run_config(config.parent)
    config.write_text(config.read_text().split("\n", 1)[1])
    assert configuration.run_config(config.parent) == str(config)


def test_an_empty_file_is_refused(config):
    config.write_text("\n")
    with pytest.raises(UserError, match=r"config.gin is empty; copy it again from the run"):
        configuration.run_config(config.parent)


def test_a_run_of_an_earlier_version_has_no_checksum_and_is_read(config):
    config.write_text(TEXT.replace("6", "4"))
    assert configuration.run_config(config.parent) == str(config)
