"""`import flowplan` offers the everyday names, loads nothing heavy, and type checkers see the same
names."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import flowplan

SOURCE = Path(flowplan.__file__)
HEAVY = {
    "coal",
    "coacd",
    "embreex",
    "manifold3d",
    "numba",
    "numpy",
    "ompl",
    "open3d",
    "pinocchio",
    "pybullet",
    "rclpy",
    "rich",
    "scipy",
    "skimage",
    "toppra",
    "torch",
    "transformers",
    "trimesh",
    "tyro",
    "viser",
}


def in_new_process(code):
    """Standard output of a Python program in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_flowplan_loads_no_third_party_package():
    before_and_after = in_new_process(
        "import sys; old = set(sys.modules); import flowplan; print(*(set(sys.modules) - old))"
    )
    loaded = {name.partition(".")[0] for name in before_and_after.split()}
    assert not loaded & HEAVY
    assert {name for name in loaded if name != "flowplan"} <= sys.stdlib_module_names


def test_a_name_loads_its_module_and_no_other_room():
    loaded = in_new_process("import sys, flowplan; flowplan.pose; print(*sys.modules)").split()
    assert "flowplan.geometry" in loaded
    assert not {"flowplan.planner", "flowplan.scan", "trimesh", "scipy"} & set(loaded)


@pytest.mark.parametrize("name", sorted(set(flowplan.__all__) - {"__version__"}))
def test_every_name_is_the_one_of_its_module(name):
    module = import_module(flowplan._MODULES[name])
    assert getattr(flowplan, name) is getattr(module, name)
    assert getattr(flowplan, name).__doc__


def test_all_dir_and_type_checking_imports_list_the_same_names():
    tree = ast.parse(SOURCE.read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in guarded.body for alias in node.names}
    assert seen == flowplan._MODULES
    assert set(flowplan.__all__) == {*flowplan._MODULES, "__version__"}
    assert set(flowplan.__all__) <= set(dir(flowplan))
    assert (SOURCE.parent / "py.typed").is_file()


def test_a_star_import_gives_every_name():
    namespace = {}
    exec("from flowplan import *", namespace)
    assert set(flowplan.__all__) <= set(namespace)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Robott'"):
        _ = flowplan.Robott
