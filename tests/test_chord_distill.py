"""Distillation from a prior that knows the answer finds the answer; killed, it goes on to the last
bit."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import moving_boxes
import numpy as np
import pytest
import torch
from chord_oracle import Oracle

from flowplan.motion import SceneMotion
from flowplan.scene import Scene
from generators.chord.distill.loop import PREVIEW, distill
from generators.chord.distill.score import _levels, score
from generators.chord.distill.stage import UNIT, Stage
from generators.chord.options import (
    SMALL,
    ChordOptions,
    ControlOptions,
    GaussianOptions,
    StageOptions,
)
from generators.chord.render.cameras import sample

BRIEF = ChordOptions(
    iterations=6,
    views=1,
    stage=StageOptions(gaussians=GaussianOptions(count=60, iterations=0)),
    control=ControlOptions(coarse=4, fine=8, surface_points=120),
    checkpoint_every=2,
    preview_every=2,
)
"""Too short to find anything."""


def _oracle(example: moving_boxes.Example) -> Oracle:
    return Oracle(example[1], height=24, width=24)


@pytest.mark.slow
@pytest.mark.parametrize(
    "build", [moving_boxes.hinge, moving_boxes.slide, moving_boxes.pick_and_place]
)
def test_the_oracles_motion_is_found(build: Callable[[], moving_boxes.Example]) -> None:
    example = build()
    found = distill(
        example[0], "do it", Oracle(example[1]), replace(SMALL, iterations=300, denoising_steps=1)
    )
    assert moving_boxes.end_point_error(found.motion, example) <= 0.05
    assert moving_boxes.strays(found.motion, example) <= 0.1


def test_the_score_vanishes_where_the_prior_agrees_and_points_away_from_it_elsewhere() -> None:
    scene, true, _ = moving_boxes.hinge()
    still = SceneMotion(true.times, tuple(np.broadcast_to(v[0], v.shape) for v in true.vertices))
    stage = Stage(scene, "scene_flow", BRIEF.stage)
    cameras = sample(UNIT, 2, 24, 24, generator=np.random.default_rng(0))
    rest = [
        (p.expand(16, -1, -1), torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(16, len(p), 4))
        for p in stage.points
    ]
    z = stage.render(rest, cameras).video
    for motion, is_there in ((still, True), (true, False)):
        prior = Oracle(motion, height=24, width=24)
        prior.observe(stage, cameras)
        answer = prior.condition("", z[:, 0])
        g = score(prior, z, 0.6, answer, guidance=1.0, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(g, (z - answer) / 0.6, atol=1e-5)
        assert (g.abs().max() < 1e-5) == is_there


class _Coin:
    """Clean latents are -1 or 1, each as likely."""

    def velocity(
        self, z_tau: torch.Tensor, tau: float, condition: None, *, guidance: float
    ) -> torch.Tensor:
        return (z_tau - torch.tanh(z_tau * (1 - tau) / tau**2)) / tau


def test_one_look_at_noise_shows_the_mean_and_several_show_one_of_the_things_that_might_be() -> (
    None
):
    z, tau = torch.zeros(200), 0.98

    def clean(steps: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(0)
        return z - tau * score(_Coin(), z, tau, None, guidance=1.0, generator=chance, steps=steps)  # type: ignore[arg-type]

    assert clean(1).abs().max() < 0.1
    assert (clean(30).abs() - 1).abs().max() < 0.05
    assert 60 < (clean(30) > 0).sum() < 140


def test_steps_are_even_before_they_are_shifted_towards_noise() -> None:
    assert _levels(0.6, 3, 1.0) == pytest.approx([0.6, 0.4, 0.2, 0.0])
    shifted = np.array(_levels(0.98, 4, 30.0))
    assert shifted[[0, -1]] == pytest.approx([0.98, 0.0])
    even = shifted / (30 - 29 * shifted)  # the inverse of the shift
    assert np.diff(even) == pytest.approx(np.full(4, -even[0] / 4))
    assert (shifted[1:-1] > 0.8).all()


def test_a_run_that_is_killed_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    example = moving_boxes.pick_and_place()
    whole = distill(example[0], "go", _oracle(example), BRIEF, seed=1)

    def kill(fraction: float, word: str) -> None:
        if word.startswith("iteration 3:"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"stopped after 3 of 6 iterations; resume it from"):
        distill(example[0], "go", _oracle(example), BRIEF, seed=1, folder=tmp_path, progress=kill)
    assert (tmp_path / PREVIEW).exists()
    words: list[str] = []
    found = distill(
        example[0],
        "go",
        _oracle(example),
        BRIEF,
        seed=1,
        folder=tmp_path,
        resume=True,
        progress=lambda fraction, word: words.append(word),
    )
    assert [w.split(":")[0] for w in words if w.startswith("iteration")] == [
        f"iteration {i}" for i in (4, 5, 6)
    ]
    assert np.array_equal(found.residuals, whole.residuals)
    for mine, his in zip(found.motion.vertices, whole.motion.vertices, strict=True):
        assert np.array_equal(mine, his)
        assert np.abs(mine[-1] - mine[0]).max() > 0


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    example = moving_boxes.hinge()
    distill(example[0], "go", _oracle(example), replace(BRIEF, iterations=2), folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="exists: resume that run, or give another folder"):
        distill(example[0], "go", _oracle(example), replace(BRIEF, iterations=2), folder=tmp_path)
    with pytest.raises(ValueError, match="another"):
        distill(
            example[0],
            "stop",
            _oracle(example),
            replace(BRIEF, iterations=2),
            folder=tmp_path,
            resume=True,
        )
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_frame_0_is_the_scene_and_seeds_are_honoured() -> None:
    example = moving_boxes.slide()
    runs = [
        distill(example[0], "go", _oracle(example), BRIEF, seed=seed).motion.vertices[0]
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert np.allclose(runs[0][0], example[0].objects[0].vertices_world, atol=1e-12)


def test_a_scene_without_objects_is_refused() -> None:
    example = moving_boxes.hinge()
    with pytest.raises(ValueError, match=r"Scene\.objects: expected at least one object"):
        distill(Scene((), obstacles=example[0].objects), "go", _oracle(example), BRIEF)


def test_a_loss_that_is_not_finite_stops_with_a_word() -> None:
    example = moving_boxes.hinge()
    with pytest.raises(FloatingPointError, match=r"iteration \d+; lower motion_rate"):
        distill(example[0], "go", _oracle(example), replace(BRIEF, motion_rate=(1e20, 1e20)))
