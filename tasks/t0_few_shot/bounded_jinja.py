"""Jinja in bounded time and memory, for downloaded templates that cannot be trusted.

Jinja's own sandbox keeps a template from accessing the program, but lets it count to 10^9 or double a text
forty times. Here a template may do what promptsource's templates do: insert fields, choose with `if`, loop
over lists with `for`, set variables, and use the filters and methods below. The size of every value that it
makes is checked.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jinja2
import jinja2.nodes as nodes
import jinja2.sandbox
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

LARGEST = 1_000_000
"""Largest number of characters and elements of a value or a rendered text; numbers are below 10^18."""

_LARGEST_NUMBER = 10**18
# Units that one rendering may use: a character or an element costs one unit, and a step costs `_STEP` units.
_BUDGET = 5_000_000
_STEP = 200

_STATEMENTS = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Assign,
    nodes.If,
    nodes.For,
    nodes.With,
)
# ruff: noqa: SIM905
_FILTERS = frozenset(
    "abs capitalize count d default first float int items join last length list lower map max min reject "
    "rejectattr replace reverse select selectattr sort string sum title trim unique upper wordcount".split()
)
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        "capitalize count endswith find index isalnum isalpha isdigit islower isspace istitle isupper join "
        "lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip "
        "split splitlines startswith strip swapcase title upper".split()
    ),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
}
_MEASURED = "measured"
_COUNTED = "counted"
_JOINED = "joined"


class TooLargeError(ValueError):
    """A template makes a value, a text or a number of steps above the limits."""


class BoundedEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """An environment whose templates use bounded time and memory.

    Args:
      filters: more filters, whose results are measured like all others.
      options: options of `jinja2.Environment`.
    """

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        super().__init__(**options)
        known = {name: each for name, each in self.filters.items() if name in _FILTERS} | dict(filters)
        self.filters = {name: self._watched(name, each) for name, each in known.items()}
        self.filters |= {_MEASURED: self._measured_filter, _COUNTED: self._counted, _JOINED: self._joined}
        self.globals = {"range": self.globals["range"], "zip": zip}
        self._left = _BUDGET

    def bounded_template(self, text: str) -> jinja2.Template:
        """Compile a template.

        Raises:
          jinja2.TemplateError: it is not Jinja, or has a statement that templates may not have.
          TooLargeError: its text is too long or too deeply nested.
        """
        if len(text) > LARGEST:
            raise TooLargeError(f"the template is longer than {LARGEST:,} characters")
        try:
            tree = self.parse(text)
            _check_statements(tree)
            tree = _Measuring().visit(tree)
            tree.set_environment(self)
            return self.from_string(tree)
        # Python's own compiler raises a SyntaxError where blocks are nested too deeply.
        except (RecursionError, MemoryError, SyntaxError):
            raise TooLargeError("the template nests too deep") from None

    def render_bounded(self, template: jinja2.Template, fields: Mapping[str, Any]) -> str:
        """Render a template that this environment compiled.

        Raises:
          jinja2.TemplateError: the template does not fit the fields.
          TooLargeError: it makes a value, a text or a number of steps above the limits.
        """
        self._left = _BUDGET
        pieces, length = [], 0
        try:
            for piece in template.generate(fields):
                length += len(piece)
                self._spend(_STEP)
                if length > LARGEST:
                    raise TooLargeError(f"the text becomes longer than {LARGEST:,} characters")
                pieces.append(piece)
        except RecursionError:
            raise TooLargeError("the template nests too deep") from None
        return "".join(pieces)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute: a method in the list, or the state of a loop."""
        if isinstance(obj, jinja2.runtime.LoopContext):
            return super().is_safe_attribute(obj, attr, value)
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for a template."""
        method, of = getattr(callee, "__name__", ""), getattr(callee, "__self__", None)
        if method in ("format", "format_map"):
            # Jinja provides safe versions of these methods, but their widths have no limit.
            raise TooLargeError("a template may not format a text by str.format")
        if isinstance(of, str) and method == "replace":
            _check_replacement(of, *args[:2])
        elif isinstance(of, str) and method == "join" and args:
            args = (self._checked_parts(of, args[0]), *args[1:])
        return self._measured(super().call(context, callee, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` for a template."""
        if operator == "**":
            raise TooLargeError("a template may not compute powers")
        if operator == "%" and isinstance(left, str):
            raise TooLargeError("a template may not format a text by %")
        if operator == "*":
            sizes = [len(each) if isinstance(each, str | list | tuple) else each for each in (left, right)]
            if all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] > LARGEST:
                raise TooLargeError(f"a product is larger than {LARGEST:,}")
        return self._measured(super().call_binop(context, operator, left, right))

    def _spend(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise TooLargeError("rendering takes too many steps")

    def _measured(self, value: Any) -> Any:
        """Check a value's size, subtract it from the budget, and return the value."""
        if isinstance(value, Iterator):
            value = list(self._counted(None, value))
        self._spend(_STEP + _size(value))
        return value

    # Filters that need the context are not evaluated while a template is compiled.
    @jinja2.pass_context
    def _measured_filter(self, context: Context, value: Any) -> Any:
        del context
        return self._measured(value)

    @jinja2.pass_context
    def _counted(self, context: Context | None, values: Iterable[Any]) -> Iterator[Any]:
        del context
        for value in values:
            self._spend(_STEP)
            yield value

    @jinja2.pass_context
    def _joined(self, context: Context, values: list[Any]) -> str:
        del context
        return self._measured("".join(map(str, self._measured(values))))

    def _checked_parts(self, separator: str, parts: Iterable[Any]) -> list[Any]:
        listed = self._measured(list(self._counted(None, parts)))
        if len(separator) * len(listed) > LARGEST:
            raise TooLargeError(f"a text is longer than {LARGEST:,} characters")
        return listed

    def _watched(self, name: str, made: Callable[..., Any]) -> Callable[..., Any]:
        # Jinja marks the argument that a filter gets before its value; this wrapper passes that argument on.
        wanted = getattr(made, "jinja_pass_arg", None)
        first: dict[str, Callable[[Context], Any]] = {
            "context": lambda context: context,
            "eval_context": lambda context: context.eval_ctx,
            "environment": lambda context: self,
        }
        passes = [] if wanted is None else [first[wanted.name]]

        @jinja2.pass_context
        def call(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
            if name == "replace":
                _check_replacement(str(self._measured(value)), *args[:2])
            elif name == "join":
                value = self._checked_parts(str(args[0]) if args else str(kwargs.get("d", "")), value)
            return self._measured(made(*(each(context) for each in passes), value, *args, **kwargs))

        return functools.wraps(made, updated=())(call)


class _Measuring(NodeTransformer):
    """Passes every list, loop, slice and joined text of a template through the filters that measure them."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _through(_COUNTED, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_JOINED, nodes.List(node.nodes, lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return _through(_MEASURED, self.generic_visit(node))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_MEASURED, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return _through(_MEASURED, self.generic_visit(node))

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_MEASURED, node) if node.ctx == "load" else node


def _through(name: str, node: nodes.Node) -> nodes.Expr:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


def _check_statements(tree: nodes.Template) -> None:
    for node in tree.find_all(nodes.Stmt):
        if not isinstance(node, _STATEMENTS) or (isinstance(node, nodes.For) and node.recursive):
            name = "recursive for" if isinstance(node, nodes.For) else type(node).__name__.lower()
            raise jinja2.TemplateSyntaxError(f"templates may not have the statement {name!r}", node.lineno)


def _check_replacement(text: str, old: Any = "", new: Any = "") -> None:
    count = text.count(str(old)) if str(old) else len(text) + 1
    if count * len(str(new)) > LARGEST:
        raise TooLargeError(f"a text becomes longer than {LARGEST:,} characters")


def _size(value: Any) -> int:
    """Count the characters and elements of a value and of all values inside it."""
    size, inside = 0, [value]
    while inside:
        each = inside.pop()
        size += 1
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, list | tuple):
            inside.extend(each)
        elif isinstance(each, dict):
            inside.extend([*each.keys(), *each.values()])
        elif isinstance(each, int) and abs(each) >= _LARGEST_NUMBER:
            raise TooLargeError("a number has more than 18 digits")
        if size > LARGEST:
            raise TooLargeError(f"a value has more than {LARGEST:,} characters or elements")
    return size
