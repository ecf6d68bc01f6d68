"""Random meshing: edges are split at random places without a change of the surface.

Two objects of one shape are then not meshed alike.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray

Faces = NDArray[np.int64]


def split_edges(
    vertices: FloatArray, faces: Faces, longest: float, rng: np.random.Generator, most_faces: int
) -> tuple[FloatArray, Faces]:
    """Vertices and triangles after splitting every edge longer than `longest` (m), the surface
    unchanged and closed.

    An edge is split at a random place in its middle third, once for both its triangles; it goes on
    until no edge is too long or the next round would exceed `most_faces`.
    """
    while True:
        ends = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], axis=-1)
        length = np.linalg.norm(vertices[ends[..., 0]] - vertices[ends[..., 1]], axis=-1)
        split = length > longest
        if not split.any() or len(faces) + split.sum() > most_faces:
            return vertices, faces
        keys, index = np.unique(ends[split] @ [len(vertices), 1], return_inverse=True)
        low, high = np.divmod(keys, len(vertices))
        t = rng.uniform(1 / 3, 2 / 3, (len(keys), 1))
        middle = np.full(split.shape, -1)
        middle[split] = len(vertices) + index
        vertices = np.concatenate([vertices, (1 - t) * vertices[low] + t * vertices[high]])
        count = split.sum(1)
        # Turn each triangle until its first edge is split and, of two split ones, the last is the
        # whole one.
        first = np.where(count == 2, (np.argmin(split, axis=1) + 1) % 3, np.argmax(split, axis=1))
        turn = (first[:, None] + np.arange(3)) % 3
        f, m = np.take_along_axis(faces, turn, 1), np.take_along_axis(middle, turn, 1)
        (a, b, c), (ab, bc, ca) = f.T, m.T
        one, two, three = count == 1, count == 2, count == 3
        faces = np.concatenate(
            [
                f[count == 0],
                *(np.stack(t, 1)[one] for t in ((a, ab, c), (ab, b, c))),
                *(np.stack(t, 1)[two] for t in ((ab, b, bc), (a, ab, c), (ab, bc, c))),
                *(
                    np.stack(t, 1)[three]
                    for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
                ),
            ]
        )


def remesh(
    mesh: trimesh.Trimesh, rng: np.random.Generator, most_faces: int = 2500
) -> trimesh.Trimesh:
    """The same surface with random edges split: half of the time as it is, else down to a random
    longest edge."""
    if rng.random() < 0.5 or len(mesh.faces) == 0:
        return mesh
    longest = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0))) * rng.uniform(0.08, 0.5)
    vertices, faces = split_edges(
        np.asarray(mesh.vertices), np.asarray(mesh.faces), longest, rng, most_faces
    )
    return trimesh.Trimesh(vertices, faces, process=False)
