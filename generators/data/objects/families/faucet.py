"""Faucets with levers, crosses, wheels or knobs, on a counter, on a wall or on a pipe; on some the
spout swivels or the lever also lifts.

A handle is drawn about the z axis with its base at the origin and its lever toward -y, then placed
on its valve.
"""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.geometry import exp_so3
from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.tap_handles import (
    handle,
    lever,
    turning_range,
)
from generators.data.objects.primitives import (
    box,
    cylinder,
    lathe,
    moved,
    pointed,
    rectangle,
    slab,
    sphere,
)
from generators.data.objects.sweeps import arc, rounded_path, sweep, tube

Piece = trimesh.Trimesh
UP = np.array([0.0, 0.0, 1.0])


def faucet(rng: np.random.Generator) -> ArticulatedObject:
    """Faucet: a mixer with its lever on top or on a side, two valves beside a spout, a wall faucet,
    or a garden tap."""
    forms = [_mixer, _mixer, _side_mixer, _pair, _wall, _tap]
    return forms[rng.integers(len(forms))](rng)


def _place(pieces: list[Piece], at: FloatArray, axis: str = "z", yaw: float = 0.0) -> list[Piece]:
    """Pieces of a handle turned by `yaw` (rad) about their own axis, then placed along `axis` with
    the base at `at`."""
    return [pointed(moved(p, rotation=exp_so3([0, 0, yaw])), axis, at) for p in pieces]


# Spouts and bodies


def _spout(
    rng: np.random.Generator, reach: float, radius: float, z: float, *, tall: bool
) -> list[Piece]:
    """Spout from the z axis at height z to a mouth `reach` (m) toward -y that points down."""
    # centerline (n, 3)
    sections = int(rng.choice([6, 8, 12, 16]))
    mouth = np.array([0.0, -reach, z])
    form = rng.integers(3) if tall else 3 + rng.integers(2)
    if form == 0:  # gooseneck: up, over a half circle, and down
        r = reach / 2
        up = reach * rng.uniform(0.5, 1.8)
        over = arc(
            (0, -r, z + up), r, np.pi, -rng.uniform(0.0, 0.3), ("-y", "z"), int(rng.integers(6, 14))
        )
        path = np.concatenate(
            [[(0, 0, z)], over, [over[-1] - (0, 0, reach * rng.uniform(0.02, 0.5))]]
        )
    elif form == 1:  # up, then level or downward
        up = reach * rng.uniform(0.3, 1.5)
        fall = reach * rng.uniform(-0.1, 0.4)
        corner = (0, 0, z + up)
        end = mouth + (up - fall) * UP
        path = rounded_path([(0, 0, z), corner, end, end - 0.15 * reach * UP], 0.3 * reach)
    elif form == 2:  # slanted neck
        up = reach * rng.uniform(0.4, 1.0)
        bend = (0, -0.05 * reach, z + 0.3 * up)
        path = rounded_path([(0, 0, z), bend, mouth + up * UP, mouth + 0.75 * up * UP], 0.2 * reach)
    elif form == 3:  # level or slanted bar
        slope = rng.uniform(-0.2, 0.5) * reach
        path = rounded_path(
            [(0, 0, z), mouth + slope * UP, mouth + (slope - 1.2 * radius) * UP], radius
        )
    else:  # low arc
        s = np.linspace(0, 1, 8)
        bow = rng.uniform(0.1, 0.6) * reach
        path = np.column_stack([0 * s, -reach * s, z + 4 * bow * s * (1 - s) * (1 - 0.3 * s)])
        path = np.concatenate([path, [path[-1] - (0, 0.05 * reach, 0.2 * reach)]])
    # round, tapered pipe or a flat one
    if rng.random() < 0.7:
        radii = np.linspace(radius, radius * rng.uniform(0.6, 1.0), len(path))
        pieces = [tube(path, radii, sections)]
    else:
        section = rectangle(2 * radius * rng.uniform(0.9, 1.8), 1.6 * radius, 0.3 * radius, 2)
        pieces = [sweep(path, section)]
    # aerator
    if rng.random() < 0.5:
        ends = [path[-1] + (0, 0, 0.3 * radius), path[-1] - (0, 0, 0.8 * radius)]
        pieces.append(tube(ends, 1.05 * radius, 12))
    return pieces


def _column(rng: np.random.Generator, radius: float, height: float) -> list[Piece]:
    """Column on the counter: round, stepped, tapered or square, with or without a flange."""
    form = rng.integers(4)
    if form == 0:
        pieces = [box((2 * radius, 2 * radius, height), (0, 0, height / 2), rng)]
    else:
        waist = 1.0 if form == 1 else rng.uniform(0.65, 0.95)
        middle = rng.uniform(0.2, 0.8) * height
        profile = [(0, 0), (radius, 0), (waist * radius if form == 3 else radius, middle)]
        profile += [
            (waist * radius, middle * 1.02 + 0.02 * height),
            (waist * radius, height),
            (0, height),
        ]
        pieces = [lathe(profile, int(rng.choice([8, 12, 20, 28])))]
    # flange, round or long
    if rng.random() < 0.6:
        wide = radius * rng.uniform(1.2, 2.0)
        flat = rng.uniform(0.004, 0.015)
        if rng.random() < 0.3:
            pieces.append(
                slab((rng.uniform(2.0, 7.0) * wide, 2 * wide, flat), (0, 0, flat / 2), 0.9 * wide)
            )
        else:
            pieces.append(lathe([(0, 0), (wide, 0), (0.9 * wide, flat), (0, flat)], 24))
    return pieces


# Whole faucets


def _mixer(rng: np.random.Generator) -> ArticulatedObject:
    """Mixer: a column with a spout from its side and a lever on top that turns about the vertical
    and on some also lifts."""
    a = Assembly("faucet", rng)
    radius = rng.uniform(0.012, 0.035)
    height = rng.uniform(0.05, 0.25)
    column = _column(rng, radius, height)
    a.add("base", *column)
    # spout, fixed or on a collar around the column
    widest = float(np.linalg.norm(column[0].vertices[:, :2], axis=1).max())
    size = radius * rng.uniform(0.35, 0.8)
    z = min(max(height * rng.uniform(0.35, 0.9), size), height - 1.1 * size)
    if rng.random() < 0.9:
        link = _swivel(a, rng, z, 1.08 * widest, 2.2 * size) if rng.random() < 0.3 else "base"
        a.add(link, *_spout(rng, rng.uniform(0.06, 0.22), size, z, tall=False))
    # handle on top
    yaw = (
        rng.choice([0.0, np.pi, np.pi / 2, -np.pi / 2])
        if rng.random() < 0.6
        else rng.uniform(-np.pi, np.pi)
    )
    top = np.array([0, 0, height + 0.001])
    if rng.random() < 0.15:
        pieces, whole_turn = handle(rng, radius)
        a.hinge("base", "handle", top, "z", *turning_range(rng, whole_turn))
        a.add("handle", *_place(pieces, top, "z", yaw))
        return a.build()
    hub, *bar = _place(
        lever(rng, radius * rng.uniform(0.7, 1.1), rng.uniform(0.05, 0.2)), top, "z", yaw
    )
    turning = "cartridge" if rng.random() < 0.25 else "handle"
    a.add(turning, hub)
    a.add("handle", *bar)
    a.hinge("base", turning, top, "z", *turning_range(rng, False))
    if turning == "cartridge":  # the hub turns, the bar lifts on the hub
        pivot = top + 0.5 * np.ptp(hub.vertices[:, 2]) * UP
        sideways = exp_so3([0, 0, yaw]) @ (-1.0, 0, 0)
        a.hinge("cartridge", "handle", pivot, sideways, 0.0, rng.uniform(0.3, 0.6), "lift_joint")
    return a.build()


def _swivel(a: Assembly, rng: np.random.Generator, z: float, radius: float, height: float) -> str:
    """Spout link with a collar and a joint about the z axis; returns the link's name."""
    a.add("spout", cylinder(radius, height, center=(0, 0, z), sections=20))
    turn = rng.uniform(0.5, np.pi / 2) if rng.random() < 0.8 else np.pi
    return a.hinge("base", "spout", (0, 0, z), "z", -turn, turn).removesuffix("_joint")


def _side_mixer(rng: np.random.Generator) -> ArticulatedObject:
    """Mixer: a column under a tall spout, which often swivels, and a lever at one side that turns
    about a horizontal axis."""
    a = Assembly("faucet", rng)
    radius = rng.uniform(0.014, 0.03)
    height = rng.uniform(0.06, 0.16)
    a.add("base", *_column(rng, radius, height))
    # spout
    size = radius * rng.uniform(0.4, 0.9)
    link = _swivel(a, rng, height, 1.05 * radius, 0.02) if rng.random() < 0.6 else "base"
    a.add(link, *_spout(rng, rng.uniform(0.1, 0.24), size, height, tall=True))
    # valve at the side
    side = rng.choice([-1.0, 1.0])
    z = height * rng.uniform(0.4, 0.7)
    valve = radius * rng.uniform(0.5, 0.9)
    stub = radius + rng.uniform(0.005, 0.03)
    a.add("base", cylinder(valve, stub, "x", (side * stub / 2, 0, z), 16))
    at = np.array([side * (stub + 0.001), 0, z])
    axis = "x" if side > 0 else "-x"
    # A lever placed along x points along -z. Half a turn makes it point up, a quarter turn to the
    # front or the rear.
    yaw = np.pi + rng.choice([0.0, 0.0, np.pi / 2, -np.pi / 2]) + rng.uniform(-0.3, 0.3)
    a.add("handle", *_place(lever(rng, 0.9 * valve, rng.uniform(0.04, 0.13)), at, axis, yaw))
    a.hinge("base", "handle", at, axis, -rng.uniform(0.0, 1.2), rng.uniform(0.3, 1.2))
    return a.build()


def _valves(
    a: Assembly,
    rng: np.random.Generator,
    places: list[FloatArray],
    axis: str,
    valve: float,
    stem: float,
) -> None:
    """Equal handles on stems at the given places, with mirrored yaw and limits."""
    state = rng.bit_generator.state
    yaw = rng.choice([0.0, np.pi / 2, np.pi, rng.uniform(-np.pi, np.pi)])
    for i, place in enumerate(places):
        rng.bit_generator.state = state  # same draws, same handle
        pieces, whole_turn = handle(rng, valve)
        lower, upper = turning_range(rng, whole_turn)
        out = pointed(
            cylinder(0.8 * valve, stem, center=(0, 0, stem / 2), sections=16), axis, place
        )
        at = place + (out.bounds.mean(0) - place) * 2 * 1.01
        sign = 1 if i == 0 else -1
        a.add("base", out)
        a.add(f"handle_{i}", *_place(pieces, at, axis, sign * yaw))
        a.hinge("base", f"handle_{i}", at, axis, *((lower, upper) if i == 0 else (-upper, -lower)))


def _pair(rng: np.random.Generator) -> ArticulatedObject:
    """Two valves beside a spout, which may swivel, on a plate, a bar or the counter."""
    a = Assembly("faucet", rng)
    apart = rng.uniform(0.09, 0.3)
    valve = rng.uniform(0.013, 0.024)
    radius = rng.uniform(0.011, 0.022)
    height = rng.uniform(0.03, 0.12)
    # plate or bar
    ground = 0.0
    form = rng.integers(3)
    if form == 0:
        ground = rng.uniform(0.006, 0.03)
        plate = (apart + 2.6 * valve, rng.uniform(2.4, 3.6) * valve, ground)
        a.add("base", slab(plate, (0, 0, ground / 2), rng.choice([0.0, 1.2]) * valve))
    elif form == 1:
        level = height * rng.uniform(0.3, 0.7)
        a.add("base", cylinder(rng.uniform(0.6, 0.8) * valve, apart, "x", (0, 0, level), 14))
    # column, spout and valves
    a.add("base", *(moved(p, (0, 0, ground)) for p in _column(rng, radius, height)))
    size = radius * rng.uniform(0.5, 0.9)
    link = _swivel(a, rng, ground + height, 1.05 * radius, 0.015) if rng.random() < 0.5 else "base"
    a.add(link, *_spout(rng, rng.uniform(0.08, 0.22), size, ground + height, tall=True))
    stem = height * rng.uniform(0.4, 1.0)
    _valves(a, rng, [np.array([s * apart / 2, 0, ground]) for s in (-1, 1)], "z", valve, stem)
    return a.build()


def _wall(rng: np.random.Generator) -> ArticulatedObject:
    """Wall faucet: a horizontal bar on two wall flanges, a spout, and one lever or two valves."""
    a = Assembly("faucet", rng)
    length = rng.uniform(0.12, 0.3)
    radius = rng.uniform(0.014, 0.028)
    out = rng.uniform(0.03, 0.08)
    # bar, wall flanges, wall plate and spout
    a.add("base", cylinder(radius, length, "x", (0, -out, 0), int(rng.choice([8, 16, 24]))))
    for s in (-1, 1):
        a.add("base", cylinder(0.6 * radius, out, "y", (s * 0.35 * length, -out / 2, 0), 12))
        wide = rng.uniform(1.2, 1.8) * radius
        a.add("base", cylinder(wide, 0.01, "y", (s * 0.35 * length, -0.005, 0), 20))
    if rng.random() < 0.4:
        a.add("base", slab((1.1 * length, 0.008, 4 * radius), (0, 0.004, 0), 0.01, "y"))
    spout = _spout(rng, rng.uniform(0.06, 0.2), 0.6 * radius, 0.0, tall=False)
    a.add("base", *(moved(p, (0, -out, 0)) for p in spout))
    form = rng.integers(3)
    if form == 0:  # one lever on top
        at = np.array([0, -out, radius])
        pieces = lever(rng, 0.8 * radius, rng.uniform(0.06, 0.18))
        a.add("handle", *_place(pieces, at, "z", rng.choice([0.0, np.pi])))
        a.hinge("base", "handle", at, "z", *turning_range(rng, False))
    elif form == 1:  # valves at the ends
        pieces, whole_turn = handle(rng, radius)
        for side, axis in (("right", "x"), ("left", "-x")):
            at = np.array([(1 if side == "right" else -1) * (length / 2 + 0.001), -out, 0])
            a.add(f"handle_{side}", *_place(pieces, at, axis))
            a.hinge("base", f"handle_{side}", at, axis, *turning_range(rng, whole_turn))
    else:  # valves at the front
        places = [np.array([s * 0.38 * length, -out, 0]) for s in (-1, 1)]
        _valves(a, rng, places, "-y", 0.9 * radius, radius * rng.uniform(1.2, 2.0))
    return a.build()


def _tap(rng: np.random.Generator) -> ArticulatedObject:
    """Garden tap: a horizontal pipe that bends down, and above it a stem with a handle."""
    a = Assembly("faucet", rng)
    radius = rng.uniform(0.01, 0.018)
    reach = rng.uniform(0.06, 0.12)
    drop = reach * rng.uniform(0.3, 0.7)
    # pipe with a wall flange and a mouthpiece
    bend = rounded_path([(0, 0, 0), (0, -reach, 0), (0, -reach, -drop)], 0.5 * reach, 6)
    sections = int(rng.choice([8, 12, 18]))
    radii = np.linspace(radius, radius * rng.uniform(0.8, 1.1), len(bend))
    a.add("base", tube(bend, radii, sections))
    flange = rng.uniform(1.4, 2.4) * radius
    a.add("base", cylinder(flange, 0.01, "y", (0, 0.005, 0), int(rng.choice([6, 24]))))
    if rng.random() < 0.5:
        a.add("base", cylinder(1.25 * radius, 0.4 * drop, "z", (0, -reach, -drop), sections))
    # valve with a handle on its stem
    x = reach * rng.uniform(0.3, 0.55)
    stem = radius * rng.uniform(1.5, 3.5)
    a.add(
        "base",
        sphere(1.4 * radius, (0, -x, 0), 12),
        cylinder(0.7 * radius, stem, "z", (0, -x, stem / 2 + 0.5 * radius), 6),
    )
    at = np.array([0, -x, stem + 0.5 * radius])
    pieces, whole_turn = handle(rng, radius)
    yaw = rng.choice([0.0, np.pi / 2, np.pi, -np.pi / 2])
    a.add("handle", *_place(pieces, at, "z", yaw))
    a.hinge("base", "handle", at, "z", *turning_range(rng, whole_turn))
    return a.build()
