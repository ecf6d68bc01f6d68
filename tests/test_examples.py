"""Every example runs and ends in what it promises."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flowplan as fp
from sim_envs.tasks import TASKS

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))


@pytest.fixture(autouse=True)
def tasks_as_before():
    """Examples add tasks of their own, which other tests do not know."""
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


def example(number):
    """The module of an example, by its number."""
    (path,) = FOLDER.glob(f"{number:02d}_*.py")
    spec = importlib.util.spec_from_file_location(f"example_{number:02d}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_plays(page):
    """The page is a self-contained HTML file with a recording in it."""
    text = page.read_text()
    assert len(text) > 100_000
    assert "</html>" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short_and_says_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 100
    assert f"python examples/{path.name}" in text
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text()
    assert f'"runs/examples/{path.stem}"' in text


def test_plan_a_motion(tmp_path):
    assert_plays(example(1).main(tmp_path))
    plan = fp.load(tmp_path / "plan.npz", fp.Plan)
    assert plan.certificate.clearance > 0
    scene = fp.load(tmp_path / "scene.npz", fp.Scene)
    assert [o.name for o in (*scene.objects, *scene.obstacles)] == ["brick", "wall"]


def test_own_mesh(tmp_path, capsys):
    assert_plays(example(2).main(out=tmp_path))
    assert "watertight: True" in capsys.readouterr().out


def test_own_robot(tmp_path):
    rows = example(3).main(tmp_path).read_text()
    durations = dict(re.findall(r"(panda|ur5e|slow_panda) .*?(\d+\.\d)", rows))
    assert float(durations["slow_panda"]) > float(durations["panda"])
    assert "ur5e" in durations


@pytest.mark.slow
def test_own_task(tmp_path, capsys):
    assert_plays(example(4).main(out=tmp_path))
    assert "success: the bowl stands" in capsys.readouterr().out
    assert (tmp_path / "video.mp4").stat().st_size > 10_000


def test_pour_ends_holding(tmp_path, capsys):
    """In simulation: the ramekin is held tilted when the episode is judged."""
    assert_plays(example(10).main(video=False, out=tmp_path))
    out = capsys.readouterr().out
    assert "ending     holding: ramekin would fall" in out
    assert "success: held tilted by" in out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["plan"]["released"] is False


def test_neurok_drag(tmp_path, capsys):
    assert_plays(example(5).main(out=tmp_path))
    share = re.search(r"(\d+)% of the way", capsys.readouterr().out)
    assert int(share[1]) < 20


def test_chord_prompt_begins(tmp_path):
    assert_plays(example(6).main(iterations=2, out=tmp_path))
    with Image.open(tmp_path / "sample-0" / "segment-0" / "preview.gif") as film:
        assert film.n_frames > 10


@pytest.mark.slow
def test_chord_prompt(tmp_path, capsys):
    assert_plays(example(6).main(out=tmp_path))
    apart = re.search(r"ends (\d+\.\d) cm beside", capsys.readouterr().out)
    assert float(apart[1]) < 6.0


def test_point_tracks(tmp_path, capsys):
    assert_plays(example(7).main(out=tmp_path))
    rows = re.findall(r"^ +\d\.\d\d +(\d+\.\d) +(\d+\.\d)$", capsys.readouterr().out, re.MULTILINE)
    assert np.array(rows, float).shape == (6, 2)
    assert (np.array(rows, float) < [5.0, 5.0]).all()  # mm, degrees


def test_custom_optimizer(tmp_path):
    rows = example(8).main(tmp_path).read_text().splitlines()[1:]
    assert len(rows) == 6
    assert sum("grasp" in row for row in rows if "frame_by_frame" in row) >= 1
    assert sum("grasp" in row for row in rows if " lm " in row) == 3


def test_batch_of_scenes_goes_on_where_it_was(tmp_path):
    (script,) = FOLDER.glob("09_*.py")
    for scenes in ("1", "2"):
        words = [sys.executable, script, "--scenes", scenes, "--workers", "1", "--out", tmp_path]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "plans.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    assert "2 of 2 planned" in done.stdout
