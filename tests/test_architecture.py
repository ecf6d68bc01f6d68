"""Arrows between folders point one way, and importing flowplan stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "flowplan": set(),
    "generators": {"flowplan"},
    "sim_envs": {"flowplan", "robot_configs"},
    "robot_configs": {"flowplan"},
    "ros_nodes": {"flowplan"},
}
OURS = set(ALLOWED)
LAZY = {ROOT / "flowplan" / "cli.py"}  # the command line may import the others inside its commands


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return names | {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_arrows_point_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        reached = imported(path, top_level_only=path in LAZY) & OURS - {folder}
        assert reached <= ALLOWED[folder], f"{path.relative_to(ROOT)} imports {reached - ALLOWED[folder]}"


def test_importing_flowplan_loads_no_heavy_package():
    code = (
        "import sys, flowplan, flowplan.planner, flowplan.robot, flowplan.files, flowplan.scan\n"
        "heavy = {'torch', 'pybullet', 'rclpy', 'open3d', 'curobo'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"import flowplan loaded {done.stderr.strip()}"
