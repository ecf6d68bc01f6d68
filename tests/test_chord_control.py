"""Control points and surface clouds of boxes, sheets and overlapping parts; the Fenwick tree."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from flowplan.scan.meshes.surface import raycasting_scene
from generators.chord.motion.control_points import anatomy, control_points
from generators.chord.motion.fenwick import node_matrix, query_matrix
from generators.chord.options import ControlOptions

FEW = ControlOptions(coarse=8, fine=32, surface_points=1500)


def box(extents=(0.3, 0.2, 0.1), center=(0.4, 0.0, 0.1)):
    mesh = trimesh.creation.box(extents=extents)
    mesh.apply_translation(center)
    return mesh


def sheet():
    line = np.linspace(-0.15, 0.15, 6)
    x, y = np.meshgrid(line, line, indexing="ij")
    corner = np.arange(36).reshape(6, 6)[:-1, :-1].ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 6, corner + 1], 1),
            np.stack([corner + 1, corner + 6, corner + 7], 1),
        ]
    )
    return trimesh.Trimesh(
        np.stack([x.ravel(), y.ravel(), np.full(36, 0.2)], 1), faces, process=False
    )


POST = {"extents": (0.1, 0.1, 0.3), "center": (0.45, 0.0, 0.2)}


def within(points, extents=(0.3, 0.2, 0.1), center=(0.4, 0.0, 0.1)):
    return (np.abs(points - center) < np.array(extents) / 2).all(axis=1)


def overlapping():
    return trimesh.util.concatenate([box(), box(**POST)])


@pytest.mark.parametrize("frames", [2, 3, 8, 13, 41])
def test_a_frame_is_the_sum_of_the_nodes_on_its_way_down(frames):
    """Node j is the sum of increments over (j - lowbit(j), j]."""
    increments = np.random.default_rng(0).normal(size=frames - 1)
    nodes = np.array([increments[j - (j & -j) : j].sum() for j in range(1, frames)])
    prefix = np.concatenate([[0.0], np.cumsum(increments)])
    assert query_matrix(frames) @ nodes == pytest.approx(prefix)
    assert node_matrix(frames) @ prefix == pytest.approx(nodes)


def test_a_node_is_shared_and_frame_zero_has_none():
    query = query_matrix(17)
    assert not query[0].any()
    assert set(np.unique(query)) == {0.0, 1.0}
    assert query.sum(1).max() == 4  # frame 15 = 8 + 4 + 2 + 1
    assert np.flatnonzero(query[:, 8 - 1]).tolist() == list(range(8, 16))


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match="frames: expected at least 2, got 1"):
        query_matrix(1)


@pytest.mark.parametrize(
    "mesh", [box(), sheet(), overlapping()], ids=["box", "sheet", "overlapping"]
)
def test_the_surface_cloud_is_as_large_as_asked_and_near_the_surface(mesh):
    found = anatomy(mesh, FEW)
    assert len(found.surface) == pytest.approx(1500, rel=0.15)
    distance = raycasting_scene(mesh).compute_distance(found.surface.astype(np.float32)).numpy()
    assert distance.max() <= 0.87 * found.voxel
    assert (mesh.bounds[0] - found.voxel <= found.surface).all()
    assert (found.surface <= mesh.bounds[1] + found.voxel).all()
    nearest = cKDTree(found.surface).query(mesh.sample(500, seed=1))[0]
    assert nearest.max() <= 0.87 * found.voxel  # a point's own voxel is among them


def test_neighbors_are_the_ten_nearest_others():
    found = anatomy(box(), FEW)
    gap = np.linalg.norm(found.surface[:, None] - found.surface[found.neighbors], axis=-1)
    assert found.neighbors.shape == (len(found.surface), 10)
    assert gap.min() > 0.5 * found.voxel
    every = np.sort(np.linalg.norm(found.surface[::100, None] - found.surface, axis=-1), axis=1)[
        :, 1:11
    ]
    assert np.sort(gap[::100], axis=1) == pytest.approx(every)


def test_control_points_fill_a_solid_and_lie_in_a_sheet():
    found = anatomy(box(), FEW)
    assert found.coarse.shape == (8, 3)
    assert found.fine.shape == (32, 3)
    assert within(np.concatenate([found.coarse, found.fine])).all()
    depth = 0.05 - np.abs(found.fine[:, 2] - 0.1)
    assert (depth > 0.03).any()  # some in the middle, not all on the surface
    # Evenly spread: every part of the box has one near.
    assert cKDTree(found.fine).query(box().sample(500, seed=2))[0].max() < 0.08

    flat = anatomy(sheet(), FEW)
    assert np.abs(flat.fine[:, 2] - 0.2).max() < flat.voxel


def test_parts_that_overlap_have_one_inside():
    found = anatomy(overlapping(), ControlOptions(coarse=8, fine=64, surface_points=1500))
    union = within(found.fine) | within(found.fine, **POST)
    assert union.mean() > 0.95
    assert (within(found.fine) & within(found.fine, **POST)).any()


def test_scale_is_the_mean_distance_to_three_neighbors():
    found = anatomy(box(), FEW)
    for points, scale in ((found.coarse, found.coarse_scale), (found.fine, found.fine_scale)):
        gap = np.sort(np.linalg.norm(points[:, None] - points, axis=-1), axis=1)[:, 1:4]
        assert scale == pytest.approx(gap.mean(axis=1))


def test_weights_pull_control_points():
    body = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    assert control_points(body, np.array([1.0, 3.0]), 1) == pytest.approx(np.array([[0.75, 0, 0]]))


def test_the_same_seed_gives_the_same_bits():
    one, other = anatomy(box(), FEW, seed=3), anatomy(box(), FEW, seed=3)
    for name in ("coarse", "fine", "surface", "neighbors", "coarse_scale", "fine_scale"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_mesh_without_area_is_refused():
    with pytest.raises(ValueError, match="mesh: expected finite triangles with an area"):
        anatomy(trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False))
    with pytest.raises(ValueError, match=r"ControlOptions.coarse: expected 1 to 1e\+06, got 0"):
        ControlOptions(coarse=0)
