"""Handles of faucets and taps: levers, crosses, knobs and wheels.

A handle is drawn about the z axis with its foot at the origin and its lever towards -y.
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
    """Limits (rad) of a handle: a lever turns both ways or one way by up to about 100 degrees, a
    knob up to a turn."""
    a = (
        rng.choice([np.pi / 2, np.pi])
        if whole_turn and rng.random() < 0.7
        else rng.uniform(0.6, 1.8)
    )
    return ((-a, a), (-a, a), (0.0, a), (-a, 0.0))[rng.integers(4)]


def _hub(rng: np.random.Generator, radius: float, height: float) -> Piece:
    """Base that a handle turns on: a cylinder, a dome, a cone or a block, from z = 0 up."""
    form = rng.integers(4)
    if form == 0:
        return box((2 * radius, 2 * radius, height), (0, 0, height / 2), rng)
    sections = int(rng.choice([6, 10, 16, 24]))
    top = radius * (1.0, rng.uniform(0.4, 0.9), rng.uniform(0.8, 1.3))[form - 1]
    crown = height * rng.uniform(0.0, 0.4)
    return lathe(
        [
            (0, 0),
            (radius, 0),
            (top, height),
            (0.6 * top, height + 0.8 * crown),
            (0, height + crown),
        ],
        sections,
    )


def lever(rng: np.random.Generator, radius: float, length: float) -> list[Piece]:
    """A hub of `radius` (m) and a bar of `length` (m) towards -y, level or rising, round or
    flat, straight or bent."""
    height = radius * rng.uniform(0.8, 2.2)
    thick = min(radius * rng.uniform(0.25, 0.6), 0.012)
    start = rng.uniform(0.4, 0.95) * height
    s = np.linspace(0, 1, int(rng.integers(2, 8)))
    rise = rng.uniform(-0.05, 0.5) * (1 if rng.random() < 0.7 else 0)
    bow = rng.uniform(-0.25, 0.35) if rng.random() < 0.5 else 0.0
    path = np.column_stack([0 * s, -length * s, start + length * (rise * s + bow * s * (s - 1))])
    taper = np.linspace(1.0, rng.uniform(0.5, 1.3), len(s))
    if rng.random() < 0.45:
        bar = tube(path, thick * taper, int(rng.choice([6, 8, 12])))
    else:
        width, flat = thick * rng.uniform(1.0, 3.0), thick * rng.uniform(0.5, 1.2)
        bar = sweep(
            path, rectangle(2 * width, 2 * flat, rng.choice([0.0, 0.7]) * flat, 2), scale=taper
        )
    pieces = [_hub(rng, radius, height), bar]
    ending = rng.integers(4)
    if ending == 0:
        pieces.append(sphere(thick * rng.uniform(1.2, 1.9), path[-1], 10))
    elif ending == 1:  # a grip around the end
        pieces.append(
            tube(
                path[-1] + np.outer([0.35, 0.0], path[0] - path[-1]),
                thick * rng.uniform(1.15, 1.6),
                10,
            )
        )
    return pieces


def cross(rng: np.random.Generator, radius: float) -> list[Piece]:
    """A hub and 2 to 5 spokes of `radius` (m), level, with or without balls at their ends."""
    hub, height = radius * rng.uniform(0.25, 0.4), radius * rng.uniform(0.5, 1.0)
    count, thick = int(rng.integers(2, 6)), radius * rng.uniform(0.09, 0.16)
    level, ball = height * rng.uniform(0.5, 0.9), rng.random() < 0.5
    pieces = [_hub(rng, hub, height)]
    for a in np.arange(count) * 2 * np.pi / count:
        end = np.array([radius * np.cos(a), radius * np.sin(a), level])
        pieces.append(
            tube(np.stack([(0, 0, level), end]), [thick, thick * rng.uniform(0.7, 1.0)], 8)
        )
        if ball:
            pieces.append(sphere(1.5 * thick, end, 8))
    return pieces


def knob(rng: np.random.Generator, radius: float) -> list[Piece]:
    """A turned or fluted knob of `radius` (m), perhaps with a pointer or a grip bar across."""
    height, sections = radius * rng.uniform(0.6, 1.6), int(rng.choice([3, 4, 5, 6, 8, 12, 24]))
    waist, top = rng.uniform(0.5, 1.0), rng.uniform(0.7, 1.0)
    body = lathe(
        [
            (0, 0),
            (waist * radius, 0),
            (radius, 0.4 * height),
            (top * radius, 0.9 * height),
            (0, height),
        ],
        sections,
    )
    pieces = [body]
    if sections >= 6 and rng.random() < 0.4:  # flutes around it
        count = int(rng.integers(5, 10))
        for x, y in circle(0.93 * radius, count):
            pieces.append(
                cylinder(0.17 * radius, 0.5 * height, center=(x, y, 0.55 * height), sections=8)
            )
    elif rng.random() < 0.5:
        pieces.append(
            box((0.3 * radius, rng.uniform(1.6, 2.4) * radius, 0.5 * height), (0, 0, height), rng)
        )
    return pieces


def wheel(rng: np.random.Generator, radius: float) -> list[Piece]:
    """A hand wheel: a rim of `radius` (m), 2 to 6 spokes and a hub, level."""
    height, thick = radius * rng.uniform(0.25, 0.6), radius * rng.uniform(0.07, 0.14)
    hub, count, level = (
        radius * rng.uniform(0.18, 0.3),
        int(rng.integers(2, 7)),
        height * rng.uniform(0.5, 1.2),
    )
    rim = arc((0, 0, level), radius, 0, 2 * np.pi, ("x", "y"), int(rng.choice([12, 18, 28])))[:-1]
    pieces = [
        tube(rim, thick, 8, closed=True),
        cylinder(hub, height, center=(0, 0, height / 2), sections=12),
    ]
    drop = rng.uniform(0.0, 0.5) * height
    for a in np.arange(count) * 2 * np.pi / count:
        end = (radius * np.cos(a), radius * np.sin(a), level)
        pieces.append(tube([(0, 0, level - drop), end], thick * rng.uniform(0.6, 0.9), 6))
    return pieces


def handle(rng: np.random.Generator, size: float) -> tuple[list[Piece], bool]:
    """Any handle for a valve of radius `size` (m), and whether it may turn all round."""
    form = rng.integers(5)
    if form <= 1:
        return lever(rng, size * rng.uniform(0.8, 1.1), size * rng.uniform(2.5, 6.0)), False
    if form == 2:
        return cross(rng, size * rng.uniform(1.5, 2.5)), True
    if form == 3:
        return wheel(rng, size * rng.uniform(1.4, 2.4)), True
    return knob(rng, size * rng.uniform(1.0, 1.6)), True
