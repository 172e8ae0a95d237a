"""The model class: t5x's encoder-decoder interface over this project's T5 with adapters."""

import dataclasses
import functools
from collections.abc import Mapping, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
import seqio
from flax import core
from jaxtyping import Array, Float, Int, PRNGKeyArray
from t5x import metrics, models, optimizers

from poly_jax import configuration
from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.registry import mixture_or_task
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.interop.t5x.data import registered_experiment
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer
from poly_jax.training.vocabulary_room import check_eos
from poly_jax.weights.parameter_names import Trainable, selects
from poly_jax.weights.tree import merge, split

Batch = Mapping[str, Any]
Parameters = Any


class RoutedModel(models.EncoderDecoderModel):
    """A t5x model whose batches carry `task_ids`, which select the adapters of every row.

    Losses, scores and decoding are this project's own: a checkpoint has the same metrics in both systems.
    """

    FEATURE_CONVERTER_CLS = RoutedEncDecFeatureConverter

    def __init__(
        self,
        module: Transformer,
        input_vocabulary: seqio.Vocabulary,
        output_vocabulary: seqio.Vocabulary,
        optimizer_def: optimizers.OptimizerDef | None = None,
        decoding: Decoding = Decoding(),
        loss: TokenLoss = TokenLoss(),
        trainable: Trainable = "adapters",
    ) -> None:
        """Make the model from attributes of `Experiment` and arguments of `poly_jax.training.train.train`.

        Raises:
          UserError: the vocabulary of the outputs ends targets with another id than the model.
        """
        check_eos("the vocabulary of the targets", output_vocabulary, module.config)
        super().__init__(
            module,
            input_vocabulary,
            output_vocabulary,
            optimizer_def,
            feature_converter_cls=functools.partial(
                RoutedEncDecFeatureConverter, bos_id=module.config.decoder_start_id
            ),
        )
        self.decoding, self.loss = decoding, loss
        self._trained = selects(trainable)

    def get_initial_variables(
        self,
        rng: PRNGKeyArray,
        input_shapes: Mapping[str, Any],
        input_types: Mapping[str, Any] | None = None,
    ) -> core.FrozenDict:
        """Return fresh parameters and the logical names of their axes, for a batch of any shape."""
        del input_shapes, input_types
        keys = dict(zip(("params", "dropout", "routing"), jax.random.split(rng, 3), strict=True))
        tokens = jnp.ones((1, 1), jnp.int32)
        variables = self.module.init(keys, tokens, tokens, jnp.zeros((1,), jnp.int32))
        return core.freeze({name: variables[name] for name in ("params", "params_axes")})

    def loss_fn(
        self, params: Parameters, batch: Batch, dropout_rng: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], metrics.MetricsMap]:
        """Return the loss of `TokenLoss`, and t5x's metrics of the sum over tokens."""
        # Parameters that are not trained have no gradient here, so XLA does not compute one for them.
        trained, frozen = split(core.unfreeze(params), self._trained)
        logits = self._compute_logits(merge(jax.lax.stop_gradient(frozen), trained), batch, dropout_rng)
        weights = batch["decoder_loss_weights"].astype(jnp.float32)
        targets = batch["decoder_target_tokens"]
        total = self.loss.total(logits, targets, weights)
        reported = self._compute_metrics(
            logits,
            targets,
            mask=weights,
            loss=total,
            segment_ids={
                name: batch[name] != 0 for name in ("encoder_input_tokens", "decoder_target_tokens")
            },
        )
        return total / jnp.maximum(self.loss.divisor(weights), 1.0), reported

    def predict_batch_with_aux(
        self,
        params: Parameters,
        batch: Batch,
        rng: PRNGKeyArray | None = None,
        decoder_params: MutableMapping[str, Any] | None = None,
        return_all_decodes: bool | None = None,
        num_decodes: int | None = None,
        prompt_with_targets: bool = False,
    ) -> tuple[Int[Array, "batch *decodes length"], dict[str, Float[Array, "batch *decodes"]]]:
        """Decode every row as `Decoding` says. All beams of a row have the row's task.

        Args:
          params: the model's parameters.
          batch: batch with `encoder_input_tokens` and `task_ids`.
          rng: random key of a decoding that samples.
          decoder_params: optional values of `decode_rng` and `eos_id`.
          return_all_decodes: whether all beams are returned, the best one last, as t5x orders them.
          num_decodes: number of beams; None for `Decoding.n_beams`.
          prompt_with_targets: not supported.

        Raises:
          UserError: an argument asks for something that `Decoding` decides.
        """
        given = dict(decoder_params or {})
        rng, eos_id = given.pop("decode_rng", rng), given.pop("eos_id", None)
        if given or prompt_with_targets:
            names = ", ".join([*given, *(["prompt_with_targets"] if prompt_with_targets else [])])
            raise UserError(f"{names}: this model has no such setting; bind Decoding.* to say how it decodes")
        decoding = dataclasses.replace(self.decoding, n_beams=num_decodes or self.decoding.n_beams)
        decoded = generate(
            self.module,
            core.unfreeze(params),
            batch["encoder_input_tokens"],
            batch["task_ids"],
            decoding,
            rng if decoding.temperature else None,
            eos_id,
        )
        tokens, scores = decoded.tokens, decoded.scores
        if decoding.n_beams == 1:
            tokens, scores = tokens[:, None], scores[:, None]
        if return_all_decodes:
            return tokens[:, ::-1], {"scores": scores[:, ::-1]}
        return tokens[:, 0], {"scores": scores[:, 0]}

    def _compute_logits(
        self,
        params: Parameters,
        batch: Batch,
        dropout_rng: PRNGKeyArray | None = None,
        mutable: Any = False,
        other_variables: Mapping[str, Any] | None = None,
    ) -> Any:
        module, rngs = self.module, None
        if dropout_rng is not None:
            module = dataclasses.replace(module, train=True)
            rngs = dict(zip(("dropout", "routing"), jax.random.split(dropout_rng), strict=True))
        return module.apply(
            {"params": params, **(other_variables or {})},
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
            batch["task_ids"],
            rngs=rngs,
            mutable=mutable,
        )


def routed_model(
    mixture: str,
    table: TaskTable,
    optimizer_def: optimizers.OptimizerDef | None = None,
    trainable: Trainable = "adapters",
) -> RoutedModel:
    """Make the model that gin describes: `Experiment`'s T5, adapters and decoding, and `TokenLoss`.

    Layers are separate, whatever `T5Config.scan_layers` is, as in T5X's checkpoints of a T5.

    Args:
      mixture: name of a registered mixture or task, for its vocabularies.
      table: table of the tasks that its routers know, which come from the mixture of its training.
      optimizer_def: optimizer from `poly_jax.interop.t5x.optimizer`; evaluation needs none.
      trainable: part of the parameters that is trained; see `poly_jax.training.train.train`.
    """
    experiment = registered_experiment()
    if experiment.model.quantization != "none":
        raise UserError(
            f"T5Config.quantization is {experiment.model.quantization!r}, and t5x reads kernels as floats;"
            " bind T5Config.quantization = 'none'"
        )
    experiment = dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, scan_layers=False)
    )
    features = mixture_or_task(mixture).output_features
    return RoutedModel(
        experiment.transformer(table),
        features["inputs"].vocabulary,
        features["targets"].vocabulary,
        optimizer_def,
        experiment.decoding,
        configuration.current().make(TokenLoss),
        trainable,
    )
