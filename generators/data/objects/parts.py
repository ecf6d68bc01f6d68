"""Parts that many families share: handles, knobs, feet, and a few draws of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.utils.checks import FloatArray
from generators.data.objects.assembly import Assembly
from generators.data.objects.primitives import (
    ORIGIN,
    box,
    circle,
    cylinder,
    direction,
    frame_box,
    lathe,
    merge,
    moved,
    rectangle,
    rounded_box,
)
from generators.data.objects.sweeps import rounded_path, sweep, tube

T = TypeVar("T")
HANDLES = ("bar", "bow", "bracket", "strip", "cup", "knob")


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def pick(
    rng: np.random.Generator, choices: Sequence[T], weights: Sequence[float] | None = None
) -> T:
    """One of the choices, at equal odds or by `weights` (any positive scale)."""
    p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return choices[int(rng.choice(len(choices), p=p))]


def placed(
    mesh: trimesh.Trimesh, at: ArrayLike, normal: str | ArrayLike, along: str | ArrayLike
) -> trimesh.Trimesh:
    """Part drawn along x and standing up along z, placed at `at` (3,) on a face with a given
    normal."""
    z = direction(normal)
    x = direction(along)
    return moved(mesh, at, np.stack([x, np.cross(z, x), z], axis=1))


def handle(
    rng: np.random.Generator,
    kind: str,
    length: float,
    at: ArrayLike = ORIGIN,
    normal: str | ArrayLike = "-y",
    along: str | ArrayLike = "x",
    *,
    reach: float = 0.0,
) -> trimesh.Trimesh:
    """Handle about `length` (m) long on a face.

    Args:
        rng: Random generator.
        kind: One of HANDLES; a knob is at most as wide as a hand's grip.
        length: Length, m.
        at: (3,) Center of its foot on the face.
        normal: Normal of the face, an axis name or a vector.
        along: Direction of its length.
        reach: Height above the face, m. Defaults to a random 18 to 45 % of the length.

    Raises:
        ValueError: Unknown kind.
    """
    # height, radius of the bar and half length
    h = reach or min(length * rng.uniform(0.18, 0.45), 0.07)
    r = min(h * rng.uniform(0.12, 0.28), 0.012)
    half = length / 2
    # drawn on z = 0 along x
    if kind == "bar":
        inset = half * rng.uniform(0.6, 0.95)
        section = circle(1.0, 10) if chance(rng, 0.6) else rectangle(1.7, 1.7)
        grip = sweep([(-half, 0, h - r), (half, 0, h - r)], section, scale=r)
        posts = [cylinder(0.8 * r, h - r, "z", (s * inset, 0, (h - r) / 2), 8) for s in (-1, 1)]
        mesh = merge(grip, *posts)
    elif kind == "bow":
        a = np.linspace(0, np.pi, 11)
        mesh = tube(np.stack([-half * np.cos(a), 0 * a, (h - r) * np.sin(a)], 1), r, 8)
    elif kind == "bracket":
        path = rounded_path(
            [(-half, 0, 0), (-half, 0, h - r), (half, 0, h - r), (half, 0, 0)],
            h * rng.uniform(0.1, 0.7),
        )
        width = r * rng.uniform(1.0, 2.2)
        mesh = sweep(
            path, circle(r, 10) if chance(rng, 0.5) else rectangle(2 * width, 1.6 * r), up="x"
        )
    elif kind == "strip":
        mesh = rounded_box((length, 2.5 * r, h), (0, 0, h / 2), 0.8 * r)
    elif kind == "cup":
        a = np.linspace(-np.pi / 2, np.pi / 2, 7)
        depth = h * rng.uniform(0.8, 1.2)
        path = np.stack([half * np.sin(a), 0 * a, h * np.cos(a)], 1)
        mesh = merge(
            sweep(path, rectangle(depth, 0.6 * r), up="x"),
            box((length, 0.6 * r, h), (0, -depth / 2, h / 2)),
        )
    elif kind == "knob":
        mesh = knob(rng, min(length / 2, 0.022), min(h, 0.04))
    else:
        raise ValueError(f"handle: expected one of {', '.join(HANDLES)}, got {kind!r}")
    return placed(mesh, at, normal, along)


def knob(rng: np.random.Generator, radius: float, height: float) -> trimesh.Trimesh:
    """Knob on z = 0: a mushroom, a drum, a ball on a stem, or a block."""
    r, h = radius, height
    kind = pick(rng, ("mushroom", "drum", "ball", "block"))
    if kind == "block":
        return rounded_box((1.7 * r, 1.7 * r, h), (0, 0, h / 2), r * rng.uniform(0.05, 0.4))
    neck = r * rng.uniform(0.35, 0.6)
    if kind == "drum":
        bevel = rng.uniform(0.05, 0.3) * min(r, h)
        return lathe([(0, 0), (r, 0), (r, h - bevel), (r - bevel, h), (0, h)], 18)
    if kind == "mushroom":
        stem = [(0, 0), (neck, 0), (neck, 0.45 * h)]
        cap = [(r, 0.65 * h), (r, 0.85 * h), (0.7 * r, h), (0, h)]
        return lathe(stem + cap, 18)
    # ball, flattened if the knob is low: profile (6, 2) of (radius, height)
    a = np.linspace(-0.9, np.pi / 2, 7)[:-1]
    if h > 1.8 * r:
        bulb = np.stack([r * np.cos(a), h - r + r * np.sin(a)], 1)
    else:
        bulb = np.stack([r * np.cos(a), 0.6 * h + 0.4 * h * np.sin(a)], 1)
    return lathe([(0, 0), (neck, 0), *bulb, (0, h)], 18)


def feet(
    rng: np.random.Generator,
    width: float,
    depth: float,
    height: float,
    top: float = 0.0,
    kind: str = "",
) -> list[trimesh.Trimesh]:
    """Four feet, two runners or a plinth under a body of width x by depth y about the z axis.

    They reach from z = `top` down by `height` (m). `kind` is "round", "square", "runners" or
    "plinth". Defaults to a random one.
    """
    kind = kind or pick(rng, ("round", "square", "runners", "plinth"), (3, 3, 1, 2))
    # half width of a foot, and the center of the one at +x, +y
    narrow = min(width, depth)
    size = min(max(0.02 * narrow, 0.35 * height), 0.12 * narrow) * rng.uniform(0.9, 1.6)
    x = (width / 2 - size) * 0.98
    y = (depth / 2 - size) * 0.98
    z = top - height / 2
    if kind == "plinth":
        inset = rng.uniform(0.9, 0.99)
        return [box((width * inset, depth * inset, height), (0, 0, z))]
    if kind == "runners":
        return [box((2 * size, depth * 0.98, height), (s * x, 0, z)) for s in (-1, 1)]
    corners = [(a * x, b * y, z) for a in (-1, 1) for b in (-1, 1)]
    if kind == "square":
        return [box((2 * size, 2 * size, height), c) for c in corners]
    taper = rng.uniform(0.5, 1.0)
    h = height / 2
    return [lathe([(0, -h), (taper * size, -h), (size, h), (0, h)], 12, "z", c) for c in corners]


OPENS = {"left": "-z", "right": "z", "bottom": "x", "top": "-x"}
"""Axis about which a door in a front (facing -y) opens, by the side of its hinge seen from the
front."""


class DoorArea(NamedTuple):
    """Rectangle of a front (facing -y) that a door covers.

    Attributes:
        low, high: (x, z) of its lower left and upper right corners, m.
        hinge: side of the hinge seen from the front: "left", "right", "bottom" or "top".
    """

    low: tuple[float, float]
    high: tuple[float, float]
    hinge: str


def front_door(
    a: Assembly,
    link: str,
    area: DoorArea,
    y: float,
    thick: float,
    upper: float,
    *,
    window: float = 0.0,
) -> FloatArray:
    """Door in front of the plane at `y` (m), added to an assembly.

    It turns about the front edge at its hinge by 0 to `upper` (rad).

    Args:
        a: assembly; the door becomes a child of its link "base".
        link: name of the door.
        area: rectangle that the door covers, and the side of its hinge.
        y: plane of the front, m.
        thick: thickness of the door, m.
        upper: opening angle, rad.
        window: width (m) of the frame around a recessed pane; 0 makes a solid board.

    Returns:
        (3,) center of the door's front.
    """
    (x0, z0), (x1, z1) = area.low, area.high
    center = np.array([(x0 + x1) / 2, y - thick / 2, (z0 + z1) / 2])
    size = np.array([x1 - x0, thick, z1 - z0])
    if window > 0:
        a.add(link, frame_box(size, window, center))
        a.add(link, box((size[0] - 1.9 * window, 0.25 * thick, size[2] - 1.9 * window), center))
    else:
        a.add(link, box(size, center))
    # position (x, z) of the hinge axis
    edge = {
        "left": (x0, center[2]),
        "right": (x1, center[2]),
        "bottom": (center[0], z0),
        "top": (center[0], z1),
    }[area.hinge]
    a.hinge("base", link, (edge[0], y - thick, edge[1]), OPENS[area.hinge], 0.0, upper)
    return center - [0, thick / 2, 0]


def door_handle(
    rng: np.random.Generator,
    kind: str,
    length: float,
    area: DoorArea,
    y: float,
    inset: float,
) -> trimesh.Trimesh:
    """Handle for a `front_door` of the same area, on its front at `y` (m), `inset` (m) from its
    free edge.

    It lies parallel to the free edge at half its length; a cup or a strip lies level.
    """
    hinge = area.hinge
    (x0, z0), (x1, z1) = np.asarray(area.low, float), np.asarray(area.high, float)
    # center of the handle
    x = {"left": x1 - inset, "right": x0 + inset}.get(hinge, (x0 + x1) / 2)
    z = {"bottom": z1 - inset, "top": z0 + inset}.get(hinge, (z0 + z1) / 2)
    upright = hinge in ("left", "right") and kind != "cup"
    return handle(rng, kind, length, (x, y, z), "-y", "z" if upright else "x")
