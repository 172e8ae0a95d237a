"""Every configurable of the project is known to gin before a gin file is read."""

import os
import pathlib
import re
import sys

import poly_jax
from poly_jax import configurables

PACKAGE = pathlib.Path(poly_jax.__file__).parent
REGISTERS = re.compile(r"^@?gin\.(configurable|register|external_configurable)\b", re.MULTILINE)


def test_every_module_that_registers_a_configurable_is_imported():
    configurables.import_configurables()
    folders = {"poly_jax": PACKAGE, "poly_jax.tasks": PACKAGE.parent / "tasks"}
    names = {
        ".".join((root, *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        for root, folder in folders.items()
        for file in folder.rglob("*.py")
        if REGISTERS.search(file.read_text())
    }
    assert "poly_jax.model.config" in names
    assert names - set(sys.modules) == set()


def test_only_the_start_up_logs_of_native_libraries_are_held_back(capfd):
    with configurables._without_start_up_logs():
        os.write(2, b"I0000 00:00:1700000000.0    1 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"W0000 00:00:1700000000.0    1 cache.cc:7] the cache is not writable\n")
    os.write(2, b"after\n")
    lines = capfd.readouterr().err.splitlines()
    assert [line.split("] ")[-1] for line in lines] == ["the cache is not writable", "after"]
