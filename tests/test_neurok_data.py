"""Pose pairs: kinematics, rigid motions that fit their points, visibility, and seeds."""

import numpy as np
import pytest
import torch
import trimesh

from flowplan import geometry as g
from flowplan.robot.urdf import Joint
from generators.common.dual_quaternion import rotate
from generators.data.clips.clip import Clip
from generators.data.clips.clip_store import ClipOptions, ClipStore
from generators.data.object_store import ArticulatedStore, StoreOptions, draw_configurations
from generators.data.objects.articulated import ArticulatedObject, Mimic
from generators.data.objects.families import FAMILIES, HELD_OUT, HELD_OUT_SEED, trained_families
from generators.data.pose_pairs import (
    AugmentOptions,
    Mixture,
    PosePairs,
    augment,
    quat_from_matrix,
)
from generators.data.visibility import random_views, seen
from generators.neurok.train import stored_objects

QUICK = StoreOptions(surface_points=256, snapshots=2, snapshot_points=128)
rng = np.random.default_rng(0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def block(center, extents=(0.2, 0.3, 0.1)):
    mesh = trimesh.creation.box(extents)
    mesh.apply_translation(center)
    return mesh


def joint(name, kind, parent, child, axis, lower=-1.0, upper=1.5):
    X = g.exp_se3(rng.normal(size=6))
    return Joint(name, kind, parent, child, X, np.array(axis) / np.linalg.norm(axis), lower, upper)


def tree():
    """A hinge, a slide on it, a fixed piece, and a hinge that mimics the slide."""
    links = {n: block(rng.normal(size=3)) for n in "abcde"}
    joints = (
        joint("hinge", "revolute", "a", "b", [1, 2, 0.5]),
        joint("slide", "prismatic", "b", "c", [0, 1, 1], -0.2, 0.4),
        joint("weld", "fixed", "c", "d", [0, 0, 1]),
        joint("follow", "revolute", "d", "e", [0, 0, 1]),
    )
    return ArticulatedObject("tree", links, joints, {"follow": Mimic("slide", -2.0, 0.3)})


def hinged(name="hinged", upper=2.0):
    """A lid that turns about a line along x through (0, 0.15, 0.1)."""
    X = g.pose(None, [0, 0.15, 0.1])
    lid = block([0, -0.15, 0.01], (0.2, 0.3, 0.02))
    turn = Joint("turn", "revolute", "base", "lid", X, np.array([-1.0, 0, 0]), 0.0, upper)
    return ArticulatedObject(name, {"base": block([0, 0, 0.05]), "lid": lid}, (turn,))


def most_motions(pairs):
    """Largest number of distinct rigid motions in a pair: that of the links, if rotations fit."""
    t = pairs.moved - rotate(pairs.quat_wxyz, pairs.points)
    most = 0
    for left in torch.cat([pairs.quat_wxyz, t], -1):
        count = 0
        while len(left):
            left = left[(left - left[0]).abs().amax(1) > 1e-3]
            count += 1
        most = max(most, count)
    return most


def test_link_poses_agree_with_the_objects_own():
    objects = [hinged(), tree(), hinged()]  # unequal ones: the tables are padded
    store = ArticulatedStore.build(objects, QUICK)
    for index, obj in enumerate(objects):
        q = obj.sample(rng, 5)
        padded = torch.zeros(5, 2)
        padded[:, : q.shape[1]] = torch.from_numpy(q)
        X = store.link_poses(torch.full((5,), index), padded)[:, : len(obj.links)]
        np.testing.assert_allclose(X, obj.link_poses(q), atol=2e-6)


@pytest.mark.parametrize("scan_share", [0.0, 1.0])
def test_pairs_are_rigid_motions_about_the_hinge(scan_share):
    store = ArticulatedStore.build([hinged()], QUICK, scan_share=scan_share)
    pairs = store.sample(40, 64, seeded())
    turned = pairs.quat_wxyz[..., 1].abs() > 1e-6
    assert turned.any()
    assert pairs.quat_wxyz[..., 2:].abs().max() < 1e-6
    assert (pairs.moved - pairs.points)[~turned].abs().max() < 1e-5
    t = pairs.moved - rotate(pairs.quat_wxyz, pairs.points)
    for q, offset, mine in zip(pairs.quat_wxyz, t, turned, strict=True):
        if mine.any():
            assert (offset[mine] - offset[mine][0]).abs().max() < 1e-5
            assert (q[mine] - q[mine][0]).abs().max() < 1e-6


def test_the_hinge_stays_where_it_is():
    store = ArticulatedStore.build([hinged()], QUICK, scan_share=0.0)
    q_a, q_b = torch.tensor([[0.4]]), torch.tensor([[1.7]])
    X_a, X_b = (store.link_poses(torch.tensor([0]), q)[0, 1] for q in (q_a, q_b))
    hinge = torch.tensor([0.07, 0.15, 0.1, 1.0])
    torch.testing.assert_close(X_b @ torch.linalg.inv(X_a) @ hinge, hinge, atol=1e-6, rtol=0)


def test_rotations_and_moved_points_agree_for_a_tree():
    store = ArticulatedStore.build([tree()], QUICK)
    assert 2 <= most_motions(store.sample(50, 64, seeded())) <= 5


def test_pose_a_fills_the_cube():
    closed = hinged(upper=0.0)  # only one pose: a box of 0.2 x 0.3 x 0.12
    pairs = ArticulatedStore.build([closed], QUICK, scan_share=0.0).sample(20, 200, seeded())
    half = np.array([0.2, 0.3, 0.12]) / 0.3
    assert (pairs.points.abs().amax((0, 1)).numpy() <= half + 1e-5).all()
    np.testing.assert_allclose(pairs.points.abs().amax((0, 1)), half, atol=0.03)
    torch.testing.assert_close(pairs.points, pairs.moved)


def test_a_scan_fills_the_cube_too_and_shows_the_pose_it_was_made_in():
    store = ArticulatedStore.build(
        [hinged()], StoreOptions(surface_points=8, snapshots=8), scan_share=1.0
    )
    pairs = store.sample(60, 200, seeded())
    assert pairs.points.abs().max() <= 1 + 1e-4  # the box is that of the snapshot's pose
    # The base's underside is never seen; its points would lie at the least z of a closed box,
    # facing down.
    closed = ArticulatedStore.build([hinged(upper=0.0)], StoreOptions(snapshots=4), scan_share=1.0)
    z = closed.sample(20, 200, seeded()).points[..., 2]
    bottom = (z < z.amin(1, keepdim=True) + 1e-6).sum(1)
    assert bottom.max() <= 2


def test_configurations_keep_to_the_limits_and_meet_them():
    lower, upper = (
        torch.tensor([-0.5, 0.2]).repeat(4000, 1),
        torch.tensor([1.0, 0.9]).repeat(4000, 1),
    )
    q = draw_configurations(lower, upper, seeded())
    assert ((q >= lower - 1e-6) & (q <= upper + 1e-6)).all()
    neutral = ((q[:, 0] == 0) & (q[:, 1] == lower[:, 1])).float().mean()
    assert 0.2 < neutral < 0.35
    assert ((q == upper).all(1)).float().mean() > 0.02
    assert ((q > lower) & (q < upper) & (q != 0)).all(1).float().mean() > 0.4


def test_augmentation_is_one_similarity_for_both_poses():
    store = ArticulatedStore.build([tree()], QUICK)
    before = store.sample(30, 64, seeded())
    after = augment(before, seeded(1))
    spread = [p.points.std(1).norm(dim=-1) for p in (before, after)]
    scale = spread[1] / spread[0]
    assert scale.min() > 0.5 - 1e-4
    assert scale.max() < 1.5 + 1e-4
    moves = (after.moved - after.points).norm(dim=-1) - scale[:, None] * (
        before.moved - before.points
    ).norm(dim=-1)
    assert moves.abs().max() < 1e-4
    torch.testing.assert_close(after.quat_wxyz[..., 0], before.quat_wxyz[..., 0])
    torch.testing.assert_close(
        after.points[..., 2], scale[:, None] * before.points[..., 2], atol=1e-4, rtol=1e-4
    )
    assert 2 <= most_motions(after) <= 5
    far = after.points.mean(1).norm(dim=-1) - scale * before.points.mean(1).norm(dim=-1)
    assert 0.01 < far.abs().max() <= 0.1 * 2**0.5 + 1e-4


def test_no_augmentation_changes_nothing_and_noise_moves_with_the_material():
    before = ArticulatedStore.build([tree()], QUICK).sample(30, 64, seeded())
    still = AugmentOptions(scale=(1, 1), yaw=(0, 0), translation=0.0)
    torch.testing.assert_close(augment(before, seeded(), still).moved, before.moved)
    noisy = augment(
        before, seeded(), AugmentOptions(scale=(1, 1), yaw=(0, 0), translation=0.0, jitter=0.05)
    )
    off = noisy.points - before.points
    assert 0.001 < off.std() < 0.05
    torch.testing.assert_close(
        noisy.moved - before.moved, rotate(before.quat_wxyz, off), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("flip", [False, True])
def test_cameras_see_no_inside_and_no_underside(flip):
    outer, inner = trimesh.creation.box([1, 1, 1]), trimesh.creation.box([0.5, 0.5, 0.5])
    both = trimesh.util.concatenate(outer, inner)
    if flip:
        both.invert()
    points, face = trimesh.sample.sample_surface(both, 3000, seed=1)
    visible = seen(both.triangles, points, both.face_normals[face], random_views(rng, 6))
    inside, under = np.abs(points).max(1) < 0.4, points[:, 2] < -0.5 + 1e-9
    # Rays start a thousandth away from the surface: at the very edge of the underside that is
    # outside.
    assert not visible[inside | (under & (np.abs(points[:, :2]).max(1) < 0.495))].any()
    assert visible[points[:, 2] > 0.49].all()
    assert visible[~inside & ~under].mean() > 0.95


def test_an_open_box_shows_its_inside():
    bin_ = trimesh.creation.box([1, 1, 1])
    bin_.update_faces(bin_.face_normals[:, 2] < 0.5)
    points, face = trimesh.sample.sample_surface(bin_, 2000, seed=1)
    floor = np.abs(points[:, 2] + 0.5) < 1e-9
    visible = seen(
        bin_.triangles,
        points,
        bin_.face_normals[face],
        np.array([[0, 0.1, 1.0]]) / np.hypot(0.1, 1),
    )
    assert visible[floor].mean() > 0.8


def test_a_seed_decides_everything_and_a_file_brings_it_back(tmp_path):
    objects = [hinged(), tree()]
    one, two = (ArticulatedStore.build(objects, QUICK, seed=3) for _ in range(2))
    read = ArticulatedStore.load(one.save(tmp_path / "store.safetensors"))
    assert read.names == ("hinged", "tree")
    first = one.sample(16, 32, seeded(5))
    for other in (two, read):
        again = other.sample(16, 32, seeded(5))
        assert torch.equal(first.points, again.points)
        assert torch.equal(first.moved, again.moved)
    assert not torch.equal(first.points, one.sample(16, 32, seeded(6)).points)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"bad.safetensors: not a store"):
        ArticulatedStore.load(tmp_path / "bad.safetensors")


def test_objects_that_cannot_move_are_refused():
    with pytest.raises(ValueError, match="stone has no free joint"):
        ArticulatedStore.build([ArticulatedObject("stone", {"a": block([0, 0, 0])}, ())], QUICK)
    with pytest.raises(ValueError, match="got none"):
        ArticulatedStore.build([], QUICK)


def test_quaternions_of_matrices_at_half_turns_too():
    w = rng.normal(size=(200, 3))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    w[:100] *= np.pi
    w[100:] *= rng.uniform(0, np.pi, (100, 1))
    R = g.exp_so3(w)
    q = quat_from_matrix(torch.from_numpy(R)).numpy()
    np.testing.assert_allclose(g.matrix_from_quat_wxyz(q), R, atol=1e-12)
    assert (q[:, 0] >= 0).all()


def spinning():
    """A ball that turns about z and drifts, F = 5."""
    mesh = trimesh.creation.icosphere(2, 0.3)
    X = [g.rotation_about([0.1, 0, 0], [0, 0, 1], a) for a in np.linspace(0, 2, 5)]
    return Clip("spin", np.stack([g.transform(x, mesh.vertices) for x in X]), mesh.faces)


def test_clips_give_two_frames_of_one_clip():
    store = ClipStore.build([spinning()], ClipOptions(points=200, frames=5))
    pairs = store.sample(40, 50, seeded())
    assert pairs.points.abs().max() <= 1 + 1e-5
    angle = 2 * torch.atan2(pairs.quat_wxyz[..., 3].abs(), pairs.quat_wxyz[..., 0])
    steps = angle / 0.5
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.round().min() == 1  # never the same frame twice
    t = pairs.moved - rotate(pairs.quat_wxyz, pairs.points)
    assert (t - t[:, :1]).abs().max() < 1e-4
    with pytest.raises(ValueError, match="got none"):
        ClipStore.build([])


def test_a_mixture_draws_from_each_store_by_weight():
    class Constant:
        def __init__(self, value):
            self.value = value

        def sample(self, batch, points, generator):
            return PosePairs(*(torch.full((batch, points, n), self.value) for n in (3, 3, 4)))

    mixture = Mixture((Constant(1.0), Constant(2.0), Constant(3.0)), (1, 0, 3))
    values = mixture.sample(2000, 1, seeded()).points[:, 0, 0]
    assert len(values) == 2000
    assert not (values == 2).any()
    assert 0.7 < (values == 3).float().mean() < 0.8
    with pytest.raises(ValueError, match=r"weights: got \[1\] for 2 stores"):
        Mixture((Constant(1.0), Constant(2.0)), (1,))


def test_objects_are_built_once_and_held_out_ones_are_others(tmp_path):
    family = ("lever",)
    first = stored_objects(family, range(2), folder=tmp_path, options=QUICK)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    again = stored_objects(family, range(2), folder=tmp_path, options=QUICK)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == written
    assert torch.equal(first.sample(8, 16, seeded()).points, again.sample(8, 16, seeded()).points)
    other = stored_objects(
        family, range(HELD_OUT_SEED, HELD_OUT_SEED + 2), folder=tmp_path, options=QUICK
    )
    assert not torch.equal(
        first.sample(8, 16, seeded()).points, other.sample(8, 16, seeded()).points
    )
    assert not set(trained_families()) & set(HELD_OUT)
    assert set(trained_families()) <= set(FAMILIES)
