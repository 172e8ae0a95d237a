"""Every configurable of the project is known to gin before a gin file is read."""

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
