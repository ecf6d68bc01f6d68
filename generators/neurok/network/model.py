"""The NeuROK network (section 4.1, appendix C.2): a conditional variational auto-encoder of deformation fields.

Points of a shape M_0 give the prior N(mu_cond, I) over its kinematic states z; points with their deformations give the
posterior; the decoder turns z into a deformation field over M_0's points. The prior encoder alone is needed to use a
trained model. All is in the normalised frame: bounding box centred at the origin, longest side 2.

Section 4.1 gives the deformation encoder 2 K tokens, appendix C.2 two branches; here they are one sequence of 2 K tokens
that read the points once. The linear log-variance head is Table 5's; where the codebooks are as wide as a latent token
the mean is the tokens themselves, else a linear layer brings them to the bottleneck's channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from generators.common import dual_quaternion
from generators.common.attention import KeysValues, PerceiverBlock, QueryBlock, RMSNorm
from generators.common.embedding import PointEmbedding
from generators.neurok.network.config import NeurokConfig

if TYPE_CHECKING:
    from generators.data.pose_pairs import PosePairs

Context = tuple[KeysValues, ...]
"""All of the decoder that does not depend on the query points: keys and values for each block in which they read it."""


class Shape(NamedTuple):
    """What the prior encoder makes of a shape."""

    mean: Tensor
    """(B, K, C) mean of the prior over z."""
    tokens: Tensor
    """(B, K, encoder width) features of the shape; the decoder sees them where `condition_decoder` is set."""


class Encoder(nn.Module):
    """Learned tokens that read embedded points: (..., N, inputs) to features (..., tokens, encoder width).

    The points are a set: neither their order nor, apart from sampling, their number matters.
    """

    def __init__(self, config: NeurokConfig, inputs: int, tokens: int) -> None:
        super().__init__()
        width, reading = config.encoder_width, config.encoder_point_blocks
        self.embedding = PointEmbedding(inputs, config.frequencies, config.point_width)
        self.norm = RMSNorm()
        # About as large as what a block adds: distinct from the start, and not what the output is made of.
        self.codebook = nn.Parameter(torch.randn(tokens, width) * 0.5)
        self.blocks = nn.ModuleList(
            PerceiverBlock(
                width, config.heads, config.mlp_ratio, config.point_width if i < reading else None
            )
            for i in range(config.encoder_blocks)
        )

    def forward(self, points: Tensor) -> Tensor:
        source = self.norm(self.embedding(points))
        x = self.codebook.expand(*points.shape[:-2], -1, -1)
        for block in self.blocks:
            x = block(x, source)
        return x


class Decoder(nn.Module):
    """Latents to a field over points. Blocks of self-attention on the latents; after the last ones points read them.

    Points never attend to each other, so the motion of a point is a function of the point and z alone: it must not
    depend on which other points happen to be asked, or a mesh and its subdivision, a particle set and the same set with
    one point more would move differently, and the derivative of one particle by z would depend on the others. It is
    also what lets the attention on the latents be done once for any number of points (`context`).
    """

    def __init__(self, config: NeurokConfig) -> None:
        super().__init__()
        width, heads = config.decoder_width, config.heads
        self.latent = nn.Linear(config.channels, width)
        with torch.no_grad():
            self.latent.weight.mul_(
                3.0
            )  # as loud as what the blocks add: learning starts twice as fast
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
        # Small, so that an untrained field hardly moves anything; not zero, which would hold up all other gradients.
        nn.init.normal_(self.head.weight, std=0.002 / width**0.5)
        nn.init.zeros_(self.head.bias)

    def tokens(self, z: Tensor, shape: Shape) -> Tensor:
        x = self.latent(z)
        # The KL ties token k of z to token k of the shape's mean, so the two start as one.
        return x if self.seen is None else x + self.seen(shape.tokens)

    def context(self, z: Tensor, shape: Shape) -> Context:
        x = self.tokens(z, shape)
        silent = len(self.blocks) - len(self.queries)
        for block in self.blocks[:silent]:
            x = block(x)
        out = []
        for block, query in zip(self.blocks[silent:], self.queries, strict=True):
            x = block(x)
            out.append(cast(QueryBlock, query).keys_values(x))
        return tuple(out)

    def field(self, context: Context, embedded: Tensor) -> Tensor:
        x = embedded.expand(*context[0][0].shape[:-3], -1, -1)
        for block, keys_values in zip(self.queries, context, strict=True):
            x = block(x, keys_values)
        return self.written(x)

    def written(self, x: Tensor) -> Tensor:
        return _in_float32(self.head, self.norm(x))


class Neurok(nn.Module):
    """The three networks. Points are (B, N, 3); latents (B, K, C); deformations (B, N, 8), or (B, N, 3) displacements."""

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
        # Nearly certain at first. With a spread of 1 what the decoder reads is noise, it learns to ignore z, and the
        # divergence, which Adam follows however small its weight, takes the posterior to the prior.
        nn.init.constant_(self.log_variance.bias, -6.0)
        with torch.no_grad():
            self.log_variance.weight.mul_(0.1)
        self.decoder = Decoder(config)
        rest = torch.eye(8)[0] if config.deformation == "dual_quaternion" else torch.zeros(3)
        self.register_buffer("rest", rest, persistent=False)

    def encode_shape(self, points: Tensor) -> Shape:
        """The prior of a shape, and its features, from points (B, N, 3) of its surface."""
        tokens = self.prior_encoder(points)
        return Shape(_in_float32(self.prior_mean, tokens), tokens)

    def prior(self, points: Tensor) -> Tensor:
        """Mean (B, K, C) of the prior N(mean, I) over the states of the shape with surface points (B, N, 3)."""
        return self.encode_shape(points).mean

    def posterior(self, points: Tensor, deformation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, K, C) of the states in which points (B, N, 3) have moved by `deformation`."""
        both = self.posterior_encoder(torch.cat([points, deformation], dim=-1))
        mean, spread = both.chunk(2, dim=-2)
        log_variance = _in_float32(self.log_variance, spread)
        return _in_float32(self.posterior_mean, mean), clamp_above(
            log_variance, self.config.log_variance_max
        )

    def context(self, z: Tensor, shape: Shape) -> Context:
        """All of `decode` that the query points do not enter: done once, then read by `field` as often as wanted."""
        return self.decoder.context(z, shape)

    def embed(self, points: Tensor) -> Tensor:
        """All of `decode` that z does not enter: features (..., M, decoder width) of query points (..., M, 3)."""
        return self.decoder.embedding(points)

    def field(self, context: Context, points: Tensor) -> Tensor:
        """Deformations (B, M, 8 or 3) of query points (B, M, 3), or (M, 3) for all of the batch; each by itself."""
        return self.field_of(context, self.embed(points))

    def field_of(self, context: Context, embedded: Tensor) -> Tensor:
        """The same of query points that have been embedded before."""
        return self.rest + self.decoder.field(context, embedded)

    def deformation(self, features: Tensor) -> Tensor:
        """What the decoder's last features (..., decoder width) of query points say of their motion."""
        return self.rest + self.decoder.written(features)

    def decode(self, z: Tensor, points: Tensor, shape: Shape) -> Tensor:
        """Deformations of query points in states z (B, K, C) of a shape (its batch is B or 1)."""
        return self.field(self.context(z, shape), points)


def moved(points: Tensor, deformation: Tensor) -> Tensor:
    """Points (..., 3) after deformations (..., 8), dual quaternions, or (..., 3), displacements."""
    return (
        points + deformation
        if deformation.shape[-1] == 3
        else dual_quaternion.apply(deformation, points)
    )


def clamp_above(x: Tensor, bound: float) -> Tensor:
    """x well below `bound`, nearing it smoothly from below: bound - softplus(bound - x)."""
    return bound - functional.softplus(bound - x)


@dataclass(frozen=True)
class LossOptions:
    """What the parts of the training loss weigh."""

    kl_weight: float = 0.01
    """Weight (lambda of eq. 1) of the divergence between posterior and prior. It is averaged over latent dimensions:
    summed, it outweighs the reconstruction a thousandfold and the latent collapses."""
    point_weight: float = 1.0
    """Weight of the squared error of the moved points beside that of the deformation's own numbers; the numbers alone
    weigh a turn about a far pivot unlike one about a near pivot, though both move the points as far."""
    balance: float | None = None
    """Motion, normalised units, about which small motions and small parts count as large ones do: see `balance`. None
    to count every point and pair alike (the paper)."""


class Losses(NamedTuple):
    """Scalars; only `total` is to be differentiated."""

    total: Tensor
    """reconstruction + kl_weight * kl."""
    reconstruction: Tensor
    """Squared error of the deformation, summed over its numbers, plus point_weight times that of the moved point;
    mean over points, weighted where `LossOptions.balance` says so."""
    kl: Tensor
    """Divergence of the posterior from N(mu_cond, I) per latent dimension, nats."""
    point_error: Tensor
    """Mean distance between a moved point and where it should be, normalised frame."""


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
    """Training loss (eq. 1) of pairs of poses: reconstruct the deformation through a sample of its posterior.

    Args:
        generator: of the posterior's sample, on the pairs' device; torch's own if not given.
    """
    options = options or LossOptions()
    true = target(model.config, pairs)
    shape = model.encode_shape(pairs.points)
    mean, log_variance = model.posterior(pairs.points, true)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    predicted = model.decode(mean + (0.5 * log_variance).exp() * noise, pairs.points, shape)
    if model.config.deformation == "dual_quaternion":
        # d and -d are one motion: compare with the nearer, so that a field may pass a half turn without a jump.
        agree = (predicted[..., :4] * true[..., :4]).sum(-1, keepdim=True) >= 0
        true = torch.where(agree, true, -true)
    off = moved(pairs.points, predicted) - pairs.moved
    error = (predicted - true).square().sum(-1) + options.point_weight * off.square().sum(-1)
    if options.balance is not None:
        error = error * balance(pairs, options.balance)
    reconstruction = error.mean()
    divergence = kl(mean, log_variance, shape.mean)
    point_error = off.detach().norm(dim=-1).mean()
    return Losses(
        reconstruction + options.kl_weight * divergence, reconstruction, divergence, point_error
    )


def balance(pairs: PosePairs, typical: float) -> Tensor:
    """(B, N) weights under which a tap's handle is learned as well as a laptop's lid.

    Half of a pair's weight goes to its points in proportion to how far they move, however few do; and a pair whose
    moving part moves by D counts (1 + c^2) / (D^2 + c^2), with c = `typical`: 1 for large motions, more for small ones.
    """
    way = (pairs.moved - pairs.points).norm(dim=-1)
    mean = way.mean(-1, keepdim=True)
    part = way.square().mean(-1, keepdim=True) / (mean + 1e-6)
    share = (1 + way / (mean + 1e-3)) / 2
    return share * (1 + typical**2) / (part.square() + typical**2)


def kl(mean: Tensor, log_variance: Tensor, prior_mean: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) | N(prior_mean, 1)), averaged over batch and latent dimensions, nats."""
    return 0.5 * (log_variance.exp() + (mean - prior_mean).square() - 1 - log_variance).mean()


def _in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """An output layer in full precision under autocast: bfloat16's three digits are too few for positions and KL."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x if x.dtype == torch.float64 else x.float())
