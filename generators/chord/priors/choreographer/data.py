"""Training data: tables of the scenes of one split, and videos of them, rendered on demand.

Thousands of scenes fit in memory: points at rest, the motion of every body, and the embeddings of
sentences. The camera and one of the sentences that describe the motion are drawn anew each time. A
scene is mirrored half of the time, unless the sentence mentions left or right, or implies one of
them as turning on a valve does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import generators
from flowplan.motion import Progress, silent
from flowplan.utils import text_files
from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.choreographer.render import MovingPoints, random_cameras, render
from generators.chord.priors.choreographer.scenes import scenes
from generators.chord.priors.choreographer.scenes.articulated_kinds import ARTICULATED
from generators.chord.priors.choreographer.scenes.prompted import PointScene, sampled
from generators.chord.priors.choreographer.scenes.sentences import ways
from generators.common import text_encoder

_HANDED = re.compile(r"\b(left|right|clockwise|anticlockwise|counterclockwise)", re.IGNORECASE)
_HANDED_KINDS = {name for name, kind in ARTICULATED.items() if kind.style == "valve"}
_STORED = ("points", "body", "X", "said", "text")
WAYS = 128
"""Maximum number of sentences for a scene of the split "train"."""
_MIRROR = (-1.0, 1.0, 1.0, 1.0)
"""Factors of mirrored channels: x, y, z in the heading frame, and alpha."""


@dataclass(frozen=True, eq=False)
class SceneTable:
    """S scenes of one kind.

    Attributes:
        kind: one of `scenes.KINDS`.
        sentences: N different ones.
        tables: "points" (S, 1 or T, P, 3) float16, in radii of the framed ball from its center;
            "body" (S, P) uint8; "X" (S, T, bodies, 4, 4) float32 in the same unit; "said" (S, W)
            int32, the sentences of each scene; "text" (N, E) float16, their embeddings; "free"
            (N,), true for sentences that hold in a mirror too (not stored).
    """

    kind: str
    sentences: tuple[str, ...]
    tables: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.tables["said"])

    def to(self, device: torch.device | str) -> SceneTable:
        """The same table on another device."""
        return SceneTable(
            self.kind, self.sentences, {k: v.to(device) for k, v in self.tables.items()}
        )

    def scenes(self, index: Tensor) -> MovingPoints:
        """The scenes (B,) at `index`, to be rendered."""
        points, body, X = (self.tables[k][index] for k in ("points", "body", "X"))
        return MovingPoints(points.float(), body, X)

    def told(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Random sentences (B,), one of each of some scenes."""
        said = self.tables["said"]
        way = torch.randint(said.shape[1], index.shape, generator=generator, device=index.device)
        return said[index, way].long()

    def text(self, sentence: Tensor) -> Tensor:
        """Embeddings (B, E) of sentences (B,)."""
        return self.tables["text"][sentence].float()

    @classmethod
    def of(cls, found: Sequence[PointScene]) -> SceneTable:
        """A table of scenes of one kind, with the same number of points each."""
        # Scenes have different numbers of bodies: missing ones stand still.
        points, X = zip(*map(_normalized, found), strict=True)
        bodies = max(x.shape[1] for x in X)
        padded = [
            np.concatenate([x, np.broadcast_to(np.eye(4), (len(x), bodies - x.shape[1], 4, 4))], 1)
            for x in X
        ]

        # Scenes have different numbers of sentences: they are repeated to the largest.
        most = max(len(s.texts) for s in found)
        sentences, said = np.unique([np.resize(s.texts, most) for s in found], return_inverse=True)
        tables = {
            "points": torch.from_numpy(np.stack(points)),
            "body": torch.from_numpy(np.stack([s.body for s in found])).to(torch.uint8),
            "X": torch.from_numpy(np.stack(padded)).float(),
            "said": torch.from_numpy(said.reshape(len(found), -1)).int(),
            "text": text_encoder.embed(sentences.tolist()).half(),
        }
        return cls._complete(found[0].kind, tuple(sentences.tolist()), tables)

    @classmethod
    def _complete(
        cls, kind: str, sentences: tuple[str, ...], tables: dict[str, Tensor]
    ) -> SceneTable:
        """A table with the entries that follow from kind and sentences."""
        free = [kind not in _HANDED_KINDS and not _HANDED.search(s) for s in sentences]
        return cls(kind, sentences, {**tables, "free": torch.tensor(free)})

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        # Written beside, then renamed: a table is whole or absent.
        part = path.with_suffix(".part")
        save_file(
            {k: self.tables[k].contiguous() for k in _STORED},
            part,
            {"kind": self.kind, "sentences": json.dumps(self.sentences)},
        )
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> SceneTable:
        """Read what `save` wrote.

        Raises:
            ValueError: for a file that is not a table of scenes.
        """
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tables = {k: file.get_tensor(k) for k in _STORED}
            return cls._complete(
                header["kind"],
                tuple(text_files.parse_json(header["sentences"], "sentences")),
                tables,
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a table of scenes ({error}); delete it to build it again"
            ) from None


@dataclass(frozen=True, eq=False)
class Videos:
    """Videos (B, T, H, W, 3), their first frames (B, h, w, 4) and sentence embeddings (B, E)."""

    video: Tensor
    first: Tensor
    text: Tensor


def sample(
    tables: Sequence[SceneTable],
    chance: Tensor,
    count: int,
    config: ChoreographerConfig,
    generator: torch.Generator,
) -> Videos:
    """Videos of random scenes from random cameras.

    Args:
        tables: K tables, on the generator's device.
        chance: (K,) relative frequency of each table.
        count: number of videos.
        config: sizes of the videos.
        generator: source of all random numbers.
    """
    # Number of videos of each kind.
    device = generator.device
    kinds = torch.multinomial(chance.to(device), count, replacement=True, generator=generator)
    videos, firsts, texts = [], [], []
    for table, share in zip(tables, kinds.bincount(minlength=len(tables)).tolist(), strict=True):
        if share:
            # Random scenes of this kind, from random cameras.
            index = torch.randint(len(table), (share,), generator=generator, device=device)
            seen = render(
                table.scenes(index), random_cameras(share, config.size, generator), config.sharpness
            )
            told = table.told(index, generator)

            # Mirror half of the videos whose sentence allows it.
            half = torch.rand(share, generator=generator, device=device) < 0.5
            mirror = (half & table.tables["free"][told])[:, None, None, None]
            videos.append(torch.where(mirror[..., None], mirrored(seen.video), seen.video))
            firsts.append(torch.where(mirror, mirrored(seen.first), seen.first))
            texts.append(table.text(told))
    return Videos(torch.cat(videos), torch.cat(firsts), torch.cat(texts))


def mirrored(images: Tensor) -> Tensor:
    """Videos or first frames (..., H, W, 3 or 4) with left and right of the camera exchanged."""
    factors = torch.tensor(_MIRROR[: images.shape[-1]], device=images.device)
    return images.flip(-2) * factors


def stored_scenes(
    kind: str,
    seeds: range,
    *,
    split: scenes.Split,
    points: int,
    folder: Path,
    progress: Progress = silent,
) -> SceneTable:
    """The table of scenes of one kind, stored in `folder` so that it is built only once.

    The file's name contains a digest of its contents and of the code that makes them. Scenes of the
    split "train" have many sentences each, held-out ones a single sentence that is never trained
    on.

    Args:
        kind: one of `scenes.KINDS`.
        seeds: of the scenes.
        split: "train" or "held_out".
        points: surface points of a scene.
        folder: where tables are stored.
        progress: called after each scene.
    """
    digest = hashlib.sha256(repr((kind, seeds, split, points, WAYS)).encode())
    for source in _sources():
        digest.update(source.read_bytes())
    path = folder / f"scenes-{split.replace('_', '-')}-{kind}-{digest.hexdigest()[:12]}.safetensors"
    if path.exists():
        return SceneTable.load(path)
    found = []
    for seed in seeds:
        prompted = scenes.draw(kind, seed, split=split, paraphrased=split == "held_out")
        texts = ways(prompted.phrase, WAYS) if split == "train" else None
        found.append(sampled(prompted, points, texts=texts, seed=seed))
        progress((seed - seeds.start + 1) / len(seeds), f"preparing scenes: {kind}")
    table = SceneTable.of(found)
    table.save(path)
    return table


def _sources() -> list[Path]:
    """The files whose contents determine the scenes."""
    here = Path(generators.__file__).parent
    makers = here / "chord/priors/choreographer/scenes"
    objects = here / "data/objects"
    cameras = here / "chord/render/cameras.py"
    files = [*makers.glob("*.py"), *makers.glob("*.json"), *objects.rglob("*.py"), cameras]
    return sorted(files)


def _normalized(scene: PointScene) -> tuple[np.ndarray, np.ndarray]:
    """Points and motions relative to the center of the framed ball, in radii."""
    center, radius = scene.framing.center, scene.framing.radius
    X = np.array(scene.X, float)
    # x' = R x + t in the frame of the ball: t' = (R c + t - c) / r.
    X[..., :3, 3] = (X[..., :3, 3] + X[..., :3, :3] @ center - center) / radius
    return ((scene.points - center) / radius).astype(np.float16), X
