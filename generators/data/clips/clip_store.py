"""Pose pairs of recorded animations: two random frames of one clip (section 4.2).

A clip is reduced to points fixed to its surface: their positions in every frame, and the rotations
    of
the material there since the first. The rotation between two frames is then R_b R_a^-1, exact
wherever the material moves rigidly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from generators.common.dual_quaternion import conjugate, multiply
from generators.data.clips.clip import Clip
from generators.data.pose_pairs import PosePairs


@dataclass(frozen=True)
class ClipOptions:
    """Samples kept of every clip."""

    points: Annotated[int, Interval(1, 10**6)] = 1024
    """Surface points, area-uniform in the first frame."""
    frames: Annotated[int, Interval(2, 10**6)] = 24
    """Frames, evenly spaced; a shorter clip repeats some."""

    def __post_init__(self) -> None:
        bounds.check(self)


class ClipStore:
    """C clips as (C, F, P) points and rotations, ready to draw pose pairs from.

    Attributes:
        names: of the C clips.
        position: (C, F, P, 3) points, the clip's own unit and frame.
        quat_wxyz: (C, F, P, 4) rotation of the material since frame 0.
        box: (C, F, 2, 3) least and greatest corner of the mesh.
    """

    def __init__(
        self, names: tuple[str, ...], position: Tensor, quat_wxyz: Tensor, box: Tensor
    ) -> None:
        self.names, self.position, self.quat_wxyz, self.box = names, position, quat_wxyz, box

    @classmethod
    def build(
        cls, clips: Iterable[Clip], options: ClipOptions | None = None, *, seed: int = 0
    ) -> ClipStore:
        """Sample every clip's surface and find its rotations.

        Raises:
            ValueError: if there is no clip.
        """
        options = options or ClipOptions()
        names, records = [], []
        for index, clip in enumerate(clips):
            names.append(clip.name)
            records.append(_record(clip, options, np.random.default_rng((seed, index))))
        if not records:
            raise ValueError("clips: got none, expected at least one")
        tables = [
            torch.from_numpy(np.stack(part).astype(np.float32))
            for part in zip(*records, strict=True)
        ]
        return cls(tuple(names), *tables)

    def to(self, device: torch.device | str) -> ClipStore:
        """The same store on another device."""
        return ClipStore(
            self.names, self.position.to(device), self.quat_wxyz.to(device), self.box.to(device)
        )

    def sample(self, batch: int, points: int, generator: torch.Generator) -> PosePairs:
        """Pairs of frames of uniformly drawn clips, normalized by the box of the first frame.

        Args:
            batch: number of pairs.
            points: points of a pair.
            generator: random numbers, on the store's device.
        """
        device = self.position.device

        def integers(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        C, F, P = self.position.shape[:3]
        clip, a = integers(C, batch), integers(F, batch)
        b = (a + 1 + integers(F - 1, batch)) % F  # another frame
        # One point from each of `points` equal stretches of the pool.
        offset = torch.rand(batch, points, generator=generator, device=device)
        start = torch.arange(points, device=device) + offset
        pick = (start * (P / points)).long().clamp(max=P - 1)
        box = self.box[clip, a]
        center, scale = box.mean(1)[:, None], 2 / (box[:, 1] - box[:, 0]).amax(1)[:, None, None]

        def frame(table: Tensor, index: Tensor) -> Tensor:
            return table[clip[:, None], index[:, None], pick]

        p, m = ((frame(self.position, f) - center) * scale for f in (a, b))
        quat = multiply(frame(self.quat_wxyz, b), conjugate(frame(self.quat_wxyz, a)))
        return PosePairs(p, m, torch.where(quat[..., :1] < 0, -quat, quat))


def _record(
    clip: Clip, options: ClipOptions, rng: np.random.Generator
) -> tuple[NDArray, NDArray, NDArray]:
    """Points (F, P, 3), rotations since frame 0 (F, P, 4) and boxes (F, 2, 3) of one clip."""
    frames = np.linspace(0, len(clip) - 1, options.frames).round().astype(int)
    vertices = clip.vertices[frames]
    corners = vertices[0][clip.faces]
    # Points drawn evenly by area, as barycentric weights of a face's corners.
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    face = clip.faces[rng.choice(len(area), options.points, p=area / area.sum())]  # (P, 3)
    u, v = rng.random((2, options.points))
    root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
    weight = np.stack([1 - root, root * (1 - v), root * v], -1)
    position = np.einsum("pk,fpkc->fpc", weight, vertices[:, face])
    # Mean of the corners' rotations, with the sign of the first.
    rotations = {f: clip.rotations(0, f) for f in np.unique(frames)}
    corner = np.stack([rotations[f] for f in frames])[:, face]  # (F, P, 3 corners, 4)
    corner = np.where((corner * corner[:, :, :1]).sum(-1, keepdims=True) < 0, -corner, corner)
    quat = np.einsum("pk,fpkc->fpc", weight, corner)
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    return position, quat, np.stack([vertices.min(1), vertices.max(1)], 1)
