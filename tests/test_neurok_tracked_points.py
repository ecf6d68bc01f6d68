"""Points tracked through a network's states: derivatives against torch's."""

import numpy as np
import pytest
import torch

from generators.common.attention import PerceiverBlock, QueryBlock
from generators.common.tangents import (
    keys_values_along,
    normed_along,
    perceiver_along,
    query_recorded,
)
from generators.neurok.latent_space.derivatives import derivatives, forward_attention
from generators.neurok.latent_space.particles import Particles
from generators.neurok.latent_space.space import Frame, LatentSpace
from generators.neurok.latent_space.tracked_points import ForwardModePoints, NetworkPoints
from generators.neurok.network.config import NeurokConfig
from generators.neurok.network.model import Neurok, moved
from generators.neurok.options import ReduceOptions

SIZES = dict(
    tokens=5, channels=6, encoder_width=16, decoder_width=16, point_width=16, heads=2, frequencies=4
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def along(function, x, dx):
    """Values and tangents (k, ...) by torch's forward mode."""
    return function(x), torch.stack([torch.func.jvp(function, (x,), (d,))[1] for d in dx])


@pytest.fixture(params=["dual_quaternion", "displacement", "unconditioned"])
def space(request):
    torch.manual_seed(1)
    deformation = "displacement" if request.param == "displacement" else "dual_quaternion"
    config = NeurokConfig(
        **SIZES,
        decoder_point_blocks=2,
        deformation=deformation,
        condition_decoder=request.param != "unconditioned",
    )
    model = Neurok(config).double().eval().requires_grad_(False)
    torch.nn.init.normal_(model.decoder.head.weight, std=0.1)
    points = draw(40, 3).clamp(-1, 1)
    shape = model.encode_shape(points[None])
    mean = shape.mean.flatten()
    whole = LatentSpace(
        model, points, shape, shape.mean[0] + 0.1 * draw(5, 6), None, 0 * mean, mean
    )
    return whole.reduced(ReduceOptions(7, samples=8), seed=2)


def test_a_block_along_directions_is_torchs():
    torch.manual_seed(0)
    block = PerceiverBlock(16, 2, 2.0).double().requires_grad_(False)
    x, dx = draw(3, 5, 16), draw(4, 3, 5, 16, seed=1)
    torch.testing.assert_close(perceiver_along(block, x, dx), along(block, x, dx))
    torch.testing.assert_close(normed_along(x, dx), along(block.norm, x, dx))


def test_what_queries_read_along_directions_is_torchs():
    torch.manual_seed(0)
    block = QueryBlock(16, 2, 2.0).double().requires_grad_(False)
    x, source, d_source = draw(9, 16), draw(5, 16, seed=1), draw(4, 5, 16, seed=2)
    keys_values, d_keys_values = keys_values_along(block.cross, source, d_source)
    queries = x.clone().requires_grad_()
    out, reading = query_recorded(block, queries, keys_values)
    torch.testing.assert_close(out, block(x, keys_values))
    result = out[:, :2].T  # two numbers of every query
    each = torch.eye(2).double()[:, :, None].expand(-1, -1, 9)
    back = torch.autograd.grad(result, (reading.logits, reading.read), each, is_grads_batched=True)
    expected = along(lambda s: block(x, block.cross.keys_values(s)), source, d_source)[1][..., :2]
    torch.testing.assert_close(reading.along(*back, d_keys_values), expected.permute(2, 0, 1))


def test_tracked_points_are_at_their_images_under_the_field(space):
    points, q = draw(11, 3, seed=3), draw(2, 7, seed=4)
    torch.testing.assert_close(space.tracked(points)(q), moved(points, space.field(q, points)))
    torch.testing.assert_close(space.tracked(points)(space.rest[None])[0], points)


def test_their_jacobian_is_that_of_forward_mode(space):
    points, q = draw(11, 3, seed=3), draw(2, 7, seed=4)
    followed = space.tracked(points)
    assert isinstance(followed, NetworkPoints)
    x, J = followed.linearize(q)
    expected = ForwardModePoints(lambda s: moved(points, space.field(s, points))).linearize(q)
    torch.testing.assert_close((x, J), expected)
    assert not x.requires_grad
    assert not J.requires_grad
    whole = space.unreduced()
    by_each = whole.tracked(points).linearize(whole.rest[None])[1]
    at_rest = followed.linearize(space.rest[None])[1]
    torch.testing.assert_close(by_each @ space.basis, at_rest)


def test_the_jacobian_in_half_precision_is_near(space):
    followed, q = space.tracked(draw(11, 3, seed=3)), draw(1, 7, seed=4)
    exact = followed.linearize(q)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = followed.linearize(q)[1]
    assert rough.dtype == exact.dtype
    assert (rough - exact).norm() < 0.1 * exact.norm()


def test_particles_are_in_the_world_and_dynamics_takes_their_jacobian(space, monkeypatch):
    frame = Frame(np.array([0.1, -0.2, 0.3]), 0.4, yaw=0.7)
    points, z = draw(11, 3, seed=3), draw(7, seed=4)
    particles = Particles.from_space(space, points, frame)
    np.testing.assert_allclose(
        particles(z), frame.world(space.positions(z[None], points)[0]), atol=1e-12
    )
    with forward_attention():
        found = derivatives(particles, z).linearize(z)
        expected = derivatives(lambda s: particles(s), z).linearize(z)
    torch.testing.assert_close(found, expected)
    monkeypatch.setattr(
        Particles, "linearize", lambda self, z: (particles(z), torch.zeros(11, 3, 7))
    )
    assert not derivatives(particles, z).linearize(z)[1].any()
