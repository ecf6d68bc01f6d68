"""Pose pairs of many articulated objects, drawn in batches on any device.

Objects are kept as padded tables: the joint tree, limits, and points sampled on the surface in link
frames. A pair is two configurations, one batched pass of forward kinematics (a loop over joints,
not over objects), and a gather.

Points come from two kinds of pool. The `surface` pool is area-uniform over all links and serves
every pose. A `snapshot` is one pose with the points that cameras around and above would see, since
the model
will be given meshes fused from depth images: no insides, no underside, lids mostly closed.
    Snapshots
are traced when the store is built.

Configurations are a mixture: uniform within the limits, at a limit or at zero (objects are often
    closed
or fully open), and pairs in which a single joint moves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from flowplan.motion import Progress, silent
from flowplan.utils import bounds, text_files
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import atomic_write
from generators.data.objects.articulated import ArticulatedObject
from generators.data.pose_pairs import PosePairs, quat_from_matrix
from generators.data.visibility import random_views, seen

Views = Annotated[int, Interval(1, 1000)]

FIXED, REVOLUTE, PRISMATIC = 0, 1, 2
_KIND = {"fixed": FIXED, "revolute": REVOLUTE, "prismatic": PRISMATIC}
# Towards faces, edges and corners of a cube.
_DIRECTIONS = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)], float) - 1
_SINGLE = 0.35  # share of the pairs in which a single joint moves


@dataclass(frozen=True)
class StoreOptions:
    """Samples prepared for every object."""

    surface_points: Annotated[int, Interval(1, 10**6)] = 2048
    """Points of the area-uniform pool."""
    snapshots: Annotated[int, Interval(0, 1000)] = 6
    """Poses whose visible points are kept; 0 for none."""
    snapshot_points: Annotated[int, Interval(1, 10**6)] = 768
    """Points of one snapshot."""
    views: tuple[Views, Views] = (3, 6)
    """Smallest and largest number of cameras of a snapshot."""

    def __post_init__(self) -> None:
        bounds.check(self)


class ArticulatedStore:
    """Objects as padded tables, ready to draw pose pairs from.

    Tables are of O objects, L links, J joints and D free joints.

    Attributes:
        names: of the O objects.
        scan_share: share of the pairs whose pose A is a snapshot with its visible points.
        chance: (O,) relative probabilities of being drawn; None for equal ones.
    """

    def __init__(
        self,
        names: Sequence[str],
        tables: dict[str, Tensor],
        *,
        scan_share: float = 0.5,
        chance: Tensor | None = None,
    ) -> None:
        self.names = tuple(names)
        self.chance = chance
        self.scan_share = scan_share if tables["snapshot_q"].shape[1] else 0.0
        self._t = tables
        self._links = int(tables["links"])

    @classmethod
    def build(
        cls,
        objects: Iterable[ArticulatedObject],
        options: StoreOptions | None = None,
        *,
        seed: int = 0,
        scan_share: float = 0.5,
        progress: Progress = silent,
        count: int | None = None,
    ) -> ArticulatedStore:
        """Sample and trace every object.

        Args:
            objects: the objects.
            options: see StoreOptions.
            seed: random seed.
            scan_share: see the class.
            progress: called after each object.
            count: number of objects, if `objects` has no length.

        Raises:
            ValueError: for an object without a free joint or without a face.
        """
        options = options or StoreOptions()
        total = len(objects) if isinstance(objects, Sequence) else count
        names, records = [], []
        for index, obj in enumerate(objects):
            records.append(_record(obj, options, seed + index))
            names.append(obj.name)
            if total:
                progress((index + 1) / total, f"preparing objects: {obj.name}")
        if not records:
            raise ValueError("objects: got none, expected at least one articulated object")
        return cls(names, _pad(records), scan_share=scan_share)

    @property
    def device(self) -> torch.device:
        """Device of the tables and of the pairs."""
        return self._t["lower"].device

    def to(self, device: torch.device | str) -> ArticulatedStore:
        """The same store on another device."""
        tables = {k: v.to(device) for k, v in self._t.items()}
        chance = None if self.chance is None else self.chance.to(device)
        return ArticulatedStore(self.names, tables, scan_share=self.scan_share, chance=chance)

    def save(self, path: str | Path) -> Path:
        """Write the tables as safetensors."""
        with atomic_write(path) as file:
            file.write(save(self._t, {"names": json.dumps(self.names)}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, scan_share: float = 0.5) -> ArticulatedStore:
        """Read what `save` wrote.

        Raises:
            ValueError: for a file that is not a store.
        """
        try:
            with safe_open(path, "pt") as file:
                names = text_files.parse_json((file.metadata() or {})["names"], "names")
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
                return cls(names, tensors, scan_share=scan_share)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a store of objects ({error}); delete it to build it again"
            ) from None

    def favoring(self, names: Sequence[str]) -> ArticulatedStore:
        """The same store, with each mention of a name doubling its objects' probability."""
        factors = [2.0 ** list(names).count(name) for name in self.names]
        chance = torch.tensor(factors, device=self.device)
        return ArticulatedStore(self.names, self._t, scan_share=self.scan_share, chance=chance)

    def sample(self, batch: int, points: int, generator: torch.Generator) -> PosePairs:
        """`batch` pairs of objects drawn with the probabilities `chance`."""
        if self.chance is None:
            objects = self._integers((batch,), len(self.names), generator)
        else:
            objects = torch.multinomial(self.chance, batch, replacement=True, generator=generator)
        return self.draw(objects, points, generator)

    def draw(self, objects: Tensor, points: int, generator: torch.Generator) -> PosePairs:
        """One pair of each of `objects` (B,).

        It is normalized by the box around pose A, or around its visible points.
        """
        t, B = self._t, len(objects)
        # Pose A with surface points, or a snapshot with its visible points.
        q_a = draw_configurations(t["lower"][objects], t["upper"][objects], generator)
        link, local = self._surface(objects, points, generator)
        scanned = self._uniform((B,), generator) < self.scan_share
        if self.scan_share:
            snapshot = self._integers((B,), t["snapshot_q"].shape[1], generator)
            q_a = torch.where(scanned[:, None], t["snapshot_q"][objects, snapshot], q_a)
            pick = self._pick(B, points, t["snapshot_link"].shape[2], generator)
            where = objects[:, None], snapshot[:, None], pick
            link = torch.where(scanned[:, None], t["snapshot_link"][where].long(), link)
            local = torch.where(scanned[:, None, None], t["snapshot_local"][where], local)
        q_b = self._second(objects, q_a, generator)
        X_a, X_b = self.link_poses(objects.repeat(2), torch.cat([q_a, q_b])).split(B)

        # The box that is normalized.
        box = self._box(objects, X_a)
        if self.scan_share:
            box = torch.where(scanned[:, None, None], t["snapshot_box"][objects, snapshot], box)
        center, size = box.mean(1), (box[:, 1] - box[:, 0]).amax(1)
        quat = quat_from_matrix(X_b[:, :, :3, :3] @ X_a[:, :, :3, :3].mT)

        # One gather of both poses and the rotation of each point's link.
        of_link = torch.cat([X_a[:, :, :3].flatten(2), X_b[:, :, :3].flatten(2), quat], -1)
        of_point = of_link.gather(1, link[..., None].expand(-1, -1, of_link.shape[-1]))
        a, b, quat = of_point.split([12, 12, 4], -1)

        def place(X: Tensor) -> Tensor:
            X = X.unflatten(-1, (3, 4))
            x = (X[..., :3] @ local[..., None])[..., 0] + X[..., 3]
            return (x - center[:, None]) * (2 / size)[:, None, None]

        return PosePairs(place(a), place(b), quat.contiguous())

    def link_poses(self, objects: Tensor, q: Tensor) -> Tensor:
        """X_object_link (B, L, 4, 4) of objects (B,) at q (B, D).

        Rows past an object's own links are meaningless.
        """
        t, B = self._t, len(objects)
        rows = torch.arange(B, device=self.device)
        # Positions of all joints, mimic joints included.
        positions = (t["joint_matrix"][objects] @ q[..., None])[..., 0]
        positions = positions + t["joint_offset"][objects]
        axis, kind = t["axis"][objects], t["kind"][objects]
        angle = (positions * (kind == REVOLUTE))[..., None, None]
        slide = (positions * (kind == PRISMATIC))[..., None] * axis
        # Motion of each joint: Rodrigues' rotation, or a translation.
        S = _skew(axis)
        move = torch.zeros(*positions.shape, 4, 4, device=self.device)
        move[..., :3, :3] = (
            torch.eye(3, device=self.device) + angle.sin() * S + (1 - angle.cos()) * (S @ S)
        )
        move[..., :3, 3] = slide
        move[..., 3, 3] = 1
        local = t["X_parent_joint"][objects] @ move
        parent, child = t["parent"][objects].long(), t["child"][objects].long()
        # Down the tree. Padding joints write to an extra link.
        X = torch.eye(4, device=self.device).repeat(B, self._links + 1, 1, 1)
        for j in range(positions.shape[1]):
            X[rows, child[:, j]] = X[rows, parent[:, j]] @ local[:, j]
        return X[:, :-1]

    def _second(self, objects: Tensor, q_a: Tensor, generator: torch.Generator) -> Tensor:
        """Pose B (B, D): another draw, or q_a with one joint moved within its limits."""
        lower, upper = self._t["lower"][objects], self._t["upper"][objects]
        q_b = draw_configurations(lower, upper, generator)
        B, D = q_a.shape
        count = self._t["free_count"][objects]
        one = (self._uniform((B,), generator) * count).long().clamp(max=D - 1)
        is_one = torch.arange(D, device=self.device) == one[:, None]
        anywhere = lower + (upper - lower) * self._uniform((B, 1), generator)
        single = torch.where(is_one, anywhere, q_a)
        return torch.where(self._uniform((B, 1), generator) < _SINGLE, single, q_b)

    def _surface(
        self, objects: Tensor, points: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Links (B, N) and places in their frames (B, N, 3) of points of the surface pool."""
        pick = self._pick(len(objects), points, self._t["surface_link"].shape[1], generator)
        where = objects[:, None], pick
        return self._t["surface_link"][where].long(), self._t["surface_local"][where]

    def _pick(self, batch: int, points: int, pool: int, generator: torch.Generator) -> Tensor:
        """Indices (batch, points) into a shuffled pool, one from each of `points` equal
        stretches."""
        start = torch.arange(points, device=self.device) + self._uniform((batch, points), generator)
        return (start * (pool / points)).long().clamp(max=pool - 1)

    def _box(self, objects: Tensor, X: Tensor) -> Tensor:
        """Lower and upper corner (B, 2, 3) of the objects' boxes at link poses X (B, L, 4, 4)."""
        local, link = self._t["outer_local"][objects], self._t["outer_link"][objects].long()
        flat = X[:, :, :3].flatten(2)
        X_point = flat.gather(1, link[..., None].expand(-1, -1, 12)).unflatten(-1, (3, 4))
        x = (X_point[..., :3] @ local[..., None])[..., 0] + X_point[..., 3]
        return torch.stack([x.amin(1), x.amax(1)], 1)

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.device)

    def _integers(self, shape: tuple[int, ...], high: int, generator: torch.Generator) -> Tensor:
        return torch.randint(high, shape, generator=generator, device=self.device)


def draw_configurations(lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Random configurations (B, D) within limits (B, D).

    Half are uniform, a fifth all at zero, the others with every joint at a limit or at zero.
    """
    B, D = lower.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=lower.device)

    anywhere = lower + (upper - lower) * uniform(B, D)
    zero = torch.zeros_like(lower).clamp(lower, upper)
    which = uniform(B, D) * 3
    limit = torch.where(which < 1, lower, torch.where(which < 2, upper, zero))
    kind = uniform(B, 1)
    return torch.where(kind < 0.5, anywhere, torch.where(kind < 0.7, zero, limit))


def _record(obj: ArticulatedObject, options: StoreOptions, seed: int) -> dict[str, NDArray]:
    """One object's tables, unpadded."""
    if not obj.free or not sum(len(m.faces) for m in obj.links.values()):
        raise ValueError(f"objects: {obj.name} has no free joint or no face; leave it out")
    rng = np.random.default_rng(seed)
    index = {name: i for i, name in enumerate(obj.links)}
    zero = obj.joint_positions(np.zeros((1, len(obj.free))))[0]
    surface = _Surface(obj)
    link, local, _ = surface.points(rng, options.surface_points)
    outer_local, outer_link = _outer(obj)
    J = len(obj.joints)
    return {
        "parent": np.array([index[j.parent] for j in obj.joints], np.uint8),
        "child": np.array([index[j.child] for j in obj.joints], np.uint8),
        "kind": np.array([_KIND[j.kind] for j in obj.joints], np.uint8),
        "axis": np.array([j.axis for j in obj.joints]).reshape(J, 3),
        "X_parent_joint": np.array([j.X_parent_joint for j in obj.joints]).reshape(J, 4, 4),
        # All positions are affine in the free ones: unit configurations give the columns.
        "joint_matrix": (obj.joint_positions(np.eye(len(obj.free))) - zero).T,
        "joint_offset": zero,
        "lower": obj.lower,
        "upper": obj.upper,
        "free_count": np.array(len(obj.free)),
        "surface_link": link.astype(np.uint8),
        "surface_local": local,
        "outer_local": outer_local,
        "outer_link": outer_link,
        **_snapshots(obj, surface, options, rng),
    }


class _Surface:
    """An object's triangles in link frames, to draw points from by area."""

    def __init__(self, obj: ArticulatedObject) -> None:
        meshes = list(obj.links.values())
        self.link = obj.link_of_face
        corners = [np.asarray(m.vertices, float)[m.faces].reshape(-1, 3, 3) for m in meshes]
        self.triangles = np.concatenate(corners)  # (F, 3, 3)
        a, b, c = np.moveaxis(self.triangles, 1, 0)
        cross = np.cross(b - a, c - a)
        norm = np.linalg.norm(cross, axis=1)
        self.normals = cross / np.maximum(norm, 1e-300)[:, None]
        self.cumulative = np.cumsum(norm)

    def points(
        self, rng: np.random.Generator, count: int
    ) -> tuple[NDArray, FloatArray, FloatArray]:
        """Link (count,), point and normal (count, 3) in its frame, uniform by area."""
        face = np.searchsorted(self.cumulative, rng.random(count) * self.cumulative[-1])
        face = np.minimum(face, len(self.link) - 1)
        u, v = rng.random((2, count, 1))
        root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
        a, b, c = np.moveaxis(self.triangles[face], 1, 0)
        points = (1 - root) * a + root * (1 - v) * b + root * v * c
        return self.link[face], points, self.normals[face]


def _snapshots(
    obj: ArticulatedObject, surface: _Surface, options: StoreOptions, rng: np.random.Generator
) -> dict[str, NDArray]:
    """Tables of the snapshots: poses, visible points (link frames) and boxes (object frame)."""
    S, P = options.snapshots, options.snapshot_points
    lower, upper = (torch.from_numpy(x).repeat(S, 1) for x in (obj.lower, obj.upper))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    q = draw_configurations(lower, upper, generator).numpy()
    links, locals_ = np.zeros((S, P), np.uint8), np.zeros((S, P, 3), np.float32)
    boxes = np.zeros((S, 2, 3), np.float32)
    for s, X in enumerate(obj.link_poses(q)):
        # Candidate points and all triangles, in the object frame.
        R, t = X[:, :3, :3], X[:, :3, 3]
        link, local, normal = surface.points(rng, 3 * P)
        triangles = surface.triangles @ R[surface.link].swapaxes(1, 2) + t[surface.link][:, None]
        x = np.einsum("nij,nj->ni", R[link], local) + t[link]
        n = np.einsum("nij,nj->ni", R[link], normal)
        # Those that some camera sees.
        views = random_views(rng, int(rng.integers(options.views[0], options.views[1] + 1)))
        visible = np.flatnonzero(seen(triangles, x, n, views))
        if not len(visible):  # nothing but edge-on plates: keep all
            visible = np.arange(len(x))
        keep = np.resize(visible, P)  # the points are in random order already
        links[s], locals_[s] = link[keep], local[keep]
        boxes[s] = x[visible].min(0), x[visible].max(0)
    return {
        "snapshot_q": q,
        "snapshot_link": links,
        "snapshot_local": locals_,
        "snapshot_box": boxes,
    }


def _outer(obj: ArticulatedObject) -> tuple[FloatArray, NDArray]:
    """Extreme vertices of each link in 26 directions, and their links: enough for the box of a
    pose."""
    points, links = [], []
    for index, mesh in enumerate(obj.links.values()):
        if len(mesh.faces):
            vertices = np.asarray(mesh.vertices, float)
            found = vertices[np.unique(np.argmax(vertices @ _DIRECTIONS.T, axis=0))]
            points.append(found)
            links.append(np.full(len(found), index, np.uint8))
    return np.concatenate(points), np.concatenate(links)


def _pad(records: list[dict[str, NDArray]]) -> dict[str, Tensor]:
    """Stack tables of unequal sizes.

    Padding joints are fixed ones from the root to an extra link.
    """
    links = max(int(r["child"].max(initial=0)) for r in records) + 1
    fill: dict[str, float] = {"child": links}
    tables = {"links": torch.tensor(links)}
    for key in records[0]:
        arrays = [r[key] for r in records]
        shape = np.max([a.shape for a in arrays], axis=0).astype(int)
        dtype = arrays[0].dtype if arrays[0].dtype.kind in "ui" else np.float32
        out = np.full((len(arrays), *shape), fill.get(key, 0), dtype)
        for i, a in enumerate(arrays):
            if key.startswith("outer"):  # repeated vertices do not change a box
                out[i] = a[np.resize(np.arange(len(a)), shape[0])]
            else:
                part: Any = (i, *map(slice, a.shape))
                out[part] = a
        tables[key] = torch.from_numpy(out)
    return tables


def _skew(v: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of the cross product with vectors (..., 3)."""
    zero = torch.zeros_like(v[..., 0])
    x, y, z = v.unbind(-1)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
