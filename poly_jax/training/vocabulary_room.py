"""Checks that vocabularies fit the model: each id has an embedding row, and the end ids are the same."""

from collections.abc import Mapping

from poly_jax.data.quiet import seqio
from poly_jax.data.tokenizer import check_room
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config


def check_vocabularies(mixture: str, config: T5Config) -> None:
    """Check the vocabularies of a registered mixture or task against the model that reads and writes them.

    Raises:
      UserError: `check_features` raises it.
    """
    check_features(repr(mixture), seqio.get_mixture_or_task(mixture).output_features, config)


def check_features(name: str, features: Mapping[str, seqio.Feature], config: T5Config) -> None:
    """Check the vocabularies of a task's features against the model that reads and writes them.

    Args:
      name: name of the mixture or task with these features, for messages.
      features: seqio's features, by name.
      config: the model's configuration.

    Raises:
      UserError: a vocabulary has ids that the embedding has no rows for (which would train to NaN), or the
        vocabulary of the targets ends them with another id than the model does.
    """
    for feature in ("inputs", "targets"):
        if feature in features:
            size = features[feature].vocabulary.vocab_size
            check_room(f"the vocabulary of {name} ({feature})", size, config.vocab_size)
    if "targets" in features:
        check_eos(f"the vocabulary of {name} (targets)", features["targets"].vocabulary, config)


def check_eos(source: str, vocabulary: seqio.Vocabulary, config: T5Config) -> None:
    """Raise a UserError if a vocabulary ends targets with another id than the model's end of sequence.

    Args:
      source: description of the vocabulary, for the message.
      vocabulary: the vocabulary of the targets. A vocabulary without an end of sequence fits every model.
      config: the model's configuration.
    """
    eos_id = vocabulary.eos_id
    # SentencePiece gives -1 if a model has no such piece.
    if eos_id is not None and eos_id >= 0 and eos_id != config.eos_id:
        raise UserError(
            f"{source} ends targets with id {eos_id}, and the model ends outputs with id {config.eos_id};"
            f" bind T5Config.eos_id = {eos_id}, or give the vocabulary that the model was trained with"
        )
