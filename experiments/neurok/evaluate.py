"""Inverse kinematics on many objects: distance of a method's result from the true shape (6.1, E.1).

For each object two poses are drawn within its joint limits. A method sees the mesh in the first and
points on the surface in the second, no parts or joints, and returns the vertices of the mesh in the
second. Both are compared as shapes, in the frame in which the first pose fills [-1, 1]^3
(`experiments.neurok.metrics`). Objects come from three splits:

- trained: families that the network was trained on, with seeds that training never reaches;
- never_trained: families that it has never seen;
- any articulated objects that a caller provides, such as those of a simulator.

Results are appended to a log as they come, one JSON object per line, so that an interrupted
evaluation resumes. Means have 95 % bootstrap intervals over objects (Efron 1979).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import trimesh
from torch import Tensor

from experiments.comparison import Measure, compare, mean_records, mean_table
from experiments.neurok.metrics import MetricOptions, shape_error
from flowplan.motion import Progress, silent
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from generators.common.drive_options import DriveOptions
from generators.common.mesh_driving import drive_mesh
from generators.common.sampling import surface_points
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT, HELD_OUT_SEED, make, trained_families
from generators.neurok.kinematics.initialization import initial_latent
from generators.neurok.kinematics.shape_fit import FitOptions, fit_shape
from generators.neurok.latent_space.space import Frame, LatentSpace
from generators.neurok.network.model import Neurok
from generators.neurok.options import SEARCHED, SpaceOptions

MEASURES = {
    "cd_l1": Measure("Chamfer L1", "half object lengths", "down"),
    "cd_l2": Measure("Chamfer L2", "half object lengths", "down"),
    "iou": Measure("IoU", "share", "up"),
}
"""Measures of a result, with the direction that is better."""


class Method(Protocol):
    """Deformation of a mesh to a point set."""

    def __call__(self, mesh: trimesh.Trimesh, target: FloatArray, *, seed: int) -> FloatArray:
        """Vertices (V, 3) of the mesh in the pose of target (P, 3), normalized frame."""


@dataclass(frozen=True, eq=False)
class Case:
    """An object for evaluation.

    Attributes:
        split: group of objects that it belongs to.
        name: of the object, unique within the split.
        build: makes the object.
        seed: random seed of its two poses, of the points drawn on it, and of the method.
    """

    split: str
    name: str
    build: Callable[[], ArticulatedObject]
    seed: int


@dataclass(frozen=True)
class Result:
    """Error of a method in one case; see ShapeError. `seconds` is the method's own time."""

    split: str
    name: str
    method: str
    cd_l1: float
    cd_l2: float
    iou: float
    seconds: float


@dataclass(frozen=True)
class IkOptions:
    """Input of a method, and comparison of its result."""

    target_points: Annotated[int, Interval(1, 10**7)] = 4096
    """Points on the surface in the target pose."""
    metrics: MetricOptions = field(default_factory=MetricOptions)
    """See MetricOptions."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class NeurokIkOptions:
    """Search of the network's space of states, and driving of the mesh."""

    driving_points: Annotated[int, Interval(1, 10**6)] = 2048
    """Surface points whose motion the mesh follows."""
    space: SpaceOptions = field(default_factory=lambda: SpaceOptions(reduce=SEARCHED))
    """See SpaceOptions."""
    fit: FitOptions = field(default_factory=FitOptions)
    """See FitOptions."""
    drive: DriveOptions = field(default_factory=DriveOptions)
    """See DriveOptions."""

    def __post_init__(self) -> None:
        bounds.check(self)


def neurok_method(model: Neurok, options: NeurokIkOptions = NeurokIkOptions()) -> Method:
    """Method that finds the best-fitting state and drives the mesh there."""

    def solve(mesh: trimesh.Trimesh, target: FloatArray, *, seed: int) -> FloatArray:
        # The state that fits, and its displacement of surface points.
        space, q = find_state(mesh, target, model, options, seed=seed)
        points, faces = surface_points(mesh, options.driving_points, seed=seed)
        with torch.no_grad():
            field = space.field(q[None], torch.as_tensor(points).to(q))
        deformation = field.double().cpu().numpy()
        # The mesh follows these points.
        driven = drive_mesh(
            mesh.vertices, mesh.faces, points, deformation, options.drive, point_faces=faces
        )
        return driven[0]

    return solve


def find_state(
    mesh: trimesh.Trimesh,
    target: FloatArray,
    model: Neurok,
    options: NeurokIkOptions = NeurokIkOptions(),
    *,
    seed: int = 0,
) -> tuple[LatentSpace, Tensor]:
    """Encode a mesh, initialize a latent, and search from it.

    Args:
        mesh: the object at rest, normalized frame.
        target: (P, 3) points of its surface in another pose.
        model: the network.
        options: see NeurokIkOptions.
        seed: random seed.

    Returns:
        The space of states, and the state (k,) that fits the target.
    """
    # The space is widened by the latent that the search starts from.
    space = LatentSpace.encode(mesh, model, options.space, seed=seed)
    latent = initial_latent(space, mesh, target, seed=seed)
    space = space.widened(latent)
    points, _ = surface_points(mesh, options.driving_points, seed=seed)
    # Fit of the surface to the target points.
    source, goal = (torch.as_tensor(p).to(space.rest) for p in (points, target))
    initial = space.coordinates(latent)
    return space, fit_shape(space, source, goal, options.fit, initial=initial, seed=seed).q


def family_cases(split: str, count: int, families: Sequence[str] = ()) -> list[Case]:
    """Objects of the families of a split, in turn.

    Args:
        split: "trained" or "never_trained".
        count: number of objects.
        families: families to take. Defaults to all of the split.
    """
    splits = {"trained": sorted(trained_families()), "never_trained": sorted(HELD_OUT)}
    if split not in splits:
        raise ValueError(f"split: expected one of {', '.join(splits)}, got {split!r}")
    for family in families:
        checks.choice("families", family, splits[split])
    families = sorted(families) or splits[split]
    cases = []
    for i in range(count):
        # A new seed once all families have had their turn.
        family, seed = families[i % len(families)], HELD_OUT_SEED + i // len(families)
        cases.append(Case(split, f"{family}/{seed}", partial(make, family, seed), seed))
    return cases


def object_cases(
    split: str, objects: Mapping[str, ArticulatedObject], repeats: int = 1
) -> list[Case]:
    """Given objects by name, each with `repeats` pairs of poses."""
    return [
        Case(split, f"{name}/{seed}", partial(_given, obj), seed)
        for seed in range(repeats)
        for name, obj in objects.items()
    ]


def _given(obj: ArticulatedObject) -> ArticulatedObject:
    return obj


def evaluate(
    cases: Sequence[Case],
    methods: Mapping[str, Method],
    options: IkOptions = IkOptions(),
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[Result]:
    """Run every method in every case, except for results that the log contains.

    Args:
        cases: from `family_cases` and `object_cases`.
        methods: by the name that they have in the log and the records.
        options: see IkOptions; a log is to be resumed with the options that it was begun with.
        log: JSON-lines file of results, read first and appended to.
        progress: called after each result with an estimate of the time left.
    """

    def run(case: Case, name: str) -> Result:
        return run_case(case, name, methods[name], options)

    return compare(
        cases,
        methods,
        run,
        Result,
        log=log,
        word=lambda result: f"{result.cd_l1:.3f}",
        progress=progress,
    )


def run_case(case: Case, name: str, method: Method, options: IkOptions = IkOptions()) -> Result:
    """Result of one method in one case."""
    # Only the method itself is timed.
    mesh, target = posed_pair(case)
    shown, _ = surface_points(target, options.target_points, seed=case.seed)
    start = time.monotonic()
    vertices = method(mesh, shown, seed=case.seed)
    seconds = time.monotonic() - start
    if np.shape(vertices) != mesh.vertices.shape or not np.isfinite(vertices).all():
        raise ValueError(
            f"methods[{name!r}]: expected finite vertices {mesh.vertices.shape}, got "
            f"{np.shape(vertices)} for {case.name}"
        )
    found = trimesh.Trimesh(vertices, mesh.faces, process=False)
    # Another seed: other points than the method was shown.
    error = shape_error(found, target, options.metrics, seed=case.seed + 1)
    return Result(case.split, case.name, name, error.cd_l1, error.cd_l2, error.iou, seconds)


def posed_pair(case: Case) -> tuple[trimesh.Trimesh, trimesh.Trimesh]:
    """The object in its two poses, in the frame in which the first fills [-1, 1]^3."""
    obj = case.build()
    # The name takes part in the seed: objects of one seed get different poses.
    rng = np.random.default_rng((zlib.crc32(case.name.encode()), case.seed))
    mesh, target = (obj.posed(q) for q in obj.sample(rng, 2))
    # The first pose fills the cube, and the second is put in the same frame.
    frame = Frame.around(mesh.vertices[np.unique(mesh.faces)])
    first, second = (
        trimesh.Trimesh(frame.normalized(m.vertices), m.faces, process=False)
        for m in (mesh, target)
    )
    return first, second


def ik_records(results: Iterable[Result]) -> list[dict[str, Any]]:
    """JSON records: for each split and method the mean of each measure, and its 95 % interval."""
    return mean_records(results, "neurok/ik", MEASURES)


def ik_table(results: Iterable[Result]) -> str:
    """The same as a Markdown table, one row per split and method."""
    return mean_table(results, MEASURES)
