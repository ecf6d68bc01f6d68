"""Clips from animated glTF 2.0 files, filtered as the training set was (NeuROK, appendix D.2).

A file's animations are played one by one as the specification has it: node translations, rotations
and scales and morph weights between keyframes (steps, straight lines with slerp for rotations,
cubic splines); morph targets; then the pose of the node that draws the mesh, or, for a skinned
mesh, those of its joints, linearly blended:

    x = sum_j w_j G_j(t) B_j (p + sum_k m_k(t) d_k)
    B_j inverse bind matrices, G_j global poses of the joints

Filters. The paper drops an animation whose channels all drive the root node. Here any node that
carries all that is drawn is held where it is at the start: motion of parts against each other
remains, whatever else the root does. An animation is refused as "root-only" when nothing remains
then, or when the whole moves as one body (as a joint does that holds a whole skin), and as "static"
when nothing moves in the first place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowplan.geometry import fit_rigid, transform
from flowplan.utils.checks import FloatArray
from generators.data.clips.clip import Clip
from generators.data.clips.gltf_file import GltfFile
from generators.data.clips.gltf_scene import Shape, Tree

PATHS = ("translation", "rotation", "scale", "weights")
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""glTF's y up to our z up."""


@dataclass(frozen=True)
class GltfOptions:
    """Sampling of an animation, and the least motion that counts."""

    frames: int = 40
    """Frames of a clip, evenly spaced from an animation's first keyframe to its last."""
    threshold: float = 0.01
    """Motion of no vertex beyond this share of the object's largest side is none."""
    largest: int = 200_000
    """Files that draw more vertices than this are refused."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 2), ("largest", 3)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"GltfOptions.{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"GltfOptions.threshold: expected a share between 0 and 1, got {self.threshold}"
            )


@dataclass(frozen=True, eq=False)
class GltfClips:
    """Result of reading a file's animations.

    Attributes:
        clips: the usable ones, named <file>/<animation>; z up, the file's unit.
        refused: "static" or "root-only" by name of the animation.
    """

    clips: tuple[Clip, ...]
    refused: dict[str, str]


def read_clips(path: str | Path, options: GltfOptions = GltfOptions()) -> GltfClips:
    """Every animation of a .glb or .gltf file, filtered.

    Raises:
        ValueError: in one line that names the file, when it cannot be read, draws no triangle, or
            has no animation.
    """
    file = GltfFile(path)
    try:
        return _read(file, options)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if str(error).startswith(str(file.path)):
            raise
        # The document contradicts itself or the schema: numbers that are none, shapes that do not
        # fit, lost references.
        what = f"{type(error).__name__}: {error}"[:100]
        raise ValueError(
            f"{file.path}: not a valid glTF document ({what}); export it again"
        ) from None


def _read(file: GltfFile, options: GltfOptions) -> GltfClips:
    animations = file.items("animations")
    if not animations:
        raise ValueError(f"{file.path}: has no animation")
    tree = Tree(file)
    count = sum(len(s.points) for s in tree.shapes)
    if not 0 < count <= options.largest:
        raise ValueError(
            f"{file.path}: draws {count} vertices of triangles, expected 1 to {options.largest}"
        )
    # Faces of all shapes, with indices into their vertices one after the other.
    starts = np.cumsum([0, *(len(s.points) for s in tree.shapes)])
    faces = np.concatenate([s.faces + n for s, n in zip(tree.shapes, starts, strict=False)])
    clips: list[Clip] = []
    refused: dict[str, str] = {}
    for number, animation in enumerate(animations):
        name = str(animation.get("name") or number)
        if name in refused or any(c.name == f"{file.path.stem}/{name}" for c in clips):
            name = f"{name}.{number}"
        verdict = _play(file, tree, animation, options)
        if isinstance(verdict, str):
            refused[name] = verdict
        else:
            clips.append(Clip(f"{file.path.stem}/{name}", verdict, faces))
    return GltfClips(tuple(clips), refused)


def _play(
    file: GltfFile, tree: Tree, animation: dict[str, Any], options: GltfOptions
) -> FloatArray | str:
    """Vertices (F, V, 3), or why the animation is not wanted."""
    tracks = [
        _track(file, animation, channel) for channel in animation["channels"] if _is_known(channel)
    ]
    if not tracks:
        return "static"
    times = np.linspace(
        min(t.times[0] for t in tracks), max(t.times[-1] for t in tracks), options.frames
    )
    # Nodes that carry all that is drawn are held at their start.
    carriers = set.intersection(*(tree.carriers(shape.joints) for shape in tree.shapes))
    values, carried = {}, False
    for track in tracks:
        at = track.sample(times)
        if track.node in carriers and track.path != "weights":
            carried |= bool(np.ptp(at, axis=0).max() > 1e-6)
            at[:] = at[0]
        values[track.node, track.path] = at
    vertices = _vertices(tree, values, len(times))
    if not np.isfinite(vertices).all():
        raise ValueError(f"{file.path}: some vertices are not finite; export it again")
    # Motion at all, and motion that is not that of one body.
    least = options.threshold * float(np.ptp(vertices[0], axis=0).max())
    if not _departs(vertices, vertices[0], least):
        return "root-only" if carried else "static"
    as_one = transform(fit_rigid(vertices[0], vertices), vertices[0])
    return vertices if _departs(vertices, as_one, least) else "root-only"


def _departs(vertices: FloatArray, reference: FloatArray, least: float) -> bool:
    return bool((np.linalg.norm(vertices - reference, axis=-1) > least).any())


def _vertices(tree: Tree, values: Mapping[tuple[int, str], FloatArray], frames: int) -> FloatArray:
    """(F, V, 3) of all shapes, one after the other, z up."""
    poses = tree.poses(values, frames)
    return (
        np.concatenate([_posed(shape, poses, values, frames) for shape in tree.shapes], axis=1)
        @ Z_UP.T
    )


def _posed(
    shape: Shape,
    poses: Mapping[int, FloatArray],
    values: Mapping[tuple[int, str], FloatArray],
    frames: int,
) -> FloatArray:
    """(F, V, 3) of one shape, the file's world."""
    # Morphs first, then the joints' poses blended.
    weights = values.get((shape.node, "weights"), np.tile(shape.weights, (frames, 1)))
    local = shape.points + np.tensordot(weights, shape.morphs, 1)
    out = np.zeros_like(local)
    for joint, inverse_bind, share in zip(
        shape.joints, shape.inverse_bind, shape.blend.T, strict=True
    ):
        on = np.flatnonzero(share)
        out[:, on] += share[on, None] * transform(poses[joint] @ inverse_bind, local[:, on])
    return out


@dataclass(frozen=True, eq=False)
class Track:
    """Keyframes of one property of one node.

    Attributes:
        node, path: what is driven: translation, rotation (x, y, z, w), scale or weights of a node.
        times: (K,) seconds, increasing.
        values: (K, W).
        tangents: (K, 2, W) into and out of each keyframe, a second; given for cubic splines.
        step: values jump at keyframes instead of running straight between them.
    """

    node: int
    path: str
    times: FloatArray
    values: FloatArray
    tangents: FloatArray | None = None
    step: bool = False

    def sample(self, t: FloatArray) -> FloatArray:
        """(T, W) at times t (T,); before the first and after the last keyframe theirs."""
        if len(self.times) == 1 or self.step:
            return self.values[np.clip(np.searchsorted(self.times, t, "right") - 1, 0, None)]
        t = np.clip(t, self.times[0], self.times[-1])
        k = np.clip(np.searchsorted(self.times, t, "right") - 1, 0, len(self.times) - 2)
        span = (self.times[k + 1] - self.times[k])[:, None]
        s = (t - self.times[k])[:, None] / span
        a, b = self.values[k], self.values[k + 1]
        if self.tangents is not None:
            # Hermite spline, s in [0, 1] between the keyframes.
            out, into = span * self.tangents[k, 1], span * self.tangents[k + 1, 0]
            cubic = (2 * s**3 - 3 * s**2 + 1) * a + (s**3 - 2 * s**2 + s) * out
            cubic += (3 * s**2 - 2 * s**3) * b + (s**3 - s**2) * into
            return (
                cubic / np.linalg.norm(cubic, axis=1, keepdims=True)
                if self.path == "rotation"
                else cubic
            )
        return _slerp(a, b, s) if self.path == "rotation" else a + s * (b - a)


def _slerp(a: FloatArray, b: FloatArray, s: FloatArray) -> FloatArray:
    """Unit quaternions (T, 4) on the shorter way from a to b."""
    cosine = (a * b).sum(1, keepdims=True)
    b = np.where(cosine < 0, -b, b)
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    near = sine < 1e-6  # a straight line is as good there
    sine = np.where(near, 1.0, sine)
    return np.where(
        near, a + s * (b - a), (np.sin((1 - s) * angle) * a + np.sin(s * angle) * b) / sine
    )


def _is_known(channel: dict[str, Any]) -> bool:
    return "node" in channel["target"] and channel["target"]["path"] in PATHS


def _track(file: GltfFile, animation: dict[str, Any], channel: dict[str, Any]) -> Track:
    sampler = animation["samplers"][channel["sampler"]]
    kind = sampler.get("interpolation", "LINEAR")
    node, path = channel["target"]["node"], channel["target"]["path"]
    where = f"{file.path}: animation of node {node}'s {path}"
    times = file.array(sampler["input"])[:, 0].astype(float)
    if len(times) == 0 or not np.all(np.diff(times) > 0):
        raise ValueError(f"{where}: expected increasing times of keyframes; export it again")
    if kind not in ("LINEAR", "STEP", "CUBICSPLINE"):
        raise ValueError(f"{where}: interpolation {kind!r}, expected LINEAR, STEP or CUBICSPLINE")
    output = file.array(sampler["output"]).astype(float)
    rows = len(times) * (3 if kind == "CUBICSPLINE" else 1)
    if output.size == 0 or output.size % rows:
        raise ValueError(
            f"{where}: {output.size} numbers for {len(times)} keyframes; export it again"
        )
    if kind == "CUBICSPLINE":  # in-tangent, value, out-tangent
        output = output.reshape(len(times), 3, -1)
        return Track(node, path, times, output[:, 1], output[:, [0, 2]])
    return Track(node, path, times, output.reshape(len(times), -1), step=kind == "STEP")
