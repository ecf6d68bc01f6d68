"""Cameras around a scene, and what Gaussians are painted with for them."""

import numpy as np
import pytest
import torch
import trimesh

from flowplan.geometry import pose, rotation_about, transform
from flowplan.scene import Scene, SceneObject
from generators.chord.options import CameraOptions
from generators.chord.render.cameras import Framing, around, framing, sample
from generators.chord.render.paint import rest_position, scene_flow

FRAMED = Framing(np.array([0.4, -0.1, 0.2]), 0.3)


def box(name, extents, center):
    return SceneObject(name, trimesh.creation.box(extents=extents), pose(translation=center))


def cameras(count=5, seed=0):
    return sample(FRAMED, count, 64, 48, generator=np.random.default_rng(seed))


def project(cameras, points):
    """Pixels (V, N, 2) and depths (V, N)."""
    local = transform(cameras.viewmats, points)
    image = local @ np.swapaxes(cameras.Ks, -1, -2)
    return image[..., :2] / image[..., 2:], local[..., 2]


def test_cameras_look_at_the_center_upright():
    many = cameras()
    pixels, depth = project(many, FRAMED.center[None])
    assert pixels[:, 0] == pytest.approx(np.tile([32.0, 24.0], (5, 1)))
    assert depth == pytest.approx(1.5 * 0.3 / np.sin(np.radians(20)))
    above, _ = project(many, FRAMED.center[None] + [0, 0, 0.01])
    assert above[:, 0, 0] == pytest.approx(32.0)
    assert np.all(above[:, 0, 1] < 24)
    R = many.viewmats[:, :3, :3]
    assert R @ np.swapaxes(R, -1, -2) == pytest.approx(np.tile(np.eye(3), (5, 1, 1)), abs=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)


def test_the_ball_with_its_margin_just_fills_the_smaller_side():
    direction = np.random.default_rng(1).normal(size=(20000, 3))
    ball = FRAMED.center + 1.5 * 0.3 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    pixels, _ = project(cameras(), ball)
    away = np.abs(pixels - [32, 24]).max(axis=1)
    assert np.all(away <= 24 + 1e-9)
    assert np.all(away > 23.9)


def test_elevations_stay_within_bounds_and_azimuths_apart():
    many = cameras(count=200)
    down = many.viewmats[:, 2, :3][:, 2]  # the z of each view's direction
    elevation = np.degrees(np.arcsin(-down))
    assert elevation.min() >= 20
    assert elevation.max() <= 50
    assert elevation.max() - elevation.min() > 25
    heading = np.sort(np.mod(cameras(count=4).heading, 2 * np.pi))
    assert np.diff([*heading, heading[0] + 2 * np.pi]).min() > np.radians(50)


def test_same_chance_same_cameras():
    assert np.array_equal(cameras(seed=3).viewmats, cameras(seed=3).viewmats)
    assert not np.array_equal(cameras(seed=3).viewmats, cameras(seed=4).viewmats)


def test_heading_frame_is_right_forward_up():
    one = around(
        FRAMED, np.array([-np.pi / 2]), np.array([0.5]), 32, 32
    )  # stands at -y and looks along +y
    assert one.heading == pytest.approx([np.pi / 2])
    assert one.X_world_heading[0] == pytest.approx(np.eye(3))
    many = cameras()
    right = many.viewmats[:, 0, :3]
    assert many.X_world_heading[:, :, 0] == pytest.approx(right)
    assert np.linalg.det(many.X_world_heading) == pytest.approx(1.0)


def test_framing_takes_in_obstacles_only_as_far_as_objects_may_get():
    cup, near = (
        box("cup", [0.1, 0.1, 0.1], [0, 0, 0.05]),
        box("plate", [0.2, 0.2, 0.02], [0.3, 0, 0.01]),
    )
    far = box("wall", [0.1, 0.1, 0.1], [2.0, 0, 0.05])
    alone = framing(Scene((cup,)))
    assert alone.center == pytest.approx([0, 0, 0.05])
    assert alone.radius == pytest.approx(0.05 * np.sqrt(3))
    assert framing(Scene((cup,), obstacles=(far,))).radius == alone.radius
    both = framing(Scene((cup,), obstacles=(near,)))
    assert both.center == pytest.approx([0.175, 0, 0.05])
    table = box("table", [4.0, 4.0, 0.02], [0, 0, -0.01])
    clipped = framing(Scene((cup,), obstacles=(table,)))
    assert clipped.radius == pytest.approx(np.linalg.norm([1.1, 1.1, 0.12]) / 2)


def test_a_scene_without_objects_is_refused():
    with pytest.raises(ValueError, match="Scene.objects: expected at least one object"):
        framing(Scene(()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("margin", 0.0), ("field_of_view", 180.0), ("elevation", (50.0, 20.0)), ("reach", -1.0)],
)
def test_camera_options_are_checked(field, value):
    with pytest.raises(ValueError, match=f"CameraOptions.{field}"):
        CameraOptions(**{field: value})


def test_paint_knows_neither_place_nor_size_nor_side():
    points = FRAMED.center + np.random.default_rng(0).uniform(-0.2, 0.2, (50, 3))
    elevation = np.array([0.5])
    paint = rest_position(points, around(FRAMED, np.array([0.3]), elevation, 8, 8), FRAMED)
    X = rotation_about(FRAMED.center, [0, 0, 1], 1.1)
    turned = around(FRAMED, np.array([1.4]), elevation, 8, 8)
    assert rest_position(transform(X, points), turned, FRAMED) == pytest.approx(paint)
    large = Framing(2 * FRAMED.center, 2 * FRAMED.radius)
    assert rest_position(
        2 * points, around(large, np.array([0.3]), elevation, 8, 8), large
    ) == pytest.approx(paint)
    assert paint.shape == (1, 50, 3)


def test_paint_is_right_forward_and_up_in_units_of_the_view():
    north = around(FRAMED, np.array([-np.pi / 2]), np.array([0.5]), 8, 8)
    paint = rest_position(FRAMED.center + np.eye(3) * 0.45, north, FRAMED)
    assert paint[0] == pytest.approx(np.eye(3))


def test_scene_flow_is_right_forward_and_up_in_units_of_the_view():
    north = around(FRAMED, np.array([-np.pi / 2]), np.array([0.5]), 2, 2)
    ways = torch.tensor([[1.5, 0.0, 0.0], [0.0, 3.0, 0.0]])  # east, and north, at two times
    video = scene_flow(ways.expand(1, 2, 2, 2, 3), north)
    assert video.shape == (1, 2, 2, 2, 3)
    assert torch.allclose(video[0, 0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(video[0, 1], torch.tensor([0.0, 2.0, 0.0]), atol=1e-6)
    east = around(FRAMED, np.array([np.pi]), np.array([0.5]), 2, 2)
    assert torch.allclose(
        scene_flow(ways.expand(1, 2, 2, 2, 3), east)[0, 0, 0, 0],
        torch.tensor([0.0, 1.0, 0.0]),
        atol=1e-6,
    )


def test_finer_cameras_see_the_same():
    coarse = sample(FRAMED, 3, 20, 12, generator=np.random.default_rng(0))
    fine = coarse.finer(2)
    assert (fine.width, fine.height) == (40, 24)
    point = FRAMED.center + 0.1

    def pixel(cameras):
        seen = cameras.viewmats[:, :3, :3] @ point + cameras.viewmats[:, :3, 3]
        x, y, z = (cameras.Ks @ seen[..., None])[..., 0].T
        return np.stack([x / z, y / z])

    assert pixel(fine) == pytest.approx(2 * pixel(coarse))
