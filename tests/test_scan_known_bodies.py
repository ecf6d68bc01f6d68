"""Depth frames without the robot and without fixed obstacles, against analytic distances."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.geometry import exp_so3, look_at, pose, transform
from flowplan.robot import load_robot
from flowplan.scan import (
    DepthFrame,
    intrinsics_from_fov,
    load_obstacles,
    render_frame,
    scan_frames,
    without_obstacles,
    without_robot,
)
from flowplan.scan.depth.known_bodies import near
from flowplan.scene import SceneObject

PANDA = load_robot("panda")
K = intrinsics_from_fov(64, 48, 0.8)


def frame_of(points):
    """A frame whose pixels are these points (N, 3), one a camera ray, from a camera at each."""
    frames = []
    for point in points:
        eye = np.add(point, [0.0, 0.0, 0.3])
        X = pose(np.diag([1.0, -1.0, -1.0]), eye)
        depth = np.array([[0.3]], np.float32)
        frames.append(DepthFrame(depth, np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), X))
    return frames


def ball(center, radius, count=200, seed=0):
    """Points (count, 3) on a sphere."""
    d = np.random.default_rng(seed).normal(size=(count, 3))
    return center + radius * d / np.linalg.norm(d, axis=-1, keepdims=True)


def test_points_of_a_sphere_are_near_it_up_to_the_margin():
    sphere = trimesh.creation.icosphere(5, radius=0.1)
    center = np.array([0.3, -0.2, 0.5])
    sphere.apply_translation(center)
    for distance, removed in ((-0.09, True), (0.0, True), (0.0195, True), (0.0205, False)):
        points = ball(center, 0.1 + distance)
        assert (near(points, [sphere], 0.02) == removed).all(), distance
    assert not near(ball(center, 0.2), [], 0.02).any()


def test_a_box_has_round_margins():
    """At a corner the distance is that to the corner, not to the planes."""
    box = trimesh.creation.box([0.2, 0.2, 0.2])
    diagonal = np.ones(3) / np.sqrt(3)
    corner = np.full(3, 0.1)
    assert near(corner[None] + 0.0199 * diagonal, [box], 0.02).all()
    assert not near(corner[None] + 0.0201 * diagonal, [box], 0.02).any()


def test_an_open_mesh_has_no_inside():
    box = trimesh.creation.box([0.2, 0.2, 0.2])
    cage = trimesh.Trimesh(box.vertices, box.faces[2:], process=False)
    assert near(np.zeros((1, 3)), [box], 0.01).all()
    assert not near(np.zeros((1, 3)), [cage], 0.01).any()
    assert near(np.array([[0.0, 0.0, 0.105]]), [box], 0.01).all()


def removed(points, robot, q, **more):
    return np.array([not without_robot(f, robot, q, **more).depth.any() for f in frame_of(points)])


@pytest.mark.parametrize("link", ["panda_link0", "panda_link3", "panda_hand", "panda_leftfinger"])
def test_points_of_a_link_go_and_points_beyond_the_margin_stay(link):
    """In any pose of arm and base; the distance to a convex hull by its planes from outside."""
    rng = np.random.default_rng(3)
    robot = replace(PANDA, X_world_base=pose(exp_so3([0.1, -0.2, 0.7]), [1.0, 2.0, 0.3]))
    q, margin = rng.uniform(robot.lower, robot.upper), 0.02
    mesh = robot.collision_meshes[link]
    X = robot.fk(q[None], 0.03)[0][robot.link_names.index(link)]
    inside = transform(X, 0.9 * (mesh.vertices[:5] - mesh.centroid) + mesh.centroid)
    assert removed(inside, robot, q, width=0.03, margin=margin).all()
    # Straight above a face the distance to the hull is the height.
    faces = rng.choice(len(mesh.faces), 5, replace=False)
    for height, own in ((0.9 * margin, True), (1.2 * margin, False)):
        points = mesh.triangles_center[faces] + height * mesh.face_normals[faces]
        gone = removed(transform(X, points), robot, q, width=0.03, margin=margin)
        if own:
            assert gone.all()
        else:
            # Other links may be near: the rest has to stay.
            others = [
                trimesh.Trimesh(
                    transform(Y, robot.collision_meshes[n].vertices),
                    robot.collision_meshes[n].faces,
                    process=False,
                )
                for n, Y in zip(robot.link_names, robot.fk(q[None], 0.03)[0], strict=True)
                if n in robot.collision_meshes and n != link
            ]
            np.testing.assert_array_equal(gone, near(transform(X, points), others, margin))


def test_an_unknown_opening_removes_the_fingers_wherever_they_may_be():
    finger = PANDA.link_names.index("panda_leftfinger")
    mesh = PANDA.collision_meshes["panda_leftfinger"]
    for width in (0.0, 0.04, 0.08):
        X = PANDA.fk(PANDA.home[None], width)[0][finger]
        points = transform(X, mesh.vertices[:3])
        assert removed(points, PANDA, PANDA.home).all()
    closed = transform(PANDA.fk(PANDA.home[None], 0.0)[0][finger], mesh.vertices)
    tip = closed[np.argmin(closed[:, 2])][None]
    assert removed(tip, PANDA, PANDA.home, width=0.0, margin=0.005).all()
    assert not removed(tip, PANDA, PANDA.home, width=0.08, margin=0.005).any()


def test_the_opening_is_read_from_any_joint_of_the_gripper():
    for robot in (PANDA, load_robot("ur5e")):
        gripper = robot.gripper
        for width in (0.0, 0.3 * gripper.max_width, gripper.max_width):
            positions = gripper.joint_positions(width)
            assert gripper.width_at(positions) == pytest.approx(width, abs=1e-9)
            last = gripper.joints[-1]
            assert gripper.width_at({last: positions[last]}) == pytest.approx(width, abs=1e-6)
        assert gripper.width_at({}) is None
        assert gripper.width_at({gripper.joints[0]: float("nan")}) is None


def views(meshes, count=4):
    eyes = [
        [0.5 + 0.7 * np.cos(a), 0.7 * np.sin(a), 0.7]
        for a in 0.4 + 2 * np.pi * np.arange(count) / count
    ]
    wide = intrinsics_from_fov(320, 240, 0.9)
    frames = [
        render_frame(meshes, wide, look_at(eye, [0.5, 0.0, 0.05]), width=320, height=240)
        for eye in eyes
    ]
    return [replace(frame, mask=None) for frame in frames]  # a depth camera has none


def table():
    return trimesh.creation.box(bounds=[[-0.3, -0.9, -0.02], [1.4, 0.9, 0.0]])


def test_an_arm_and_a_wall_in_the_image_are_no_objects():
    """The brick alone is left, where it is; with them in the image there are more objects."""
    brick = SceneObject(
        "brick", trimesh.creation.box([0.05, 0.04, 0.08]), pose(translation=[0.6, 0.25, 0.041])
    )
    wall = SceneObject(
        "wall", trimesh.creation.box([0.02, 0.5, 0.3]), pose(translation=[0.95, 0.0, 0.15])
    )
    q = PANDA.home + np.array([0.0, 0.5, 0.0, -0.1, 0.0, 0.3, 0.0])
    links = [
        trimesh.Trimesh(
            transform(X, PANDA.collision_meshes[n].vertices),
            PANDA.collision_meshes[n].faces,
            process=False,
        )
        for n, X in zip(PANDA.link_names, PANDA.fk(q[None], 0.02)[0], strict=True)
        if n in PANDA.collision_meshes
    ]
    frames = views([table(), brick.mesh_world, wall.mesh_world, *links])
    assert len(scan_frames(frames).objects) > 1
    own = [without_robot(frame, PANDA, q, width=0.02) for frame in frames]
    scene = scan_frames([without_obstacles(frame, [wall]) for frame in own])
    assert len(scene.objects) == 1
    np.testing.assert_allclose(
        scene.objects[0].mesh_world.bounds, brick.mesh_world.bounds, atol=8e-3
    )
    assert scene.support_height == pytest.approx(0.0, abs=2e-3)
    # Only returns are taken away.
    for before, after in zip(frames, own, strict=True):
        kept = after.depth > 0
        np.testing.assert_array_equal(after.depth[kept], before.depth[kept])


@pytest.mark.parametrize("margin", [-0.01, float("nan"), float("inf")])
def test_a_margin_is_meters(margin):
    frame = DepthFrame(np.ones((48, 64), np.float32), K, pose())
    with pytest.raises(ValueError, match="margin: expected a non-negative number"):
        without_robot(frame, PANDA, PANDA.home, margin=margin)


def test_a_configuration_without_numbers_is_refused():
    frame = DepthFrame(np.ones((48, 64), np.float32), K, pose())
    with pytest.raises(ValueError, match="q: 1 of 7 values are not finite"):
        without_robot(frame, PANDA, [0, 0, 0, float("nan"), 0, 0, 0])


CELL = """
[[obstacle]]
name = "wall"
size = [0.02, 2.0, 1.5]
xyz = [-0.4, 0.1, 0.75]

[[obstacle]]
name = "cage"
mesh = "cage.stl"
unit = "mm"
xyz = [1.0, 0.0, 0.0]
rpy = [0.0, 0.0, 1.5707963267948966]
"""


def test_boxes_and_meshes_come_from_a_file(tmp_path):
    box = trimesh.creation.box([400.0, 200.0, 100.0])
    trimesh.Trimesh(box.vertices, box.faces[2:], process=False).export(tmp_path / "cage.stl")
    (tmp_path / "cell.toml").write_text(CELL)
    wall, cage = load_obstacles(tmp_path / "cell.toml")
    assert (wall.name, cage.name) == ("wall", "cage")
    np.testing.assert_allclose(
        wall.mesh_world.bounds, [[-0.41, -0.9, 0.0], [-0.39, 1.1, 1.5]], atol=1e-12
    )
    np.testing.assert_allclose(
        cage.mesh_world.bounds, [[0.9, -0.2, -0.05], [1.1, 0.2, 0.05]], atol=1e-6
    )
    assert len(cage.mesh.faces) == 10  # open as it is
    (alone,) = load_obstacles(tmp_path / "cage.stl", unit="mm")
    assert alone.name == "cage"
    np.testing.assert_allclose(alone.mesh_world.extents, [0.4, 0.2, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[0.02, 2.0, 1.5]", "[0.02, 2.0, -1.5]"), r"obstacle\[0\].size: expected meters above 0"),
        (("[0.02, 2.0, 1.5]", "[0.02, 2.0, nan]"), r"obstacle\[0\].size: 1 of 3 values are not"),
        (("[0.02, 2.0, 1.5]", "[20, 2000, 1500]"), r"size: expected meters above 0 up to 100"),
        (("[-0.4, 0.1, 0.75]", "[-400, 0, 0]"), r"obstacle\[0\].xyz: expected meters up to 100"),
        (('"wall"', '"cage"'), r"obstacle\[1\].name: 'cage' is there twice"),
        (('"mm"', '"km"'), r"obstacle\[1\].unit: got 'km'"),
        (('"mm"', '"m"'), "cage.stl: reaches .* check its unit"),
        (("cage.stl", "../cage.stl"), "lies outside of the folder"),
        (("cage.stl", "other.stl"), "other.stl: no such file"),
        (("size =", "length ="), r"obstacle\[0\].length: unknown key"),
        (('mesh = "cage.stl"', ""), r"obstacle\[1\].size: expected either size or mesh"),
        (("unit", "size = [1, 1, 1]\nunit"), r"obstacle\[1\].size: expected either size or mesh"),
        (("xyz = [-0.4, 0.1, 0.75]", 'unit = "mm"'), r"obstacle\[0\].unit: belongs to a mesh"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, change, words):
    trimesh.creation.box([400.0, 200.0, 100.0]).export(tmp_path / "cage.stl")
    (tmp_path / "cell.toml").write_text(CELL.replace(*change, 1))
    with pytest.raises(ValueError, match=words) as refused:
        load_obstacles(tmp_path / "cell.toml")
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="suffix"):
        load_obstacles(tmp_path / "cell.json")
