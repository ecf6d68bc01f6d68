"""Hollow vessels: buckets, trash cans, kettles and suitcases, their front at -y."""

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
    """A wire handle that stands over the line from (-radius, 0, start) to (radius, 0, start)."""
    form = rng.integers(3)
    if form == 0:
        path = arc((0, 0, 0), 1.0, np.pi, 0, segments=int(pick(rng, (8, 14, 20)))) * [
            radius,
            1,
            rise,
        ]
    elif form == 1:
        top = radius * rng.uniform(0.75, 0.95)
        path = rounded_path(
            [(-radius, 0, 0), (-top, 0, rise), (top, 0, rise), (radius, 0, 0)], 0.3 * radius
        )
    else:
        shoulder = [(-radius, 0, 0), (-radius, 0, 0.6 * rise)]
        path = rounded_path(
            [*shoulder, (0, 0, rise), *np.array(shoulder)[::-1] * (-1, 1, 1)], 0.4 * radius, 6
        )
    path = path * [1, 1, rise / path[:, 2].max()] + np.array([0, 0, start])
    pieces = [tube(path, wire, 8)]
    middle = np.array([0, 0, path[:, 2].max()])
    grip = pick(rng, ("wood", "sleeve", "none"), (2, 1, 2))
    if grip == "wood":
        length, thick = rng.uniform(0.25, 0.6) * radius, wire * rng.uniform(2.0, 3.5)
        s = np.linspace(-1, 1, 5)
        pieces.append(tube(middle + s[:, None] * [length, 0, 0], thick * (1 - 0.35 * s**4), 12))
    elif grip == "sleeve":
        near = np.abs(path[:, 0]) < 0.55 * radius
        sleeve = (
            tube(path[near], 1.8 * wire, 8)
            if near.sum() > 1
            else cylinder(1.8 * wire, radius, "x", middle, 8)
        )
        pieces.append(sleeve)
    return pieces


def bucket(rng: np.random.Generator) -> ArticulatedObject:
    """A pail, round or oval, with a bail on two ears; the bail stands up at 0, or lies on the
    rim."""
    a = Assembly("bucket", rng, "body")
    top, height = rng.uniform(0.1, 0.18), rng.uniform(0.16, 0.34)
    low, wall = top * rng.uniform(0.65, 0.98), rng.uniform(0.0015, 0.006)
    sections = int(pick(rng, (12, 18, 28)))
    profile = [(low, 0.0), (top, height)]
    if chance(rng, 0.5):  # beads around it
        for t in np.sort(rng.uniform(0.15, 0.9, int(rng.integers(1, 4)))):
            r = low + t * (top - low)
            profile[-1:-1] = [
                (r, t * height),
                (r + 0.006, t * height + 0.004),
                (r + 0.004, t * height + 0.01),
            ]
        heights = np.array(profile)[:, 1]
        profile = [
            p
            for p, rising in zip(profile, np.diff(heights, prepend=-1.0) > 0, strict=True)
            if rising
        ]
    body = [cup(profile, wall, sections)]
    lip = wall * rng.uniform(1.0, 2.5) + 0.002
    body.append(
        tube(
            np.column_stack([circle(top, sections), np.full(sections, height)]), lip, 6, closed=True
        )
    )
    if chance(rng, 0.3):  # a foot ring
        body.append(
            tube(
                np.column_stack([circle(low, sections), np.full(sections, 0.003)]),
                0.004,
                6,
                closed=True,
            )
        )
    depth = rng.uniform(0.75, 1.0) if chance(rng, 0.25) else 1.0
    a.add("body", *(moved(p, rotation=np.diag([1.0, depth, 1.0])) for p in body))
    wire, out = rng.uniform(0.0025, 0.006), top + rng.uniform(0.003, 0.01)
    pivot = np.array([0, 0, height - rng.uniform(0.01, 0.04)])
    for s in (-1, 1):
        ear = pivot + np.array([s * (out - 0.004), 0, 0])
        if chance(rng, 0.5):
            a.add("body", cylinder(rng.uniform(0.008, 0.016), 0.014, "x", ear, 12))
        else:
            a.add("body", box((0.014, rng.uniform(0.02, 0.04), rng.uniform(0.02, 0.04)), ear, rng))
    # It clears the rim it swings over, front and back.
    pieces = _bail(rng, out, wire, pivot[2], top * rng.uniform(1.15, 1.5) + 0.01 + 4 * wire)
    lies = np.pi / 2 + rng.uniform(-0.05, 0.2)
    if chance(rng, 0.5):
        a.hinge("body", "handle", pivot, "x", -lies, lies)
    else:  # at rest it lies towards the front
        lies = min(lies, np.pi / 2)
        pieces = [turned(p, "x", lies, pivot) for p in pieces]
        a.hinge("body", "handle", pivot, "-x", 0.0, 2 * lies)
    a.add("handle", *pieces)
    return a.build()


# Trash cans


def trash_can(rng: np.random.Generator) -> ArticulatedObject:
    """A round or a square bin: a lid hinged behind (often lifted by a pedal), a flap that
    swings, or two wings."""
    a = Assembly("trash_can", rng, "body")
    half, round_body = rng.uniform(0.09, 0.26), chance(rng, 0.5)
    deep = half if round_body else half * rng.uniform(0.7, 1.3)
    height, taper = half * rng.uniform(1.8, 4.0), rng.uniform(0.75, 1.0)
    foot = rng.uniform(0.015, 0.045)
    outline = (
        circle(1.0, int(pick(rng, (14, 20, 28))))
        if round_body
        else rectangle(2, 2, rng.uniform(0.05, 0.5))
    )
    rim = outline * [half, deep]
    a.add(
        "body",
        *(
            moved(p, (0, 0, foot))
            for p in tray(rim, height - foot, rng.uniform(0.004, 0.009), taper)
        ),
    )
    a.add(
        "body", extrude(rim * taper * rng.uniform(0.93, 1.04), foot * 1.1, "z", (0, 0, 0.55 * foot))
    )
    if chance(rng, 0.4):  # a band below the rim
        a.add("body", ring(rim * 1.03, rim * 0.97, 0.03 * height, "z", (0, 0, 0.97 * height)))
    kind = pick(rng, ("pedal", "lid", "wheels", "flap", "wings"), (5, 2, 2, 2, 1))
    if kind == "flap":
        _flap_top(a, rng, rim, height)
    elif kind == "wings":
        stop, level = rng.uniform(1.2, 1.6), height + 0.007
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
            wheel = 0.22 * half + foot
            for s in (-1, 1):
                a.add(
                    "body",
                    cylinder(wheel, 0.14 * half, "x", (s * 0.8 * half, 0.98 * deep, wheel), 20),
                )
            a.add("body", cylinder(0.2 * wheel, 1.6 * half, "x", (0, 0.98 * deep, wheel), 8))
            a.add(
                "body", handle(rng, "bracket", 1.2 * half, (0, 0.98 * deep, 0.9 * height), "y", "x")
            )
    return a.build()


def tray(rim: FloatArray, height: float, wall: float, taper: float = 1.0) -> list[Piece]:
    """Walls under the rim's outline (m, 2) and a floor, from z = 0 up to the rim; below it is
    `taper` times as wide."""
    walls = ring(rim, rim * (1 - wall / np.abs(rim).max(0)), height, "z", (0, 0, height / 2))
    vertices = np.array(walls.vertices)
    vertices[:, :2] *= 1 - (1 - taper) * (1 - vertices[:, 2:] / height)
    floor = extrude(
        rim * taper * (1 - 0.5 * wall / np.abs(rim).max(0)), wall, "z", (0, 0, wall / 2)
    )
    return [trimesh.Trimesh(vertices, walls.faces, process=False), floor]


def _flap_top(a: Assembly, rng: np.random.Generator, rim: FloatArray, height: float) -> None:
    """A hood on the rim, and in its opening a flap that swings both ways about its middle."""
    tall, hole = rng.uniform(0.02, 0.5) * rim[:, 0].max(), rng.uniform(0.7, 0.9)
    hood = ring(rim * 1.02, rim * hole, tall, "z", (0, 0, height + tall / 2))
    a.add("body", hood)
    level, swing = height + tall * rng.uniform(0.6, 1.0), rng.uniform(0.7, 1.4)
    a.add("flap", extrude(rim * (hole - 0.02), rng.uniform(0.004, 0.012), "z", (0, 0, level)))
    a.hinge("body", "flap", (0, 0, level), "x", -swing, swing)


def _hinged_lid(
    a: Assembly, rng: np.random.Generator, rim: FloatArray, height: float, stop: float
) -> str:
    """A flat, stepped or domed lid with or without a handle, hinged behind; returns its joint."""
    thick, deep = rng.uniform(0.01, 0.04), rim[:, 1].max()
    over = rng.uniform(1.0, 1.06)
    level = height + 0.002
    a.add("lid", extrude(rim * over, thick, "z", (0, 0, level + thick / 2)))
    crown = level + thick
    form = rng.integers(3)
    if form == 1:
        step = thick * rng.uniform(0.5, 1.5)
        a.add("lid", extrude(rim * rng.uniform(0.6, 0.92), step, "z", (0, 0, crown + step / 2)))
        crown += step
    elif form == 2:  # shrinking outlines make a dome
        for t in (0.93, 0.78, 0.55):
            step = 0.1 * deep * rng.uniform(0.5, 0.8)
            a.add("lid", extrude(rim * t, step, "z", (0, 0, crown + step / 2)))
            crown += step
    if chance(rng, 0.4):
        a.add(
            "lid",
            handle(
                rng,
                pick(rng, ("knob", "bow", "bracket")),
                0.5 * rim[:, 0].max(),
                (0, 0, crown),
                "z",
                "x",
            ),
        )
    pivot = np.array([0, deep * over, level])
    a.add(
        "body",
        box(
            (rng.uniform(0.3, 1.0) * rim[:, 0].max(), 0.02, 0.03),
            pivot - np.array([0, 0.005, 0.018]),
        ),
    )
    return a.hinge("body", "lid", pivot, "-x", 0.0, stop)


def _pedal(
    a: Assembly, rng: np.random.Generator, deep: float, foot: float, joint: str, stop: float
) -> None:
    """A pedal at the front that goes down as the lid goes up."""
    width, long, thick = (
        rng.uniform(0.05, 0.12),
        rng.uniform(0.03, 0.07) + 0.1 * deep,
        rng.uniform(0.004, 0.01),
    )
    level = 0.5 * foot + 0.004
    pivot = np.array([0, -deep * 0.9, level])
    reach = 0.1 * deep + long
    a.add("pedal", box((width, long, thick), pivot - np.array([0, reach - long / 2, 0]), rng))
    a.add("pedal", box((0.5 * width, reach, 0.7 * thick), pivot - np.array([0, reach / 2, 0])))
    press = min(0.3, 0.8 * (level - thick / 2) / reach)
    a.follow(a.hinge("body", "pedal", pivot, "x", 0.0, press), joint, press / stop)


# Kettles


def kettle(rng: np.random.Generator) -> ArticulatedObject:
    """A kettle: under a bail with a lid that lifts off, or with a handle behind and a hinged
    lid, on a base or not."""
    a = Assembly("kettle", rng, "body")
    radius, mouth = rng.uniform(0.06, 0.1), rng.uniform(0.45, 0.75)
    with_bail = chance(rng, 0.5)
    height = radius * (rng.uniform(1.0, 1.6) if with_bail else rng.uniform(1.8, 2.8))
    mouth = radius * (mouth if with_bail else rng.uniform(0.7, 0.95))
    belly = radius * rng.uniform(1.0, 1.12)
    s = np.linspace(0, 1, int(pick(rng, (4, 6, 9))))
    curve = np.array([radius * rng.uniform(0.75, 1.0), belly, belly, mouth])
    weights = np.stack([(1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s**2 * (1 - s), s**3], axis=1)
    profile = np.column_stack([weights @ curve, height * s])
    sections = int(pick(rng, (10, 16, 24)))
    a.add("body", cup(profile, 0.003, sections))
    if not with_bail and chance(rng, 0.6):
        a.add("body", cylinder(1.05 * curve[0], 0.02, "z", (0, 0, -0.0101), 24))
    _spout(a, rng, profile)
    top = height + rng.uniform(0.004, 0.012)
    dome = mouth * rng.uniform(0.0, 0.3)
    a.add(
        "lid",
        lathe(
            [
                (0, height),
                (1.03 * mouth, height),
                (1.03 * mouth, top),
                (0.6 * mouth, top + 0.7 * dome),
                (0, top + dome),
            ],
            sections,
        ),
    )
    a.add(
        "lid",
        handle(
            rng, pick(rng, ("knob", "knob", "bow")), 0.6 * mouth, (0, 0, top + 0.9 * dome), "z", "x"
        ),
    )
    if with_bail:
        a.slide("body", "lid", "z", 0.0, rng.uniform(0.04, 0.12))
        level = height * rng.uniform(0.75, 0.95)
        out = float(np.interp(level, profile[:, 1], profile[:, 0])) + 0.004
        for x in (-out, out):
            a.add("body", cylinder(0.009, 0.016, "x", (x, 0, level), 12))
        rise = max(top + dome - level + 0.05, np.hypot(mouth, height - level) + 0.03) * rng.uniform(
            1.0, 1.3
        )
        a.add("handle", *_bail(rng, out, rng.uniform(0.003, 0.006), level, rise))
        lies = rng.uniform(0.9, 1.4)
        a.hinge(
            "body",
            "handle",
            (0, 0, level),
            "x",
            *pick(rng, ((-lies, lies), (0.0, lies), (-lies, 0.0))),
        )
        return a.build()
    grip = handle(
        rng,
        "bracket",
        0.8 * height,
        (0, 0.9 * mouth, 0.5 * height),
        "y",
        "z",
        reach=rng.uniform(0.05, 0.07),
    )
    a.add("body", grip)
    a.hinge("body", "lid", (0, mouth, height + 0.002), "-x", 0.0, rng.uniform(1.2, 1.9))
    return a.build()


def _spout(a: Assembly, rng: np.random.Generator, profile: FloatArray) -> None:
    """A spout at the front: a bent tube from the belly, or a beak at the rim."""
    height = profile[-1, 1]
    low = height * rng.uniform(0.35, 0.65)
    r = float(np.interp(low, profile[:, 1], profile[:, 0]))
    if chance(rng, 0.6):
        thick, out = rng.uniform(0.01, 0.018), rng.uniform(0.04, 0.09)
        end = np.array([0, -r - out, height * rng.uniform(0.9, 1.1)])
        path = rounded_path(
            [
                (0, -r + 0.015, low),
                (0, -r - 0.4 * out, low + 0.1 * height),
                end,
                end - np.array([0, 0.01, 0]),
            ],
            0.03,
        )
        a.add(
            "body",
            tube(path, np.linspace(thick * rng.uniform(1.0, 1.7), 0.6 * thick, len(path)), 10),
        )
    else:
        mouth, long = profile[-1, 0], rng.uniform(0.02, 0.04)
        beak = [(-0.4 * mouth, -0.85 * mouth), (0, -mouth - long), (0.4 * mouth, -0.85 * mouth)]
        tall = height * rng.uniform(0.1, 0.3)
        a.add("body", extrude(beak, tall, "z", (0, 0, height - tall / 2)))


# Suitcases
