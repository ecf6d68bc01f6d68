"""Rotations of vertices against motions in closed form; simulated cloth and plants."""

import importlib.util

import numpy as np
import pytest
import trimesh

from flowplan.geometry import (
    angle_between,
    exp_so3,
    matrix_from_quat_wxyz,
    pose,
    rotation_about,
    transform,
)
from generators.data.clips import cloth
from generators.data.clips.clip import Clip, _covariances, vertex_rotations
from generators.data.clips.cloth import ClothOptions, cloth_clip
from generators.data.clips.plants import plant_clip, sections


def sheet(n=21, size=1.0):
    """A flat grid of n x n vertices in the plane z = 0, x and y from 0 to `size`."""
    x, y = np.meshgrid(np.linspace(0, size, n), np.linspace(0, size, n), indexing="ij")
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = (k.ravel() for k in (i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]))
    return np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], 1), np.concatenate(
        [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    )


def error(found, expected):
    """Largest angle (rad) between quat_wxyz (V, 4) and rotations (..., 3, 3)."""
    return angle_between(
        matrix_from_quat_wxyz(found), np.broadcast_to(expected, (len(found), 3, 3))
    ).max()


@pytest.mark.parametrize("shape", ["solid", "flat", "sliver"])
@pytest.mark.parametrize("angle", [0.0, 1e-6, 1.0, np.pi - 1e-6, np.pi])
def test_a_rigid_motion_is_exact_however_large(shape, angle):
    if shape == "solid":
        mesh = trimesh.creation.cylinder(0.1, 0.5)
        vertices, faces = mesh.vertices, mesh.faces
    else:
        vertices, faces = sheet(5)
        vertices = vertices * ([1, 1, 1] if shape == "flat" else [1, 1e-3, 1])
    R = exp_so3(angle * np.array([2, -1, 2]) / 3)
    found = vertex_rotations(vertices, transform(pose(R, [0.3, -2, 1]), vertices), faces)
    assert np.all(found[:, 0] >= 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert error(found, R) < 1e-7


def test_rigid_pieces_of_one_mesh_turn_on_their_own():
    lid, box = trimesh.creation.box([0.3, 0.2, 0.02]), trimesh.creation.box([0.3, 0.2, 0.1])
    X = rotation_about([0, 0.1, 0.05], [1, 0, 0], 1.3)
    vertices = np.concatenate([box.vertices, lid.vertices + np.array([0, 0, 0.06])])
    moved = np.concatenate([box.vertices, transform(X, lid.vertices + np.array([0, 0, 0.06]))])
    found = vertex_rotations(vertices, moved, np.concatenate([box.faces, lid.faces + 8]))
    assert error(found[:8], np.eye(3)) < 1e-7
    assert error(found[8:], X[:3, :3]) < 1e-7


def test_a_hinge_within_one_mesh_is_exact_off_the_line_and_between_on_it():
    vertices, faces = sheet(21)
    turning = vertices[:, 0] > 0.5 + 1e-9
    X = rotation_about([0.5, 0, 0], [0, 1, 0], -0.8)
    moved = np.where(turning[:, None], transform(X, vertices), vertices)
    found = vertex_rotations(vertices, moved, faces)
    assert error(found[vertices[:, 0] < 0.5 - 1e-9], np.eye(3)) < 1e-7
    assert error(found[turning], X[:3, :3]) < 1e-7
    line = np.isclose(vertices[:, 0], 0.5) & (vertices[:, 1] > 0.01) & (vertices[:, 1] < 0.99)
    half = exp_so3([0, -0.4, 0])
    assert error(found[line], half) < 0.03  # the diagonals all lean one way


def test_a_bend_turns_with_its_arc_and_converges_with_the_square_of_the_spacing():
    errors = []
    for n in (11, 21, 41):
        vertices, faces = sheet(n)
        turn = -1.5 * vertices[:, 0]  # a unit sheet rolled on a cylinder of radius 1 / 1.5
        moved = np.stack(
            [np.sin(1.5 * vertices[:, 0]), vertices[:, 1], 1 - np.cos(1.5 * vertices[:, 0])], 1
        )
        moved[:, [0, 2]] /= 1.5
        found = vertex_rotations(vertices, moved, faces)
        inside = np.all((vertices[:, :2] > 1e-9) & (vertices[:, :2] < 1 - 1e-9), axis=1)
        expected = exp_so3(turn[:, None] * [0, 1, 0])
        errors.append(angle_between(matrix_from_quat_wxyz(found), expected)[inside].max())
    assert errors[-1] < 2e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


def test_stretch_and_scale_leave_the_rotation():
    mesh = trimesh.creation.icosphere(2)
    R = exp_so3([0.3, 1.0, -0.5])
    assert error(vertex_rotations(mesh.vertices, 2.5 * mesh.vertices @ R.T, mesh.faces), R) < 1e-7
    flat, faces = sheet(5)
    assert error(vertex_rotations(flat, (flat * [1.4, 1, 1]) @ R.T, faces), R) < 0.1


def test_a_crumpled_neighbourhood_still_gives_the_best_rotation():
    rng = np.random.default_rng(0)
    mesh = trimesh.creation.box([3, 2, 1])
    crumpled = rng.normal(size=(8, 3))
    found = vertex_rotations(mesh.vertices, crumpled, mesh.faces)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    covariance = _covariances(mesh.vertices, crumpled, mesh.faces)
    assert np.linalg.det(covariance).min() < 0 < np.linalg.det(covariance).max()
    others = exp_so3(rng.normal(size=(5000, 3)) * 2)
    best = np.einsum("vij,vij->v", matrix_from_quat_wxyz(found), covariance)
    assert np.all(best >= np.einsum("rij,vij->rv", others, covariance).max(0))


def test_what_has_no_neighbourhood_turns_like_the_nearest_that_has():
    mesh = trimesh.creation.box([1, 1, 1])
    X = rotation_about([0, 0, 0], [0, 0, 1], 0.7)
    # Two lone points, one by the turning box and one by the still one; a face without area on the
    # turning one.
    extra = np.array([[0.6, 0, 0], [3.4, 0, 0], [0.5, 0.5, 0.9]])
    vertices = np.concatenate([mesh.vertices, mesh.vertices + np.array([4, 0, 0]), extra])
    faces = np.concatenate([mesh.faces, mesh.faces + 8, [[0, 18, 18]]])
    moved = vertices.copy()
    on = [*range(8), 16, 18]
    moved[on] = transform(X, vertices[on])
    found = vertex_rotations(vertices, moved, faces)
    still = np.setdiff1d(np.arange(len(vertices)), on)
    assert error(found[on], X[:3, :3]) < 1e-7
    assert error(found[still], np.eye(3)) < 1e-7
    shrunk = vertex_rotations(mesh.vertices, 0 * mesh.vertices, mesh.faces)
    np.testing.assert_array_equal(shrunk, np.tile([1.0, 0, 0, 0], (8, 1)))


def test_a_clip_checks_what_it_is_given():
    vertices, faces = sheet(3)
    frames = np.stack([vertices, vertices + 1])
    clip = Clip("sheet", frames, faces)
    assert len(clip) == 2
    assert error(clip.rotations(0, 1), np.eye(3)) < 1e-7
    with pytest.raises(
        ValueError, match=r"Clip\[sheet\]\.vertices: expected at least 2 frames, got 1"
    ):
        Clip("sheet", frames[:1], faces)
    with pytest.raises(
        ValueError, match=r"Clip\[sheet\]\.faces: expected indices of 9 vertices, got 1 to 9"
    ):
        Clip("sheet", frames, faces + 1)
    with pytest.raises(
        ValueError, match=r"Clip\[sheet\]\.vertices: 54 of 54 values are not finite"
    ):
        Clip("sheet", np.full_like(frames, np.nan), faces)


def test_a_stem_of_constant_curvature_is_an_arc_and_its_sections_turn_along_it():
    k, length = np.array([1.5, -0.7, 0.0]), 2.0
    root = pose(exp_so3([0.1, 0.2, 0.3]), [1, 2, 3])
    X = np.linalg.inv(root) @ sections(np.stack([root, root]), np.tile(k, (2, 7, 1)), length)
    s = np.linspace(0, length, 8)
    kappa = np.linalg.norm(k)
    towards = np.cross(k / kappa, [0, 0, 1])
    arc = (
        np.sin(kappa * s)[:, None] * [0, 0, 1] + (1 - np.cos(kappa * s))[:, None] * towards
    ) / kappa
    np.testing.assert_allclose(X[0, :, :3, 3], arc, atol=1e-12)
    np.testing.assert_allclose(X[0, :, :3, :3], exp_so3(s[:, None] * k), atol=1e-12)
    np.testing.assert_array_equal(X[0], X[1])


def test_a_plant_bends_from_its_root_and_its_leaves_stay_as_they_are():
    for seed in range(6):
        clip = plant_clip(seed, frames=9)
        np.testing.assert_array_equal(clip.vertices, plant_clip(seed, frames=9).vertices)
        v = clip.vertices
        size = np.ptp(v[0], axis=0).max()
        travel, rigid = np.linalg.norm(v - v[0], axis=-1).max(0), 0
        assert 0.02 < travel.max() / size < 1.5
        assert travel[v[0, :, 2] < v[0, :, 2].min() + 0.005 * size].max() < 0.02 * size
        turn = matrix_from_quat_wxyz(clip.rotations(0, 4))
        for piece in trimesh.graph.connected_components(trimesh.graph.faces_to_edges(clip.faces)):
            far = np.linalg.norm(v[:, piece] - v[:, piece[:1]], axis=-1)
            if (
                np.ptp(far, axis=0).max() < 1e-9
            ):  # not a stem but a leaf, a petal, the pot: one body
                assert angle_between(turn[piece], turn[piece[:1]]).max() < 1e-6
                rigid += 1
        assert rigid >= 2
    assert plant_clip(0).vertices.shape != plant_clip(1).vertices.shape
    with pytest.raises(ValueError, match="frames: expected at least 2, got 1"):
        plant_clip(0, frames=1)


@pytest.mark.parametrize("seed", range(8))
def test_garments_are_one_surface_with_the_openings_they_should_have(seed):
    rng = np.random.default_rng(seed)
    for garment, openings in (
        (cloth.sheet(rng, 12), 1),
        (cloth.shirt(rng, 24), 4),
    ):  # neck, hem and two cuffs
        mesh = trimesh.Trimesh(garment.vertices, garment.faces, process=False)
        assert mesh.is_winding_consistent
        assert mesh.body_count == 1
        assert mesh.euler_number == 2 - openings
        assert mesh.area_faces.min() > 1e-6
        assert len(np.unique(garment.faces)) == len(garment.vertices)
        assert 2 <= len(garment.pins) < len(garment.vertices) / 3
        high = garment.vertices[garment.pins, 2]
        assert openings == 1 or np.all(high > garment.vertices[:, 2].max() - 0.02)


def test_wind_presses_along_the_normal_with_the_square_of_its_speed():
    garment = cloth.sheet(np.random.default_rng(0), 10)
    x, faces = garment.vertices, garment.faces  # in the plane y = 0
    area = trimesh.Trimesh(x, faces).area
    still = np.zeros_like(x)
    for u, pressed in (([0, 3, 0], 9.0), ([0, -3, 0], -9.0), ([5, 3, 2], 9.0), ([4, 0, 1], 0.0)):
        force = cloth._pressure(x, still, faces, still + u).sum(0)
        np.testing.assert_allclose(force, [0, 0.5 * cloth.AIR * area * pressed, 0], atol=1e-9)
    np.testing.assert_allclose(cloth._pressure(x, still + u, faces, still + u), 0, atol=1e-12)


def test_a_flat_sheet_does_not_bend_and_a_curved_one_pulls_back():
    garment = cloth.sheet(np.random.default_rng(3), 12)
    L = cloth._laplacian(garment)
    np.testing.assert_allclose(L @ garment.vertices, 0, atol=1e-12)
    bowl = garment.vertices + ((garment.vertices - garment.vertices.mean(0)) ** 2).sum(1)[
        :, None
    ] * [0, 1, 0]
    assert (L @ bowl)[:, 1].min() < -1e-4  # inner vertices lie below the mean of their neighbors
    assert (L @ bowl)[:, 1].max() < 1e-12


def test_gusts_alternate_with_calm():
    winds = cloth._Winds(np.random.default_rng(0), 0.5)
    x = np.random.default_rng(1).normal(size=(4, 3))
    speed = [np.abs(winds(t, x)).max() for t in (-0.1, 0.25, 0.75, 1.25, 1.75, 2.25)]
    assert [s > 0.1 for s in speed] == [False, True, False, True, False, False]
    assert np.abs(winds(1e-6, x)).max() < 1e-6  # no jump


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="MuJoCo is not installed")
@pytest.mark.parametrize("kind", ["sheet", "shirt"])
def test_a_cloth_clip_moves_in_both_gusts_and_neither_stretches_nor_leaves_its_pins(kind):
    options = ClothOptions(frames=9, phase=0.4, cells=9)
    clip = cloth_clip(kind, 1, options)
    np.testing.assert_array_equal(clip.vertices, cloth_clip(kind, 1, options).vertices)
    rng = np.random.default_rng([cloth.KINDS.index(kind), 1])
    garment = getattr(cloth, kind)(rng, 9)
    assert clip.vertices.shape == (9, len(garment.vertices), 3)
    np.testing.assert_array_equal(clip.faces, garment.faces)
    held = clip.vertices[:, garment.pins]
    np.testing.assert_allclose(
        held, np.broadcast_to(garment.vertices[garment.pins], held.shape), atol=1e-6
    )
    edges = trimesh.Trimesh(garment.vertices, garment.faces, process=False).edges_unique
    length = np.linalg.norm(np.diff(garment.vertices[edges], axis=1)[:, 0], axis=-1)
    stretched = np.linalg.norm(np.diff(clip.vertices[:, edges], axis=2)[:, :, 0], axis=-1) / length
    assert np.percentile(np.abs(stretched - 1), 99) < 0.05
    for a, b in ((0, 2), (4, 6)):  # during either gust
        assert np.linalg.norm(clip.vertices[b] - clip.vertices[a], axis=1).max() > 0.03


def test_cloth_options_are_checked():
    with pytest.raises(ValueError, match=r"ClothOptions\.cells: expected at least 4, got 3"):
        ClothOptions(cells=3)
    with pytest.raises(
        ValueError, match=r"ClothOptions\.phase: expected 0\.1 to 10 seconds, got 0"
    ):
        ClothOptions(phase=0)
    with pytest.raises(ValueError, match="kind: got 'sock', expected one of sheet, shirt"):
        cloth_clip("sock", 0)
