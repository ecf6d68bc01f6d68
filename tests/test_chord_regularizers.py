"""Rigidity and smoothness: what they forgive, what they punish, in which units."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from flowplan.geometry import exp_so3
from generators.chord.motion.regularizers import HUBER_DELTA, arap, best_rotations, temporal


def cloud(count=300, seed=0):
    """Rest points (S, 3) on a sphere of 0.1 m, and their ten nearest."""
    points = np.random.default_rng(seed).normal(size=(count, 3))
    points *= 0.1 / np.linalg.norm(points, axis=1, keepdims=True)
    return torch.tensor(points), torch.tensor(cKDTree(points).query(points, k=11)[1][:, 1:])


def tangent_turns(angles, seed=1):
    axes = np.random.default_rng(seed).normal(size=(len(angles), 3))
    return torch.tensor(
        exp_so3(np.asarray(angles)[:, None] * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    )


def by_svd(S):
    """The textbook's: Umeyama (1991), in numpy."""
    U, _, Vt = np.linalg.svd(S.numpy())
    turn = np.ones(U.shape[:-1])
    turn[..., -1] = np.sign(np.linalg.det(U @ Vt))
    return (U * turn[..., None, :]) @ Vt


def won(R, S):
    return np.einsum("nab,nab->n", np.asarray(R), S.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arap_forgives_rigid_motion_however_large(dtype):
    rest, neighbors = cloud()
    R = tangent_turns([0.0, 1e-4, 0.3, 2.0, 3.1, np.pi - 1e-5, np.pi])
    moved = (rest @ R.mT + torch.linspace(-1, 1, 7)[:, None, None]).to(dtype)
    # Coordinates of about a meter, rounded.
    assert arap(moved, rest.to(dtype), neighbors) < (1e-12 if dtype == torch.float32 else 1e-28)


def test_arap_of_a_stretch_is_what_is_left_of_the_edges():
    """Stretch by 1 + s: R = 1, each edge e is off by s e; the sum is for 7500 points."""
    rest, neighbors = cloud()
    edges = (rest[:, None] - rest[neighbors]).square().sum(-1)
    assert arap(1.2 * rest[None], rest, neighbors) == pytest.approx(
        float(0.04 * edges.mean() * 300 / 7500)
    )
    frames = torch.stack([rest, 1.2 * rest])
    assert arap(frames, rest, neighbors) == pytest.approx(float(0.02 * edges.mean() * 300 / 7500))
    assert arap(frames, rest, neighbors, radius=0.1) == pytest.approx(
        float(2 * edges.mean() * 300 / 7500)
    )


def test_arap_punishes_a_shear_after_the_best_turn():
    """Against the sum written out, with rotations of the textbook's."""
    rest, neighbors = cloud(60)
    shear = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    moved = (rest @ shear.T)[None]
    before, after = rest[:, None] - rest[neighbors], moved[0][:, None] - moved[0][neighbors]
    R = torch.tensor(by_svd(torch.einsum("sna,snb->sab", after, before)))
    left = (after - torch.einsum("sab,snb->sna", R, before)).square().sum(-1).mean() * 60 / 7500
    assert arap(moved, rest, neighbors) == pytest.approx(float(left), rel=1e-6)
    assert left > 0


def test_arap_has_the_gradient_of_finite_differences():
    """The gradient is exact although the rotation has none: the loss is stationary in it."""
    rest, neighbors = cloud(40)
    moved = (
        rest.repeat(2, 1, 1)
        + 0.02 * torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0)).double()
    )
    moved.requires_grad_()
    (gradient,) = torch.autograd.grad(arap(moved, rest, neighbors, radius=0.1), moved)
    for at in [(0, 3, 0), (1, 17, 2), (1, 39, 1)]:
        step = torch.zeros_like(moved)
        step[at] = 1e-6
        with torch.no_grad():
            ends = [arap(moved + s * step, rest, neighbors, radius=0.1) for s in (1, -1)]
        assert float(gradient[at]) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-4)


def two_that_touch():
    """Rest points (2 S, 3) of two clouds, neighbors, and contacts of equal points."""
    rest, neighbors = cloud(50)
    both = torch.cat([rest, rest + torch.tensor([0.2, 0.0, 0.0])])
    index = torch.arange(50)
    contacts = torch.cat([torch.stack([index, index + 50], 1), torch.stack([index + 50, index], 1)])
    return both, torch.cat([neighbors, neighbors + 50]), contacts


def test_what_touches_turns_together_for_nothing():
    rest, neighbors, contacts = two_that_touch()
    moved = rest @ tangent_turns([2.0]).mT + 1.0
    assert arap(moved, rest, neighbors, contacts) < 1e-28


@pytest.mark.parametrize(("far", "as_if"), [(1e-2 * HUBER_DELTA, 1.0), (100 * HUBER_DELTA, 2e-2)])
def test_what_touches_comes_apart_for_little(far, as_if):
    """A small change costs its square, a large one 2 HUBER_DELTA times its length."""
    rest, neighbors, contacts = two_that_touch()
    way = torch.zeros_like(rest)
    way[50:, 2] = far
    lost = float(arap((rest + way)[None], rest, neighbors, contacts))
    assert lost == pytest.approx(as_if * far**2 * len(contacts) / 10 / 7500, rel=0.02)
    assert lost == pytest.approx(
        float(arap((rest + way)[None] * 10, rest * 10, neighbors, contacts, radius=10.0))
    )


def test_contacts_pull_what_has_come_apart_together():
    rest, neighbors, contacts = two_that_touch()
    moved = rest[None].clone()
    moved[:, 50:] += torch.tensor([0.0, 0.0, 0.1])
    moved.requires_grad_()
    (gradient,) = torch.autograd.grad(arap(moved, rest, neighbors, contacts), moved)
    assert (gradient[0, 50:, 2] > 0).all()
    assert (gradient[0, :50, 2] < 0).all()


def test_best_rotations_are_the_svds():
    g = torch.Generator().manual_seed(0)
    S = (
        torch.randn(500, 3, 3, generator=g).double()
        * 10 ** torch.linspace(-6, 3, 500)[:, None, None]
    )
    R = best_rotations(S)
    assert R.numpy() == pytest.approx(by_svd(S), abs=1e-5)
    assert torch.det(R).numpy() == pytest.approx(1)
    single = best_rotations(S.float())
    assert (R - single).abs().quantile(0.99) < 1e-4


def test_rotations_of_points_that_turned_are_those_turns():
    R = tangent_turns(np.linspace(0, np.pi, 200))
    points = torch.randn(200, 20, 3, generator=torch.Generator().manual_seed(2)).double()
    S = torch.einsum("kna,knb->kab", points @ R.mT, points)
    assert best_rotations(S).numpy() == pytest.approx(R.numpy(), abs=1e-9)
    assert best_rotations(S.float()).numpy() == pytest.approx(R.numpy(), abs=2e-4)


@pytest.mark.parametrize("kind", ["planar", "collinear", "reflected", "point_reflected", "nothing"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_inputs_get_rotations_that_win_as_much_as_the_svds(kind, dtype):
    """Where the best rotation is not unique, any will do that is a rotation and among the best."""
    R = tangent_turns(np.linspace(0, np.pi, 50))
    points = torch.randn(50, 20, 3, generator=torch.Generator().manual_seed(3)).double()
    squash = {"planar": [1.0, 1, 0], "collinear": [1.0, 0, 0], "nothing": [0.0, 0, 0]}.get(
        kind, [1.0, 1, 1]
    )
    points = points * torch.tensor(squash)
    flip = {"reflected": [1.0, 1, -1], "point_reflected": [-1.0, -1, -1]}.get(kind, [1.0, 1, 1])
    S = torch.einsum("kna,knb->kab", (points * torch.tensor(flip)) @ R.mT, points).to(dtype)
    found = best_rotations(S)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    assert (found @ found.mT).numpy() == pytest.approx(
        np.tile(np.eye(3), (50, 1, 1)), abs=tolerance
    )
    assert torch.det(found).numpy() == pytest.approx(1, abs=tolerance)
    most = won(by_svd(S.double()), S.double())
    assert won(found.double(), S.double()) == pytest.approx(
        most, abs=tolerance * max(float(S.abs().max()), 1)
    )
    if kind == "planar":
        assert found.double().numpy() == pytest.approx(R.numpy(), abs=tolerance)


def test_temporal_is_the_mean_square_of_the_flow_in_radii():
    flow = torch.zeros(2, 3, 4, 5, 3)
    assert temporal(flow) == 0
    flow[0, 1, 2, 3] = torch.tensor([0.3, 0.0, 0.4])
    assert temporal(flow) == pytest.approx(0.25 / (2 * 3 * 4 * 5))
    assert temporal(flow, radius=0.5) == pytest.approx(1.0 / (2 * 3 * 4 * 5))
