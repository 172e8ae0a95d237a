"""`poly-jax prepare` in processes of its own, which are killed or cannot write."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from poly_jax.prepare import rows

# The moments when a run of two processes is killed. It makes the shards of the large task last.
MOMENTS = (
    lambda cache: len(list(cache.glob("*/COMPLETED"))) >= 3,
    lambda cache: any(cache.glob("large/*.tfrecord-*")),
)


@pytest.fixture
def tasks(project, monkeypatch):
    """Six small tasks and one of four shards."""
    monkeypatch.setattr(rows, "ROWS_PER_SHARD", rows.ROWS_PER_SHARD)  # The project's module changes it.
    for number in range(6):
        project.add(f"small{number}", 20)
    project.add("large", 100)
    project.write_module(rows_per_shard=30)
    return project


def children(process: int) -> list[int]:
    """The numbers of the processes that a process has started."""
    return [
        int(text)
        for path in pathlib.Path(f"/proc/{process}/task").glob("*/children")
        for text in path.read_text().split()
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_run_ends_with_the_same_bytes_for_any_number_of_processes(tasks):
    assert tasks.prepare("whole", 1) == 0
    whole = tasks.contents("whole")
    assert "large/train.tfrecord-00003-of-00004" in whole
    cache = tasks.folder / "cache"
    # Each run goes on where the one before it was killed.
    for moment in MOMENTS:
        run = tasks.start("cache", processes=2)
        workers = set()
        # The run before may have come as far already; then this one is killed when it has started a worker.
        while run.poll() is None and not (workers and cache.exists() and moment(cache)):
            workers.update(children(run.pid))
            time.sleep(0.005)
        assert run.poll() is None, run.communicate()
        run.kill()
        run.communicate()
        deadline = time.monotonic() + 60
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_running, workers)), "a worker outlives the run"
    assert tasks.prepare("cache", 1) == 0
    assert tasks.contents("cache") == whole


def is_running(process: int) -> bool:
    return pathlib.Path(f"/proc/{process}").exists()


WITHOUT_ROOM = """
import resource, signal, sys
from poly_jax import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
sys.exit(cli.main(["prepare", "--gin_file=mine.gin", "--output_dir=cache", "--processes=1"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_no_part(project):
    project.add("fits", 5)
    project.add("large", 200)
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM],
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        cwd=project.folder,
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert lines[-1].startswith("poly-jax: error:")
    assert "train.tfrecord-00000-of-00001 cannot be written" in lines[-1]
    assert "File too large" in lines[-1]
    assert not [path.name for path in (project.folder / "cache" / "large").iterdir()]
    assert (project.folder / "cache" / "fits" / "COMPLETED").exists()
