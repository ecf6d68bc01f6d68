"""Washing machines: front loaders and top loaders. The front faces -y."""

from __future__ import annotations

import numpy as np

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.appliance_parts import dial, keys
from generators.data.objects.parts import chance, feet, handle, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cup,
    cylinder,
    frame_box,
    lathe,
    pipe,
    ring,
    rounded_box,
    shell_box,
    slab,
)


def washing_machine(rng: np.random.Generator) -> ArticulatedObject:
    """Washing machine: a front loader with a round door, or a top loader with a lid hinged at the
    rear."""
    a = Assembly("washing_machine", rng)
    w = rng.uniform(0.45, 0.7)
    d = rng.uniform(0.42, 0.68)
    h = rng.uniform(0.7, 1.0)
    if chance(rng, 0.6):
        a.add("base", *feet(rng, w, d, rng.uniform(0.01, 0.04)))
    loader = _front_loader if chance(rng, 0.65) else _top_loader
    loader(a, rng, w, d, h)
    return a.build()


def _front_loader(a: Assembly, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    """Front loader: drum, round glass door, knob, and on some keys and a detergent drawer."""
    wall = 0.02
    strip = h * rng.uniform(0.12, 0.2)
    r = 0.5 * min(w, h - strip) * rng.uniform(0.55, 0.8)
    z = (h - strip) * rng.uniform(0.48, 0.54)
    sections = 32
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    # front plate around a round hole: corresponding points of circle and rectangle lie on the same
    # rays; a piece pointed along y has the axes (z, x)
    hole = circle(1.0, sections)
    half = np.array([min(z, h - strip - z), w / 2])
    square = hole * np.min(half / np.maximum(np.abs(hole), 1e-9), axis=1, keepdims=True)
    a.add("base", ring(square, hole * 0.9 * r, wall, "y", (0, -d / 2 + wall / 2, z)))
    # rest of the front, below and above the plate
    for low, high in ((0.0, z - half[0]), (z + half[0], h)):
        if high - low > 1e-6:
            a.add("base", box((w, wall, high - low), (0, -d / 2 + wall / 2, (low + high) / 2)))
    # drum
    a.add(
        "base", cup([(0.75 * r, 0.0), (0.85 * r, 0.7 * d)], 0.01, sections, "-y", (0, 0.3 * d, z))
    )
    # control panel, raised on some
    panel = rng.uniform(0.0, 0.03)
    if panel > 0.01:
        a.add("base", box((w, panel, strip), (0, -d / 2 - panel / 2, h - strip / 2)))
    else:
        panel = 0.0

    # door: a rim and a glass bowl that bulges into the drum
    side = pick(rng, (-1, 1), (3, 1))
    thick = rng.uniform(0.02, 0.05)
    rim = rng.uniform(0.16, 0.35) * r
    y = -d / 2 - 0.002
    a.add("door", pipe(r, r - rim, thick, "y", (0, y - thick / 2, z), sections))
    bowl = np.linspace(0, 0.42 * np.pi, 5)
    deep = 0.25 * r
    glass = 0.97 * (r - rim) + 0.05 * rim
    profile = np.stack([glass * np.cos(bowl[::-1]), deep * (1 - np.sin(bowl[::-1]))], 1)
    a.add("door", cup(profile, 0.006, sections, "-y", (0, y + deep - 0.2 * thick, z)))
    # handle opposite the hinge
    kind = pick(rng, ("bracket", "bow", "tab"))
    at = (-side * (r - 0.5 * rim), y - thick, z)
    if kind == "tab":
        a.add("door", rounded_box((0.8 * rim, 0.02, 0.5 * r), (at[0], at[1] - 0.008, z), 0.006))
    else:
        a.add("door", handle(rng, kind, 0.5 * r, at, "-y", "z", reach=0.04))
    # hinge
    a.add("base", cylinder(0.012, 0.5 * r, "z", (side * (r + 0.01), y - 0.01, z), 10))
    axis = "-z" if side < 0 else "z"
    a.hinge("base", "door", (side * (r + 0.01), y - 0.01, z), axis, 0.0, rng.uniform(1.6, 2.7))

    # controls
    y, middle = -d / 2 - panel, h - strip / 2
    knob_x = rng.uniform(-0.05, 0.3) * w
    dial(a, rng, "knob", 0.3 * strip, (knob_x, y, middle))
    if chance(rng, 0.6):
        keys(a, rng, (0.12 * w, 0.5 * strip), (min(knob_x + 0.25 * w, 0.42 * w), y, middle))
    # detergent drawer at the left
    if chance(rng, 0.6):
        size = (0.26 * w, d * 0.4, 0.7 * strip)
        at = (-0.34 * w, y + 0.5 * size[1] - 0.004, middle)
        a.add("soap_drawer", shell_box((0.9 * size[0], size[1], 0.7 * size[2]), 0.004, at))
        a.add("soap_drawer", box((size[0], 0.012, size[2]), (at[0], y - 0.006, middle), rng))
        a.slide("base", "soap_drawer", "-y", 0.0, size[1] * rng.uniform(0.5, 0.9))


def _top_loader(a: Assembly, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    """Top loader: tub, lid hinged at the rear, and a console or keys behind it."""
    wall = 0.03
    console = rng.uniform(0.1, 0.22) if chance(rng, 0.75) else 0.0  # height above the top
    deck = 0.16 * d
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="+z"))
    # tub and agitator
    r = 0.42 * min(w, d - deck)
    a.add("base", cup([(0.95 * r, 0.0), (r, 0.6 * h)], 0.008, 28, "z", (0, -deck / 2, 0.3 * h)))
    if chance(rng, 0.7):
        foot = [(0, 0), (0.5 * r, 0), (0.2 * r, 0.12 * h)]
        profile = [*foot, (0.15 * r, 0.45 * h), (0, 0.5 * h)]
        a.add("base", lathe(profile, 14, "z", (0, -deck / 2, 0.31 * h)))
    # console behind the lid
    a.add("base", box((w, deck, 0.06 + console), (0, d / 2 - deck / 2, h + (console - 0.06) / 2)))
    # lid, a board or a frame with a pane, in a frame where it is narrower than the top
    hinge_y = d / 2 - deck - 0.004
    t = rng.uniform(0.015, 0.05)
    edge = rng.uniform(0.0, 0.08) * w
    size = np.array([w - 2 * edge, hinge_y + d / 2 - edge, t])
    middle = (0, hinge_y - size[1] / 2, h + t / 2 + 0.002)
    if edge > 0.02:
        a.add(
            "base",
            frame_box(
                (w, hinge_y + d / 2, 0.012),
                edge * 1.1,
                (0, (hinge_y - d / 2) / 2, h - 0.006),
                along="z",
            ),
        )
    if chance(rng, 0.5):
        rim = rng.uniform(0.1, 0.2) * size[1]
        a.add("lid", frame_box(size, rim, middle, along="z"))
        a.add("lid", box((size[0] - 1.9 * rim, size[1] - 1.9 * rim, 0.3 * t), middle))
    else:
        a.add("lid", box(size, middle, rng))
    if chance(rng, 0.6):
        front = hinge_y - size[1]
        a.add("lid", slab((0.3 * w, 0.05, 0.4 * t), (0, front - 0.01, h + 0.7 * t), 0.015, "z"))
    # joint of the lid
    a.hinge("base", "lid", (0, hinge_y, h + t / 2), "-x", 0.0, rng.uniform(1.2, 1.9))
    # knobs and keys
    if console > 0:
        y, z = d / 2 - deck, h + 0.55 * console
        for i in range(int(rng.integers(1, 4))):
            dial(a, rng, f"knob_{i}", 0.25 * console, (w * (0.35 - 0.22 * i), y, z))
        if chance(rng, 0.6):
            keys(a, rng, (0.2 * w, 0.4 * console), (-0.33 * w, y, z))
    else:
        keys(a, rng, (0.5 * w, 0.4 * deck), (0, d / 2 - deck / 2, h), up=True)
