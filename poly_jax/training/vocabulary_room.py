"""Whether a mixture's vocabularies fit the embedding: an id without a row would train to NaN."""

from poly_jax.data.quiet import seqio
from poly_jax.data.tokenizer import check_room


def check_vocabularies(mixture: str, vocab_size: int) -> None:
    """Raises a UserError where a registered mixture or task has ids that an embedding has no rows for."""
    features = seqio.get_mixture_or_task(mixture).output_features
    for name in ("inputs", "targets"):
        if name in features:
            size = features[name].vocabulary.vocab_size
            check_room(f"the vocabulary of {mixture!r} ({name})", size, vocab_size)
