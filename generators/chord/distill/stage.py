"""The scene as an optimizer handles it: in units of its own size, as Gaussians, rendered for a prior.

Everything between a scene and its motion happens in the unit frame, whose origin is the center that the cameras look at
and whose unit is the framed radius. So the paper's learning rates and weights mean the same for a mug as for a table.
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
from generators.chord.render.gaussians import gaussians
from generators.chord.render.paint import rest_position, scene_flow
from generators.chord.render.splat import rasterize

UNIT = Framing(np.zeros(3), 1.0)
"""What cameras of the unit frame look at."""


def unit_scene(scene: Scene, framed: Framing) -> Scene:
    """The scene in the unit frame, names and colors kept."""

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
"""Of every object, positions (T, N_i, 3) in the unit frame and quat_wxyz (T, N_i, 4) of the turn since frame 0."""


@dataclass(frozen=True, eq=False)
class Shot:
    """What V cameras saw of T frames.

    Attributes:
        video: (V, T, H, W, C) in the stage's paint.
        first: (V, h, w, C') the picture that the video begins with.
        flow: (V, T-1, H, W, 3) how far what a pixel shows moves until the next frame, unit frame; premultiplied.
    """

    video: Tensor
    first: Tensor
    flow: Tensor


class Stage:
    """The Gaussians of a unit scene, and how they are rendered.

    Attributes:
        device: where Gaussians are moved and rendered.
        framed: where the unit frame is in the world.
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
        g, objects = self.gaussians, len(scene.objects)
        self._means, self._quats = self.tensor(g.means), self.tensor(g.quat_wxyz)
        self._scales, self._opacities, self._colors = map(
            self.tensor, (g.scales, g.opacities, g.colors)
        )
        count = np.bincount(g.object_id, minlength=objects)
        self._movable = int(count[:objects].sum())
        self.points = self._means[: self._movable].split(count[:objects].tolist())

    def tensor(self, values: FloatArray) -> Tensor:
        """`values` as the optimizer computes with them."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def render(self, moved: Moved, cameras: Cameras, sharpness: int = 1) -> Shot:
        """Each object's Gaussians, moved, and the obstacles', in the paint of a prior.

        Args:
            sharpness: pixels of a first frame along a pixel of a video of scene flow.
        """
        if self._paint == "scene_flow":
            return self._scene_flow(moved, cameras, sharpness)
        means, quats = self._pose(moved)
        flow = torch.cat([means[1:] - means[:-1], torch.zeros_like(means[:1])])
        full = (len(cameras.heading), *means.shape[:2], 3)
        features = torch.cat([self._painted(cameras).expand(full), flow.expand(full)], dim=-1)
        images, alphas = self._rasterize(means, quats, features, cameras)
        shown = images[..., :3] + (1 - alphas)[..., None] * self._options.background
        return Shot(shown, shown[:, 0].detach(), images[:, :-1, ..., 3:])

    def _scene_flow(self, moved: Moved, cameras: Cameras, sharpness: int) -> Shot:
        """Only the first frame is drawn, finely: what is seen in it is what the video is about."""
        positions = torch.cat([positions for positions, _ in moved], dim=1)
        way = functional.pad(positions - positions[:1], (0, 0, 0, len(self._means) - self._movable))
        painted = self._painted(cameras)
        features = torch.cat(
            [painted, way.transpose(0, 1).flatten(1).expand(*painted.shape[:3], -1)], dim=-1
        )
        images, alphas = self._rasterize(
            self._means[None], self._quats[None], features, cameras.finer(sharpness)
        )
        first = torch.cat([images[:, 0, ..., :3], alphas[:, 0, ..., None]], dim=-1).detach()
        fine = images[:, 0, ..., 3:].permute(0, 3, 1, 2)
        way = (
            functional.avg_pool2d(fine, sharpness).permute(0, 2, 3, 1).unflatten(-1, (-1, 3))
        )  # (V, H, W, T, 3)
        steps = (way[..., 1:, :] - way[..., :-1, :]).permute(0, 3, 1, 2, 4)
        return Shot(scene_flow(way, cameras, self._options.cameras.margin), first, steps)

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
        positions, turns = (torch.cat(parts, dim=1) for parts in zip(*moved, strict=True))
        n, frames = self._movable, len(positions)
        means = torch.cat([positions, self._means[n:].expand(frames, -1, -1)], dim=1)
        quats = torch.cat(
            [turned(turns, self._quats[:n]), self._quats[n:].expand(frames, -1, -1)], dim=1
        )
        return means, quats

    def _painted(self, cameras: Cameras) -> Tensor:
        """What Gaussians look like, (V or 1, 1, G, 3): their colors, or where they rest."""
        if self._paint == "color":
            return self._colors[None, None]
        return self.tensor(
            rest_position(self.gaussians.means, cameras, UNIT, self._options.cameras.margin)
        )[:, None]

    def _rasterize(
        self, means: Tensor, quats: Tensor, features: Tensor, cameras: Cameras
    ) -> tuple[Tensor, Tensor]:
        return rasterize(
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


@runtime_checkable
class RenderObserver(Protocol):
    """A prior that wants to know what it will be shown, and from where: a test's."""

    def observe(self, stage: Stage, cameras: Cameras) -> None:
        """Called before a video is rendered from these cameras."""
        ...
