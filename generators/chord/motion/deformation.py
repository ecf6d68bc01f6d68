"""Motion of objects by few control points, each with a Fenwick tree over frames.

CHORD, 3.3, eq. 5-11. A control point at p rotates by R^t about itself and moves by T^t. A point mu
follows its K nearest control points,

    mu^t = sum_k beta_k (R_k^t (mu - p_k) + p_k + T_k^t),  q^t = (sum_k beta_k r_k^t) q,  eq. 5, 6

with beta_k proportional to exp(-d_k^2 / 2), where d_k is the distance in the metric of the control
point's covariance (eq. 7). The covariance is learned, p is not. T_k^t and r_k^t are sums of Fenwick
nodes; the identity is added to the sum of quaternions before it is normalized (eq. 11), since all
nodes are zero at first. The fine level's displacement of a rest point, mu^t - mu, and its rotation,
r^t - 1, are added to those of the coarse level (eq. 8, 9).

Everything is computed as displacement, sum_k beta_k ((R_k^t - 1)(mu - p_k) + T_k^t), so that frame
0 is the rest shape exactly. Nodes of translations are in units of the scene's radius: one learning
rate then suits a cup and a kitchen, and the paper's 0.006, for scenes of about unit size, keeps its
meaning. Quaternions and logarithms of scales have no unit.
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
    """Points bound to the control points of one level."""

    points: Tensor
    """(N, 4) homogeneous, relative to the scene's center, in radii."""
    nearest: Tensor
    """(N, K) indices of their control points."""


@dataclass(frozen=True, eq=False)
class Binding:
    """Points bound to control points.

    Attributes:
        points: (N, 3) of all objects in turn, at rest, world frame, meters.
        sizes: number of points of each object.
        levels: the points as bound in each level.
    """

    points: Tensor
    sizes: tuple[int, ...]
    levels: tuple[_Reach, ...]


class Deformation(nn.Module):
    """The motion of a scene's objects, to be optimized; initially at rest.

    Attributes:
        frames: T.
        radius: half the diagonal of the box around all objects, meters: the unit of translations.
    """

    def __init__(
        self, anatomies: Sequence[Anatomy], frames: int, options: DeformationOptions | None = None
    ) -> None:
        """Control points of the moving objects, in the order of the scene, all at rest."""
        super().__init__()
        if not anatomies:
            raise ValueError(
                "anatomies: expected at least one object, got none; give those that may move"
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
        """Bind points at rest to the control points near them.

        Args:
            points: (N_i, 3) of every object, world frame, meters.
        """
        if len(points) != self.objects:
            raise ValueError(
                f"points: expected those of {self.objects} objects, got {len(points)}; "
                "give some for each"
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
        """Positions and rotations of bound points in every frame.

        Args:
            binding: from `bind`.
            fine: add the fine level's residual; otherwise its parameters get no gradient. Ignored
                if there is only one level.

        Returns:
            For every object, positions (T, N_i, 3), world frame, meters, and unit quaternions
            (T, N_i, 4) of the rotation since frame 0, which `turned` applies to orientations.
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
        """Make all frames after `frame` equal to it, and keep the others (split schedule, A.1).

        Args:
            frame: last frame that is kept, 0 to T-1.
            optimizer: its averages of the later frames' gradients are reset.
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
        """Parameters by learning rate: "motion" (trees), "scale" and "rotation" (covariances)."""
        levels = self._levels()
        return {
            "motion": [p for level in levels for p in (level.translation, level.rotation)],
            "scale": [level.log_scale for level in levels],
            "rotation": [level.quat_wxyz for level in levels],
        }

    def _levels(self) -> list[_Level]:
        return [level for level in self.levels if isinstance(level, _Level)]


class _Level(nn.Module):
    """Control points (P, 3) of all objects, with trees and covariances; lengths in radii."""

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
            tree = cKDTree(controls.cpu().numpy())
            _, index = tree.query(own.cpu().numpy(), k=range(1, self.neighbors + 1))
            out.append(torch.as_tensor(index) + start)
            start += len(controls)
        return torch.cat(out).to(self.points.device)

    def forward(self, reach: _Reach) -> tuple[Tensor, Tensor]:
        """Displacements (T, N, 3) in radii, and blended quaternions (T, N, 4) minus identity."""
        # Translations and quaternions of the control points in every frame.
        T = torch.tensordot(self.query, self.translation, 1)  # (T, P, 3)
        r = torch.tensordot(self.query, self.rotation, 1) + _identity(self.points)
        r = functional.normalize(r, dim=-1)  # (T, P, 4)

        # The displacement (R - 1)(mu - p) + T as an affine map A mu + b of the rest point mu.
        A = rotation_minus_identity(r)  # (T, P, 3, 3)
        b = T - (A * self.points[:, None]).sum(-1)  # (T, P, 3)

        # Blend the maps of each point's control points, and apply them.
        beta = self.weights(reach)  # (N, K)
        affine = _blend(torch.cat([A, b[..., None]], dim=-1), reach.nearest, beta)  # (N, T, 3, 4)
        moves = (affine.flatten(1, 2) @ reach.points[..., None]).unflatten(1, (-1, 3))[..., 0]
        return moves.transpose(0, 1), _blend(r - _identity(r), reach.nearest, beta).transpose(0, 1)

    def weights(self, reach: _Reach) -> Tensor:
        """Blend weights (N, K): normalized exp(-d^2 / 2) in the control points' metrics (eq. 7)."""
        offset = reach.points[:, None, :3] - self.points[reach.nearest]  # (N, K, 3)
        quats = functional.normalize(self.quat_wxyz, dim=-1)
        axes = rotation_minus_identity(quats) + torch.eye(3).to(offset)  # (P, 3, 3)
        whiten = (axes * (-self.log_scale).exp()[:, None]).transpose(-1, -2)  # (P, 3, 3)
        d = torch.einsum("nkab,nkb->nka", whiten[reach.nearest], offset)
        # Softmax: far from all control points the exponentials underflow, but not their ratios.
        return torch.softmax(-0.5 * d.square().sum(-1), dim=-1)

    def hold(self, tree: Tensor, frame: int) -> None:
        """Set later frames of a tree's nodes (T-1, P, ...) to `frame`; nodes up to it stay."""
        motion = torch.tensordot(self.query, tree, 1)
        motion[frame:] = motion[frame].clone()
        tree[frame:] = torch.tensordot(self.nodes, motion, 1)[frame:]


def turned(quats: Tensor, rest: Tensor) -> Tensor:
    """Orientations (T, N, 4): `rest` (N, 4) at frame 0, then rotated by `quats` (eq. 6)."""
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


def rotation_minus_identity(quat_wxyz: Tensor) -> Tensor:
    """R - 1 (..., 3, 3) of unit quaternions (..., 4), without cancellation near the identity."""
    w, x, y, z = quat_wxyz.unbind(-1)
    rows = [
        [-(y * y + z * z), x * y - w * z, x * z + w * y],
        [x * y + w * z, -(x * x + z * z), y * z - w * x],
        [x * z - w * y, y * z + w * x, -(x * x + y * y)],
    ]
    return 2 * torch.stack([torch.stack(row, -1) for row in rows], -2)


def _blend(values: Tensor, nearest: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (N, T, ...) of control points' values (T, P, ...) over each point's K nearest.

    Args:
        values: (T, P, ...) of the control points.
        nearest: (N, K) indices of control points.
        weights: (N, K).
    """
    table = values.transpose(0, 1)
    out = functional.embedding_bag(
        nearest, table.flatten(1), per_sample_weights=weights, mode="sum"
    )
    return out.unflatten(1, table.shape[1:])


def _identity(like: Tensor) -> Tensor:
    return torch.eye(4, dtype=like.dtype, device=like.device)[0]
