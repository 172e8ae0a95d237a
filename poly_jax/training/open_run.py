"""Opens a run: finds and checks its checkpoint and the weights that it builds on, without reading them."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from etils import epath

from poly_jax.adapters.config import Adapters
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.reporting.hashed import hash_with_progress
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.mesh import Partitioning
from poly_jax.training.misfit import differing_settings
from poly_jax.training.saved_step import Origin, open_trained, read_origin, read_table
from poly_jax.training.saved_steps import beside, step_folder
from poly_jax.training.skills_below import skills_below
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.content_hash import same_contents
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.layers_apart import layers_apart
from poly_jax.weights.parameter_names import is_adapter_parameter, is_skill, selects
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tensors import Tensor, of_tree
from poly_jax.weights.tree import check_tree, flatten


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A checkpoint of a run and the frozen weights that it builds on.

    Attributes:
      model: the run's model in evaluation mode.
      table: table of the tasks that its routers know.
      origin: the frozen weights that the checkpoint builds on.
      step: folder of the checkpoint.
      trained: the checkpoint's parameters, and the skills of another run that it builds on, by '/'-joined
        name, with the model's names and shapes.
      backbone_path: path of the frozen backbone; None where the checkpoint holds the whole model.
      check_backbone: whether the backbone must have the contents that the run was trained on.
    """

    model: Transformer
    table: TaskTable
    origin: Origin
    step: epath.Path
    trained: Mapping[str, Tensor]
    backbone_path: str | None = None
    check_backbone: bool = True

    @property
    def config(self) -> T5Config:
        """The configuration of the T5."""
        return self.model.config

    @property
    def adapters(self) -> Adapters | None:
        """The inventory of skills and its router; None for a bare T5."""
        return self.model.adapters

    @property
    def number(self) -> int:
        """The number of the checkpoint's step; 0 where its folder's name is not a number."""
        return int(self.step.name) if self.step.name.isdecimal() else 0

    @functools.cached_property
    def skills(self) -> dict[str, np.ndarray]:
        """Arrays of the skills and routers by '/'-joined name, one per layer; read at the first use."""
        return {name: tensor.load() for name, tensor in self._apart.items() if is_adapter_parameter(name)}

    @functools.cached_property
    def backbone(self) -> dict[str, Tensor]:
        """The backbone's tensors by T5X's names, one per layer.

        A frozen backbone is read once, at the first use, to check that the run was trained on it.

        Raises:
          UserError: the backbone is missing, has another shape, or is not the run's backbone.
        """
        if self.backbone_path is None:
            return {name: tensor for name, tensor in self._apart.items() if not is_adapter_parameter(name)}
        if self.backbone_path == RANDOM:
            floats = dataclasses.replace(self.config, quantization="none")
            tree, digest = load_backbone(RANDOM, Transformer(floats), Partitioning().mesh())
            self.check_hash(digest)
            return of_tree(unstack_layers(jax.device_get(tree)))
        tensors = open_backbone(self.backbone_path).tensors
        check_tree(t5_parameter_shapes(self.config), tensors, self.backbone_path)
        if self.check_backbone:
            self.check_hash(hash_with_progress(tensors, "checking the backbone"))
        return tensors

    def check_hash(self, digest: str) -> None:
        """Check that the backbone that was read is the one that the run was trained on.

        Args:
          digest: content hash of the weights that were read.

        Raises:
          UserError: it is another backbone, and `check_backbone` is on.
        """
        if self.check_backbone and not same_contents(
            self.origin.backbone_hash, digest, lambda: open_backbone(str(self.backbone_path)).tensors
        ):
            raise UserError(
                f"{self.backbone_path} is not the backbone that {self.step} was trained on (their contents"
                " differ); bind Experiment.backbone to the right one, or Experiment.check_backbone to False"
            )

    @functools.cached_property
    def _apart(self) -> dict[str, Tensor]:
        # In runs of this project, layers are stacked on the first axis.
        return layers_apart(self.trained, self.step, axis=0)


@contextlib.contextmanager
def _naming_intact(step: epath.Path) -> Iterator[None]:
    """Add to an error about a damaged checkpoint which other checkpoint of the run is intact."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}{beside(step)}") from None


def _naming(tensor: Tensor, step: epath.Path) -> Tensor:
    def load() -> np.ndarray:
        with _naming_intact(step):
            return tensor.load()

    return Tensor(tensor.shape, tensor.dtype, load)


def open_run(run: str, experiment: Experiment) -> OpenRun:
    """Open a run's newest checkpoint.

    Args:
      run: folder of the run, for its newest checkpoint, or folder of a step.
      experiment: the run's experiment, from its `config.gin`. It may have another path of the same backbone.

    Raises:
      UserError: there is no checkpoint, it is damaged, or it does not fit the experiment's model.
    """
    step = step_folder(run)
    with _naming_intact(step):
        table, origin = read_table(step), read_origin(step)
        trained = {name: _naming(tensor, step) for name, tensor in open_trained(step).items()}
    model = experiment.transformer(table)
    below = skills_below(origin, step)
    if below is not None:
        skills = {name: tensor for name, tensor in open_trained(below).items() if is_skill(name)}
        trained = {**skills, **trained}
    own = selects("all" if origin.backbone is None else "adapters")
    shapes = flatten(parameter_shapes(model)[0])
    frozen = None if origin.backbone is None else experiment.backbone or origin.backbone
    try:
        check_tree({name: shape for name, shape in shapes.items() if own(name)}, trained, step)
    except UserError as error:
        # If the T5 itself has another shape, the error about its own file is more helpful.
        if frozen not in (None, RANDOM) and epath.Path(frozen).exists():
            check_tree(t5_parameter_shapes(model.config), open_backbone(frozen).tensors, frozen)
        if settings := differing_settings(model, trained):
            raise UserError(f"{settings}: {error}") from error
        raise
    return OpenRun(model, table, origin, step, trained, frozen, experiment.check_backbone)
