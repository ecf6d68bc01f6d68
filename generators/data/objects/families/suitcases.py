"""Suitcases: lying cases with a lid, and standing trolleys with a telescopic handle."""

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
    """Suitcase: a lying case that opens at the top (a briefcase, a trunk), or a standing
    trolley."""
    a = Assembly("suitcase", rng, "body")
    return _trolley(a, rng) if chance(rng, 0.4) else _lying_case(a, rng)


def _lying_case(a: Assembly, rng: np.random.Generator) -> ArticulatedObject:
    """Lying case: two trays hinged at the rear, and on some a handle that tilts and two latches."""
    width = rng.uniform(0.32, 0.75)
    deep = rng.uniform(0.24, 0.5)
    low = rng.uniform(0.04, 0.16)
    high = rng.uniform(0.03, min(0.1, low))  # the open lid fits beside the body
    # body and lid
    rim = rectangle(width, deep, rng.uniform(0.01, 0.06))
    wall = rng.uniform(0.004, 0.01)
    a.add("body", *tray(rim, low, wall, rng.uniform(0.94, 1.0)))
    level = low + 0.001
    lid = [
        turned(moved(p, (0, 0, -high)), "y", np.pi)
        for p in tray(rim, high, wall, rng.uniform(0.94, 1.0))
    ]
    a.add("lid", *(moved(p, (0, 0, level)) for p in lid))
    # hinges
    back = np.array([0, deep / 2 + 0.003, level])
    front = np.array([0, -deep / 2, low])
    for x in np.linspace(-0.35, 0.35, int(rng.integers(2, 4))) * width:
        a.add("body", cylinder(0.006, 0.05, "x", back + np.array([x, 0.002, 0]), 10))
    a.hinge("body", "lid", back, "-x", 0.0, rng.uniform(1.5, 2.2) if chance(rng, 0.6) else np.pi)
    # handle at the front
    if chance(rng, 0.8):
        at = front - np.array([0, 0.006, 0.02])
        reach = rng.uniform(0.035, 0.055)
        kind = pick(rng, ("bow", "bracket"))
        length = rng.uniform(0.1, 0.16)
        a.add("handle", handle(rng, kind, length, at, "-y", "x", reach=reach))
        for s in (-1, 1):
            a.add("body", box((0.02, 0.014, 0.016), at + np.array([s * 0.07, 0.003, 0])))
        down = np.arcsin(min(1.0, 0.9 * at[2] / reach))
        a.hinge("body", "handle", at, "x", -rng.uniform(0.2, 1.2), down)
    # latches
    if chance(rng, 0.5):
        for s, link in ((-1, "left_latch"), (1, "right_latch")):
            at = front + np.array([s * 0.33 * width, -0.004, -0.012])
            a.add(link, slab((0.035, 0.004, 0.035), at + np.array([0, 0, 0.014]), 0.004, "y"))
            a.hinge("body", link, at, "x", 0.0, rng.uniform(1.0, 1.8))
    return a.build()


def _trolley(a: Assembly, rng: np.random.Generator) -> ArticulatedObject:
    """Trolley: a standing case on wheels with a telescopic handle at the rear, on some a front that
    opens and a carrying handle that folds."""
    width = rng.uniform(0.3, 0.5)
    deep = rng.uniform(0.18, 0.32)
    height = rng.uniform(0.45, 0.75)
    wheel = rng.uniform(0.018, 0.035)
    base = 1.8 * wheel
    corner = rng.uniform(0.02, 0.4 * deep)
    opens = chance(rng, 0.5)
    wall = 0.008
    rim = rectangle(height, width, corner)
    split = deep * rng.uniform(0.4, 0.6) if opens else deep
    # body; a tray pointed along -y opens to the front, its x axis up and its y axis across
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
    # wheels at the rear; wheels or glides at the front
    glides = chance(rng, 0.3)
    for x in (-0.4 * width, 0.4 * width):
        a.add("body", *_caster((x, 0.35 * deep), wheel, base))
        ahead = cylinder(0.01, base + wheel, "z", (x, -0.35 * deep, (base + wheel) / 2), 10)
        support = [ahead] if glides else _caster((x, -0.35 * deep), wheel, base)
        a.add("front" if opens else "body", *support)
    # telescopic handle
    half = width * rng.uniform(0.15, 0.32)
    top = base + height
    low = base + 0.3 * height
    high = top + 0.02
    bow = np.array([(-half, low), (-half, high), (half, high), (half, low)])  # (x, z)
    path = rounded_path(list(np.insert(bow, 1, 0.35 * deep, axis=1)), 0.015)
    grip = cylinder(rng.uniform(0.01, 0.014), 1.8 * half, "x", (0, 0.35 * deep, top + 0.022), 10)
    a.add("bow", tube(path, rng.uniform(0.005, 0.009), 8), grip)
    a.slide("body", "bow", "z", 0.0, rng.uniform(0.25, 0.6) * height)
    # carrying handle on top
    if chance(rng, 0.7):
        at = np.array([0, -0.05 * deep, top])
        length = rng.uniform(0.1, 0.16)
        reach = rng.uniform(0.03, 0.05)
        grip = handle(rng, "bracket", length, at, "z", "x", reach=reach)
        a.add("carry", turned(grip, "x", np.pi / 2 - 0.1, at + np.array([0, 0, 0.008])))
        a.hinge("body", "carry", at + np.array([0, 0, 0.008]), "-x", 0.0, np.pi / 2 - 0.1)
    return a.build()


def _caster(at: tuple[float, float], wheel: float, base: float) -> list[Piece]:
    """Wheel of radius `wheel` (m) on the floor at (x, y), and a post up to the case `base` (m)
    above."""
    return [
        cylinder(wheel, 0.02, "x", (*at, wheel), 16),
        box((0.03, 0.03, base), (*at, base / 2 + 0.5 * wheel)),
    ]
