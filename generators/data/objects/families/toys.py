"""Globes and wagons; what hangs or tips (pendulums, cradles, swings, seesaws) has a file of its
own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

from flowplan.geometry import exp_so3
from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.swings import newtons_cradle, pendulum_chain, seesaw, swing
from generators.data.objects.parts import chance, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cylinder,
    lathe,
    merge,
    moved,
    pipe,
    pointed,
    rectangle,
    sphere,
)
from generators.data.objects.sweeps import rounded_path, sweep, tube

Piece = trimesh.Trimesh


def globe(rng: np.random.Generator) -> ArticulatedObject:
    """A globe that spins on its slanting axis, in an arc on a foot, or in a ring that tips
    inside a stand."""
    a = Assembly("globe", rng)
    radius, tilt = (
        rng.uniform(0.05, 0.18),
        np.deg2rad(rng.uniform(15.0, 30.0)) if chance(rng, 0.8) else 0.0,
    )
    around = radius * rng.uniform(1.07, 1.22)
    thick = radius * rng.uniform(0.03, 0.08)
    u = np.array([np.sin(tilt), 0, np.cos(tilt)])  # the axis
    v = np.array([np.cos(tilt), 0, -np.sin(tilt)])
    a.add("globe", sphere(radius, sections=int(pick(rng, (16, 20, 26)))))
    for s in (-1, 1):
        a.add(
            "globe",
            cylinder(0.5 * thick, around - 0.9 * radius, u, s * u * (around + 0.9 * radius) / 2, 8),
        )
    a.add("globe", *_relief(rng, radius))
    if chance(rng, 0.3):
        _ring_stand(a, rng, around, thick, u, v)
        a.hinge("ring", "globe", (0, 0, 0), u, -np.pi, np.pi)
        return a.build()
    top = np.pi / 2 + (rng.uniform(0.0, 0.3) if chance(rng, 0.3) else 0.0)
    phi = np.linspace(-np.pi / 2, top, int(pick(rng, (10, 16, 24))))[:, None]
    section = (
        circle(thick, 8) if chance(rng, 0.4) else rectangle(thick, rng.uniform(2.0, 4.0) * thick)
    )
    a.add("base", sweep(around * (np.cos(phi) * v + np.sin(phi) * u), section, up="y"))
    _globe_foot(a, rng, radius, -around)
    a.hinge("base", "globe", (0, 0, 0), u, -np.pi, np.pi)
    return a.build()


def _relief(rng: np.random.Generator, radius: float) -> list[Piece]:
    """Raised land on some globes: flat lumps at random places."""
    pieces = []
    for _ in range(int(rng.integers(3, 9)) if chance(rng, 0.4) else 0):
        n = rng.normal(size=3)
        n /= np.linalg.norm(n)
        size = radius * rng.uniform(0.15, 0.45, 2)
        lump = sphere((*size, 0.04 * radius + 0.25 * size.max() ** 2 / radius), sections=10)
        pieces.append(pointed(lump, n, 0.97 * radius * n))
    return pieces


def _globe_foot(a: Assembly, rng: np.random.Generator, radius: float, top: float) -> None:
    """A post down from z = `top` (m) on a disc, a block or three legs."""
    stem, wide = radius * rng.uniform(0.2, 0.9), radius * rng.uniform(0.5, 0.9)
    thin = radius * rng.uniform(0.06, 0.14)
    bottom = top - stem
    bulge = thin * rng.uniform(0.8, 2.0)
    profile = [
        (0, bottom),
        (thin, bottom),
        (bulge, bottom + 0.5 * stem),
        (thin, top + thin),
        (0, top + thin),
    ]
    a.add("base", lathe(profile, 14))
    form = rng.integers(3)
    if form == 0:
        high = radius * rng.uniform(0.06, 0.25)
        foot = [(wide, -1.0), (wide, -0.6), (thin, 0.1)]
        profile = [(0, bottom - high), *((r, bottom + z * high) for r, z in foot), (0, bottom)]
        a.add("base", lathe(profile, 28))
    elif form == 1:
        a.add(
            "base", box((2 * wide, 1.6 * wide, 0.2 * radius), (0, 0, bottom - 0.09 * radius), rng)
        )
    else:
        count = int(pick(rng, (3, 4)))
        for k in range(count):
            out = wide * exp_so3([0, 0, 2 * np.pi * k / count])[:, 0]
            drop = np.array([0, 0, bottom])
            path = [
                (0, 0, bottom + 0.1 * stem),
                0.8 * out + drop,
                out + drop - np.array([0, 0, 0.3 * radius]),
            ]
            a.add("base", tube(rounded_path(path, 0.4 * wide), 0.8 * thin, 8))


def _ring_stand(
    a: Assembly, rng: np.random.Generator, around: float, thick: float, u: FloatArray, v: FloatArray
) -> None:
    """A whole meridian ring, which tips about a level axis inside a horizon ring on legs."""
    phi = np.linspace(0, 2 * np.pi, 28, endpoint=False)[:, None]
    a.add(
        "ring",
        sweep(
            around * (np.cos(phi) * v + np.sin(phi) * u),
            rectangle(thick, 2 * thick),
            up="y",
            closed=True,
        ),
    )
    horizon = around + 3 * thick
    a.add("base", pipe(horizon + rng.uniform(1.5, 6.0) * thick, horizon, 1.5 * thick, sections=32))
    for s in (-1, 1):
        a.add("ring", cylinder(0.6 * thick, 4 * thick, "x", (s * (around + 2 * thick), 0, 0), 8))
    count, low, inward = (
        int(pick(rng, (3, 4))),
        -around * rng.uniform(1.2, 1.9),
        rng.uniform(0.7, 1.0),
    )
    for k in range(count):
        out = exp_so3([0, 0, 2 * np.pi * (k + 0.5) / count])[:, 0]
        foot = out * (horizon + thick) * inward + np.array([0, 0, low])
        a.add("base", tube([out * (horizon + thick), foot], [1.2 * thick, 0.8 * thick], 8))
    a.hinge("base", "ring", (0, 0, 0), "x", -0.5, rng.uniform(0.5, 1.0))


# Wagons


def wagon(rng: np.random.Generator) -> ArticulatedObject:
    """A cart that rolls towards -y: a tray or a deck, two or four turning wheels, a handle that
    tips, some steering."""
    a = Assembly("wagon", rng, "body")
    long = rng.uniform(0.2, 0.9)
    wide, radius, plank = (
        long * rng.uniform(0.55, 0.8),
        long * rng.uniform(0.09, 0.17),
        0.025 * long,
    )
    four = chance(rng, 0.7)
    steers = four and chance(rng, 0.5)
    floor = radius * (
        rng.uniform(2.1, 2.4) if steers else rng.uniform(1.15, 1.5)
    )  # wheels that steer go under it
    a.add("body", box((wide, long, plank), (0, 0, floor + plank / 2), rng))
    if chance(rng, 0.75):
        a.add("body", *_sides(rng, wide, long, floor + plank, plank))
    front, thick = -rng.uniform(0.3, 0.38) * long, long * rng.uniform(0.02, 0.05)
    hitch = np.array([0, -long / 2, floor])
    if steers:
        hitch[2] = radius
        a.add(
            "axle",
            box((2 * plank, 0.5 * long + front, plank), (0, (front - 0.5 * long) / 2, radius)),
        )
        turn = rng.uniform(0.4, 0.7)
        a.hinge("body", "axle", (0, front, floor), "z", -turn, turn)
        a.add(
            "axle",
            cylinder(0.15 * radius, floor - radius, "z", (0, front, (floor + radius) / 2), 10),
        )
    wheel, track = _wheel(rng, radius, thick), wide / 2 + (-0.5 if steers else 0.7) * thick
    for place, y in (("front", front), ("rear", -front)) if four else (("", 0.0),):
        link = "axle" if steers and place == "front" else "body"
        a.add(link, cylinder(0.12 * radius, 2 * track, "x", (0, y, radius), 8))
        if link == "body":
            post = (0.04 * long, 0.25 * radius, floor - radius)
            a.add("body", *(box(post, (s * 0.3 * wide, y, (floor + radius) / 2)) for s in (-1, 1)))
        for s, side in ((-1, "left"), (1, "right")):
            name, at = f"{place}_{side}_wheel".lstrip("_"), (s * track, y, radius)
            a.add(name, moved(wheel, at))
            a.hinge(link, name, at, "x", -np.pi, np.pi)
    _draw_bar(a, rng, "axle" if steers else "body", long, hitch, plank)
    return a.build()


def _sides(
    rng: np.random.Generator, wide: float, long: float, level: float, plank: float
) -> list[Piece]:
    """Four sides from z = `level` (m) up, whole or as two rails each, and corner posts."""
    side, thin = long * rng.uniform(0.06, 0.3), 0.6 * plank
    pieces = []
    for low, high in ((0.0, 1.0),) if chance(rng, 0.6) else ((0.1, 0.35), (0.6, 0.85)):
        z, tall = level + (low + high) / 2 * side, (high - low) * side
        for s in (-1, 1):
            pieces.append(box((thin, long, tall), (s * (wide - thin) / 2, 0, z)))
            pieces.append(box((wide, thin, tall), (0, s * (long - thin) / 2, z)))
    for x, y in rectangle(0.98 * wide - plank, 0.98 * long - plank):
        pieces.append(box((plank, plank, side), (x, y, level + side / 2)))
    return pieces


def _wheel(rng: np.random.Generator, radius: float, thick: float) -> Piece:
    """A wheel about the x axis: a tyre on spokes or on a disc with a hub."""
    if chance(rng, 0.5):
        spokes = int(rng.integers(3, 9))
        rim = pipe(radius, 0.8 * radius, thick, "x", sections=24)
        bars = [
            box((0.4 * thick, 0.12 * radius, 0.85 * radius), (0, 0, 0.42 * radius))
            for _ in range(spokes)
        ]
        turned = [
            moved(b, rotation=exp_so3([2 * np.pi * k / spokes, 0, 0])) for k, b in enumerate(bars)
        ]
        return merge(rim, cylinder(0.2 * radius, 1.2 * thick, "x", sections=12), *turned)
    sections, bolts = int(pick(rng, (14, 20, 28))), circle(0.5 * radius, int(rng.integers(3, 7)))
    return merge(
        cylinder(radius, thick, "x", sections=sections),
        cylinder(0.25 * radius, 1.3 * thick, "x", sections=10),
        *(cylinder(0.08 * radius, 1.05 * thick, "x", (0, y, z), 6) for y, z in bolts),
    )


def _draw_bar(
    a: Assembly, rng: np.random.Generator, parent: str, long: float, at: FloatArray, plank: float
) -> None:
    """A bar ahead of `at` (3,) with a loop or a cross bar at its end, tipping up about the level
    axis there."""
    reach, rise = long * rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.9)
    at = at - np.array([0, 1.2 * plank, 0])
    end = at + reach * np.array([0, -np.cos(rise), np.sin(rise)])
    a.add(parent, box((3 * plank, 2.6 * plank, 0.8 * plank), at + np.array([0, plank, 0])))
    a.add("handle", tube([at, end], 0.45 * plank, 8))
    if chance(rng, 0.5):
        a.add("handle", cylinder(0.6 * plank, 0.22 * long, "x", end, 10))
    else:
        along = (end - at) / reach
        wing, side = end + 0.05 * long * along, np.array([0.08 * long, 0, 0])
        loop = [end, wing + side, end + 0.15 * long * along, wing - side]
        a.add("handle", tube(loop, 0.4 * plank, 8, closed=True))
    a.hinge(parent, "handle", at, "-x", -min(0.5, rise + 0.1), 1.5 - rise)


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "globe": globe,
    "pendulum_chain": pendulum_chain,
    "newtons_cradle": newtons_cradle,
    "wagon": wagon,
    "seesaw": seesaw,
    "swing": swing,
}
