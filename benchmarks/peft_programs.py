"""Training steps of PEFT on the same batches. Nothing of this project or of JAX is imported here."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from settings import RANK, RATE, SKILLS, SPLITS, Batch, Step, tokens_in

PEFT_SITES = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")


@contextlib.contextmanager
def left_out_without_peft() -> Iterator[None]:
    """Leave out the programs of PEFT that the block makes, with a line, where it is not installed."""
    try:
        yield
    except ImportError as error:
        print(f"PEFT is left out: {error}\n")


def hugging_face_t5(settings: dict[str, Any]) -> Any:
    """A T5 of transformers of this shape (arguments of its `T5Config`), with random weights.

    Raises:
      ImportError: transformers is not installed (extra `interop`).
    """
    import transformers

    return transformers.T5ForConditionalGeneration(transformers.T5Config(**settings))


def peft_model(settings: dict[str, Any], method: str, n_tasks: int, rank: int = RANK) -> Any:
    """PEFT's model of a method; for "full" the T5 itself.

    Raises:
      ImportError: PEFT or transformers is not installed (extra `interop`).
    """
    import peft

    t5 = hugging_face_t5(settings)
    if method == "full":
        return t5
    common: dict[str, Any] = {"task_type": "SEQ_2_SEQ_LM", "target_modules": list(PEFT_SITES)}
    if method == "IA3":
        adapter: Any = peft.IA3Config(**common, feedforward_modules=[])
    elif method == "LoRA":
        adapter = peft.LoraConfig(**common, r=rank)
    else:
        splits = SPLITS if method == "MHR" else 1
        adapter = peft.PolyConfig(**common, r=rank, n_tasks=n_tasks, n_skills=SKILLS, n_splits=splits)
    return peft.get_peft_model(t5, adapter)


def pefts(
    settings: dict[str, Any], method: str, n_tasks: int, batches: Iterator[Batch], rank: int = RANK
) -> Step:
    """A step of PEFT's training on the next batch, padded to its longest example.

    Raises:
      ImportError: PEFT or transformers is not installed (extra `interop`).
    """
    import torch

    model = peft_model(settings, method, n_tasks, rank).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, RATE)

    def step() -> float:
        batch = next(batches)
        tokens = torch.tensor(_without_padding(batch["encoder_input_tokens"])).long()
        labels = torch.tensor(_without_padding(batch["decoder_target_tokens"])).long()
        tasks = {"task_ids": torch.tensor(batch["task_ids"]).long()} if method in ("MHR", "Poly") else {}
        out = model(
            input_ids=tokens,
            attention_mask=(tokens > 0).long(),
            labels=labels.masked_fill(labels == 0, -100),
            **tasks,
        )
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        return tokens_in(batch)

    return step


def _without_padding(tokens: np.ndarray) -> np.ndarray:
    """The columns up to the last one in which any row has a token."""
    return tokens[:, : (tokens > 0).any(axis=0).nonzero()[0].max() + 1]
