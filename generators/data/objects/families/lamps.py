"""Desk lamps: a foot, one or two arms and a head, in the xz plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import chance, knob, pick
from generators.data.objects.primitives import (
    box,
    cup,
    cylinder,
    lathe,
    moved,
    pointed,
    rectangle,
    rounded_box,
    slab,
    sphere,
)
from generators.data.objects.sweeps import sweep, tube


def desk_lamp(rng: np.random.Generator) -> ArticulatedObject:
    """Desk lamp with two to four joints: a shoulder and, on some, an elbow, a head that tilts and a
    foot that turns."""
    a = Assembly("desk_lamp", rng)
    size = rng.uniform(0.3, 0.75)  # length of both arms
    elbow = chance(rng, 0.8)
    tilt = chance(rng, 0.8) or not elbow
    swivel = chance(rng, 0.35)
    split = rng.uniform(0.4, 0.6)

    # foot and post up to the shoulder
    r = size * rng.uniform(0.009, 0.025)
    top = _foot(a, rng, size, swivel)
    x0 = rng.uniform(-0.06, 0.06) * size if not swivel else 0.0
    post = rng.uniform(0.02, 0.12) * size
    shoulder = np.array([x0, 0, top + post])
    carrier = "turntable" if swivel else "base"
    a.add(carrier, cylinder(1.3 * r, post, "z", shoulder - [0, 0, post / 2], 12))
    # angles of the lower and the upper arm from the vertical, positive toward +x
    lean = rng.uniform(-0.5, 0.35)
    reach = rng.uniform(0.5, 1.9)
    middle = shoulder + size * split * np.array([np.sin(lean), 0, np.cos(lean)])
    end = middle + size * (1 - split) * np.array([np.sin(reach), 0, np.cos(reach)])
    kind = pick(rng, ("rod", "pair", "flat", "rods and spring"), (4, 3, 2, 1.5))
    if swivel:
        spin = rng.uniform(1.0, np.pi)
        a.hinge("base", "turntable", (x0, 0, top), "z", -spin, spin, "swivel")
    # Limits of shoulder and elbow. A turn about +y takes z to x: positive angles bend the arm down.
    bends = (
        rng.uniform([[0.3, 0.4], [0.5, 0.4]], [[0.9, 1.1], [1.3, 1.3]])
        * [[1.0], [float(elbow)]]
        * [-1, 1]
    )
    lengths = size * np.array([split, 1 - split])
    bends = _above_table(bends, shoulder[2], lengths, np.array([lean, reach]), 0.22 * size)
    # arms with knuckles
    a.hinge(carrier, "lower_arm", shoulder, "y", bends[0, 0], bends[0, 1], "shoulder")
    a.add(
        "lower_arm", *_arm(rng, kind, shoulder, middle, r), _knuckle(rng, shoulder, 1.7 * r, kind)
    )
    if elbow:
        a.hinge("lower_arm", "upper_arm", middle, "y", bends[1, 0], bends[1, 1], "elbow")
    arm = "upper_arm" if elbow else "lower_arm"
    a.add(arm, *_arm(rng, kind, middle, end, r), _knuckle(rng, middle, 1.7 * r, kind))
    if elbow and chance(rng, 0.3):  # clamping screw
        a.add(arm, moved(pointed(knob(rng, 2.2 * r, 3 * r), "-y"), middle - [0, 2.0 * r, 0]))
    # head
    head = "head" if tilt else arm
    if tilt:
        a.hinge(arm, "head", end, "y", -rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.2), "head_tilt")
    a.add(head, _knuckle(rng, end, 1.5 * r, kind), *_head(rng, size, end, r))
    return a.build()


def _foot(a: Assembly, rng: np.random.Generator, size: float, swivel: bool) -> float:
    """Foot and, if it turns, its turntable, added to an assembly; returns the height of the top
    (m)."""
    radius = size * rng.uniform(0.14, 0.24)
    h = size * rng.uniform(0.025, 0.09)
    kind = pick(rng, ("disc", "dome", "square", "clamp"), (4, 3, 3, 1))
    sections = int(rng.integers(14, 33))
    if kind == "disc":
        bevel = h * rng.uniform(0.05, 0.5)
        a.add(
            "base",
            lathe(
                [(0, 0), (radius, 0), (radius, h - bevel), (radius - bevel, h), (0, h)], sections
            ),
        )
    elif kind == "dome":
        t = np.linspace(0, 0.45 * np.pi, 6)
        a.add(
            "base",
            lathe([(0, 0), *np.stack([radius * np.cos(t), h * np.sin(t)], 1), (0, h)], sections),
        )
    elif kind == "square":
        e = (2 * radius * rng.uniform(0.75, 1.0), 2 * radius * rng.uniform(0.75, 1.0), h)
        a.add(
            "base",
            slab(
                e, (0, 0, h / 2), radius * rng.uniform(0, 0.5), "z", bevel=rng.uniform(0, 0.4) * h
            ),
        )
    else:  # clamp for the edge of a table, drawn down to its lower jaw
        depth = size * rng.uniform(0.12, 0.2)
        jaw = size * 0.02
        h = size * rng.uniform(0.12, 0.2)
        w = size * rng.uniform(0.06, 0.1)
        a.add(
            "base", box((depth, w, jaw), (0, 0, h - jaw / 2)), box((depth, w, jaw), (0, 0, jaw / 2))
        )
        a.add("base", box((jaw, w, h), (-depth / 2 + jaw / 2, 0, h / 2)))
        a.add("base", cylinder(0.3 * jaw, 0.5 * h, "z", (depth / 4, 0, 0.25 * h), 10))
        a.add("base", cylinder(1.2 * jaw, 0.3 * jaw, "z", (depth / 4, 0, 0.5 * h), 12))
    if kind in ("disc", "square") and chance(rng, 0.4):  # switch
        a.add(
            "base", cylinder(0.1 * radius, 0.2 * h, "z", (0.5 * radius, 0.3 * radius, 1.05 * h), 10)
        )
    if swivel:
        disc = size * rng.uniform(0.01, 0.03)
        a.add(
            "turntable",
            cylinder(radius * rng.uniform(0.2, 0.6), disc, "z", (0, 0, h + disc / 2), 20),
        )
        h += disc
    return h


def _above_table(
    bends: FloatArray, shoulder: float, lengths: FloatArray, angles: FloatArray, lowest: float
) -> FloatArray:
    """Limits (2, 2) of shoulder and elbow, narrowed until the end of the arms stays above the
    table.

    Args:
        bends: (2, 2) limits of the two joints, rad.
        shoulder: height of the shoulder, m.
        lengths: (2,) lengths of the arms, m.
        angles: (2,) angles of the arms from the vertical at rest, rad.
        lowest: lowest height of the end, m; the height at rest if that is lower.
    """
    lowest = min(lowest, shoulder + float(lengths @ np.cos(angles)) - 1e-6)
    for _ in range(40):
        # heights of the end at the four combinations of limits
        s, e = np.meshgrid(*bends)
        height = (
            shoulder + lengths[0] * np.cos(angles[0] + s) + lengths[1] * np.cos(angles[1] + s + e)
        )
        if height.min() >= lowest:
            break
        bends = 0.9 * bends
    return bends


def _arm(
    rng: np.random.Generator, kind: str, start: FloatArray, stop: FloatArray, r: float
) -> list[trimesh.Trimesh]:
    """Arm from `start` to `stop` (3,): a rod, a flat bar, or a pair of rods with or without a
    spring."""
    along = (stop - start) / np.linalg.norm(stop - start)
    aside = np.array([along[2], 0, -along[0]])
    if kind == "rod":
        return [tube([start, stop], r * rng.uniform(0.8, 1.2), 10)]
    if kind == "flat":
        return [sweep([start, stop], rectangle(r * 1.2, r * 3.0, r * 0.3), up="y")]
    # two parallel rods, beside or above one another
    gap = r * rng.uniform(1.2, 2.0)
    thin = r * rng.uniform(0.4, 0.65)
    across = np.array([0, gap, 0]) if kind == "pair" and chance(rng, 0.5) else gap * aside
    rods = [tube([start + s * across, stop + s * across], thin, 8) for s in (-1, 1)]
    if kind == "rods and spring":
        end = start + rng.uniform(0.4, 0.7) * (stop - start)
        rods.append(tube([start + 0.1 * (stop - start), end], 1.1 * thin, 8))
    return rods


def _knuckle(rng: np.random.Generator, at: FloatArray, r: float, kind: str) -> trimesh.Trimesh:
    """Body of a joint at `at` (3,): a drum along the axis, a ball, or a block."""
    wide = 1.6 if kind in ("pair", "rods and spring") else 1.0
    form = pick(rng, ("drum", "ball", "block"), (4, 1.5, 1))
    if form == "ball":
        return sphere(wide * r * 1.1, at, 12)
    if form == "block":
        return rounded_box(np.array([1.8, 2.0, 1.8]) * wide * r, at, 0.3 * r)
    return cylinder(wide * r, 2.2 * wide * r, "y", at, 14)


def _head(rng: np.random.Generator, size: float, at: FloatArray, r: float) -> list[trimesh.Trimesh]:
    """Head that hangs from `at` (3,): a shade (cone, bell or drum) with a socket and a bulb, or a
    flat light bar."""
    tilt = rng.uniform(-0.5, 1.2)  # of the light's direction, from straight down toward +x
    down: ArrayLike = (np.sin(tilt), 0, -np.cos(tilt))
    kind = pick(rng, ("cone", "bell", "drum", "bar"), (5, 2.5, 1.5, 2))
    if kind == "bar":
        long = size * rng.uniform(0.3, 0.6)
        wide = size * rng.uniform(0.05, 0.14)
        e = np.array([long, wide, size * rng.uniform(0.015, 0.05)])
        shift = e[0] * rng.uniform(0.0, 0.45)
        bar = slab(e, (shift, 0, 0), rng.uniform(0, 0.4) * e[1], "z")
        c = np.cos(tilt / 2)
        s = np.sin(tilt / 2)
        return [moved(bar, at, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]))]
    # profile (n, 2) of the shade, (radius, distance from the joint)
    wide = size * rng.uniform(0.1, 0.2)
    narrow = max(wide * rng.uniform(0.25, 0.55), 1.5 * r)
    h = wide * rng.uniform(0.9, 2.0)
    wall = wide * rng.uniform(0.03, 0.08)
    if kind == "cone":
        profile = np.array([(narrow, 0), (wide, h)])
    elif kind == "drum":
        profile = np.array([(0.9 * wide, 0), (0.9 * wide, h)])
    else:
        t = np.linspace(0, 1, 7)[:, None]
        profile = np.hstack([narrow + (wide - narrow) * np.sin(t * np.pi / 2), h * t])
    # shade, socket and bulb
    sections = int(rng.integers(14, 33))
    start = np.asarray(at) + np.asarray(down) * r
    pieces = [pointed(cup(profile, wall, sections), down, start)]
    pieces.append(cylinder(0.7 * narrow, 2 * r, down, at, 14))
    if chance(rng, 0.6):
        bulb = 0.5 * narrow + 0.1 * wide
        pieces.append(sphere(bulb, start + np.asarray(down) * h * rng.uniform(0.45, 0.7), 12))
        pieces.append(tube([start, start + np.asarray(down) * 0.5 * h], 0.6 * bulb, 10))
    return pieces


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {"desk_lamp": desk_lamp}
