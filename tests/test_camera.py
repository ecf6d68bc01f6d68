"""The depth camera: its points lie on known surfaces, from every side and at every image size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("pybullet")

from flowplan.geometry import exp_so3, inverse, look_at, pose, transform
from flowplan.scan.depth.noise import NoiseOptions
from sim_envs.camera import Camera, Recorder, capture, photograph, views_around, write_video
from sim_envs.world import World

HALF = np.array([0.15, 0.1, 0.05])
RADIUS = 0.08
X_BOX = pose(exp_so3([0.5, 0.3, 0.2]), [0.5, 0.1, 0.3])
CENTER = np.array([0.45, -0.3, 0.25])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("models")
    shapes = {
        "box": f'<box size="{2 * HALF[0]} {2 * HALF[1]} {2 * HALF[2]}"/>',
        "ball": '<mesh filename="ball.obj"/>',  # the renderer's own sphere is a coarse polyhedron
    }
    trimesh.creation.icosphere(4, RADIUS).export(folder / "ball.obj")
    with World() as world:
        for (name, shape), X in zip(shapes.items(), (X_BOX, pose(translation=CENTER)), strict=True):
            path = folder / f"{name}.urdf"
            path.write_text(
                f'<robot name="{name}"><link name="{name}"><inertial><mass value="1"/>'
                '<inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
                f"<visual><geometry>{shape}</geometry></visual></link></robot>"
            )
            world.load(path, X, name=name, fixed=True)
        yield world


def box_error(points: np.ndarray) -> np.ndarray:
    """Distance from the box's surface, meters."""
    outside = np.abs(transform(inverse(X_BOX), points)) - HALF
    return np.abs(np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0))


@pytest.mark.parametrize("camera", [Camera(), Camera(480, 360, 0.7), Camera(201, 161, 1.2)])
def test_points_lie_on_the_surfaces(world: World, camera: Camera) -> None:
    for X in views_around([0.48, -0.1, 0.25], 4, 0.9):
        frame = capture(world, X, camera)
        points, mask = frame.points_world, frame.mask
        on_box, on_ball, on_table = (mask == world.bodies[n] for n in ("box", "ball", "table"))
        assert min(on_box.sum(), on_ball.sum()) > 200
        assert box_error(points[on_box]).max() < 1e-4
        # The renderer's ball is a polyhedron: up to 2 % of the radius inside the sphere.
        ball = np.linalg.norm(points[on_ball] - CENTER, axis=-1)
        assert ball.max() < RADIUS + 1e-4
        assert ball.min() > RADIUS - 1e-3
        table = points[on_table & (frame.depth > 0)]
        assert np.abs(table[:, 2]).max() < 1e-3


def test_nothing_is_seen_at_infinity_or_on_bodies_that_are_filtered_out(world: World) -> None:
    sky = capture(world, look_at([0, 0, 1], [1, 0, 2]))
    assert sky.depth.max() == 0
    assert sky.mask.max() == 0
    X = look_at([1.2, 0.1, 0.6], [0.5, 0.1, 0.3])
    frame, without = capture(world, X), capture(world, X, unseen=["box"])
    on_box = frame.mask == world.bodies["box"]
    assert without.depth[on_box].max() == 0
    assert np.array_equal(without.depth[~on_box], frame.depth[~on_box])


def test_noise_is_the_sensors_and_repeats_with_its_seed(world: World) -> None:
    X = look_at([1.2, 0.1, 0.6], [0.5, 0.1, 0.3])
    clean = capture(world, X).depth
    a, b, c = (capture(world, X, noise=NoiseOptions(), seed=s).depth for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    seen = (a > 0) & (clean > 0)
    assert 3e-4 < np.median(np.abs(a - clean)[seen]) < 5e-3


def test_views_look_at_the_target_from_all_around() -> None:
    target = np.array([0.5, 0.1, 0.05])
    views = views_around(target, 6, 0.7, elevations=(0.5, 1.0))
    in_camera = transform(inverse(views), target[None])[:, 0]
    np.testing.assert_allclose(in_camera, np.tile([0, 0, 0.7], (6, 1)), atol=1e-12)
    np.testing.assert_allclose(views[:, 2, 3], 0.05 + 0.7 * np.sin([0.5, 1.0] * 3))
    np.testing.assert_allclose(views[:, :2, 3].mean(0), target[:2], atol=0.1)
    with pytest.raises(ValueError, match="count"):
        views_around(target, 0, 0.7)


def test_video_is_written_whole_or_not_at_all(world: World, tmp_path: Path) -> None:
    recorder = Recorder(look_at([1.4, -0.8, 0.9], [0.45, -0.1, 0.2]), Camera(160, 120), every=2)
    for _ in range(7):
        recorder(world)
    assert len(recorder.frames) == 4
    assert recorder.frames[0].shape == (120, 160, 3)
    assert recorder.frames[0].std() > 10
    for name in ("a.mp4", "a.gif"):
        write_video(recorder.frames, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 500
    with pytest.raises(ValueError, match="path"):
        write_video(recorder.frames, tmp_path / "a.avi")
    with pytest.raises(ValueError, match="frames"):
        write_video([], tmp_path / "b.mp4")
    with pytest.raises(ValueError, match=r"frames\[1\]"):
        write_video([recorder.frames[0], recorder.frames[0][:-2]], tmp_path / "b.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.mp4"]


def test_photograph_shows_the_bodies(world: World) -> None:
    image = photograph(world, look_at([1.4, -0.8, 0.9], [0.45, -0.1, 0.2]))
    assert image.shape == (360, 480, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 1}, "width"),
        ({"vertical_fov": 4.0}, "vertical_fov"),
        ({"near": 0.0}, "near"),
        ({"far": 0.01}, "far"),
    ],
)
def test_impossible_optics_are_named(options: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Camera(**options)
