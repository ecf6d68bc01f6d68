"""A first guess at the latent that fits a point set: register without a prior, then ask the network what that motion is.

Searched from the object at rest, a lid that should be somewhere else altogether has nothing to go by: the nearest point
of the target is on the wrong part. Embedded deformation (`baselines.registration`, a coarse graph) gets there because it
may tear the object; the deformation encoder turns what it found, noise and all, into the state of an object that moves
as objects do (section 4.1), and the search goes on from that state. Few directions of a reduced space lead there (a
laptop's open lid, projected to 64 of them, is off by half its way), so the space is widened by the guess's own.
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
"""A registration that is done in a fifth of a second."""
_POINTS = 512
_NEIGHBOURS = 12  # from whose motion a point's rotation is judged


@torch.no_grad()
def guess_latent(
    space: LatentSpace,
    mesh: trimesh.Trimesh,
    target: FloatArray,
    options: RegistrationOptions = COARSE,
    *,
    seed: int = 0,
) -> Tensor:
    """A latent (1, K, C) near the one in which a mesh looks like a point set.

    Args:
        space: the mesh's states.
        mesh: the object at rest, normalised frame.
        target: (P, 3) evenly spread over its surface in another pose, same frame.
        options: of the registration.
        seed: of the points drawn on the mesh.
    """
    points, face = surface_points(mesh, _POINTS, seed=seed)
    vertices = registration(mesh, target, options, seed=seed)
    weight = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
    moved = np.einsum("pk,pkc->pc", weight, vertices[mesh.faces[face]])
    pairs = (points, moved, local_rotations(points, moved, _NEIGHBOURS))
    x, y, R = (
        torch.as_tensor(a, dtype=space.rest.dtype, device=space.rest.device)[None] for a in pairs
    )
    return space.posterior(PosePairs(x, y, quat_from_matrix(R)))


def local_rotations(points: FloatArray, moved: FloatArray, neighbours: int) -> FloatArray:
    """Rotations (P, 3, 3) that best take the neighbourhood of each of points (P, 3) to where it moved (P, 3)."""
    near = cKDTree(points).query(points, min(neighbours, len(points)))[1].reshape(len(points), -1)
    before, after = (x[near] - x[near].mean(1, keepdims=True) for x in (points, moved))
    U, _, Vt = np.linalg.svd(np.einsum("pki,pkj->pij", after, before))
    U[..., 2] *= np.linalg.det(U @ Vt)[:, None]
    return U @ Vt
