import numpy as np
import pytest
from scipy.optimize import approx_fprime

from flowplan.attachment import Attachment, AttachmentOptions, attach, attach_loosely, fit_screw
from flowplan.attachment.moments import (
    RigidFit,
    alignment_residual,
    point_moments,
    rigid_fit,
    symmetric_root,
)
from flowplan.attachment.screw import _Axis, _initial_axes, _Problem
from flowplan.geometry import (
    angle_between,
    exp_se3,
    exp_so3,
    fit_rigid,
    interpolate,
    inverse,
    pose,
    rotation_about,
    transform,
)
from flowplan.motion import ObjectFlow

T = 21
TIMES = np.linspace(0.0, 2.0, T)
GRASP = pose(exp_so3([3.0, 0.2, 0.1]), [0.5, 0.1, 0.1])


def cloud(rng, count=400, size=0.06):
    return rng.uniform(-size, size, (count, 3)) + GRASP[:3, 3]


def flow_of(tracks, confidence=None, object_id=None):
    N = tracks.shape[1]
    return ObjectFlow(
        TIMES,
        tracks,
        np.ones(tracks.shape[:2]) if confidence is None else confidence,
        np.zeros(N, int) if object_id is None else object_id,
    )


def hinge(angle=1.5, point=(0.4, 0.1, 0.05), axis=(0.0, 1.0, 0.0)):
    return rotation_about(point, axis, np.linspace(0, angle, T))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def off(attachment: Attachment, X):
    """Largest deviation of the attachment's poses from X, meters and radians."""
    shift = np.linalg.norm(attachment.X_world_tool[:, :3, 3] - X[:, :3, 3], axis=1).max()
    return shift, angle_between(attachment.X_world_tool[:, :3, :3], X[:, :3, :3]).max()


def test_hinge_flow_gives_its_closed_form_tool_path(rng):
    D = hinge()
    found = attach(flow_of(transform(D, cloud(rng))), GRASP)
    shift, turn = off(found, D @ GRASP)
    assert shift < 1e-9
    assert turn < 1e-8
    assert found.slip.max() < 1e-8
    np.testing.assert_array_equal(found.X_world_tool[0], GRASP)
    np.testing.assert_allclose(found.kept, 1.0, atol=1e-6)


def test_half_turn_and_beyond(rng):
    D = hinge(angle=2 * np.pi * 0.9)
    shift, turn = off(attach(flow_of(transform(D, cloud(rng))), GRASP), D @ GRASP)
    assert shift < 1e-9
    assert turn < 1e-7


def test_moving_the_world_moves_the_answer(rng):
    tracks = transform(hinge(), cloud(rng))
    tracks[1:] += 1e-3 * rng.normal(size=(T - 1, 400, 3))
    M = exp_se3([0.3, -0.2, 0.5, 0.4, 1.0, -0.7])
    here = attach(flow_of(tracks), GRASP)
    there = attach(flow_of(transform(M, tracks)), M @ GRASP)
    np.testing.assert_allclose(there.X_world_tool, M @ here.X_world_tool, atol=1e-7)
    np.testing.assert_allclose(there.slip, here.slip, atol=1e-7)


def test_without_robustness_and_fall_off_it_is_kabsch_per_frame(rng):
    points = cloud(rng, 50)
    tracks = transform(hinge(), points) + 2e-3 * rng.normal(size=(T, 50, 3))
    tracks[0] = points
    weights = rng.random(50)
    confidence = rng.random((T, 50))
    found = attach(
        flow_of(tracks, confidence), GRASP, AttachmentOptions(robust_rounds=0), held=weights
    )
    source = transform(inverse(GRASP), points)
    for t in range(1, T):
        X = fit_rigid(source, tracks[t], weights * confidence[t])
        np.testing.assert_allclose(found.X_world_tool[t], X, atol=1e-9)
        left = np.linalg.norm(transform(X, source) - tracks[t], axis=1)
        w = weights * confidence[t]
        assert found.slip[t] == pytest.approx(np.sqrt((w * left**2).sum() / w.sum()), rel=1e-6)


@pytest.mark.parametrize("bad", [0.1, 0.3, 0.4])
@pytest.mark.parametrize("how", ["wild", "left behind"])
def test_bad_tracks_do_not_drag_the_hand(rng, bad, how):
    points, D = cloud(rng, 1000), hinge()
    tracks = transform(D, points)
    tracks[1:] += 1e-3 * rng.normal(size=(T - 1, 1000, 3))
    astray = rng.permutation(1000)[: int(bad * 1000)]
    if how == "wild":
        tracks[1:, astray] += 0.1 * rng.normal(size=(T - 1, len(astray), 3))
    else:
        tracks[:, astray] = points[astray]
    plain = attach(flow_of(tracks), GRASP, AttachmentOptions(robust_rounds=0))
    robust = attach(flow_of(tracks), GRASP)
    shift, turn = off(robust, D @ GRASP)
    assert shift < 2e-3
    assert turn < 0.04
    assert off(plain, D @ GRASP)[0] > 3 * shift
    assert robust.kept.min() < 1 - 0.7 * bad


def test_slip_measures_what_is_not_rigid(rng):
    points = cloud(rng)
    stretch = 1 + np.linspace(0, 0.2, T)[:, None, None] * np.array([1.0, 0.0, 0.0])
    found = attach(flow_of(GRASP[:3, 3] + (points - GRASP[:3, 3]) * stretch), GRASP)
    assert found.slip[0] < 1e-7
    assert np.all(np.diff(found.slip) > 0)
    assert 1e-3 < found.slip[-1] < 0.2 * 0.06


def test_only_the_touched_object_is_held(rng):
    near, far = cloud(rng, 200), cloud(rng, 200) + np.array([0.03, 0.0, 0.0])
    ids = np.repeat([0, 1], 200)
    tracks = np.concatenate([transform(hinge(), near), np.broadcast_to(far, (T, 200, 3))], axis=1)
    found = attach(flow_of(tracks, object_id=ids), GRASP, object_id=0)
    assert not found.held[200:].any()
    assert off(found, hinge() @ GRASP)[0] < 1e-9
    assert not attach(flow_of(tracks, object_id=ids), GRASP, object_id=1).held[:200].any()


def test_the_patch_reaches_out_to_a_far_object(rng):
    points = cloud(rng) + np.array([0.3, 0.0, 0.0])
    found = attach(flow_of(transform(hinge(), points)), GRASP)
    assert (found.held > 0).sum() >= AttachmentOptions().min_points


def test_a_single_point_leaves_rotation_free_and_unturned(rng):
    D = hinge()
    tracks = transform(D, GRASP[None, :3, 3] + [[0.0, 0.0, 0.02]])
    found = attach(flow_of(tracks), GRASP)
    np.testing.assert_array_equal(found.K, 0.0)
    np.testing.assert_allclose(
        found.X_world_tool[:, :3, :3], np.broadcast_to(GRASP[:3, :3], (T, 3, 3)), atol=1e-9
    )
    at = (inverse(GRASP) @ np.append(tracks[0, 0], 1.0))[:3]
    np.testing.assert_allclose(
        transform(found.X_world_tool, at[None])[:, 0], tracks[:, 0], atol=1e-12
    )


def test_points_on_a_line_leave_the_spin_about_it_free_and_unspun(rng):
    line = GRASP[:3, 3] + np.linspace(-0.05, 0.05, 40)[:, None] * [0.0, 1.0, 0.0]
    D = rotation_about(GRASP[:3, 3], [1.0, 0.0, 0.0], np.linspace(0, 1.0, T))
    spin = rotation_about(
        GRASP[:3, 3], [0.0, 1.0, 0.0], np.linspace(0, 2.0, T)
    )  # not to be seen in the points
    found = attach(flow_of(transform(D @ spin, line)), GRASP)
    assert off(found, D @ GRASP)[1] < 1e-5
    values = np.linalg.eigvalsh(found.K)
    np.testing.assert_array_equal(values[:, 0] < 1e-12, True)
    assert values[:, 1].min() > 1e-4


def test_loose_attachment_follows_with_its_origin_alone(rng):
    D = hinge()
    found = attach_loosely(flow_of(transform(D, cloud(rng))), GRASP)
    np.testing.assert_allclose(found.X_world_tool[:, :3, 3], (D @ GRASP)[:, :3, 3], atol=1e-9)
    assert off(found, np.broadcast_to(GRASP, (T, 4, 4)))[1] < 1e-9


def test_frames_that_nobody_saw_are_bridged(rng):
    D = hinge()
    confidence = np.ones((T, 400))
    confidence[[5, 6, 7, T - 1]] = 0.0
    tracks = transform(D, cloud(rng))
    tracks[5:8] += 3.0
    found = attach(flow_of(tracks, confidence), GRASP)
    np.testing.assert_array_equal(found.moments.weight[[5, 6, 7, T - 1]], 0.0)
    np.testing.assert_array_equal(found.X_world_tool[T - 1], found.X_world_tool[T - 2])
    shift, turn = off(found, D @ GRASP)
    assert shift < 0.08  # of the held last frame
    between = slice(5, 8)
    assert np.abs(found.X_world_tool[between] - (D @ GRASP)[between]).max() < 5e-3
    assert turn < 0.1


def test_thinning_a_large_patch_changes_little(rng):
    tracks = transform(hinge(), cloud(rng, 5000))
    tracks[1:] += 1e-3 * rng.normal(size=(T - 1, 5000, 3))
    all_of_it = attach(flow_of(tracks), GRASP, AttachmentOptions(max_points=10**6))
    thinned = attach(flow_of(tracks), GRASP)
    assert np.abs(all_of_it.X_world_tool - thinned.X_world_tool).max() < 4e-3
    assert np.abs(all_of_it.X_world_tool[:, :3, 3] - thinned.X_world_tool[:, :3, 3]).max() < 4e-4


def test_moments_hold_the_energy_of_any_pose(rng):
    source = rng.normal(size=(3, 30))
    targets = rng.normal(size=(T, 3, 30))
    weights = rng.random((T, 30))
    X = exp_se3(rng.normal(size=(T, 6)))
    left = X[:, :3, :3] @ source + X[:, :3, 3:] - targets
    direct = (weights * (left**2).sum(axis=1)).sum(axis=1)
    for around in (None, exp_se3(rng.normal(size=(T, 6)))):
        m = point_moments(source, targets, weights, around)
        np.testing.assert_allclose(m.energy(X), direct, rtol=1e-12)


def test_six_residuals_are_the_energy_above_its_minimum(rng):
    source, weights = rng.normal(size=(3, 30)), rng.random((T, 30))
    best = exp_se3(rng.normal(size=(T, 6)))
    targets = best[:, :3, :3] @ source + best[:, :3, 3:] + 0.1 * rng.normal(size=(T, 3, 30))
    m = point_moments(source, targets, weights)
    fit = rigid_fit(m, np.eye(3), min_lever=0.0)
    X = exp_se3(0.5 * rng.normal(size=(T, 6))) @ fit.X_world_tool
    r, _ = alignment_residual(
        X, fit.X_world_tool, m.source_mean, np.sqrt(m.weight), symmetric_root(fit.K)
    )
    np.testing.assert_allclose(
        (r**2).sum(axis=1), m.energy(X) - m.energy(fit.X_world_tool), rtol=1e-9
    )
    np.testing.assert_allclose(m.energy(fit.X_world_tool), m.weight * fit.slip**2, rtol=1e-9)


def test_gauss_newton_rows_against_finite_differences(rng):
    source, weights = rng.normal(size=(3, 10)), rng.random((1, 10))
    m = point_moments(source, rng.normal(size=(1, 3, 10)), weights)
    fit = rigid_fit(m, np.eye(3), min_lever=0.0)
    X = exp_se3(0.7 * rng.normal(size=(1, 6))) @ fit.X_world_tool

    def residual(twist, i):
        moved = X.copy()
        moved[0, :3, 3] += twist[:3]
        moved[0, :3, :3] = exp_so3(twist[3:]) @ X[0, :3, :3]
        return alignment_residual(
            moved, fit.X_world_tool, m.source_mean, np.sqrt(m.weight), symmetric_root(fit.K)
        )[0][0, i]

    _, G = alignment_residual(
        X, fit.X_world_tool, m.source_mean, np.sqrt(m.weight), symmetric_root(fit.K)
    )
    for i in range(6):
        np.testing.assert_allclose(
            G[0, i], approx_fprime(np.zeros(6), residual, 1e-7, i), atol=1e-5
        )


@pytest.mark.parametrize(
    ("kind", "twist"),
    [
        ("slide", [0.2, 0.1, 0.0, 0.0, 0.0, 0.0]),
        ("hinge", None),
        ("helix", [0.03, 0.0, 0.0, 1.2, 0.0, 0.0]),
    ],
)
def test_screw_of_a_clean_flow_is_exact(rng, kind, twist):
    D = hinge() if twist is None else exp_se3(np.linspace(0, 1, T)[:, None] * np.array(twist))
    screw = fit_screw(flow_of(transform(D, cloud(rng))))
    assert screw.kind == kind
    assert screw.explains
    assert screw.misfit < 1e-7
    np.testing.assert_allclose(screw.displacement, D, atol=1e-6)
    if kind == "hinge":
        np.testing.assert_allclose(np.abs(screw.direction), [0, 1, 0], atol=1e-7)
        np.testing.assert_allclose(screw.point[[0, 2]], [0.4, 0.05], atol=1e-7)
        np.testing.assert_allclose(screw.amount, np.linspace(0, 1.5, T), atol=1e-7)
    if kind == "helix":
        assert screw.pitch == pytest.approx(0.03 / 1.2, abs=1e-7)


def test_screw_through_more_than_a_turn(rng):
    D = hinge(angle=3 * np.pi)
    screw = fit_screw(flow_of(transform(D, cloud(rng))))
    np.testing.assert_allclose(screw.amount, np.linspace(0, 3 * np.pi, T), atol=1e-6)


def test_screw_uncertainty_is_what_repeated_noise_shows():
    D, points = hinge(0.6), cloud(np.random.default_rng(5), 200)
    clean = transform(D, points)
    options = AttachmentOptions(robust_rounds=0)
    scores, amounts = [], []
    for seed in range(60):
        tracks = clean.copy()
        tracks[1:] += 2e-3 * np.random.default_rng(seed).normal(size=(T - 1, 200, 3))
        screw = fit_screw(flow_of(tracks), options)
        assert screw.kind == "hinge"
        tilt = screw.normals @ (screw.direction - [0, 1, 0])
        across = screw.normals @ (screw.point - [0.4, screw.point[1], 0.05])
        scores.append(np.concatenate([tilt, across]) / np.sqrt(np.diag(screw.covariance)[:4]))
        amounts.append((screw.amount[-1] - 0.6) / screw.amount_std[-1])
    spread = np.sqrt(np.mean(np.square(scores), axis=0))
    assert np.all((spread > 0.7) & (spread < 1.4)), spread
    assert 0.7 < np.sqrt(np.mean(np.square(amounts))) < 1.4


def test_screw_replaces_noisy_poses_and_steadies_them(rng):
    D = hinge()
    tracks = transform(D, cloud(rng))
    tracks[1:] += 3e-3 * rng.normal(size=(T - 1, 400, 3))
    plain = attach(flow_of(tracks), GRASP)
    steady = attach(flow_of(tracks), GRASP, AttachmentOptions(screw=True))
    assert steady.screw is not None
    assert off(steady, D @ GRASP)[1] < off(plain, D @ GRASP)[1]
    np.testing.assert_allclose(steady.X_world_tool[0], GRASP, atol=1e-12)


def test_screw_is_not_forced_on_what_it_does_not_explain(rng):
    s = np.linspace(0, 1, T)
    D = hinge(1.0) @ pose(
        exp_so3(np.outer(np.sin(3 * s), [0.5, 0, 0])), np.outer(s**2, [0.0, 0.0, 0.3])
    )
    found = attach(flow_of(transform(D, cloud(rng))), GRASP, AttachmentOptions(screw=True))
    assert found.screw is None
    assert off(found, D @ GRASP)[0] < 1e-8


def test_bad_input_is_one_line_that_names_the_field(rng):
    points = cloud(rng)
    tracks = transform(hinge(), points)
    none = np.ones((T, 400))
    none[0] = 0
    with pytest.raises(ValueError, match=r"flow\.confidence: no point .*frame 0"):
        attach(flow_of(tracks, none), GRASP)
    only_first = np.zeros((T, 400))
    only_first[0] = 1
    with pytest.raises(ValueError, match=r"flow\.confidence: no held point has confidence after"):
        attach(flow_of(tracks, only_first), GRASP)
    jump = tracks.copy()
    jump[10:] += [0.0, 0.0, 1.0]
    with pytest.raises(
        ValueError, match=r"flow\.points: the held patch teleports at .* between frames 9 and 10"
    ):
        attach(flow_of(jump), GRASP)
    spun = tracks.copy()
    spun[10:] = transform(rotation_about(tracks[10].mean(0), [0, 0, 1], 2.8), tracks[10:])
    with pytest.raises(
        ValueError,
        match=r"flow\.points: the held patch turns by .* degrees between frames 9 and 10",
    ):
        attach(flow_of(spun), GRASP)
    with pytest.raises(ValueError, match=r"X_world_tool: expected rigid transforms"):
        attach(flow_of(tracks), 2 * GRASP)
    with pytest.raises(ValueError, match=r"held: expected shape"):
        attach(flow_of(tracks), GRASP, held=np.ones(3))
    with pytest.raises(ValueError, match=r"held: expected non-negative"):
        attach(flow_of(tracks), GRASP, held=-np.ones(400))
    with pytest.raises(ValueError, match=r"held: none of the held points"):
        attach(flow_of(tracks), GRASP, held=np.zeros(400))
    faint = np.ones((T, 400))
    faint[0] = 1e-12
    with pytest.raises(ValueError, match=r"flow\.confidence: no held point .* frame 0"):
        attach(flow_of(tracks, faint), GRASP)
    with pytest.raises(ValueError, match=r"no point of object 7"):
        attach(flow_of(tracks), GRASP, object_id=7)
    with pytest.raises(ValueError, match=r"AttachmentOptions.radius"):
        AttachmentOptions(radius=-1)
    with pytest.raises(ValueError, match=r"AttachmentOptions.min_points"):
        AttachmentOptions(min_points=0)


def test_frames_that_nobody_saw_lie_between_their_neighbors(rng):
    # An uneven turn, so that only the two neighbors give the pose between them.
    D = rotation_about([0.4, 0.0, 0.05], [0, 1, 0], 1.4 * np.linspace(0, 1, T) ** 2)
    confidence = np.ones((T, 400))
    confidence[[5, 12, 13]] = 0.0
    found = attach(flow_of(transform(D, cloud(rng)), confidence), GRASP)
    X = D @ GRASP
    for t, before, after, share in ((5, 4, 6, 0.5), (12, 11, 14, 1 / 3), (13, 11, 14, 2 / 3)):
        expected = interpolate(X[before], X[after], np.array([share]))[0]
        np.testing.assert_allclose(found.X_world_tool[t], expected, atol=1e-8)


def test_six_residuals_take_any_batch_of_poses(rng):
    source, weights = rng.normal(size=(3, 12)), rng.random((T, 12))
    m = point_moments(source, rng.normal(size=(T, 3, 12)), weights)
    fit = rigid_fit(m, np.eye(3), min_lever=0.0)
    X = exp_se3(0.4 * rng.normal(size=(2, 4, T, 6))) @ fit.X_world_tool
    rest = (fit.X_world_tool, m.source_mean, np.sqrt(m.weight), symmetric_root(fit.K))
    r, G = alignment_residual(X, *rest)
    assert (r.shape, G.shape) == ((2, 4, T, 6), (2, 4, T, 6, 6))
    for i, j in np.ndindex(2, 4):
        alone, G_alone = alignment_residual(X[i, j], *rest)
        np.testing.assert_allclose(r[i, j], alone, atol=1e-12)
        np.testing.assert_allclose(G[i, j], G_alone, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "twist"),
    [
        ("slide", [0.2, 0.1, 0.0, 0.0, 0.0, 0.0]),
        ("hinge", [0.05, 0.0, -0.5, 0.0, 1.3, 0.0]),
        ("helix", [0.12, 0.1, 0.0, 1.2, 0.2, 0.0]),
    ],
)
def test_a_screw_of_noisy_tracks_has_the_least_energy_of_all_axes(rng, kind, twist):
    # Uneven amounts and large noise, so that the starting axis is not yet the best one.
    amount = np.linspace(0, 1, T) ** 2
    D = exp_se3(amount[:, None] * np.array(twist))
    tracks = transform(D, cloud(rng, 60))
    tracks[1:] += 8e-3 * rng.normal(size=(T - 1, 60, 3))
    options = AttachmentOptions(robust_rounds=0, radius=0.5, min_points=60)
    screw = fit_screw(flow_of(tracks), options)
    assert screw.kind == kind

    def energy(D):
        return ((transform(D, tracks[0]) - tracks) ** 2).sum()

    least = energy(screw.displacement)
    # Every tilt and shift of the axis is worse, by the second order of its size.
    for move in 1e-3 * np.concatenate([np.eye(6), -np.eye(6)]):
        A = exp_se3(move)
        assert energy(A @ screw.displacement @ inverse(A)) > least - 1e-9
    # So is another pitch or another amount of any frame.
    unit = np.concatenate([screw.direction, np.zeros(3)])
    if kind != "slide":
        along = np.cross(screw.point, screw.direction) + screw.pitch * screw.direction
        unit = np.concatenate([along, screw.direction])
    for step in (-1e-3, 1e-3):
        t = np.arange(T)
        for frame in (5, 12, T - 1):
            changed = screw.amount + step * (t == frame)
            assert energy(exp_se3(changed[:, None] * unit)) > least
        if kind == "helix":
            other = unit + np.concatenate([step * screw.direction, np.zeros(3)])
            assert energy(exp_se3(screw.amount[:, None] * other)) > least


def test_a_screw_of_jittering_frames_is_uncertain_although_each_is_rigid(rng):
    # The patch is rigid in every frame, so its slip is zero; the frames do not lie on one screw.
    D = hinge(0.6)
    jitter = np.concatenate([np.zeros((1, 6)), 2e-3 * rng.normal(size=(T - 1, 6))])
    screw = fit_screw(flow_of(transform(exp_se3(jitter) @ D, cloud(rng))))
    assert screw.kind == "hinge"
    assert (np.diag(screw.covariance)[:4] > 0).all()
    assert (screw.amount_std[1:] > 0).all()
    assert screw.misfit > 1e-4


def screw_problem(D, points):
    """Fit of a screw to points that move by D, in coordinates about their mean."""
    tracks = transform(D, points)
    X = pose(translation=points.mean(0))
    part = attach(flow_of(tracks), X, held=np.ones(len(points)))
    fit = RigidFit(part.X_world_tool, part.K, part.slip)
    return _Problem(part.moments, fit, points.mean(0)), points.mean(0)


@pytest.mark.parametrize(
    "twist", [[0.0, 0.2, -0.4, 0.3, 0.9, 0.0], [0.1, 0.03, 0.0, 1.2, 0.2, 0.0]]
)
def test_a_screw_starts_at_its_exact_axis_where_the_tracks_are_exact(rng, twist):
    amount = 1.2 * np.linspace(0, 1, T) ** 2
    D = exp_se3(amount[:, None] * np.array(twist))
    problem, origin = screw_problem(D, cloud(rng, 50))
    slide, hinge_axis, helix = _initial_axes(problem)
    local = pose(translation=-origin) @ D @ pose(translation=origin)
    found = exp_se3(helix.amount[:, None] * helix.twist())
    np.testing.assert_allclose(found, local, atol=1e-7)
    assert helix.amount[0] == 0.0
    assert helix.p @ helix.a == pytest.approx(0.0, abs=1e-9)
    assert (hinge_axis.h, hinge_axis.kind) == (0.0, "hinge")
    np.testing.assert_array_equal(hinge_axis.p, helix.p)
    # The slide goes along the chord of the center, as far as its share of it.
    way = local[:, :3, 3]
    assert slide.amount[0] == 0.0
    assert np.linalg.norm(way[-1] - slide.amount[-1] * slide.a) < 0.5 * np.linalg.norm(way[-1])


@pytest.mark.parametrize("kind", ["slide", "hinge", "helix"])
def test_a_screws_jacobian_agrees_with_finite_differences(rng, kind):
    D = exp_se3(np.linspace(0, 1, T)[:, None] * np.array([0.1, -0.05, 0.1, 0.4, 0.8, -0.2]))
    problem, _ = screw_problem(D, cloud(rng, 50))
    a = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    p = np.cross(a, [0.1, 0.2, 0.05])
    pitch = 0.07 if kind == "helix" else 0.0
    axis = _Axis(kind, a, p, pitch, 0.9 * np.linspace(0, 1, T) ** 2)
    n = {"slide": 2, "hinge": 4, "helix": 5}[kind]
    J = problem.jacobian(axis, problem.residual(axis)[1])
    assert J.shape == (6 * T, n + T - 1)
    for column in (*range(n), n, n + 9, n + T - 2):
        step = 1e-6 * np.eye(n + T - 1)[column]
        ahead, behind = (problem.residual(axis.moved(s))[0].ravel() for s in (step, -step))
        np.testing.assert_allclose(J[:, column], (ahead - behind) / 2e-6, atol=2e-6)
    # A step keeps the direction a unit vector and the point nearest to the origin.
    moved = axis.moved(0.1 * rng.normal(size=n + T - 1))
    assert np.linalg.norm(moved.a) == pytest.approx(1.0)
    assert moved.a @ moved.p == pytest.approx(0.0, abs=1e-12)
    assert moved.amount[0] == 0.0
