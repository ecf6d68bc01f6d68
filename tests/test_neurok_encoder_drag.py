"""Initialization and encoder drag with the shipped network, on objects it has never seen."""

import numpy as np
import pytest
import torch
import trimesh

from flowplan.geometry import exp_so3
from generators.common.sampling import surface_points
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.data.pose_pairs import PosePairs, quat_from_matrix
from generators.neurok.kinematics.encoder_drag import encoder_drag
from generators.neurok.kinematics.initialization import initial_latent, local_rotations
from generators.neurok.kinematics.shape_fit import FitOptions, fit_shape
from generators.neurok.latent_space.space import Frame, LatentSpace
from generators.neurok.network import weights
from generators.neurok.options import EncoderDragOptions, ReduceOptions, SpaceOptions

WHOLE = SpaceOptions(reduce=ReduceOptions(dimension=None))
NARROW = SpaceOptions(reduce=ReduceOptions(dimension=6, samples=8))


@pytest.fixture(scope="module")
def network():
    return weights.load("neurok-small").requires_grad_(False)


@pytest.fixture(scope="module")
def laptop():
    """A laptop open by 1.8 rad, the same with its lid closed by 1 rad, and the lid's vertices."""
    obj = make("laptop", HELD_OUT_SEED + 40)
    hinge = next(i for i, j in enumerate(obj.free) if j.kind == "revolute")
    q = np.array([np.zeros(len(obj.free))] * 2)
    q[:, hinge] = 1.8, 0.8
    frame = Frame.around(obj.posed(q[0]).vertices)
    opened, closed = (
        trimesh.Trimesh(frame.normalized(m.vertices), m.faces)
        for m in (obj.posed(q[0]), obj.posed(q[1]))
    )
    return opened, closed, np.linalg.norm(opened.vertices - closed.vertices, axis=1) > 1e-6


def test_rotations_of_rigid_pieces_are_found():
    rng = np.random.default_rng(0)
    piece = rng.normal(size=(40, 3))
    points = np.concatenate([piece, piece + np.array([9, 0, 0])])
    R = exp_so3([[0.3, -1.0, 0.5], [2.0, 0.1, 0.0]])
    moved = np.concatenate([piece @ R[0].T + 1, points[40:] @ R[1].T])
    np.testing.assert_allclose(
        local_rotations(points, moved, 12), np.repeat(R, 40, axis=0), atol=1e-9
    )


def test_a_widened_space_holds_what_it_was_widened_by(network, laptop):
    space = LatentSpace.encode(laptop[0], network, NARROW)
    latents = space.z_rest + torch.randn(
        2, *space.z_rest.shape, generator=torch.Generator().manual_seed(0)
    )
    wide = space.widened(latents)
    assert wide.dim == space.dim + 2
    np.testing.assert_allclose(wide.basis.T @ wide.basis, np.eye(wide.dim), atol=1e-5)
    np.testing.assert_allclose(wide.basis[:, : space.dim], space.basis, atol=1e-5)
    np.testing.assert_allclose(wide.latent(wide.coordinates(latents)), latents, atol=1e-4)
    assert wide.widened(latents).dim == wide.dim  # nothing new in them
    assert space.unreduced().widened(latents).dim == latents[0].numel()


def test_a_motion_is_encoded_and_decoded(network, laptop):
    """`posterior`, then `positions`: a held-out lid's motion is encoded and decoded."""
    opened, closed, moves = laptop
    space = LatentSpace.encode(opened, network, WHOLE)
    x, y = (
        torch.tensor(m.vertices[:: len(moves) // 400], dtype=torch.float32)
        for m in (opened, closed)
    )
    R = torch.as_tensor(local_rotations(x.numpy(), y.numpy(), 8), dtype=torch.float32)
    found = space.positions(
        space.coordinates(space.posterior(PosePairs(x[None], y[None], quat_from_matrix(R)[None]))),
        x,
    )
    assert (found[0] - y).norm(dim=1).mean() < 0.3 * (x - y).norm(dim=1).mean()


def test_a_lid_far_from_rest_is_found(network, laptop):
    opened, closed, _ = laptop
    target = surface_points(closed, 2000, seed=1)[0]
    source, goal = (
        torch.tensor(p).float() for p in (surface_points(opened, 1000, seed=2)[0], target)
    )
    space = LatentSpace.encode(opened, network, NARROW)
    guess = initial_latent(space, opened, target)
    wide = space.widened(guess)
    options = FitOptions(iterations=4)
    blind = fit_shape(space, source, goal, options)
    fit = fit_shape(wide, source, goal, options, initial=wide.coordinates(guess))
    assert fit.distance < 0.5 * fit.start_distance
    assert fit.distance < 0.7 * blind.distance


def test_the_lid_goes_along_and_the_base_stays(network, laptop):
    opened, closed, moves = laptop
    space = LatentSpace.encode(opened, network, WHOLE)
    on_lid = np.flatnonzero(moves)[:: max(1, moves.sum() // 12)]
    start, end = (torch.tensor(m.vertices[on_lid], dtype=torch.float32) for m in (opened, closed))
    paths = torch.stack([start, start, end])
    latents = encoder_drag(space, start, paths, space.points)
    everywhere = torch.tensor(opened.vertices, dtype=torch.float32)
    first, last = (
        space.positions(space.coordinates(latents[i : i + 1]), everywhere)[0].numpy()
        for i in (0, 2)
    )
    np.testing.assert_allclose(first, opened.vertices, atol=1e-3)
    off, way = (np.linalg.norm(closed.vertices - x, axis=1) for x in (last, opened.vertices))
    assert off[moves].mean() < 0.3 * way[moves].mean()
    assert off[~moves].mean() < 0.15 * way[moves].mean()


def test_there_is_no_answer_if_the_handles_do_not_arrive(network, laptop):
    opened, closed, moves = laptop
    space = LatentSpace.encode(opened, network, WHOLE)
    on_lid = np.flatnonzero(moves)[:: max(1, moves.sum() // 12)]
    start, end = (torch.tensor(m.vertices[on_lid], dtype=torch.float32) for m in (opened, closed))
    assert (
        encoder_drag(
            space,
            start,
            torch.stack([start, end]),
            space.points,
            EncoderDragOptions(tolerance=1e-4),
        )
        is None
    )
