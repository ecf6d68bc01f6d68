"""Parts and joints estimated from true and faulty motions of procedural objects.

Each object is shown as its own mesh and as a one-piece scan, in its true motion and as a network
moves it: the part bent by 27 % of its way, the rest dragged along by 10 %, and the motions of both
sides blended at the border. Instances are held out from training (generators.data.objects).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.articulation.objects_in_motion import Fault, Input, Subject, in_motion, subject
from flowplan.articulation import ArticulationOptions, Estimate, estimate
from flowplan.motion import Progress, silent
from flowplan.parts import PartJoint
from flowplan.utils.checks import FloatArray
from flowplan.utils.records import record
from flowplan.utils.stats import bootstrap
from generators.data.objects.families import HELD_OUT_SEED, trained_families

Record = dict[str, Any]
FAULTS = {"true": Fault(), "bent": Fault(bend=0.27, drag=0.1, band=0.03)}
"""Motions by name."""
GOOD_AXIS = np.radians(10)
"""Radians between a found and a true axis, up to which the axis is good."""


def bench_parts(
    *,
    inputs: Sequence[Input] = ("mesh", "scan"),
    objects: int = 40,
    seed: int = 0,
    options: ArticulationOptions | None = None,
    progress: Progress = silent,
) -> list[Record]:
    """Overlap with the true part, joint, axis and time of estimates.

    Args:
        inputs: how objects are shown.
        objects: number of objects of each input, in turn from all families.
        seed: added to the first seed of the objects, for other ones.
        options: of the estimation.
        progress: called with the fraction done and the object's name.

    Returns:
        JSON records; n is the number of objects, intervals are bootstrapped over them.
    """
    results: dict[str, list[dict[str, float]]] = {}
    families = sorted(trained_families())
    for i, shown in enumerate(inputs):
        count, number = 0, HELD_OUT_SEED + seed
        while count < objects:
            made = subject(families[(7 * number) % len(families)], number, shown)
            number += 1
            if made is None:
                continue
            progress((i + count / objects) / len(inputs), f"{shown} {made.name}")
            for name, fault in FAULTS.items():
                motion = in_motion(made, fault, number)
                results.setdefault(f"{shown}/{name}", []).append(judged(made, motion, options))
            count += 1
    return [line for key, measured in results.items() for line in _records(key, measured)]


def judged(
    made: Subject, motion: FloatArray, options: ArticulationOptions | None = None
) -> dict[str, float]:
    """Measures of the estimate of one motion (T, V, 3)."""
    begin = time.process_time()
    found = estimate(made.mesh, motion, options)
    seconds = time.process_time() - begin
    overlap, part = _overlap(made, found)
    joint = next((j for j in found.articulation.joints if j.child == part), None)
    return {
        "iou": overlap,
        "parts": float(len(found.articulation.parts)),
        "deformable": float(found.deformable),
        "seconds": seconds,
        **_joint_measures(made, found, joint),
    }


def _overlap(made: Subject, found: Estimate) -> tuple[float, int]:
    """Largest intersection over union, by area, of a part but the root with the true part."""
    area, part = made.mesh.area_faces, found.articulation.part
    best = (0.0, -1)
    for k in range(1, len(found.articulation.parts)):
        both, either = (part == k) & made.moving, (part == k) | made.moving
        best = max(best, (float(area[both].sum() / area[either].sum()), k))
    return best


def _joint_measures(made: Subject, found: Estimate, joint: PartJoint | None) -> dict[str, float]:
    """Kind, axis and amount: 1 if right, else 0."""
    if joint is None or joint.kind != made.kind:
        return {"kind": 0.0, "axis": 0.0, "amount": 0.0}
    sign = float(np.sign(found.amount[joint.name][-1]))
    angle = np.arccos(np.clip(sign * joint.axis @ made.axis, -1, 1))
    amount = abs(found.amount[joint.name][-1]) / made.amount
    return {
        "kind": 1.0,
        "axis": float(angle <= GOOD_AXIS),
        "amount": float(abs(amount - 1) <= 0.2),
    }


def _records(key: str, measured: list[dict[str, float]]) -> list[Record]:
    """Records of one input and motion."""
    n = len(measured)

    def column(name: str) -> FloatArray:
        return np.array([m[name] for m in measured])

    out = []
    shares = {
        "iou": column("iou"),
        "iou_over_0.8": (column("iou") > 0.8).astype(float),
        "kind_right": column("kind"),
        "axis_within_10_deg": column("axis"),
        "amount_within_20_percent": column("amount"),
    }
    for name, values in shares.items():
        low, high = bootstrap(values)
        out.append(
            record(
                f"parts/{key}/{name}",
                float(values.mean()),
                "share",
                "up",
                n,
                decimals=3,
                interval=[round(low, 3), round(high, 3)],
            )
        )
    seconds = float(np.median(column("seconds")))
    out.append(record(f"parts/{key}/cpu_seconds", seconds, "s", "down", n, decimals=3))
    return out
