"""Motion of objects by few control points, each with a Fenwick tree over frames (CHORD, 3.3, eq. 5-11).

A control point at p turns by R^t about itself and moves by T^t. A point mu follows its K nearest control points,

    mu^t = sum_k beta_k (R_k^t (mu - p_k) + p_k + T_k^t),        q^t = (sum_k beta_k r_k^t) q,          eq. 5, 6

with beta_k proportional to exp(-d_k^2 / 2), d_k the distance by the control point's own covariance (eq. 7), which is
learned, while p is not. T_k^t and r_k^t are sums of Fenwick nodes; to the sum of quaternions the identity is added
before it is normalized (eq. 11), since all nodes are zero to begin with. The fine level adds what it moves a rest point
by, mu^t - mu and r^t - 1, to what the coarse level made of it (eq. 8, 9).

Everything is computed as displacement, sum_k beta_k ((R_k^t - 1)(mu - p_k) + T_k^t): frame 0 is the rest shape to the
last bit. Nodes of translations are in units of the scene's radius: one learning rate then does for a cup and for a
kitchen, and the paper's 0.006, for scenes of about unit size, means what it does there. Quaternions, and logarithms of
scales, have no unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from flowplan.utils.checks import FloatArray
from generators.chord.motion.control_points import Anatomy
from generators.chord.motion.fenwick import node_matrix, query_matrix
from generators.chord.options import DeformationOptions


class _Reach(NamedTuple):
    """Points (N, 4) homogeneous, of the scene's center and radius, and the control points (N, K) that they follow."""

    points: Tensor
    nearest: Tensor


@dataclass(frozen=True, eq=False)
class Binding:
    """Which control points some points follow, and how.

    Attributes:
        points: (N, 3) of all objects in turn, at rest, world frame, meters.
        sizes: points of each object.
        levels: what each level knows of them.
    """

    points: Tensor
    sizes: tuple[int, ...]
    levels: tuple[_Reach, ...]


class Deformation(nn.Module):
    """The motion of a scene's objects, to be optimized; at rest to begin with.

    Attributes:
        frames: T.
        radius: half the diagonal of the box around all objects, meters: the unit of translations.
    """

    def __init__(
        self, anatomies: Sequence[Anatomy], frames: int, options: DeformationOptions | None = None
    ) -> None:
        """`anatomies` are of the objects that move, in the order of the scene."""
        super().__init__()
        if not anatomies:
            raise ValueError(
                "anatomies: expected at least one object, got none; a motion needs something to move"
            )
        options = options or DeformationOptions()
        lower = np.min([a.surface.min(0) for a in anatomies], axis=0)
        upper = np.max([a.surface.max(0) for a in anatomies], axis=0)
        self.frames = frames
        self.objects = len(anatomies)
        self.radius = 0.5 * float(np.linalg.norm(upper - lower))
        self.center: Tensor
        self.register_buffer("center", torch.as_tensor(0.5 * (lower + upper), dtype=torch.float32))
        parts = {
            "coarse": [(a.coarse, a.coarse_scale) for a in anatomies],
            "fine": [(a.fine, a.fine_scale) for a in anatomies],
        }
        used = parts if options.levels == "both" else [options.levels]
        self.levels = nn.ModuleList(
            _Level(parts[name], frames, 0.5 * (lower + upper), self.radius, options)
            for name in used
        )

    def bind(self, points: Sequence[Tensor]) -> Binding:
        """Tie points to the control points near them, once, at rest.

        Args:
            points: (N_i, 3) of every object, world frame, meters.
        """
        if len(points) != self.objects:
            raise ValueError(
                f"points: expected those of {self.objects} objects, got {len(points)}; give some for each"
            )
        points = [p.detach().to(self.center) for p in points]
        whole = torch.cat(points)
        normalized = functional.pad((whole - self.center) / self.radius, (0, 1), value=1.0)
        nearest = [
            level.nearest([(p - self.center) / self.radius for p in points])
            for level in self._levels()
        ]
        return Binding(
            whole, tuple(map(len, points)), tuple(_Reach(normalized, k) for k in nearest)
        )

    def forward(self, binding: Binding, *, fine: bool) -> list[tuple[Tensor, Tensor]]:
        """Where bound points are in every frame, and how they have turned.

        Args:
            binding: of `bind`.
            fine: with the fine level's residual; without, its parameters get no gradient. Where there is one level
                only, it makes no difference.

        Returns:
            Of every object, positions (T, N_i, 3) in the world, meters, and unit quaternions (T, N_i, 4) of the turn
            since frame 0: `turned` makes orientations of them.
        """
        active = list(zip(self._levels(), binding.levels, strict=True))[: None if fine else 1]
        moves, turns = zip(*(level(reach) for level, reach in active), strict=True)
        positions = binding.points + self.radius * sum(moves)
        quats = sum(turns) + _identity(binding.points)
        quats = functional.normalize(quats, dim=-1)
        return list(
            zip(
                positions.split(binding.sizes, dim=1),
                quats.split(binding.sizes, dim=1),
                strict=True,
            )
        )

    @torch.no_grad()
    def restart_after(self, frame: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Make all frames after `frame` equal to it; it and those before stay as they are (split schedule, A.1).

        Args:
            frame: the last that is kept, 0 to T-1.
            optimizer: its averages of the later frames' gradients are forgotten, where it has any.
        """
        if not 0 <= frame < self.frames:
            raise ValueError(f"frame: expected 0 to {self.frames - 1}, got {frame}")
        for level in self._levels():
            for parameter in (level.translation, level.rotation):
                level.hold(parameter, frame)
                for value in optimizer.state[parameter].values() if optimizer is not None else ():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value[frame:] = 0

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by their learning rate: "motion" (the trees), "scale" and "rotation" of the covariances."""
        levels = self._levels()
        return {
            "motion": [p for level in levels for p in (level.translation, level.rotation)],
            "scale": [level.log_scale for level in levels],
            "rotation": [level.quat_wxyz for level in levels],
        }

    def _levels(self) -> list[_Level]:
        return [level for level in self.levels if isinstance(level, _Level)]


class _Level(nn.Module):
    """Control points (P, 3) of all objects in turn, their trees and covariances; lengths in scene radii."""

    def __init__(
        self,
        parts: Sequence[tuple[FloatArray, FloatArray]],
        frames: int,
        center: FloatArray,
        radius: float,
        options: DeformationOptions,
    ) -> None:
        super().__init__()
        self.sizes = [len(points) for points, _ in parts]
        self.neighbors = min(options.neighbors, *self.sizes)
        points = (np.concatenate([points for points, _ in parts]) - center) / radius
        scale = np.concatenate([scale for _, scale in parts]) / radius
        fenwick = options.temporal == "fenwick"
        query = query_matrix(frames) if fenwick else np.eye(frames)[:, 1:]
        nodes = node_matrix(frames) if fenwick else np.eye(frames)[1:]
        count = len(points)
        self.points: Tensor
        self.query: Tensor
        self.nodes: Tensor
        for name, value in (("points", points), ("query", query), ("nodes", nodes)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        self.translation = nn.Parameter(torch.zeros(frames - 1, count, 3))
        self.rotation = nn.Parameter(torch.zeros(frames - 1, count, 4))
        self.log_scale = nn.Parameter(torch.as_tensor(scale).float().log()[:, None].repeat(1, 3))
        self.quat_wxyz = nn.Parameter(_identity(self.points).repeat(count, 1))

    def nearest(self, points: Sequence[Tensor]) -> Tensor:
        """Indices (N, K) of the nearest control points of the same object."""
        out, start = [], 0
        for own, controls in zip(points, self.points.split(self.sizes), strict=True):
            index = cKDTree(controls.cpu().numpy()).query(
                own.cpu().numpy(), k=range(1, self.neighbors + 1)
            )[1]
            out.append(torch.as_tensor(index) + start)
            start += len(controls)
        return torch.cat(out).to(self.points.device)

    def forward(self, reach: _Reach) -> tuple[Tensor, Tensor]:
        """Displacements (T, N, 3) in radii, and blended quaternions less the identity (T, N, 4)."""
        T = torch.tensordot(self.query, self.translation, 1)
        r = functional.normalize(
            torch.tensordot(self.query, self.rotation, 1) + _identity(self.points), dim=-1
        )
        A = turn_less_identity(r)  # (T, P, 3, 3)
        b = T - (A * self.points[:, None]).sum(-1)
        beta = self.weights(reach)
        affine = _blend(torch.cat([A, b[..., None]], dim=-1), reach.nearest, beta)  # (N, T, 3, 4)
        moves = (affine.flatten(1, 2) @ reach.points[..., None]).unflatten(1, (-1, 3))[..., 0]
        return moves.transpose(0, 1), _blend(r - _identity(r), reach.nearest, beta).transpose(0, 1)

    def weights(self, reach: _Reach) -> Tensor:
        """Blend weights (N, K): exp(-d^2 / 2) in the control points' own metrics, normalized (eq. 7)."""
        offset = reach.points[:, None, :3] - self.points[reach.nearest]
        axes = turn_less_identity(functional.normalize(self.quat_wxyz, dim=-1)) + torch.eye(3).to(
            offset
        )
        whiten = (axes * (-self.log_scale).exp()[:, None]).transpose(-1, -2)  # (P, 3, 3)
        d = torch.einsum("nkab,nkb->nka", whiten[reach.nearest], offset)
        # Far from all control points every exponential is zero; their ratios, by softmax, are not.
        return torch.softmax(-0.5 * d.square().sum(-1), dim=-1)

    def hold(self, tree: Tensor, frame: int) -> None:
        """Make what the nodes (T-1, P, ...) say of later frames what they say of `frame`; nodes up to it stay."""
        motion = torch.tensordot(self.query, tree, 1)
        motion[frame:] = motion[frame].clone()
        tree[frame:] = torch.tensordot(self.nodes, motion, 1)[frame:]


def turned(quats: Tensor, rest: Tensor) -> Tensor:
    """Orientations quat_wxyz (T, N, 4) of what had `rest` (N, 4) at frame 0 and has turned by `quats` since (eq. 6)."""
    w, x, y, z = quats.unbind(-1)
    a, b, c, d = rest.unbind(-1)
    return torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        dim=-1,
    )


def turn_less_identity(quat_wxyz: Tensor) -> Tensor:
    """R - 1 (..., 3, 3) of unit quaternions (..., 4), without cancellation near the identity."""
    w, x, y, z = quat_wxyz.unbind(-1)
    rows = [
        [-(y * y + z * z), x * y - w * z, x * z + w * y],
        [x * y + w * z, -(x * x + z * z), y * z - w * x],
        [x * z - w * y, y * z + w * x, -(x * x + y * y)],
    ]
    return 2 * torch.stack([torch.stack(row, -1) for row in rows], -2)


def _blend(values: Tensor, nearest: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (N, T, ...) of what control points (T, P, ...) say, over the nearest (N, K) of every point."""
    table = values.transpose(0, 1)
    out = functional.embedding_bag(
        nearest, table.flatten(1), per_sample_weights=weights, mode="sum"
    )
    return out.unflatten(1, table.shape[1:])


def _identity(like: Tensor) -> Tensor:
    return torch.eye(4, dtype=like.dtype, device=like.device)[0]
