"""docs/extending.md: one new file and one registry line each, in a copy of the project."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

import flowplan as fp

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
PACKAGES = ("flowplan", "generators", "robot_configs", "sim_envs", "experiments")
FILE = re.compile(r'^```python title="([\w/]+\.py)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINE = re.compile(r'^```text title="([\w/]+\.py), in (\w+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def section(title):
    """The text of a section."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture
def project(tmp_path):
    """The packages, as links to the checkout's files, and a scene with an instruction."""
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored, copy_function=os.symlink)
    mesh = trimesh.creation.box([0.05, 0.04, 0.08]).subdivide().subdivide()
    box = fp.SceneObject("box", mesh, fp.pose(translation=[0.45, -0.1, 0.041]))
    fp.save(tmp_path / "scene.npz", fp.Scene((box,), support_height=0.0))
    points = box.vertices_world[:8]
    moved = {"object": "box", "handles": points.tolist(), "duration": 3.0}
    moved["targets"] = (points + np.array([0.0, 0.2, 0.1])).tolist()
    (tmp_path / "move.json").write_text(json.dumps(moved))
    return tmp_path


def follow(title, project):
    """Write the section's one file and its one registry line, and run its commands."""
    text = section(title)
    ((path, content),) = FILE.findall(text)
    assert not (ROOT / path).exists()
    (project / path).write_text(content)
    ((registry, table, line),) = LINE.findall(text)
    add_line(project / registry, table, line)
    said = ""
    for command in re.findall(r"^flowplan .*$", text, re.MULTILINE):
        said += flowplan(command, project)
    return said


def add_line(path, table, line):
    """One more line in a registry; the link becomes a file."""
    assert line.count("\n") == 1
    text = path.read_text()
    path.unlink()
    start = re.compile(rf"^({table}\b[^=\n]*= [({{])(\n|(?=[)}}]))", re.MULTILINE)
    assert len(start.findall(text)) == 1, f"{path.name} has no table {table}"
    path.write_text(start.sub(lambda m: m[1] + "\n" + line, text))


def flowplan(command, project):
    """Standard output of a command line, run with the copy's packages."""
    words = [sys.executable, "-m", "flowplan.cli", *shlex.split(command)[1:]]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_generator_is_a_file_and_a_line(project):
    follow("A generator", project)
    motion = fp.load(project / "motion.npz", fp.SceneMotion)
    assert motion.vertices[0].shape[0] == 41
    assert "straight" in flowplan("flowplan run --help", project)


def test_an_optimizer_is_a_file_and_a_line(project):
    follow("A generator", project)
    assert "PLAN" in follow("An optimizer", project)


def test_a_task_is_a_file_and_a_line(project):
    assert "SUCCESS" in follow("A task", project)
