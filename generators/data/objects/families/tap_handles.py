"""Handles of faucets and valves: levers, crosses, knobs and wheels.

A handle is drawn about the z axis with its base at the origin and its lever toward -y.
"""

from __future__ import annotations

import numpy as np
import trimesh

from generators.data.objects.primitives import (
    box,
    circle,
    cylinder,
    lathe,
    rectangle,
    sphere,
)
from generators.data.objects.sweeps import arc, sweep, tube

Piece = trimesh.Trimesh
UP = np.array([0.0, 0.0, 1.0])


def turning_range(rng: np.random.Generator, whole_turn: bool) -> tuple[float, float]:
    """Limits (rad) of a handle that turns both ways or one way: up to about 100 degrees, or with
    `whole_turn` mostly 90 or 180 degrees."""
    if whole_turn and rng.random() < 0.7:
        a = rng.choice([np.pi / 2, np.pi])
    else:
        a = rng.uniform(0.6, 1.8)
    return ((-a, a), (-a, a), (0.0, a), (-a, 0.0))[rng.integers(4)]


def _hub(rng: np.random.Generator, radius: float, height: float) -> Piece:
    """Base of a handle, from z = 0 up: a cylinder, a dome, a cone or a block."""
    form = rng.integers(4)
    if form == 0:
        return box((2 * radius, 2 * radius, height), (0, 0, height / 2), rng)
    sections = int(rng.choice([6, 10, 16, 24]))
    top = radius * (1.0, rng.uniform(0.4, 0.9), rng.uniform(0.8, 1.3))[form - 1]
    crown = height * rng.uniform(0.0, 0.4)
    side = [(0, 0), (radius, 0), (top, height)]
    return lathe([*side, (0.6 * top, height + 0.8 * crown), (0, height + crown)], sections)


def lever(rng: np.random.Generator, radius: float, length: float) -> list[Piece]:
    """Hub of `radius` (m) with a bar of `length` (m) toward -y: level or rising, straight or bent,
    round or flat."""
    height = radius * rng.uniform(0.8, 2.2)
    thick = min(radius * rng.uniform(0.25, 0.6), 0.012)
    start = rng.uniform(0.4, 0.95) * height
    # centerline (n, 3) of the bar
    s = np.linspace(0, 1, int(rng.integers(2, 8)))
    rise = rng.uniform(-0.05, 0.5) * (1 if rng.random() < 0.7 else 0)
    bow = rng.uniform(-0.25, 0.35) if rng.random() < 0.5 else 0.0
    path = np.column_stack([0 * s, -length * s, start + length * (rise * s + bow * s * (s - 1))])
    # round or flat bar
    taper = np.linspace(1.0, rng.uniform(0.5, 1.3), len(s))
    if rng.random() < 0.45:
        bar = tube(path, thick * taper, int(rng.choice([6, 8, 12])))
    else:
        width = thick * rng.uniform(1.0, 3.0)
        flat = thick * rng.uniform(0.5, 1.2)
        section = rectangle(2 * width, 2 * flat, rng.choice([0.0, 0.7]) * flat, 2)
        bar = sweep(path, section, scale=taper)
    pieces = [_hub(rng, radius, height), bar]
    # end of the bar: a ball, a grip or nothing
    ending = rng.integers(4)
    if ending == 0:
        pieces.append(sphere(thick * rng.uniform(1.2, 1.9), path[-1], 10))
    elif ending == 1:
        grip = path[-1] + np.outer([0.35, 0.0], path[0] - path[-1])  # (2, 3)
        pieces.append(tube(grip, thick * rng.uniform(1.15, 1.6), 10))
    return pieces


def cross(rng: np.random.Generator, radius: float) -> list[Piece]:
    """Hub with 2 to 5 horizontal spokes of `radius` (m), with or without balls at their ends."""
    hub = radius * rng.uniform(0.25, 0.4)
    height = radius * rng.uniform(0.5, 1.0)
    count = int(rng.integers(2, 6))
    thick = radius * rng.uniform(0.09, 0.16)
    level = height * rng.uniform(0.5, 0.9)
    ball = rng.random() < 0.5
    pieces = [_hub(rng, hub, height)]
    for a in np.arange(count) * 2 * np.pi / count:
        end = np.array([radius * np.cos(a), radius * np.sin(a), level])
        radii = [thick, thick * rng.uniform(0.7, 1.0)]
        pieces.append(tube(np.stack([(0, 0, level), end]), radii, 8))
        if ball:
            pieces.append(sphere(1.5 * thick, end, 8))
    return pieces


def knob(rng: np.random.Generator, radius: float) -> list[Piece]:
    """Knob of `radius` (m), turned or polygonal; some are fluted or have a grip bar across."""
    height = radius * rng.uniform(0.6, 1.6)
    sections = int(rng.choice([3, 4, 5, 6, 8, 12, 24]))
    waist = rng.uniform(0.5, 1.0)
    top = rng.uniform(0.7, 1.0)
    lower = [(0, 0), (waist * radius, 0), (radius, 0.4 * height)]
    pieces = [lathe([*lower, (top * radius, 0.9 * height), (0, height)], sections)]
    # flutes around the knob, or a grip bar across it
    if sections >= 6 and rng.random() < 0.4:
        count = int(rng.integers(5, 10))
        for x, y in circle(0.93 * radius, count):
            at = (x, y, 0.55 * height)
            pieces.append(cylinder(0.17 * radius, 0.5 * height, center=at, sections=8))
    elif rng.random() < 0.5:
        bar = (0.3 * radius, rng.uniform(1.6, 2.4) * radius, 0.5 * height)
        pieces.append(box(bar, (0, 0, height), rng))
    return pieces


def wheel(rng: np.random.Generator, radius: float) -> list[Piece]:
    """Horizontal hand wheel: a rim of `radius` (m), 2 to 6 spokes and a hub."""
    height = radius * rng.uniform(0.25, 0.6)
    thick = radius * rng.uniform(0.07, 0.14)
    hub = radius * rng.uniform(0.18, 0.3)
    count = int(rng.integers(2, 7))
    level = height * rng.uniform(0.5, 1.2)
    # rim and hub
    rim = arc((0, 0, level), radius, 0, 2 * np.pi, ("x", "y"), int(rng.choice([12, 18, 28])))[:-1]
    pieces = [
        tube(rim, thick, 8, closed=True),
        cylinder(hub, height, center=(0, 0, height / 2), sections=12),
    ]
    # spokes, from the rim down to the hub
    drop = rng.uniform(0.0, 0.5) * height
    for a in np.arange(count) * 2 * np.pi / count:
        end = (radius * np.cos(a), radius * np.sin(a), level)
        pieces.append(tube([(0, 0, level - drop), end], thick * rng.uniform(0.6, 0.9), 6))
    return pieces


def handle(rng: np.random.Generator, size: float) -> tuple[list[Piece], bool]:
    """Random handle for a valve of radius `size` (m); the second value is True if it can make a
    full turn."""
    form = rng.integers(5)
    if form <= 1:
        return lever(rng, size * rng.uniform(0.8, 1.1), size * rng.uniform(2.5, 6.0)), False
    if form == 2:
        return cross(rng, size * rng.uniform(1.5, 2.5)), True
    if form == 3:
        return wheel(rng, size * rng.uniform(1.4, 2.4)), True
    return knob(rng, size * rng.uniform(1.0, 1.6)), True
