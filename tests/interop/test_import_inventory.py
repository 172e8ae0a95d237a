"""Several adapters become one run, each of whose skills computes what its own folder computes."""

import json
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from poly_jax import cli, configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.configuration.gin_text import bindings
from poly_jax.data.task_table import TaskTable
from poly_jax.interop import import_inventory as program
from poly_jax.interop.task_mix import mixed
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.open_run import open_run
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin, read_table
from poly_jax.training.saved_steps import step_folder
from poly_jax.weights import t5_names
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.content_hash import content_hash
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.t5_dimensions import sites
from poly_jax.weights.tree import flatten, split, unflatten

pytestmark = pytest.mark.usefixtures("own_folder")

BASE = {
    "model_type": "t5",
    "vocab_size": 12,
    "d_model": 4,
    "num_heads": 2,
    "d_kv": 4,
    "d_ff": 8,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
QUERY = "encoder.block.{}.layer.0.SelfAttention.q"
WO = "encoder.block.{}.layer.1.DenseReluDense.wo"
PREFIX = "base_model.model."


@pytest.fixture
def base(hugging_face_tensors, write_hugging_face):
    """Path of a small T5."""
    return write_hugging_face(BASE, hugging_face_tensors(BASE))


@pytest.fixture
def lora(base):
    """A function that writes a PEFT LoRA folder for that T5."""

    def write(path, rank=2, alpha=6, maps=(QUERY,), seed=0, **options):
        rng = np.random.default_rng(seed)
        tensors = {}
        for name in (each.format(layer) for each in maps for layer in range(2)):
            d_in, d_out = widths(str(t5_names.to_t5x(name)))
            tensors[f"{PREFIX}{name}.lora_A.weight"] = rng.normal(size=(rank, d_in)).astype(np.float32)
            tensors[f"{PREFIX}{name}.lora_B.weight"] = rng.normal(size=(d_out, rank)).astype(np.float32)
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "task_type": "SEQ_2_SEQ_LM"}
        targets = sorted({name.rsplit(".", 1)[1] for name in maps})
        named = {"base_model_name_or_path": str(base), "target_modules": targets}
        return folder(path, {**config, **named, **options}, tensors)

    return write


@pytest.fixture
def ia3(base):
    """A function that writes a PEFT (IA)^3 folder for that T5."""

    def write(path, maps=(QUERY,), seed=0):
        rng = np.random.default_rng(seed)
        tensors = {}
        for name in (each.format(layer) for each in maps for layer in range(2)):
            width = widths(str(t5_names.to_t5x(name)))[1]
            tensors[f"{PREFIX}{name}.ia3_l"] = rng.normal(size=(width, 1)).astype(np.float32)
        targets = sorted({name.rsplit(".", 1)[1] for name in maps})
        config = {"peft_type": "IA3", "base_model_name_or_path": str(base), "target_modules": targets}
        return folder(path, {**config, "feedforward_modules": []}, tensors)

    return write


def widths(path):
    """Input and output width of a map, by T5X's path."""
    config = T5Config(emb_dim=4, num_heads=2, head_dim=4, mlp_dim=8)
    return sites(config)[t5_names.site(path)]


def folder(path, config, tensors):
    place = pathlib.Path(path)
    place.mkdir(parents=True)
    (place / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, place / "adapter_model.safetensors")
    return str(place)


def opened(run):
    return open_run(run, configuration.load([], recorded=configuration.run_config(run)).experiment())


def adapter(run, task, module):
    """A task's factors and scale in a run, at Hugging Face's name of a map."""
    found = opened(run)
    mix = mixed(found, found.adapters, str(t5_names.to_t5x(module)), found.table.id(task))
    skill = found.adapters.skill
    return mix, getattr(skill, "alpha", 1.0) / getattr(skill, "rank", 1)


def update(run, task, module):
    """A task's update of a map in a run, [d_in, d_out]."""
    mix, scale = adapter(run, task, module)
    return scale * mix["lora_a"].astype(np.float64) @ mix["lora_b"].astype(np.float64)


def pefts_update(path, module, scale):
    """The update [d_in, d_out] by PEFT's definition, from the tensors of the folder."""
    stored = load_file(pathlib.Path(path) / "adapter_model.safetensors")
    a, b = (stored[f"{PREFIX}{module}.lora_{m}.weight"].astype(np.float64) for m in "AB")
    return scale * (b @ a).T


def test_skills_of_other_ranks_scales_and_sites_compute_what_their_folders_compute(lora, capsys):
    lora("loras/small", rank=1, alpha=4, seed=1)
    lora("loras/large", rank=3, alpha=6, maps=(QUERY, WO), seed=2)
    lora("loras/rooted", rank=2, alpha=-5, seed=3, use_rslora=True)
    places = [f"loras/{name}" for name in ("small", "large", "rooted")]
    assert cli.main(["import", "--from", *places, "--output=run"]) == 0
    shown = capsys.readouterr().out
    assert read_table(step_folder("run")).names == ("large", "rooted", "small")
    for name, scale in (("small", 4.0), ("large", 2.0), ("rooted", -5 / np.sqrt(2))):
        for module in (QUERY.format(0), QUERY.format(1)):
            expected = pefts_update(f"loras/{name}", module, scale)
            np.testing.assert_allclose(update("run", name, module), expected, rtol=1e-6, atol=1e-6)
    expected = pefts_update("loras/large", WO.format(1), 2.0)
    np.testing.assert_allclose(update("run", "large", WO.format(1)), expected, rtol=1e-6, atol=1e-6)
    assert not update("run", "small", WO.format(1)).any()
    assert (
        "small: LoRA of rank 1, padded to 3, scale 4 multiplied in; changes nothing at encoder/mlp/wo"
        in shown
    )
    assert "large: LoRA of rank 3, scale 2 multiplied in, from loras/large" in shown
    assert "run: a run of 3 skills, large, rooted, small" in shown


def test_factors_with_one_scale_are_kept_as_they_are(lora):
    lora("one", rank=2, alpha=6, seed=1)
    lora("two", rank=1, alpha=3, seed=2)
    assert cli.main(["import", "--from", "one", "two", "--output=run"]) == 0
    stored = load_file("two/adapter_model.safetensors")
    mix, scale = adapter("run", "two", QUERY.format(0))
    assert scale == 3.0
    theirs = stored[f"{PREFIX}{QUERY.format(0)}.lora_A.weight"].T
    np.testing.assert_array_equal(mix["lora_a"], np.pad(theirs, ((0, 0), (0, 1))))


def test_the_order_of_the_sources_does_not_matter(lora):
    places = [lora(name, rank=rank, seed=rank) for name, rank in (("b", 2), ("a", 3), ("c", 1))]
    for output, order in (("one", places), ("other", places[::-1])):
        assert cli.main(["import", "--from", *order, f"--output={output}"]) == 0
    one, other = opened("one"), opened("other")
    assert one.table == other.table
    for name, array in one.skills.items():
        np.testing.assert_array_equal(array, other.skills[name])


def test_ia3_vectors_are_kept_and_are_1_at_sites_without_one(ia3):
    ia3("few", seed=1)
    ia3("many", maps=(QUERY, WO), seed=2)
    assert cli.main(["import", "--from=few", "--from=many", "--output=run"]) == 0
    for name in ("few", "many"):
        stored = load_file(f"{name}/adapter_model.safetensors")[f"{PREFIX}{QUERY.format(1)}.ia3_l"]
        np.testing.assert_array_equal(adapter("run", name, QUERY.format(1))[0]["ia3"], stored[:, 0])
    np.testing.assert_array_equal(adapter("run", "few", WO.format(0))[0]["ia3"], np.ones(4))


def test_runs_and_files_of_the_reference_implementation_are_sources_too(lora, base):
    lora("peft", rank=2, seed=1)
    assert cli.main(["import", f"--from={lora('alone', rank=3, seed=2)}", "--output=made"]) == 0
    stored = load_file("peft/adapter_model.safetensors")
    renamed = {
        name.removeprefix(PREFIX).replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b"): array
        for name, array in stored.items()
    }
    save_file(renamed, "theirs.safetensors")
    bound = ["--gin.LoRA.alpha=6.0"]
    assert cli.main(["import", "--from", "peft", "made", "theirs.safetensors", "--output=run", *bound]) == 0
    assert read_table(step_folder("run")).names == ("made", "peft", "theirs")
    module = QUERY.format(0)
    for name, place, scale in (("made", "alone", 2.0), ("peft", "peft", 3.0), ("theirs", "peft", 3.0)):
        expected = pefts_update(place, module, scale)
        np.testing.assert_allclose(update("run", name, module), expected, rtol=1e-6, atol=1e-6)
    # A run whose tasks have a skill each gives all of them, under their own names.
    lora("more", rank=1, seed=4)
    assert cli.main(["import", "--from", "run", "more", "--output=larger"]) == 0
    assert read_table(step_folder("larger")).names == ("made", "more", "peft", "theirs")
    expected = pefts_update("alone", module, 2.0)
    np.testing.assert_allclose(update("larger", "made", module), expected, rtol=1e-6, atol=1e-6)


@pytest.fixture
def mhr_run(base):
    """A function that writes a run of that T5 with two skills and two splits, and returns its arrays."""

    def write(path, tasks, **more):
        adapters = Adapters(
            LoRA(rank=2, alpha=3.0),
            LearnedRouter(),
            n_tasks=len(tasks),
            n_skills=2,
            n_splits=2,
            sites=("encoder/attention/query",),
            **more,
        )
        config = T5Config.of_checkpoint(open_backbone(str(base)).stated_fields(), base)
        shapes = split(parameter_shapes(Transformer(config, adapters))[0], is_adapter_parameter)[0]
        rng = np.random.default_rng(0)
        arrays = {
            name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in flatten(shapes).items()
        }
        lines = ["Experiment.model = @T5Config()", "Experiment.data = @Data()", *bindings(config)]
        lines.append("Experiment.adapters = @Adapters")
        lines += [*bindings(adapters, skip=("n_tasks",)), f"Experiment.backbone = {str(base)!r}"]
        digest = content_hash(open_backbone(str(base)).tensors)
        text = configuration.Texts("").with_bindings(lines).config
        write_run(path, unflatten(arrays), TaskTable(tasks), Origin(str(base), digest), text)
        return arrays

    return write


def test_the_skills_of_a_routed_run_are_numbered(mhr_run, lora):
    arrays = mhr_run("routed", ("x", "y", "z"))
    lora("plain", rank=1)
    assert cli.main(["import", "--from", "routed", "plain", "--output=run"]) == 0
    assert read_table(step_folder("run")).names == ("plain", "routed_0", "routed_1")
    place = f"{t5_names.to_t5x(QUERY.format(1))}/skills"
    a, b = (arrays[f"{place}/lora_{m}"][:, 1].astype(np.float64) for m in "ab")
    # The splits of A are rows of the factor, and those of B are columns of its own.
    expected = 1.5 * np.concatenate(a, axis=0) @ np.concatenate(b, axis=1)
    np.testing.assert_allclose(update("run", "routed_1", QUERY.format(1)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"private_skill": LoRA(rank=1)}], ids=["mhr", "c_poly"])
def test_a_run_of_one_task_is_the_skill_that_its_task_uses(mhr_run, lora, more):
    mhr_run("adapted", ("x",), **more)
    lora("plain", rank=4)
    assert cli.main(["import", "--from", "adapted", "plain", "--output=run"]) == 0
    assert cli.main(["export", "--run=adapted", "--format=peft_lora", "--output=as_peft"]) == 0
    expected = pefts_update("as_peft", QUERY.format(0), 1.5)
    np.testing.assert_allclose(update("run", "adapted", QUERY.format(0)), expected, rtol=1e-5, atol=1e-6)


def test_a_run_with_private_skills_is_refused_with_what_to_export(mhr_run, lora, capsys):
    mhr_run("several", ("x", "y"), private_skill=LoRA())
    line = refused(capsys, "several", lora("plain"))
    assert "export the tasks that you need (poly-jax export --run=several --task=TASK" in line


def test_skills_of_one_split_are_cut_into_as_many_as_are_wanted(lora):
    lora("one", rank=1, seed=1)
    lora("two", rank=2, seed=2)
    bound = ["--gin.Adapters.n_splits=2", "--gin.LoRA.merge_after=True"]
    assert cli.main(["import", "--from", "one", "two", "--output=run", *bound[:1]]) == 0
    assert opened("run").adapters.n_splits == 2
    assert cli.main(["import", "--from", "one", "two", "--output=after", *bound]) == 0
    assert opened("after").adapters.skill.merge_after
    for name, scale in (("one", 6.0), ("two", 3.0)):
        expected = pefts_update(name, QUERY.format(1), scale)
        np.testing.assert_allclose(update("run", name, QUERY.format(1)), expected, rtol=1e-6, atol=1e-6)


def test_names_in_a_file_replace_those_of_the_folders(lora):
    lora("here/adapter", seed=1)
    lora("there/adapter", seed=2)
    pathlib.Path("names.txt").write_text("upper\ndrop\n")
    places = ["--from", "here/adapter", "there/adapter"]
    assert cli.main(["import", *places, "--tasks=names.txt", "--output=run"]) == 0
    expected = pefts_update("here/adapter", QUERY.format(0), 3.0)
    np.testing.assert_allclose(update("run", "upper", QUERY.format(0)), expected, rtol=1e-6, atol=1e-6)


def test_skills_of_one_name_are_refused(lora, capsys):
    lora("here/adapter", seed=1)
    lora("there/adapter", seed=2)
    assert cli.main(["import", "--from", "here/adapter", "there/adapter", "--output=run"]) == 1
    told = "here/adapter and there/adapter both have a skill 'adapter'; name the skills with --tasks=FILE"
    assert told in capsys.readouterr().err


def refused(capsys, *sources, more=()):
    assert cli.main(["import", "--from", *sources, "--output=run", *more]) == 1
    assert not pathlib.Path("run").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("poly-jax: error")]
    return line


def test_adapters_of_two_kinds_are_refused(lora, ia3, capsys):
    line = refused(capsys, lora("a"), ia3("b"))
    assert "a has skills of the kind LoRA, and b of the kind IA3; an inventory has one kind" in line


def test_adapters_of_two_models_on_the_hub_are_refused(lora, base, capsys):
    a, b = (
        lora(name, base_model_name_or_path=model)
        for name, model in (("a", "google/flan-t5-small"), ("b", "google/t5-v1_1-small"))
    )
    line = refused(capsys, a, b, more=[f"--backbone={base}"])
    assert "a adapts google/flan-t5-small, and b adapts google/t5-v1_1-small" in line


def test_a_copy_of_the_backbone_will_do_and_another_one_will_not(lora, base, hugging_face_tensors, capsys):
    for name, factor in (("copy", 1), ("other", 2)):
        pathlib.Path(name).mkdir()
        (pathlib.Path(name) / "config.json").write_bytes((base / "config.json").read_bytes())
        tensors = {key: factor * array for key, array in hugging_face_tensors(BASE).items()}
        save_file(tensors, f"{name}/model.safetensors", metadata={"format": "pt"})
    a, b = lora("a"), lora("b", base_model_name_or_path="other")
    line = refused(capsys, a, b)
    assert f"b adapts other, which is not the backbone {base} (their contents differ)" in line
    c = lora("c", base_model_name_or_path="copy")
    assert cli.main(["import", "--from", a, c, "--output=run"]) == 0


def test_adapters_without_a_backbone_are_refused(lora, capsys):
    line = refused(capsys, lora("a", base_model_name_or_path=None), lora("b", base_model_name_or_path=None))
    assert "a, b: none names the T5 that it adapts by a local path; give it with --backbone" in line


def test_a_path_without_adapters_is_refused(lora, base, capsys):
    line = refused(capsys, lora("a"), str(base))
    assert f"{base} holds no adapters; give PEFT folders" in line
    assert "nowhere does not exist; give PEFT folders" in refused(capsys, "a", "nowhere")


def test_weights_without_their_configuration_are_refused(lora, capsys):
    bare = lora("bare")
    (pathlib.Path(bare) / "adapter_config.json").unlink()
    assert f"{bare} has weights and no adapter_config.json" in refused(capsys, lora("a"), bare)


def test_a_model_on_the_hub_that_cannot_be_compared_is_named(lora, base, capsys):
    a = lora("a", base_model_name_or_path="google/t5-v1_1-base")
    assert cli.main(["import", "--from", a, lora("b"), f"--backbone={base}", "--output=run"]) == 0
    line = f"a says it adapts google/t5-v1_1-base; whether {base} is that model cannot be checked"
    assert line in capsys.readouterr().err


def test_runs_of_different_splits_are_refused(lora, capsys):
    for splits in (2, 4):
        places = [lora(f"{splits}/{name}", seed=splits) for name in ("a", "b")]
        bound = f"--gin.Adapters.n_splits={splits}"
        assert cli.main(["import", "--from", *places, f"--output=run_{splits}", bound]) == 0
    pathlib.Path("names.txt").write_text("a\nb\nc\nd\n")
    line = refused(capsys, "run_2", "run_4", more=["--tasks=names.txt"])
    assert "run_2 has skills of 2 splits (MHR heads), and run_4 of 4" in line
    line = refused(capsys, "run_2", lora("c"), more=["--gin.Adapters.n_splits=4"])
    assert "Adapters.n_splits is 4, and run_2 has skills of 2 splits" in line
    line = refused(capsys, "2/a", "4/b", more=["--gin.Adapters.n_splits=3"])
    assert "Adapters.n_splits is 3, which does not divide the adapted widths; use a divisor of 4" in line


def test_an_adapter_of_another_width_is_refused_by_its_path(lora, capsys):
    a, b = lora("a"), lora("b")
    stored = load_file("b/adapter_model.safetensors")
    wider = {
        name: np.pad(array, ((0, 0), (0, 1))) if "lora_A" in name else array for name, array in stored.items()
    }
    save_file(wider, "b/adapter_model.safetensors")
    assert "b does not fit the model" in refused(capsys, a, b)


def test_an_import_that_is_stopped_leaves_nothing(lora, monkeypatch):
    a, b = lora("a"), lora("b")
    items = program.write_run.__globals__["items"]

    def stop(*arguments):
        items(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setitem(program.write_run.__globals__, "items", stop)
    with pytest.raises(KeyboardInterrupt):
        program.import_inventory([a, b], "run", configuration.Configuration())
    assert not pathlib.Path("run").exists()
