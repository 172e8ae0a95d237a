"""Imports TensorFlow and TensorFlow Text without Keras, which nothing here uses."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

_KERAS = "keras"
_LAYERS = "tensorflow_text.python.keras"


@contextlib.contextmanager
def deferred_keras() -> Iterator[None]:
    """Import TensorFlow in this block without Keras, which is then imported when somebody uses `tf.keras`.

    TensorFlow imports Keras at its end, and does without if that fails; TensorFlow Text imports it for layers
    of its own. Keras, with the scikit-learn that it looks for, takes a third of the time of these imports and
    100 MB of memory.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds Keras, but does not import it, and finds the layers of TensorFlow Text, to be imported on use."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in (_KERAS, _LAYERS):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        spec.loader = _Refusal() if name == _KERAS else _Later()
        return spec


class _Refusal(importlib.abc.Loader):
    """Fails to import a module that was found."""

    def exec_module(self, module: ModuleType) -> None:
        raise ImportError(f"{module.__name__} is imported later")


class _Later(importlib.abc.Loader):
    """Imports a module when something in it is used.

    The standard library's `LazyLoader` ends in an endless recursion with these modules, which delete names
    while they are imported (Python 3.13).
    """

    def exec_module(self, module: ModuleType) -> None:
        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]
            return getattr(importlib.import_module(module.__name__), name)

        module.__dict__["__getattr__"] = attribute
