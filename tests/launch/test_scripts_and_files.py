"""The linters of each kind of file find nothing in what targets write, nor in the image's recipe."""

import importlib.metadata
import pathlib
import shutil
import subprocess
import sysconfig
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from yamllint import linter
from yamllint.config import YamlLintConfig

from poly_jax.launch.targets import TARGETS

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tool(name):
    """A program of the test extra, which pip installs beside the interpreter."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is not installed; run pip install -e '.[test]'"
    return found


def _pinned():
    lines = (ROOT / "launch" / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _named():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [Requirement(line) for line in named]


def _installed(name):
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _needed(requirement):
    """What an installed package of the image's version needs; other versions may need other packages."""
    found = _installed(requirement.name)
    if found is None or found.version != _pinned().get(canonicalize_name(requirement.name)):
        return []
    inner = [Requirement(line) for line in found.requires or ()]
    extras = requirement.extras or {""}
    return [
        each
        for each in inner
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def test_the_image_pins_every_package_that_the_project_needs():
    waiting, seen = _named(), set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            waiting += _needed(requirement)
    assert {name for name, _ in seen} - {*_pinned()} == set()


SCRIPTS = [
    ("tpu_vm", "v5e:4x4", {}),
    (
        "tpu_vm",
        "v4:4x4x8",
        {"slices": 2, "spot": True, "secrets": {"HF_TOKEN": "hub"}, "env": {"A": "it's $x"}},
    ),
    ("slurm", "h100:2x8", {}),
    (
        "slurm",
        "l4:1x1",
        {"secrets": {"HF_TOKEN": "env"}, "env": {"A": "it's $x"}, "queue": "gpu", "image": None},
    ),
]


@pytest.mark.parametrize(("target", "slice_", "fields"), SCRIPTS)
def test_shellcheck_finds_nothing(make_job, tmp_path, target, slice_, fields):
    ((name, text),) = TARGETS[target].submit(make_job(slice_, **fields)).files.items()
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        [tool("shellcheck"), "--shell=bash", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "line", ["rm -rf $folder/", "if [ $a = b ]; then", "for x in $(ls *); do echo; done"]
)
def test_shellcheck_finds_a_mistake(tmp_path, line):
    (tmp_path / "x.sh").write_text(f"#!/usr/bin/env bash\n{line}\n")
    assert subprocess.run(
        [tool("shellcheck"), str(tmp_path / "x.sh")], capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize(
    ("target", "slice_", "fields"),
    [
        ("jobset", "v5e:4x4", {"slices": 2, "env": {"A": "yes", "B": "3"}, "secrets": {"T": "hub/token"}}),
        ("skypilot", "v6e:2x4", {"spot": True}),
        ("skypilot", "h100:2x8", {"env": {"A": "b"}, "secrets": {"HF_TOKEN": "env"}}),
    ],
)
def test_yamllint_finds_nothing(make_job, target, slice_, fields):
    (text,) = TARGETS[target].submit(make_job(slice_, **fields)).files.values()
    rules = YamlLintConfig("{extends: default, rules: {line-length: disable}}")
    assert [str(problem) for problem in linter.run(text, rules)] == []
    assert yaml.safe_load(text)


def test_hadolint_finds_nothing():
    done = subprocess.run(
        [tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("change", [("3.11.14-slim-bookworm", "latest"), ("USER 1000", "USER root")])
def test_hadolint_finds_a_base_that_is_not_pinned_and_a_program_that_runs_as_root(tmp_path, change):
    text = (ROOT / "Dockerfile").read_text()
    assert change[0] in text
    (tmp_path / "Dockerfile").write_text(text.replace(*change))
    assert subprocess.run(
        [tool("hadolint"), str(tmp_path / "Dockerfile")], capture_output=True, check=False
    ).returncode


def test_the_image_gets_every_file_that_it_copies():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
