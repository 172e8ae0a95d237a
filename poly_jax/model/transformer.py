"""T5 with adapters: the encoder-decoder as one module."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.model.context import Context, Cursor
from poly_jax.model.decoder import Decoder
from poly_jax.model.encoder import Encoder
from poly_jax.model.float32_product import float32_product
from poly_jax.model.route import Route, RouterTable
from poly_jax.model.scoring import decoder_inputs
from poly_jax.model.segments import Segments
from poly_jax.model.site_router import example_means
from poly_jax.routing.task_ids import check_task_ids
from poly_jax.weights.sharding import constrain
from poly_jax.weights.t5_dimensions import sites


class Embedding(nn.Module):
    """Token embedding, also the output head where it is tied."""

    config: T5Config

    def setup(self):
        """Creates the table."""
        self.embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(1.0),
            (self.config.vocab_size, self.config.emb_dim),
            axes=("vocab", "embed"),
            module=self,
        )

    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        """Rows of the table. A gather: a one-hot product only pays on TPUs.

        Devices that share one copy of the parameters collect the table, which is smaller than the embedded
        tokens of the whole batch, between which XLA would otherwise choose.
        """
        rows = jnp.take(constrain(self.embedding, "vocab", None), tokens, axis=0)
        return constrain(rows.astype(self.config.activation_dtype), "batch", "length", "embed")

    def attend(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length vocab"]:
        """Logits of the tied head, in float32, scaled by 1/sqrt(embed) as T5 v1.0 does."""
        table = self.embedding.astype(x.dtype)
        return float32_product("bld,vd->blv", x, table) / jnp.sqrt(x.shape[-1])


class Transformer(nn.Module):
    """A T5 whose selected projections are adapted per row of the batch.

    The bare model (`adapters=None`) is T5X's `examples/t5` network, parameter for parameter (arXiv
    1910.10683). Token id 0 is padding in the encoder's input.

    Attributes:
      config: shape of the model.
      adapters: the skills and their router, or None.
      train: whether dropout and the router's sampling are on.
    """

    config: T5Config
    adapters: Adapters | None = None
    train: bool = False

    def setup(self):
        """Creates the parts; a router for the whole model only at coarse granularity."""
        cfg = self.config
        if self.adapters is not None:
            self.adapters.check(sites(cfg))
            if self.adapters.granularity == "coarse":
                self.router = RouterTable(self.adapters, self.train)
        self.token_embedder = Embedding(cfg)
        context = Context(cfg, self.adapters, self.train)
        self.encoder, self.decoder = Encoder(context), Decoder(context)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "batch inputs"],
        decoder_input_tokens: Int[Array, "batch targets"],
        task_ids: Int[Array, "*rows"] | None = None,
        decoder_target_tokens: Int[Array, "batch targets"] | None = None,
        segments: Segments | None = None,
    ) -> Float[Array, "batch targets vocab"]:
        """Logits of every target position given the ones before it.

        `task_ids` has the task of each row, [batch], or that of all rows, [], which then share one mix. With
        `segments` a row holds several examples, of which none sees another, and `task_ids` has the task of
        each example of each row, [batch, segments].

        `decoder_target_tokens` says which positions are padding. T5X masks those and Hugging Face does not;
        as they come last, this changes only their own logits, which no loss reads.
        """
        targets = decoder_target_tokens
        if targets is None:
            targets = _may_be_predicted(decoder_input_tokens, self.config.eos_id)
        route = self._route(task_ids, encoder_input_tokens, targets, segments)
        encoded = self._encode(encoder_input_tokens, route, segments)
        route = self._for_decoder(route, encoded)
        embedded = self.token_embedder(decoder_input_tokens)
        if segments is not None:
            mask, cross_mask = segments.targets_to_targets, segments.targets_to_inputs
            return self._logits(self.decoder(embedded, encoded, route, cross_mask, padding_mask=mask))
        inputs = (encoder_input_tokens > 0)[:, None, None, :]
        if decoder_target_tokens is None:
            return self._logits(self.decoder(embedded, encoded, route, inputs))
        present = (decoder_target_tokens > 0)[:, None, :]
        cross_mask, mask = present[..., None] & inputs, present[..., None] & present[:, :, None]
        return self._logits(self.decoder(embedded, encoded, route, cross_mask, padding_mask=mask))

    def choice_logits(
        self,
        encoder_input_tokens: Int[Array, "batch inputs"],
        choices: Int[Array, "batch choices targets"],
        task_ids: Int[Array, "*rows"] | None = None,
    ) -> Float[Array, "batch choices targets vocab"]:
        """Logits of every position of several targets of each input, which is encoded once (T-Few).

        The task ids follow the choices. While a router samples, the decoder of each choice draws its own mix,
        unless one router serves the whole model.
        """
        batch, count, length = choices.shape
        targets = choices.reshape(batch * count, length)
        route = self._route(task_ids, encoder_input_tokens)
        encoded = self._encode(encoder_input_tokens, route)
        route = self._for_decoder(route, encoded)
        mask = jnp.repeat(encoder_input_tokens > 0, count, axis=0)[:, None, None, :]
        y = self.decoder(
            self.token_embedder(decoder_inputs(targets, self.config.decoder_start_id)),
            jnp.repeat(encoded, count, axis=0),
            route.repeat(count, targets) if route is not None else None,
            mask,
        )
        return self._logits(y).reshape(batch, count, length, -1)

    def encode(
        self, encoder_input_tokens: Int[Array, "batch inputs"], task_ids: Int[Array, "*rows"] | None = None
    ) -> Float[Array, "batch inputs embed"]:
        """The encoder's output."""
        return self._encode(encoder_input_tokens, self._route(task_ids, encoder_input_tokens))

    def decode_step(
        self,
        encoded: Float[Array, "batch inputs embed"],
        encoder_input_tokens: Int[Array, "batch inputs"],
        tokens: Int[Array, "batch beams"],
        cursor: Cursor,
        task_ids: Int[Array, "*rows"] | None = None,
    ) -> Float[Array, "batch beams vocab"]:
        """Logits of the next token of each beam, given the one before it and the cache of all earlier ones.

        The first call fills the collection `prefill` (keys and values of the encoded input, every row's mixed
        adapters), which later calls reuse; each call updates the collection `cache`. Beams share what belongs
        to their row.
        """
        embedded = self.token_embedder(tokens)
        cross_mask = (encoder_input_tokens > 0)[:, None, None, :]
        route = self._route(task_ids, encoder_input_tokens, jnp.ones_like(tokens))
        y = self.decoder(embedded, encoded, self._for_decoder(route, encoded), cross_mask, cursor)
        return self._logits(y)

    def _route(
        self,
        task_ids: Int[Array, "*rows"] | None,
        inputs: Int[Array, "batch inputs"],
        targets: Int[Array, "batch targets"] | Bool[Array, "batch targets"] | None = None,
        segments: Segments | None = None,
    ) -> Route | None:
        """The route of a batch. Inputs and targets are 0 at padding."""
        if self.adapters is None:
            return None
        if task_ids is None:
            raise ValueError("a model with adapters needs task_ids")
        self._check(task_ids)
        if self.adapters.router.reads_inputs:
            if (examples := segments) is None:
                if targets is None:
                    targets = jnp.zeros((inputs.shape[0], 0), bool)
                examples = Segments(*((tokens > 0).astype(jnp.int32) for tokens in (inputs, targets)))
            # These routers weigh every row on its own, whatever its task.
            rows = jnp.broadcast_to(task_ids, inputs.shape[:1]) if task_ids.ndim == 0 else task_ids
            return Route(rows, None, segments, examples)
        weights = self.router(task_ids) if self.adapters.granularity == "coarse" else None
        return Route(task_ids, weights, segments)

    def _check(self, task_ids: Int[Array, "*rows"]) -> None:
        """Raise a UserError if ids whose values are known here are not in the adapters' table.

        In a compiled program they are not known, so that its caller checks them (`check_task_ids`).
        """
        if self.adapters is None or isinstance(task_ids, jax.core.Tracer):
            return
        any_task = self.adapters.router.serves_any_task and not self.adapters.tasks_own_parameters
        here = not isinstance(task_ids, jax.Array) or task_ids.is_fully_addressable
        if here and not any_task:
            check_task_ids(np.asarray(task_ids), self.adapters.n_tasks)

    def _for_decoder(self, route: Route | None, encoded: Float[Array, "batch inputs embed"]) -> Route | None:
        """The route in the decoder, where a router of whole inputs looks at the encoded input (SMEAR).

        What the decoder has read of the target would differ between training and decoding.
        """
        if route is None or route.examples is None or self.adapters is None or self.adapters.routes_tokens:
            return route
        count = route.task_ids.shape[1] if route.task_ids.ndim > 1 else None
        return dataclasses.replace(route, encoded=example_means(encoded, route.examples.inputs, count))

    def _encode(
        self, tokens: Int[Array, "batch inputs"], route: Route | None, segments: Segments | None = None
    ) -> Float[Array, "batch inputs embed"]:
        if segments is None:
            mask = (tokens > 0)[:, None, None, :] & (tokens > 0)[:, None, :, None]
        else:
            mask = segments.inputs_to_inputs
        return self.encoder(self.token_embedder(tokens), route, mask)

    def _logits(self, y: Float[Array, "batch targets _"]) -> Float[Array, "batch targets vocab"]:
        logits = self.token_embedder.attend(y) if self.config.logits_via_embedding else y
        return constrain(logits, "batch", "length", "vocab")


def _may_be_predicted(tokens: Int[Array, "batch targets"], eos_id: int) -> Bool[Array, "batch targets"]:
    """Whether a position of the decoder's input may have a target: nothing follows the end of a sequence."""
    ended = (tokens == 0) | (tokens == eos_id)
    return ~(ended & (jnp.arange(tokens.shape[1]) > 0))
