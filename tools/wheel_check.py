"""Build the wheel, install it into a clean environment and use it from another folder.

    python tools/wheel_check.py

Finds what an editable install hides: modules, weights, robot files and meshes that the wheel lacks.
Third-party packages are taken from the environment that runs this script, by path, so nothing is
downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("flowplan", "generators", "robot_configs", "sim_envs", "experiments")
USE = """
import trimesh
import flowplan as fp
from generators.kinematic import kinematic
mesh = trimesh.creation.box([0.05, 0.04, 0.08])
box = fp.SceneObject("box", mesh, fp.pose(translation=[0.45, 0, 0.041]))
scene, points = fp.Scene((box,), support_height=0.0), box.vertices_world
action = fp.Action("box", points, targets=points + [0, 0.1, 0], duration=2.0)
(motion,) = kinematic([fp.Rigid("box", lift=0.1)])(scene, action)
assert isinstance(fp.plan(scene, motion, fp.load_robot("panda")), fp.Plan)

from importlib import resources
from pathlib import Path
from flowplan.robot import load_robot
from sim_envs.assets import ARTICULATED, CLOTH, SCANNED, urdf_path
import experiments.tasks.episode, experiments.planning.bench_plan, generators.registry
load_robot("ur5e")
missing = [n for n in (*ARTICULATED, *SCANNED) if not urdf_path(n).is_file()]
assert CLOTH.is_file() and not missing, missing
weights = Path(str(resources.files("generators"))) / "weights"
assert len(list(weights.glob("*.safetensors"))) >= 2, weights
assert (Path(fp.__file__).parent / "py.typed").is_file()
from generators.neurok.network.weights import load
load("neurok-small")
from generators.chord.generate import load_prior
load_prior("choreographer")
print("used from", Path(fp.__file__).parent)
"""


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel = build(work)
        python = install(work, wheel)
        use(work, python)
    print(f"{wheel.name}: builds, installs and works outside the checkout")


def build(work: Path) -> Path:
    """The wheel, built from a copy, since setuptools writes into the source tree."""
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    run([*pip, "--no-deps", "--no-build-isolation", "-w", str(work), str(source)])
    (wheel,) = work.glob("*.whl")
    return wheel


def install(work: Path, wheel: Path) -> Path:
    """Python of a new environment: the wheel and this environment's packages, not its flowplan."""
    env = work / "env"
    run([sys.executable, "-m", "venv", "--without-pip", str(env)])
    python = env / "bin" / "python"
    theirs = Path(sysconfig.get_paths()["purelib"])
    paths = [str(theirs)]
    for file in sorted(theirs.glob("*.pth")):
        if not file.name.startswith("__editable__"):
            lines = file.read_text().splitlines()
            lines = [line for line in lines if line.strip()]
            paths += [x if x.startswith("import") else str(theirs / x) for x in lines]
    (mine,) = env.glob("lib/python*/site-packages")
    (mine / "packages.pth").write_text("\n".join(paths) + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)])
    return python


def use(work: Path, python: Path) -> None:
    """The command line, a plan, and every kind of data file, from outside the checkout."""
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    run([str(python.parent / "flowplan"), "--help"], cwd=elsewhere)
    said = run([str(python), "-c", USE], cwd=elsewhere)
    if str(ROOT) in said or str(work.resolve()) not in said:
        sys.exit(f"wheel check: flowplan was imported from another place: {said}")


def run(command: list[str], cwd: Path | None = None) -> str:
    """Standard output of a command that has to succeed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"wheel check: {' '.join(command)[:200]}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
