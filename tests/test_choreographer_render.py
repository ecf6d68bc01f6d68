"""Scene flow of points: where they land, what hides what, how far they have gone; bodies against
frames."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from generators.chord.options import CAMERAS  # noqa: E402
from generators.chord.priors.choreographer.render import (  # noqa: E402
    MAX_POINTS,
    MovingPoints,
    random_cameras,
    render,
)
from generators.chord.render.cameras import Framing, around  # noqa: E402
from generators.chord.render.paint import rest_position  # noqa: E402

UNIT = Framing(np.zeros(3), 1.0)
SIZE = 24


def still(points: torch.Tensor, frames: int = 2) -> MovingPoints:
    """(B, P, 3) points of one body that does not move."""
    B, P, _ = points.shape
    return MovingPoints(
        points[:, None],
        torch.zeros(B, P, dtype=torch.uint8),
        torch.eye(4).expand(B, frames, 1, 4, 4),
    )


def plane(z: float, half: float, count: int = 60) -> torch.Tensor:
    line = torch.linspace(-half, half, count)
    x, y = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, z)], -1).view(1, -1, 3)


def above(count: int = 1):
    return around(UNIT, np.zeros(count), np.full(count, np.pi / 2 - 1e-6), SIZE, SIZE, CAMERAS)


def test_a_point_lands_where_the_camera_projects_it():
    cameras = random_cameras(5, SIZE, torch.Generator().manual_seed(0))
    points = torch.tensor([[0.3, -0.2, 0.4]]).expand(5, 1, 3)
    first = render(still(points), cameras, 2).first
    seen = (
        np.einsum("vij,j->vi", cameras.viewmats[:, :3, :3], points[0, 0].numpy())
        + cameras.viewmats[:, :3, 3]
    )
    pixel = np.einsum("vij,vj->vi", cameras.Ks, seen)
    pixel = 2 * pixel[:, :2] / pixel[:, 2:]
    alpha = first[..., 3]
    centers = torch.arange(2 * SIZE) + 0.5
    x = (alpha.sum(1) * centers).sum(1) / alpha.sum((1, 2))
    y = (alpha.sum(2) * centers).sum(1) / alpha.sum((1, 2))
    assert np.abs(torch.stack([x, y], 1).numpy() - pixel).max() < 0.3
    paint = rest_position(points[0].double().numpy(), cameras, UNIT, CAMERAS.margin)
    found = first[..., :3].sum((1, 2)) / alpha.sum((1, 2))[:, None]
    assert np.allclose(found, paint[:, 0], atol=1e-5)


def test_what_is_nearer_hides_what_is_behind():
    scene = still(torch.cat([plane(-0.3, 0.5), plane(0.3, 0.5)], 1))
    first = render(scene, above(), 2).first[0, 16:32, 16:32]
    assert (first[..., 3] == 1).all()
    assert torch.allclose(first[..., 2], torch.full((16, 16), 0.3 / CAMERAS.margin), atol=1e-4)


def test_a_pixel_says_how_far_what_it_showed_at_first_has_gone():
    """Even when it has long been elsewhere, and what came to light is not spoken of."""
    points = torch.cat([plane(-0.3, 0.5), plane(0.3, 0.5)], 1)
    X = torch.eye(4).repeat(1, 3, 2, 1, 1)
    X[0, :, 1, 0, 3] = torch.tensor([0.0, 1.0, 4.0])
    body = torch.arange(2, dtype=torch.uint8).repeat_interleave(points.shape[1] // 2)[None]
    cameras = above()
    video = render(MovingPoints(points[:, None], body, X), cameras, 2).video[0, :, 8:16, 8:16]
    way = (
        torch.as_tensor(cameras.X_world_heading[0].T @ [1.0, 0.0, 0.0], dtype=torch.float32)
        / CAMERAS.margin
    )
    for frame, far in enumerate((0.0, 1.0, 4.0)):
        assert torch.allclose(video[frame], (far * way).expand(8, 8, 3), atol=1e-5)


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
    one = render(MovingPoints(points, body, X), cameras, 2)
    other = render(
        MovingPoints(paths, torch.zeros_like(body), torch.eye(4).expand(3, 4, 1, 4, 4)), cameras, 2
    )
    assert torch.allclose(one.video, other.video, atol=1e-5)
    assert torch.equal(one.first, other.first)
    assert one.video[:, 3].abs().max() > 0.1
    assert (one.video[:, 0] == 0).all()


def test_what_is_out_of_view_is_not_drawn():
    seen = render(still(torch.tensor([[[50.0, 0, 0], [0, 0, 50.0], [-50.0, 3, 0]]])), above(), 2)
    assert (seen.first == 0).all()


def test_elevations_are_those_of_distillation():
    cameras = random_cameras(500, SIZE, torch.Generator().manual_seed(0))
    down = -cameras.viewmats[:, 2, 2]
    low, high = np.sin(np.radians(CAMERAS.elevation))
    assert low <= down.min() < down.max() <= high
    assert np.ptp(cameras.heading) > 6


def test_too_many_points():
    with pytest.raises(ValueError, match="sample fewer"):
        render(still(torch.zeros(1, MAX_POINTS, 3)), above(), 2)
