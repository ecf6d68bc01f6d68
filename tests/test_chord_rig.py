"""Connected pieces of meshes, and how control points of their own keep them from dragging each
other along."""

import moving_boxes
import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from generators.chord.motion.connected_pieces import bodies
from generators.chord.motion.rig import Rig
from generators.chord.options import ControlOptions, DeformationOptions

CONTROL = ControlOptions(coarse=12, fine=24, surface_points=400)


def _box(size: float, *center: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=[size] * 3).subdivide()
    mesh.apply_translation(center)
    return mesh


def _rig(*meshes: trimesh.Trimesh, control: ControlOptions = CONTROL) -> Rig:
    return Rig(meshes, 4, control, DeformationOptions(), seed=0)


def test_pieces_are_what_is_connected_by_edges_or_by_vertices_in_one_place() -> None:
    two = trimesh.util.concatenate([_box(1.0, 0, 0, 0), _box(1.0, 3, 0, 0)])
    found = bodies(two)
    assert found.count == 2
    assert [len(m.faces) for m in found.meshes] == [48, 48]
    assert np.array_equal(found.vertex, two.vertices[:, 0] > 1.5)
    soup = trimesh.Trimesh(
        two.triangles.reshape(-1, 3), np.arange(288).reshape(-1, 3), process=False
    )
    assert bodies(soup).count == 2
    assert np.array_equal(bodies(soup).face, found.face)


def test_small_pieces_go_with_what_they_are_nearest_to() -> None:
    parts = [_box(1.0, 0, 0, 0), _box(0.01, 1.8, 0, 0), _box(1.0, 3, 0, 0)]
    found = bodies(trimesh.util.concatenate(parts))
    assert found.count == 2
    assert np.array_equal(found.face, np.repeat([0, 1, 1], 48))
    assert bodies(trimesh.util.concatenate(parts), most=1).count == 1


def test_points_belong_to_the_piece_that_is_nearest() -> None:
    found = bodies(trimesh.util.concatenate([_box(1.0, 0, 0, 0), _box(1.0, 3, 0, 0)]))
    assert found.of(np.array([[0.6, 0, 0], [2.4, 0, 0], [1.4, 0, 0], [1.6, 0, 0]])).tolist() == [
        0,
        1,
        0,
        1,
    ]


@pytest.mark.parametrize(("gap", "touches"), [(0.0, True), (-0.2, True), (0.1, False)])
def test_pieces_touch_where_nothing_is_between_them(gap: float, touches: bool) -> None:
    found = bodies(trimesh.util.concatenate([_box(1.0, 0, 0, 0), _box(0.8, 0.9 + gap, 0.03, 0.02)]))
    assert found.touching.tolist() == [[True, touches], [touches, True]]


def test_a_piece_moves_without_its_neighbor_and_a_whole_does_not() -> None:
    scene, _, (drawer,) = moving_boxes.slide()
    mesh = scene.objects[0].mesh_world
    for pieces, independent in ((12, True), (1, False)):
        rig = _rig(
            mesh, control=ControlOptions(coarse=24, fine=48, surface_points=400, pieces=pieces)
        )
        bound = rig.bind_vertices()
        with torch.no_grad():  # what lies in the drawer is pulled out
            for level in rig.deformation._levels():
                at = level.points * rig.deformation.radius + rig.deformation.center
                inside = (at - torch.tensor([0.48, 0.0, 0.07])).abs() < torch.tensor(
                    [0.141, 0.106, 0.051]
                )
                level.translation[:, inside.all(1)] = torch.tensor([-1.0, 0.0, 0.0])
        way = (
            (rig(bound, fine=False)[0][0][-1] - torch.as_tensor(mesh.vertices))
            .norm(dim=-1)
            .detach()
            .numpy()
        )
        assert (way[~drawer].max() < 1e-5) == independent


def test_order_and_objects_survive_the_sorting_by_piece() -> None:
    meshes = [moving_boxes.slide()[0].objects[0].mesh_world, _box(0.1, 1, 0, 0)]
    rig = _rig(*meshes)
    rng = np.random.default_rng(0)
    points = [m.vertices[rng.permutation(len(m.vertices))[:40]] for m in meshes]
    for positions, cloud, p in zip(
        (p for p, _ in rig(rig.bind(points), fine=True)), rig.clouds, points, strict=True
    ):
        assert np.allclose(positions[0].detach().numpy(), np.concatenate([cloud, p]), atol=1e-6)
    R = torch.as_tensor(Rotation.from_rotvec([0, 0, 0.3]).as_matrix(), dtype=torch.float32)
    quat = torch.tensor(
        Rotation.from_rotvec([0, 0, 0.3]).as_quat(scalar_first=True), dtype=torch.float32
    )
    with torch.no_grad():  # all control points turn about the origin
        level = rig.deformation._levels()[0]
        center = level.points + rig.deformation.center / rig.deformation.radius
        level.translation[0] = center @ (R - torch.eye(3)).T
        level.rotation[0] = quat / quat[0] - torch.tensor([1.0, 0, 0, 0])
    for (positions, quats), p in zip(
        rig(rig.bind_vertices(), fine=False), [m.vertices for m in meshes], strict=True
    ):
        assert np.allclose(positions[1].detach().numpy(), p @ R.numpy().T, atol=1e-5)
        assert torch.allclose(quats[1], quat, atol=1e-5)


def test_neighbors_are_of_a_piece_and_contacts_of_two_that_touch() -> None:
    for gap, touch in ((0.1, False), (0.0, True)):
        rig = _rig(trimesh.util.concatenate([_box(0.2, 0, 0, 0), _box(0.2, 0.2 + gap, 0.01, 0)]))
        left = rig._labels[0] == 0
        assert (left[rig.neighbors] == left[:, None]).all()
        assert (rig.neighbors != np.arange(len(left))[:, None]).all()
        one, other = rig.contacts.T
        assert (left[one] != left[other]).all()
        assert (len(one) > 0) == touch
        cloud = rig.clouds[0]
        assert (np.linalg.norm(cloud[one] - cloud[other], axis=1) < 0.1).all()
        assert len(rig.deformation._levels()[0].points) == pytest.approx(CONTROL.coarse, abs=1)


def test_contacts_of_several_objects_are_their_own() -> None:
    pair = trimesh.util.concatenate([_box(0.2, 0, 0, 0), _box(0.2, 0.2, 0.01, 0)])
    rig = _rig(_box(0.2, 0, 1, 0), pair)
    first = len(rig.clouds[0])
    assert len(rig.contacts) > 0
    assert rig.contacts.min() >= first
    assert (rig.neighbors[:first] < first).all()
    assert (rig.neighbors[first:] >= first).all()
