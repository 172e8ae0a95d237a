"""A program sees before it reads anything whether it could work in a folder."""

import filelock
import pytest
from etils import epath

from poly_jax.configuration import Texts
from poly_jax.errors import UserError
from poly_jax.training.run_folder import check_free, claimed

TEXTS = Texts("train.steps = 4\n")


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that no program is working on."""
    place = epath.Path(tmp_path / "run")
    with claimed(place, TEXTS):
        pass
    return place


def test_a_folder_that_does_not_exist_or_holds_the_run_is_free(folder):
    check_free(folder, TEXTS)
    check_free(folder.parent / "another", TEXTS)
    assert not (folder.parent / "another").exists()


def test_a_folder_in_which_a_program_works_is_not_free(folder):
    refused = pytest.raises(UserError, match=r"another program is working in .*/run; wait until it ends")
    with filelock.FileLock(folder / ".lock"), refused:
        check_free(folder, TEXTS)
    with claimed(folder, TEXTS), refused:
        check_free(folder, TEXTS)


def test_looking_does_not_keep_another_program_from_the_folder(folder):
    check_free(folder, TEXTS)
    with claimed(folder, TEXTS):
        pass


def test_a_folder_that_cannot_be_written_is_not_free(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"run cannot be written, because .* does not allow it; give another"):
        check_free(epath.Path(tmp_path / "run"), TEXTS)
