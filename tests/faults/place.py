"""A case of the fault matrix, the folder in which it runs programs, and what its checks have in common."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import programs
from programs import metrics, on_hosts, ran, train_words, trained_arrays


@dataclasses.dataclass
class Place:
    """A folder with the recipe, in which every case uses names of its own."""

    folder: pathlib.Path
    _whole: pathlib.Path | None = None
    _of_two: pathlib.Path | None = None

    def __post_init__(self) -> None:
        programs.prepare(self.folder)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.folder / name

    @property
    def whole(self) -> pathlib.Path:
        """A run that nothing interrupted."""
        if self._whole is None:
            succeeds(ran(self.folder, *train_words("whole")))
            self._whole = self.folder / "whole"
        return self._whole

    @property
    def of_two(self) -> pathlib.Path:
        """A run of two processes that nothing interrupted."""
        if self._of_two is None:
            self.on_two(train_words("of-two"))
            self._of_two = self.folder / "of-two"
        return self._of_two

    def on_two(self, words: Sequence[str]) -> None:
        """Run a program with two processes to its end, which must succeed."""
        for done in on_hosts(self.folder, words, 2):
            succeeds(done)

    def copy(self, name: str) -> pathlib.Path:
        shutil.copytree(self.whole, self.folder / name)
        return self.folder / name


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the matrix; `check` raises an AssertionError where the promise is broken."""

    fault: str
    program: str
    phase: str
    promise: str
    check: Callable[[Place], None]
    sample: bool = False

    def __str__(self) -> str:
        return f"{self.fault}, {self.program}, {self.phase}".replace(" ", "_")


CASES: list[Case] = []


def case(fault: str, program: str, phase: str, promise: str, sample: bool = False):
    def add(check: Callable[[Place], None]) -> Callable[[Place], None]:
        CASES.append(Case(fault, program, phase, promise, check, sample))
        return check

    return add


def succeeds(program: programs.Program) -> None:
    assert program.process.returncode == 0, program.stderr


def fails_in_one_line(program: programs.Program, *texts: str) -> None:
    assert program.process.returncode == 1, (program.process.returncode, program.stderr)
    assert "Traceback" not in program.stderr, program.stderr
    (line,) = [line for line in program.stderr.splitlines() if line.startswith("poly-jax: error:")]
    for text in texts:
        assert text in line, line


def same_run(run: pathlib.Path, other: pathlib.Path) -> None:
    """The last checkpoints and all metrics of two runs are equal to the bit."""
    ours, theirs = trained_arrays(run), trained_arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert metrics(run) == metrics(other)
