"""The metrics file of a run that was stopped and resumed."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.training.metrics import scalar_writer


def write(folder, after, steps):
    writer = scalar_writer(epath.Path(folder), after)
    for step in steps:
        writer.write(step, {"loss": 0.5})
    writer.close()


def test_steps_that_are_run_again_are_listed_once(tmp_path):
    write(tmp_path, 0, [1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # The process was killed while it wrote this line.
    write(tmp_path, 2, [3, 4])
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_half_a_line_from_a_killed_run_is_deleted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "lo')
    scalar_writer(epath.Path(tmp_path), 2).close()
    assert path.read_text() == '{"step": 1, "loss": NaN}\n'


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": "x"}\n', b"[" * 10**5]
)
def test_a_file_with_other_content_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + content + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl.*move it away"):
        scalar_writer(epath.Path(tmp_path), 2)
    assert path.read_bytes() == b'{"step": 1}\n' + content + b"\n"
