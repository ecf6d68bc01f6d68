"""Parts of appliances: dials, keys, racks, baskets and hobs."""

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
    """A knob on the front that turns about -y, with a mark so that its turn shows."""
    high = r * rng.uniform(0.5, 1.1)
    a.add(link, placed(knob(rng, r, high), at, "-y", "x"))
    if chance(rng, 0.75):
        a.add(link, box((0.25 * r, 0.35 * r, 1.7 * r), (at[0], at[1] - high, at[2])))
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
    """A display and rows of keys within `size` about `at`, on a front, or on a top if `up`."""
    w, h = size
    normal, along = ("z", "x") if up else ("-y", "x")
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
    if rows > 2:
        pieces.append(box((0.9 * w, 0.2 * h, 2 * t), (0, 0.4 * h, 0)))
    a.add(link, *(placed(p, at, normal, along) for p in pieces))


def rack(size: tuple[float, float], at: tuple[float, float, float]) -> list[trimesh.Trimesh]:
    """A grid of bars, level."""
    w, d = size
    x, y, z = at
    bars = [box((w, 0.006, 0.006), (x, y + s * d / 2, z)) for s in (-1, 0, 1)]
    return bars + [box((0.004, d, 0.004), (x + t * w, y, z)) for t in np.linspace(-0.48, 0.48, 7)]


def basket(
    size: tuple[float, float, float], at: tuple[float, float, float]
) -> list[trimesh.Trimesh]:
    """A basket of wires with a rim, open above."""
    w, d, h = size
    c = np.asarray(at)
    corners = np.array(
        [[-w / 2, -d / 2, 0], [w / 2, -d / 2, 0], [w / 2, d / 2, 0], [-w / 2, d / 2, 0]]
    )
    loops = [
        tube(c + corners * s + [0, 0, z], 0.004, 6, closed=True)
        for s, z in ((1.0, h / 2), (0.99, 0), (0.98, -h / 2))
    ]
    wires = []
    for t in np.linspace(-0.49, 0.49, 7):
        wires.append(
            tube(
                c
                + np.array(
                    [
                        (t * w, -d / 2, h / 2),
                        (t * w, -d / 2, -h / 2),
                        (t * w, d / 2, -h / 2),
                        (t * w, d / 2, h / 2),
                    ]
                ),
                0.0025,
                5,
            )
        )
        wires.append(
            tube(
                c
                + np.array(
                    [
                        (-w / 2, t * d, h / 2),
                        (-w / 2, t * d, -h / 2),
                        (w / 2, t * d, -h / 2),
                        (w / 2, t * d, h / 2),
                    ]
                ),
                0.0025,
                5,
            )
        )
    return loops + wires


def hob(a: Assembly, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    """Burners with grates or flat plates on top, and sometimes a board behind them."""
    kind = pick(rng, ("plates", "grates", "glass"))
    if kind == "glass":
        a.add("base", box((0.94 * w, 0.9 * d, 0.006), (0, 0, h)))
    for x in (-0.23, 0.23):
        for y in (-0.22, 0.22):
            r, at = rng.uniform(0.1, 0.16) * min(w, d), (x * w, y * d, h + 0.005)
            a.add("base", cylinder(r if kind != "grates" else 0.5 * r, 0.02, "z", at, 18))
            if kind == "grates":
                z = h + 0.03
                a.add(
                    "base",
                    box((2.6 * r, 0.01, 0.01), (at[0], at[1], z)),
                    box((0.01, 2.6 * r, 0.01), (at[0], at[1], z)),
                )
                a.add(
                    "base", frame_box((2.6 * r, 2.6 * r, 0.012), 0.01, (at[0], at[1], z), along="z")
                )
                a.add(
                    "base",
                    *(
                        box(
                            (0.012, 0.012, 0.036),
                            (at[0] + s * 1.25 * r, at[1] + s * 1.25 * r, h + 0.015),
                        )
                        for s in (-1, 1)
                    ),
                )
    if chance(rng, 0.4):
        b = rng.uniform(0.05, 0.2)
        a.add("base", box((w, 0.05, b), (0, d / 2 - 0.025, h + b / 2), rng))
