"""Parts of grasp proposal and ranking, each against its own definition."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from flowplan.attachment import AttachmentOptions
from flowplan.collision.phase_geometry import phase_geometry
from flowplan.geometry import exp_so3, pose, rotation_about, transform
from flowplan.grasp import ContactCandidates, propose, propose_pushes, rank_with_flow
from flowplan.grasp.antipodal import Pairs, likely_pairs
from flowplan.grasp.contact import GraspPoses, PadContacts, close_pads, depth_in_hand, pad_center_z
from flowplan.grasp.gripper_clearance import gripper_boxes, lowest_point
from flowplan.grasp.push import PushOptions, _free
from flowplan.grasp.rank import RankOptions
from flowplan.grasp.reachability import Followed, _arm_spheres, _nearly_reached, _track
from flowplan.motion import SceneMotion, sample_flow
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject

PANDA = load_robot("panda")
GRIPPER = PANDA.gripper


def pads(tilt=(0.0, 0.0), cover=(1.0, 1.0), touch=True, spread=(0.004, 0.006)):
    """One closing whose patches are tilted about x by angles and cover shares of the pads."""
    normal = [[0.0, side * np.cos(t), np.sin(t)] for side, t in zip((-1, 1), tilt, strict=True)]
    area = np.prod(GRIPPER.pad_size) * np.array(cover)
    center = np.array([[0.0, -0.02, 0.001], [0.002, 0.02, 0.0]])
    return PadContacts(
        np.array([touch]),
        center[None],
        np.array([normal]),
        area[None],
        np.tile(spread, (1, 2, 1)).astype(float),
        np.array([0.04]),
        np.zeros(1),
    )


def test_alignment_falls_with_tilt_and_with_the_area_that_is_left():
    def quality(**changes):
        return float(pads(**changes).alignment(GRIPPER, 0.5)[0])

    assert quality() == pytest.approx(1.0)
    np.testing.assert_allclose(pads(tilt=(0.1, 0.3)).tilt, [[0.1, 0.3]], atol=1e-9)
    # The worse pad counts: half of the friction cone's tangent, a quarter of the area.
    assert quality(tilt=(0.0, np.arctan(0.25))) == pytest.approx(0.5)
    assert quality(tilt=(np.arctan(0.4), np.arctan(0.25))) == pytest.approx(0.2)
    assert quality(cover=(1.0, 0.25)) == pytest.approx(0.5)
    assert quality(tilt=(0.6, 0.0)) == quality(touch=False) == 0.0


def test_a_patch_stands_for_four_points_at_its_corners():
    points, normals = pads(spread=(0.004, 0.006)).as_points()
    for side, (center, sign) in enumerate(zip(pads().center[0], (-1, 1), strict=True)):
        own = points[0, 4 * side : 4 * side + 4] - center
        assert sorted(map(tuple, own.round(9))) == [
            (x, 0.0, z) for x in (-0.004, 0.004) for z in (-0.006, 0.006)
        ]
        np.testing.assert_array_equal(normals[0, 4 * side : 4 * side + 4], [[0, sign, 0]] * 4)


def test_both_pads_have_to_meet_the_surface_and_stop_at_its_foremost_point():
    rng = np.random.default_rng(0)
    flat = rng.uniform(-0.004, 0.004, (2, 30, 3))
    flat[..., 2] += float(pad_center_z(GRIPPER, np.array(0.05)))
    flat[0, :, 1], flat[1, :, 1] = -0.03, 0.02
    flat[0, 3, 1], flat[1, 5, 1] = -0.0305, 0.0212
    normals = np.zeros((2, 30, 3))
    normals[..., 1] = [[-1.0], [1.0]]
    # The second grasp finds a surface on one side only, the third one that turns its back.
    one_sided, back = flat.copy(), normals.copy()
    one_sided[1, :, 0] += 0.1
    back[1] *= -1
    found = close_pads(
        np.stack([flat, one_sided, flat]), np.stack([normals, normals, back]), 1e-6, GRIPPER, 0.001
    )
    assert found.touch.tolist() == [True, False, False]
    assert found.width[0] == pytest.approx(0.0305 + 0.0212)
    assert found.offset[0] == pytest.approx(0.5 * (0.0212 - 0.0305))
    # On the first side all points are within a millimeter of the foremost, on the other one is.
    np.testing.assert_allclose(found.area[0], [30e-6, 1e-6])
    np.testing.assert_allclose(found.spread[0, 1], np.sqrt(1e-6 / 12))
    np.testing.assert_allclose(found.center[0, 1], flat[1, 5])


def test_depth_in_the_hand_is_that_of_what_is_between_the_fingers():
    widths = np.array([0.04, 0.04, 0.02])
    center = pad_center_z(GRIPPER, widths)
    X = np.stack([pose(exp_so3([0.3, 1.0, 0.2]), [0.4, 0.1, k]) for k in (0.0, 0.5, 1.0)])
    # A point 3 cm towards the palm; beside it, points that are not between the pads.
    half = 0.5 * GRIPPER.pad_size[0]
    local = np.array(
        [[0.0, 0.015, center[0] - 0.03], [half + 0.001, 0, -0.2], [0, 0.03, -0.2], [0, 0, 0.5]]
    )
    points = transform(X[0], local)
    depth = depth_in_hand(X, widths, points, GRIPPER)
    np.testing.assert_allclose(depth, [0.03, 0.0, 0.0], atol=1e-9)
    # With narrower fingers the same point is beside them.
    assert depth_in_hand(X[:1], np.array([0.02]), points, GRIPPER)[0] == 0.0


def made_pairs(middle, angle):
    """Pairs 4 cm wide along y about middles (P, 3), with normals turned by an angle."""
    half = np.array([0.0, 0.02, 0.0])
    n = np.array([0.0, np.cos(angle), np.sin(angle)])
    P = len(middle)
    return Pairs(middle - half, middle + half, np.tile(-n, (P, 1)), np.tile(n, (P, 1)))


def test_likely_pairs_are_aligned_and_near_the_center_of_mass():
    rng = np.random.default_rng(0)
    middle = rng.uniform(-0.15, 0.15, (2000, 3))
    pairs = made_pairs(middle, 0.0)
    assert likely_pairs(pairs, None, rng, count=2000, friction=0.5) is pairs
    assert len(likely_pairs(pairs, None, rng, count=2001, friction=0.5)) == 2000

    def distance(chosen):
        return np.linalg.norm(0.5 * (chosen.first + chosen.second), axis=1).mean()

    anywhere = likely_pairs(pairs, None, rng, count=200, friction=0.5)
    near = likely_pairs(pairs, np.zeros(3), rng, count=200, friction=0.5)
    assert len(near) == len(anywhere) == 200
    assert distance(near) < 0.75 * distance(anywhere)
    # A Gumbel draw takes a pair of weight e times another e times as often, about.
    tilted = made_pairs(middle, 0.25)
    both = Pairs(*(np.concatenate([getattr(pairs, f), getattr(tilted, f)]) for f in vars(pairs)))
    chosen = likely_pairs(both, None, rng, count=400, friction=0.5)
    aligned = (chosen.second_normal[:, 2] == 0).sum()
    assert 0.63 < aligned / 400 < 0.83  # e / (1 + e) = 0.73
    # Nearness in units of the torque length: 4 cm nearer is e times as often.
    ring = np.where(np.arange(4000)[:, None] < 2000, [0.02, 0, 0], [0.06, 0, 0])
    chosen = likely_pairs(made_pairs(ring, 0.0), np.zeros(3), rng, count=400, friction=0.5)
    assert 0.63 < (chosen.first[:, 0] < 0.04).mean() < 0.83


def test_followed_paths_pass_improve_and_tell_their_margin():
    def followed(ok, clearance, q):
        G, T = len(ok), len(ok[0])
        joints = np.broadcast_to(np.asarray(q, float)[..., None], (G, T, 7))
        clear = np.where(ok, np.array(clearance)[:, None], np.inf)
        return Followed(np.zeros((G, T, 4, 4)), joints, np.array(ok), clear)

    whole, part, none = [True] * 3, [True, True, False], [False] * 3
    mine = followed([whole, whole, part, none], [0.01, -0.02, 0.05, 0.0], np.zeros((4, 3)))
    options = RankOptions()
    assert options.penetration < 0.02
    assert mine.passes(options).tolist() == [True, False, False, False]
    # Farther is better, however close; as far is better with more room; else nothing changes.
    other = followed([part, whole, whole, part], [0.3, 0.02, 0.001, 0.01], np.ones((4, 3)))
    better = mine.improved(np.arange(4), other)
    np.testing.assert_array_equal(better.q[:, 0, 0], [0, 1, 1, 1])
    np.testing.assert_array_equal(better.ok, [whole, whole, whole, part])
    some = mine.improved(np.array([2]), followed([whole], [0.001], np.ones((1, 3))))
    np.testing.assert_array_equal(some.q[:, 0, 0], [0, 0, 1, 0])

    # The nearest limit of any joint, below or above, over the times that were followed.
    robot = SimpleNamespace(lower=np.full(7, -1.0), upper=np.full(7, 2.0))
    turns = followed(
        [whole, whole, part, none], [0.0] * 4, [[0, -0.7, 0], [0, 1.9, 1], [0, 1, 5], [0] * 3]
    )
    np.testing.assert_allclose(turns.limit_margin(robot), [0.3, 0.1, 1.0, 0.0])


def test_arm_spheres_are_those_that_joints_move_and_no_gripper():
    chosen = _arm_spheres(PANDA)
    X = PANDA.fk(np.stack([PANDA.home, PANDA.home + 0.3]))
    gripper = {*GRIPPER.finger_links, *GRIPPER.hand_links}
    expected = [
        k
        for k, i in enumerate(PANDA.sphere_link)
        if np.abs(X[1, i] - X[0, i]).max() > 0 and PANDA.link_names[i] not in gripper
    ]
    # A sphere on a joint's own axis does not move with it; the first joint has such ones.
    centers = PANDA.spheres(np.stack([PANDA.home, PANDA.home + 0.3]))
    still = {k for k in expected if np.linalg.norm(centers[1, k] - centers[0, k]) < 1e-9}
    assert set(chosen) == set(expected) - still
    assert len(chosen) > 10


def test_a_small_miss_counts_as_reached_and_a_jump_does_not():
    q = np.stack([PANDA.home, PANDA.home + 0.2])
    X = PANDA.tool_pose(q)
    shifted = X @ pose(None, [0.0, 0.0, 0.006])
    assert _nearly_reached(PANDA, q, shifted).all()
    assert not _nearly_reached(PANDA, q, X @ pose(None, [0.0, 0.0, 0.02])).any()
    assert not _nearly_reached(PANDA, q, X @ pose(exp_so3([0.0, 0.3, 0.0]))).any()

    class Arm:
        """Inverse kinematics that ends 6 mm off at the second time and jumps at the last."""

        def tool_pose(self, q):
            return pose(translation=np.stack([q[:, 0], 0 * q[:, 0], 0 * q[:, 0]], axis=-1))

        def inverse_kinematics(self, X, *, seed, attempts, q_near):
            x = X[:, 0, 3]
            exact = x != 0.1
            q = np.where(exact, x, x + 0.006)[:, None]
            return (q if x.max() < 1.0 else q + 0.5), exact

    way = pose(translation=[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [1.0, 0, 0]])[None]
    q, ok = _track(Arm(), way, np.zeros((1, 1)), 0.4, 0)
    np.testing.assert_array_equal(ok, [[True, True, True, False]])
    np.testing.assert_allclose(q[0, :3, 0], [0.0, 0.106, 0.2])


def test_a_pushing_hand_is_above_the_support_and_clear_of_points():
    boxes = gripper_boxes(GRIPPER, np.zeros(1))
    down = pose(exp_so3([np.pi, 0, 0]), [0.5, 0.0, 0.0])
    options = PushOptions(clearance=0.0)
    height = float(lowest_point(down[None], boxes)[0])

    def free(support, points=((9.0, 9.0, 9.0),), **changes):
        wanted = PushOptions(**({"clearance": 0.0} | changes))
        return bool(_free(down[None], boxes, np.array(points), support, wanted, approach=0.0)[0])

    assert free(height - 0.001)
    assert not free(height + 0.001)
    assert free(None)
    # The tip's own surface is at the offset: the clearance never takes it for an obstacle.
    ahead = [[0.5, 0.005, height - 0.004]]
    assert free(None, ahead)
    assert not free(None, ahead, clearance=0.01, offset=0.02)
    assert free(None, ahead, clearance=0.01, offset=options.offset)
    assert not free(None, [[0.5, 0.005, height + 0.01]])


def test_a_push_is_scored_by_the_flat_area_around_it():
    # A slab that slides along x: its end face is flat, but for the margin near its edges.
    slab = SceneObject("slab", trimesh.creation.box([0.1, 0.2, 0.1]), pose(None, [0.5, 0, 0.05]))
    scene = Scene((slab,), 0.0)
    way = np.linspace(0, 0.2, 5)[:, None, None] * [1.0, 0.0, 0.0]
    motion = SceneMotion(np.linspace(0, 2, 5), (slab.vertices_world + way,))
    found = propose_pushes(scene, motion, 0, GRIPPER, PushOptions(), seed=0)
    assert len(found)
    tips = found.X_world_tool[:, :3, 3]
    # All push the face at x = 0.45 from behind; the first is away from its edges.
    assert (tips[:, 0] < 0.45 + 1e-3).all()
    edge = np.minimum(0.1 - np.abs(tips[:, 1]), np.minimum(tips[:, 2], 0.1 - tips[:, 2]))
    assert edge[0] > 0.012
    # Straight along the way on a flat patch, all its factors are nearly one.
    # Nothing guides the slab, which counts a fifth.
    assert found.score[0] == pytest.approx(0.2, abs=0.04)
    assert edge[:10].mean() > edge[-10:].mean()


def test_the_rank_follows_from_quality_slip_room_and_limits():
    brick = SceneObject(
        "brick", trimesh.creation.box([0.05, 0.09, 0.06]), pose(None, [0.5, 0, 0.2])
    )
    scene = Scene((brick,), 0.0)
    turn = rotation_about([0.5, 0, 0.2], [0, 0, 1], np.linspace(0, 0.5, 5))
    motion = SceneMotion(np.linspace(0, 2, 5), (transform(turn, brick.vertices_world),))
    flow = sample_flow(scene, motion, points_per_object=300, seed=0)
    X = np.stack([pose(exp_so3([np.pi, 0, 0]), [0.5, 0, z]) for z in (0.2, 0.21)])
    X = np.concatenate([X, X @ pose(exp_so3([0, 0.4, 0]))])
    candidates = ContactCandidates(
        X, np.full(4, 0.07), np.array([0.9, 0.8, 0.7, 0.6]), ("grasp",) * 4, np.zeros(4, int)
    )
    options = RankOptions(comfortable=0.5, limit_margin=2.0)
    around = phase_geometry(scene, motion, 0)
    ranked, reports = rank_with_flow(candidates, flow, around, PANDA, options, seed=0)
    assert [r.reasons for r in reports] == [()] * 4
    for report, quality in zip(reports, candidates.score, strict=True):
        room, limits = report.clearance / 0.5, report.limit_margin / 2.0
        assert 0 < room < 1
        assert 0 < limits < 1
        expected = quality * np.exp(-report.slip / 0.01) * (0.5 + 0.5 * room) * (0.5 + 0.5 * limits)
        assert report.score == pytest.approx(expected)
        # No joint of the Panda is farther from a limit than half of its widest range.
        assert report.limit_margin < 0.5 * (PANDA.upper - PANDA.lower).min()
    np.testing.assert_allclose(ranked.score, sorted((r.score for r in reports), reverse=True))


def test_a_patch_may_slip_by_its_factor_of_the_attachments_limit():
    brick = SceneObject(
        "brick", trimesh.creation.box([0.05, 0.09, 0.06]), pose(None, [0.5, 0, 0.2])
    )
    scene = Scene((replace(brick, deformable=False),), 0.0)
    center = brick.vertices_world.mean(0)
    grow = 1 + np.linspace(0, 0.3, 5)[:, None, None] * [0.0, 0.0, 1.0]
    motion = SceneMotion(np.linspace(0, 2, 5), (center + (brick.vertices_world - center) * grow,))
    flow = sample_flow(scene, motion, points_per_object=300, seed=0)
    around = phase_geometry(scene, motion, 0)
    X = pose(exp_so3([np.pi, 0, 0]), [0.5, 0, 0.2])[None]
    candidates = ContactCandidates(X, np.full(1, 0.07), np.ones(1), ("grasp",), np.zeros(1, int))
    options = RankOptions(slip_factor=2.0)
    slip = None
    for share, refused in ((None, None), (1.1, False), (0.9, True)):
        limit = AttachmentOptions(max_slip=1.0 if share is None else share * slip / 2.0)
        _, (report,) = rank_with_flow(candidates, flow, around, PANDA, options, attachment=limit)
        slip = report.slip
        assert slip > 1e-3
        if share is not None:
            assert any("deforms" in reason for reason in report.reasons) is refused


def test_a_score_is_the_logistic_function_of_its_weighted_terms(monkeypatch):
    # Margin and robustness are left out; they have tests of their own.
    for name in ("force_margin", "robustness"):
        monkeypatch.setattr(propose, name, lambda *a, **_: np.zeros(len(a[0])))
    closed = [pads(), pads(tilt=(0.3, 0.1)), pads(), pads(), pads()]
    together = PadContacts(
        *(np.concatenate([getattr(c, f) for c in closed]) for f in vars(closed[0]))
    )
    # The tool frame is the world's, but for its place: the center of mass is at the origin.
    X = pose(translation=[[0, 0, 0], [0, 0, 0], [-0.02, 0, 0], [0, 0.03, 0], [0, 0, 0.01]])
    none = np.zeros((0, 2, 0, 3))
    poses = GraspPoses(X, np.arange(5), none, none, 1e-6, together)
    cloud = SimpleNamespace(points=np.array([[9.0, 0.0, 0.0]]))
    options = propose.GraspOptions(refined=5)
    X_best, _, score = propose._rate(
        poses, np.zeros(3), cloud, GRIPPER, options, np.random.default_rng(0)
    )
    order = [int(np.flatnonzero((x == X).all((1, 2)))[0]) for x in X_best]
    logit = dict(zip(order, np.log(score / (1 - score)), strict=True))
    if len(set(order)) < 5:  # the first two stand at one place: the better one comes first
        order[[i for i, k in enumerate(order) if k == 0][-1]] = 1
        logit = dict(zip(order, np.log(score / (1 - score)), strict=True))
    base = logit[0]
    w = propose
    assert logit[1] - base == pytest.approx(0.3 * w._PER_TILT)
    side = w._PER_DISTANCE + w._PER_TWIST + w._PER_SIDE
    assert logit[2] - base == pytest.approx(0.02 * side)
    assert logit[3] - base == pytest.approx(0.03 * w._PER_DISTANCE)
    assert logit[4] - base == pytest.approx(0.01 * (w._PER_DISTANCE + w._PER_TWIST))
    # Tilted pads, and a far center of mass, make a grasp worse.
    assert max(logit[k] for k in (1, 2, 3, 4)) < base
