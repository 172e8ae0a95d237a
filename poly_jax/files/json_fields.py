"""The fields of a JSON object, checked by name and type as they are taken."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar, overload

from poly_jax.errors import UserError
from poly_jax.files.text_file import COPY

T = TypeVar("T")
D = TypeVar("D")

_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_SHOWN = 60


class Fields:
    """The fields of a JSON object, checked one at a time as they are taken.

    >>> Fields({"num_layers": "x"}, "config.json").take("num_layers", int, at_least=1)
    Traceback (most recent call last):
    poly_jax.errors.UserError: config.json: num_layers is 'x', and it must be ...

    Attributes:
      place: name of the object in errors.
    """

    def __init__(self, content: Mapping[str, Any], place: object, advice: str = COPY):
        """Take the fields of `content`; `advice` is the instruction to the user in an error message."""
        self.place = place
        self._content = content
        self._advice = advice

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    @overload
    def take(self, key: str, kind: type[T], *, at_least: float | None = ...) -> T: ...
    @overload
    def take(self, key: str, kind: type[T], *, default: D, at_least: float | None = ...) -> T | D: ...

    def take(self, key: str, kind: Any, *, at_least: float | None = None, **default: Any) -> Any:
        """Return the value of a field.

        Args:
          key: name of the field.
          kind: `str`, `int`, `float` (which includes whole numbers), `bool`, `dict`, `list`, or `object`.
          at_least: the smallest number that is accepted.
          default: the value where the field is absent or null; without a default the field is required.

        Raises:
          UserError: the field is absent, has another type, or is too small.
        """
        value: Any = self._content.get(key)
        if value is None and default:
            return default["default"]
        if key not in self._content:
            raise UserError(f"{self.place} has no {key!r}; {self._advice}")
        fits = kind is object or is_kind(value, kind)
        if fits and kind is float:
            value = float(value)
        if not fits or (at_least is not None and value < at_least):
            needed = kind_name(kind) + ("" if at_least is None else f" of at least {at_least}")
            raise UserError(f"{self.place}: {key} is {shown(value)}, and it must be {needed}; {self._advice}")
        return value

    def take_list(self, key: str, kind: type[T]) -> list[T]:
        """Return the list in a field, whose items must all be of one kind.

        Raises:
          UserError: the field is absent, is not a list, or has an item of another type.
        """
        items: list[Any] = self.take(key, list)
        check_items(items, kind, f"{self.place}: {key}", self._advice)
        return items

    def inside(self, key: str) -> "Fields":
        """Return the fields of the object that is a field's value.

        Raises:
          UserError: the field is absent or is not an object.
        """
        return Fields(self.take(key, dict), f"{self.place}: {key}", self._advice)

    def check_known(self, known: Collection[str]) -> None:
        """Refuse unknown fields.

        Raises:
          UserError: the object has a field that is not in `known`.
        """
        unknown = sorted(self._content.keys() - set(known))
        if unknown:
            raise UserError(f"{self.place} has the unknown field {shown(unknown[0])}; {self._advice}")


def check_items(items: list[Any], kind: type, place: object, advice: str = COPY) -> None:
    """Check that all items of a JSON list are of one kind.

    Raises:
      UserError: an item is of another kind; the message names the first one.
    """
    for number, item in enumerate(items):
        if not is_kind(item, kind):
            raise UserError(
                f"{place}: item {number} is {shown(item)}, and it must be {kind_name(kind)}; {advice}"
            )


def is_kind(value: Any, kind: type) -> bool:
    """Whether a JSON value is of a kind; a whole number is also a number, and true is neither."""
    if isinstance(value, bool):
        return kind in (bool, object)
    # Python's integers have no bound, but floats do.
    if kind is float and isinstance(value, int):
        return abs(value) < 1e308
    return isinstance(value, kind)


def kind_name(kind: type) -> str:
    """Return the name of a kind of JSON value for an error, with its article."""
    return _NAMES.get(kind, kind.__name__)


def shown(value: Any) -> str:
    """Format a JSON value for an error: on one line, and cut where it is long."""
    if isinstance(value, dict | list):
        return kind_name(type(value))
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
