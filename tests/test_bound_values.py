"""A bound value is checked against its parameter's annotation when the configuration is loaded."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gin
import pytest

from poly_jax import cli, configuration
from poly_jax.adapters.lora import LoRA
from poly_jax.configuration.types import MisfitError, annotations, fitting
from poly_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("own_folder")

RECIPE = "recipes/skillbench/mhr.gin"
WHOLE = "it must be a whole number"

WRONG = [
    ("train.steps='10'", f"train.steps is '10'; {WHOLE}"),
    ("train.steps=True", f"train.steps is True; {WHOLE}"),
    ("train.steps=1.5", f"train.steps is 1.5; {WHOLE}"),
    ("train.steps=None", f"train.steps is None; {WHOLE}"),
    ("train.steps=1e30", f"train.steps is 1e+30; {WHOLE}"),
    ("train.seed=99999999999999999999", f"train.seed is 99999999999999999999; {WHOLE}"),
    ("LoRA.alpha=1e400", "LoRA.alpha is inf; it must be a number"),
    ("train.steps=1e300", f"train.steps is 1e+300; {WHOLE}"),
    ("Optimizer.learning_rate=1e999", "Optimizer.learning_rate is inf; it must be a number"),
    ("Data.inputs_length='12'", f"Data.inputs_length is '12'; {WHOLE}"),
    ("Data.batch_size=[8]", f"Data.batch_size is [8]; {WHOLE}"),
    ("Partitioning.model='2'", f"Partitioning.model is '2'; {WHOLE}"),
    ("Optimizer.learning_rate='1e-3'", "Optimizer.learning_rate is '1e-3'; it must be a number"),
    ("adapt/Optimizer.learning_rate=True", "adapt/Optimizer.learning_rate is True; it must be a number"),
    ("T5Config.scan_layers=1", "T5Config.scan_layers is 1; it must be True or False"),
    ("T5Config.dtype=32", "T5Config.dtype is 32; use 'float32' or 'bfloat16'"),
    ("Data.split=32", "Data.split is 32; it must be a text in quotes"),
    (
        "Optimizer.decay='linea'",
        "Optimizer.decay is 'linea'; use 'linear', 'cosine', 'constant' or 'rsqrt'",
    ),
    ("Adapters.sites=('.*', 3)", "Adapters.sites is ('.*', 3); it must be a tuple of texts"),
    ("adapt.shots=2.5", f"adapt.shots is 2.5; {WHOLE} or None"),
    ("Experiment.model='small'", "Experiment.model is 'small'; it must be a T5Config, such as @T5Config()"),
    ("Experiment.model=@T5Config", "Experiment.model is @T5Config; it must be a T5Config"),
    ("Experiment.adapters=@LoRA", "Experiment.adapters is @LoRA(); it must be an Adapters"),
    ("Adapters.router='mhr'", "Adapters.router is 'mhr'; it must be a Router, such as @"),
    ("Adapters.skill=@LearnedRouter()", "Adapters.skill is @LearnedRouter(); it must be a Skill"),
    ("train.loss=@T5Config()", "train.loss is @T5Config(); it must be a Loss"),
    ("train.prior=@LoRA()", "train.prior is @LoRA(); it must be an IBPPrior"),
    ("Data.register='mine'", "Data.register is 'mine'; it must be a function, written @NAME"),
]


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("Optimizer.learning_rate=-1.0", "Optimizer.learning_rate is -1.0; it must be 0 or more"),
        ("Optimizer.b2=1.0", r"Optimizer.b2 is 1.0; it must be in \[0, 1\)"),
        ("LoRA.alpha=3.5", None),
        ("LearnedRouter.temperature=0.0", "LearnedRouter.temperature is 0.0; it must be above 0"),
        ("T5Config.dropout_rate=1.0", r"T5Config.dropout_rate is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_a_number_out_of_range_is_reported_in_one_line(binding, expected):
    loaded = configuration.load([RECIPE], [binding])
    if expected is None:
        loaded.arguments("train", output_dir="x")
        return
    with pytest.raises(UserError, match=expected):
        loaded.arguments("train", output_dir="x")


@pytest.mark.parametrize(("binding", "expected"), WRONG, ids=[binding for binding, _ in WRONG])
def test_a_value_of_the_wrong_type_is_reported_with_its_name_and_the_expected_type(binding, expected):
    with pytest.raises(UserError) as error:
        configuration.load([RECIPE], [binding])
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_a_value_of_the_wrong_type_stops_the_program_before_it_makes_a_folder(capsys):
    assert cli.main(["train", f"--gin_file={RECIPE}", "--output_dir=x", "--gin.train.steps='10'"]) == 1
    assert capsys.readouterr().err == f"poly-jax: error: train.steps is '10'; {WHOLE}\n"
    assert not pathlib.Path("x").exists()


def test_a_macros_value_is_checked_where_it_is_used():
    pathlib.Path("mine.gin").write_text("STEPS = 'many'\ntrain.steps = %STEPS\n")
    with pytest.raises(UserError, match=f"^train.steps is 'many'; {WHOLE}$"):
        configuration.load([RECIPE, "mine.gin"])
    loaded = configuration.load([RECIPE, "mine.gin"], ["STEPS=1e1"])
    assert loaded.arguments("train", output_dir="x")["steps"] == 10


def test_whole_floats_count_as_integers_and_integers_as_numbers():
    bindings = ["train.steps=1e1", "Data.batch_size=8.0", "LoRA.alpha=4", "adapt.shots=2.0"]
    loaded = configuration.load([RECIPE], bindings)
    arguments = loaded.arguments("train", output_dir="x")
    assert (arguments["steps"], type(arguments["steps"])) == (10, int)
    size = arguments["experiment"].data.batch_size
    assert (size, type(size)) == (8, int)
    assert arguments["experiment"].adapters.skill.alpha == 4
    assert type(loaded.bound("adapt")["shots"]) is int


FITS = [
    (3, int, 3),
    (3.0, int, 3),
    (3, float, 3),
    ([1.0, 2], tuple[int, ...], (1, 2)),
    ((1, 2.0), tuple[int, float], (1, 2.0)),
    ([1, 2], Sequence[int], [1, 2]),
    ("a", Sequence[str], ("a",)),
    ({"a": 1.0}, Mapping[str, int], {"a": 1}),
    (None, int | None, None),
    (2.0, int | None, 2),
    (2.0, int | float, 2.0),
    ("b", Literal["a", "b"], "b"),
    (((1, 0.5),), tuple[tuple[float, ...], ...], ((1, 0.5),)),
    (object, Any, object),
    ("anything", "an annotation that is a text", "anything"),
]
MISFITS = [
    (True, int),
    (True, float),
    (1, bool),
    (1, str),
    ("1", int | None),
    ((1, 2, 3), tuple[int, int]),
    ([True], tuple[int, ...]),
    ({"a": "b"}, Mapping[str, int]),
    ([1], Mapping[str, int]),
    ("c", Literal["a", "b"]),
    (1.0, Literal[1]),
    ("f", Callable[[], None]),
    ("x", LoRA),
]


@pytest.mark.parametrize(("value", "hint", "expected"), FITS)
def test_values_are_converted_to_their_type(value, hint, expected):
    found = fitting(value, hint)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("value", "hint"), MISFITS)
def test_values_of_other_types_are_refused(value, hint):
    with pytest.raises(MisfitError):
        fitting(value, hint)


def test_annotations_that_cannot_be_evaluated_are_not_checked():
    def of_a_user(x: "NotImported"):
        return x

    assert annotations(of_a_user) == {}


# Paths.


def test_home_and_variables_in_paths_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "weights"))
    loaded = configuration.load([RECIPE], ["Experiment.backbone='$WEIGHTS/t5'"])
    assert loaded.experiment().backbone == str(tmp_path / "weights" / "t5")
    loaded = configuration.load([RECIPE], ["BACKBONE='~/t5'", "Experiment.backbone=%BACKBONE"])
    assert loaded.experiment().backbone == str(tmp_path / "t5")
    # A run keeps what the user wrote.
    assert "BACKBONE = '~/t5'" in loaded.config
    table = ["TableRouter.path='~/rows.csv'", "Adapters.router=@TableRouter()"]
    assert configuration.load([RECIPE], table).experiment().adapters.router.path == str(tmp_path / "rows.csv")


def test_home_in_flags_is_expanded(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine.gin").write_text("T5Config.emb_dim = 'wide'\n")
    assert cli.main(["eval", "--run=~/runs"]) == 1
    assert f"{tmp_path / 'runs'} is not a run: no config.gin" in capsys.readouterr().err
    assert cli.main(["train", "--output_dir=x", "--gin_file=$HOME/mine.gin"]) == 1
    assert "T5Config.emb_dim is 'wide'" in capsys.readouterr().err


# User modules that a gin file imports.


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os\n\nos.nothing\n", "AttributeError: module 'os' has no attribute 'nothing'"),
        ("x = [\n", "SyntaxError: '[' was never closed"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import not_there_at_all\n", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("raise RuntimeError('a\\nb')\n", "RuntimeError: a b"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("def again():\n    again()\n\n\nagain()\n", "RecursionError: maximum recursion depth exceeded"),
    ],
)
@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_module_that_cannot_be_imported_is_reported_with_its_name_and_the_cause(
    code, expected, debug, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("POLY_JAX_DEBUG", debug)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_tasks.py").write_text(code)
    (tmp_path / "mine.gin").write_text("\nimport broken_tasks\n")
    assert cli.main(["train", "--output_dir=x", "--gin_file=mine.gin"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(
        f"poly-jax: error: mine.gin, line 2: the module 'broken_tasks' cannot be imported: {expected}"
    )
    assert "broken_tasks.py, line " in lines[-1]
    assert (len(lines) > 1) == (debug == "1")


def test_a_failing_function_that_registers_tasks_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing_tasks.py").write_text(
        "import gin\n\n\n@gin.register\ndef failing(n=1):\n    return [][n]\n"
    )
    (tmp_path / "mine.gin").write_text("import failing_tasks\nData.register = @failing\nfailing.n = 3\n")
    data = configuration.load([str(tmp_path / "mine.gin")]).make("Data", "m", 1, 1)
    with pytest.raises(UserError, match=r"failing_tasks\.failing.* IndexError: list index out") as error:
        data.register_tasks()
    assert "\n" not in str(error.value)


def test_files_that_include_each_other_are_reported_in_one_line(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'\n")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(UserError, match=r"a\.gin: the file includes itself") as error:
        configuration.load(["a.gin"])
    assert "\n" not in str(error.value)
    assert gin.config_str() == ""


def test_an_object_bound_to_itself_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "circular.py").write_text("import gin\n\n\n@gin.register\ndef circle(x=1):\n    return x\n")
    (tmp_path / "mine.gin").write_text("import circular\ncircle.x = @circle()\n")
    with pytest.raises(UserError, match="the configuration refers to itself") as error:
        configuration.load(["mine.gin"]).make("circle")
    assert "\n" not in str(error.value)


class Picky:
    """A user's class that refuses what it is given."""

    def __init__(self, size=1):
        if size > 3:
            raise KeyError(f"no size {size}")


def test_an_error_inside_a_class_of_the_user_names_the_class_and_the_cause():
    gin.external_configurable(Picky, module="users")
    loaded = configuration.load([], ["Picky.size = 4"])
    with pytest.raises(UserError) as caught:
        loaded.make("Picky")
    assert str(caught.value) == (
        "Picky failed with the arguments that are bound: KeyError: 'no size 4'"
        " (POLY_JAX_DEBUG=1 shows the traceback)"
    )
