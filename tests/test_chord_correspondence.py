"""A pixel that names its matter pulls it there, from anywhere."""

import moving_boxes
import numpy as np
import torch

from flowplan.geometry import exp_so3
from generators.chord.cameras import CameraOptions, Cameras, sample
from generators.chord.correspondence import CorrespondenceOptions, Matter, pull
from generators.chord.gaussians import GaussianOptions
from generators.chord.oracle import Oracle
from generators.chord.prior import Legible
from generators.chord.stage import UNIT, Stage, StageOptions

T = 16
STAGE = StageOptions(gaussians=GaussianOptions(count=300, iterations=0))


def _seen(size: int = 96) -> tuple[Stage, Oracle, Cameras, np.ndarray]:
    """The stage, the oracle of its true motion, cameras and the oracle's clean video from there."""
    scene, true, _ = moving_boxes.pick_and_place(T)
    stage = Stage(scene, "rest_position", STAGE)
    cameras = sample(UNIT, 2, size, size, generator=np.random.default_rng(0))
    prior = Oracle(true, height=size, width=size)
    prior.look(stage, cameras)
    return stage, prior, cameras, prior.condition("", torch.zeros(2)).numpy()


def test_the_true_motion_is_where_its_video_says_and_rest_is_not() -> None:
    stage, prior, cameras, video = _seen()
    matter = Matter(stage.gaussians.means, sum(map(len, stage.points)))
    found = matter.sightings(video, cameras, generator=np.random.default_rng(0))
    assert len(found.view) > 500
    assert found.frame.min() >= 1
    rest = torch.cat(stage.points)
    positions, quats = (torch.cat(x, dim=1) for x in zip(*prior._moved, strict=True))
    still = rest.expand(T, -1, -1), torch.tensor([1.0, 0, 0, 0]).expand(T, len(rest), 4)
    assert pull(found, cameras, rest, positions, quats) < 0.004
    assert pull(found, cameras, rest, *still) > 0.05


def test_the_gradient_takes_a_point_towards_its_pixel_from_across_the_image() -> None:
    cameras = sample(UNIT, 1, 40, 40, generator=np.random.default_rng(1))
    rest, goal = torch.tensor([[0.5, 0.1, 0.0]]), torch.tensor([-0.6, 0.3, 0.2])
    X, K = (torch.as_tensor(x[0], dtype=torch.float32) for x in (cameras.viewmats, cameras.Ks))
    at = K @ (X[:3, :3] @ goal + X[:3, 3])
    column, row = (at[:2] / at[2]).long().tolist()
    video = np.zeros((1, 2, 40, 40, 4))
    paint = rest.numpy()[0] @ cameras.X_world_heading[0] / CameraOptions.margin
    video[0, 1, row, column] = [*paint, 1.0]
    found = Matter(rest.double().numpy(), 1).sightings(video, cameras, generator=np.random.default_rng(0))
    assert found.pixel.tolist() == [[column + 0.5, row + 0.5]]
    positions = rest.repeat(2, 1, 1).requires_grad_()
    quats = torch.tensor([1.0, 0, 0, 0]).expand(2, 1, 4)
    adam = torch.optim.Adam([positions], lr=0.03)
    for _ in range(200):
        adam.zero_grad()
        pull(found, cameras, rest, positions, quats).backward()
        adam.step()
    image = K @ (X[:3, :3] @ positions[1, 0] + X[:3, 3])
    assert torch.allclose(image[:2] / image[2], torch.tensor([column + 0.5, row + 0.5]), atol=0.3)
    assert torch.equal(positions[0, 0], rest[0])


def test_a_sighting_keeps_its_offset_from_the_nearest_point_as_that_turns() -> None:
    cameras = sample(UNIT, 1, 40, 40, generator=np.random.default_rng(1))
    R = exp_so3(np.array([0.0, 0.0, 1.0]))
    middle, off = np.array([0.2, 0.1, 0.0]), np.array([0.05, 0.0, 0.02])
    X, K = cameras.viewmats[0], cameras.Ks[0]
    at = K @ (X[:3, :3] @ (middle + R @ off) + X[:3, 3])
    found = Matter(middle[None], 1).sightings(np.zeros((1, 2, 40, 40, 4)), cameras, generator=np.random.default_rng(0))
    one = np.zeros(1, np.int64)
    found = type(found)(one, one + 1, (at[:2] / at[2])[None], one, (middle + off)[None])
    rest = torch.as_tensor(middle[None], dtype=torch.float32)
    quat = torch.tensor([np.cos(0.5), 0, 0, np.sin(0.5)], dtype=torch.float32)
    turned = pull(found, cameras, rest, rest.expand(2, 1, 3), quat.expand(2, 1, 4))
    straight = pull(found, cameras, rest, rest.expand(2, 1, 3), torch.tensor([1.0, 0, 0, 0]).expand(2, 1, 4))
    assert turned < 1e-6 < 1e-4 < straight


def test_what_is_doubtful_immovable_or_at_frame_0_is_not_sighted() -> None:
    cameras = sample(UNIT, 1, 8, 8, generator=np.random.default_rng(0))
    points = np.array([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]])  # the second is an obstacle's
    paint = points @ cameras.X_world_heading[0] / CameraOptions.margin

    def count(frame: int, colour: np.ndarray, alpha: float) -> int:
        video = np.zeros((1, 3, 8, 8, 4))
        video[0, frame, 4, 4] = [*(alpha * colour), alpha]
        matter = Matter(points, 1)
        return len(matter.sightings(video, cameras, generator=np.random.default_rng(0)).view)

    assert count(1, paint[0], 1.0) == count(2, paint[0], 0.8) == 1
    assert count(0, paint[0], 1.0) == count(1, paint[1], 1.0) == count(1, paint[0], 0.4) == 0
    assert count(1, paint[0] + 0.1, 1.0) == 0


def test_no_more_pixels_than_asked_for_are_looked_at_and_none_is_no_pull() -> None:
    stage, _, cameras, video = _seen(48)
    matter = Matter(stage.gaussians.means, sum(map(len, stage.points)))
    few = CorrespondenceOptions(count=50)
    assert len(matter.sightings(video, cameras, options=few, generator=np.random.default_rng(0)).view) <= 50
    nothing = matter.sightings(0 * video, cameras, generator=np.random.default_rng(0))
    positions = torch.ones(2, 1, 3, requires_grad=True)
    loss = pull(nothing, cameras, torch.ones(1, 3), positions, torch.tensor([1.0, 0, 0, 0]).expand(2, 1, 4))
    loss.backward()
    assert loss == 0


def test_priors_of_rest_positions_are_legible() -> None:
    assert isinstance(Oracle(moving_boxes.hinge()[1]), Legible)
