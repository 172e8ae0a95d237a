"""The Python example in the documentation runs as it is written."""

import pathlib
import re
import subprocess
import sys

import pytest

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "python.md"


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "__main__"})
    assert "('reverse', 'sort')" in capsys.readouterr().out


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("jax", "flax", "tensorflow", "seqio", "orbax", "numpy")
    code = f"import sys, poly_jax; dir(poly_jax); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
