"""Small things and small supports: planes of few points, thin parts beside large ones, shards."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from flowplan.robot.urdf import read_urdf
from flowplan.robot.urdf_meshes import collision_hulls
from flowplan.scan import load_urdf
from flowplan.scan.depth import segment
from flowplan.scan.depth.fuse import _SeenParts
from flowplan.scan.meshes.surface import without_strays
from sim_envs.assets import connected_pieces

UP = np.array([0.0, 0.0, 1.0])


def shelf_bin(share: float, rng: np.random.Generator, count: int = 20_000) -> np.ndarray:
    """Points of a bin's floor at z = 0 (this share of them), of two walls and of a thing in it."""
    floor, wall = int(share * count), (count - int(share * count)) // 3
    u, v, w = rng.uniform(size=(3, wall))
    flat = np.column_stack([rng.uniform(size=(floor, 2)) * [0.3, 0.2], np.zeros(floor)])
    back = np.column_stack([0.3 * u, np.zeros(wall), 0.3 * v])
    side = np.column_stack([np.zeros(wall), 0.2 * u, 0.3 * w])
    thing = np.column_stack([0.1 + 0.05 * u, 0.08 + 0.04 * v, 0.05 + 0.02 * np.round(w)])
    points = np.concatenate([flat, back, side, thing])
    return points + rng.normal(0, 0.001, points.shape)


@pytest.mark.parametrize("seed", range(10))
def test_a_support_of_few_points_is_found(seed):
    points = shelf_bin(0.06, np.random.default_rng(seed))
    found = segment.find_support(
        points, np.array([[0.2, 0.3, 0.6]]), thickness=0.008, tilt=0.1, seed=seed
    )
    assert found.normal @ UP > np.cos(0.03)
    assert abs(found.center[2]) < 2e-3
    again = segment.find_support(
        points, np.array([[0.2, 0.3, 0.6]]), thickness=0.008, tilt=0.1, seed=seed
    )
    assert np.array_equal(found.normal, again.normal)


def test_a_wall_in_a_world_with_another_axis_up_is_no_support():
    """A room with y up: the wall in front of the camera has the normal z."""
    rng = np.random.default_rng(0)
    floor = rng.uniform([-1, -0.002, 0], [1, 0.002, 2], (9000, 3))
    wall = rng.uniform([-1, 0, -0.002], [1, 1.5, 0.002], (9000, 3))
    points = np.concatenate([floor, wall])
    camera, upward = np.array([[0.0, 1.2, 2.0]]), np.array([[0.0, 0.9, -0.44]])
    search = {"thickness": 0.008, "tilt": 0.1, "seed": 0}
    assert segment.find_support(points, camera, **search).normal @ UP > 0.99
    with pytest.raises(ValueError, match="beside a plane below the images"):
        segment.find_support(points, camera, **search, upward=upward)
    # The same room with z up has its floor for a support.
    R = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    turned = segment.find_support(points @ R.T, camera @ R.T, **search, upward=upward @ R.T)
    assert abs(turned.center[2]) < 2e-3


def test_a_thin_part_that_was_seen_stays_and_others_go():
    box = trimesh.creation.box([0.3, 0.3, 0.3])
    rod = trimesh.creation.cylinder(0.006, 0.1).apply_translation([0.17, 0, 0])
    shard = trimesh.creation.box([0.005, 0.005, 0.005]).apply_translation([-0.2, 0, 0])
    ghost = trimesh.creation.cylinder(0.006, 0.1).apply_translation([0, 0.2, 0])
    mesh = trimesh.util.concatenate([box, rod.subdivide_to_size(0.004), shard, ghost])
    cloud = trimesh.sample.sample_surface(trimesh.util.concatenate([rod, shard]), 4000, seed=0)[0]
    kept = without_strays(mesh, 0.02, _SeenParts(cloud, 0.003, 0.015))
    assert np.isclose(kept.volume, box.volume + rod.volume, rtol=1e-6)
    assert np.isclose(without_strays(mesh, 0.02).volume, box.volume)


def test_capsules_are_read(tmp_path):
    shape = '<geometry><capsule radius="0.05" length="0.2"/></geometry>'
    path = tmp_path / "r.urdf"
    path.write_text(
        f'<robot name="r"><link name="l"><visual>{shape}</visual><collision>{shape}</collision>'
        "</link></robot>"
    )
    exact = np.pi * 0.05**2 * 0.2 + 4 / 3 * np.pi * 0.05**3
    for mesh in (load_urdf(path, links=True)[0].mesh, collision_hulls(read_urdf(path))["l"]):
        assert np.allclose(mesh.extents, [0.1, 0.1, 0.3], atol=1e-9)
        assert 0.97 * exact < mesh.volume < exact


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_pieces_are_those_of_the_file(tmp_path, split, named):
    """Two boxes that touch at a side, each vertex written once or once for each face."""
    lines, first = [], 1
    for i in range(2):
        box = trimesh.creation.box([0.1, 0.1, 0.1]).apply_translation([0.1 * i + 0.05 * i, 0, 0])
        if split:
            box.unmerge_vertices()
        lines += [f"o piece_{i}"] if named else []
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in box.vertices]
        lines += ["f {} {} {}".format(*face) for face in box.faces + first]
        first += len(box.vertices)
    path = tmp_path / "a.obj"
    path.write_text("\n".join(lines) + "\n")
    pieces = connected_pieces(path)
    assert len(pieces) == 2
    assert np.allclose([p.convex_hull.volume for p in pieces], 0.001)
