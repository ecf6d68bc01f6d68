"""Mounted controls: levers, dials, switches and valves, and the registry entry of faucets.

Dials and switches are drawn on a board in the xy plane, x to the right, y up and z out of the
board. The board is then tilted about x: on a desk, on a wall or in between.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

from flowplan.geometry import exp_so3
from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.faucet import faucet
from generators.data.objects.families.tap_handles import cross, knob, lever, wheel
from generators.data.objects.parts import chance, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cylinder,
    direction,
    extrude,
    frame_box,
    lathe,
    moved,
    pipe,
    pointed,
    rectangle,
    slab,
    sphere,
)
from generators.data.objects.sweeps import sweep, tube

Piece = trimesh.Trimesh


def lever_switch(rng: np.random.Generator) -> ArticulatedObject:
    """Lever that swings in a vertical plane: between two cheeks, at the side of a box, or out of a
    slot in a box."""
    a = Assembly("lever", rng)
    length = rng.uniform(0.08, 0.5)
    thick = rng.uniform(0.005, 0.012)
    hub = thick * rng.uniform(1.5, 3.0)
    width = hub * rng.uniform(1.0, 2.5)
    form = rng.integers(3)
    if form == 0:  # two cheeks on a plate with an axle
        axle = length * rng.uniform(0.1, 0.3) + hub
        plate = (
            width + rng.uniform(4, 9) * thick,
            rng.uniform(3.0, 8.0) * hub,
            rng.uniform(0.6, 1.5) * thick,
        )
        a.add("base", box(plate, (0, 0, -axle - plate[2] / 2), rng))
        cheek = (thick, rng.uniform(1.8, 3.0) * hub, axle + hub)
        for s in (-1, 1):
            a.add("base", box(cheek, (s * (width / 2 + thick), 0, (hub - axle) / 2), rng))
        a.add("base", cylinder(0.5 * hub, width + 4 * thick, "x", sections=10))
    elif form == 1:  # at the side of a box
        body = length * rng.uniform(0.3, 1.1, 3)
        side = pick(rng, (-1.0, 1.0))
        shift = body * (0, *rng.uniform((-0.3, -0.4), (0.3, 0.2)))
        shift[0] = -side * (width / 2 + body[0] / 2 + 0.002)
        a.add(
            "base",
            box(body, shift, rng),
            cylinder(0.6 * hub, width + 0.02, "x", (-side * 0.01, 0, 0), 12),
        )
    else:  # out of a slot
        beside = length * rng.uniform(0.15, 0.6)
        body = np.array(
            [width + beside, length * rng.uniform(0.4, 1.0), length * rng.uniform(0.15, 0.5)]
        )
        a.add("base", box(body, (0, 0, -body[2] / 2 - 0.2 * hub), rng))
        rail = (0.25 * beside, 0.8 * body[1], 0.6 * hub)
        a.add("base", *(box(rail, (s * (width / 2 + 0.15 * beside), 0, 0)) for s in (-1, 1)))
    # lever, drawn upright and turned to its rest angle
    rest = rng.uniform(-0.7, 0.7) if form != 1 else rng.uniform(-1.2, 1.2)
    a.add("lever", cylinder(hub, width, "x", sections=int(pick(rng, (8, 14, 20)))))
    a.add("lever", *(moved(p, rotation=exp_so3([rest, 0, 0])) for p in _arm(rng, length, thick)))
    reach = 1.25 if form == 1 else 0.95
    a.hinge("base", "lever", (0, 0, 0), "x", min(-reach - rest, -0.3), max(reach - rest, 0.3))
    return a.build()


def _arm(rng: np.random.Generator, length: float, thick: float) -> list[Piece]:
    """Straight or cranked bar of `length` (m) up the z axis, ending in a ball, a grip, a crossbar
    or nothing."""
    # centerline (6, 3), straight or bent sideways
    s = np.linspace(0, 1, 6)
    cranked = chance(rng, 0.4)
    crank = rng.uniform(-0.15, 0.15) * length * np.clip(2 * s - 0.6, 0, 1) if cranked else 0 * s
    path = np.column_stack([crank, 0 * s, length * s])
    # round or flat bar
    taper = np.linspace(1.0, rng.uniform(0.6, 1.0), 6)
    if chance(rng, 0.5):
        pieces = [tube(path, thick * taper, 10)]
    else:
        section = rectangle(rng.uniform(1.2, 2.0) * thick, rng.uniform(1.5, 4.0) * thick)
        pieces = [sweep(path, section, up="y", scale=taper)]
    # end of the bar
    end = pick(rng, ("ball", "grip", "bar", "none"), (3, 3, 2, 1))
    if end == "ball":
        pieces.append(sphere(thick * rng.uniform(1.6, 3.0), path[-1], int(pick(rng, (8, 12, 16)))))
    elif end == "grip":
        start = path[-1] - (0, 0, rng.uniform(0.2, 0.4) * length)
        pieces.append(tube([start, path[-1]], thick * rng.uniform(1.2, 1.9), 12))
    elif end == "bar":
        radius = thick * rng.uniform(0.9, 1.4)
        width = length * rng.uniform(0.15, 0.4)
        pieces.append(cylinder(radius, width, "x", path[-1], 12))
    return pieces


# Dials and switches, on a board


def _tilt(rng: np.random.Generator) -> FloatArray:
    """Rotation (3, 3) of the board: on a desk, on a wall or in between."""
    angle = pick(rng, (0.0, np.pi / 2, rng.uniform(0.2, 1.3)), (1, 2, 1))
    return exp_so3([angle, 0.0, 0.0])


def _board(rng: np.random.Generator, width: float, height: float) -> list[Piece]:
    """Panel, rounded box or framed plate behind the plane z = 0."""
    deep = (
        rng.uniform(0.005, 0.02) if chance(rng, 0.5) else min(width, height) * rng.uniform(0.2, 0.9)
    )
    form = rng.integers(3)
    if form == 0:
        return [box((width, height, deep), (0, 0, -deep / 2), rng)]
    if form == 1:
        corner = rng.uniform(0.02, 0.45) * min(width, height)
        return [slab((width, height, deep), (0, 0, -deep / 2), corner, bevel=0.2 * min(deep, 0.01))]
    rim = 0.06 * min(width, height)
    raised = frame_box((width, height, 0.6 * rim), rim, (0, 0, 0.2 * rim), along="z")
    return [box((width, height, deep), (0, 0, -deep / 2)), raised]


def dial(rng: np.random.Generator) -> ArticulatedObject:
    """One to four equal dials in a row or a column on a board, some surrounded by marks."""
    a = Assembly("dial", rng)
    R = _tilt(rng)
    radius = rng.uniform(0.012, 0.05)
    count = pick(rng, (1, 2, 3, 4), (6, 2, 1, 1))
    pitch = radius * rng.uniform(2.8, 4.5)
    # board
    length = pitch * (count - 1) + radius * rng.uniform(2.6, 6.0)
    other = radius * rng.uniform(2.6, 5.0)
    across = chance(rng, 0.7)
    pieces = _board(rng, *((length, other) if across else (other, length)))
    lower, upper = _dial_range(rng)
    shift = rng.uniform(-0.5, 0.5) * (other - 2.4 * radius)
    # dials of the same shape
    style = int(rng.integers(2**31))
    marks = rng.integers(5, 13) if chance(rng, 0.4) else 0
    for i in range(count):
        along = (i - (count - 1) / 2) * pitch
        at = np.array([along, shift, 0.001] if across else [shift, along, 0.001])
        for x, y in circle(1.2 * radius, int(max(marks, 1)))[:marks]:
            pieces.append(box((0.12 * radius, 0.12 * radius, 0.004), at + np.array([x, y, 0])))
        link = f"dial_{i}" if count > 1 else "dial"
        a.add(link, *_laid(R, _dial(np.random.default_rng(style), radius), at))
        a.hinge("base", link, R @ at, R[:, 2], lower, upper)
    a.add("base", *_laid(R, pieces))
    return a.build()


def _laid(
    R: FloatArray,
    pieces: list[Piece],
    at: FloatArray | tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> list[Piece]:
    """Pieces moved to `at` (3,) on the board, then tilted with it by R."""
    return [moved(p, R @ np.asarray(at), R) for p in pieces]


def _dial_range(rng: np.random.Generator) -> tuple[float, float]:
    """Limits (rad): 270 degrees about the center, clockwise only, both ways, or a full turn."""
    a = rng.uniform(1.2, 2.9)
    return pick(rng, ((-0.75 * np.pi, 0.75 * np.pi), (-a, 0.0), (-a, a), (-np.pi, np.pi)))


def _dial(rng: np.random.Generator, radius: float) -> list[Piece]:
    """Dial on z = 0 that shows its direction: a skirt with a grip bar or a pointer, a knob or a
    cross."""
    if chance(rng, 0.35):
        return knob(rng, radius)
    if chance(rng, 0.1):
        return cross(rng, radius)
    # body with a skirt
    height = radius * rng.uniform(0.4, 1.4)
    sections = int(pick(rng, (8, 12, 20, 32)))
    skirt = rng.uniform(0.1, 0.35) * height
    waist = radius * rng.uniform(0.55, 0.95)
    lower = [(0, 0), (radius, 0), (radius, skirt)]
    profile = [*lower, (waist, 1.2 * skirt), (0.92 * waist, height), (0, height)]
    pieces = [lathe(profile, sections)]
    # grip bar
    if chance(rng, 0.5):
        bar = (rng.uniform(0.2, 0.45) * radius, 1.9 * waist, 0.4 * height)
        pieces.append(box(bar, (0, 0, height), rng))
    # pointer
    if chance(rng, 0.6):
        long = rng.uniform(0.5, 1.25) * radius
        triangle = [(0.14 * radius, 0), (0, long), (-0.14 * radius, 0)]
        pieces.append(extrude(triangle, 0.15 * height, "z", (0, 0, 1.05 * height)))
    return pieces


def switch(rng: np.random.Generator) -> ArticulatedObject:
    """One to three rockers, toggles or sliders of the same shape in a wall plate or a box."""
    a = Assembly("switch", rng)
    R = _tilt(rng)
    count = pick(rng, (1, 2, 3), (5, 3, 1))
    width = rng.uniform(0.012, 0.045)
    height = rng.uniform(0.02, 0.07)
    kind = pick(rng, ("rocker", "toggle", "slider"), (4, 3, 1))
    # board
    pitch = width * rng.uniform(1.05, 1.8)
    board = (pitch * (count - 1) + width * rng.uniform(1.5, 3.0), height * rng.uniform(1.3, 2.2))
    pieces = _board(rng, *board)
    # controls of the same shape
    style = int(rng.integers(2**31))
    for i in range(count):
        at = np.array([(i - (count - 1) / 2) * pitch, 0, 0])
        link = f"{kind}_{i}" if count > 1 else kind
        like = np.random.default_rng(style)
        if kind == "slider":
            pieces += [frame_box((0.5 * width, height, 0.004), 0.1 * width, at, along="z")]
            travel = 0.38 * height
            button = (0.45 * width, 0.2 * height, rng.uniform(0.006, 0.015))
            a.add(link, *_laid(R, [box(button, (0, 0, 0.005), like)], at))
            a.slide("base", link, R[:, 1], -travel, travel)
            continue
        part, collar, swing = (_rocker if kind == "rocker" else _toggle)(like, width, height)
        pieces += [moved(p, at) for p in collar]
        a.add(link, *_laid(R, part, at))
        limits = pick(like, ((-swing, swing), (-2 * swing, 0.0), (0.0, 2 * swing)))
        a.hinge("base", link, R @ at, "x", *limits)
    a.add("base", *_laid(R, pieces))
    return a.build()


def _rocker(
    rng: np.random.Generator, width: float, height: float
) -> tuple[list[Piece], list[Piece], float]:
    """Rocker (a shallow convex or concave body that pivots about x), its frame, and its tilt (rad)
    to either side."""
    swing = rng.uniform(0.12, 0.3)
    h = height / 2
    rise = rng.uniform(-0.05, 0.12) * height
    deep = 0.3 * height
    edge = 0.6 * height * np.sin(swing)
    # outline (m, 2) of the side, (y, z)
    y = np.linspace(-h, h, int(pick(rng, (3, 5, 9))))
    top = edge + rise * (1 - np.abs(y / h))
    outline = np.concatenate(
        [[(-0.8 * h, -deep), (0.8 * h, -deep)], np.column_stack([y, top])[::-1]]
    )
    rim = 0.08 * width
    frame = frame_box(
        (width + 2.4 * rim, height + 2.4 * rim, 0.3 * edge + 0.003), rim, (0, 0, 0), along="z"
    )
    return [extrude(outline, width, "x")], [frame], swing


def _toggle(
    rng: np.random.Generator, width: float, height: float
) -> tuple[list[Piece], list[Piece], float]:
    """Toggle lever that tilts about x, its collar, and its tilt (rad) to either side."""
    thick = width * rng.uniform(0.1, 0.22)
    length = height * rng.uniform(0.35, 0.8)
    tip = rng.uniform(1.0, 1.7)
    # lever with a wide tip and a ball joint
    path = [(0, 0, -0.1 * length), (0, 0, 0.8 * length), (0, 0, length)]
    outline = circle(1.0, 10) if chance(rng, 0.5) else rectangle(2.0, 1.4)
    bat = sweep(path, outline, scale=thick * np.array([0.7, tip, 0.6 * tip]))
    ball = sphere(1.3 * thick, (0, 0, 0), 10)
    # collar, a nut or a slotted frame
    if chance(rng, 0.5):
        nut = 2.4 * thick
        sides = int(pick(rng, (6, 16)))
        collar = [pipe(nut, 1.5 * thick, 0.3 * length, "z", (0, 0, 0.05 * length), sides)]
    else:
        collar = [frame_box((3.4 * thick, 6 * thick, 0.005), 0.5 * thick, (0, 0, 0.001), along="z")]
    return [bat, ball], collar, rng.uniform(0.3, 0.6)


# Valves


def valve_wheel(rng: np.random.Generator) -> ArticulatedObject:
    """Valve in a pipe: a hand wheel or a quarter-turn lever on a bonnet that points up or to the
    front."""
    a = Assembly("valve_wheel", rng)
    radius = rng.uniform(0.015, 0.06)
    length = radius * rng.uniform(4, 9)
    axis = pick(rng, ("z", "-y"), (3, 2))
    along = pick(rng, ("x", "y")) if axis == "z" else pick(rng, ("x", "z"))
    # pipe with flanges, and the valve body
    sections = int(pick(rng, (10, 16, 24)))
    a.add("base", cylinder(radius, length, along, sections=sections))
    for s in (-1, 1):
        if chance(rng, 0.8):
            a.add("base", *_flange(rng, radius, along, s * length / 2))
    body = radius * rng.uniform(1.15, 1.6)
    a.add(
        "base",
        sphere(body, (0, 0, 0), 14)
        if chance(rng, 0.5)
        else cylinder(body, 2.4 * body, along, sections=sections),
    )
    # bonnet and stem
    bonnet = radius * rng.uniform(0.8, 1.4)
    stem = radius * rng.uniform(1.8, 4.0)
    foot = 0.8 * body
    profile = [
        (0, 0),
        (bonnet, 0),
        (bonnet, 0.3 * stem),
        (0.6 * bonnet, 0.5 * stem),
        (0.45 * bonnet, stem),
        (0, stem),
    ]
    a.add("base", lathe(profile, sections, axis, foot * direction(axis)))
    # lever or wheel on the stem
    if chance(rng, 0.25):
        turn = pick(rng, ((0.0, np.pi / 2), (-np.pi / 2, 0.0)))
        pieces = lever(rng, 0.7 * bonnet, radius * rng.uniform(4, 8))
    else:
        turn = pick(rng, ((-np.pi, np.pi), (0.0, np.pi)))
        pieces = wheel(rng, radius * rng.uniform(1.8, 4.0))
    at = (foot + stem) * direction(axis)
    yaw = exp_so3([0, 0, pick(rng, (0.0, np.pi / 2, np.pi, rng.uniform(0, 6.0)))])
    a.add("wheel", *(pointed(moved(p, rotation=yaw), axis, at) for p in pieces))
    a.hinge("base", "wheel", at, axis, *turn)
    return a.build()


def _flange(rng: np.random.Generator, radius: float, along: str, at: float) -> list[Piece]:
    """Flange at `at` (m) on a pipe of `radius` (m) along an axis, with or without bolts."""
    wide = radius * rng.uniform(1.5, 2.0)
    thick = radius * rng.uniform(0.2, 0.45)
    pieces = [cylinder(wide, thick, sections=24)]
    # bolts
    if chance(rng, 0.5):
        for x, y in circle(0.5 * (radius + wide), int(pick(rng, (4, 6, 8)))):
            pieces.append(cylinder(0.16 * radius, 2.2 * thick, center=(x, y, 0), sections=6))
    middle = np.where([along == c for c in "xyz"], at, 0.0)
    return [pointed(p, along, middle) for p in pieces]


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "faucet": faucet,
    "lever": lever_switch,
    "dial": dial,
    "switch": switch,
    "valve_wheel": valve_wheel,
}
