"""Pendulum chains, Newton's cradles, swings and seesaws."""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import chance, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cylinder,
    extrude,
    lathe,
    merge,
    mirrored,
    moved,
    pipe,
    rectangle,
    slab,
    sphere,
)
from generators.data.objects.sweeps import rounded_path, sweep, tube

Piece = trimesh.Trimesh


def pendulum_chain(rng: np.random.Generator) -> ArticulatedObject:
    """Chain of two to five pendulums on a support; they swing in one plane or, on some, in two
    perpendicular planes by turns."""
    a = Assembly("pendulum_chain", rng)
    count = int(rng.integers(2, 6))
    lengths = rng.uniform(0.06, 0.25) * rng.uniform(0.6, 1.3, count)
    thick = lengths.min() * rng.uniform(0.04, 0.09)
    crossed = chance(rng, 0.25)
    swing = rng.uniform(1.0, np.pi, count)
    board = not crossed and chance(rng, 0.4)
    if not board:
        swing[0] = min(swing[0], 1.4)
    # support and rods
    _support(a, rng, float(lengths.sum()) * rng.uniform(1.1, 1.3), thick, board)
    style = pick(rng, ("rod", "bar", "ball"))
    at = np.zeros(3)
    parent = "base"
    for k, length in enumerate(lengths):
        link = f"link_{k}"
        axis = "x" if crossed and k % 2 else "y"
        # Rods that swing in the same plane are offset along y to pass one another.
        if not crossed:
            at = at * [1, 0, 1] - np.array([0, 2.2 * thick * (k % 2 + (1 if board else 0)), 0])
        end = at - np.array([0, 0, length])
        a.add(link, *_pendulum_rod(rng, style, at, end, thick, axis, last=k == count - 1))
        a.hinge(parent, link, at, axis, -swing[k], swing[k])
        at, parent = end, link
    return a.build()


def _support(
    a: Assembly, rng: np.random.Generator, height: float, thick: float, board: bool
) -> None:
    """Support of a chain, a board, an arch or a post with an arm: the pin is at the origin, the
    ground `height` (m) below."""
    wide = height * rng.uniform(0.3, 0.6)
    bar = thick * rng.uniform(1.2, 2.2)
    if board:
        # foot, upright board and pin
        a.add("base", box((wide, max(0.6 * wide, 8 * bar), 2 * bar), (0, 0, -height - bar), rng))
        back = np.array([0, 2.0 * thick + bar, 0])
        upright = (wide * rng.uniform(0.15, 0.9), 2 * bar, height * 1.1)
        a.add("base", box(upright, back - [0, 0, 0.45 * height]))
        a.add("base", cylinder(0.8 * thick, 3.0 * thick + bar, "y", back / 2, 12))
        return
    # pin on a bracket
    a.add(
        "base",
        cylinder(0.7 * thick, 6 * thick, "y", sections=10),
        box((3 * thick, thick, 4 * bar), (0, 3.2 * thick, bar)),
    )
    a.add("base", box((3 * thick, 8 * thick, 2 * bar), (0, 0, 3 * bar)))
    # arch, or a post with an arm, on a foot
    post = 0.5 * wide + 2 * bar
    left = [(-post, 0, -height), (-post, 0, 3 * bar)]
    path = rounded_path([*left, (post, 0, 3 * bar), (post, 0, -height)], 3 * bar)
    if chance(rng, 0.5):
        path = rounded_path([*left, (0.3 * wide, 0, 3 * bar)], 3 * bar)
    section = circle(bar, 10) if chance(rng, 0.5) else rectangle(2 * bar, 2 * bar)
    a.add("base", sweep(path, section, up="y"))
    foot = (2.4 * post, rng.uniform(0.3, 0.8) * wide, 2 * bar)
    a.add("base", box(foot, (0, 0, -height - bar), rng))


def _pendulum_rod(
    rng: np.random.Generator,
    style: str,
    top: FloatArray,
    end: FloatArray,
    thick: float,
    axis: str,
    *,
    last: bool,
) -> list[Piece]:
    """Rod or flat bar from `top` to `end` (3,) with an eye about its axis; the last one mostly has
    a bob."""
    sections = int(pick(rng, (6, 8, 12)))
    pieces = [cylinder(1.7 * thick, 1.9 * thick, axis, top, 12)]
    if style == "bar":
        width = 2.6 * thick
        across = rectangle(width, 1.6 * thick) if axis == "y" else rectangle(1.6 * thick, width)
        pieces.append(sweep([top, end], across, up="y"))
    else:
        pieces.append(tube([top, end], thick * 0.8, sections))
    # lower end: a bob, a ball or an eye
    if last and chance(rng, 0.7):
        bob = thick * rng.uniform(2.5, 5.0)
        if chance(rng, 0.6):
            pieces.append(sphere(bob, end, 14))
        else:
            pieces.append(cylinder(1.2 * bob, bob, "y", end, 20))
    elif style == "ball" or last:
        pieces.append(sphere(rng.uniform(1.8, 3.0) * thick, end, 12))
    else:
        pieces.append(cylinder(1.2 * thick, 2.2 * thick, axis, end, 12))
    return pieces


def newtons_cradle(rng: np.random.Generator) -> ArticulatedObject:
    """Newton's cradle: three to seven balls in a row along x that touch at rest, each on two wires
    between two rails."""
    a = Assembly("newtons_cradle", rng)
    count = int(rng.integers(3, 8))
    radius = rng.uniform(0.007, 0.03)
    height = radius * rng.uniform(6, 11)  # of the rails above the balls
    apart = radius * rng.uniform(2.0, 5.0)  # half the distance of the rails
    long = radius * (2 * count + rng.uniform(4, 9))
    bar = radius * rng.uniform(0.12, 0.3)
    floor = -height - radius * rng.uniform(1.8, 3.0)
    # rails with posts, on a plate or on bars
    square = chance(rng, 0.3)
    for s in (-1, 1):
        y = s * apart
        corners = [(-long / 2, y, floor), (-long / 2, y, 0), (long / 2, y, 0), (long / 2, y, floor)]
        path = rounded_path(corners, radius * rng.uniform(0.1, 2.5))
        section = rectangle(2 * bar, 2 * bar) if square else circle(bar, 8)
        a.add("base", sweep(path, section, up="y"))
    if chance(rng, 0.6):
        deep = radius * rng.uniform(0.4, 1.2)
        plate = (long * rng.uniform(1.02, 1.2), 2 * apart + 6 * bar, deep)
        a.add("base", box(plate, (0, 0, floor - deep / 2), rng))
    else:
        for x in (-long / 2, long / 2):
            a.add("base", cylinder(bar, 2 * apart, "y", (x, 0, floor), 8))
        a.add("base", *(cylinder(bar, long, "x", (0, s * apart, floor), 8) for s in (-1, 1)))
    # one ball with its eye and wires, copied along x
    swing = rng.uniform(0.5, 1.1)
    wire = radius * rng.uniform(0.03, 0.08)
    sections = int(pick(rng, (10, 14, 18)))
    eye = radius * rng.uniform(0.15, 0.3)
    hook = (0, 0, -height + 1.1 * radius)
    wires = [tube([(0, s * apart, 0), hook], wire, 5) for s in (-1, 1)]
    ball = merge(
        sphere(radius, (0, 0, -height), sections), cylinder(eye, 0.5 * radius, "z", hook, 8), *wires
    )
    for k in range(count):
        at = np.array([2.002 * radius * (k - (count - 1) / 2), 0, 0])
        link = f"ball_{k}"
        a.add(link, moved(ball, at))
        a.hinge("base", link, at, "y", -swing, swing)
    return a.build()


# Playgrounds


def swing(rng: np.random.Generator) -> ArticulatedObject:
    """Swing: a frame with one to three seats on ropes, each swinging about the beam."""
    a = Assembly("swing", rng, "frame")
    count = pick(rng, (1, 2, 3), (4, 3, 1))
    height = rng.uniform(1.6, 2.4)
    pitch = rng.uniform(0.75, 1.0)
    long = pitch * count + rng.uniform(0.3, 0.8)
    bar = rng.uniform(0.025, 0.06)
    spread = rng.uniform(0.25, 0.45)
    # beam, legs and crossbars of the frame
    section = circle(bar, 10) if chance(rng, 0.6) else rectangle(2 * bar, 2 * bar)
    a.add("frame", sweep([(-long / 2, 0, height), (long / 2, 0, height)], section))
    for s in (-1, 1):
        x = s * (long / 2 - bar)
        for t in (-1, 1):
            a.add("frame", sweep([(x, 0, height), (x * 1.05, t * spread * height, 0)], section))
        if chance(rng, 0.6):
            z = rng.uniform(0.3, 0.6)
            length = 2 * (1 - z) * spread * height
            at = (x * (1 + 0.05 * (1 - z)), 0, z * height)
            a.add("frame", cylinder(0.7 * bar, length, "y", at, 8))
    # equal seats and their rings on the beam
    width = rng.uniform(0.36, 0.6)
    rope = rng.uniform(0.005, 0.014)
    level = rng.uniform(0.35, 0.55)
    style = int(rng.integers(2**31))
    limit = rng.uniform(0.6, 1.2)
    for k in range(count):
        x = (k - (count - 1) / 2) * pitch
        link = f"seat_{k}" if count > 1 else "seat"
        a.add(link, *_swing_seat(np.random.default_rng(style), x, width, level, height - bar, rope))
        for s in (-1, 1):
            at = (x + s * width / 2, 0, height)
            a.add("frame", pipe(1.5 * bar, 1.01 * bar, 0.03, "x", at, 12))
        a.hinge("frame", link, (x, 0, height), "x", -limit, limit)
    return a.build()


def _swing_seat(
    rng: np.random.Generator, x: float, width: float, level: float, top: float, rope: float
) -> list[Piece]:
    """Seat at height `level` (m), a board, a strap, a bench or a tire, and its two ropes from
    height `top` (m)."""
    form = pick(rng, ("board", "strap", "bench", "tire"), (4, 3, 2, 1))
    hung = [(x + s * width / 2, 0.0, level) for s in (-1, 1)]
    deep = rng.uniform(0.14, 0.22)
    if form == "tire":
        profile = circle(0.13 * width, 10) + np.array([0.42 * width, 0])
        pieces = [lathe(profile, 24, "y", (x, 0, level))]
        hung = [(x + s * 0.25 * width, 0.0, level + 0.38 * width) for s in (-1, 1)]
    elif form == "strap":
        t = np.linspace(-1, 1, 9)
        sag = rng.uniform(0.02, 0.1)
        path = np.column_stack([x + t * width / 2, 0 * t, level - sag * (1 - t**2)])  # (9, 3)
        pieces = [sweep(path, rectangle(deep, 0.012))]
    else:
        pieces = [slab((width * 1.06, deep, 0.025), (x, 0, level), 0.02)]
    # back, armrests and uprights of a bench
    if form == "bench":
        tall = rng.uniform(0.2, 0.4)
        pieces.append(slab((width, 0.02, 0.6 * tall), (x, deep / 2, level + 0.7 * tall), 0.03, "y"))
        pieces += [
            box((0.025, deep, 0.02), (x + s * width / 2, 0, level + 0.5 * tall)) for s in (-1, 1)
        ]
        pieces += [
            box((0.02, 0.02, tall), (x + s * 0.48 * width, deep / 2, level + tall / 2))
            for s in (-1, 1)
        ]
    return pieces + [
        tube([(x + s * width / 2, 0, top), p], rope, 6) for s, p in zip((-1, 1), hung, strict=True)
    ]


def seesaw(rng: np.random.Generator) -> ArticulatedObject:
    """Seesaw: a plank that tips on a trestle, a wedge or a log, on most with seats and grips at
    both ends."""
    a = Assembly("seesaw", rng)
    long = rng.uniform(1.5, 3.0)
    height = rng.uniform(0.35, 0.65)
    if chance(rng, 0.3):  # toy size
        long, height = 0.15 * long, 0.15 * height
    wide = long * rng.uniform(0.06, 0.12)
    thick = long * rng.uniform(0.012, 0.03)
    # support
    form = rng.integers(3)
    half = 0.35 * height
    if form == 0:  # trestle
        for s in (-1, 1):
            for t in (-1, 1):
                foot = (t * half * rng.uniform(0.9, 1.3), s * (0.8 * wide), 0)
                a.add("base", tube([(0, s * 0.65 * wide, height), foot], 0.7 * thick, 8))
        a.add("base", cylinder(0.6 * thick, 1.6 * wide, "y", (0, 0, height), 10))
    elif form == 1:  # wedge; a piece pointed along y has the axes (z, x)
        under = height - thick / 2
        tip = 0.15 * half
        a.add(
            "base", extrude([(0, -half), (0, half), (under, tip), (under, -tip)], 1.2 * wide, "y")
        )
    else:
        log = height - thick / 2 - 0.5 * height
        a.add("base", cylinder(log, 1.2 * wide, "y", (0, 0, 0.5 * height), 20))
        a.add("base", box((height, wide, 0.5 * height), (0, 0, 0.25 * height)))
    # plank
    plank = (
        box((long, wide, thick), (0, 0, height), rng)
        if chance(rng, 0.7)
        else cylinder(0.4 * wide, long, "x", (0, 0, height), 12)
    )
    a.add("plank", plank)
    # seat, post and grip at each end
    if chance(rng, 0.8):
        x = rng.uniform(0.42, 0.47) * long
        tall = 0.1 * long
        inward = x - 0.09 * long
        above = height + max(thick, 0.4 * wide)
        low = (inward, 0, height)
        high = (inward, 0, height + tall)
        end = [
            slab((0.1 * long, 1.6 * wide, thick), (x, 0, above), 0.4 * wide),
            tube([low, high], 0.35 * thick + 0.01 * tall, 8),
            cylinder(0.4 * thick + 0.01 * tall, 1.5 * wide, "y", high, 8),
        ]
        a.add("plank", *end, *(mirrored(p, "x") for p in end))
    # Each end, with its seat, comes down to just above the ground.
    tip = float(np.arcsin(min((height - max(thick, 0.5 * wide)) / (0.53 * long), 0.6)))
    a.hinge("base", "plank", (0, 0, height), "y", -tip, tip)
    return a.build()
