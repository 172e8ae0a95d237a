"""The gin front end: where files are found, which value wins, and one clear line for every mistake."""

import dataclasses
import os
import pathlib
import re
import sys

import gin
import pytest
from etils import epath

from poly_jax import configuration
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.training import run_folder

pytestmark = pytest.mark.usefixtures("own_folder")


@gin.configurable(module="kitchen")
def brew(leaf, minutes=gin.REQUIRED, sugar=0, kettle=None):
    return leaf, minutes, sugar, kettle


@gin.configurable(module="kitchen")
def serve(guests=1):
    if guests == 0:
        raise UserError("serve.guests is 0; invite someone")
    return pour(guests)


@gin.configurable(module="kitchen")
@dataclasses.dataclass(frozen=True)
class Recipe:
    leaf: str
    litres: float
    sugar: int = 0


def pour(guests, pot):
    return guests, pot


@gin.configurable(module="garden")
def water(litres=1):
    return litres


@gin.configurable("water", module="cellar")
def cellar_water(litres=1):
    return litres


def write(name, *lines):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return name


def complaint(files=(), bindings=()):
    with pytest.raises(UserError) as error:
        configuration.load(files, bindings)
    message = str(error.value)
    assert "\n" not in message
    return message


# Where gin files are found, and which value wins.


def test_shipped_files_are_found_from_any_folder():
    config = configuration.load(["models/t5_1_1_xl.gin"]).make(T5Config)
    assert (config.emb_dim, config.mlp_dim) == (2048, 5120)


def test_the_current_folder_comes_before_the_shipped_files():
    write("models/t5_1_1_form.gin", "T5Config.mlp_activations = ('relu',)")
    config = configuration.load(["models/t5_1_1_tiny.gin"]).make(T5Config)
    assert config.emb_dim == 64
    assert config.mlp_activations == ("relu",)


def test_a_module_in_the_current_folder_is_imported_though_the_program_is_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_mine.py").write_text(
        "import gin\n\n\n@gin.configurable\ndef mine(x=1):\n    return x\n"
    )
    (tmp_path / "my.gin").write_text("import module_of_mine\nmine.x = 2\n")
    loaded = configuration.load(["my.gin"])
    assert sys.modules.pop("module_of_mine")
    assert loaded.make("mine") == 2


def test_every_shipped_file_is_a_gin_file_below_the_root():
    assert "models/t5_1_1_small.gin" in configuration.shipped()
    assert all((configuration.gin_root() / name).is_file() for name in configuration.shipped())


# Those of t5x/ are for t5x's programs: tests/interop/t5x runs them.
@pytest.mark.parametrize("name", [name for name in configuration.shipped() if not name.startswith("t5x/")])
def test_every_shipped_file_binds_only_existing_parameters(name):
    problem = ""
    try:
        configuration.load([name])
    except UserError as error:
        problem = str(error)
    # Only values that the file leaves to the user may be missing.
    assert re.search(r"^$| (is|are) not set; add |which has no value; add ", problem), problem


def test_files_are_read_in_order_and_bindings_last():
    write("first.gin", "brew.sugar = 1", "brew.minutes = 1", "brew.leaf = 'oolong'")
    write("second.gin", "brew.sugar = 2", "brew.minutes = 2")
    loaded = configuration.load(["first.gin", "second.gin"], ["brew.sugar=3"])
    assert loaded.make(brew) == ("oolong", 2, 3, None)


def test_a_load_forgets_the_previous_load():
    before = configuration.load([], ["brew.sugar=3", "brew.minutes=1"])
    after = configuration.load([], ["brew.minutes=4"])
    assert after.make(brew, "oolong") == ("oolong", 4, 0, None)
    assert before.make(brew, "oolong") == ("oolong", 1, 3, None)


def test_a_load_leaves_the_state_of_gin_unchanged():
    gin.bind_parameter("brew.sugar", 7)
    try:
        configuration.load([], ["brew.minutes=4"]).make(brew, "oolong")
        assert gin.get_bindings(brew) == {"sugar": 7}
        assert configuration.current().make(brew, "oolong", minutes=1) == ("oolong", 1, 7, None)
    finally:
        gin.clear_config()


def test_a_program_may_register_and_bind_after_loading():
    loaded = configuration.load([], ["brew.minutes=4"])
    gin.bind_parameter("brew.sugar", 5)
    gin.clear_config()
    assert loaded.make(brew, "oolong", sugar=5) == ("oolong", 4, 5, None)


def test_a_missing_file_does_not_leave_a_log_line(capfd):
    write("outer.gin", "include 'models/t5_1_1_tiny.gin'")
    configuration.load(["outer.gin"])
    assert capfd.readouterr().err == ""


# The configuration of a run.


def test_the_files_of_a_run_configure_the_next_program_in_the_same_way():
    write("run.gin", "SUGAR = 7", "brew.sugar = %SUGAR", "brew.kettle = @kitchen.serve")
    loaded = configuration.load(["models/byt5_small.gin", "run.gin"], ["brew.minutes=4"])
    before = loaded.make(brew, "oolong"), loaded.make(T5Config)
    assert before[0][1:3] == (4, 7)
    run_folder.claim(epath.Path("runs/mine").absolute(), loaded.texts)
    for run in ("runs/mine", "runs/mine/checkpoints/100"):
        os.makedirs(run, exist_ok=True)
        again = configuration.load([configuration.run_config(run)])
        assert (again.make(brew, "oolong"), again.make(T5Config)) == before
    changed = configuration.load([configuration.run_config("runs/mine")], ["SUGAR=8"])
    assert changed.make(brew, "oolong")[2] == 8


def test_a_configuration_loads_the_run_then_the_given_files_then_the_bindings():
    write("runs/mine/config.gin", "brew.leaf = 'oolong'", "brew.minutes = 1", "brew.sugar = 1")
    write("recipe.gin", "brew.kettle = 'tin'", "brew.minutes = 5")
    write("mine.gin", "brew.minutes = 2", "brew.sugar = 2")
    given = configuration.Configuration(("mine.gin",), ("brew.sugar=3",))
    assert given.load("recipe.gin", run="runs/mine").make(brew) == ("oolong", 2, 3, "tin")


def test_a_folder_that_is_not_a_run_is_refused_with_a_clear_error():
    pathlib.Path("empty/folder/deep").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^there is no folder nowhere; .*output folder"):
        configuration.run_config("nowhere")
    with pytest.raises(UserError, match=r"^empty/folder/deep is not a run: no config\.gin"):
        configuration.run_config("empty/folder/deep")


# Mistakes in gin files: one line with the place and the remedy.

IN_A_FILE = {
    "misspelt configurable": (
        ["", "T5Confg.emb_dim = 3"],
        "bad.gin, line 2: there is no configurable 'T5Confg'; did you mean T5Config?",
    ),
    "misspelt block": (["T5Confg:", "  emb_dim = 3"], "bad.gin, line 1: there is no configurable 'T5Confg'"),
    "misspelt reference": (
        ["brew.kettle = @srve()"],
        "bad.gin, line 1: there is no configurable 'srve'; did you mean serve?",
    ),
    "unknown parameter": (
        ["T5Config.emb_dimm = 3"],
        "bad.gin, line 1: T5Config has no parameter 'emb_dimm'; did you mean emb_dim",
    ),
    "nothing like a parameter": (["water2.x = 1"], "bad.gin, line 1: there is no configurable 'water2'"),
    "parameters are listed": (
        ["serve.zzz = 1"],
        "bad.gin, line 1: serve has no parameter 'zzz'; it has guests",
    ),
    "two of that name": (
        ["water.litres = 2"],
        "'water' names several configurables; write cellar.water or garden.water",
    ),
    "unquoted text": (
        ["brew.leaf = oolong"],
        "bad.gin, line 1: oolong is not a gin value; quote a text: 'oolong'",
    ),
    "unquoted path": (
        ["brew.leaf = /tea/oolong"],
        "bad.gin, line 1: no gin value in 'brew.leaf = /tea/oolong'",
    ),
    "not Python's constants": (["brew.leaf = true"], "bad.gin, line 1: true is not a gin value; write True"),
    "no statement": (
        ["", "", "brew"],
        "bad.gin, line 3: Couldn't parse statement, expected ':' or '=', in 'brew'",
    ),
    "open bracket": (
        ["brew.leaf = (1,"],
        ": EOF in multi-line statement; a bracket or quote may be left open",
    ),
    "unindented": (["brew:", "    sugar = 1", "  leaf = 2"], "bad.gin, line 3: unindent does not match"),
    "unknown module": (["import no_such_module"], "bad.gin, line 1: No module named 'no_such_module'"),
    "missing include": (
        ["include 'models/t5_1_1_tin.gin'"],
        "bad.gin, line 1: there is no gin file 'models/t5_1_1_tin.gin'",
    ),
    "macro without a value": (
        ["brew.sugar = %SUGAR", "SUGR = 3"],
        "brew.sugar is bound to %SUGAR, which has no value; did you mean SUGR?",
    ),
    "macro deep in a value": (
        ["brew.kettle = [1, {2: %SIZE}]"],
        "brew.kettle is bound to %SIZE, which has no value; add --gin.SIZE=VALUE",
    ),
    "required binding": (
        ["brew.leaf = %gin.REQUIRED"],
        "brew.leaf is not set; add --gin.brew.leaf=VALUE or bind it in a gin file",
    ),
    "required in a scope": (
        ["tea/brew.leaf = %gin.REQUIRED"],
        "tea/brew.leaf is not set; add --gin.tea/brew.leaf=VALUE",
    ),
    "required macros": (
        ["SUGAR = %gin.REQUIRED", "LEAF = %gin.REQUIRED"],
        "SUGAR and LEAF are not set; add --gin.SUGAR=VALUE --gin.LEAF=VALUE",
    ),
}


@pytest.mark.parametrize(("lines", "expected"), IN_A_FILE.values(), ids=IN_A_FILE)
def test_a_mistake_in_a_gin_file_is_reported_in_one_line(lines, expected):
    write("bad.gin", *lines)
    assert expected in complaint(["bad.gin"])


@pytest.mark.parametrize("place", ["wrong.gin", "inner.gin"])
def test_a_gin_file_in_utf16_is_named_with_the_command_that_converts_it(place):
    pathlib.Path("wrong.gin").write_text("include 'inner.gin'\n")
    pathlib.Path(place).write_text("T5Config.vocab_size = 3\n", encoding="utf-16")
    with pytest.raises(UserError, match=rf"^{place} is UTF-16 text, .*`iconv -f UTF-16 -t UTF-8"):
        configuration.load(["wrong.gin"])


def test_a_mistake_in_an_included_file_names_that_file():
    write("outer.gin", "include 'inner.gin'")
    write("inner.gin", "", "T5Config.emb_dimm = 3")
    assert complaint(["outer.gin"]).startswith("inner.gin, line 2: T5Config has no parameter 'emb_dimm'")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("models/t5_1_1_smal.gin", "models/t5_1_1_small.gin"),
        ("t5_1_1_small", "models/t5_1_1_small.gin"),
        ("gin/models/mt5_xl.gin", "models/mt5_xl.gin"),
    ],
)
def test_a_missing_gin_file_is_reported_with_a_similar_shipped_one(name, close):
    message = complaint([name])
    assert f"there is no gin file {name!r}" in message
    assert f"did you mean {close}" in message


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("recipes/sni/mhr.gin", "recipes/sni/pretrain.gin"),
        ("gin/recipes/sni/mhr_tiny.gin", "recipes/sni/pretrain_tiny.gin"),
        ("recipes/t0/tiny.gin", "recipes/sni/tiny_bytes.gin"),
        ("gin/recipes/t0/tiny_multitask.gin", "recipes/sni/tiny_bytes_multitask.gin"),
        ("routers/ibp_prior.gin", "runs/ibp_prior.gin"),
    ],
)
def test_a_shipped_file_that_was_renamed_is_reported_with_its_new_name(name, new):
    assert complaint([name]) == f"{name!r} is now {new!r}"
    assert (configuration.gin_root() / new).is_file()


@pytest.mark.parametrize("name", ["nothing_like_it_anywhere.gin", "/no/such/folder/x.gin"])
def test_a_missing_gin_file_like_no_shipped_one_asks_to_check_the_path(name):
    assert complaint([name]).endswith("check the path")


# Mistakes in `--gin.NAME=VALUE`: the flag itself, then the remedy.

IN_A_FLAG = {
    "misspelt configurable": (
        "T5Confg.emb_dim=3",
        "there is no configurable 'T5Confg'; did you mean T5Config?",
    ),
    "misspelt parameter": (
        "T5Config.emb_dimm=3",
        "T5Config has no parameter 'emb_dimm'; did you mean emb_dim",
    ),
    "unquoted text": (
        "brew.leaf=oolong",
        "oolong is not a gin value; quote a text: --gin.brew.leaf=\"'oolong'\"",
    ),
    "unquoted path": ("brew.leaf=gs://tea/x-1", "quote a text: --gin.brew.leaf=\"'gs://tea/x-1'\""),
    "unquoted list": ("brew.leaf=black,green", "quote a text: --gin.brew.leaf=\"'black,green'\""),
    "constant": ("brew.leaf=none", "none is not a gin value; write --gin.brew.leaf=None"),
    "no value": ("brew.leaf=", "the value is missing"),
    "open bracket": ("brew.leaf=(1,", "(1, is not a gin value; write a Python literal"),
    "call": ("brew.leaf=f(3)", "f(3) is not a gin value; write a Python literal"),
    "bad name": ("brew-leaf=3", "'brew-leaf' cannot be bound"),
    "no such macro": ("SUGER=3", "no gin file defines or uses the macro 'SUGER'; did you mean SUGAR?"),
    "configurable left out": (
        "minutes=3",
        "no gin file defines or uses the macro 'minutes'; did you mean --gin.brew.minutes?",
    ),
}


@pytest.mark.parametrize(("binding", "expected"), IN_A_FLAG.values(), ids=IN_A_FLAG)
def test_a_mistake_in_a_flag_is_reported_in_one_line_that_repeats_the_flag(binding, expected):
    write("good.gin", "SUGAR = 1", "brew.sugar = %SUGAR")
    message = complaint(["good.gin"], [binding])
    assert message.startswith(f"--gin.{binding}: ")
    assert expected in message


def test_a_macro_is_overridden_where_a_file_defines_or_uses_it():
    write("good.gin", "UNUSED = 1", "brew.sugar = %SUGAR")
    loaded = configuration.load(["good.gin"], ["UNUSED=2", "SUGAR=3", "brew.minutes=1"])
    assert loaded.make(brew, "oolong")[2] == 3


def test_a_required_binding_may_come_from_a_flag():
    write("good.gin", "brew.leaf = %gin.REQUIRED")
    loaded = configuration.load(["good.gin"], ["brew.leaf='oolong'", "brew.minutes=1"])
    assert loaded.make(brew)[0] == "oolong"


# Errors that appear while a program runs.


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda make: make(brew, "oolong"), "brew.minutes is not set; add --gin.brew.minutes=VALUE"),
        (lambda make: make(brew, minutes=3), "brew.leaf is not set; add --gin.brew.leaf=VALUE"),
        (lambda make: make(Recipe, "oolong"), "Recipe.litres is not set; add --gin.Recipe.litres=VALUE"),
        (
            lambda make: make(Recipe),
            "Recipe.leaf and Recipe.litres are not set; add --gin.Recipe.leaf=VALUE --gin.Recipe.litres=",
        ),
    ],
)
def test_a_binding_that_a_program_needs_is_asked_for(call, expected):
    loaded = configuration.load([])
    with pytest.raises(UserError) as error:
        call(loaded.make)
    assert str(error.value).startswith(expected)


def test_a_binding_that_an_inner_program_needs_is_asked_for():
    loaded = configuration.load([], ["brew.kettle=@Recipe()", "brew.minutes=1", "Recipe.leaf='oolong'"])
    with pytest.raises(UserError, match=r"^Recipe\.litres is not set"):
        loaded.make(brew, "oolong")


def test_an_error_deeper_inside_a_function_is_not_taken_for_an_unset_binding():
    with pytest.raises(UserError, match=r"^serve failed .*TypeError: pour\(\) missing 1 required"):
        configuration.load([]).make(serve)
    with pytest.raises(RuntimeError, match="the kettle is cold"), configuration.explain_unset_bindings():
        raise RuntimeError("the kettle is cold")


def test_an_error_raised_inside_a_configurable_is_still_one_line():
    loaded = configuration.load([], ["serve.guests=0"])
    with pytest.raises(UserError) as error:
        loaded.make(serve)
    assert str(error.value) == "serve.guests is 0; invite someone"
