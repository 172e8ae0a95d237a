"""The scalars of a run that was stopped and goes on."""

import json

from etils import epath

from poly_jax.training.metrics import scalar_writer


def write(folder, after, steps):
    writer = scalar_writer(epath.Path(folder), after)
    for step in steps:
        writer.write_scalars(step, {"loss": 0.5})
    writer.close()


def test_steps_that_are_run_again_stand_once(tmp_path):
    write(tmp_path, 0, [1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # Killed while it wrote.
    write(tmp_path, 2, [3, 4])
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
