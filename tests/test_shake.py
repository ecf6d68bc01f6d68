"""The shake test: certain outcomes of trials, and the counts of the benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("pybullet")

from experiments.grasping.bench_shake import bench_shake, random_antipodal
from experiments.grasping.floating_hand import floating_hand
from experiments.grasping.shake_objects import ShakeObject, convex_object
from experiments.grasping.shake_trial import Shake, ShakeOptions, shake_trial
from flowplan.geometry import inverse, pose
from flowplan.grasp import ContactCandidates
from flowplan.robot import Robot, load_robot
from flowplan.scene import Scene, SceneObject
from sim_envs.arm import Arm
from sim_envs.world import World

DOWN = np.diag([1.0, -1.0, -1.0])
SURE = ShakeOptions(friction=(0.6, 0.6), mass=(0.1, 0.1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shake")


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    return floating_hand(load_robot("panda"), tmp_path_factory.mktemp("hand"))


def block(folder: Path, size: tuple[float, float, float]) -> ShakeObject:
    path = folder / "block.obj"
    trimesh.creation.box(size).export(path)
    return convex_object("thing", path, folder)


def try_block(
    hand: Robot,
    folder: Path,
    *,
    size: tuple[float, float, float] = (0.04, 0.04, 0.08),
    at: tuple[float, float, float] = (0.0, 0.0, 0.06),
    options: ShakeOptions = SURE,
    seed: int = 0,
) -> Shake:
    thing = block(folder, size)
    X = pose(translation=[0, 0, size[2] / 2])
    return shake_trial(hand, thing, X, pose(DOWN, at), 0.08, seed=seed, options=options)


@pytest.mark.parametrize("name", ["panda", "ur5e"])
def test_hand_is_the_robots_own(name: str, folder: Path) -> None:
    """Links are placed relative to the tool as on the arm, and joints at zero give X_world_tool."""
    robot = load_robot(name)
    hand = floating_hand(robot, folder)
    X_world_tool = pose(DOWN, [0.3, 0.2, 0.4])
    q = robot.home[None]
    links = dict(zip(robot.link_names, robot.fk(q, 0.05)[0], strict=True))
    X_tool_world = inverse(robot.tool_pose(q)[0])
    with World() as world:
        arm = Arm.add(world, replace(hand, X_world_base=X_world_tool))
        arm.reset(np.zeros(6), 0.05)
        np.testing.assert_allclose(arm.X_world_tool(), X_world_tool, atol=2e-6)
        for link in (*robot.gripper.finger_links, *robot.gripper.hand_links):
            expected = X_world_tool @ X_tool_world @ links[link]
            np.testing.assert_allclose(
                world.link_pose(arm.body, link), expected, atol=2e-6, err_msg=link
            )


@pytest.mark.parametrize("name", ["panda", "ur5e"])
def test_firm_grasp_is_held(name: str, folder: Path) -> None:
    done = try_block(floating_hand(load_robot(name), folder), folder)
    assert done.verdict == "held"
    assert done.distance < 2e-3
    assert (done.friction, done.mass) == (0.6, 0.1)


def test_too_little_friction_is_shaken_out(hand: Robot, folder: Path) -> None:
    """Lifting 0.1 kg with 2 x 30 N needs mu = 0.016, shaking it at 3.2 g needs 0.05."""
    slippery = ShakeOptions(friction=(0.03, 0.03), mass=(0.1, 0.1))
    assert try_block(hand, folder, options=slippery).verdict in ("drop", "slip")


def test_long_bar_held_at_its_end_turns_in_the_hand(hand: Robot, folder: Path) -> None:
    size = (0.3, 0.03, 0.05)
    heavy = ShakeOptions(friction=(0.5, 0.5), mass=(0.5, 0.5))
    assert try_block(hand, folder, size=size, at=(0, 0, 0.04), options=SURE).verdict == "held"
    assert try_block(hand, folder, size=size, at=(0.13, 0, 0.04), options=heavy).verdict in (
        "slip",
        "drop",
    )


def test_closing_beside_it_misses(hand: Robot, folder: Path) -> None:
    assert try_block(hand, folder, at=(0.1, 0.0, 0.06)).verdict == "miss"


@pytest.mark.parametrize("at", [(0.0, 0.0, -0.03), (0.0, 0.03, 0.05)])
def test_running_into_table_or_object_collides(
    hand: Robot, folder: Path, at: tuple[float, float, float]
) -> None:
    assert try_block(hand, folder, at=at).verdict == "collide"


def test_same_seed_same_shake(hand: Robot, folder: Path) -> None:
    weak = ShakeOptions(friction=(0.04, 0.2))  # it slides in the hand, which must be reproduced
    a, b, c = (try_block(hand, folder, options=weak, seed=s) for s in (3, 3, 4))
    assert a == b
    assert (a.friction, a.mass) != (c.friction, c.mass)


def test_collision_pieces_are_the_mesh_that_grasps_are_proposed_on(folder: Path) -> None:
    """A U of three boxes: its slot stays open in the simulator and in the mesh."""
    parts = [
        trimesh.creation.box([0.06, 0.02, 0.02]),
        *(
            trimesh.creation.box([0.02, 0.02, 0.06]).apply_translation([x, 0, 0.02])
            for x in (-0.03, 0.03)
        ),
    ]
    path = folder / "u.obj"
    trimesh.util.concatenate(parts).export(path)
    thing = convex_object("u", path, folder)
    assert thing.mesh.is_watertight
    assert thing.mesh.volume < 0.7 * thing.mesh.convex_hull.volume
    with World() as world:
        body = world.load(thing.urdf_path, pose(translation=[0, 0, 0.1]), name="u", fixed=True)
        hits = world.bullet.rayTest([0, 0, 0.3], [0, 0, 0])[0]
        assert hits[0] == body
        assert hits[3][2] == pytest.approx(0.11, abs=2e-3)


def test_random_grasps_are_free_and_above_the_table() -> None:
    robot = load_robot("panda")
    obj = SceneObject(
        "box", trimesh.creation.box([0.05, 0.07, 0.1]), pose(translation=[0, 0, 0.05])
    )
    grasps = random_antipodal(obj, Scene((obj,)), robot.gripper, 0)
    assert len(grasps) > 20
    y = grasps.X_world_tool[:, :3, 1]
    assert np.abs(y).max(axis=1).min() > np.cos(
        np.arctan(0.5) + 0.02
    )  # within the friction cone of a face
    assert grasps.X_world_tool[:, 2, 3].min() > 0
    again = random_antipodal(obj, Scene((obj,)), robot.gripper, 0)
    assert np.array_equal(grasps.X_world_tool, again.X_world_tool)


def test_benchmark_counts_what_it_saw() -> None:
    def sure(obj: SceneObject, scene: Scene, gripper: object, seed: int) -> ContactCandidates:
        low, high = obj.mesh_world.bounds
        X = pose(obj.X_world_object[:3, :3] @ DOWN, [*(low + high)[:2] / 2, high[2] - 0.01])
        return ContactCandidates(X[None], [0.08], [1.0], ("grasp",))

    def none(obj: SceneObject, scene: Scene, gripper: object, seed: int) -> ContactCandidates:
        return ContactCandidates(np.zeros((0, 4, 4)), [], [], ())

    seen: list[float] = []
    records = bench_shake(
        ["random_000"],
        {"sure": sure, "none": none},
        n=2,
        progress=lambda f, _: seen.append(f),
        options=SURE,
    )
    values = {record["key"]: record for record in records}
    assert values["grasp/shake/none"]["value"] == 0
    assert values["grasp/shake/none/miss"]["value"] == 1
    assert values["grasp/shake/sure"]["n"] == 2
    assert (
        sum(
            values[f"grasp/shake/sure{v}"]["value"]
            for v in ("", "/slip", "/drop", "/miss", "/collide")
        )
        == 1
    )
    assert seen == [0, 0.5]
    assert all(
        record["direction"] in ("up", "down") and record["unit"] == "share" for record in records
    )
    with pytest.raises(ValueError, match="objects: got 'teapot'"):
        bench_shake(["teapot"], n=1)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"force": 0}, "force"), ({"friction": (0.5, 0.4)}, "friction"), ({"mass": (-1, 1)}, "mass")],
)
def test_impossible_options_are_named(options: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=f"ShakeOptions.{word}"):
        ShakeOptions(**options)
