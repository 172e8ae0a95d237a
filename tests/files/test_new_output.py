"""Conversions overwrite nothing, leave nothing behind when they fail, and report the failure in one line."""

import pathlib

import numpy as np
import pytest

from poly_jax import cli
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.weights.t5x_writer import write_t5x
from poly_jax.weights.tensors import Tensor, of_tree

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def source(hugging_face_config, hugging_face_tensors, write_hugging_face):
    return write_hugging_face(hugging_face_config, hugging_face_tensors(hugging_face_config))


def content(folder="."):
    """Map the path of every file below a folder to its bytes, and that of every folder to None."""
    return {
        str(path): path.read_bytes() if path.is_file() else None for path in pathlib.Path(folder).rglob("*")
    }


def one_line(capsys):
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    return shown


def test_a_folder_that_cannot_be_filled_is_deleted():
    def fill():
        with new_folder("out") as folder:
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert not pathlib.Path("out").exists()


def test_a_full_disk_is_reported_in_one_line():
    def fill():
        with new_folder("out"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"^out cannot be written: No space left on device$"):
        fill()


@pytest.mark.parametrize("command", ["import --from", "export --backbone", "export --format=t5x --backbone"])
@pytest.mark.parametrize("output", ["b", "b.safetensors"])
def test_an_existing_output_is_not_overwritten(source, command, output, capsys):
    arguments = [*f"{command}={source}".split(), f"--output={output}"]
    assert cli.main(arguments) == 0
    before = content()
    capsys.readouterr()
    assert cli.main(arguments) == 1
    assert "exists; choose another output, or delete it" in one_line(capsys)
    assert content() == before


def test_the_gin_file_of_an_import_does_not_replace_another(source, capsys):
    pathlib.Path("mine.gin").write_text("train.steps = 1\n")
    assert cli.main(["import", f"--from={source}", "--output=mine.safetensors"]) == 1
    assert "mine.gin exists" in one_line(capsys)
    assert pathlib.Path("mine.gin").read_text() == "train.steps = 1\n"


def test_an_import_into_the_folder_that_it_reads_is_refused(source, capsys):
    before = content(source)
    assert cli.main(["import", f"--from={source}", f"--output={source}"]) == 1
    assert "exists; choose another output" in one_line(capsys)
    assert content(source) == before


def test_an_import_into_a_bucket_is_refused(source, capsys):
    assert cli.main(["import", f"--from={source}", "--output=gs://bucket/b"]) == 1
    assert "--output=gs://bucket/b: a backbone is imported to a local path" in one_line(capsys)
    assert not pathlib.Path("gs:").exists()


@pytest.mark.parametrize(
    "arguments",
    ["import --from", "export --format=t5x --backbone", "export --format=hugging_face --backbone"],
)
def test_an_output_that_cannot_be_made_is_reported_in_one_line(source, arguments, capsys):
    pathlib.Path("file").write_text("x")
    assert cli.main([*f"{arguments}={source}".split(), "--output=file/b"]) == 1
    assert "cannot be written: Not a directory" in one_line(capsys)


def test_a_file_that_cannot_be_moved_into_place_is_deleted(source, capsys):
    pathlib.Path("b.safetensors").mkdir()
    assert cli.main(["export", f"--backbone={source}", "--output=b.safetensors"]) == 1
    assert "b.safetensors cannot be written: Is a directory" in one_line(capsys)
    assert not pathlib.Path("b.safetensors.partial").exists()


@pytest.fixture
def with_a_lost_chunk(shared_data):
    """A T5X checkpoint that opens, but whose last array cannot be read."""
    from poly_jax.weights.backbone import open_backbone

    tensors = open_backbone(shared_data / "t5x" / "t5x_tiny_v1_1").tensors
    folder = write_t5x("lossy", 1, tensors)
    (folder / f"target.{list(tensors)[-1].replace('/', '.')}" / "0.0").unlink()
    return "lossy"


@pytest.mark.parametrize(
    "arguments",
    [
        "import --output=out --from",
        "import --output=out.safetensors --from",
        "export --output=out --backbone",
        "export --output=out --format=t5x --backbone",
        "export --output=out --format=hugging_face --backbone",
    ],
)
def test_a_source_that_cannot_be_read_to_its_end_leaves_no_output(with_a_lost_chunk, arguments, capsys):
    before = content("lossy")
    capsys.readouterr()
    assert cli.main(f"{arguments}={with_a_lost_chunk}".split()) == 1
    assert "0.0" in one_line(capsys)
    assert content("lossy") == before
    assert not any("checkpoint" in file or "safetensors" in file for file in content() if "lossy" not in file)


def test_a_t5x_checkpoint_that_is_not_finished_is_deleted():
    def fail():
        raise UserError("lost")

    tensors = {**of_tree({"a": np.zeros(2)}), "b": Tensor((2,), np.dtype(np.float32), fail)}
    with pytest.raises(UserError, match="lost"):
        write_t5x("out", 1, tensors)
    assert not pathlib.Path("out/checkpoint_1").exists()
