"""`poly-jax cluster`: tasks whose own skills are similar share a skill of a table."""

import json

import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.analysis.skill_similarity import similar_skills, skill_similarity
from poly_jax.errors import UserError
from poly_jax.training.checksums import checksum
from poly_jax.weights.tree import flatten

QUERY, WO = "encoder/layers_0/attention/query/skills", "decoder/layers_0/mlp/wo/skills"


def turned(a, b, rng):
    """Other factors of the same update."""
    turn = rng.normal(size=(a.shape[-1], a.shape[-1]))
    return a @ turn, np.linalg.inv(turn) @ b


def planted(groups, rng, n_splits=1, noise=0.3):
    """Updates near those of their groups, by factors that have nothing in common."""
    arrays, updates = {}, []
    for place, (d_in, d_out) in ((QUERY, (8, 12)), (WO, (10, 8))):
        centres = [(rng.normal(size=(d_in, 2)), rng.normal(size=(2, d_out))) for _ in set(groups)]
        skills = []
        for group in groups:
            a, b = (centre + noise * rng.normal(size=centre.shape) for centre in centres[group])
            skills.append(turned(a, b, rng))
        updates.append(np.stack([(a @ b).reshape(-1) for a, b in skills]))
        split_a = [np.stack(np.split(a, n_splits, axis=0)) for a, _ in skills]
        split_b = [np.stack(np.split(b, n_splits, axis=1)) for _, b in skills]
        arrays[f"{place}/lora_a"] = np.stack(split_a, axis=1).astype(np.float32)
        arrays[f"{place}/lora_b"] = np.stack(split_b, axis=1).astype(np.float32)
    return arrays, np.concatenate(updates, axis=1)


@pytest.mark.parametrize("n_splits", [1, 2])
def test_skills_are_compared_by_the_cosines_of_their_updates(n_splits):
    arrays, updates = planted([0, 1, 0, 2], np.random.default_rng(0), n_splits)
    unit = updates / np.linalg.norm(updates, axis=1, keepdims=True)
    found = skill_similarity(LoRA(rank=2), arrays)
    np.testing.assert_allclose(found, unit @ unit.T, atol=1e-5)


def test_vectors_are_compared_by_how_they_differ_from_one():
    v = np.random.default_rng(0).normal(1.0, 0.1, size=(1, 3, 6)).astype(np.float32)
    change = v[0].astype(np.float64) - 1
    unit = change / np.linalg.norm(change, axis=1, keepdims=True)
    np.testing.assert_allclose(skill_similarity(IA3(), {f"{QUERY}/ia3": v}), unit @ unit.T, atol=1e-6)


def test_many_skills_are_compared_by_sixty_four_singular_vectors():
    rng = np.random.default_rng(0)
    v = 1 + rng.normal(size=(1, 70, 100))
    u, s, _ = np.linalg.svd(v[0] - 1, full_matrices=False)
    rows = (u * s)[:, :64]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(skill_similarity(IA3(), {f"{QUERY}/ia3": v}), unit @ unit.T, atol=1e-8)
    v[0, 7] = 1
    assert not skill_similarity(IA3(), {f"{QUERY}/ia3": v})[7].any()


def test_planted_clusters_are_found_and_numbered_by_their_first_tasks():
    groups = [1, 0, 1, 2, 0, 0, 2, 1, 2, 1]
    arrays, _ = planted(groups, np.random.default_rng(3))
    found = similar_skills(skill_similarity(LoRA(rank=2), arrays), 3)
    np.testing.assert_array_equal(found, [0, 1, 0, 2, 1, 1, 2, 0, 2, 0])


def test_equal_skills_do_not_make_two_clusters():
    v = np.array([[[2.0, 1.0], [2.0, 1.0], [1.0, 3.0]]])
    similarity = skill_similarity(IA3(), {f"{QUERY}/ia3": v})
    np.testing.assert_array_equal(similar_skills(similarity, 2), [0, 0, 1])
    with pytest.raises(UserError, match="3 skills, 2 of them different, which do not make 3 clusters"):
        similar_skills(similarity, 3)


def test_other_kinds_of_skills_are_refused():
    with pytest.raises(UserError, match="the skills are MTLLoRA; only LoRA and IA3 skills are compared"):
        skill_similarity(MTLLoRA(), {})


PRIVATE = ("Adapters.router = @PrivateRouter()", "Adapters.n_splits = 1", "LoRA.rank = 2")


def alike(path, shape):
    """Updates that the first and the third task share, and the second and the fourth."""
    rng = np.random.default_rng(len(path))
    two = 3 * rng.normal(size=(shape[0], 2, *shape[2:]))
    return np.concatenate([two, two], axis=1)


def cluster(run, *flags):
    return cli.main(["cluster", f"--run={run}", "--output=clusters.json", *flags])


def test_the_table_gives_each_cluster_of_a_run_a_skill_that_training_uses(make_run, tmp_path, capsys):
    run = make_run(PRIVATE, added=alike)
    assert cluster(run.folder, "--clusters=2") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(": routing_a, routing_c")
    rows = json.loads((tmp_path / "clusters.json").read_text())
    first, second = [1, 0], [0, 1]
    assert rows == {"routing_a": first, "routing_b": second, "routing_c": first, "routing_d": second}
    bound = ["Adapters.router = @TableRouter()", "TableRouter.path = 'clusters.json'"]
    loaded = configuration.load(["adapters/lora.gin"], bound)
    adapters = loaded.make(Adapters, n_tasks=4).for_tasks(tuple(sorted(rows)))
    weights = adapters.router.weights({}, np.arange(4), adapters.sizes, None)
    np.testing.assert_array_equal(weights[:, 0], [first, second, first, second])


@pytest.mark.slow
def test_training_goes_on_from_the_table_to_one_skill_for_each_cluster(make_run, tasks, tmp_path):
    from poly_jax.training.open_run import open_run
    from poly_jax.training.train import train

    assert cluster(make_run(PRIVATE, added=alike).folder, "--clusters=2") == 0
    bound = [
        "Adapters.router = @TableRouter()",
        "TableRouter.path = 'clusters.json'",
        "Adapters.n_splits = 1",
    ]
    bound += ["Adapters.sites = 'decoder/mlp/wo'", "train.experiment = @Experiment()", "train.steps = 2"]
    loaded = configuration.load([str(tmp_path / "made.gin")], bound)
    train(**loaded.arguments("train", output_dir=str(tmp_path / "clusters")))
    skills = open_run(str(tmp_path / "clusters"), loaded.experiment()).skills
    learned = np.abs(skills["decoder/layers_0/mlp/wo/skills/lora_b"]).max(axis=(0, 2, 3))
    assert learned.shape == (2,)
    assert (learned > 0).all()


def unchecked(tree):
    """The checksums of arrays in memory, whatever their numbers are."""
    return {path: checksum(np.asarray(leaf)) for path, leaf in flatten(tree).items()}


@pytest.mark.parametrize(
    ("bindings", "added", "flags", "message"),
    [
        ((), None, ("--clusters=2",), "has no private skill for each task, which is what is clustered"),
        (PRIVATE, None, ("--clusters=2",), "the skills of 4 tasks change nothing (routing_a, routing_b"),
        (PRIVATE, alike, ("--clusters=5",), "4 skills, 4 of them different, which do not make 5 clusters"),
        (PRIVATE, alike, ("--clusters=2", "--output=table.csv"), "give a file that ends in .json"),
        (PRIVATE, lambda *_: np.nan, ("--clusters=2",), "the skills have numbers that are not finite"),
    ],
    ids=["shared skills", "fresh skills", "too many", "csv", "not finite"],
)
def test_what_cannot_be_clustered_is_refused_in_one_line_and_nothing_is_written(
    make_run, tmp_path, capsys, monkeypatch, bindings, added, flags, message
):
    # No checkpoint of this version has numbers that are not finite.
    monkeypatch.setattr("poly_jax.training.saved_step.checksums", unchecked)
    run = make_run(bindings, **({"added": added} if added else {}))
    capsys.readouterr()
    assert cluster(run.folder, *flags) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not [*tmp_path.glob("clusters.json*"), *tmp_path.glob("table*")]
