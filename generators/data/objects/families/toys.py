"""Globes and wagons, and the registry entries of pendulums, cradles, swings and seesaws."""

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
    """Globe that spins on a tilted axis, in an arc on a foot or in a ring that tilts inside a
    stand."""
    a = Assembly("globe", rng)
    radius = rng.uniform(0.05, 0.18)
    tilt = np.deg2rad(rng.uniform(15.0, 30.0)) if chance(rng, 0.8) else 0.0
    around = radius * rng.uniform(1.07, 1.22)
    thick = radius * rng.uniform(0.03, 0.08)
    # axis of the globe, and a direction normal to it in the xz plane
    u = np.array([np.sin(tilt), 0, np.cos(tilt)])
    v = np.array([np.cos(tilt), 0, -np.sin(tilt)])
    # ball with two axle ends and raised land
    a.add("globe", sphere(radius, sections=int(pick(rng, (16, 20, 26)))))
    for s in (-1, 1):
        at = s * u * (around + 0.9 * radius) / 2
        a.add("globe", cylinder(0.5 * thick, around - 0.9 * radius, u, at, 8))
    a.add("globe", *_relief(rng, radius))
    if chance(rng, 0.3):
        _ring_stand(a, rng, around, thick, u, v)
        a.hinge("ring", "globe", (0, 0, 0), u, -np.pi, np.pi)
        return a.build()
    # arc from pole to pole, on a foot
    top = np.pi / 2 + (rng.uniform(0.0, 0.3) if chance(rng, 0.3) else 0.0)
    phi = np.linspace(-np.pi / 2, top, int(pick(rng, (10, 16, 24))))[:, None]
    if chance(rng, 0.4):
        section = circle(thick, 8)
    else:
        section = rectangle(thick, rng.uniform(2.0, 4.0) * thick)
    a.add("base", sweep(around * (np.cos(phi) * v + np.sin(phi) * u), section, up="y"))
    _globe_foot(a, rng, radius, -around)
    a.hinge("base", "globe", (0, 0, 0), u, -np.pi, np.pi)
    return a.build()


def _relief(rng: np.random.Generator, radius: float) -> list[Piece]:
    """Raised land: flat ellipsoids at random places, on some globes."""
    pieces = []
    for _ in range(int(rng.integers(3, 9)) if chance(rng, 0.4) else 0):
        # uniform direction on the sphere
        n = rng.normal(size=3)
        n /= np.linalg.norm(n)
        size = radius * rng.uniform(0.15, 0.45, 2)
        lump = sphere((*size, 0.04 * radius + 0.25 * size.max() ** 2 / radius), sections=10)
        pieces.append(pointed(lump, n, 0.97 * radius * n))
    return pieces


def _globe_foot(a: Assembly, rng: np.random.Generator, radius: float, top: float) -> None:
    """Post down from z = `top` (m) on a disc, a block, or three or four legs."""
    # post
    stem = radius * rng.uniform(0.2, 0.9)
    wide = radius * rng.uniform(0.5, 0.9)
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
    # disc, block or legs
    form = rng.integers(3)
    if form == 0:
        high = radius * rng.uniform(0.06, 0.25)
        foot = [(wide, -1.0), (wide, -0.6), (thin, 0.1)]
        profile = [(0, bottom - high), *((r, bottom + z * high) for r, z in foot), (0, bottom)]
        a.add("base", lathe(profile, 28))
    elif form == 1:
        block = (2 * wide, 1.6 * wide, 0.2 * radius)
        a.add("base", box(block, (0, 0, bottom - 0.09 * radius), rng))
    else:
        count = int(pick(rng, (3, 4)))
        for k in range(count):
            out = wide * exp_so3([0, 0, 2 * np.pi * k / count])[:, 0]
            drop = np.array([0, 0, bottom])
            foot = out + drop - np.array([0, 0, 0.3 * radius])
            path = [(0, 0, bottom + 0.1 * stem), 0.8 * out + drop, foot]
            a.add("base", tube(rounded_path(path, 0.4 * wide), 0.8 * thin, 8))


def _ring_stand(
    a: Assembly, rng: np.random.Generator, around: float, thick: float, u: FloatArray, v: FloatArray
) -> None:
    """Meridian ring that tilts about a horizontal axis inside a horizon ring on legs."""
    phi = np.linspace(0, 2 * np.pi, 28, endpoint=False)[:, None]
    loop = around * (np.cos(phi) * v + np.sin(phi) * u)  # (28, 3)
    a.add("ring", sweep(loop, rectangle(thick, 2 * thick), up="y", closed=True))
    # horizon ring and the pins between the rings
    horizon = around + 3 * thick
    a.add("base", pipe(horizon + rng.uniform(1.5, 6.0) * thick, horizon, 1.5 * thick, sections=32))
    for s in (-1, 1):
        a.add("ring", cylinder(0.6 * thick, 4 * thick, "x", (s * (around + 2 * thick), 0, 0), 8))
    # legs
    count = int(pick(rng, (3, 4)))
    low = -around * rng.uniform(1.2, 1.9)
    inward = rng.uniform(0.7, 1.0)
    for k in range(count):
        out = exp_so3([0, 0, 2 * np.pi * (k + 0.5) / count])[:, 0]
        foot = out * (horizon + thick) * inward + np.array([0, 0, low])
        a.add("base", tube([out * (horizon + thick), foot], [1.2 * thick, 0.8 * thick], 8))
    a.hinge("base", "ring", (0, 0, 0), "x", -0.5, rng.uniform(0.5, 1.0))


# Wagons


def wagon(rng: np.random.Generator) -> ArticulatedObject:
    """Wagon that rolls toward -y: a deck with or without sides, two or four wheels that turn, a
    handle that tilts, and on some a steering axle."""
    a = Assembly("wagon", rng, "body")
    long = rng.uniform(0.2, 0.9)
    wide = long * rng.uniform(0.55, 0.8)
    radius = long * rng.uniform(0.09, 0.17)
    plank = 0.025 * long
    four = chance(rng, 0.7)
    steers = four and chance(rng, 0.5)
    # deck, with sides; wheels that steer fit under it
    floor = radius * (rng.uniform(2.1, 2.4) if steers else rng.uniform(1.15, 1.5))
    a.add("body", box((wide, long, plank), (0, 0, floor + plank / 2), rng))
    if chance(rng, 0.75):
        a.add("body", *_sides(rng, wide, long, floor + plank, plank))
    front = -rng.uniform(0.3, 0.38) * long
    thick = long * rng.uniform(0.02, 0.05)
    hitch = np.array([0, -long / 2, floor])
    if steers:
        # axle with a beam to the hitch and a kingpin
        hitch[2] = radius
        beam = (2 * plank, 0.5 * long + front, plank)
        a.add("axle", box(beam, (0, (front - 0.5 * long) / 2, radius)))
        turn = rng.uniform(0.4, 0.7)
        a.hinge("body", "axle", (0, front, floor), "z", -turn, turn)
        pin = (0, front, (floor + radius) / 2)
        a.add("axle", cylinder(0.15 * radius, floor - radius, "z", pin, 10))
    # equal wheels on one axle or two
    wheel = _wheel(rng, radius, thick)
    track = wide / 2 + (-0.5 if steers else 0.7) * thick
    for place, y in (("front", front), ("rear", -front)) if four else (("", 0.0),):
        link = "axle" if steers and place == "front" else "body"
        a.add(link, cylinder(0.12 * radius, 2 * track, "x", (0, y, radius), 8))
        if link == "body":
            post = (0.04 * long, 0.25 * radius, floor - radius)
            a.add("body", *(box(post, (s * 0.3 * wide, y, (floor + radius) / 2)) for s in (-1, 1)))
        for s, side in ((-1, "left"), (1, "right")):
            name = f"{place}_{side}_wheel".lstrip("_")
            at = (s * track, y, radius)
            a.add(name, moved(wheel, at))
            a.hinge(link, name, at, "x", -np.pi, np.pi)
    _draw_bar(a, rng, "axle" if steers else "body", long, hitch, plank)
    return a.build()


def _sides(
    rng: np.random.Generator, wide: float, long: float, level: float, plank: float
) -> list[Piece]:
    """Four sides from z = `level` (m) up, boards or two rails each, and corner posts."""
    side = long * rng.uniform(0.06, 0.3)
    thin = 0.6 * plank
    pieces = []
    for low, high in ((0.0, 1.0),) if chance(rng, 0.6) else ((0.1, 0.35), (0.6, 0.85)):
        z = level + (low + high) / 2 * side
        tall = (high - low) * side
        for s in (-1, 1):
            pieces.append(box((thin, long, tall), (s * (wide - thin) / 2, 0, z)))
            pieces.append(box((wide, thin, tall), (0, s * (long - thin) / 2, z)))
    # corner posts
    for x, y in rectangle(0.98 * wide - plank, 0.98 * long - plank):
        pieces.append(box((plank, plank, side), (x, y, level + side / 2)))
    return pieces


def _wheel(rng: np.random.Generator, radius: float, thick: float) -> Piece:
    """Wheel about the x axis: a rim on spokes, or a disc with a hub and bolts."""
    if chance(rng, 0.5):
        spokes = int(rng.integers(3, 9))
        rim = pipe(radius, 0.8 * radius, thick, "x", sections=24)
        bar = (0.4 * thick, 0.12 * radius, 0.85 * radius)
        angles = [2 * np.pi * k / spokes for k in range(spokes)]
        turned = [
            moved(box(bar, (0, 0, 0.42 * radius)), rotation=exp_so3([t, 0, 0])) for t in angles
        ]
        return merge(rim, cylinder(0.2 * radius, 1.2 * thick, "x", sections=12), *turned)
    sections = int(pick(rng, (14, 20, 28)))
    bolts = circle(0.5 * radius, int(rng.integers(3, 7)))
    return merge(
        cylinder(radius, thick, "x", sections=sections),
        cylinder(0.25 * radius, 1.3 * thick, "x", sections=10),
        *(cylinder(0.08 * radius, 1.05 * thick, "x", (0, y, z), 6) for y, z in bolts),
    )


def _draw_bar(
    a: Assembly, rng: np.random.Generator, parent: str, long: float, at: FloatArray, plank: float
) -> None:
    """Handle in front of `at` (3,) that tilts about a horizontal axis there: a bar with a loop or a
    crossbar at its end."""
    reach = long * rng.uniform(0.5, 0.9)
    rise = rng.uniform(0.2, 0.9)
    at = at - np.array([0, 1.2 * plank, 0])
    end = at + reach * np.array([0, -np.cos(rise), np.sin(rise)])
    a.add(parent, box((3 * plank, 2.6 * plank, 0.8 * plank), at + np.array([0, plank, 0])))
    a.add("handle", tube([at, end], 0.45 * plank, 8))
    # crossbar or loop
    if chance(rng, 0.5):
        a.add("handle", cylinder(0.6 * plank, 0.22 * long, "x", end, 10))
    else:
        along = (end - at) / reach
        wing = end + 0.05 * long * along
        side = np.array([0.08 * long, 0, 0])
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
