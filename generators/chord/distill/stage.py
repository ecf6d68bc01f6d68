"""The scene in units of its own size, as Gaussians, rendered for a prior.

Everything between a scene and its motion happens in the unit frame: its origin is the point that
the cameras look at, and its unit of length is the framed radius. So the paper's learning rates and
weights mean the same for a mug and for a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from flowplan.geometry import pose
from flowplan.motion import Progress, silent
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray
from generators.chord.motion.deformation import turned
from generators.chord.options import StageOptions
from generators.chord.priors.protocol import Paint
from generators.chord.render.cameras import Cameras, Framing, framing
from generators.chord.render.compositor import Splats
from generators.chord.render.gaussians import gaussians
from generators.chord.render.paint import rest_position, scene_flow
from generators.chord.render.splat import rasterize

UNIT = Framing(np.zeros(3), 1.0)
"""The framing of the unit frame."""


def unit_scene(scene: Scene, framed: Framing) -> Scene:
    """The scene in the unit frame, with the same names and colors."""

    def unit(obj: SceneObject) -> SceneObject:
        mesh = obj.mesh.copy()
        mesh.apply_scale(1 / framed.radius)
        X = obj.X_world_object
        return SceneObject(obj.name, mesh, pose(X[:3, :3], to_unit(X[:3, 3], framed)))

    support = scene.support_height
    return Scene(
        tuple(map(unit, scene.objects)),
        None if support is None else float((support - framed.center[2]) / framed.radius),
        tuple(map(unit, scene.obstacles)),
    )


def to_unit(points: FloatArray, framed: Framing) -> FloatArray:
    """World points (..., 3) in the unit frame."""
    return (points - framed.center) / framed.radius


Moved = Sequence[tuple[Tensor, Tensor]]
"""For every object, positions (T, N_i, 3) in the unit frame, and quat_wxyz (T, N_i, 4) of the
rotation since frame 0."""


@dataclass(frozen=True, eq=False)
class Shot:
    """Images of T frames from V cameras.

    Attributes:
        video: (V, T, H, W, C) in the stage's paint.
        first: (V, h, w, C') first frame of the video.
        flow: (V, T-1, H, W, 3) displacement until the next frame of the matter that a pixel shows,
            unit frame; premultiplied by alpha.
    """

    video: Tensor
    first: Tensor
    flow: Tensor


class Stage:
    """The Gaussians of a unit scene, and their rendering.

    Attributes:
        device: where Gaussians are moved and rendered.
        framed: the ball that the unit frame is made of, world frame.
        scene: in the unit frame.
        gaussians: of its objects, then of its obstacles, in the unit frame.
        points: means (N_i, 3) of each object's Gaussians at rest.
    """

    def __init__(
        self,
        scene: Scene,
        paint: Paint,
        options: StageOptions,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        self.device = torch.device(device)
        self.framed = framing(scene, options.cameras)
        self.scene = unit_scene(scene, self.framed)
        self.gaussians = gaussians(
            self.scene,
            options.gaussians,
            framed=UNIT,
            cameras=options.cameras,
            seed=seed,
            progress=progress,
        )
        self._paint, self._options = paint, options

        g = self.gaussians
        self._means = self.tensor(g.means)  # (G, 3)
        self._quats = self.tensor(g.quat_wxyz)  # (G, 4)
        self._scales = self.tensor(g.scales)  # (G, 3)
        self._opacities = self.tensor(g.opacities)  # (G,)
        self._colors = self.tensor(g.colors)  # (G, 3)

        # The objects' Gaussians come first, and only they move.
        objects = len(scene.objects)
        counts = np.bincount(g.object_id, minlength=objects)[:objects]
        self._movable = int(counts.sum())
        self.points = self._means[: self._movable].split(counts.tolist())

    def tensor(self, values: FloatArray) -> Tensor:
        """`values` in float32 on the stage's device."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def render(self, moved: Moved, cameras: Cameras, sharpness: int = 1) -> Shot:
        """Render the objects' moved Gaussians and the obstacles' in the paint of a prior.

        Args:
            moved: the motion.
            cameras: V cameras.
            sharpness: pixels of a first frame along a pixel of a video of scene flow.
        """
        if self._paint == "scene_flow":
            return self._scene_flow(moved, cameras, sharpness)
        means, quats = self._pose(moved)
        flow = torch.cat([means[1:] - means[:-1], torch.zeros_like(means[:1])])  # (T, G, 3)

        # Colors and flow are rendered together, as six features.
        full = (len(cameras.heading), *means.shape[:2], 3)
        features = torch.cat([self._painted(cameras).expand(full), flow.expand(full)], dim=-1)
        images, alphas = self._rasterize(means, quats, features, cameras)
        shown = images[..., :3] + (1 - alphas)[..., None] * self._options.background
        return Shot(shown, shown[:, 0].detach(), images[:, :-1, ..., 3:])

    def _scene_flow(self, moved: Moved, cameras: Cameras, sharpness: int) -> Shot:
        """Render only the first frame, at high resolution: the video is about what it shows."""
        # Displacements of all Gaussians since frame 0; those of obstacles are zero.
        positions = torch.cat([positions for positions, _ in moved], dim=1)
        still = len(self._means) - self._movable
        displacement = functional.pad(positions - positions[:1], (0, 0, 0, still))  # (T, G, 3)

        # Rest positions and the displacements of all frames are the features of one image.
        painted = self._painted(cameras)
        all_frames = displacement.transpose(0, 1).flatten(1)  # (G, 3 T)
        features = torch.cat([painted, all_frames.expand(*painted.shape[:3], -1)], dim=-1)
        images, alphas = self._rasterize(
            self._means[None], self._quats[None], features, cameras.finer(sharpness)
        )
        first = torch.cat([images[:, 0, ..., :3], alphas[:, 0, ..., None]], dim=-1).detach()

        # The video has fewer pixels: means over squares of the fine image.
        fine = images[:, 0, ..., 3:].permute(0, 3, 1, 2)  # (V, 3 T, h, w)
        coarse = functional.avg_pool2d(fine, sharpness).permute(0, 2, 3, 1)
        coarse = coarse.unflatten(-1, (-1, 3))  # (V, H, W, T, 3)
        steps = (coarse[..., 1:, :] - coarse[..., :-1, :]).permute(0, 3, 1, 2, 4)
        return Shot(scene_flow(coarse, cameras, self._options.cameras.margin), first, steps)

    @torch.no_grad()
    def show(self, moved: Moved, cameras: Cameras) -> NDArray[np.uint8]:
        """Images (V, T, H, W, 3) for people."""
        means, quats = self._pose(moved)
        features = self._painted(cameras)
        if self._paint == "scene_flow":
            features = (features + 1) / 2
        images, alphas = self._rasterize(means, quats, features, cameras)
        images = images + (1 - alphas)[..., None]
        return (255 * images.clamp(0, 1)).round().byte().cpu().numpy()

    def _pose(self, moved: Moved) -> tuple[Tensor, Tensor]:
        """Means (T, G, 3) and quaternions (T, G, 4) of all Gaussians."""
        positions, rotations = (torch.cat(parts, dim=1) for parts in zip(*moved, strict=True))
        n, frames = self._movable, len(positions)
        still_means = self._means[n:].expand(frames, -1, -1)
        still_quats = self._quats[n:].expand(frames, -1, -1)
        means = torch.cat([positions, still_means], dim=1)
        quats = torch.cat([turned(rotations, self._quats[:n]), still_quats], dim=1)
        return means, quats

    def _painted(self, cameras: Cameras) -> Tensor:
        """The paint (V or 1, 1, G, 3) of all Gaussians: their colors, or their rest positions."""
        if self._paint == "color":
            return self._colors[None, None]
        margin = self._options.cameras.margin
        return self.tensor(rest_position(self.gaussians.means, cameras, UNIT, margin))[:, None]

    def _rasterize(
        self, means: Tensor, quats: Tensor, features: Tensor, cameras: Cameras
    ) -> tuple[Tensor, Tensor]:
        splats = Splats(
            means,
            quats,
            self._scales,
            self._opacities,
            features,
            self.tensor(cameras.viewmats),
            self.tensor(cameras.Ks),
            cameras.width,
            cameras.height,
        )
        return rasterize(splats)


@runtime_checkable
class RenderObserver(Protocol):
    """A prior that is told what will be rendered, and from where (for tests)."""

    def observe(self, stage: Stage, cameras: Cameras) -> None:
        """Called before a video is rendered from these cameras."""
        ...
