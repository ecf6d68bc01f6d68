"""Rigging of objects' meshes: control points, points that follow them, and the clouds of ARAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from flowplan.utils.checks import FloatArray
from generators.chord.motion.connected_pieces import Labels, bodies
from generators.chord.motion.control_points import NEIGHBORS, Anatomy, anatomy
from generators.chord.motion.deformation import Binding, Deformation
from generators.chord.options import LEAST_SURFACE, ControlOptions, DeformationOptions

_MIN_CONTROLS = 4
"""Control points of a piece, at least: as many as a point follows."""


class Bound(NamedTuple):
    """Points of all objects, bound to control points.

    Attributes:
        binding: of the points sorted by piece.
        back: for every object, (N_i,) indices of its points among the sorted ones.
    """

    binding: Binding
    back: tuple[Tensor, ...]


class Rig:
    """The motion of a scene's objects, to be optimized.

    Attributes:
        deformation: its parameters; its objects are the connected pieces.
        clouds: (S_i, 3) points near the surface of each object, in the meshes' frame.
        neighbors: (S, 10) nearest points of the same piece, for all clouds in turn.
        contacts: (E, 2) pairs of nearby points of pieces that touch, for all clouds in turn.
    """

    def __init__(
        self,
        meshes: Sequence[trimesh.Trimesh],
        frames: int,
        control: ControlOptions,
        options: DeformationOptions,
        *,
        seed: int,
    ) -> None:
        self._bodies = [bodies(mesh, control.pieces) for mesh in meshes]
        self.clouds: list[FloatArray] = []
        self._labels: list[Labels] = []
        anatomies: list[Anatomy] = []
        neighbors: list[Labels] = []
        contacts: list[Labels] = []
        for whole in self._bodies:
            # Every piece gets its share of the control points.
            own = [
                anatomy(m, _share(control, m.area / whole.mesh.area), seed=seed)
                for m in whole.meshes
            ]
            cloud = np.concatenate([a.surface for a in own])
            sizes = [len(a.surface) for a in own]
            label = np.repeat(np.arange(len(own)), sizes)

            # Indices of neighbors and contacts count through the clouds of all objects.
            start = sum(len(c) for c in self.clouds)
            first = start + np.cumsum([0, *sizes[:-1]])
            neighbors += [a.neighbors + f for a, f in zip(own, first, strict=True)]
            contacts.append(_contacts(cloud, label, whole.touching) + start)
            self._labels.append(label)
            self.clouds.append(cloud)
            anatomies += own
        self.neighbors = np.concatenate(neighbors)
        self.contacts = np.concatenate(contacts)
        self.deformation = Deformation(anatomies, frames, options)

    def bind(self, points: Sequence[FloatArray]) -> Bound:
        """Bind each object's cloud, and then points (N_i, 3) on or near its mesh.

        A point follows control points of its own piece.
        """
        labels = [
            np.concatenate([own, b.of(p)])
            for own, b, p in zip(self._labels, self._bodies, points, strict=True)
        ]
        clouds_and_points = [np.concatenate(x) for x in zip(self.clouds, points, strict=True)]
        return self._bind(clouds_and_points, labels)

    def bind_vertices(self) -> Bound:
        """Bind every mesh's vertices."""
        vertices = [np.asarray(b.mesh.vertices) for b in self._bodies]
        return self._bind(vertices, [b.vertex for b in self._bodies])

    def __call__(self, bound: Bound, *, fine: bool) -> list[tuple[Tensor, Tensor]]:
        """For every object, positions (T, N_i, 3) and quat_wxyz (T, N_i, 4); see Deformation."""
        pieces = self.deformation(bound.binding, fine=fine)
        positions, quats = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
        return [
            (positions.index_select(1, back), quats.index_select(1, back)) for back in bound.back
        ]

    def _bind(self, points: Sequence[FloatArray], labels: Sequence[Labels]) -> Bound:
        device = self.deformation.center.device
        pieces, back, start = [], [], 0
        for p, own, b in zip(points, labels, self._bodies, strict=True):
            # Sorted by piece, and the way back.
            order = np.argsort(own, kind="stable")
            back.append(torch.as_tensor(start + np.argsort(order), device=device))
            ends = np.searchsorted(own[order], np.arange(1, b.count))
            parts = np.split(p[order], ends)
            pieces += [torch.as_tensor(part, dtype=torch.float32, device=device) for part in parts]
            start += len(p)
        return Bound(self.deformation.bind(pieces), tuple(back))


def _contacts(cloud: FloatArray, label: Labels, touching: NDArray[np.bool_]) -> Labels:
    """Pairs (E, 2) of points of a cloud (S, 3) whose pieces touch.

    The second point of a pair would be among the first one's nearest neighbors if all pieces that
    touch its own were one.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for piece, touched in enumerate(touching):
        own, reached = np.flatnonzero(label == piece), np.flatnonzero(touched[label])
        # The first neighbor of a point is itself.
        nearest = cKDTree(cloud[reached]).query(cloud[own], k=NEIGHBORS + 1)[1][:, 1:]
        around = reached[nearest]  # (points of the piece, 10)
        point, which = np.nonzero(label[around] != piece)
        pairs.append(np.stack([own[point], around[point, which]], axis=1))
    return np.concatenate(pairs)


def _share(options: ControlOptions, share: float) -> ControlOptions:
    """The options of a piece with this share of its object's area."""
    return replace(
        options,
        coarse=max(min(_MIN_CONTROLS, options.coarse), round(share * options.coarse)),
        fine=max(min(_MIN_CONTROLS, options.fine), round(share * options.fine)),
        surface_points=max(LEAST_SURFACE, round(share * options.surface_points)),
    )
