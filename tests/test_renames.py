"""The page of renames leads somewhere: every new module and name is there, every old one is gone."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "renames.md").read_text()
ROW = re.compile(r"^\| `([\w.]+)` \| (?:`([\w.]+)`|-|bounds in .*) \|$", re.MULTILINE)
ROWS = [row for row in ROW.findall(PAGE) if "." in row[0]]
SOURCES = (ROOT, ROOT / "ros_nodes" / "flowplan_ros", ROOT / "ros_nodes" / "flowplan_sim_hw")


def source(module):
    """The file of a module, by its dotted name; None if there is none."""
    for root in SOURCES:
        for name in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py"):
            if (root / name).is_file():
                return root / name
    if module.startswith("tests."):
        return ROOT / f"{module.replace('.', '/')}.py"
    return None


def found(name):
    """True for a module, or for what a module defines or imports, attributes included."""
    if source(name):
        return True
    parts = name.split(".")
    for k in range(len(parts) - 1, 0, -1):
        path = source(".".join(parts[:k]))
        if path:
            return set(parts[k:]) <= words(path)
    return False


def words(path):
    """Every identifier that a file binds."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                out.add(node.name)
            case ast.Name():
                out.add(node.id)
            case ast.ImportFrom():
                out |= {alias.asname or alias.name for alias in node.names}
            case ast.arg():
                out.add(node.arg)
            case ast.Constant() if isinstance(node.value, str):
                out.add(node.value)  # names offered lazily
    return out


def test_there_are_renames():
    assert len(ROWS) > 300


@pytest.mark.parametrize(("old", "new"), ROWS, ids=lambda name: name)
def test_new_names_exist_and_old_ones_do_not(old, new):
    assert not new or found(new), f"docs/renames.md: {new} does not exist"
    if new and not new.startswith(old):  # a module that became a package of its name
        assert not source(old) or not old.endswith(new.rpartition(".")[2]), f"{old} is still there"
