"""How plans end: let go where the object rests, holding where it does not, as asked otherwise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.cli.plan_data import plan_data
from flowplan.geometry import pose, rotation_about, transform
from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.planner import Ending, Plan, PlanOptions, plan
from flowplan.report import feasibility
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from flowplan.trajectory import Phase

GRASP, PUSH = PlanOptions(contact="grasp"), PlanOptions(contact="push")
HOLDING = [Phase.APPROACH, Phase.GRIP, Phase.MANIPULATE]


@pytest.fixture(scope="module")
def panda():
    return load_robot("panda")


def brick(name="brick", size=(0.05, 0.04, 0.10)) -> SceneObject:
    mesh = trimesh.creation.box(size).subdivide().subdivide()
    return SceneObject(name, mesh, pose(translation=[0.45, -0.1, size[2] / 2 + 1e-3]))


def moved(thing, way, *, tilt=None, obstacles=()) -> tuple[Scene, SceneMotion]:
    """The thing along a way (T, 3) of its center, tilted about the x axis by angles (T,)."""
    tilt = np.zeros(len(way)) if tilt is None else tilt
    center = thing.X_world_object[:3, 3]
    X = pose(translation=way) @ rotation_about(center, [1, 0, 0], tilt)
    vertices = transform(X, thing.vertices_world)
    scene = Scene((thing,), 0.0, tuple(obstacles))
    return scene, SceneMotion(np.linspace(0, 4, len(way)), (vertices,))


def ease(frames=41):
    s = np.linspace(0, 1, frames)
    return s**3 * (10 - 15 * s + 6 * s**2)


def lift(height) -> tuple[Scene, SceneMotion]:
    return moved(brick(), ease()[:, None] * [0, 0, height])


def pour() -> tuple[Scene, SceneMotion]:
    """Lifted, carried, tilted by 70 degrees, and held there."""
    up, over, turn = (np.clip(3 * np.linspace(0, 1, 41) - k, 0, 1) for k in range(3))
    way = up[:, None] * [0, 0, 0.2] + over[:, None] * [0, 0.15, 0]
    return moved(brick(), way, tilt=np.deg2rad(70) * turn)


def pour_and_back() -> tuple[Scene, SceneMotion]:
    """Lifted, tilted by 60 degrees, tilted back, and put down beside where it was."""
    s = np.linspace(0, 1, 61)
    up = np.clip(4 * s, 0, 1) - np.clip(4 * s - 3, 0, 1)
    turn = np.clip(4 * s - 1, 0, 1) - np.clip(4 * s - 2, 0, 1)
    over = np.clip(2 * s - 0.5, 0, 1)
    way = up[:, None] * [0, 0, 0.2] + over[:, None] * [0, 0.1, 0]
    return moved(brick(), way, tilt=np.deg2rad(60) * turn)


def phases(found) -> list[int]:
    return np.unique(found.trajectory.phase).tolist()


@pytest.mark.parametrize("make", [lambda: lift(0.12), pour])
def test_what_ends_in_the_air_is_held(panda, make):
    """Lift, hand-over and pour: certified, and never with a release."""
    scene, motion = make()
    found = plan(scene, motion, panda, options=GRASP)
    assert isinstance(found, Plan), feasibility(found)
    assert phases(found) == HOLDING
    assert not found.ending.released
    assert not found.ending.rests
    q = found.trajectory
    assert q.grip[-1] == 0.0
    assert np.abs(q.qd[-1]).max() < 1e-6
    assert "ending     holding: brick would fall" in feasibility(found)
    data = plan_data(found)["plan"]["ending"]
    assert json.loads(json.dumps(data))["released"] is False
    assert data["drop_m"] == pytest.approx(found.ending.drop)


def test_what_is_put_down_after_pouring_is_let_go(panda):
    scene, motion = pour_and_back()
    found = plan(scene, motion, panda, options=GRASP)
    assert isinstance(found, Plan), feasibility(found)
    assert phases(found)[-1] == Phase.RETREAT
    assert found.ending.rests
    assert found.ending.drop == pytest.approx(1e-3, abs=1e-6)
    assert "ending     released: brick falls 1 mm and rests" in feasibility(found)


def test_always_lets_go_in_the_air_and_says_so(panda):
    scene, motion = lift(0.12)
    found = plan(scene, motion, panda, options=replace(GRASP, release="always"))
    assert isinstance(found, Plan), feasibility(found)
    assert phases(found)[-1] == Phase.RETREAT
    assert found.ending.released
    assert not found.ending.rests
    assert found.ending.drop == pytest.approx(0.121, abs=1e-6)
    assert any("although brick would fall 121 mm" in line for line in found.assumptions)


def test_never_holds_what_would_rest(panda):
    thing = brick()
    over = moved(
        thing, ease()[:, None] * [0, 0.2, 0] + (ease() * (1 - ease()))[:, None] * [0, 0, 0.2]
    )
    found = plan(*over, panda, options=replace(GRASP, release="never"))
    assert isinstance(found, Plan), feasibility(found)
    assert phases(found) == HOLDING
    assert found.ending.rests
    assert found.ending.reason.startswith("release='never'; brick")


def test_a_hand_that_pushes_stays_where_the_object_would_fall(panda):
    """A block is pushed half over the edge of a step, or not as far."""
    block = SceneObject(
        "block",
        trimesh.creation.box((0.06, 0.12, 0.10)).subdivide().subdivide(),
        pose(translation=[0.45, -0.1, 0.151]),
    )
    for edge, released in ((0.05, False), (0.15, True)):
        step = trimesh.creation.box((0.3, 0.6, 0.1))
        step = SceneObject("step", step, pose(translation=[0.45, edge - 0.3, 0.05]))
        scene, motion = moved(block, ease()[:, None] * [0, 0.17, 0], obstacles=[step])
        found = plan(scene, motion, panda, options=PUSH)
        assert isinstance(found, Plan), feasibility(found)
        assert found.ending.released == released, found.ending
        word = "the hand leaves" if released else "in contact"
        assert f"ending     {word}: block" in feasibility(found)


def test_endings_are_kept_in_files_and_older_files_have_none(tmp_path, panda):
    scene, motion = lift(0.12)
    found = plan(scene, motion, panda, options=GRASP)
    assert isinstance(found, Plan)
    path = npz.save(tmp_path / "plan.npz", found)
    assert npz.load(path, Plan).ending == found.ending
    later = ("ending", "flow_time", "mounting", "motion")  # fields of later versions
    arrays = {k: v for k, v in np.load(path).items() if not k.startswith(later)}
    np.savez(tmp_path / "old.npz", **(arrays | {"_version": np.array(2)}))
    assert npz.load(tmp_path / "old.npz", Plan).ending == Ending()


def test_an_unknown_release_is_refused():
    with pytest.raises(ValueError, match=r"PlanOptions\.release: .*'maybe'"):
        PlanOptions(release="maybe")
