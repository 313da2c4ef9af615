"""A sandbox for Jinja templates, with bounded time and memory.

Every value that a template makes is measured, every item that it loops over is counted, and what can grow by
more than the sum of its operands (``*``, ``center``, ``join``, ``format`` ...) is refused beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta, tzinfo
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

MOST_TEXT = 64 << 10
_LONGEST_TEMPLATE = 16 << 10
# A unit of work is a value, an item, or 64 characters; a million take about a second.
_MOST_WORK = 100_000
_LARGEST = 10_000
_CHARACTERS = 64
_CALL = 10  # units of a call of a macro
_PARSING, _PARSED = 5, 16  # units of a template, and characters of it in one more
_LONGEST_WIDTH = 9_999

_TOO_LARGE = "the template makes too large a value"
_NOT_NEEDED = {"lipsum", "pprint", "random", "urlize", "wordwrap", "xmlattr"}
# Whose methods may be called, but for these.
_KINDS = (
    str,
    int,
    float,
    date,
    time,
    timedelta,
    tzinfo,
    dict,
    list,
    tuple,
    set,
    frozenset,
    LoopContext,
    Cycler,
)
_REFUSED_METHODS = {"maketrans", "to_bytes", "translate"}
# Where expressions are used without a call, filter or operator that would measure them.
_OPERANDS = {
    nodes.Assign: "node",
    nodes.With: "values",
    nodes.Compare: "expr",
    nodes.Operand: "expr",
    nodes.Concat: "nodes",
    nodes.Pair: "key",
    nodes.Getitem: "arg",
}


def units_of(value: object) -> int:
    """Return the units of a value with its contents; raise SecurityError on too many."""
    units, left = 0, [value]
    while left:
        one = left.pop()
        units += 1
        if isinstance(one, (str, bytes)):
            units += len(one) // _CHARACTERS
        elif isinstance(one, int):
            units += one.bit_length() // _CHARACTERS
        elif isinstance(one, Namespace):
            left.append(object.__getattribute__(one, "_Namespace__attrs"))
        elif isinstance(one, (Mapping, Sequence, AbstractSet, MappingView)):
            if len(one) > _LARGEST:
                raise SecurityError(_TOO_LARGE)
            left += one  # type: ignore[arg-type]  # views have items
            if isinstance(one, Mapping):
                left.extend(one.values())
        if units + len(left) > _LARGEST:
            raise SecurityError(_TOO_LARGE)
    return units


def _formatted(text: object, *args: Any, **named: Any) -> int:
    """Return the most characters of a formatted text; widths come from the text only."""
    text = str(text)
    widths = [int(digits) for digits in re.findall(r"\d{1,9}", text)]
    if "*" in text or re.search(r"\{[^{}]*\{", text) or max(widths, default=0) > _LONGEST_WIDTH:
        raise SecurityError("the template formats with too large a width")
    fields = max(text.count("%"), text.count("{"))
    return len(text) + fields * (max(widths, default=0) + _CHARACTERS * units_of([args, named]))


def _replaced(text: object, old: str, new: str, count: int | None = None) -> int:
    return (str(text).count(str(old)) + 1) * len(str(new))


def _width(text: object, width: int = 80, *rest: Any) -> int:
    return width


def _indented(text: object, width: int | str = 4, *rest: Any, **named: Any) -> int:
    return (str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else width)


# By the name of what may grow a text: the most characters that it adds.
_FILTERS: dict[str, Callable[..., int]] = {
    "batch": _width,
    "center": _width,
    "format": _formatted,
    "indent": _indented,
    "join": lambda items, d="", attribute=None: len(items) * len(str(d)),
    "replace": _replaced,
    "round": _width,
    "slice": _width,
    "tojson": lambda value, indent=0: units_of(value) * (indent or 0) * 10,
}
_METHODS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _width),
    "expandtabs": lambda text, tabsize=8: text.count("\t") * tabsize,
    "format": _formatted,
    "format_map": lambda text, values: _formatted(text, **values),
    "join": lambda text, items: len(items) * len(text),
    "replace": _replaced,
}


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one rendering."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, finalize=self._measured)
        self._work = 0
        self._text = 0  # units of the longest template
        self.filters = {
            name: self._bounded(function, _FILTERS.get(name))
            for name, function in self.filters.items()
            if name not in _NOT_NEEDED
        }
        self.tests: dict[str, Any] = {name: self._bounded(function) for name, function in self.tests.items()}
        self.filters |= {"_measured": self._measured, "_counted": self._counted}
        del self.globals["lipsum"]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless the result would be too large."""
        self._spend(units_of([left, right]))
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, (str, list, tuple)) and isinstance(times, int):
                    _check_length(len(text) * times)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_length(left.bit_length() * right)
        if operator == "%" and isinstance(left, str):
            _check_length(_formatted(left, right))
        return self._measured(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, *args: Any, **named: Any) -> Any:
        """Call a method or a function of Jinja, unless the result would be too large."""
        size = units_of([args, named])
        # What may call itself costs more.
        self._spend(size * (_CALL + self._text) if isinstance(obj, (Macro, LoopContext)) else size)
        # Jinja wraps the methods that format.
        name, owner = (
            getattr(obj, "__name__", ""),
            getattr(getattr(obj, "__wrapped__", obj), "__self__", None),
        )
        if name in _REFUSED_METHODS or not self._may_be_called(obj, owner):
            raise SecurityError(f"the template calls {name or 'a value'}, which is not allowed")
        if isinstance(owner, str):
            self._spend(units_of(owner))
            if name in _METHODS:
                _check_length(_METHODS[name](owner, *args, **named))
        result = super().call(context, obj, *args, **named)
        return result if obj is self.globals["range"] else self._measured(result)

    def _may_be_called(self, called: object, owner: object) -> bool:
        kind = owner if isinstance(owner, type) else type(owner)
        functions = (dict, Namespace, Cycler, Joiner, self.globals["range"])
        known = isinstance(called, (Joiner, LoopContext, Macro, Undefined))
        return known or issubclass(kind, _KINDS) or any(called is one for one in functions)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > _LONGEST_TEMPLATE:
            raise TemplateSyntaxError(f"longer than {_LONGEST_TEMPLATE >> 10} KiB", 1)
        self._spend(_PARSING + len(source) // _PARSED)
        self._text = max(self._text, len(source) // _CHARACTERS)
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            text = sum(len(data.data) for data in loop.find_all(nodes.TemplateData))
            loop.iter = self._filtered(loop.iter, "_counted", nodes.Const(1 + text // _CHARACTERS))
        for operator in list(tree.find_all(tuple(_OPERANDS))):
            field = _OPERANDS[type(operator)]
            value = getattr(operator, field)
            several = isinstance(value, list)
            found = [self._filtered(one, "_measured") for one in (value if several else [value])]
            setattr(operator, field, found if several else found[0])
        return tree

    def _filtered(self, node: Any, name: str, *args: nodes.Expr) -> nodes.Expr:
        if isinstance(node, nodes.Slice) or (isinstance(node, nodes.Const) and not args):
            return node  # nothing to measure
        filtered = nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
        filtered.set_environment(self)
        return filtered

    def _bounded(
        self, function: Callable[..., Any], added: Callable[..., int] | None = None
    ) -> Callable[..., Any]:
        """Return a filter or test that measures what it takes and gives."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0  # after a context

        @wraps(function)
        def bounded(*args: Any, **named: Any) -> Any:
            self._spend(units_of([args[first:], named]))
            if added is not None:
                _check_length(added(*args[first:], **named))
            result = function(*args, **named)
            return self._measured(list(result) if isinstance(result, Iterator) else result)

        return bounded

    def _measured(self, value: Any) -> Any:
        if isinstance(value, Iterator):
            raise SecurityError("the template makes an iterator, which is not allowed")
        self._spend(units_of(value))
        return value

    def _counted(self, items: Iterable[Any], units: int) -> Iterator[Any]:
        for item in items:
            self._spend(units)
            yield item

    def _spend(self, units: int) -> None:
        self._work += units
        if self._work > _MOST_WORK:
            raise SecurityError("the template does too much")


def _check_length(characters: int) -> None:
    if characters > MOST_TEXT:
        raise SecurityError(_TOO_LARGE)
