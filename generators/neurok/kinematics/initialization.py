"""Initialization of inverse kinematics: register without a prior, then encode the motion found.

Searched from the object at rest, a lid whose target is far away gets no useful gradient: the
nearest target points belong to the wrong part. Embedded deformation (`registration`, with a coarse
graph) gets there because it may tear the object. The deformation encoder turns its result, noise
and all, into a state of an object that moves as objects do (section 4.1), and the search continues
from that state. Few directions of a reduced space lead there (a laptop's open lid, projected to 64
of them, is off by half its travel), so the space is widened by the direction of the initial latent.
"""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from flowplan.utils.checks import FloatArray
from generators.common.sampling import surface_points
from generators.data.pose_pairs import PosePairs, quat_from_matrix
from generators.neurok.kinematics.registration import RegistrationOptions, registration
from generators.neurok.latent_space.space import LatentSpace

COARSE = RegistrationOptions(points=600, nodes=(60,), iterations=15)
"""Registration that takes a fifth of a second."""
_POINTS = 512
_NEIGHBORS = 12  # neighborhood from whose motion a point's rotation is estimated


@torch.no_grad()
def initial_latent(
    space: LatentSpace,
    mesh: trimesh.Trimesh,
    target: FloatArray,
    options: RegistrationOptions = COARSE,
    *,
    seed: int = 0,
) -> Tensor:
    """A latent (1, K, C) near the one in which a mesh matches a point set.

    Args:
        space: the mesh's states.
        mesh: the object at rest, normalized frame.
        target: (P, 3) points evenly spread over its surface in another pose, same frame.
        options: of the registration.
        seed: random seed of the points drawn on the mesh.
    """
    points, face = surface_points(mesh, _POINTS, seed=seed)
    # Motion of the points with the registered mesh.
    vertices = registration(mesh, target, options, seed=seed)
    weight = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
    moved = np.einsum("pk,pkc->pc", weight, vertices[mesh.faces[face]])
    rotations = local_rotations(points, moved, _NEIGHBORS)
    # Its latent.
    x, y, R = (
        torch.as_tensor(a, dtype=space.rest.dtype, device=space.rest.device)[None]
        for a in (points, moved, rotations)
    )
    return space.posterior(PosePairs(x, y, quat_from_matrix(R)))


def local_rotations(points: FloatArray, moved: FloatArray, neighbors: int) -> FloatArray:
    """Rotations (P, 3, 3) that best map each point's neighborhood to its moved one (Kabsch).

    Args:
        points: (P, 3) before.
        moved: (P, 3) after.
        neighbors: points of a neighborhood.
    """
    count = min(neighbors, len(points))
    near = cKDTree(points).query(points, count)[1].reshape(len(points), -1)
    before, after = (x[near] - x[near].mean(1, keepdims=True) for x in (points, moved))
    U, _, Vt = np.linalg.svd(np.einsum("pki,pkj->pij", after, before))
    U[..., 2] *= np.linalg.det(U @ Vt)[:, None]  # no reflection
    return U @ Vt
