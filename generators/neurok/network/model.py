"""The NeuROK network (4.1, C.2): a conditional variational auto-encoder of deformation fields.

Points of a shape M_0 give the prior N(mu_cond, I) over its kinematic states z; points with their
deformations give the posterior; the decoder maps z to a deformation field over M_0's points. To use
a trained model, the prior encoder alone is needed. Everything is in the normalized frame: bounding
box centered at the origin, longest side 2.

Section 4.1 gives the deformation encoder 2 K tokens, appendix C.2 two branches; here they are one
sequence of 2 K tokens that read the points once. The linear log-variance head is Table 5's. If the
codebooks are as wide as a latent token, the mean is the tokens themselves; otherwise a linear layer
maps them to the bottleneck's channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from generators.common import dual_quaternion
from generators.common.attention import KeysValues, PerceiverBlock, QueryBlock, RMSNorm
from generators.common.embedding import PointEmbedding
from generators.neurok.network.config import NeurokConfig

if TYPE_CHECKING:
    from generators.data.pose_pairs import PosePairs

Context = tuple[KeysValues, ...]
"""The part of the decoder that is independent of the query points: keys and values for each block
in which they read it."""


class Shape(NamedTuple):
    """Output of the prior encoder for a shape."""

    mean: Tensor
    """(B, K, C) mean of the prior over z."""
    tokens: Tensor
    """(B, K, encoder width) features of the shape; the decoder sees them if `condition_decoder`."""


class Encoder(nn.Module):
    """Learned tokens that read embedded points.

    From (..., N, inputs) to features (..., tokens, encoder width). The points are a set: neither
    their order nor, apart from sampling, their number matters.
    """

    def __init__(self, config: NeurokConfig, inputs: int, tokens: int) -> None:
        super().__init__()
        width, reading = config.encoder_width, config.encoder_point_blocks
        self.embedding = PointEmbedding(inputs, config.frequencies, config.point_width)
        self.norm = RMSNorm()
        # About as large as what a block adds: the tokens are distinct from the start, but do not
        # dominate the output.
        self.codebook = nn.Parameter(torch.randn(tokens, width) * 0.5)
        self.blocks = nn.ModuleList(
            PerceiverBlock(
                width, config.heads, config.mlp_ratio, config.point_width if i < reading else None
            )
            for i in range(config.encoder_blocks)
        )

    def forward(self, points: Tensor) -> Tensor:
        source = self.norm(self.embedding(points))  # (..., N, point width)
        x = self.codebook.expand(*points.shape[:-2], -1, -1)
        for block in self.blocks:
            x = block(x, source)
        return x


class Decoder(nn.Module):
    """From latents to a field over points.

    Blocks of self-attention on the latents; after the last ones the points read them. Points never
    attend to each other, so the motion of a point is a function of the point and z alone: it must
    not depend on which other points happen to be queried, or a mesh and its subdivision, a particle
    set and the same set with one point more would move differently, and the derivative of one
    particle by z would depend on the others. It also allows the attention on the latents to be done
    once for any number of points (`context`).
    """

    def __init__(self, config: NeurokConfig) -> None:
        super().__init__()
        width, heads = config.decoder_width, config.heads
        self.latent = nn.Linear(config.channels, width)
        with torch.no_grad():
            # As large as what the blocks add: learning starts twice as fast.
            self.latent.weight.mul_(3.0)
        # Features of the shape, if the decoder sees them.
        self.seen = (
            nn.Linear(config.encoder_width, width, bias=False) if config.condition_decoder else None
        )
        self.embedding = PointEmbedding(3, config.frequencies, width)
        self.blocks = nn.ModuleList(
            PerceiverBlock(width, heads, config.mlp_ratio) for _ in range(config.decoder_blocks)
        )
        self.queries = nn.ModuleList(
            QueryBlock(width, heads, config.query_mlp_ratio)
            for _ in range(config.decoder_point_blocks)
        )
        self.norm = RMSNorm()
        self.head = nn.Linear(width, config.deformation_width)
        # Small, so that an untrained field hardly moves anything; not zero, which would block all
        # other gradients.
        nn.init.normal_(self.head.weight, std=0.002 / width**0.5)
        nn.init.zeros_(self.head.bias)

    def tokens(self, z: Tensor, shape: Shape) -> Tensor:
        """Tokens (B, K, width) of latents z (B, K, C)."""
        x = self.latent(z)
        # The KL ties token k of z to token k of the shape's mean, so the two are added.
        return x if self.seen is None else x + self.seen(shape.tokens)

    def context(self, z: Tensor, shape: Shape) -> Context:
        """Keys and values for the query points, from latents z (B, K, C)."""
        x = self.tokens(z, shape)
        # The first blocks are not read by the query points.
        unread = len(self.blocks) - len(self.queries)
        for block in self.blocks[:unread]:
            x = block(x)
        out = []
        for block, query in zip(self.blocks[unread:], self.queries, strict=True):
            x = block(x)
            out.append(cast(QueryBlock, query).keys_values(x))
        return tuple(out)

    def field(self, context: Context, embedded: Tensor) -> Tensor:
        """Field (B, M, 8 or 3) at embedded query points (..., M, width), less the rest."""
        x = embedded.expand(*context[0][0].shape[:-3], -1, -1)
        for block, keys_values in zip(self.queries, context, strict=True):
            x = block(x, keys_values)
        return self.output(x)

    def output(self, x: Tensor) -> Tensor:
        """Field of the last features (..., width) of query points."""
        return _in_float32(self.head, self.norm(x))


class Neurok(nn.Module):
    """The three networks.

    Points are (B, N, 3), latents (B, K, C), deformations (B, N, 8), or (B, N, 3) displacements.
    """

    rest: Tensor

    def __init__(self, config: NeurokConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.encoder_width, config.channels
        self.prior_encoder = Encoder(config, 3, config.tokens)
        self.posterior_encoder = Encoder(config, 3 + config.deformation_width, 2 * config.tokens)
        self.prior_mean = nn.Linear(width, channels) if width != channels else nn.Identity()
        self.posterior_mean = nn.Linear(width, channels) if width != channels else nn.Identity()
        self.log_variance = nn.Linear(width, channels)
        # Nearly deterministic at first. With a standard deviation of 1 the decoder reads noise and
        # learns to ignore z, and the divergence, which Adam follows however small its weight,
        # pulls the posterior to the prior.
        nn.init.constant_(self.log_variance.bias, -6.0)
        with torch.no_grad():
            self.log_variance.weight.mul_(0.1)
        self.decoder = Decoder(config)
        rest = torch.eye(8)[0] if config.deformation == "dual_quaternion" else torch.zeros(3)
        self.register_buffer("rest", rest, persistent=False)

    def encode_shape(self, points: Tensor) -> Shape:
        """Prior and features of a shape, from points (B, N, 3) of its surface."""
        tokens = self.prior_encoder(points)
        return Shape(_in_float32(self.prior_mean, tokens), tokens)

    def prior(self, points: Tensor) -> Tensor:
        """Mean (B, K, C) of the prior N(mean, I) over states, from surface points (B, N, 3)."""
        return self.encode_shape(points).mean

    def posterior(self, points: Tensor, deformation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, K, C) of the states, given how points moved.

        Args:
            points: (B, N, 3) surface points at rest.
            deformation: (B, N, 8 or 3) their motions.
        """
        both = self.posterior_encoder(torch.cat([points, deformation], dim=-1))  # (B, 2 K, width)
        mean, spread = both.chunk(2, dim=-2)
        log_variance = _in_float32(self.log_variance, spread)
        return (
            _in_float32(self.posterior_mean, mean),
            clamp_above(log_variance, self.config.log_variance_max),
        )

    def context(self, z: Tensor, shape: Shape) -> Context:
        """The part of `decode` that is independent of the query points; read by `field`."""
        return self.decoder.context(z, shape)

    def embed(self, points: Tensor) -> Tensor:
        """The part of `decode` that is independent of z.

        Features (..., M, decoder width) of query points (..., M, 3).
        """
        return self.decoder.embedding(points)

    def field(self, context: Context, points: Tensor) -> Tensor:
        """Deformations (B, M, 8 or 3) of query points.

        Args:
            context: of B states.
            points: (B, M, 3), or (M, 3) for all states; each point is decoded by itself.
        """
        return self.field_of(context, self.embed(points))

    def field_of(self, context: Context, embedded: Tensor) -> Tensor:
        """`field` of query points that are already embedded."""
        return self.rest + self.decoder.field(context, embedded)

    def deformation(self, features: Tensor) -> Tensor:
        """Deformations of the decoder's last features (..., decoder width) of query points."""
        return self.rest + self.decoder.output(features)

    def decode(self, z: Tensor, points: Tensor, shape: Shape) -> Tensor:
        """Deformations of query points in states z (B, K, C) of a shape (its batch is B or 1)."""
        return self.field(self.context(z, shape), points)


def moved(points: Tensor, deformation: Tensor) -> Tensor:
    """Points (..., 3) after dual quaternions (..., 8) or displacements (..., 3)."""
    if deformation.shape[-1] == 3:
        return points + deformation
    return dual_quaternion.apply(deformation, points)


def clamp_above(x: Tensor, bound: float) -> Tensor:
    """Smooth upper bound: bound - softplus(bound - x), about x well below `bound`."""
    return bound - functional.softplus(bound - x)


@dataclass(frozen=True)
class LossOptions:
    """Weights of the terms of the training loss."""

    kl_weight: Annotated[float, Interval(0, 1000)] = 0.01
    """Weight (lambda of eq. 1) of the divergence between posterior and prior. The divergence is
    averaged over latent dimensions: summed, it outweighs the reconstruction a thousandfold and the
    latent collapses."""
    point_weight: Annotated[float, Interval(0, 1000)] = 1.0
    """Weight of the squared error of the moved points beside that of the deformation's own numbers.
    The numbers alone weigh a rotation about a far pivot differently from one about a near pivot,
    though both move the points as far."""
    balance: Annotated[float, Interval(1e-6, 1000)] | None = None
    """Typical motion, normalized units, below which small motions and small parts gain weight: see
    `balance`. None to weigh every point and pair alike (the paper)."""

    def __post_init__(self) -> None:
        bounds.check(self)


class Losses(NamedTuple):
    """Scalars; only `total` is to be differentiated."""

    total: Tensor
    """reconstruction + kl_weight * kl."""
    reconstruction: Tensor
    """Squared error of the deformation, summed over its numbers, plus point_weight times that of
    the moved point; mean over points, weighted if `LossOptions.balance` is given."""
    kl: Tensor
    """Divergence of the posterior from N(mu_cond, I) per latent dimension, nats."""
    point_error: Tensor
    """Mean distance between a moved point and its true place, normalized frame."""


def target(config: NeurokConfig, pairs: PosePairs) -> Tensor:
    """Deformations (B, N, 8 or 3) that take `pairs.points` to `pairs.moved`."""
    if config.deformation == "displacement":
        return pairs.moved - pairs.points
    return dual_quaternion.from_points(pairs.points, pairs.moved, pairs.quat_wxyz)


def elbo(
    model: Neurok,
    pairs: PosePairs,
    generator: torch.Generator | None = None,
    options: LossOptions | None = None,
) -> Losses:
    """Training loss (eq. 1): reconstruct a pair's deformation through a sample of its posterior.

    Args:
        model: the network.
        pairs: pairs of poses.
        generator: random numbers of the posterior's sample, on the pairs' device. Defaults to
            torch's own.
        options: see LossOptions.
    """
    options = options or LossOptions()
    true = target(model.config, pairs)

    # Encode, sample, decode.
    shape = model.encode_shape(pairs.points)
    mean, log_variance = model.posterior(pairs.points, true)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    z = mean + (0.5 * log_variance).exp() * noise
    predicted = model.decode(z, pairs.points, shape)

    # d and -d are one motion: compare with the nearer, so that a field may pass a half turn
    # without a jump.
    if model.config.deformation == "dual_quaternion":
        agree = (predicted[..., :4] * true[..., :4]).sum(-1, keepdim=True) >= 0
        true = torch.where(agree, true, -true)

    # Errors of the deformation's numbers and of the moved points.
    off = moved(pairs.points, predicted) - pairs.moved
    error = (predicted - true).square().sum(-1) + options.point_weight * off.square().sum(-1)
    if options.balance is not None:
        error = error * balance(pairs, options.balance)
    reconstruction = error.mean()
    divergence = kl(mean, log_variance, shape.mean)
    total = reconstruction + options.kl_weight * divergence
    return Losses(total, reconstruction, divergence, off.detach().norm(dim=-1).mean())


def balance(pairs: PosePairs, typical: float) -> Tensor:
    """Weights (B, N) under which a tap's handle is learned as well as a laptop's lid.

    Half of a pair's weight goes to its points in proportion to how far they move, however few do. A
    pair whose moving part moves by D weighs (1 + c^2) / (D^2 + c^2), with c = `typical`: 1 for
    large motions, more for small ones.
    """
    travel = (pairs.moved - pairs.points).norm(dim=-1)  # (B, N)
    mean = travel.mean(-1, keepdim=True)
    part = travel.square().mean(-1, keepdim=True) / (mean + 1e-6)  # D
    share = (1 + travel / (mean + 1e-3)) / 2
    return share * (1 + typical**2) / (part.square() + typical**2)


def kl(mean: Tensor, log_variance: Tensor, prior_mean: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) | N(prior_mean, 1)), nats per batch entry and dimension."""
    return 0.5 * (log_variance.exp() + (mean - prior_mean).square() - 1 - log_variance).mean()


def _in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """An output layer in full precision under autocast.

    bfloat16's three digits are too few for positions and the divergence.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x if x.dtype == torch.float64 else x.float())
