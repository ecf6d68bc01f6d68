"""The tasks: what is asked is what their laws can do, and the verdict is the physical end
state's."""

import dataclasses

import numpy as np
import pytest
import trimesh

from flowplan.geometry import fit_rigid, pose, rotation_about
from flowplan.scene import Scene, SceneObject
from generators.kinematic import kinematic
from sim_envs.assets import CLOTH
from sim_envs.task import on_table, stand, tilt
from sim_envs.tasks import TASKS
from sim_envs.world import World, WorldOptions

JOINTS = {
    "close_laptop": "lid_joint",
    "lower_lamp": "elbow",
    "open_drawer": "drawer_joint",
    "turn_faucet": "handle_joint",
}
RIGID = sorted(set(TASKS) - {"fold_cloth"})


def begin(name, seed):
    world = World(WorldOptions(deformable=TASKS[name].deformable))
    return world, TASKS[name].setup(world, np.random.default_rng(seed))


def finish(name, world, setup, share):
    """Put the object where `share` of the way is done, let everything settle, and measure."""
    body = setup.objects[setup.instruction.object]
    handles, targets = setup.instruction.handles, setup.instruction.targets
    if name == "pick_place":
        X = fit_rigid(handles, handles + share * (targets - handles))
        world.set_base_pose(body, X @ world.link_pose(body))
    else:
        joint = JOINTS[name]
        start = world.joint_positions(body)[joint]
        world.set_joint_positions(body, {joint: start + share * asked(name, world, setup)})
    world.settle()
    return setup.measure(world)


def asked(name, world, setup):
    """Travel of the joint that best takes the handles to the targets."""
    law, (handles, targets) = setup.laws[0], (setup.instruction.handles, setup.instruction.targets)
    if name == "open_drawer":
        return -((targets - handles) @ law.axis).mean()
    r, t = handles - law.axis_point, targets - law.axis_point
    r, t = (v - np.outer(v @ law.axis, law.axis) for v in (r, t))
    return np.arctan2((np.cross(r, t) @ law.axis).sum(), (r * t).sum())


@pytest.mark.parametrize("name", RIGID)
@pytest.mark.parametrize("seed", range(2))
def test_doing_what_is_asked_succeeds_and_less_does_not(name, seed):
    for share, expected in ((0.0, False), (0.5, False), (1.0, True)):
        world, setup = begin(name, seed)
        with world:
            assert not setup.success(setup.measure(world))
            measures = finish(name, world, setup, share)
            assert setup.success(measures) == expected, (share, measures)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_laws_lead_the_handles_to_their_targets(name):
    world, setup = begin(name, 3)
    with world:
        law = setup.laws[0]
        if name == "fold_cloth":
            faces = trimesh.load_mesh(CLOTH, process=False).faces
            vertices = world.cloth_vertices(setup.objects["cloth"])
        else:
            cloud = np.concatenate([law.part, law.rest]) if name in JOINTS else np.zeros((0, 3))
            vertices = np.concatenate([setup.instruction.handles, cloud])
            faces = np.arange(len(vertices) // 3 * 3).reshape(-1, 3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    (motion,) = kinematic(setup.laws)(
        Scene((SceneObject(setup.instruction.object, mesh),)), setup.instruction
    )
    for handle, target in zip(setup.instruction.handles, setup.instruction.targets, strict=True):
        index = np.argmin(np.linalg.norm(vertices - handle, axis=1))
        assert np.linalg.norm(motion.vertices[0][-1, index] - target) < 2e-3


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("open_drawer", (-1, 0, 0)),
        ("close_laptop", (-1, 0, -1)),
        ("lower_lamp", (0, 0, -1)),
        ("fold_cloth", (1, 0, 0)),
    ],
)
def test_things_are_asked_to_go_the_right_way(name, direction):
    world, setup = begin(name, 0)
    world.close()
    assert ((setup.instruction.targets - setup.instruction.handles) @ direction).mean() > 0.05


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_seed_is_an_episode(name):
    first, again, other = (begin(name, seed) for seed in (5, 5, 6))
    for world, _ in (first, again, other):
        world.close()
    assert first[1].randomized == again[1].randomized
    np.testing.assert_array_equal(first[1].instruction.handles, again[1].instruction.handles)
    assert first[1].randomized != other[1].randomized


@pytest.mark.parametrize("name", sorted(TASKS))
def test_setups_are_within_reach_and_clear_of_the_base(name):
    for seed in range(3):
        world, setup = begin(name, seed)
        world.close()
        for points in (setup.instruction.handles, setup.instruction.targets):
            distance = np.linalg.norm(points[:, :2], axis=1)
            assert distance.min() > 0.25
            assert np.linalg.norm(points.mean(0)) < 0.85
            assert points[:, 2].min() > -1e-3
        assert setup.instruction.object in setup.scan_ids
        assert setup.movable_ids == tuple(setup.objects.values())


def test_drawn_mass_and_friction_reach_the_physics():
    drawn = {
        "x": 0.5,
        "y": 0.1,
        "yaw": 0.3,
        "friction": 0.77,
        "mass_scale": 1.2,
        "joint_friction_scale": 0.5,
    }
    with World() as world:
        lamp = stand(world, "desk_lamp", drawn)
        head = world.bullet.getDynamicsInfo(lamp, world.link_index(lamp, "head"))
        assert head[0] == pytest.approx(0.12 * 1.2)
        assert head[1] == pytest.approx(0.77)
        np.testing.assert_allclose(world.link_pose(lamp), on_table(0.5, 0.1, 0.3), atol=1e-6)

    def yields(scale):
        with World() as world:
            faucet = stand(world, "faucet", drawn | {"joint_friction_scale": scale}, fixed=True)
            handle = world.link_index(faucet, "handle")
            for _ in range(60):
                world.bullet.applyExternalTorque(
                    faucet, handle, [0, 0, 0.2], world.bullet.WORLD_FRAME
                )
                world.step()
            return abs(world.joint_positions(faucet)["handle_joint"]) > 0.05

    assert yields(0.5)
    assert not yields(1.15)


def test_ramekin_must_lie_upright_on_the_plate_and_touch_nothing_else():
    def put(turn=0.0, offset=0.0, holder=False):
        world, setup = begin("pick_place", 1)
        with world:
            plate = world.link_pose(setup.obstacles["plate"])[:3, 3]
            flip = rotation_about([0, 0, 0.022], [1, 0, 0], turn)
            X = pose(None, [plate[0] + offset, plate[1], 0.015]) @ flip
            world.set_base_pose(setup.objects["ramekin"], X)
            world.settle()
            if holder:
                box = world.bullet.createCollisionShape(
                    world.bullet.GEOM_BOX, halfExtents=[0.01] * 3
                )
                at = world.link_pose(setup.objects["ramekin"])[:3, 3] + [0.052, 0, 0.03]
                world.bullet.createMultiBody(0, box, basePosition=at.tolist())
                world.step()
            return setup.success(setup.measure(world))

    assert put()
    assert put(offset=0.05)
    assert not put(turn=np.pi)
    assert not put(offset=0.25)
    assert not put(holder=True)


def test_a_lamp_knocked_over_is_not_lowered():
    world, setup = begin("lower_lamp", 0)
    with world:
        lamp = setup.objects["desk_lamp"]
        X = world.link_pose(lamp)
        world.set_base_pose(lamp, X @ rotation_about([0.1, 0, 0], [0, 1, 0], 1.2))
        measures = setup.measure(world)
        assert measures["share"] > 1.0
        assert not setup.success(measures)


@pytest.mark.parametrize(
    ("name", "share"), [("turn_faucet", 1.43), ("open_drawer", 1.3), ("lower_lamp", 1.3)]
)
def test_too_far_is_an_overshoot(name, share):
    world, setup = begin(name, 0)
    with world:
        body, joint = setup.objects[setup.instruction.object], JOINTS[name]
        start = world.joint_positions(body)[joint]
        travel = asked(name, world, setup)
        for done, verdict in ((1.1, "success"), (share, "overshoot"), (0.5, "wrong_end_state")):
            world.set_joint_positions(body, {joint: start + done * travel})
            measures = setup.measure(world)
            assert measures["leak"] < 1e-6
            assert setup.verdict(measures) == verdict, measures
            assert setup.success(measures) == (verdict == "success")


@pytest.mark.parametrize("way", [0.04, 0.06])
def test_what_should_stand_still_and_moved_is_a_leak(way):
    """The plate is shifted along with the ramekin on it, and a laptop with its closed lid."""
    world, setup = begin("pick_place", 0)
    with world:
        assert setup.verdict(finish("pick_place", world, setup, 1.0)) == "success"
        for body in (setup.obstacles["plate"], setup.objects["ramekin"]):
            world.set_base_pose(body, pose(translation=[way, 0, 0]) @ world.link_pose(body))
        world.settle()
        measures = setup.measure(world)
    assert measures["leak"] == pytest.approx(way, abs=5e-3)
    assert setup.verdict(measures) == ("success" if way < 0.05 else "leak")

    world, setup = begin("close_laptop", 0)
    with world:
        finish("close_laptop", world, setup, 1.0)
        laptop = setup.objects["laptop"]
        world.set_base_pose(laptop, pose(translation=[0, way, 0]) @ world.link_pose(laptop))
        measures = setup.measure(world)
    assert measures["leak"] == pytest.approx(way, abs=5e-3)
    assert setup.verdict(measures) == ("success" if way < 0.05 else "leak")


def test_a_leak_counts_turns_too():
    """A plate turned by 60 degrees on its place has gone as far as its rim."""
    world, setup = begin("pick_place", 0)
    with world:
        plate = setup.obstacles["plate"]
        X = world.link_pose(plate)
        world.set_base_pose(plate, X @ rotation_about([0, 0, 0], [0, 0, 1], np.pi / 3))
        assert setup.measure(world)["leak"] > 0.13


def test_an_unknown_leak_is_no_success():
    world, setup = begin("turn_faucet", 0)
    world.close()
    assert setup.verdict({"share": 1.0, "leak": 0.0}) == "success"
    assert setup.verdict({"share": 1.0, "leak": float("nan")}) == "leak"


def test_lamp_lowered_by_another_joint_counts_by_how_far_the_head_came_down():
    world, setup = begin("lower_lamp", 0)
    with world:
        lamp = setup.objects["desk_lamp"]
        world.set_joint_positions(lamp, {"shoulder": 0.3, "elbow": 0.4})
        assert setup.measure(world)["lowered"] == pytest.approx(0.7, abs=0.01)


def test_cloth_led_by_its_corner_along_the_law_is_folded():
    world, setup = begin("fold_cloth", 0)
    with world:
        cloth, (bullet, action) = setup.objects["cloth"], (world.bullet, setup.instruction)
        vertices = world.cloth_vertices(cloth)
        sheet = trimesh.Trimesh(
            vertices, trimesh.load_mesh(CLOTH, process=False).faces, process=False
        )
        (motion,) = kinematic(setup.laws)(Scene((SceneObject("cloth", sheet),)), action)
        held = [int(np.argmin(np.linalg.norm(vertices - h, axis=1))) for h in action.handles]
        path = motion.vertices[0][:, held].mean(1)
        hand = bullet.createMultiBody(0.01, -1, basePosition=path[0].tolist())
        grip = bullet.createConstraint(
            hand, -1, -1, -1, bullet.JOINT_FIXED, [0] * 3, [0] * 3, path[0].tolist()
        )
        ties = [
            bullet.createSoftBodyAnchor(cloth, v, hand, -1, (vertices[v] - path[0]).tolist())
            for v in held
        ]
        for t in np.arange(0, motion.times[-1], 1 / 240):
            at = [float(np.interp(t, motion.times, path[:, i])) for i in range(3)]
            bullet.changeConstraint(grip, at, maxForce=500)
            bullet.stepSimulation()
        for tie in ties:
            bullet.removeConstraint(tie)
        for _ in range(240):
            bullet.stepSimulation()
        assert setup.success(setup.measure(world))


def test_setup_names_must_agree():
    world, setup = begin("turn_faucet", 0)
    world.close()
    with pytest.raises(ValueError, match=r"TaskSetup.objects: got 'faucet', expected one of tap"):
        dataclasses.replace(setup, objects={"tap": 1})


def test_tilt():
    assert tilt(pose()) == 0.0
    assert tilt(rotation_about([1, 2, 3], [1, 0, 0], 0.4)) == pytest.approx(0.4)
