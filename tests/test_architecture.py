"""Arrows between folders and rooms point one way, and importing flowplan stays light."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "flowplan": set(),
    "generators": {"flowplan"},
    "sim_envs": {"flowplan", "robot_configs"},
    "robot_configs": {"flowplan"},
    "experiments": {"flowplan", "generators", "sim_envs"},
    "tools": {"flowplan", "sim_envs", "robot_configs", "generators", "experiments"},
    "examples": {"flowplan", "generators", "sim_envs", "experiments"},
    # What runs on a robot knows nothing of the simulation.
    "ros_nodes/flowplan_ros": {"flowplan", "generators"},
    "ros_nodes/flowplan_bringup": set(),
    "ros_nodes/flowplan_sim_hw": {
        "flowplan",
        "generators",
        "sim_envs",
        "experiments",
        "flowplan_ros",
    },
}
OURS = {Path(folder).name for folder in ALLOWED}

# The rooms of flowplan/, lowest first: a room may import those above it in this list and no other.
ROOMS = [
    "utils",
    "geometry",
    "parts",
    "scene",
    "laws",
    "rollout",
    "trajectory",
    "robot",
    "motion",
    "scan",
    "attachment",
    "articulation",
    "validation",
    "collision",
    "motion_quality",
    "statics",
    "moves",
    "grasp",
    "optimizers",
    "paths",
    "planner",
    "report",
    "replanning",
    "io",
    "viz",
    "cli",
]
NARROW = {
    "validation": {"robot", "trajectory", "utils"}
}  # what certifies shares no code with what plans
COMMAND_LINE = ROOT / "flowplan" / "cli"  # reaches into every folder, inside its commands


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "ros_nodes":
        parts = parts[2:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names of what a module imports: modules, or names in them."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names}
    return names


def first(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_arrows_point_one_way(folder):
    for path in modules(folder):
        lazy = COMMAND_LINE in path.parents
        reached = first(imported(path, top_level_only=lazy)) & OURS - {Path(folder).name}
        assert reached <= ALLOWED[folder], (
            f"{path.relative_to(ROOT)} imports {reached - ALLOWED[folder]}"
        )


@pytest.mark.parametrize("folder", sorted(set(ALLOWED) - {"tools", "examples"}))
def test_nothing_imports_tools_or_examples(folder):
    for path in modules(folder):
        assert not first(imported(path)) & {"tools", "examples"}, path.relative_to(ROOT)


def room(name: str) -> str:
    return name.split(".")[1] if name.count(".") else ""


def test_rooms_import_lower_rooms_only():
    for path in modules("flowplan"):
        mine = room(name_of(path))
        if not mine:  # flowplan/__init__.py names what it offers, and imports it when asked
            continue
        assert mine in ROOMS, f"{path.relative_to(ROOT)}: give room {mine!r} its place in ROOMS"
        below = NARROW.get(mine, set(ROOMS[: ROOMS.index(mine)]))
        reached = {room(n) for n in imported(path) if n.startswith("flowplan.")} - {mine}
        assert reached <= below, f"{path.relative_to(ROOT)} imports {reached - below}"


def test_validation_takes_the_robot_record_alone():
    """The planner's kinematics and gripper model would make the certificate depend on them."""
    for path in modules("flowplan/validation"):
        robot = {name for name in imported(path) if name.startswith("flowplan.robot")}
        assert robot <= {"flowplan.robot.Robot"}, f"{path.relative_to(ROOT)} imports {robot}"


def test_flowplan_has_few_rooms_and_rooms_few_files():
    rooms = [p for p in (ROOT / "flowplan").iterdir() if (p / "__init__.py").exists()]
    assert len(rooms) <= 16
    for folder in {path.parent for path in modules("flowplan")}:
        inner = [p for p in folder.iterdir() if (p / "__init__.py").exists()]
        files = list(folder.glob("*.py"))
        assert len(files) <= 12 or inner, f"{folder.relative_to(ROOT)} holds {len(files)} files"


def test_no_imports_go_in_a_circle():
    paths = {name_of(path): path for folder in ALLOWED for path in modules(folder)}
    graph = {}
    for name, path in paths.items():
        lazy = COMMAND_LINE in path.parents or name == "flowplan"
        targets = set()
        for target in imported(path, top_level_only=lazy):
            known = [m for m in (target, target.rpartition(".")[0]) if m in paths]
            targets |= set(known[:1])
        graph[name] = targets - {name}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_ros_nodes_know_ros():
    for folder in (folder for folder in ALLOWED if not folder.startswith("ros_nodes")):
        for path in modules(folder):
            names = first(imported(path))
            ros = {name for name in names if name.startswith("rcl") or name.endswith("_msgs")}
            assert not ros, (
                f"{path.relative_to(ROOT)} imports {ros}: what speaks ROS belongs into ros_nodes"
            )


def test_importing_flowplan_loads_no_heavy_package():
    code = (
        "import sys, flowplan, flowplan.planner, flowplan.robot, flowplan.io.npz, flowplan.scan\n"
        "heavy = {'torch', 'pybullet', 'rclpy', 'open3d', 'curobo'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"import flowplan loaded {done.stderr.strip()}"
