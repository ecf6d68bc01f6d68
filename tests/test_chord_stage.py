"""What a prior is shown: scene flow, the same as in training; colors; and nothing that the first
frame does not show."""

import moving_boxes
import numpy as np
import torch
from chord_oracle import carry

from generators.chord.distill.stage import UNIT, Moved, Stage, to_unit
from generators.chord.options import CAMERAS, GaussianOptions, StageOptions
from generators.chord.priors.choreographer.data import SceneTable
from generators.chord.priors.choreographer.render import render
from generators.chord.priors.choreographer.scenes.prompted import sampled
from generators.chord.priors.choreographer.scenes.scenes import draw
from generators.chord.render.cameras import sample

DISCS = StageOptions(cameras=CAMERAS, gaussians=GaussianOptions(count=2000, iterations=0))


def _at_rest(stage: Stage, frames: int = 3) -> Moved:
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0])
    return [(p.expand(frames, -1, -1), identity.expand(frames, len(p), 4)) for p in stage.points]


def test_distillation_shows_what_training_showed() -> None:
    prompted = draw("laptop", 1)
    stage = Stage(prompted.scene, "scene_flow", DISCS)
    moved = []
    for obj, vertices, points in zip(
        stage.scene.objects, prompted.motion.vertices, stage.points, strict=True
    ):
        found = carry(obj.mesh_world, to_unit(vertices, stage.framed), points.double().numpy())
        moved.append((stage.tensor(found[0]), stage.tensor(found[1])))
    cameras = sample(UNIT, 1, 48, 48, CAMERAS, generator=np.random.default_rng(0))
    shot = stage.render(moved, cameras, 2)
    table = SceneTable.of([sampled(prompted, 8000)])
    trained = render(table.scenes(torch.tensor([0])), cameras, 2)
    assert (shot.video.shape, shot.first.shape) == (trained.video.shape, trained.first.shape)
    solid = (shot.first[..., 3] > 0.95) & (trained.first[..., 3] > 0.95)
    assert solid.float().mean() > 0.08
    assert (shot.first - trained.first)[solid].abs().mean() < 0.02
    inside = (
        solid.unflatten(1, (48, 2))
        .unflatten(3, (48, 2))
        .all(4)
        .all(2)[:, None]
        .expand(-1, 16, -1, -1)
    )
    assert (shot.video - trained.video)[inside].abs().mean() < 0.1 * trained.video[
        inside
    ].abs().mean()


def test_a_pixel_follows_the_matter_that_it_showed_and_no_other() -> None:
    scene = moving_boxes.slide()[0]
    stage = Stage(scene, "scene_flow", DISCS)
    cameras = sample(UNIT, 2, 24, 24, CAMERAS, generator=np.random.default_rng(0))
    (rest, turns), *others = _at_rest(stage)
    way = torch.tensor(
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.3], [0.0, 0.0, 9.0]]
    )  # far out of view at last
    shot = stage.render([(rest + way[:, None], turns), *others], cameras, 2)
    still = stage.render(_at_rest(stage), cameras, 2)
    assert torch.equal(shot.first, still.first)
    assert (still.video == 0).all()
    alpha = shot.video[:, 1, ..., 2] / (0.3 / CAMERAS.margin)
    assert (alpha > 0.99).any()
    assert torch.allclose(shot.video[:, 2], 30 * shot.video[:, 1], atol=1e-4)
    assert torch.allclose(shot.flow[:, 1], shot.flow[:, 0] * 29, atol=1e-3)
    assert torch.allclose(shot.video[..., :2], torch.zeros(()), atol=1e-5)


def test_motion_gets_its_gradient_where_it_was_seen() -> None:
    stage = Stage(moving_boxes.slide()[0], "scene_flow", DISCS)
    cameras = sample(UNIT, 1, 24, 24, CAMERAS, generator=np.random.default_rng(0))
    moved = [(p.clone().requires_grad_(), q) for p, q in _at_rest(stage)]
    stage.render(moved, cameras).video[:, 2, ..., 2].sum().backward()
    gradient = torch.cat([p.grad for p, _ in moved], dim=1)  # type: ignore[list-item]
    assert (gradient[1] == 0).all()
    assert 0.2 < (gradient[2, :, 2] > 0).float().mean() < 0.9  # what faces away has none
    assert torch.allclose(gradient[0], -gradient[2])


def test_colored_films_show_colors_before_the_background() -> None:
    stage = Stage(moving_boxes.slide()[0], "color", DISCS)
    cameras = sample(UNIT, 1, 24, 24, CAMERAS, generator=np.random.default_rng(0))
    shot = stage.render(_at_rest(stage), cameras)
    assert shot.video.shape == (1, 3, 24, 24, 3)
    assert torch.equal(shot.first, shot.video[:, 0])
    assert torch.allclose(shot.video[0, 0, 0, 0], torch.ones(3))
