"""Motions projected onto rigid parts and joints, on meshes that are cut between them."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.articulation import articulate
from flowplan.geometry import fit_rigid, pose, rotation_about, transform
from flowplan.motion import SceneMotion
from flowplan.scene import Action, Scene, SceneObject

SHARE = np.linspace(0, 1, 9)
X_WORLD = pose(translation=[0.5, 0.1, 0.1]) @ rotation_about([0, 0, 0], [0, 0, 1], 0.5)
RNG = np.random.default_rng(0)


def grooved():
    """A slab in one skin, with a groove across its middle, and a block on its right half."""
    mesh = trimesh.creation.box([0.5, 0.2, 0.04])
    mesh = trimesh.Trimesh(
        *trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, 0.02), process=True
    )
    vertices = np.array(mesh.vertices)
    vertices[:, 2] *= 1 - 0.8 * np.exp(-((vertices[:, 0] / 0.015) ** 2))
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def folding(bend=0.0):
    """A scene of the slab, and its right half turning up by 0.8 rad, bent by a share of its way."""
    mesh = grooved()
    share = np.clip(mesh.vertices[:, 0] / 0.06 + 0.5, 0, 1)[:, None]
    turn = rotation_about([0, 0, 0.02], [0, -1, 0], 0.8 * SHARE)
    local = mesh.vertices + share * (transform(turn, mesh.vertices) - mesh.vertices)
    way = np.linalg.norm(local - local[0], axis=-1).max(axis=1)
    wave = np.cos(20 * mesh.vertices[:, 0])[:, None] * [0.1, 0.2, 0.3]
    local = local + bend * way[:, None, None] * share * wave
    scene = Scene((SceneObject("slab", mesh, X_WORLD),), support_height=None)
    return scene, SceneMotion(2 * SHARE, (transform(X_WORLD, local),))


def parts_of(made):
    (obj,) = made.scene.objects
    owner = obj.articulation.part_of_vertex(obj.mesh.faces, len(obj.mesh.vertices))
    return obj, owner


@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_each_part_moves_rigidly_along_its_joint(bend):
    scene, motion = folding(bend)
    made = articulate(scene, motion)
    obj, owner = parts_of(made)
    (moved,) = made.motion.vertices
    (joint,) = obj.articulation.joints
    assert joint.kind == "revolute"
    assert np.allclose(moved[:, owner == 0], moved[0, owner == 0], atol=1e-12)
    child = moved[:, owner == 1]
    X = fit_rigid(child[0], child)
    assert np.allclose(transform(X, child[0]), child, atol=1e-9)
    # Points on the axis stay.
    on_axis = transform(X_WORLD, joint.point + np.outer([0.0, 0.3], joint.axis))
    assert np.allclose(transform(X, on_axis), on_axis, atol=1e-9)
    # No face is shared, and both parts are solids.
    for k in (0, 1):
        piece = trimesh.Trimesh(
            obj.mesh.vertices, obj.mesh.faces[obj.articulation.part == k], process=False
        )
        assert piece.is_watertight
    (report,) = made.objects
    assert report.reason == ""
    assert report.projected_mm == pytest.approx(1e3 * report.projected)
    # The torn band of the true motion is moved, the rest is not.
    known = np.linalg.norm(moved[0][:, None] - motion.vertices[0][0][None], axis=-1).argmin(axis=1)
    apart = np.linalg.norm(moved - motion.vertices[0][:, known], axis=-1).max(axis=0)
    local = obj.mesh.vertices[:, 0]
    if bend == 0:
        assert apart[np.abs(local) > 0.05].max() < 2e-3
        assert report.projected > 5e-3


def test_handles_say_how_far():
    scene, motion = folding(0.2)
    tip = np.array([[0.25, y, 0.02] for y in (-0.1, 0.0, 0.1)])
    ends = transform(rotation_about([0, 0, 0.02], [0, -1, 0], 1.1), tip)
    action = Action("slab", transform(X_WORLD, tip), targets=transform(X_WORLD, ends))
    made = articulate(scene, motion, action=action)
    obj, owner = parts_of(made)
    at_tip = np.linalg.norm(obj.mesh.vertices[:, None] - tip, axis=-1).argmin(axis=0)
    assert (owner[at_tip] == 1).all()
    reached = made.motion.vertices[0][-1, at_tip]
    own = articulate(scene, motion).motion.vertices[0][-1, at_tip]
    target = np.asarray(action.targets)
    assert np.linalg.norm(reached - target, axis=-1).max() < 0.04
    assert np.linalg.norm(reached - target) < 0.5 * np.linalg.norm(own - target)


def test_what_is_put_down_touches_the_support():
    box = trimesh.creation.box([0.1, 0.1, 0.1])
    obj = SceneObject("box", box, pose(translation=[0, 0, 0.05]))
    height = 0.2 * np.sin(np.pi * SHARE) + 0.012 * SHARE
    way = np.stack([0.3 * SHARE, 0 * SHARE, height], axis=1)
    moved = obj.vertices_world + way[:, None]
    moved[1:] += 1e-3 * RNG.standard_normal(moved[1:].shape)
    made = articulate(Scene((obj,)), SceneMotion(SHARE, (moved,)))
    (vertices,) = made.motion.vertices
    assert vertices[-1, :, 2].min() == pytest.approx(0, abs=1e-12)
    assert vertices[4, :, 2].min() > 0.19
    lengths = np.linalg.norm(vertices[:, :1] - vertices, axis=-1)
    assert np.allclose(lengths, lengths[0], atol=1e-9)


def test_what_bends_or_stands_still_is_left_alone():
    scene, motion = folding()
    cloth = replace(scene.objects[0], deformable=True)
    other = SceneObject("cube", trimesh.creation.box([0.1] * 3))
    still = np.broadcast_to(other.vertices_world, (len(SHARE), 8, 3))
    both = Scene((cloth, other), support_height=None)
    made = articulate(both, SceneMotion(motion.times, (*motion.vertices, still)))
    assert [r.reason for r in made.objects] == ["is deformable", "stands still"]
    assert np.array_equal(made.motion.vertices[0], motion.vertices[0])
    assert made.scene.objects == both.objects


def test_a_motion_of_another_scene_is_refused():
    scene, motion = folding()
    other = Scene((SceneObject("cube", trimesh.creation.box([0.1] * 3)),))
    with pytest.raises(ValueError, match="give the scene that the motion was made of"):
        articulate(other, motion)
