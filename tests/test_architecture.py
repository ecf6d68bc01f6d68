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
    # What runs on a robot knows nothing of the simulation.
    "ros_nodes/flowplan_ros": {"flowplan", "generators"},
    "ros_nodes/flowplan_bringup": set(),
    "ros_nodes/flowplan_sim_hw": {"flowplan", "generators", "sim_envs", "flowplan_ros"},
}
OURS = {Path(folder).name for folder in ALLOWED}
LAZY = {ROOT / "flowplan" / "cli.py"}  # the command line may import the others inside its commands


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return names | {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_arrows_point_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        reached = imported(path, top_level_only=path in LAZY) & OURS - {Path(folder).name}
        assert reached <= ALLOWED[folder], f"{path.relative_to(ROOT)} imports {reached - ALLOWED[folder]}"


def test_only_ros_nodes_know_ros():
    for folder in (folder for folder in ALLOWED if not folder.startswith("ros_nodes")):
        for path in (ROOT / folder).rglob("*.py"):
            ros = {name for name in imported(path) if name.startswith("rcl") or name.endswith("_msgs")}
            assert not ros, f"{path.relative_to(ROOT)} imports {ros}: what speaks ROS belongs into ros_nodes"


def test_importing_flowplan_loads_no_heavy_package():
    code = (
        "import sys, flowplan, flowplan.planner, flowplan.robot, flowplan.files, flowplan.scan\n"
        "heavy = {'torch', 'pybullet', 'rclpy', 'open3d', 'curobo'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"import flowplan loaded {done.stderr.strip()}"
