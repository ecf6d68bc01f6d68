"""Quality of motions: each measure against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from flowplan.motion import SceneMotion
from flowplan.motion_quality import RigidParts, project, rigid_parts
from flowplan.motion_quality.projection import _above
from tests.moving_boxes import hinge, pick_and_place, slide


def bent_hinge(amount: float):
    """A hinged box whose vertices leave its parts by `amount` meters, each its own way."""
    scene, motion, moves = hinge()
    (vertices,) = motion.vertices
    share = np.linspace(0, 1, len(vertices))[:, None, None]
    direction = np.random.default_rng(0).normal(size=vertices.shape[1:])
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    bent = vertices + amount * share * direction
    return scene, motion, SceneMotion(motion.times, (bent,)), moves


def test_projection_finds_the_rigid_motion_under_the_bending():
    scene, rigid, bent, _ = bent_hinge(3e-3)
    found = project(scene, bent, [False])
    assert len(found.parts[0].X_world) == 2
    before = np.linalg.norm(bent.vertices[0] - rigid.vertices[0], axis=-1).max()
    after = np.linalg.norm(found.motion.vertices[0] - rigid.vertices[0], axis=-1).max()
    assert before == pytest.approx(3e-3, rel=0.05)
    assert after < 0.5 * before
    # Every part is rigid now.
    again = rigid_parts(found.motion.vertices[0])
    assert again.residual.max() < 1e-4
    moved = np.linalg.norm(found.motion.vertices[0] - bent.vertices[0], axis=-1).max()
    assert found.moved[0] == pytest.approx(moved)


def test_what_moves_less_than_the_motion_bends_stands_still():
    scene, _, bent, moves = bent_hinge(3e-3)
    projected = project(scene, bent, [False]).motion
    still = ~moves[0]
    assert np.abs(bent.vertices[0][:, still] - bent.vertices[0][0, still]).max() > 2e-3
    assert np.abs(projected.vertices[0][:, still] - projected.vertices[0][0, still]).max() == 0


@pytest.mark.parametrize("build", [hinge, slide, pick_and_place])
def test_rigid_motions_are_not_touched(build):
    scene, motion, _ = build()
    found = project(scene, motion, [False] * len(motion.vertices))
    assert not found.moved.any()
    for before, after in zip(motion.vertices, found.motion.vertices, strict=True):
        assert np.array_equal(after, before)


def test_deformable_objects_keep_their_motion():
    scene, _, bent, _ = bent_hinge(5e-3)
    found = project(scene, bent, [True])
    assert found.parts == (None,)
    assert np.array_equal(found.motion.vertices[0], bent.vertices[0])


@pytest.mark.parametrize(("drop", "label"), [(0.0003, 0), (0.004, 1), (0.05, 0)])
def test_vertices_are_not_carried_into_the_support(drop, label):
    """Of two parts that explain a vertex, the one that stands; a true descent stays one."""
    start = np.array([[0.0, 0, 0], [0.1, 0, 0.05]])
    down = np.array([0.0, 0.0, -drop])
    vertices = np.stack([start, start + down])
    X = np.stack([np.tile(np.eye(4), (2, 1, 1)) for _ in range(2)])
    X[0, 1, :3, 3] = down
    parts = RigidParts(np.zeros(2, int), X, np.zeros(2))
    found = _above(0.0, parts, vertices)
    assert found.label.tolist() == [label, 0]
    assert found.residual[0] == (drop if label else 0.0)
