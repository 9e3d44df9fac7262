"""Columns by name or by an expression of them, such as ``FLOP / (6 * N)``.

An expression is read into a syntax tree, every node of which must be one of a short list, and
the tree is worked out over arrays: nothing in it is ever run as code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import BadRequest, nearest_name

Floats = NDArray[np.float64]

_LONGEST = 500
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`([^`]*)`")
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "log": (np.log, 1),
    "exp": (np.exp, 1),
    "sqrt": (np.sqrt, 1),
    "abs": (np.abs, 1),
    "min": (np.minimum, 2),
    "max": (np.maximum, 2),
}
"""Each with the number of arguments; min and max take that many or more."""
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Not: np.logical_not,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
}
_LANGUAGE = (
    "columns, numbers, + - * / **, parentheses, log exp sqrt abs min max; "
    "names with spaces, dots or dashes in backticks: `val loss`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """An expression whose columns are all known.

    Attributes:
        text: as given.
        tree: checked; a name stands for the column of that name, whatever characters it has.
        numbers: columns read as numbers, in the order they are met.
        texts: columns compared with text.
    """

    text: str
    tree: ast.expr
    numbers: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns it reads."""
        return (*self.numbers, *self.texts)

    def shares_all_columns(self, other: Expression) -> bool:
        """Whether one of the two is made of columns of the other alone."""
        mine, theirs = set(self.columns), set(other.columns)
        return bool(mine and theirs) and (mine <= theirs or theirs <= mine)


def parse(text: str, known: Collection[str], *, option: str, truth: bool = False) -> Expression:
    """Read an expression of columns.

    A text that is the name of a column means that column, whatever characters it has.

    Args:
        text: such as ``loss``, ``FLOP / (6 * N)`` or, for a condition, ``step >= 1000``.
        known: columns of the table.
        option: where it was given, for messages.
        truth: whether a condition is wanted, not a number.

    Returns:
        The expression, checked.

    Raises:
        BadRequest: it cannot be read, holds what is not allowed, or names an unknown column.
    """
    if text in known and not _is_number(text):
        tree: ast.expr = ast.Name(id=text, ctx=ast.Load())
    else:
        tree = _tree(text, option)
    checker = _Checker(text, known, option)
    try:
        found = checker.kind_of(tree)
    except RecursionError:
        raise _refusal("an expression is nested too deeply.", text, option) from None
    wanted = "condition" if truth else "number"
    if found != wanted:
        remedy = "compare: --where 'step >= 1000'" if truth else "give a column or an expression"
        raise BadRequest(
            f"a {wanted} is wanted, and this is a {found}.",
            asked=f"{option} {text!r}",
            remedy=remedy,
        )
    return Expression(
        text=text,
        tree=tree,
        numbers=tuple(dict.fromkeys(checker.numbers)),
        texts=tuple(dict.fromkeys(checker.texts)),
    )


def evaluate(
    expression: Expression,
    numbers: Mapping[str, Floats],
    texts: Mapping[str, NDArray[np.object_]],
) -> NDArray[Any]:
    """Work out an expression row by row.

    Args:
        expression: checked.
        numbers: columns of numbers, (rows,), NaN where unknown.
        texts: columns of text, (rows,).

    Returns:
        Numbers or truths, (rows,), or () where no column is named; NaN where a number is unknown
        or does not exist.
    """
    with np.errstate(all="ignore"):
        return np.asarray(_value(expression.tree, numbers, texts))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refusal(what: str, text: str, option: str) -> BadRequest:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return BadRequest(what, asked=f"{option} {shown!r}", remedy=f"write {_LANGUAGE}")


def _tree(text: str, option: str) -> ast.expr:
    """The syntax tree, names in backticks put in."""
    if len(text) > _LONGEST:
        raise _refusal(f"an expression has at most {_LONGEST} characters.", text, option)
    quoted: dict[str, str] = {}
    prefix = "quoted_"
    while prefix in text:
        prefix += "_"

    def stand_in(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group(0)
        name = f"{prefix}{len(quoted)}"
        quoted[name] = match.group(1)
        return name

    try:
        tree = ast.parse(_QUOTED.sub(stand_in, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refusal("an expression cannot be read.", text, option) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = quoted.get(node.id, node.id)
    return tree


class _Checker:
    """Walks a tree once: every node allowed, every column known, numbers apart from truths."""

    def __init__(self, text: str, known: Collection[str], option: str) -> None:
        self._text, self._known, self._option = text, known, option
        self.numbers: list[str] = []
        self.texts: list[str] = []

    def kind_of(self, node: ast.expr) -> str:
        """Return "number" or "condition"."""
        match node:
            case ast.Constant(value=bool() | str() | bytes() | complex() | None):
                raise self._not_allowed(node)
            case ast.Constant(value=int() | float() as value):
                if not abs(value) < 1e308:
                    raise self._not_allowed(node)
                return "number"
            case ast.Name(id=name):
                self.numbers.append(self._column(name))
                return "number"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                self._all("number", [left, right])
                return "number"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._all("condition", [operand])
                return "condition"
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self._all("number", [operand])
                return "number"
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                self._call(name, args)
                return "number"
            case ast.BoolOp(values=values):
                self._all("condition", values)
                return "condition"
            case ast.Compare(ops=ops) if all(type(op) in _OPERATORS for op in ops):
                self._compare(node)
                return "condition"
        raise self._not_allowed(node)

    def _all(self, kind: str, nodes: Collection[ast.expr]) -> None:
        for node in nodes:
            if self.kind_of(node) != kind:
                raise self._not_allowed(node)

    def _call(self, name: str, args: list[ast.expr]) -> None:
        if name not in _FUNCTIONS:
            raise BadRequest(
                f"there is no function {name!r}.",
                asked=f"{self._option} {self._text!r}",
                nearest=nearest_name(name, _FUNCTIONS),
                remedy=f"the functions are {', '.join(_FUNCTIONS)}",
            )
        least = _FUNCTIONS[name][1]
        if len(args) < least or (least == 1 and len(args) > 1):
            more = "" if least == 1 else " or more"
            raise _refusal(
                f"{name} takes {least}{more} of them, not {len(args)}.", self._text, self._option
            )
        self._all("number", args)

    def _compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        if not any(_is_text(side) for side in sides):
            self._all("number", sides)
            return
        if len(sides) != 2 or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            raise self._not_allowed(node)
        for side in sides:
            if isinstance(side, ast.Name):
                self.texts.append(self._column(side.id))
            elif not _is_text(side):
                raise self._not_allowed(side)

    def _column(self, name: str) -> str:
        if name in self._known:
            return name
        given = "" if name == self._text else f" in {self._text!r}"
        raise BadRequest(
            f"there is no column {name!r}.",
            asked=f"{self._option} {name!r}{given}",
            nearest=nearest_name(name, self._known),
            remedy=f"the columns are {', '.join(self._known)}",
        )

    def _not_allowed(self, node: ast.expr) -> BadRequest:
        part = ast.unparse(node)
        part = part if len(part) <= 40 else part[:37] + "..."
        return _refusal(f"{part!r} cannot stand in an expression.", self._text, self._option)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _value(
    node: ast.expr, numbers: Mapping[str, Floats], texts: Mapping[str, NDArray[np.object_]]
) -> Any:
    """Of a checked node."""

    def of(inner: ast.expr) -> Any:
        return _value(inner, numbers, texts)

    match node:
        case ast.Constant(value=int() | float() as number):
            # float64 before any operator: 9**9**9 overflows to inf, it does not fill the memory
            return np.float64(number)
        case ast.Name(id=name):
            return numbers[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](of(left), of(right))
        case ast.UnaryOp(op=sign, operand=operand):
            return _OPERATORS[type(sign)](of(operand))
        case ast.Call(func=ast.Name(id=name), args=[one]):
            return _FUNCTIONS[name][0](of(one))
        case ast.Call(func=ast.Name(id=name), args=args):
            return reduce(_FUNCTIONS[name][0], map(of, args))
        case ast.BoolOp(op=joint, values=values):
            return reduce(_OPERATORS[type(joint)], map(of, values))
        case ast.Compare(left=ast.expr() as left, ops=[op], comparators=[right]) if _is_text(
            left
        ) or _is_text(right):
            return _OPERATORS[type(op)](_text_of(left, texts), _text_of(right, texts))
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [of(side) for side in (left, *others)]
            pairs = zip(ops, sides[:-1], sides[1:], strict=True)
            return reduce(np.logical_and, [_OPERATORS[type(op)](a, b) for op, a, b in pairs])
    raise AssertionError(ast.dump(node))


def _text_of(node: ast.expr, texts: Mapping[str, NDArray[np.object_]]) -> Any:
    """A column of text, or the text itself."""
    return texts[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)
