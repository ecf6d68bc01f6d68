"""Parts of appliances: dials, keys, racks, baskets and cooktops."""

from __future__ import annotations

import numpy as np
import trimesh

from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import (
    chance,
    knob,
    pick,
    placed,
)
from generators.data.objects.primitives import (
    box,
    cylinder,
    frame_box,
)
from generators.data.objects.sweeps import tube


def dial(
    a: Assembly, rng: np.random.Generator, link: str, r: float, at: tuple[float, float, float]
) -> None:
    """Knob on the front that turns about -y, on most with a mark that shows its angle."""
    high = r * rng.uniform(0.5, 1.1)
    a.add(link, placed(knob(rng, r, high), at, "-y", "x"))
    if chance(rng, 0.75):
        a.add(link, box((0.25 * r, 0.35 * r, 1.7 * r), (at[0], at[1] - high, at[2])))
    # turns both ways or one way
    span = rng.uniform(1.5, np.pi)
    a.hinge("base", link, at, "-y", *((-span, span) if chance(rng, 0.5) else (0.0, 1.7 * span)))


def keys(
    a: Assembly,
    rng: np.random.Generator,
    size: tuple[float, float],
    at: tuple[float, float, float],
    *,
    up: bool = False,
    link: str = "base",
) -> None:
    """Rows of keys, and a display on tall fields, within `size` about `at`, on a front or (`up`) on
    a top."""
    w, h = size
    normal, along = ("z", "x") if up else ("-y", "x")
    # grid of keys with occasional gaps
    columns, rows = (3, 4) if h > w else (6, 1 if h < 0.4 * w else 2)
    t = 0.003
    span = 0.65 * h if rows > 2 else h
    px, py = w / columns, span / rows
    pieces = [
        box((0.75 * px, 0.7 * py, 2 * t), ((i - (columns - 1) / 2) * px, (j + 0.5) * py - h / 2, 0))
        for i in range(columns)
        for j in range(rows)
        if chance(rng, 0.9)
    ]
    # display
    if rows > 2:
        pieces.append(box((0.9 * w, 0.2 * h, 2 * t), (0, 0.4 * h, 0)))
    a.add(link, *(placed(p, at, normal, along) for p in pieces))


def rack(size: tuple[float, float], at: tuple[float, float, float]) -> list[trimesh.Trimesh]:
    """Horizontal grid of bars."""
    w, d = size
    x, y, z = at
    bars = [box((w, 0.006, 0.006), (x, y + s * d / 2, z)) for s in (-1, 0, 1)]
    return bars + [box((0.004, d, 0.004), (x + t * w, y, z)) for t in np.linspace(-0.48, 0.48, 7)]


def basket(
    size: tuple[float, float, float], at: tuple[float, float, float]
) -> list[trimesh.Trimesh]:
    """Wire basket with a rim, open at the top."""
    w, d, h = size
    c = np.asarray(at)
    corners = np.array(
        [[-w / 2, -d / 2, 0], [w / 2, -d / 2, 0], [w / 2, d / 2, 0], [-w / 2, d / 2, 0]]
    )
    # rim and two lower loops
    loops = [
        tube(c + corners * s + [0, 0, z], 0.004, 6, closed=True)
        for s, z in ((1.0, h / 2), (0.99, 0), (0.98, -h / 2))
    ]
    # wires down one side, across the floor and up the other, in both directions
    wires = []
    for t in np.linspace(-0.49, 0.49, 7):
        x, y = t * w, t * d
        front, back = (
            [(x, -d / 2, h / 2), (x, -d / 2, -h / 2)],
            [(x, d / 2, -h / 2), (x, d / 2, h / 2)],
        )
        wires.append(tube(c + np.array([*front, *back]), 0.0025, 5))
        left, right = (
            [(-w / 2, y, h / 2), (-w / 2, y, -h / 2)],
            [(w / 2, y, -h / 2), (w / 2, y, h / 2)],
        )
        wires.append(tube(c + np.array([*left, *right]), 0.0025, 5))
    return loops + wires


def cooktop(a: Assembly, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    """Four burners with grates, hot plates or a glass top, and sometimes a board behind them."""
    kind = pick(rng, ("plates", "grates", "glass"))
    if kind == "glass":
        a.add("base", box((0.94 * w, 0.9 * d, 0.006), (0, 0, h)))
    for x in (-0.23, 0.23):
        for y in (-0.22, 0.22):
            r = rng.uniform(0.1, 0.16) * min(w, d)
            at = (x * w, y * d, h + 0.005)
            a.add("base", cylinder(r if kind != "grates" else 0.5 * r, 0.02, "z", at, 18))
            if kind == "grates":
                a.add("base", *_grate((at[0], at[1], h), r))
    # board along the rear edge
    if chance(rng, 0.4):
        b = rng.uniform(0.05, 0.2)
        a.add("base", box((w, 0.05, b), (0, d / 2 - 0.025, h + b / 2), rng))


def _grate(center: tuple[float, float, float], r: float) -> list[trimesh.Trimesh]:
    """Square grate with a cross of bars over a burner of radius `r` (m), on two feet."""
    x, y, z = center
    top = z + 0.03
    foot = (0.012, 0.012, 0.036)
    return [
        box((2.6 * r, 0.01, 0.01), (x, y, top)),
        box((0.01, 2.6 * r, 0.01), (x, y, top)),
        frame_box((2.6 * r, 2.6 * r, 0.012), 0.01, (x, y, top), along="z"),
        *(box(foot, (x + s * 1.25 * r, y + s * 1.25 * r, z + 0.015)) for s in (-1, 1)),
    ]
