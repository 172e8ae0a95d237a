"""Reads tasks from seqio's offline cache, as `poly-jax prepare` or seqio's own tool writes it."""

import os

from poly_jax.data.quiet import seqio
from poly_jax.data.registry import mixture_or_task
from poly_jax.errors import UserError


def use_cache(folder: str, mixture: str) -> None:
    """Let seqio find the caches in a folder.

    Args:
      folder: the folder, local or remote (gs://).
      mixture: name of a mixture or task, whose tasks must all be there, except those that seqio never caches.

    Raises:
      UserError: the mixture is not registered, or a task is not there.
    """
    seqio.add_global_cache_dirs([os.fspath(folder)])
    found = mixture_or_task(mixture)
    tasks = [task for task in getattr(found, "tasks", [found]) if task.supports_caching]
    missing = sorted(task.name for task in tasks if task.cache_dir is None)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"Data.cache_dir {folder!r} has no complete cache of task {missing[0]!r}{more}; run "
            f"`poly-jax prepare --output_dir={folder}` with the same configuration, or bind "
            "Data.cache_dir = None"
        )
