"""Convex parts of meshes."""

import numpy as np
import pytest
import trimesh
from scan_scene import bowl, box, distances

from flowplan.scan import ConvexOptions, convex_parts
from flowplan.scan.meshes.convex import _coarser


def corner():
    """A wall on a floor, in one piece: the prism over an L."""
    outline = np.array([[0, 0], [0.2, 0], [0.2, 0.02], [0.02, 0.02], [0.02, 0.2], [0, 0.2]])
    vertices = np.concatenate([np.column_stack([outline, np.full(6, z)]) for z in (0, 0.1)])
    top = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 5], [3, 4, 5]])
    i = np.arange(6)
    j = (i + 1) % 6
    sides = np.concatenate([np.stack([i, j, j + 6], 1), np.stack([i, j + 6, i + 6], 1)])
    return trimesh.Trimesh(vertices, np.concatenate([top[:, ::-1], top + 6, sides]), process=False)


def outside(mesh, parts):
    """Largest distance of the mesh's surface outside the parts."""
    points = trimesh.sample.sample_surface(mesh, 3000, seed=0)[0]
    depth = []
    for part in parts:
        offsets = (part.face_normals * part.triangles[:, 0]).sum(-1)
        depth.append((points @ part.face_normals.T - offsets).max(1))
    return np.min(depth, axis=0).max()


def test_what_is_convex_is_its_hull():
    (part,) = convex_parts(box())
    assert part.volume == pytest.approx(box().volume)
    (ball,) = convex_parts(trimesh.creation.icosphere(4, 0.04))
    assert len(ball.vertices) <= ConvexOptions().max_vertices
    assert outside(trimesh.creation.icosphere(4, 0.04), [ball]) < 0.0015


def test_a_concave_thing_is_cut_until_its_inside_is_free():
    parts = convex_parts(corner())
    assert 2 <= len(parts) <= 16
    assert all(p.is_convex and p.is_watertight for p in parts)
    assert outside(corner(), parts) < 0.002
    free = [[0.05, 0.05, 0.05], [0.1, 0.06, 0.02]]
    assert not any(p.contains(free).any() for p in parts)
    assert convex_parts(corner(), ConvexOptions(max_parts=1))[0].contains(free).all()


def test_the_same_seed_gives_the_same_parts():
    a, b = (convex_parts(corner(), seed=5) for _ in range(2))
    assert [len(p.vertices) for p in a] == [len(p.vertices) for p in b]
    assert np.allclose(a[0].vertices, b[0].vertices)


def test_what_is_flat_gets_a_thickness():
    sheet = trimesh.creation.box([0.2, 0.2, 0.002]).apply_scale([1, 1, 0])
    (part,) = convex_parts(sheet)
    assert part.is_watertight
    assert np.allclose(part.extents, [0.2, 0.2, 0.001])


def test_an_open_mesh_will_do():
    mesh = box().subdivide()
    mesh.update_faces(mesh.face_normals[:, 2] > -0.9)
    (part,) = convex_parts(mesh, ConvexOptions(tolerance=0.1))
    assert part.volume == pytest.approx(box().volume)


def test_a_coarser_hull_stays_close():
    hull = trimesh.creation.icosphere(4, 0.05)
    coarse = _coarser(hull, 128)
    assert len(coarse.vertices) <= 128
    assert coarse.is_watertight
    assert distances(hull.vertices, coarse).max() < 0.03 * 0.05


@pytest.mark.slow
def test_a_bowl_stays_open():
    parts = convex_parts(bowl())
    assert not any(p.contains([[0, 0, 0.05]]).any() for p in parts)
    assert outside(bowl(), parts) < 0.004


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="mesh: has no faces"):
        convex_parts(trimesh.Trimesh())
    with pytest.raises(ValueError, match="ConvexOptions.concavity"):
        ConvexOptions(concavity=2)
    with pytest.raises(ValueError, match="ConvexOptions.max_parts"):
        ConvexOptions(max_parts=0)
