"""Finds the maps of a T5 that an adapter_config.json adapts, by their names, as PEFT does."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.interop.adapter_checkpoint import in_every_layer, refuse_missing_layers
from poly_jax.interop.peft.folder import PeftFolder
from poly_jax.weights import t5_names as names
from poly_jax.weights.t5_dimensions import T5Dimensions
from poly_jax.weights.tree import listing

# PEFT's name for all linear maps except the head.
_ALL = "all-linear"


def check_targets(folder: PeftFolder, adapted: Collection[str], dimensions: T5Dimensions) -> None:
    """Compare the maps that have tensors with the maps that the configuration adapts.

    A site without tensors is not adapted, as in PEFT, where fresh adapters change nothing. A site with
    tensors in some layers only must have them in all layers that the configuration adapts.

    Args:
      folder: folder of the adapter.
      adapted: T5X's paths of the maps that have tensors.
      dimensions: dimensions of the T5 that it adapts.

    Raises:
      UserError: PEFT would ignore a tensor, or a layer's tensors are missing.
    """
    says = _adapts(folder)
    if ignored := [path for path in adapted if not says(str(names.to_hugging_face(path)))]:
        raise UserError(
            f"{folder.file} has tensors of {counted(len(ignored), 'map')} that {folder.config_file.name}"
            " does not adapt"
            f" ({listing(ignored)}); PEFT ignores them: take the config that was saved with them"
        )
    expected = (
        path for path in in_every_layer(adapted, dimensions) if says(str(names.to_hugging_face(path)))
    )
    refuse_missing_layers(set(expected) - set(adapted), folder.file)


def pattern_value(patterns: Any, module: str, default: Any, folder: PeftFolder, option: str) -> Any:
    """Return the value of the first `rank_pattern` or `alpha_pattern` that matches the end of a name.

    Raises:
      UserError: the patterns are not a mapping, or a pattern is not a regular expression.
    """
    if not isinstance(patterns or {}, Mapping):
        raise UserError(f"{folder.config_file}: {option} is {patterns!r}, not a mapping from names")
    for pattern, value in (patterns or {}).items():
        if _match(rf"(.*\.)?({pattern})$", module, folder, option):
            return value
    return default


def _adapts(folder: PeftFolder) -> Callable[[str], bool]:
    """Return a function that says whether PEFT adapts a module, given Hugging Face's name."""
    config = folder.config
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")

    def named(wanted: Any, module: str, option: str) -> bool:
        if isinstance(wanted, str):
            return bool(_match(rf"(?:{wanted})\Z", module, folder, option))
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise UserError(f"{folder.config_file}: {option} is {wanted!r}, not names of modules")
        return any(module == name or module.endswith(f".{name}") for name in wanted)

    def adapts(module: str) -> bool:
        if excluded and named(excluded, module, "exclude_modules"):
            return False
        # A file that PEFT did not save may state no targets; the tensors then determine them.
        if targets is None or targets == _ALL:
            return True
        exact = isinstance(targets, list) and module in targets
        return named(targets, module, "target_modules") and (
            exact or isinstance(targets, str) or _in_layers(module, folder)
        )

    return adapts


def _in_layers(module: str, folder: PeftFolder) -> bool:
    """Whether a module's layer is among `layers_to_transform`."""
    layers, patterns = (folder.config.get(key) for key in ("layers_to_transform", "layers_pattern"))
    if layers is None or layers == []:
        return True
    layers = layers if isinstance(layers, list) else [layers]
    if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers):
        raise UserError(f"{folder.config_file}: layers_to_transform is {layers!r}, not numbers of layers")
    patterns = [patterns] if isinstance(patterns, str) else patterns or []
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise UserError(f"{folder.config_file}: layers_pattern is {patterns!r}, not names of modules")
    # Without a pattern, the first number in the name is the number of the layer.
    whole = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in patterns if pattern] or [r".*?\.[^.]*\.(\d+)\."]
    found = (_match(pattern, module, folder, "layers_pattern") for pattern in whole)
    first = next((m for m in found if m), None)
    return first is not None and int(first[first.re.groups]) in layers


def _match(pattern: str, module: str, folder: PeftFolder, option: str) -> re.Match[str] | None:
    try:
        return re.match(pattern, module)
    except re.error as e:
        raise UserError(
            f"{folder.config_file}: {option} has {pattern!r}, not a regular expression ({e})"
        ) from None
