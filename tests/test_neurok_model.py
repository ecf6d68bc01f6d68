"""The NeuROK network: sizes, symmetries, derivatives, dual quaternions, weights files."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch.func import jacfwd, jvp, vmap  # noqa: E402
from torch.nn import functional  # noqa: E402

from flowplan import geometry as g  # noqa: E402
from generators.common import attention  # noqa: E402
from generators.common import dual_quaternion as dq  # noqa: E402
from generators.common.embedding import PointEmbedding  # noqa: E402
from generators.data.pose_pairs import PosePairs  # noqa: E402
from generators.neurok.network import weights  # noqa: E402
from generators.neurok.network.config import PAPER, SMALL, NeurokConfig  # noqa: E402
from generators.neurok.network.model import (  # noqa: E402
    LossOptions,
    Neurok,
    clamp_above,
    elbo,
    kl,
    moved,
    target,
)

TINY = NeurokConfig(
    tokens=6,
    channels=8,
    encoder_width=32,
    decoder_width=24,
    point_width=16,
    frequencies=4,
    encoder_blocks=2,
    encoder_point_blocks=1,
    decoder_blocks=2,
    decoder_point_blocks=1,
    heads=4,
    mlp_ratio=2.0,
    query_mlp_ratio=2.0,
    condition_decoder=True,
)
VARIANTS = {
    "conditioned": TINY,
    "as the paper": replace(
        TINY, channels=32, encoder_point_blocks=2, decoder_point_blocks=2, condition_decoder=False
    ),
    "displacement": replace(TINY, deformation="displacement"),
}


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def lively(config: NeurokConfig = TINY) -> Neurok:
    """A network in float64 whose untrained field moves points noticeably."""
    model = Neurok(config).double().eval()
    with torch.no_grad():
        model.decoder.head.weight *= 100
    return model


def points(batch: int, count: int) -> torch.Tensor:
    return torch.rand(batch, count, 3, dtype=torch.float64) * 2 - 1


def hinge_pairs(batch: int, count: int, generator: torch.Generator) -> PosePairs:
    """Boxes whose upper half turns by 0 to 2 rad about the edge x = -1, z = 0."""
    p = torch.rand(batch, count, 3, generator=generator) * 2 - 1
    angle = torch.rand(batch, 1, generator=generator) * 2 * (p[..., 2] > 0)
    quat = torch.stack([(angle / 2).cos(), 0 * angle, -(angle / 2).sin(), 0 * angle], dim=-1)
    pivot = torch.tensor([-1.0, 0.0, 0.0])
    return PosePairs(p, dq.rotate(quat, p - pivot) + pivot, quat)


# Sizes


def test_paper_configuration_is_table_5():
    sizes = asdict(PAPER)
    assert (sizes["tokens"], sizes["channels"], sizes["point_width"], sizes["frequencies"]) == (
        128,
        1024,
        512,
        8,
    )
    assert (
        sizes["encoder_blocks"],
        sizes["decoder_blocks"],
        sizes["heads"],
        sizes["mlp_ratio"],
    ) == (4, 4, 16, 4.0)
    assert (
        sizes["encoder_point_blocks"],
        sizes["decoder_point_blocks"],
        sizes["query_mlp_ratio"],
    ) == (4, 4, 4.0)
    assert (PAPER.deformation_width, PAPER.condition_decoder) == (8, False)
    with torch.device("meta"):
        model = Neurok(PAPER)
    assert model.prior_encoder.codebook.shape == (128, 1024)
    assert model.posterior_encoder.codebook.shape == (2 * 128, 1024)  # mean and log-variance
    assert (model.log_variance.in_features, model.log_variance.out_features) == (1024, 1024)
    assert (model.decoder.head.in_features, model.decoder.head.out_features) == (512, 8)


def test_paper_configuration_has_the_parameters_its_table_adds_up_to():
    K, C, P, D, H, F, blocks = 128, 1024, 512, 512, 16, 8, 4

    def embedding(inputs, width):
        return (inputs * (1 + 2 * F) + 1) * width + (width + 1) * width

    def attention_(width, source):
        return (
            width * width + source * 2 * width + width * width + H
        )  # queries, keys and values, output, gains

    def mlp(width):
        return (width + 1) * 4 * width + (4 * width + 1) * width

    def encoder(inputs, tokens):
        per_block = attention_(C, P) + attention_(C, C) + mlp(C)
        return embedding(inputs, P) + tokens * C + blocks * per_block

    latents = blocks * (attention_(D, D) + mlp(D))
    queries = blocks * (attention_(D, D) + mlp(D))
    decoder = (C + 1) * D + embedding(3, D) + latents + queries + (D + 1) * 8
    expected = encoder(3, K) + encoder(3 + 8, 2 * K) + (C + 1) * C + decoder
    with torch.device("meta"):
        model = Neurok(PAPER)
    assert sum(p.numel() for p in model.parameters()) == expected == 153_965_960


def test_small_configuration_fits_its_file():
    count = sum(p.numel() for p in Neurok(SMALL).parameters())
    assert count <= 11e6
    assert 2 * count <= 25e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "NeurokConfig.tokens: expected a whole number from 1, got 0"),
        ({"channels": 64.0}, "NeurokConfig.channels: expected a whole number"),
        ({"heads": 7}, "NeurokConfig.encoder_width: expected a multiple of heads = 7, got 32"),
        (
            {"decoder_point_blocks": 3},
            "NeurokConfig.decoder_point_blocks: expected at most decoder_blocks = 2, got 3",
        ),
        ({"deformation": "matrix"}, "expected one of dual_quaternion, displacement"),
        ({"condition_decoder": 1}, "NeurokConfig.condition_decoder: expected true or false, got 1"),
        ({"mlp_ratio": -1.0}, "NeurokConfig.mlp_ratio: expected 0.001 to 1000"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


# Layers


def test_attention_agrees_with_torchs_own():
    layer = attention.Attention(24, 16, 4).double()
    torch.nn.init.uniform_(layer.gain, 0.5, 3.0)
    x, source = (
        torch.randn(2, 5, 24, dtype=torch.float64),
        torch.randn(2, 9, 16, dtype=torch.float64),
    )

    def heads(t):
        return t.unflatten(-1, (4, 6)).transpose(1, 2)

    k, v = layer.key_value(source).chunk(2, dim=-1)
    q = functional.rms_norm(heads(layer.query(x)), (6,)) * layer.gain
    expected = functional.scaled_dot_product_attention(
        q, functional.rms_norm(heads(k), (6,)), heads(v)
    )
    expected = layer.out(expected.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, layer.keys_values(source)), expected)


def test_rms_norm_agrees_with_torchs_own_and_survives_zeros():
    x = torch.randn(3, 10, dtype=torch.float64)
    torch.testing.assert_close(attention.RMSNorm()(x), functional.rms_norm(x, (10,)))
    zero = torch.zeros(2, 10, requires_grad=True)
    out = attention.RMSNorm()(zero)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 10))
    assert zero.grad.isfinite().all()


def test_embedding_is_exact_at_its_finest_wave_even_under_autocast():
    embedding = PointEmbedding(3, 8, 32)
    embedding.mlp = torch.nn.Identity()
    p = torch.rand(200, 3) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        features = embedding(p)
    phase = (p[:, :, None].double() * np.pi * 2.0 ** torch.arange(8)).flatten(1)
    expected = torch.cat([p, phase.sin(), phase.cos()], dim=-1)
    # Phases in bfloat16 would be off by whole radians at 128 pi.
    torch.testing.assert_close(features, expected.float(), rtol=0.0, atol=1e-4)


def test_clamp_is_smooth_monotone_and_bounded():
    x = torch.linspace(-60, 60, 2401, dtype=torch.float64, requires_grad=True)
    y = clamp_above(x, 2.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.max() <= 2.0
    assert y[-1].item() == pytest.approx(2.0)
    torch.testing.assert_close(y[x < -18], x[x < -18])
    assert (slope >= 0).all()
    assert (slope <= 1).all()
    torch.testing.assert_close(
        slope, torch.sigmoid(2.0 - x)
    )  # one smooth step from 1 to 0, no kink
    assert clamp_above(torch.tensor(1e4), 2.0).isfinite()


# The network as a whole


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_points_motion_is_independent_of_the_other_query_points(config):
    model = lively(config)
    p, z = points(2, 40), torch.randn(2, config.tokens, config.channels, dtype=torch.float64)
    shape = model.encode_shape(p)
    all_ = model.decode(z, p, shape)
    context = model.context(z, shape)
    torch.testing.assert_close(model.field(context, p[:, 7:8]), all_[:, 7:8])
    torch.testing.assert_close(
        model.field(context, torch.cat([points(2, 5), p[:, ::3]], 1))[:, 5:], all_[:, ::3]
    )
    torch.testing.assert_close(
        model.field(context, p[0])[0], all_[0]
    )  # (M, 3): the same points for all of the batch
    torch.testing.assert_close(
        model.field(context, p[0])[1], model.field(context, p[:1].expand(2, -1, -1))[1]
    )


def test_one_shape_serves_many_latents():
    model = lively()
    p, z = points(1, 12), torch.randn(5, TINY.tokens, TINY.channels, dtype=torch.float64)
    shape = model.encode_shape(p)
    each = torch.cat([model.decode(one[None], p, shape) for one in z])
    torch.testing.assert_close(model.decode(z, p, shape), each)


def test_encoders_see_sets():
    model = lively()
    p, d = points(2, 30), torch.randn(2, 30, 8, dtype=torch.float64)
    order = torch.randperm(30)
    torch.testing.assert_close(model.prior(p[:, order]), model.prior(p))
    for a, b in zip(model.posterior(p[:, order], d[:, order]), model.posterior(p, d), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(
        model.posterior(p, d[:, order])[0], model.posterior(p, d)[0], atol=1e-6
    )
    twice = torch.cat([p, p], dim=1)
    torch.testing.assert_close(model.prior(twice), model.prior(p))


def test_the_decoder_sees_the_shape_only_where_conditioned():
    for name, seen in (("conditioned", True), ("as the paper", False)):
        model = lively(VARIANTS[name])
        p, z = (
            points(1, 10),
            torch.randn(1, model.config.tokens, model.config.channels, dtype=torch.float64),
        )
        a, b = (model.decode(z, p, model.encode_shape(s)) for s in (p, points(1, 10)))
        assert torch.equal(a, b) != seen


@pytest.mark.parametrize("config", [SMALL, *VARIANTS.values()], ids=["small", *VARIANTS.keys()])
def test_an_untrained_network_hardly_moves_anything(config):
    model = Neurok(config)
    p = points(3, 100).float()
    shape = model.encode_shape(p)
    off = moved(p, model.decode(shape.mean, p, shape)) - p
    assert 0 < off.abs().max() < 0.05


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_loss_reaches_every_parameter(config):
    model = Neurok(config)
    elbo(model, hinge_pairs(3, 32, torch.Generator().manual_seed(0))).total.backward()
    silent = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert silent == []


def test_derivatives_by_the_latent_agree_with_finite_differences():
    model = lively().requires_grad_(False)
    p = points(1, 15)
    shape = model.encode_shape(p)
    z = shape.mean.clone()
    v = torch.randn_like(z)

    def place(s):
        return moved(p, model.decode(z + s * v, p, shape))

    zero, one, h = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64), 1e-4
    with attention.forward_mode():
        first = jvp(place, (zero,), (one,))[1]
        second = jvp(lambda s: jvp(place, (s,), (one,))[1], (zero,), (one,))[1]
        jacobian = jacfwd(place)(zero)
    ahead, here, behind = place(zero + h), place(zero), place(zero - h)
    assert first.abs().max() > 1e-3
    torch.testing.assert_close(first, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(second, (ahead - 2 * here + behind) / h**2, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(jacobian, first)


def test_the_decoder_can_be_vmapped():
    model = lively().requires_grad_(False)
    p = points(1, 9)
    shape = model.encode_shape(p)
    z = torch.randn(4, TINY.tokens, TINY.channels, dtype=torch.float64)
    torch.testing.assert_close(
        vmap(lambda one: model.decode(one, p[0], shape)[0])(z), model.decode(z, p, shape)
    )


def test_bfloat16_keeps_losses_in_float32_and_near():
    model = Neurok(SMALL)
    pairs = hinge_pairs(2, 64, torch.Generator().manual_seed(0))
    exact = elbo(model, pairs, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        rough = elbo(model, pairs, torch.Generator().manual_seed(1))
        shape = model.encode_shape(pairs.points)
        assert model.decode(shape.mean, pairs.points, shape).dtype == torch.float32
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.0)


# Loss


def test_divergence_agrees_with_torch_distributions():
    mean, log_variance, prior = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    normal = torch.distributions.Normal
    true = torch.distributions.kl_divergence(
        normal(mean, (0.5 * log_variance).exp()), normal(prior, 1.0)
    ).mean()
    torch.testing.assert_close(kl(mean, log_variance, prior), true)
    assert kl(prior, torch.zeros_like(prior), prior) == 0


def test_loss_adds_up_from_its_parts():
    model = Neurok(TINY)
    pairs = hinge_pairs(2, 20, torch.Generator().manual_seed(0))

    def loss(options=None):
        return elbo(model, pairs, torch.Generator().manual_seed(3), options)

    default, numbers = loss(), loss(LossOptions(kl_weight=0.5, point_weight=0.0))
    torch.testing.assert_close(default.total, default.reconstruction + 0.01 * default.kl)
    torch.testing.assert_close(numbers.total, numbers.reconstruction + 0.5 * numbers.kl)
    assert torch.equal(default.total, loss().total)  # the generator decides the noise
    # The untrained field is near the identity, so both errors are those of standing still.
    still = torch.eye(8)[0] - target(TINY, pairs)
    torch.testing.assert_close(
        numbers.reconstruction, still.square().sum(-1).mean(), rtol=0.02, atol=0.0
    )
    squared = (pairs.moved - pairs.points).square().sum(-1).mean()
    torch.testing.assert_close(
        default.reconstruction - numbers.reconstruction, squared, rtol=0.02, atol=0.0
    )
    distance = (pairs.moved - pairs.points).norm(dim=-1).mean()
    torch.testing.assert_close(default.point_error, distance, rtol=0.02, atol=0.0)


def test_loss_is_the_same_for_a_dual_quaternion_and_its_negative():
    model = Neurok(TINY)
    with (
        torch.no_grad()
    ):  # a field that turns everything by 200 degrees: w < 0, where targets have w >= 0
        half = np.deg2rad(100)
        model.decoder.head.weight.zero_()
        model.decoder.head.bias[:4] = torch.tensor([np.cos(half) - 1, 0, 0, np.sin(half)])
    p = points(1, 20).float()
    quat = torch.tensor([np.cos(half), 0, 0, np.sin(half)], dtype=torch.float32).expand(1, 20, 4)
    assert elbo(model, PosePairs(p, dq.rotate(quat, p), quat)).reconstruction < 1e-10


def test_the_decoder_is_trained_on_samples_of_the_posterior():
    model = lively()
    pairs = hinge_pairs(2, 20, torch.Generator().manual_seed(0))
    pairs = PosePairs(pairs.points.double(), pairs.moved.double(), pairs.quat_wxyz.double())

    def loss(seed):
        return elbo(model, pairs, torch.Generator().manual_seed(seed)).reconstruction

    assert abs(loss(0) - loss(1)) > 1e-4
    with torch.no_grad():
        model.log_variance.bias.fill_(-80)  # a posterior without spread
    torch.testing.assert_close(loss(0), loss(1))


def test_mean_and_log_variance_have_tokens_of_their_own():
    model = lively()
    p, d = points(2, 30), torch.randn(2, 30, 8, dtype=torch.float64)
    both = model.posterior_encoder(torch.cat([p, d], dim=-1))
    mean, log_variance = model.posterior(p, d)
    torch.testing.assert_close(mean, model.posterior_mean(both[:, : TINY.tokens]))
    torch.testing.assert_close(
        log_variance, clamp_above(model.log_variance(both[:, TINY.tokens :]), 2.0)
    )


def test_displacement_targets_are_displacements():
    config = VARIANTS["displacement"]
    pairs = hinge_pairs(1, 10, torch.Generator().manual_seed(0))
    assert torch.equal(target(config, pairs), pairs.moved - pairs.points)
    torch.testing.assert_close(moved(pairs.points, target(config, pairs)), pairs.moved)


def test_it_learns_a_hinge():
    generator = torch.Generator().manual_seed(0)
    model = Neurok(replace(TINY, decoder_point_blocks=2))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(80):
        losses = elbo(model, hinge_pairs(8, 32, generator), generator)
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    pairs = hinge_pairs(64, 48, generator)
    still = (pairs.moved - pairs.points).norm(dim=-1).mean()
    # One middle angle for all, which is what a collapsed latent gives, would still be off by about
    # half of that.
    assert elbo(model, pairs, generator).point_error < 0.4 * still


# Dual quaternions


def motions() -> np.ndarray:
    """Random poses, and those at which formulas break: (nearly) the identity and half turns."""
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(60, 3))
    axis = np.concatenate(
        [np.eye(3), -np.eye(3), axis / np.linalg.norm(axis, axis=1, keepdims=True)]
    )
    angle = np.array([0.0, 1e-9, 1e-4, np.pi - 1e-9, np.pi, np.pi + 1e-9, 0.3, 1.5, 3.0])
    return g.pose(
        g.exp_so3(np.resize(angle, len(axis))[:, None] * axis), rng.normal(size=(len(axis), 3))
    )


def test_dual_quaternions_encode_the_motions_of_geometry():
    X = motions()
    quat = torch.tensor(g.quat_wxyz_from_matrix(X[:, :3, :3]))
    d = dq.from_motion(quat, torch.tensor(X[:, :3, 3]))
    p = torch.randn(len(X), 3, dtype=torch.float64)
    np.testing.assert_allclose(dq.apply(d, p), g.transform(X, p.numpy()[:, None])[:, 0], atol=1e-12)
    real, translation = dq.to_motion(d)
    np.testing.assert_allclose(g.matrix_from_quat_wxyz(real), X[:, :3, :3], atol=1e-12)
    np.testing.assert_allclose(translation, X[:, :3, 3], atol=1e-12)
    assert (d[:, 0] >= 0).all()
    torch.testing.assert_close(
        dq.from_motion(-quat, translation)[quat[:, 0] > 1e-6], d[quat[:, 0] > 1e-6]
    )
    np.testing.assert_allclose((d[:, :4] * d[:, 4:]).sum(-1), 0, atol=1e-12)


def test_dual_part_is_equation_57():
    q, t = (
        functional.normalize(torch.randn(7, 4, dtype=torch.float64), dim=-1),
        torch.randn(7, 3, dtype=torch.float64),
    )
    q[:, 0] = q[:, 0].abs()
    w, v = q[:, :1], q[:, 1:]
    expected = (
        torch.cat([-(t * v).sum(-1, keepdim=True), w * t + torch.linalg.cross(t, v)], dim=-1) / 2
    )
    torch.testing.assert_close(dq.from_motion(q, t)[:, 4:], expected)


def test_points_and_rotation_give_the_motion_that_moves_them():
    X = motions()
    p = torch.randn(len(X), 3, dtype=torch.float64)
    to = torch.tensor(g.transform(X, p.numpy()[:, None])[:, 0])
    d = dq.from_points(p, to, torch.tensor(g.quat_wxyz_from_matrix(X[:, :3, :3])))
    np.testing.assert_allclose(dq.to_motion(d)[1], X[:, :3, 3], atol=1e-12)
    torch.testing.assert_close(dq.apply(d, p), to)


def test_any_eight_numbers_are_a_rigid_motion():
    d = torch.randn(50, 8, dtype=torch.float64)
    unit = dq.normalized(d)
    np.testing.assert_allclose(unit[:, :4].norm(dim=-1), 1, atol=1e-12)
    np.testing.assert_allclose((unit[:, :4] * unit[:, 4:]).sum(-1), 0, atol=1e-12)
    torch.testing.assert_close(dq.normalized(unit), unit)
    p, q = torch.randn(2, 50, 3, dtype=torch.float64)
    torch.testing.assert_close((dq.apply(d, p) - dq.apply(d, q)).norm(dim=-1), (p - q).norm(dim=-1))
    # What is not a motion has no effect: length, sign, and a dual part along the real one.
    torch.testing.assert_close(dq.apply(-3 * d, p), dq.apply(d, p))
    along = torch.cat([d[:, :4], d[:, 4:] + 0.7 * d[:, :4]], dim=-1)
    torch.testing.assert_close(dq.apply(along, p), dq.apply(d, p))


def test_dual_quaternions_are_differentiable_even_at_zero():
    d = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    p = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dq.apply, (d, p), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(dq.apply, (d, p))
    zero = torch.zeros(1, 8, requires_grad=True)
    dq.apply(zero, torch.ones(1, 3)).sum().backward()
    assert zero.grad.isfinite().all()


# Weights


@pytest.fixture
def saved(tmp_path):
    model = Neurok(TINY).eval()
    return model, weights.save(
        tmp_path / "tiny.safetensors", model, {"steps": 3, "data": ["boxes"]}
    )


def test_weights_come_back(saved, tmp_path):
    model, path = saved
    again = weights.load(path)
    assert again.config == TINY
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.bfloat16().float())
    assert weights.card(path) == {"steps": 3, "data": ["boxes"]}
    exact = weights.save(tmp_path / "exact.safetensors", model, {}, dtype=torch.float32)
    p = points(1, 20).float()
    assert torch.equal(weights.load(exact).prior(p), model.prior(p))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["exact.safetensors", "tiny.safetensors"]
    (tmp_path / "damaged.safetensors").write_bytes(b"hello")
    shipped = replace(weights.FILE, folder=tmp_path)
    assert shipped.load("tiny").config == TINY
    with pytest.raises(
        ValueError,
        match=r"no 'other'; expected a path to a .safetensors file or one of: exact, tiny$",
    ):
        shipped.load("other")


def test_weights_that_ship_are_named_by_kind():
    assert weights.FILE.names() == ["neurok-small"]
    with pytest.raises(
        ValueError, match=r"no 'choreographer'; expected .* or one of: neurok-small$"
    ):
        weights.load("choreographer")
    assert weights.load("neurok-small").config == SMALL


def refuse(path, match):
    with pytest.raises(ValueError, match=match) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused_in_one_line(saved, tmp_path):
    whole = saved[1].read_bytes()
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:100], b"\xff" * 4096):
        bad.write_bytes(content)
        refuse(bad, "not a readable safetensors file")
    refuse(tmp_path / "none.safetensors", "weights: no file")


def rewritten(path, out, *, tensors=None, **metadata):
    """A copy of a weights file with changed metadata (None removes an entry) or tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        kept = {**file.metadata(), **metadata}
    content = load_file(path)
    (tensors or (lambda t: None))(content)
    save_file(content, out, {k: v for k, v in kept.items() if v is not None})
    return out


def test_files_of_another_kind_or_version_are_refused(saved, tmp_path):
    out = tmp_path / "other.safetensors"
    refuse(rewritten(saved[1], out, format="flowplan motion2vecsets"), "not NeuROK weights")
    refuse(rewritten(saved[1], out, format=None), "not NeuROK weights")
    refuse(rewritten(saved[1], out, version="2"), "weights of version '2', this program reads 1")
    refuse(rewritten(saved[1], out, config=None), "no readable 'config'")
    refuse(rewritten(saved[1], out, config="{"), "no readable 'config'")
    refuse(rewritten(saved[1], out, config="[]"), "'config' is a list")
    refuse(
        rewritten(saved[1], out, config='{"tokens": 6}'),
        "configuration has fields .* too many or too few",
    )
    text = json.dumps({**asdict(TINY), "tokens": -1})
    refuse(rewritten(saved[1], out, config=text), "NeurokConfig.tokens: expected a whole number")


def test_tensors_that_do_not_fit_are_refused(saved, tmp_path):
    out, name = tmp_path / "other.safetensors", "decoder.head.weight"
    refuse(rewritten(saved[1], out, tensors=lambda t: t.pop(name)), f"lacks tensor {name}")
    refuse(
        rewritten(saved[1], out, tensors=lambda t: t.update(extra=torch.zeros(1))),
        "has unknown tensor extra",
    )
    refuse(
        rewritten(saved[1], out, tensors=lambda t: t.update({name: torch.zeros(8, 5)})),
        r"has shape \(8, 5\), its configuration says \(8, 24\)",
    )
    refuse(
        rewritten(saved[1], out, tensors=lambda t: t[name].fill_(float("nan"))),
        "values that are not finite",
    )
