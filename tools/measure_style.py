"""Density, comments, lengths, parameters and docstring openings of the code, as a table of folders.

    python tools/measure_style.py            the table
    python tools/measure_style.py --check    the hard limits: status 1 and a line for each exceeded

Tokens and comments are those of Python's tokenizer; a code line is a line with at least one token
that is not a comment or a docstring. Numeric code is a file that imports numpy or torch. A file may
be longer than MAX_LINES if one literal, a table of data, covers more than half of it.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "flowplan",
    "generators",
    "sim_envs",
    "experiments",
    "ros_nodes",
    "tools",
    "examples",
)
MAX_LINES = 450
MAX_PARAMETERS = 8
RIDDLE = re.compile(r"^(What|Where|How|Which|Whether|When|Who|Why|Does|Is|Are)\b")
NOT_GIVEN = re.compile(r"where (it is |they are |none is |none are )?not given", re.IGNORECASE)
SKIPPED = {
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
}


@dataclass(frozen=True)
class FileStyle:
    """Measures of one file.

    Attributes:
        path: relative to the project.
        lines: all of them.
        tokens, code_lines, comments: without docstrings.
        numeric: imports numpy or torch.
        functions: (name, lines, parameters) of each.
        faults: hard limits exceeded, a line each.
    """

    path: Path
    lines: int
    tokens: int
    code_lines: int
    comments: int
    numeric: bool
    functions: tuple[tuple[str, int, int], ...]
    faults: tuple[str, ...]


def measure(path: Path) -> FileStyle:
    """Measures of a Python file."""
    text = path.read_text()
    tree = ast.parse(text)
    documented = docstrings(tree)
    prose = {n for d in documented for n in range(d.lineno, (d.end_lineno or d.lineno) + 1)}

    tokens, comments = 0, 0
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in SKIPPED and line not in prose:
            tokens += 1
            code.update(range(line, token.end[0] + 1))

    functions = tuple(
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1, parameters(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    relative = path.relative_to(ROOT)
    lines = text.count("\n")
    imports = re.search(r"^(import|from) (numpy|torch)\b", text, re.MULTILINE)
    faults = tuple(find_faults(relative, tree, text, lines, functions, documented))
    return FileStyle(relative, lines, tokens, len(code), comments, bool(imports), functions, faults)


def docstrings(tree: ast.AST) -> list[ast.Constant]:
    """String statements: docstrings of modules, classes and functions, and those under fields."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, without self and cls."""
    a = function.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len([n for n in names if n not in ("self", "cls")]) + bool(a.vararg) + bool(a.kwarg)


def find_faults(
    path: Path,
    tree: ast.AST,
    text: str,
    lines: int,
    functions: Iterable[tuple[str, int, int]],
    documented: Iterable[ast.Constant],
) -> Iterator[str]:
    """One line for each hard limit that a file exceeds."""
    if lines > MAX_LINES and not is_table(tree, lines):
        yield f"{path}: {lines} lines, more than {MAX_LINES}"
    for name, _, count in functions:
        if count > MAX_PARAMETERS:
            yield f"{path}: {name} has {count} parameters, more than {MAX_PARAMETERS}"
    for node in documented:
        opening = str(node.value).strip().partition("\n")[0]
        if RIDDLE.match(opening):
            yield f"{path}:{node.lineno}: opens with a question word, not a noun phrase: {opening}"
    for number, line in enumerate(text.splitlines(), 1):
        if NOT_GIVEN.search(line) and path.name != "measure_style.py":
            yield f'{path}:{number}: say "Defaults to ..." or "if omitted": {line.strip()}'


def is_table(tree: ast.AST, lines: int) -> bool:
    """True if one literal covers more than half of a file."""
    literals = (ast.Dict, ast.List, ast.Tuple, ast.Set)
    spans = [
        (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, literals)
    ]
    return max(spans, default=0) > lines / 2


def files(folder: str) -> list[Path]:
    """Python files of a folder, without what was built or downloaded."""
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def row(name: str, styles: list[FileStyle]) -> str:
    """One row of the table."""
    numeric = [s for s in styles if s.numeric]
    functions = [f for s in styles for f in s.functions]
    lengths = sorted(length for _, length, _ in functions)
    code = sum(s.code_lines for s in styles)
    lines = [s.lines for s in styles]
    numeric_code = sum(s.code_lines for s in numeric) or 1
    return (
        f"| {name} | {len(styles)} | {code} | {sum(s.tokens for s in styles) / code:.1f} "
        f"| {100 * sum(s.comments for s in numeric) / numeric_code:.1f} "
        f"| {statistics.median(lines):.0f} / {max(lines)} "
        f"| {statistics.median(lengths):.0f} / {lengths[int(0.9 * len(lengths))]} / {lengths[-1]} "
        f"| {max(count for _, _, count in functions)} "
        f"| {sum(len(s.faults) for s in styles)} |"
    )


def main(check: bool = False, skip: tuple[str, ...] = ()) -> None:
    """Measure the code's style.

    Args:
        check: List the hard limits that are exceeded, and end with status 1 if any is.
        skip: Files and folders that are not checked.
    """
    styles = {folder: [measure(p) for p in files(folder)] for folder in FOLDERS}
    if check:
        faults = [
            fault
            for group in styles.values()
            for s in group
            if not str(s.path).startswith(skip)
            for fault in s.faults
        ]
        print("\n".join(faults) or "no hard limit is exceeded")
        sys.exit(bool(faults))
    print(
        "| folder | files | code lines | tokens per code line | comments per 100 lines, numeric "
        "| file lines, median / max | function lines, median / p90 / max | parameters, max | "
        "faults |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for folder, group in styles.items():
        print(row(folder, group))
    rooms = sorted({s.path.parts[1] for s in styles["flowplan"] if len(s.path.parts) > 2})
    for room in rooms:
        inside = [s for s in styles["flowplan"] if s.path.parts[1] == room]
        if any(s.functions for s in inside):
            print(row(f"flowplan/{room}", inside))


if __name__ == "__main__":
    tyro.cli(main)
