"""A file is replaced as a whole; a link stays a link, and anything that is not a file is left alone."""

import os

import pytest

from poly_jax.errors import UserError
from poly_jax.files.whole_file import check_writable, write_whole


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    file, link = tmp_path / "real" / "file.txt", tmp_path / "link.txt"
    file.parent.mkdir()
    file.write_text("old")
    link.symlink_to(file)
    write_whole(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert [path.name for path in file.parent.iterdir()] == ["file.txt"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UserError, match=f"{path} is not a file"):
            write_whole(path, "text")
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_link_to_an_open_pipe_is_not_a_file():
    """As /dev/stdout, where the output goes into a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w"):
        path = f"/dev/fd/{writing}"
        if not os.path.exists(path):
            pytest.skip("this system has no files for open descriptors")
        with pytest.raises(UserError, match=f"{path} is not a file"):
            check_writable(path)


def test_a_relative_path_is_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_whole("file.txt", "text")
    assert (tmp_path / "file.txt").read_text() == "text"


def test_an_empty_path_is_refused():
    with pytest.raises(UserError, match="the path of the file to write is empty; give the path of a file"):
        check_writable("")
