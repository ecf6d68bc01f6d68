"""A prior that knows the answer: the optimizer's test, free of any video model's taste.

At every noise level it sees through the noise to z*, the video of the true motion from the same
cameras, and answers with the velocity of the straight line from there, v = (z_tau - z*) / tau. Then
v - eps + z = (z - z*) / tau: the gradient of W-RFSDS points from the answer to what is, and is zero
where they agree.
"""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from flowplan.geometry import quat_wxyz_from_matrix
from flowplan.motion import SceneMotion
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d
from generators.chord.distill.stage import Stage, to_unit
from generators.chord.priors.protocol import Paint
from generators.chord.render.cameras import Cameras

_UNIT: dict[Paint, float] = {"color": 0.5, "scene_flow": 0.12}


class Oracle:
    """A `VideoPrior` of one motion of one scene.

    Attributes:
        frames, height, width, sharpness, paint, guidance, device: see VideoPrior; frames are those
            of the motion.
    """

    guidance = (1.0, 1.0)
    sharpness = 1
    device = torch.device("cpu")

    def __init__(
        self, truth: SceneMotion, *, height: int = 48, width: int = 48, paint: Paint = "scene_flow"
    ) -> None:
        self.frames, self.height, self.width, self.paint = len(truth.times), height, width, paint
        self._truth = truth
        self._stage: Stage | None = None
        self._moved: list[tuple[Tensor, Tensor]] = []
        self._answer: Tensor | None = None

    def observe(self, stage: Stage, cameras: Cameras) -> None:
        """Be told what will be rendered, and from where, before every iteration."""
        if stage is not self._stage:
            self._stage = stage
            self._moved = []
            for obj, vertices, points in zip(
                stage.scene.objects, self._truth.vertices, stage.points, strict=True
            ):
                positions, turns = carry(
                    obj.mesh_world, to_unit(vertices, stage.framed), points.cpu().double().numpy()
                )
                self._moved.append((stage.tensor(positions), stage.tensor(turns)))
        with torch.no_grad():
            self._answer = self.encode(stage.render(self._moved, cameras).video)

    def condition(self, text: str, first: Tensor, *, seed: int = 0) -> Tensor:
        """The answer (V, T, H, W, C), whatever the sentence.

        Raises:
            ValueError: where nobody has said what to look at.
        """
        if self._answer is None:
            raise ValueError(
                "Oracle.condition: call observe first, with the cameras to render from"
            )
        return self._answer

    def encode(self, video: Tensor) -> Tensor:
        """Videos (V, T, H, W, C) in units of about their standard deviation, as latents are."""
        return video / _UNIT[self.paint]

    def velocity(self, z_tau: Tensor, tau: float, condition: Tensor, *, guidance: float) -> Tensor:
        """v = (z_tau - z*) / tau; there is nothing to guide."""
        return (z_tau - condition) / tau


def carry(
    mesh: trimesh.Trimesh, vertices: FloatArray, points: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """How points (N, 3) on or near a mesh go along with its vertices (T, V, 3): positions (T, N,
    3), quat_wxyz (T, N, 4).

    A point keeps its place in the frame of the nearest face at rest.
    """
    found = raycasting_scene(mesh).compute_closest_points(
        open3d().core.Tensor(points.astype(np.float32))
    )
    corners = mesh.faces[found["primitive_ids"].numpy().astype(np.int64)]
    uv = found["primitive_uvs"].numpy().astype(float)
    weight = np.column_stack([1 - uv.sum(1), uv])
    nearest = np.einsum("nk,nkc->nc", weight, mesh.vertices[corners])
    R_rest, R = _face_frames(mesh.vertices[corners]), _face_frames(vertices[:, corners])
    offset = np.einsum("nji,nj->ni", R_rest, points - nearest)
    positions = np.einsum("nk,tnkc->tnc", weight, vertices[:, corners]) + np.einsum(
        "tnij,nj->tni", R, offset
    )
    return positions, quat_wxyz_from_matrix(R @ np.swapaxes(R_rest, -1, -2))


def _face_frames(triangles: FloatArray) -> FloatArray:
    """Rotations (..., 3, 3) of triangles (..., 3, 3): edge, normal, and across."""
    edge = triangles[..., 1, :] - triangles[..., 0, :]
    normal = np.cross(edge, triangles[..., 2, :] - triangles[..., 0, :])
    edge, normal = (
        a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12) for a in (edge, normal)
    )
    return np.stack([edge, normal, np.cross(edge, normal)], axis=-1)
