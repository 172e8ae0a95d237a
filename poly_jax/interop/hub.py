"""Models on the Hugging Face hub, by their id, as local folders."""

import pathlib
import re

from poly_jax.errors import UserError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NEEDED = ("*.json", "*.safetensors", "spiece.model")


def is_hub_id(path: str) -> bool:
    """Whether this is `owner/name` and nothing of that path is here."""
    return _ID.fullmatch(path) is not None and not pathlib.Path(path).exists()


def download(hub_id: str) -> pathlib.Path:
    """The folder of a model's configuration, safetensors and tokenizer in huggingface_hub's cache.

    Raises:
      UserError: huggingface_hub is not installed, or the model cannot be had.
    """
    try:
        import huggingface_hub
    except ImportError as e:
        raise UserError(
            f"{hub_id} is no local path; to have it from the Hugging Face hub install huggingface_hub, or "
            "download its folder and give that"
        ) from e
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(_NEEDED)))
    # Its own errors, those of two HTTP libraries and of the network.
    except Exception as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"{hub_id} is no local path and cannot be had from the Hugging Face hub ({reason}); check the id "
            "and the network, or give a local folder"
        ) from e
