"""Suitcases: lying cases that open, and trolleys with a handle that slides."""

from __future__ import annotations

import numpy as np
import trimesh

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.vessels import tray
from generators.data.objects.parts import chance, handle, pick
from generators.data.objects.primitives import (
    box,
    cylinder,
    extrude,
    moved,
    rectangle,
    slab,
    turned,
)
from generators.data.objects.sweeps import rounded_path, tube

Piece = trimesh.Trimesh


def suitcase(rng: np.random.Generator) -> ArticulatedObject:
    """A case that lies and opens at the top (a briefcase, a trunk), or a trolley that stands,
    its handle drawn out."""
    a = Assembly("suitcase", rng, "body")
    return _trolley(a, rng) if chance(rng, 0.4) else _lying_case(a, rng)


def _lying_case(a: Assembly, rng: np.random.Generator) -> ArticulatedObject:
    """Two trays hinged behind; a handle in front that tips, and latches on some."""
    width, deep = rng.uniform(0.32, 0.75), rng.uniform(0.24, 0.5)
    low = rng.uniform(0.04, 0.16)
    high = rng.uniform(0.03, min(0.1, low))  # so that it can lie beside the body
    rim, wall = rectangle(width, deep, rng.uniform(0.01, 0.06)), rng.uniform(0.004, 0.01)
    a.add("body", *tray(rim, low, wall, rng.uniform(0.94, 1.0)))
    level = low + 0.001
    lid = [
        turned(moved(p, (0, 0, -high)), "y", np.pi)
        for p in tray(rim, high, wall, rng.uniform(0.94, 1.0))
    ]
    a.add("lid", *(moved(p, (0, 0, level)) for p in lid))
    back, front = np.array([0, deep / 2 + 0.003, level]), np.array([0, -deep / 2, low])
    for x in np.linspace(-0.35, 0.35, int(rng.integers(2, 4))) * width:
        a.add("body", cylinder(0.006, 0.05, "x", back + np.array([x, 0.002, 0]), 10))
    a.hinge("body", "lid", back, "-x", 0.0, rng.uniform(1.5, 2.2) if chance(rng, 0.6) else np.pi)
    if chance(rng, 0.8):
        at, reach = front - np.array([0, 0.006, 0.02]), rng.uniform(0.035, 0.055)
        a.add(
            "handle",
            handle(
                rng,
                pick(rng, ("bow", "bracket")),
                rng.uniform(0.1, 0.16),
                at,
                "-y",
                "x",
                reach=reach,
            ),
        )
        a.add(
            "body",
            *(box((0.02, 0.014, 0.016), at + np.array([s * 0.07, 0.003, 0])) for s in (-1, 1)),
        )
        a.hinge(
            "body",
            "handle",
            at,
            "x",
            -rng.uniform(0.2, 1.2),
            np.arcsin(min(1.0, 0.9 * at[2] / reach)),
        )
    if chance(rng, 0.5):
        for s, link in ((-1, "left_latch"), (1, "right_latch")):
            at = front + np.array([s * 0.33 * width, -0.004, -0.012])
            a.add(link, slab((0.035, 0.004, 0.035), at + np.array([0, 0, 0.014]), 0.004, "y"))
            a.hinge("body", link, at, "x", 0.0, rng.uniform(1.0, 1.8))
    return a.build()


def _trolley(a: Assembly, rng: np.random.Generator) -> ArticulatedObject:
    """A standing case on wheels: a bow behind that draws out, a carrying handle that folds, on
    some a front that opens."""
    width, deep, height = rng.uniform(0.3, 0.5), rng.uniform(0.18, 0.32), rng.uniform(0.45, 0.75)
    wheel = rng.uniform(0.018, 0.035)
    base, corner = 1.8 * wheel, rng.uniform(0.02, 0.4 * deep)
    opens = chance(rng, 0.5)
    wall = 0.008
    rim, split = rectangle(height, width, corner), deep * rng.uniform(0.4, 0.6) if opens else deep
    # A tray pointed along -y opens to the front: what was x is up, what was y is across.
    stand = np.array([[0, -1.0, 0], [0, 0, -1.0], [1.0, 0, 0]])
    middle = np.array([0, deep / 2, base + height / 2])
    a.add("body", *(moved(p, middle, stand) for p in tray(rim, split, wall)))
    if opens:
        front = [turned(p, "x", np.pi) for p in tray(rim, deep - split, wall)]
        a.add("front", *(moved(p, middle - np.array([0, deep + 0.001, 0]), stand) for p in front))
        s = pick(rng, (-1.0, 1.0))
        edge = (s * width / 2, deep / 2 - split, base + height / 2)
        a.hinge("body", "front", edge, (0, 0, s), 0.0, rng.uniform(1.6, 2.8))
    else:
        a.add("body", moved(extrude(rim * 0.995, wall, "z", (0, 0, deep)), middle, stand))
    glides = chance(rng, 0.3)  # in front, instead of wheels
    for x in (-0.4 * width, 0.4 * width):
        a.add("body", *_caster((x, 0.35 * deep), wheel, base))
        ahead = cylinder(0.01, base + wheel, "z", (x, -0.35 * deep, (base + wheel) / 2), 10)
        a.add(
            "front" if opens else "body",
            *([ahead] if glides else _caster((x, -0.35 * deep), wheel, base)),
        )
    half, top = width * rng.uniform(0.15, 0.32), base + height
    bow = np.array(
        [
            (-half, base + 0.3 * height),
            (-half, top + 0.02),
            (half, top + 0.02),
            (half, base + 0.3 * height),
        ]
    )
    path = rounded_path(list(np.insert(bow, 1, 0.35 * deep, axis=1)), 0.015)
    grip = cylinder(rng.uniform(0.01, 0.014), 1.8 * half, "x", (0, 0.35 * deep, top + 0.022), 10)
    a.add("bow", tube(path, rng.uniform(0.005, 0.009), 8), grip)
    a.slide("body", "bow", "z", 0.0, rng.uniform(0.25, 0.6) * height)
    if chance(rng, 0.7):
        at = np.array([0, -0.05 * deep, top])
        grip = handle(
            rng, "bracket", rng.uniform(0.1, 0.16), at, "z", "x", reach=rng.uniform(0.03, 0.05)
        )
        a.add("carry", turned(grip, "x", np.pi / 2 - 0.1, at + np.array([0, 0, 0.008])))
        a.hinge("body", "carry", at + np.array([0, 0, 0.008]), "-x", 0.0, np.pi / 2 - 0.1)
    return a.build()


def _caster(at: tuple[float, float], wheel: float, base: float) -> list[Piece]:
    """A wheel of radius `wheel` (m) on the floor at (x, y), and its post up into what stands
    `base` (m) above."""
    return [
        cylinder(wheel, 0.02, "x", (*at, wheel), 16),
        box((0.03, 0.03, base), (*at, base / 2 + 0.5 * wheel)),
    ]
