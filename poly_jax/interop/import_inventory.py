"""`poly-jax import` of several adapters: makes one run whose skills they are."""

import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

from etils import epath

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.configurables import OF_A_RUN
from poly_jax.configuration import Configuration, Loaded
from poly_jax.configuration.gin_text import bindings
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.new_output import check_new
from poly_jax.interop.adapter_checkpoint import lay_out
from poly_jax.interop.inventory import join
from poly_jax.interop.skill_source import SkillSource, StatedBase, read_source, stated_base, usual_name
from poly_jax.interop.task_names import read_names
from poly_jax.model.config import T5Config
from poly_jax.model.transformer import Transformer
from poly_jax.reporting.hashed import hash_with_progress
from poly_jax.reporting.item_progress import item_progress
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin
from poly_jax.weights.backbone import Backbone, open_backbone
from poly_jax.weights.content_hash import same_contents
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tree import check_tree, listing, unflatten


def import_inventory(
    sources: Sequence[str],
    output: str,
    configuration: Configuration,
    backbone: str | None = None,
    tasks: str | None = None,
    names: Sequence[str] | None = None,
) -> TaskTable:
    """Write a run whose inventory is the skills of all sources, for `adapt`, `eval`, `infer` and `export`.

    Each skill is a task of the run, under the skill's name: its row of the router (`PrivateRouter`) picks
    this skill alone, so the task computes what the source computes. Routers of the sources are not read.

    Args:
      sources: paths for `poly_jax.interop.skill_source.read_source`.
      output: folder of the run.
      configuration: the user's configuration. `LoRA.alpha` is for files that do not state it;
        `LoRA.merge_after`, `LoRA.dropout` and `Adapters.n_splits` are the run's own.
      backbone: path of the T5 that the adapters were trained on; None for what the sources name, or for
        `Experiment.backbone`.
      tasks: file with the names of the skills in the order of the sources; None for `names`.
      names: a name for each source; None for the last part of its path.

    Returns:
      The skills' names, as the run's tasks.

    Raises:
      UserError: a source cannot be read, the sources do not go together, or `output` is in use.
    """
    check_new(output)
    # The router of the run; without one, an experiment could not be made to read its backbone.
    loaded = configuration.load("routers/private.gin", "runs/multitask.gin")
    loaded.check_read(*OF_A_RUN, "T5Config", "Adapters", "LoRA")
    stated = {path: stated_base(path) for path in sources}
    base = open_backbone(backbone or _named_backbone(stated, loaded))
    found = T5Config.of_checkpoint(base.stated_fields(), base.path)
    # Checkpoints do not state every field, so that bound ones are taken.
    found = dataclasses.replace(found, **loaded.bound("T5Config"))
    check_tree(t5_parameter_shapes(found), base.tensors, base.path)
    digest = hash_with_progress(base.tensors)
    for path, claim in stated.items():
        _check_base(path, claim, base, digest)
    _check_hub_names(stated, base)
    own = names or [usual_name(path) for path in sources]
    bound = {kind: loaded.bound(kind) for kind in ("Adapters", "LoRA")}
    read = []
    with item_progress("reading", len(sources), "sources") as advance:
        for path, name in zip(sources, own, strict=True):
            alpha, granularity = bound["LoRA"].get("alpha"), bound["Adapters"].get("granularity")
            read.append(read_source(path, name, found, base.tensors, alpha, granularity))
            advance(1)
    read = _named(read, tasks)
    inventory = join(read, found, bound["Adapters"].get("n_splits"))
    if isinstance(inventory.skill, LoRA):
        chosen = {name: bound["LoRA"][name] for name in ("merge_after", "dropout") if name in bound["LoRA"]}
        inventory = inventory._replace(skill=dataclasses.replace(inventory.skill, **chosen))
    table = TaskTable(inventory.names)
    adapters = Adapters(
        inventory.skill,
        PrivateRouter(),
        n_tasks=len(table),
        n_skills=len(table),
        n_splits=inventory.n_splits,
        sites=inventory.sites,
    )
    tree = lay_out(unflatten(inventory.leaves), Transformer(found, adapters), output)
    place = os.fspath(base.path.absolute())
    lines = [*bindings(found), f"Experiment.backbone = {place!r}", *_gin_lines(adapters)]
    write_run(output, tree, table, Origin(place, digest), loaded.texts.with_bindings(lines).config)
    for source, change in zip(read, inventory.changes, strict=True):
        print(f"{listing(source.names)}: {change}, from {source.path}")
    return table


def _named_backbone(stated: Mapping[str, StatedBase], loaded: Loaded) -> str:
    """Return the path of the first T5 that a source names and that is there, or else that is bound."""
    for claim in stated.values():
        if claim.name is not None and epath.Path(claim.name).exists():
            return claim.name
    bound = loaded.experiment().backbone
    if bound is None:
        raise UserError(
            f"{listing(stated)}: none names the T5 that it adapts by a local path; give it with --backbone"
        )
    return bound


def _check_base(path: str, claim: StatedBase, base: Backbone, digest: str) -> None:
    """Check that a source adapts the T5 of the inventory, as far as its files say which T5 that is."""
    own = claim.digest
    if own is None and claim.name is not None and epath.Path(claim.name).exists():
        own = digest if epath.Path(claim.name).absolute() == base.path.absolute() else None
        own = own or hash_with_progress(open_backbone(claim.name).tensors)
    if own is not None and not same_contents(own, digest, lambda: base.tensors):
        raise UserError(
            f"{path} adapts {claim.name}, which is not the backbone {base.path} (their contents differ);"
            " import adapters of different backbones into separate runs"
        )


def _check_hub_names(stated: Mapping[str, StatedBase], base: Backbone) -> None:
    """Check that the sources that name a T5 on the Hugging Face hub name the same one, and name it."""
    # A folder and its owner may be named differently in copies; the model's own name is the last part.
    there = {
        path: claim.name
        for path, claim in stated.items()
        if claim.name is not None and claim.digest is None and not epath.Path(claim.name).exists()
    }
    first = next(iter(there), None)
    for path, name in there.items():
        if first is not None and pathlib.PurePath(name).name != pathlib.PurePath(there[first]).name:
            raise UserError(
                f"{first} adapts {there[first]}, and {path} adapts {name}; import adapters of different"
                " backbones into separate runs"
            )
    for path, name in there.items():
        print(
            f"{path} says it adapts {name}; whether {base.path} is that model cannot be checked",
            file=sys.stderr,
        )


def _named(sources: list[SkillSource], tasks: str | None) -> list[SkillSource]:
    """Return the sources with the names of a file, if there is one."""
    if tasks is None:
        return sources
    names = iter(read_names(pathlib.Path(tasks), sum(len(source.names) for source in sources)))
    return [
        dataclasses.replace(source, names=tuple(itertools.islice(names, len(source.names))))
        for source in sources
    ]


def _gin_lines(adapters: Adapters) -> list[str]:
    return [
        "Experiment.adapters = @Adapters",
        f"Adapters.skill = @{type(adapters.skill).__name__}()",
        *bindings(adapters.skill),
        "Adapters.router = @PrivateRouter()",
        "Adapters.private_skill = None",
        *(f"Adapters.{name} = {getattr(adapters, name)!r}" for name in ("n_skills", "n_splits", "sites")),
        f"Adapters.granularity = {adapters.granularity!r}",
    ]
