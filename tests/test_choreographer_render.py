"""Videos of moving points: where they land, what hides what, what they are painted with; bodies against frames."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from generators.chord.cameras import CameraOptions, Framing, around  # noqa: E402
from generators.chord.choreographer.render import MAX_POINTS, MovingPoints, random_cameras, render  # noqa: E402
from generators.chord.paint import rest_position  # noqa: E402

UNIT = Framing(np.zeros(3), 1.0)
SIZE = 24


def still(points: torch.Tensor, frames: int = 2) -> MovingPoints:
    """(B, P, 3) points of one body that does not move."""
    B, P, _ = points.shape
    return MovingPoints(points[:, None], torch.zeros(B, P, dtype=torch.uint8), torch.eye(4).expand(B, frames, 1, 4, 4))


def plane(z: float, half: float, count: int = 60) -> torch.Tensor:
    line = torch.linspace(-half, half, count)
    x, y = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, z)], -1).view(1, -1, 3)


def above(count: int = 1):
    return around(UNIT, np.zeros(count), np.full(count, np.pi / 2 - 1e-6), SIZE, SIZE)


def test_a_point_lands_where_the_camera_projects_it():
    cameras = random_cameras(5, SIZE, torch.Generator().manual_seed(0))
    points = torch.tensor([[0.3, -0.2, 0.4]]).expand(5, 1, 3)
    video = render(still(points), cameras)
    seen = np.einsum("vij,j->vi", cameras.viewmats[:, :3, :3], points[0, 0].numpy()) + cameras.viewmats[:, :3, 3]
    pixel = np.einsum("vij,vj->vi", cameras.Ks, seen)
    pixel = pixel[:, :2] / pixel[:, 2:]
    alpha = video[:, 0, :, :, 3]
    centres = torch.arange(SIZE) + 0.5
    x = (alpha.sum(1) * centres).sum(1) / alpha.sum((1, 2))
    y = (alpha.sum(2) * centres).sum(1) / alpha.sum((1, 2))
    assert np.abs(torch.stack([x, y], 1).numpy() - pixel).max() < 0.3
    paint = rest_position(points[0].double().numpy(), cameras, UNIT)
    found = video[:, 0, :, :, :3].sum((1, 2)) / alpha.sum((1, 2))[:, None]
    assert np.allclose(found, paint[:, 0], atol=1e-5)


def test_what_is_nearer_hides_what_is_behind():
    scene = still(torch.cat([plane(-0.3, 0.5), plane(0.3, 0.5)], 1))
    video = render(scene, above())
    up = video[0, 0, :, :, 2] / video[0, 0, :, :, 3].clamp(min=1e-6)
    middle = up[8:16, 8:16]
    assert torch.allclose(middle, torch.full_like(middle, 0.3 / CameraOptions.margin), atol=1e-4)
    assert (video[0, 0, 8:16, 8:16, 3] == 1).all()


def test_bodies_move_as_their_points_do():
    """Poses of two bodies against the same points frame by frame."""
    g = torch.Generator().manual_seed(0)
    points = torch.rand(3, 1, 500, 3, generator=g) - 0.5
    body = (torch.rand(3, 500, generator=g) < 0.5).to(torch.uint8)
    X = torch.eye(4).repeat(3, 4, 2, 1, 1)
    turn = torch.linspace(0, 1, 4)
    X[:, :, 1, 0, 0], X[:, :, 1, 0, 1] = turn.cos(), -turn.sin()
    X[:, :, 1, 1, 0], X[:, :, 1, 1, 1] = turn.sin(), turn.cos()
    X[:, :, 1, 2, 3] = turn / 2
    moved = points.expand(3, 4, 500, 3) @ X[:, :, 1, :3, :3].mT + X[:, :, 1, None, :3, 3]
    paths = torch.where(body.bool()[:, None, :, None], moved, points)
    cameras = random_cameras(3, SIZE, g)
    one = render(MovingPoints(points, body, X), cameras)
    other = render(MovingPoints(paths, torch.zeros_like(body), torch.eye(4).expand(3, 4, 1, 4, 4)), cameras)
    assert (one - other).abs().max(-1).values.gt(1e-4).float().mean() < 1e-3  # a point on a pixel's edge
    assert (one[:, 3] - one[:, 0]).abs().max() > 0.1


def test_what_is_out_of_view_is_not_drawn():
    video = render(still(torch.tensor([[[50.0, 0, 0], [0, 0, 50.0], [-50.0, 3, 0]]])), above())
    assert (video == 0).all()


def test_elevations_are_those_of_distillation():
    cameras = random_cameras(500, SIZE, torch.Generator().manual_seed(0))
    down = -cameras.viewmats[:, 2, 2]
    low, high = np.sin(np.radians(CameraOptions.elevation))
    assert low <= down.min() < down.max() <= high
    assert np.ptp(cameras.heading) > 6


def test_too_many_points():
    with pytest.raises(ValueError, match="thin them out"):
        render(still(torch.zeros(1, MAX_POINTS, 3)), above())
