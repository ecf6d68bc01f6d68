"""A falling lid: latent dynamics against a simulator that knows the hinge.

E.3-E.5, Figs. 8, 14, 15. The network sees the mesh of an open box and nothing else: no hinge, no
part, no limit. From that pose, at rest, gravity and contacts move it in latent space; the truth is
the same box with its hinge given. Both are compared as meshes, in the frame in which the first pose
fills [-1, 1]^3. Then the lid is closed and pushed from below, harder each time.

Both know: the mass, spread evenly over all surfaces, so inertias are those of shells
(`lid_inertia`); and that the box stands in its place (see `experiments.neurok.box_scene`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.neurok.box_scene import BoxOptions, BoxScene, BoxTruth, Frames, box_parts
from experiments.neurok.metrics import chamfer
from flowplan.motion import Progress, silent
from flowplan.utils.checks import FloatArray
from flowplan.utils.records import record
from generators.common.charts import Chart, draw_charts
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.neurok.generate import Encode
from generators.neurok.latent_space.space import LatentSpace
from generators.neurok.network import weights
from generators.neurok.network.model import Neurok

_UNIT = "half object lengths"
_STILL = 0.005  # rise below which the box counts as unmoved: the contact gives way by as much


def held_out_box() -> ArticulatedObject:
    """A plain box with a flat lid, 30 cm wide, from seeds that training never reaches."""
    return make("hinged_box", HELD_OUT_SEED + 23)


def lid_inertia(box: ArticulatedObject, mass: float) -> tuple[float, FloatArray, FloatArray]:
    """Inertial parameters of the lid of a box, with the mass spread evenly over all surfaces.

    Args:
        box: with a lid on one hinge.
        mass: of the whole box, kilograms.

    Returns:
        Mass of the lid, its center (3,), and its inertia (3, 3) about the center, link frame.
    """
    _, lid = box_parts(box)
    area = sum(float(m.area) for m in box.links.values())
    mesh = box.links[lid]
    a, b, c = np.moveaxis(mesh.triangles, 1, 0)  # (F, 3) corners
    # Mass of each face, and the lid's center of mass.
    share = mesh.area_faces / area * mass
    center = share @ (a + b + c) / 3 / share.sum()
    a, b, c = a - center, b - center, c - center
    # Second moments of a triangle: 1/12 of those of its corners and of their sum.
    second = sum(np.einsum("f,fi,fj->ij", share / 12, p, p) for p in (a, b, c, a + b + c))
    return float(share.sum()), center, np.trace(second) * np.eye(3) - second


def box_records(
    model: Neurok | str | Encode,
    box: ArticulatedObject,
    truth: BoxTruth,
    pushes: Mapping[float, BoxTruth] | None = None,
    options: BoxOptions = BoxOptions(),
    *,
    seed: int = 0,
    figure: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """JSON records of the experiment.

    Args:
        model: the network, or the name of its weights; or any other source of spaces of states.
        box: with a lid on one hinge whose lower limit is closed; see `lid_inertia` for the mass
            that the truth assumes.
        truth: of the fall, from an open pose.
        pushes: truths of the closed box, by the upward force on its lid's center of mass over the
            lid's weight, which acts for `push_seconds` from the start.
        options: see BoxOptions.
        seed: random seed of all points.
        figure: PNG of the fall, its energy, and the rise under pushes. Defaults to none.
        progress: called after the fall and after each push.

    Returns:
        Under `neurok/box`: `cd_l1` and `cd_l2` (the squared L2 of E.4) over the frames, and their
        values if nothing moves (`still`); `center`, the distance of the centers of mass;
        `impact_error`, the error of the first contact's time, absent if one of both has none;
        `energy_drift` until then, as a share of the energy that the true fall releases, and that of
        latents on a straight line; `diverged`, whether the simulation broke off (its last state is
        then compared). For every push `rise`, of the center of mass of all, and its error;
        `pushes_in_order`, the share of adjacent forces of which the larger lifts the lid higher.
    """
    pushes = pushes or {}
    scene = BoxScene(_encoder(model, options), box, truth, options, seed)
    # The fall: shape, centers, impact and energies.
    run = scene.simulate(truth.times, scene.space.rest)
    progress(0.5 if pushes else 1.0, "the lid has fallen")
    records = [*_comparison(scene, truth, run), *_energies(scene, truth, run)]

    # Pushes, from the weakest to the strongest.
    rises, lifts = [], {}
    for index, (size, pushed) in enumerate(sorted(pushes.items())):
        lifts[size] = scene.push(size, pushed)
        rise, expected = (float(height.max()) for height in lifts[size])
        rises.append(rise)
        records.append(_record(f"push_{size:g}/rise", rise, _UNIT, "up"))
        records.append(_record(f"push_{size:g}/rise_error", abs(rise - expected), _UNIT, "down"))
        done = 0.5 + 0.5 * (index + 1) / len(pushes)
        progress(done, f"pushed with {size:g} times the lid's weight")
    if len(rises) > 1:
        ordered = [b > a or max(a, b) < _STILL for a, b in pairwise(rises)]
        share = float(np.mean(ordered))
        records.append(_record("pushes_in_order", share, "share", "up", len(ordered)))
    if figure is not None:
        draw_charts(figure, [*_fall_charts(scene, truth, run), *_push_charts(lifts, pushes)])
    return records


def dynamics_speed_records(
    model: Neurok | str | Encode,
    box: ArticulatedObject,
    truth: BoxTruth,
    options: BoxOptions = BoxOptions(),
    *,
    duration: float = 0.05,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Wall time per simulated second of the falling lid, measured over `duration` seconds."""
    scene = BoxScene(_encoder(model, options), box, truth, options, seed)
    start = time.perf_counter()
    run = scene.run(np.array([0.0, duration]), scene.space.rest)
    seconds = (time.perf_counter() - start) / duration
    steps = math.ceil(duration / options.dynamics.step - 1e-9)
    if run.failure is not None:
        return []
    return [record("neurok/speed/dynamics_s", seconds, "s per s", "down", steps, decimals=3)]


def _encoder(model: Neurok | str | Encode, options: BoxOptions) -> Encode:
    """Source of spaces of states."""
    if isinstance(model, str):
        model = weights.load(model)
    if not isinstance(model, Neurok):
        return model
    network = model.requires_grad_(False)
    return lambda mesh, seed: LatentSpace.encode(mesh, network, options.space, seed=seed)


def _comparison(scene: BoxScene, truth: BoxTruth, run: Frames) -> list[dict[str, Any]]:
    """E.4: meshes, centers of mass, and time of the impact."""
    true, count = scene.frame.normalized(scene.vertices(truth)), len(truth.times)
    found = scene.moved(run.z, true[0])
    points, seed = scene.options.chamfer_points, scene.seed
    records = []

    # Chamfer distances of each frame, for the simulation and for "nothing moves".
    for prefix, shown in (("", found), ("still/", np.broadcast_to(true[0], true.shape))):
        errors = np.array(
            [
                chamfer(scene.mesh(a), scene.mesh(b), points, seed=seed + i)
                for i, (a, b) in enumerate(zip(shown, true, strict=True))
            ]
        )  # (T, 2)
        l1, l2 = errors[:, 0].mean(), np.square(errors[:, 1]).mean()
        records.append(_record(f"{prefix}cd_l1", l1, _UNIT, "down", count))
        records.append(_record(f"{prefix}cd_l2", l2, f"{_UNIT} squared", "down", count))

    # Centers of mass, and the impact.
    center = scene.centers(scene.moved(run.z, scene.first))
    true_center = scene.centers(scene.frame.normalized(scene.placed(truth)))
    off = np.linalg.norm(center - true_center, axis=1).mean()
    records.append(_record("center", off, _UNIT, "down", count))
    if run.contact is not None and truth.impact is not None:
        records.append(_record("impact_error", abs(run.contact - truth.impact), "s", "down"))
    return [*records, _record("diverged", float(run.diverged), "share", "down")]


def _energies(scene: BoxScene, truth: BoxTruth, run: Frames) -> list[dict[str, Any]]:
    """E.3: energy drift before the impact, and on a straight line between the same latents."""
    dynamics = scene.options.dynamics
    centers = scene.centers(scene.placed(truth))
    released = dynamics.mass * float(((centers - centers[0]) @ np.array(dynamics.gravity)).max())
    free = truth.times < (np.inf if run.contact is None else run.contact)
    count = int(free.sum())
    if count < 2 or not released > 0:
        return []

    times, z = truth.times[free], run.z[free]
    velocity = np.broadcast_to((z[-1] - z[0]) / times[-1], z.shape)
    straight = z[0] + velocity * times[:, None]
    paths = {
        "energy_drift": (z, run.zdot[free]),
        "interpolation/energy_drift": (straight, velocity),
    }
    unit = "share of the energy released"
    records = []
    for key, (states, velocities) in paths.items():
        drift = np.ptp(scene.energies(states, velocities).sum(1)) / released
        records.append(_record(key, drift, unit, "down", count))
    return records


def _fall_charts(scene: BoxScene, truth: BoxTruth, run: Frames) -> list[Chart]:
    """Height and energies during the fall."""
    true = scene.centers(scene.frame.normalized(scene.placed(truth)))[:, 2]
    found = scene.centers(scene.moved(run.z, scene.first))[:, 2]
    kinetic, potential = scene.energies(run.z, run.zdot).T
    potential = potential - potential[0]
    heights = {"simulator": true - true[0], "latent": found - true[0]}
    energies = {"kinetic": kinetic, "potential": potential, "sum": kinetic + potential}
    panels = {
        f"center of mass, {_UNIT}": heights,
        "energy in latent space, J": energies,
    }
    return [
        Chart(title, "s", {name: (truth.times, values) for name, values in lines.items()})
        for title, lines in panels.items()
    ]


def _push_charts(
    lifts: Mapping[float, tuple[FloatArray, FloatArray]], truths: Mapping[float, BoxTruth]
) -> list[Chart]:
    """Height over time, and greatest rise, for each push."""
    if not lifts:
        return []
    heights = {f"{size:g} x": (truths[size].times, found) for size, (found, _) in lifts.items()}
    sizes = np.array(list(lifts))
    highest = np.array([[height.max() for height in both] for both in lifts.values()])
    rises = {name: (sizes, highest[:, i]) for i, name in ((1, "simulator"), (0, "latent"))}
    return [
        Chart("pushed by multiples of the lid's weight", "s", heights),
        Chart(f"rise of the center of mass, {_UNIT}", "push over the lid's weight", rises),
    ]


def _record(key: str, value: float, unit: str, direction: str, n: int = 1) -> dict[str, Any]:
    """A record under `neurok/box`, to four digits."""
    return record(f"neurok/box/{key}", float(f"{value:.4g}"), unit, direction, n)
