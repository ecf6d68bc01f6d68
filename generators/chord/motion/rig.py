"""Objects' meshes rigged: control points, what follows them, and the clouds that are to stay as rigid as possible."""

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

_FEWEST = 4  # control points of a piece: as many as a point follows


class Bound(NamedTuple):
    """Points of all objects, tied to control points.

    Attributes:
        binding: of the points sorted by piece.
        back: of every object, (N_i,) where its points are among those sorted.
    """

    binding: Binding
    back: tuple[Tensor, ...]


class Rig:
    """The motion of a scene's objects, to be optimized.

    Attributes:
        deformation: its parameters; see Deformation. It knows the objects' connected pieces, not the objects.
        clouds: (S_i, 3) near the surface of each object, in the meshes' frame.
        neighbors: (S, 10) of all clouds in turn, of the same piece.
        contacts: (E, 2) points of all clouds in turn, and such that are near them and of a piece that touches theirs.
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
            own = [
                anatomy(m, _share(control, m.area / whole.mesh.area), seed=seed)
                for m in whole.meshes
            ]
            cloud = np.concatenate([a.surface for a in own])
            start = sum(len(c) for c in self.clouds)
            label = np.repeat(np.arange(len(own)), [len(a.surface) for a in own])
            first = start + np.cumsum([0, *(len(a.surface) for a in own[:-1])])
            neighbors += [a.neighbors + f for a, f in zip(own, first, strict=True)]
            contacts.append(_contacts(cloud, label, whole.touching) + start)
            self._labels.append(label)
            self.clouds.append(cloud)
            anatomies += own
        self.neighbors = np.concatenate(neighbors)
        self.contacts = np.concatenate(contacts)
        self.deformation = Deformation(anatomies, frames, options)

    def bind(self, points: Sequence[FloatArray]) -> Bound:
        """Tie each object's cloud, and then points (N_i, 3) on or near its mesh, to control points of their pieces."""
        labels = [
            np.concatenate([own, b.of(p)])
            for own, b, p in zip(self._labels, self._bodies, points, strict=True)
        ]
        return self._bind(
            [np.concatenate(both) for both in zip(self.clouds, points, strict=True)], labels
        )

    def bind_vertices(self) -> Bound:
        """Tie every mesh's vertices to control points."""
        return self._bind(
            [np.asarray(b.mesh.vertices) for b in self._bodies], [b.vertex for b in self._bodies]
        )

    def __call__(self, bound: Bound, *, fine: bool) -> list[tuple[Tensor, Tensor]]:
        """Of every object, positions (T, N_i, 3) and quat_wxyz (T, N_i, 4); see Deformation."""
        pieces = self.deformation(bound.binding, fine=fine)
        positions, quats = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
        return [
            (positions.index_select(1, back), quats.index_select(1, back)) for back in bound.back
        ]

    def _bind(self, points: Sequence[FloatArray], labels: Sequence[Labels]) -> Bound:
        device = self.deformation.center.device
        pieces, back, start = [], [], 0
        for p, own, b in zip(points, labels, self._bodies, strict=True):
            order = np.argsort(own, kind="stable")
            back.append(torch.as_tensor(start + np.argsort(order), device=device))
            parts = np.split(p[order], np.searchsorted(own[order], np.arange(1, b.count)))
            pieces += [torch.as_tensor(part, dtype=torch.float32, device=device) for part in parts]
            start += len(p)
        return Bound(self.deformation.bind(pieces), tuple(back))


def _contacts(cloud: FloatArray, label: Labels, touching: NDArray[np.bool_]) -> Labels:
    """Pairs (E, 2) of points of a cloud (S, 3) whose pieces touch.

    A pair is of a point and one that would be among its nearest, were all pieces that touch its own one with it.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for piece, touched in enumerate(touching):
        own, reached = np.flatnonzero(label == piece), np.flatnonzero(touched[label])
        around = reached[cKDTree(cloud[reached]).query(cloud[own], k=NEIGHBORS + 1)[1][:, 1:]]
        point, which = np.nonzero(label[around] != piece)
        pairs.append(np.stack([own[point], around[point, which]], axis=1))
    return np.concatenate(pairs)


def _share(options: ControlOptions, share: float) -> ControlOptions:
    """What a piece with this share of its object's area gets."""
    return replace(
        options,
        coarse=max(min(_FEWEST, options.coarse), round(share * options.coarse)),
        fine=max(min(_FEWEST, options.fine), round(share * options.fine)),
        surface_points=max(LEAST_SURFACE, round(share * options.surface_points)),
    )
