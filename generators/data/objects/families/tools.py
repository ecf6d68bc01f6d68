"""Hand tools that lie on a table: scissors, pliers and folding knives.

They are drawn in the xy plane with the axis of the pivot along z and blades or jaws toward +y.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.desk import eyeglasses, stapler, usb_cap
from generators.data.objects.parts import chance, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cylinder,
    extrude,
    mirrored,
    moved,
    rectangle,
    slab,
)
from generators.data.objects.sweeps import arc, rounded_path, sweep, tube

Piece = trimesh.Trimesh


def scissors(rng: np.random.Generator) -> ArticulatedObject:
    """Scissors: two blades on a screw, each with a finger ring; closed at 0, one blade is the
    root."""
    a = Assembly("scissors", rng, "blade_0")
    length = rng.uniform(0.04, 0.16)
    thick = rng.uniform(0.0015, 0.004)
    width = length * rng.uniform(0.1, 0.2)
    back = length * rng.uniform(0.15, 0.6)
    radius = min(rng.uniform(0.012, 0.03), 0.35 * length) * pick(rng, (1.0, 1.0, 0.7))
    curved = chance(rng, 0.3)
    uneven = chance(rng, 0.2)
    style = int(rng.integers(2**31))
    # two blades, the second mirrored; the rings have the same style or different ones
    for i, side in enumerate((1.0, -1.0)):
        z = (0.5 - i) * thick * 1.05
        tip = rng.uniform(0.0, 0.5) * width
        right = [(width / 2, -0.6 * width), (width / 2, 0.45 * length)]
        point = [(tip, length), (-0.1 * width, length)]
        left = [(-width / 2, 0.2 * length), (-width / 2, -0.6 * width)]
        blade = extrude(right + point + left, thick, "z", (0, 0, z))
        like = rng if uneven else np.random.default_rng(style)
        grip = _ring_grip(like, radius, back, width, thick, curved)
        half = [mirrored(blade, "x"), *grip]
        a.add(f"blade_{i}", *(mirrored(p, "x") if side < 0 else p for p in half))
    # screw
    a.add("blade_0", cylinder(0.3 * width, 3.0 * thick, sections=12))
    a.hinge("blade_0", "blade_1", (0, 0, 0), "-z", 0.0, rng.uniform(0.7, 1.6))
    return a.build()


def _ring_grip(
    rng: np.random.Generator, radius: float, back: float, width: float, thick: float, curved: bool
) -> list[Piece]:
    """Shank from the pivot to a round or elongated finger ring on the +x side, behind the blade."""
    long = rng.uniform(1.0, 2.0)
    bar = rng.uniform(0.15, 0.3) * radius
    # ring, a round or a flat bar
    middle = np.array([radius + bar + 0.001, -back - long * radius, 0.0])
    loop = arc(middle, radius, 0, 2 * np.pi, ("x", "y"), int(pick(rng, (12, 18, 26))))[:-1]
    loop[:, 1] = middle[1] + (loop[:, 1] - middle[1]) * long
    if chance(rng, 0.6):
        pieces = [tube(loop, bar, 8, closed=True)]
    else:
        flat = rectangle(2 * bar, rng.uniform(1.8, 2.5) * max(0.7 * bar, thick))
        pieces = [sweep(loop, flat, closed=True)]
    # shank
    end = middle + np.array([-0.6 * radius, 0.8 * long * radius, 0])
    bend = np.array([-0.1 * width if curved else 0.3 * width, -0.6 * back, 0])
    path = rounded_path([(0, -0.3 * width, 0), bend, end], 0.4 * back)
    taper = np.linspace(1.0, rng.uniform(0.6, 1.0), len(path))
    pieces.append(sweep(path, rectangle(0.8 * width, 1.9 * thick), scale=taper))
    return pieces


def pliers(rng: np.random.Generator) -> ArticulatedObject:
    """Pliers: two halves on a rivet with flat, round or hooked jaws and curved handles, with or
    without sleeves."""
    a = Assembly("pliers", rng, "half_0")
    jaw = rng.uniform(0.025, 0.08)
    handle = rng.uniform(0.07, 0.16)
    width = rng.uniform(0.007, 0.016)
    thick = rng.uniform(0.006, 0.014)
    tip = rng.uniform(0.15, 1.1) * width
    shape = pick(rng, ("flat", "flat", "round", "hook"))
    bow = rng.uniform(0.1, 0.3) * handle
    grip = rng.uniform(0.5, 0.9) * width
    sleeve = rng.uniform(1.2, 1.5) if chance(rng, 0.6) else 0.0
    sections = int(pick(rng, (6, 8, 12)))
    boss = width * rng.uniform(0.9, 1.3)
    # centerline (9, 3) of a handle
    s = np.linspace(0, 1, 9)
    path = np.column_stack(
        [0.4 * width + bow * np.sin(np.pi * s**0.7 * 0.85), -0.5 * boss - handle * s, 0 * s]
    )
    for i in range(2):
        if shape == "round":
            line = [(0.5 * width, 0, 0), (0.3 * width, jaw, 0)]
            front = tube(line, [0.5 * width, 0.3 * min(tip, width)], sections)
        elif shape == "hook":
            line = [(0.5 * width, 0, 0), (1.3 * width, 0.55 * jaw, 0), (0.5 * tip, jaw, 0)]
            front = sweep(rounded_path(line, 0.3 * jaw), rectangle(width, thick))
        else:
            outline = [(0.0005, 0), (width, 0), (max(tip, 0.2 * width), jaw), (0.0005, jaw)]
            front = extrude(outline, thick)
        # A half has its jaw and its handle on opposite sides of the rivet.
        pieces = [
            mirrored(front, "x"),
            tube(path, grip * np.interp(s, (0, 0.2, 1), (1.1, 0.8, 0.7)), sections),
        ]
        pieces.append(cylinder(boss, 0.5 * thick, "z", (0, 0, (0.5 - i) * 0.5 * thick), 16))
        if sleeve:
            pieces.append(tube(path[3:], sleeve * grip * np.linspace(0.8, 0.75, 6), sections))
        a.add(f"half_{i}", *(mirrored(p, "x") if i else p for p in pieces))
    # rivet
    a.add("half_0", cylinder(0.5 * boss, 1.3 * thick, sections=int(pick(rng, (6, 14)))))
    a.hinge("half_0", "half_1", (0, 0, 0), "-z", 0.0, rng.uniform(0.5, 1.1))
    return a.build()


# Knives


def knife(rng: np.random.Generator) -> ArticulatedObject:
    """Folding knife: one blade, or several blades and tools at both ends, between two scales;
    closed at 0."""
    a = Assembly("knife", rng, "handle")
    length = rng.uniform(0.07, 0.14)
    width = rng.uniform(0.012, 0.026)
    count = pick(rng, (1, 2, 3, 4), (6, 2, 1, 1))
    blade = rng.uniform(0.0015, 0.0035)
    gap = 0.0006
    scale = rng.uniform(0.002, 0.006)
    pitch = blade + gap
    depth = count * pitch + gap
    # handle: two scales and a back opposite the opening
    outline = _scale_outline(rng, length, width)
    for s in (-1, 1):
        a.add("handle", extrude(outline, scale, "z", (0, 0, s * (depth + scale) / 2)))
    if chance(rng, 0.8):
        a.add("handle", box((0.15 * width, 0.7 * length, depth), (-0.42 * width, 0, 0)))
    # blades, the first at the front end
    for i in range(count):
        end = 1 if i == 0 else pick(rng, (1, -1))
        z = (i - (count - 1) / 2) * pitch
        pivot = np.array([0.0, end * (length / 2 - 0.45 * width), z])
        reach = length - 0.6 * width - rng.uniform(0.0, 0.4 if i else 0.1) * length
        drawn = extrude(_blade_outline(rng, reach, width), blade)
        drawn = drawn if end > 0 else mirrored(drawn, "y")
        link = f"blade_{i}" if count > 1 else "blade"
        a.add(link, moved(drawn, pivot))
        stop = np.pi if chance(rng, 0.6) else rng.uniform(1.6, np.pi)
        a.hinge("handle", link, pivot, "z" if end > 0 else "-z", 0.0, stop)
    # pins
    for end in (-1, 1):
        pin = (0, end * (length / 2 - 0.45 * width), 0)
        a.add("handle", cylinder(0.12 * width, depth + 2.3 * scale, "z", pin, 8))
    # pocket clip
    if chance(rng, 0.3):
        clip = (0.25 * width, 0.5 * length, 0.001)
        post = (0.25 * width, 0.06 * length, 0.003)
        top = depth / 2 + scale
        a.add("handle", slab(clip, (0, 0.1 * length, top + 0.002), 0.1 * width))
        a.add("handle", box(post, (0, 0.32 * length, top + 0.001)))
    return a.build()


def _scale_outline(rng: np.random.Generator, length: float, width: float) -> FloatArray:
    """Outline (m, 2) of a scale: straight with round ends, bowed, or tapered."""
    y = np.linspace(-1, 1, 13)
    round_end = np.sqrt(np.clip(1 - np.abs(y) ** rng.uniform(6, 20), 0.02, 1))
    bow = rng.uniform(-0.15, 0.2) * (1 - y**2) * width
    half = width / 2 * round_end * (1 + rng.uniform(-0.25, 0.25) * y)
    right = np.column_stack([bow + half, y * length / 2])  # (13, 2)
    left = np.column_stack([bow - half, y * length / 2])
    return np.concatenate([right, left[::-1]])


def _blade_outline(rng: np.random.Generator, reach: float, width: float) -> FloatArray:
    """Outline (m, 2) of a blade or a screwdriver of length `reach` (m) toward -y, with its pivot at
    the origin."""
    w = width * rng.uniform(0.6, 0.85)
    root = w * 0.35 * circle(1.0, 12)[1:6]  # half circle around the pivot
    if chance(rng, 0.25):
        tip = w * rng.uniform(0.3, 0.9)
        left = [(-0.3 * w, -0.2 * reach)]
        right = [(0.3 * w, -0.2 * reach)]
        return np.concatenate([root, left, [(-tip / 2, -reach), (tip / 2, -reach)], right])
    belly = rng.uniform(0.6, 0.9)
    edge = [(-0.5 * w, -0.15 * reach), (-0.5 * w, -belly * reach), (0.2 * w, -reach)]
    spine = [(0.5 * w, -0.8 * reach), (0.5 * w, -0.2 * reach)]
    return np.concatenate([root, edge, spine])


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "scissors": scissors,
    "pliers": pliers,
    "knife": knife,
    "stapler": stapler,
    "eyeglasses": eyeglasses,
    "usb_cap": usb_cap,
}
