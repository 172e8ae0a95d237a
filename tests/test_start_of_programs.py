"""No program waits for the import of libraries that it does not use."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = sorted(
    path.stem for path in (ROOT / "poly_jax/cli/commands").glob("*.py") if not path.stem.startswith("_")
)


def printed(*lines: str) -> str:
    """What a new Python process prints."""
    program = ["import sys", *lines]
    done = subprocess.run([sys.executable, "-c", "\n".join(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keras_and_libraries_of_scores_and_plots_are_not_imported_at_the_start():
    """Neither by the commands, nor by the modules that a configuration names."""
    imports = [f"import poly_jax.cli.commands.{command}" for command in COMMANDS]
    configured = ["import poly_jax.configurables", "poly_jax.configurables.import_configurables()"]
    slow = {"keras", "sklearn", "scipy.stats", "nltk", "pandas", "matplotlib"}
    found = f"print(*({slow} & set(sys.modules)), 'seqio' in sys.modules)"
    assert printed(*imports, *configured, found) == "True"


@pytest.mark.parametrize(
    "use",
    [
        "print(tf.keras.layers.Dense(3).units)",
        "import tensorflow.keras\nprint(tensorflow.keras.layers.Dense(3).units)",
        "import keras\nprint(keras.layers.Dense(3).units)",
        "import tensorflow_text\nprint(tensorflow_text.keras.layers.ToDense and 3)",
        "from tensorflow_text.python.keras.layers import ToDense\nprint(ToDense and 3)",
    ],
)
def test_a_users_tasks_may_use_keras(use):
    assert printed("from poly_jax.data.quiet import tf", use) == "3"
