"""Only poly_jax.configuration uses gin, and loading a configuration changes no object made in code."""

import dataclasses
import importlib
import pathlib
import re

import gin
import pytest

import poly_jax
from poly_jax import configuration
from poly_jax.configurables import (
    CONFIGURABLES,
    MADE_BY_DEFAULT,
    NAMESPACES,
    PATHS,
    PROGRAMS,
    import_configurables,
)
from poly_jax.configuration.types import annotations

PACKAGE = pathlib.Path(poly_jax.__file__).parent
KNOWS_GIN = re.compile(r"^\s*(import gin\b|from gin\b)", re.MULTILINE)


def named():
    """Every registered class and function, by its full name in gin."""
    return {
        f"{NAMESPACES.get(module, module)}.{name}": getattr(importlib.import_module(module), name)
        for module, names in {**CONFIGURABLES, **PROGRAMS}.items()
        for name in names
    }


def test_only_the_configuration_imports_gin():
    folders = (PACKAGE, PACKAGE.parent / "tasks")
    files = {
        file.relative_to(folder).as_posix()
        for folder in folders
        for file in folder.rglob("*.py")
        if KNOWS_GIN.search(file.read_text())
    }
    assert {file for file in files if not file.startswith("configuration/")} == {"configurables.py"}


def test_every_name_is_registered_and_leaves_the_class_as_it_is():
    import_configurables()
    for name, kind in named().items():
        entry = gin.config._REGISTRY[name]
        assert entry.wrapped is kind, name
        assert entry.wrapper is not kind, name


def test_the_tables_of_paths_and_defaults_name_parameters_that_exist():
    known = named()
    for name, parameters in PATHS.items():
        assert set(parameters) <= set(annotations(known[name])), name
    for name, made in MADE_BY_DEFAULT.items():
        assert set(made) <= set(annotations(known[name])), name


# Bindings for objects that can also be made in code.
BINDINGS = [
    "LoRA.rank=3",
    "LoRA.alpha=7.0",
    "LoRA.dropout=0.3",
    "LoRA.merge_after=True",
    "LearnedRouter.scores='softmax'",
    "LearnedRouter.top_k=2",
    "LearnedRouter.sampling=False",
    "RandomRouter.seed=9",
    "IBPPrior.weight=0.5",
    "Adapters.n_skills=5",
    "Adapters.n_splits=4",
    "Adapters.granularity='coarse'",
    "T5Config.dtype='bfloat16'",
    "T5Config.scan_layers=True",
    "T5Config.dropout_rate=0.4",
    "Decoding.n_beams=4",
    "Decoding.max_length=7",
    "TokenLoss.label_smoothing=0.2",
    "ChoiceLoss.unlikelihood=0.0",
    "Optimizer.learning_rate=0.7",
    "Optimizer.algorithm='adafactor'",
    "adapt/Optimizer.learning_rate=0.9",
    "Partitioning.model=2",
    "SelectedSkills.count=2",
    "SearchedWeights.evaluations=3",
    "Data.batch_size=64",
]


def made_in_code():
    """An object of every registered dataclass, made with its required arguments only."""
    needed = {
        "Adapters": {"skill": poly_jax.LoRA(), "router": poly_jax.LearnedRouter(), "n_tasks": 2},
        "AdaptedFrom": {"step": "runs/x/checkpoints/1", "variant": "mhr", "seed": 0},
        "Data": {"mixture": "m", "inputs_length": 1, "targets_length": 1},
        "Method": {"run": "runs/x", "variant": "mhr"},
        "TableRouter": {"rows": ((1.0, 0.0),)},
    }
    kinds = {name.rpartition(".")[2]: kind for name, kind in named().items() if isinstance(kind, type)}
    made = {name: kind(**needed.get(name, {})) for name, kind in kinds.items() if name not in ("Experiment",)}
    made["Experiment"] = kinds["Experiment"](made["T5Config"], made["Data"], made["Adapters"])
    made["LoRA of rank 2"] = poly_jax.LoRA(rank=2)
    made["a length"] = poly_jax.Decoding(max_length=10)
    return made


def test_objects_made_in_code_do_not_depend_on_what_was_loaded(tmp_path):
    before = made_in_code()
    assert len(before) > 20
    loads = [
        configuration.load(["recipes/skillbench/cpoly.gin"], BINDINGS),
        configuration.load(["recipes/skillbench/private.gin"], ["LoRA.rank=9", "Data.batch_size=2"]),
    ]
    for loaded in (*loads, *reversed(loads)):
        loaded.make("LoRA"), loaded.experiment()
        assert made_in_code() == before
    # The bindings are not lost: they apply to what the loaded configuration makes.
    assert [loaded.make("LoRA").rank for loaded in loads] == [3, 9]
    assert loads[0].make("Partitioning") == poly_jax.Partitioning(model=2)
    bound = {binding.split(".")[0].split("/")[-1] for binding in BINDINGS}
    for name in bound - {"Adapters", "Data"}:
        assert loads[0].make(name) != before[name], name


def test_named_configurables_are_made_into_plain_objects():
    loaded = configuration.load(["recipes/skillbench/private.gin"])
    experiment = loaded.experiment()
    assert type(experiment.adapters) is poly_jax.Adapters
    assert experiment.adapters.for_tasks(["a", "b", "c"]).inventory_size == 3
    assert experiment == loaded.arguments("train", output_dir="x")["experiment"]
    assert all(field.name in vars(experiment) for field in dataclasses.fields(experiment))


def test_the_optimizer_for_adapting_is_bound_in_its_own_scope():
    loaded = configuration.load(["recipes/skillbench/mhr.gin"], ["Optimizer.b1=0.5"])
    adapting = loaded.arguments("adapt", run="r", task="t", output_dir="x")["optimizer"]
    training = loaded.arguments("train", output_dir="x")["optimizer"]
    assert (training.learning_rate, adapting.learning_rate) == (0.03, 0.001)
    assert training.b1 == adapting.b1 == 0.5
    given = configuration.load(
        ["recipes/skillbench/mhr.gin"],
        ["adapt.optimizer=@mine/Optimizer()", "mine/Optimizer.learning_rate=0.2", "train.optimizer=None"],
    )
    assert given.arguments("adapt", run="r", task="t", output_dir="x")["optimizer"].learning_rate == 0.2
    assert given.arguments("train", output_dir="x")["optimizer"] == dataclasses.replace(training, b1=0.9)


@pytest.mark.parametrize("name", ["soup-selected", "lorahub"])
def test_a_variants_choice_is_set_by_the_configuration(name):
    from poly_jax.transfer.settings import configured
    from poly_jax.transfer.variants import find

    loaded = configuration.load([], ["SelectedSkills.count=3", "SearchedWeights.candidates=3"])
    variant = find(name)
    assert variant.choice.size(100) in (5, 20)
    assert configured(variant, loaded).choice.size(100) == 3


def test_every_value_that_was_used_is_listed():
    loaded = configuration.load(["recipes/skillbench/mhr.gin"])
    loaded.arguments("train", output_dir="x")
    operative = loaded.operative().splitlines()
    for line in (
        "train.seed = 0",
        "train.steps = 400",
        "LearnedRouter.temperature = 1.0",
        "Optimizer.b2 = 0.999",
        "Decoding.n_beams = 1",
        "Partitioning.model = 1",
        "Experiment.backbone = @skillbench.backbone()",
    ):
        assert line in operative
    assert not any(line.startswith(("Adapters.n_tasks", "train.texts")) for line in operative)


def test_a_function_that_is_named_is_called_later_with_its_own_bindings(tmp_path, monkeypatch):
    (tmp_path / "named_functions.py").write_text(
        "import gin\n\ncalls = []\n\n\n@gin.register\n"
        "def noted(folder, size=1):\n    calls.append((folder, size))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, scope in (("a", ""), ("b", "s/")):
        lines = [
            "import named_functions",
            f"Data.register = @{scope}noted",
            f"{scope}noted.folder = '{name}'",
        ]
        (tmp_path / f"{name}.gin").write_text("\n".join(lines))
    datas = [
        configuration.load([str(tmp_path / name)]).make("Data", "m", 1, 1)
        for name in ("a.gin", "b.gin", "a.gin")
    ]
    configuration.load([str(tmp_path / "a.gin")], ["noted.size=5"])
    for data in datas:
        data.register_tasks()
    assert importlib.import_module("named_functions").calls == [("a", 1), ("b", 1), ("a", 1)]
    assert datas[0] == datas[2] != datas[1]
