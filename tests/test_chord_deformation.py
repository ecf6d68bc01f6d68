"""Motion by control points: what stands still, what moves rigidly, what the tree and the two levels
add up to."""

import numpy as np
import pytest
import torch
import trimesh

from flowplan.geometry import exp_so3, matrix_from_quat_wxyz, quat_wxyz_from_matrix
from generators.chord.motion.control_points import anatomy
from generators.chord.motion.deformation import Deformation, rotation_minus_identity, turned
from generators.chord.options import ControlOptions, DeformationOptions

FRAMES = 6
CENTERS = ((0.4, 0.0, 0.1), (0.4, 0.3, 0.05))


@pytest.fixture(scope="module")
def anatomies():
    few = ControlOptions(coarse=6, fine=12, surface_points=300)
    return [
        anatomy(trimesh.creation.box(extents=(0.2, 0.1, 0.1)).apply_translation(c), few)
        for c in CENTERS
    ]


def points(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return [
        torch.tensor(c + rng.uniform(-0.5, 0.5, (count, 3)) * [0.2, 0.1, 0.1]).float()
        for c in CENTERS
    ]


def scrambled(anatomies, options=None, seed=0, size=0.1, frames=FRAMES):
    """A deformation in the midst of its optimization."""
    deformation = Deformation(anatomies, frames, options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in deformation.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return deformation


def moved(deformation, *, fine=True):
    return deformation(deformation.bind(points()), fine=fine)


def set_motion(level, translation, quat_wxyz):
    """Let the control points (P) of a level move by (T, P, 3), radii, and turn by (T, P, 4)."""
    identity = torch.eye(4)[0]
    with torch.no_grad():
        level.translation.copy_(torch.tensordot(level.nodes, translation, 1))
        level.rotation.copy_(torch.tensordot(level.nodes, quat_wxyz - identity, 1))


@pytest.mark.parametrize("temporal", ["fenwick", "independent"])
def test_the_first_frame_is_at_rest_to_the_last_bit(anatomies, temporal):
    deformation = scrambled(anatomies, DeformationOptions(temporal=temporal))
    for (positions, quats), rest in zip(moved(deformation), points(), strict=True):
        assert positions.shape == (FRAMES, 40, 3)
        assert torch.equal(positions[0], rest)
        assert torch.equal(quats[0], torch.eye(4)[0].expand(40, 4))
        assert (positions[1:] - rest).abs().amax((1, 2)).min() > 1e-3


def test_nothing_moves_to_begin_with(anatomies):
    for (positions, quats), rest in zip(
        moved(Deformation(anatomies, FRAMES)), points(), strict=True
    ):
        assert torch.equal(positions, rest.expand(FRAMES, -1, -1))
        assert torch.equal(quats, torch.eye(4)[0].expand(FRAMES, 40, 4))


def test_points_move_as_rigidly_as_all_control_points_do(anatomies):
    """Control points that share a motion x -> R x + t move every point by it."""
    deformation = scrambled(anatomies)
    R = torch.tensor(
        exp_so3(np.linspace(0, 2.5, FRAMES)[:, None] * np.array([0.6, 0.0, 0.8]))
    ).float()
    t = 0.5 * torch.linspace(0, 1, FRAMES)[:, None] * torch.tensor([1.0, -2.0, 0.5])
    coarse, fine = deformation.levels
    goal = coarse.points @ R.mT + t[:, None]
    quat = torch.tensor(quat_wxyz_from_matrix(R.double().numpy())).float()
    set_motion(coarse, goal - coarse.points, quat[:, None].expand(-1, len(coarse.points), 4))
    for parameter in (fine.translation, fine.rotation):
        torch.nn.init.zeros_(parameter)
    for (positions, quats), rest in zip(moved(deformation), points(), strict=True):
        local = (rest - deformation.center) / deformation.radius
        expected = (local @ R.mT + t[:, None]) * deformation.radius + deformation.center
        assert positions.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-6)
        assert quats.detach().numpy() == pytest.approx(
            quat[:, None].expand(-1, 40, 4).numpy(), abs=1e-6
        )


def test_a_point_is_the_weighted_mean_of_what_its_control_points_say(anatomies):
    """Eq. 5-7 and 11 for one point, with nearest control points and learned covariances."""
    deformation = scrambled(anatomies, DeformationOptions(levels="coarse"))
    level = deformation.levels[0]
    positions, quats = (values.detach().double().numpy() for values in moved(deformation)[1])
    rest = (points()[1][7] - deformation.center).double().numpy() / deformation.radius
    p, T, r = (
        x.detach().double().numpy() for x in (level.points, level.translation, level.rotation)
    )
    own = np.arange(6, 12)  # of the second object
    near = own[np.argsort(np.linalg.norm(p[own] - rest, axis=1))[:4]]
    axes = matrix_from_quat_wxyz(level.quat_wxyz.detach().double().numpy())
    covariance = axes @ (
        np.exp(2 * level.log_scale.detach().double().numpy())[:, :, None] * np.swapaxes(axes, 1, 2)
    )
    weight = np.array(
        [np.exp(-0.5 * (rest - p[k]) @ np.linalg.solve(covariance[k], rest - p[k])) for k in near]
    )
    weight /= weight.sum()
    query = level.query.double().numpy()
    for t in range(FRAMES):
        quat = np.einsum("j,jka->ka", query[t], r)[near] + [1, 0, 0, 0]
        quat /= np.linalg.norm(quat, axis=1, keepdims=True)
        shift = np.einsum("j,jka->ka", query[t], T)[near]
        said = (
            np.einsum("kab,kb->ka", matrix_from_quat_wxyz(quat), rest - p[near]) + p[near] + shift
        )
        where = weight @ said * deformation.radius + deformation.center.double().numpy()
        assert positions[t, 7] == pytest.approx(where, abs=1e-6)
        blended = weight @ quat
        assert quats[t, 7] == pytest.approx(blended / np.linalg.norm(blended), abs=1e-6)


def test_the_fine_level_adds_what_it_moves_the_rest_shape_by(anatomies):
    deformation = scrambled(anatomies)
    both, coarse = moved(deformation), moved(deformation, fine=False)
    for parameter in (deformation.levels[0].translation, deformation.levels[0].rotation):
        torch.nn.init.zeros_(parameter)
    alone = moved(deformation)
    for a, b, c, rest in zip(both, coarse, alone, points(), strict=True):
        assert (c[0] - rest).abs().max() > 1e-3
        assert torch.allclose(a[0], b[0] + c[0] - rest, atol=1e-6)


def test_without_the_fine_level_its_parameters_get_no_gradient(anatomies):
    deformation = scrambled(anatomies)
    sum(p.square().sum() for p, _ in moved(deformation, fine=False)).backward()
    coarse, fine = deformation.levels
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for p in (coarse.translation, coarse.log_scale)
    )
    assert all(p.grad is None for p in fine.parameters())


def test_levels_alone_have_their_control_points(anatomies):
    for name, count in (("coarse", 12), ("fine", 24)):
        deformation = scrambled(anatomies, DeformationOptions(levels=name))
        assert [len(level.points) for level in deformation.levels] == [count]
        for a, b in zip(moved(deformation, fine=False), moved(deformation, fine=True), strict=True):
            assert torch.equal(a[0], b[0])


def test_tree_and_independent_frames_say_the_same(anatomies):
    tree = scrambled(anatomies, frames=11)
    plain = Deformation(anatomies, 11, DeformationOptions(temporal="independent"))
    with torch.no_grad():
        for a, b in zip(tree.levels, plain.levels, strict=True):
            b.log_scale.copy_(a.log_scale)
            b.quat_wxyz.copy_(a.quat_wxyz)
            for name in ("translation", "rotation"):
                frames = torch.tensordot(a.query, getattr(a, name), 1)
                getattr(b, name).copy_(frames[1:])
                assert torch.allclose(
                    torch.tensordot(a.nodes, frames, 1), getattr(a, name), atol=1e-6
                )
    for (a, qa), (b, qb) in zip(moved(tree), moved(plain), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert torch.allclose(qa, qb, atol=1e-6)


@pytest.mark.parametrize("temporal", ["fenwick", "independent"])
@pytest.mark.parametrize("frame", [0, 4, 7, 10])
def test_restart_keeps_what_was_and_makes_the_rest_equal(anatomies, temporal, frame):
    deformation = scrambled(anatomies, DeformationOptions(temporal=temporal), frames=11)
    before = moved(deformation)
    deformation.restart_after(frame)
    for (a, qa), (b, qb) in zip(before, moved(deformation), strict=True):
        for old, new in ((a, b), (qa, qb)):
            assert torch.equal(old[: frame + 1], new[: frame + 1])
            assert torch.allclose(new[frame:], old[frame].expand_as(new[frame:]), atol=2e-6)
            if frame < 10:
                assert (old[frame:] - old[frame]).abs().max() > 1e-3


def test_restart_forgets_what_adam_remembers_of_later_frames(anatomies):
    deformation = scrambled(anatomies)
    optimizer = torch.optim.Adam(deformation.parameters(), lr=1e-3)
    sum((p - 1).square().sum() for p, _ in moved(deformation)).backward()
    optimizer.step()
    deformation.restart_after(3, optimizer)
    for level in deformation.levels:
        for parameter in (level.translation, level.rotation):
            for name in ("exp_avg", "exp_avg_sq"):
                average = optimizer.state[parameter][name]
                assert not average[3:].any()  # nodes 4 and 5
                assert average[:3].abs().amax((1, 2)).min() > 0
        assert optimizer.state[level.log_scale]["exp_avg"].any()


def test_restart_refuses_a_frame_there_is_not(anatomies):
    with pytest.raises(ValueError, match="frame: expected 0 to 5, got 6"):
        Deformation(anatomies, FRAMES).restart_after(6)


def test_gradients_are_those_of_finite_differences(anatomies):
    deformation = scrambled(anatomies).double()
    binding = deformation.bind(points())
    goal = torch.randn(FRAMES, 80, 7, generator=torch.Generator().manual_seed(1)).double()

    def loss():
        return (
            torch.cat([torch.cat(part, -1) for part in deformation(binding, fine=True)], 1) * goal
        ).sum()

    loss().backward()
    rng = np.random.default_rng(0)
    for name, parameter in deformation.named_parameters():
        with torch.no_grad():
            for _ in range(3):
                at = tuple(int(rng.integers(n)) for n in parameter.shape)
                kept, ends = parameter[at].clone(), []
                for step in (1e-6, -1e-6):
                    parameter[at] = kept + step
                    ends.append(float(loss()))
                parameter[at] = kept
                numeric = (ends[0] - ends[1]) / 2e-6
                assert float(parameter.grad[at]) == pytest.approx(numeric, rel=1e-5, abs=1e-6), name


def test_groups_hold_every_parameter_once(anatomies):
    deformation = Deformation(anatomies, FRAMES)
    groups = deformation.groups()
    assert set(groups) == {"motion", "scale", "rotation"}
    assert {id(p) for group in groups.values() for p in group} == {
        id(p) for p in deformation.parameters()
    }
    assert sum(map(len, groups.values())) == len(list(deformation.parameters()))


def test_far_points_follow_too(anatomies):
    """So far away that every exponential is zero."""
    deformation = scrambled(anatomies)
    far = [p + 100.0 for p in points()]
    for positions, quats in deformation(deformation.bind(far), fine=True):
        assert torch.isfinite(positions).all()
        assert torch.isfinite(quats).all()


def test_turned_composes_as_rotations_do():
    quats = torch.nn.functional.normalize(
        torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    R = rotation_minus_identity(quats) + torch.eye(3).double()
    assert R.numpy() == pytest.approx(matrix_from_quat_wxyz(quats.numpy()))
    product = rotation_minus_identity(turned(quats[:1], quats[1])[0]) + torch.eye(3).double()
    assert product.numpy() == pytest.approx((R[0] @ R[1]).numpy())


def test_bad_input_is_named(anatomies):
    with pytest.raises(ValueError, match="anatomies: expected at least one object"):
        Deformation([], FRAMES)
    with pytest.raises(ValueError, match="points: expected those of 2 objects, got 1"):
        Deformation(anatomies, FRAMES).bind(points()[:1])
    with pytest.raises(ValueError, match="DeformationOptions.temporal"):
        DeformationOptions(temporal="linear")
    with pytest.raises(ValueError, match="DeformationOptions.neighbors: expected 1 to 1000, got 0"):
        DeformationOptions(neighbors=0)
