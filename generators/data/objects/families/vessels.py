"""Hollow vessels: buckets, trash cans and kettles. The front faces -y."""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import chance, handle, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cup,
    cylinder,
    extrude,
    lathe,
    moved,
    rectangle,
    ring,
    turned,
)
from generators.data.objects.sweeps import arc, rounded_path, tube

Piece = trimesh.Trimesh


def _bail(
    rng: np.random.Generator, radius: float, wire: float, start: float, rise: float
) -> list[Piece]:
    """Wire handle that stands over the line from (-radius, 0, start) to (radius, 0, start) and ends
    `rise` (m) above it."""
    # centerline (n, 3): half an ellipse, a trapezoid or a pointed arch
    form = rng.integers(3)
    if form == 0:
        half_circle = arc((0, 0, 0), 1.0, np.pi, 0, segments=int(pick(rng, (8, 14, 20))))
        path = half_circle * [radius, 1, rise]
    elif form == 1:
        top = radius * rng.uniform(0.75, 0.95)
        corners = [(-radius, 0, 0), (-top, 0, rise), (top, 0, rise), (radius, 0, 0)]
        path = rounded_path(corners, 0.3 * radius)
    else:
        left = [(-radius, 0, 0), (-radius, 0, 0.6 * rise)]
        right = np.array(left)[::-1] * (-1, 1, 1)
        path = rounded_path([*left, (0, 0, rise), *right], 0.4 * radius, 6)
    path = path * [1, 1, rise / path[:, 2].max()] + np.array([0, 0, start])
    pieces = [tube(path, wire, 8)]
    # grip at the middle
    middle = np.array([0, 0, path[:, 2].max()])
    grip = pick(rng, ("wood", "sleeve", "none"), (2, 1, 2))
    if grip == "wood":
        length = rng.uniform(0.25, 0.6) * radius
        thick = wire * rng.uniform(2.0, 3.5)
        s = np.linspace(-1, 1, 5)
        pieces.append(tube(middle + s[:, None] * [length, 0, 0], thick * (1 - 0.35 * s**4), 12))
    elif grip == "sleeve":
        near = np.abs(path[:, 0]) < 0.55 * radius
        if near.sum() > 1:
            pieces.append(tube(path[near], 1.8 * wire, 8))
        else:
            pieces.append(cylinder(1.8 * wire, radius, "x", middle, 8))
    return pieces


def bucket(rng: np.random.Generator) -> ArticulatedObject:
    """Bucket, round or oval, with a handle that swings; at 0 the handle stands up or lies on the
    rim."""
    a = Assembly("bucket", rng, "body")
    top = rng.uniform(0.1, 0.18)
    height = rng.uniform(0.16, 0.34)
    low = top * rng.uniform(0.65, 0.98)
    wall = rng.uniform(0.0015, 0.006)
    sections = int(pick(rng, (12, 18, 28)))
    # body, on some with beads around it
    profile = [(low, 0.0), (top, height)]
    if chance(rng, 0.5):
        for t in np.sort(rng.uniform(0.15, 0.9, int(rng.integers(1, 4)))):
            r, z = low + t * (top - low), t * height
            profile[-1:-1] = [(r, z), (r + 0.006, z + 0.004), (r + 0.004, z + 0.01)]
        rising = np.diff(np.array(profile)[:, 1], prepend=-1.0) > 0
        profile = [p for p, rises in zip(profile, rising, strict=True) if rises]
    body = [cup(profile, wall, sections)]
    # rim, and a ring at the bottom
    lip = wall * rng.uniform(1.0, 2.5) + 0.002
    edge = np.column_stack([circle(top, sections), np.full(sections, height)])  # (sections, 3)
    body.append(tube(edge, lip, 6, closed=True))
    if chance(rng, 0.3):
        edge = np.column_stack([circle(low, sections), np.full(sections, 0.003)])
        body.append(tube(edge, 0.004, 6, closed=True))
    depth = rng.uniform(0.75, 1.0) if chance(rng, 0.25) else 1.0
    a.add("body", *(moved(p, rotation=np.diag([1.0, depth, 1.0])) for p in body))
    # two ears with the pivots of the handle
    wire = rng.uniform(0.0025, 0.006)
    out = top + rng.uniform(0.003, 0.01)
    pivot = np.array([0, 0, height - rng.uniform(0.01, 0.04)])
    for s in (-1, 1):
        ear = pivot + np.array([s * (out - 0.004), 0, 0])
        if chance(rng, 0.5):
            a.add("body", cylinder(rng.uniform(0.008, 0.016), 0.014, "x", ear, 12))
        else:
            a.add("body", box((0.014, rng.uniform(0.02, 0.04), rng.uniform(0.02, 0.04)), ear, rng))
    # handle, high enough to clear the rim at the front and the rear
    pieces = _bail(rng, out, wire, pivot[2], top * rng.uniform(1.15, 1.5) + 0.01 + 4 * wire)
    lies = np.pi / 2 + rng.uniform(-0.05, 0.2)
    if chance(rng, 0.5):
        a.hinge("body", "handle", pivot, "x", -lies, lies)
    else:  # at rest it lies toward the front
        lies = min(lies, np.pi / 2)
        pieces = [turned(p, "x", lies, pivot) for p in pieces]
        a.hinge("body", "handle", pivot, "-x", 0.0, 2 * lies)
    a.add("handle", *pieces)
    return a.build()


# Trash cans


def trash_can(rng: np.random.Generator) -> ArticulatedObject:
    """Trash can, round or square: a lid hinged at the rear (often with a pedal), a swinging flap,
    or two wings."""
    a = Assembly("trash_can", rng, "body")
    half = rng.uniform(0.09, 0.26)
    round_body = chance(rng, 0.5)
    deep = half if round_body else half * rng.uniform(0.7, 1.3)
    height = half * rng.uniform(1.8, 4.0)
    taper = rng.uniform(0.75, 1.0)
    foot = rng.uniform(0.015, 0.045)
    # body, foot and a band below the rim
    if round_body:
        outline = circle(1.0, int(pick(rng, (14, 20, 28))))
    else:
        outline = rectangle(2, 2, rng.uniform(0.05, 0.5))
    rim = outline * [half, deep]
    walls = tray(rim, height - foot, rng.uniform(0.004, 0.009), taper)
    a.add("body", *(moved(p, (0, 0, foot)) for p in walls))
    base = rim * taper * rng.uniform(0.93, 1.04)
    a.add("body", extrude(base, foot * 1.1, "z", (0, 0, 0.55 * foot)))
    if chance(rng, 0.4):
        a.add("body", ring(rim * 1.03, rim * 0.97, 0.03 * height, "z", (0, 0, 0.97 * height)))
    # lid
    kind = pick(rng, ("pedal", "lid", "wheels", "flap", "wings"), (5, 2, 2, 2, 1))
    if kind == "flap":
        _flap_top(a, rng, rim, height)
    elif kind == "wings":
        stop = rng.uniform(1.2, 1.6)
        level = height + 0.007
        for s, link in ((-1, "left"), (1, "right")):
            wing = np.column_stack([s * np.maximum(s * rim[:, 0], 0.001), rim[:, 1]])
            a.add(link, extrude(wing, 0.012, "z", (0, 0, level)))
            a.hinge("body", link, (s * half, 0, level), (0, s, 0), 0.0, stop)
    else:
        stop = rng.uniform(1.1, 1.8) if kind != "wheels" else rng.uniform(1.8, 2.7)
        joint = _hinged_lid(a, rng, rim, height, stop)
        if kind == "pedal":
            _pedal(a, rng, deep * taper, foot, joint, stop)
        elif kind == "wheels":
            # wheels, axle and handle at the rear
            wheel = 0.22 * half + foot
            y = 0.98 * deep
            for s in (-1, 1):
                at = (s * 0.8 * half, y, wheel)
                a.add("body", cylinder(wheel, 0.14 * half, "x", at, 20))
            a.add("body", cylinder(0.2 * wheel, 1.6 * half, "x", (0, y, wheel), 8))
            a.add("body", handle(rng, "bracket", 1.2 * half, (0, y, 0.9 * height), "y", "x"))
    return a.build()


def tray(rim: FloatArray, height: float, wall: float, taper: float = 1.0) -> list[Piece]:
    """Walls under a rim of outline (m, 2), and a floor, from z = 0 up to `height` (m); the bottom
    is `taper` times as wide as the rim."""
    walls = ring(rim, rim * (1 - wall / np.abs(rim).max(0)), height, "z", (0, 0, height / 2))
    # scale of a cross section, linear in z
    vertices = np.array(walls.vertices)
    vertices[:, :2] *= 1 - (1 - taper) * (1 - vertices[:, 2:] / height)
    floor = extrude(
        rim * taper * (1 - 0.5 * wall / np.abs(rim).max(0)), wall, "z", (0, 0, wall / 2)
    )
    return [trimesh.Trimesh(vertices, walls.faces, process=False), floor]


def _flap_top(a: Assembly, rng: np.random.Generator, rim: FloatArray, height: float) -> None:
    """Hood on the rim with a flap in its opening that swings both ways about its center line."""
    tall = rng.uniform(0.02, 0.5) * rim[:, 0].max()
    hole = rng.uniform(0.7, 0.9)
    hood = ring(rim * 1.02, rim * hole, tall, "z", (0, 0, height + tall / 2))
    a.add("body", hood)
    level = height + tall * rng.uniform(0.6, 1.0)
    swing = rng.uniform(0.7, 1.4)
    a.add("flap", extrude(rim * (hole - 0.02), rng.uniform(0.004, 0.012), "z", (0, 0, level)))
    a.hinge("body", "flap", (0, 0, level), "x", -swing, swing)


def _hinged_lid(
    a: Assembly, rng: np.random.Generator, rim: FloatArray, height: float, stop: float
) -> str:
    """Lid hinged at the rear, flat, stepped or domed, with or without a handle; returns its
    joint."""
    thick = rng.uniform(0.01, 0.04)
    deep = rim[:, 1].max()
    over = rng.uniform(1.0, 1.06)
    level = height + 0.002
    a.add("lid", extrude(rim * over, thick, "z", (0, 0, level + thick / 2)))
    crown = level + thick
    # step or dome on top
    form = rng.integers(3)
    if form == 1:
        step = thick * rng.uniform(0.5, 1.5)
        a.add("lid", extrude(rim * rng.uniform(0.6, 0.92), step, "z", (0, 0, crown + step / 2)))
        crown += step
    elif form == 2:  # stack of shrinking outlines
        for t in (0.93, 0.78, 0.55):
            step = 0.1 * deep * rng.uniform(0.5, 0.8)
            a.add("lid", extrude(rim * t, step, "z", (0, 0, crown + step / 2)))
            crown += step
    if chance(rng, 0.4):
        kind = pick(rng, ("knob", "bow", "bracket"))
        a.add("lid", handle(rng, kind, 0.5 * rim[:, 0].max(), (0, 0, crown), "z", "x"))
    # hinge
    pivot = np.array([0, deep * over, level])
    block = (rng.uniform(0.3, 1.0) * rim[:, 0].max(), 0.02, 0.03)
    a.add("body", box(block, pivot - np.array([0, 0.005, 0.018])))
    return a.hinge("body", "lid", pivot, "-x", 0.0, stop)


def _pedal(
    a: Assembly, rng: np.random.Generator, deep: float, foot: float, joint: str, stop: float
) -> None:
    """Pedal at the front that goes down as the lid goes up."""
    width = rng.uniform(0.05, 0.12)
    long = rng.uniform(0.03, 0.07) + 0.1 * deep
    thick = rng.uniform(0.004, 0.01)
    level = 0.5 * foot + 0.004
    pivot = np.array([0, -deep * 0.9, level])
    reach = 0.1 * deep + long
    a.add("pedal", box((width, long, thick), pivot - np.array([0, reach - long / 2, 0]), rng))
    a.add("pedal", box((0.5 * width, reach, 0.7 * thick), pivot - np.array([0, reach / 2, 0])))
    press = min(0.3, 0.8 * (level - thick / 2) / reach)
    a.follow(a.hinge("body", "pedal", pivot, "x", 0.0, press), joint, press / stop)


# Kettles


def kettle(rng: np.random.Generator) -> ArticulatedObject:
    """Kettle: with a swinging handle and a lid that lifts off, or with a fixed handle at the rear
    and a hinged lid, with or without a base."""
    a = Assembly("kettle", rng, "body")
    radius = rng.uniform(0.06, 0.1)
    mouth = rng.uniform(0.45, 0.75)
    with_bail = chance(rng, 0.5)
    height = radius * (rng.uniform(1.0, 1.6) if with_bail else rng.uniform(1.8, 2.8))
    mouth = radius * (mouth if with_bail else rng.uniform(0.7, 0.95))
    belly = radius * rng.uniform(1.0, 1.12)
    # body: profile (n, 2) of (radius, height), the radius a cubic Bezier curve
    s = np.linspace(0, 1, int(pick(rng, (4, 6, 9))))
    curve = np.array([radius * rng.uniform(0.75, 1.0), belly, belly, mouth])
    weights = np.stack([(1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s**2 * (1 - s), s**3], axis=1)
    profile = np.column_stack([weights @ curve, height * s])
    sections = int(pick(rng, (10, 16, 24)))
    a.add("body", cup(profile, 0.003, sections))
    if not with_bail and chance(rng, 0.6):
        a.add("body", cylinder(1.05 * curve[0], 0.02, "z", (0, 0, -0.0101), 24))
    _spout(a, rng, profile)
    # lid with a knob or a bow
    top = height + rng.uniform(0.004, 0.012)
    dome = mouth * rng.uniform(0.0, 0.3)
    rim = [(0, height), (1.03 * mouth, height), (1.03 * mouth, top)]
    a.add("lid", lathe([*rim, (0.6 * mouth, top + 0.7 * dome), (0, top + dome)], sections))
    kind = pick(rng, ("knob", "knob", "bow"))
    a.add("lid", handle(rng, kind, 0.6 * mouth, (0, 0, top + 0.9 * dome), "z", "x"))
    if with_bail:
        # pivots at the body's sides, and a handle high enough to clear lid and rim
        a.slide("body", "lid", "z", 0.0, rng.uniform(0.04, 0.12))
        level = height * rng.uniform(0.75, 0.95)
        out = float(np.interp(level, profile[:, 1], profile[:, 0])) + 0.004
        for x in (-out, out):
            a.add("body", cylinder(0.009, 0.016, "x", (x, 0, level), 12))
        least = max(top + dome - level + 0.05, np.hypot(mouth, height - level) + 0.03)
        rise = least * rng.uniform(1.0, 1.3)
        a.add("handle", *_bail(rng, out, rng.uniform(0.003, 0.006), level, rise))
        lies = rng.uniform(0.9, 1.4)
        limits = pick(rng, ((-lies, lies), (0.0, lies), (-lies, 0.0)))
        a.hinge("body", "handle", (0, 0, level), "x", *limits)
        return a.build()
    # fixed handle at the rear
    at = (0, 0.9 * mouth, 0.5 * height)
    reach = rng.uniform(0.05, 0.07)
    a.add("body", handle(rng, "bracket", 0.8 * height, at, "y", "z", reach=reach))
    a.hinge("body", "lid", (0, mouth, height + 0.002), "-x", 0.0, rng.uniform(1.2, 1.9))
    return a.build()


def _spout(a: Assembly, rng: np.random.Generator, profile: FloatArray) -> None:
    """Spout at the front: a bent tube from the side, or a beak at the rim."""
    height = profile[-1, 1]
    low = height * rng.uniform(0.35, 0.65)
    r = float(np.interp(low, profile[:, 1], profile[:, 0]))
    if chance(rng, 0.6):
        thick = rng.uniform(0.01, 0.018)
        out = rng.uniform(0.04, 0.09)
        end = np.array([0, -r - out, height * rng.uniform(0.9, 1.1)])
        start = [(0, -r + 0.015, low), (0, -r - 0.4 * out, low + 0.1 * height)]
        path = rounded_path([*start, end, end - np.array([0, 0.01, 0])], 0.03)
        radii = np.linspace(thick * rng.uniform(1.0, 1.7), 0.6 * thick, len(path))
        a.add("body", tube(path, radii, 10))
    else:
        mouth = profile[-1, 0]
        long = rng.uniform(0.02, 0.04)
        beak = [(-0.4 * mouth, -0.85 * mouth), (0, -mouth - long), (0.4 * mouth, -0.85 * mouth)]
        tall = height * rng.uniform(0.1, 0.3)
        a.add("body", extrude(beak, tall, "z", (0, 0, height - tall / 2)))
