"""Small faults in Python source: their places, and the source with one of them planted.

Faults are made in the syntax tree, so no file is changed. Annotations, decorators and the text of
error messages hold none.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("comparison", "sign", "factor", "boolean", "branch")
"""Kinds planted by default."""
CONSTANT = "constant"
"""Kind that is reported apart: constants are often choices without a right value."""

_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_EXCHANGED: dict[type[ast.operator], tuple[str, type[ast.operator]]] = {
    ast.Add: ("sign", ast.Sub),
    ast.Sub: ("sign", ast.Add),
    ast.Mult: ("factor", ast.Div),
    ast.Div: ("factor", ast.Mult),
    ast.BitAnd: ("boolean", ast.BitOr),
    ast.BitOr: ("boolean", ast.BitAnd),
}
_TEXT = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
_PLAIN = (ast.Name, ast.Attribute, ast.Call, ast.Subscript)
_SHOWN = 70
"""Characters shown on either side of a fault."""


@dataclass(frozen=True)
class Fault:
    """One place of a file and the fault planted there.

    Attributes:
        path: the file, relative to the project.
        line: line of the statement's faulty part.
        kind: one of KINDS, or CONSTANT.
        number: position in `faults(path)`, which names the fault.
        before, after: the changed part of the statement.
    """

    path: str
    line: int
    kind: str
    number: int
    before: str
    after: str

    @property
    def key(self) -> str:
        """Name that stays the same as long as the file does."""
        return f"{self.path}:{self.line}:{self.kind}:{self.number}"


def faults(root: Path, path: Path) -> list[Fault]:
    """All faults of a file, in the order of its syntax tree."""
    tree = ast.parse(path.read_text())
    found = []
    for number, (statement, place, kind) in enumerate(_places(tree)):
        before = ast.unparse(statement)
        undo = _plant(place)
        after = ast.unparse(statement)
        undo()
        line = getattr(place, "lineno", statement.lineno)
        # Positions inside f-strings are wrong before Python 3.12.
        line = max(line, statement.lineno)
        name = path.relative_to(root).as_posix()
        found.append(Fault(name, line, kind, number, *_changed(before, after)))
    return found


def planted(source: str, number: int) -> ast.Module:
    """Syntax tree of the source with fault `number` of its list planted."""
    tree = ast.parse(source)
    _, place, _ = list(_places(tree))[number]
    _plant(place)
    return ast.fix_missing_locations(tree)


def sample(found: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """`count` faults at random, or all; a larger count with the same seed adds to a smaller one."""
    order = random.Random(seed).sample(range(len(found)), len(found))
    return [found[i] for i in order[:count]]


def _places(tree: ast.Module) -> Iterator[tuple[ast.stmt, ast.AST, str]]:
    """Statement, node and kind of each fault."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.stmt) and not _is_typing(statement):
            for node in _own_nodes(statement):
                yield from ((statement, node, kind) for kind in _kinds(statement, node))


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """Nodes of a statement, without those of statements inside it, annotations and decorators."""
    yield statement
    waiting = [child for child in _fields(statement) if not isinstance(child, ast.stmt)]
    while waiting:
        node = waiting.pop(0)
        if isinstance(statement, ast.Raise) and isinstance(node, ast.JoinedStr):
            continue
        yield node
        waiting += [child for child in _fields(node) if not isinstance(child, ast.stmt)]


def _fields(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "format_spec", "bases"):
            continue
        children = value if isinstance(value, list) else [value]
        yield from (child for child in children if isinstance(child, ast.AST))


def _is_typing(statement: ast.stmt) -> bool:
    """Imports for type checkers, and aliases of types."""
    text = ast.unparse(statement).split("\n")[0]
    return "TYPE_CHECKING" in text or "Annotated[" in text or "Callable[" in text


def _kinds(statement: ast.stmt, node: ast.AST) -> Iterator[str]:
    """Kinds of faults that a node takes; at most one, but for conditions."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in _NEGATED:
            yield "comparison"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _EXCHANGED:
            words = [isinstance(side, _TEXT) or _is_word(side) for side in (left, right)]
            if not any(words):
                yield _EXCHANGED[type(op)][0]
        case ast.AugAssign(op=op, value=value) if type(op) in _EXCHANGED:
            if not isinstance(value, _TEXT):
                yield _EXCHANGED[type(op)][0]
        case ast.UnaryOp(op=ast.USub()):
            yield "sign"
        case ast.UnaryOp(op=ast.Not() | ast.Invert()) | ast.BoolOp():
            yield "boolean"
        case ast.Constant(value=bool() | int() | float()):
            yield CONSTANT
    # A condition that is a plain value; other conditions have a fault of their own.
    mine = node is statement or isinstance(node, ast.IfExp)
    if mine and isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, _PLAIN):
        yield "branch"


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _plant(node: Any) -> Callable[[], None]:
    """Plant a fault into a node; the returned function takes it out again."""
    field: str
    new: Any
    match node:
        case ast.Compare():
            field, new = "ops", [_NEGATED[type(node.ops[0])](), *node.ops[1:]]
        case ast.BinOp() | ast.AugAssign():
            field, new = "op", _EXCHANGED[type(node.op)][1]()
        case ast.UnaryOp(op=ast.USub()):
            field, new = "op", ast.UAdd()
        case ast.UnaryOp():
            # A second `not` undoes the first.
            field, new = "operand", ast.UnaryOp(op=node.op, operand=node.operand)
        case ast.BoolOp():
            field, new = "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.Constant(value=bool(value)):
            field, new = "value", not value
        case ast.Constant(value=int(value)):
            field, new = "value", value + 1
        case ast.Constant(value=float(value)):
            field, new = "value", 2 * value if value else 1.0
        case _:
            field, new = "test", ast.UnaryOp(op=ast.Not(), operand=node.test)
    old = getattr(node, field)
    setattr(node, field, new)
    return lambda: setattr(node, field, old)


def _changed(before: str, after: str) -> tuple[str, str]:
    """The lines of two statements that differ, cut to the surroundings of the difference."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    old, new = next(((a, b) for a, b in pairs if a != b), (before, after))
    different = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    same = different[0] if different else min(len(old), len(new))
    start = max(0, same - _SHOWN)
    return old[start : same + _SHOWN].strip(), new[start : same + _SHOWN].strip()
