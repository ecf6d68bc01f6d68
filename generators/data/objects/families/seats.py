"""Folding chairs, swivel chairs and toilets. The front is at -y, the center of the seat near the z
axis."""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.geometry import exp_so3
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
    mirrored,
    moved,
    rectangle,
    ring,
    rounded_box,
    slab,
    sphere,
)
from generators.data.objects.sweeps import rounded_path, sweep, tube

Piece = trimesh.Trimesh
UP = np.array([0.0, 0.0, 1.0])


# Folding chairs


def folding_chair(rng: np.random.Generator) -> ArticulatedObject:
    """Folding chair: front legs that continue into the back, rear legs hinged to them, and a seat
    that folds with the rear legs.

    It stands unfolded at 0. The seat folds up against the back or down between the legs; its angle
    is a constant multiple of the angle of the rear legs.
    """
    a = Assembly("folding_chair", rng, "frame")
    width = rng.uniform(0.38, 0.5)
    height = rng.uniform(0.74, 0.95)
    lean = rng.uniform(0.15, 0.35)
    spread = rng.uniform(0.2, 0.5)
    level = rng.uniform(0.41, 0.48)
    bar = rng.uniform(0.009, 0.016)
    if chance(rng, 0.6):
        section = circle(bar, 10)
    else:
        section = rectangle(2 * bar, rng.uniform(2.0, 4.0) * bar)
    # directions of the front legs (up) and of the rear legs (down), and points on both
    up = np.array([0, np.sin(lean), np.cos(lean)])
    down = np.array([0, np.sin(spread), -np.cos(spread)])
    seat_pivot = np.array([0, 0, level])
    foot = seat_pivot - up * level / up[2]
    top = seat_pivot + up * (height - level) / up[2]
    pivot = seat_pivot + up * rng.uniform(-0.08, 0.06)
    rear = pivot + down * pivot[2] / -down[2]
    # legs, with two separate tops or one bent tube
    inner = width / 2 - 2.4 * bar
    round_top = chance(rng, 0.5)
    for s in (-1, 1):
        side = np.array([s * width / 2, 0, 0])
        inside = np.array([s * inner, 0, 0])
        if not round_top:
            a.add("frame", sweep([side + foot, side + top], section, up="y"))
        a.add("rear", sweep([inside + pivot, inside + rear], section, up="y"))
        a.add("rear", cylinder(0.7 * bar, 6 * bar, "x", side + pivot - (s * bar, 0, 0), 8))
    if round_top:
        half = np.array([width / 2, 0, 0])
        path = rounded_path([foot - half, top - half, top + half, foot + half], 0.12)
        a.add("frame", tube(path, bar, 10))
    # crossbars of front and rear legs
    for t in rng.uniform(0.1, 0.5, int(rng.integers(1, 3))):
        a.add("frame", cylinder(0.8 * bar, width, "x", foot + t * (seat_pivot - foot), 8))
    at = rear + rng.uniform(0.1, 0.4) * (pivot - rear)
    a.add("rear", cylinder(0.8 * bar, 2 * inner, "x", at, 8))
    # back and seat
    tall = rng.uniform(0.25, 0.9) * float(np.linalg.norm(top - seat_pivot) - 0.08)
    back = _panel(rng, (width, 0.02, tall))
    middle = top - up * (tall / 2 + 0.02)
    a.add("frame", *(moved(p, middle, exp_so3([-lean, 0, 0])) for p in back))
    deep = rng.uniform(0.34, 0.42)
    flips_up = chance(rng, 0.6)
    behind = rng.uniform(0.0, 0.06)
    center = seat_pivot + np.array([0, behind - deep / 2, bar])
    for p in _panel(rng, (2 * inner - 3 * bar, 0.022, deep)):
        a.add("seat", moved(p, center, exp_so3([-np.pi / 2, 0, 0])))
    a.add("seat", cylinder(0.6 * bar, width, "x", seat_pivot, 8))
    # joints; the seat follows the rear legs
    fold = lean + spread
    rear_joint = a.hinge("frame", "rear", pivot, "-x", 0.0, fold)
    angle = np.pi / 2 + lean if flips_up else np.pi / 2 - lean
    seat_joint = a.hinge("frame", "seat", seat_pivot, "-x" if flips_up else "x", 0.0, angle)
    a.follow(seat_joint, rear_joint, angle / fold)
    return a.build()


def _panel(rng: np.random.Generator, extents: tuple[float, float, float]) -> list[Piece]:
    """Seat or back of extents (x, thin y, z) about the origin: a board, a cushion, or slats."""
    w, t, h = extents
    form = rng.integers(3)
    if form == 0:
        board = (w, rng.uniform(0.3, 1.0) * t, h)
        return [slab(board, (0, 0, 0), rng.uniform(0.02, 0.3) * min(w, h), "y")]
    if form == 1:
        return [rounded_box((w, t * rng.uniform(1.0, 2.0), h), (0, 0, 0), 0.45 * t, 2)]
    # slats on two uprights
    count = max(2, int(h / rng.uniform(0.05, 0.12)))
    slat = (w, 0.5 * t, h / count * rng.uniform(0.5, 0.85))
    across = [box(slat, (0, 0, ((i + 0.5) / count - 0.5) * h)) for i in range(count)]
    return [*across, *(box((0.04, 0.5 * t, h), (s * 0.4 * w, 0.4 * t, 0)) for s in (-1, 1))]


# Swivel chairs


def swivel_chair(rng: np.random.Generator) -> ArticulatedObject:
    """Swivel chair: a base, a column and a seat that makes full turns; on some the seat rises or
    the back tilts."""
    a = Assembly("swivel_chair", rng)
    level = rng.uniform(0.36, 0.6)
    size = rng.uniform(0.34, 0.52)
    _swivel_base(a, rng, level)
    # column, fixed or with a lift
    column = rng.uniform(0.018, 0.03)
    rises = chance(rng, 0.4)
    if rises:
        a.add("lift", cylinder(0.7 * column, 0.75 * level, "z", (0, 0, 0.575 * level), 14))
        a.slide("base", "lift", "z", 0.0, rng.uniform(0.2, 0.33) * level)
    else:
        a.add("base", cylinder(0.7 * column, 0.5 * level, "z", (0, 0, 0.7 * level), 14))
    a.hinge("lift" if rises else "base", "seat", (0, 0, 0.92 * level), "z", -np.pi, np.pi)
    # seat: round, cushion or board
    thick = rng.uniform(0.03, 0.09)
    if chance(rng, 0.4):
        edge = rng.uniform(0.1, 0.45) * thick
        rim, inset = size / 2, size / 2 - edge
        profile = [(0, 0), (inset, 0), (rim, edge), (rim, thick - edge), (inset, thick), (0, thick)]
        seat = lathe(profile, int(pick(rng, (12, 20, 28))), "z", (0, 0, level))
    elif chance(rng, 0.5):
        cushion = (size, size * rng.uniform(0.85, 1.05), thick)
        seat = rounded_box(cushion, (0, 0, level + thick / 2), 0.4 * thick, 2)
    else:
        board = (size, 0.95 * size, thick)
        corner = rng.uniform(0.1, 0.4) * size
        seat = slab(board, (0, 0, level + thick / 2), corner, bevel=0.2 * thick)
    a.add("seat", seat, cylinder(2.2 * column, 0.1 * level, "z", (0, 0, 0.95 * level), 14))
    # back and armrests
    if chance(rng, 0.75):
        _swivel_back(a, rng, level, size, thick)
        if chance(rng, 0.5):
            _armrests(a, rng, level, size, thick)
    return a.build()


def _swivel_base(a: Assembly, rng: np.random.Generator, level: float) -> None:
    """Column on a disc, or on 3 to 6 legs that end in casters or glides."""
    column = rng.uniform(0.02, 0.035)
    radius = rng.uniform(0.2, 0.34)
    a.add("base", cylinder(column, 0.5 * level, "z", (0, 0, 0.35 * level), 16))
    if chance(rng, 0.25):
        flat = rng.uniform(0.015, 0.04)
        rim = [(0, 0), (radius, 0), (radius, 0.4 * flat)]
        a.add("base", lathe([*rim, (1.5 * column, flat), (0, 0.14 * level)], 28))
        return
    # legs
    count = int(pick(rng, (3, 4, 5, 6), (1, 2, 6, 1)))
    wheel = rng.uniform(0.02, 0.032)
    casters = chance(rng, 0.7)
    high = rng.uniform(0.12, 0.25) * level
    foot = 2 * wheel if casters else 0.5 * wheel
    taper = rng.uniform(0.5, 1.0)
    for k in range(count):
        R = exp_so3([0, 0, 2 * np.pi * k / count])
        out = R[:, 0]
        path = [
            out * 0.5 * column + [0, 0, max(high, foot + 0.02)],
            out * radius + [0, 0, foot + 0.012],
        ]
        a.add("base", sweep(path, rectangle(0.04, 0.028), scale=[1.0, taper]))
        at = out * radius
        # two wheels and a stem, or a glide
        if casters:
            hub = at + wheel * UP
            axle = R @ (0.6, 0.8, 0)
            for s in (-1, 1):
                a.add("base", cylinder(wheel, 0.012, axle, hub + s * 0.011 * axle, 14))
            a.add("base", cylinder(0.006, wheel + 0.012, "z", at + 1.5 * wheel * UP, 8))
        else:
            a.add("base", cylinder(0.6 * wheel, foot + 0.01, "z", at + foot / 2 * UP, 10))


def _swivel_back(
    a: Assembly, rng: np.random.Generator, level: float, size: float, thick: float
) -> None:
    """Back on one or two bent bars; on most chairs it tilts about an axis below it."""
    tall = rng.uniform(0.2, 0.6)
    lean = rng.uniform(-0.2, 0.0)
    tilts = chance(rng, 0.7)
    link = "back" if tilts else "seat"
    y = 0.48 * size
    gap = rng.uniform(0.02, 0.2)
    foot = level + thick + gap
    behind = y + 0.03
    # back, a cushion or a board
    cushion = (size * rng.uniform(0.7, 1.0), rng.uniform(0.025, 0.07), tall)
    panel = rounded_box(cushion, (0, 0, tall / 2), 0.012, 2)
    if chance(rng, 0.4):
        board = (size * rng.uniform(0.7, 1.0), 0.03, tall)
        panel = slab(board, (0, 0, tall / 2), rng.uniform(0.1, 0.4) * tall, "y")
    a.add(link, moved(panel, (0, y, foot), exp_so3([lean, 0, 0])))
    # bars from under the seat to the middle of the back
    wide = rng.uniform(0.03, 0.07)
    for x in (0.0,) if chance(rng, 0.6) else (-0.3 * size, 0.3 * size):
        end = (x, behind + 0.5 * tall * np.sin(-lean), foot + 0.5 * tall)
        path = rounded_path([(x, 0.2 * size, level - 0.012), (x, behind, level - 0.012), end], 0.05)
        a.add(link, sweep(path, rectangle(wide, 0.016)))
    if tilts:
        a.hinge("seat", "back", (0, 0.2 * size, level - 0.012), "-x", -0.05, rng.uniform(0.25, 0.6))


def _armrests(
    a: Assembly, rng: np.random.Generator, level: float, size: float, thick: float
) -> None:
    """Pad on a bent bar at each side of the seat."""
    high = rng.uniform(0.16, 0.24)
    long = rng.uniform(0.45, 0.65) * size
    x = size / 2 + 0.02
    pad = rounded_box((rng.uniform(0.04, 0.08), long, 0.03), (x, 0, level + thick + high), 0.012)
    start = (0.4 * size, rng.uniform(-0.1, 0.1) * size, level)
    path = rounded_path([start, (x, start[1], level), (x, 0, level + thick + high)], 0.03)
    bar = sweep(path, rectangle(0.035, 0.018), up="y")
    a.add("seat", pad, mirrored(pad, "x"), bar, mirrored(bar, "x"))


# Toilets


def toilet(rng: np.random.Generator) -> ArticulatedObject:
    """Toilet: a bowl, a seat and a lid hinged at the rear, and a tank with a lever or a button;
    some hang on a wall, without a tank."""
    a = Assembly("toilet", rng)
    half = rng.uniform(0.17, 0.2)
    long = rng.uniform(1.05, 1.35)
    level = rng.uniform(0.36, 0.44)
    rim = rng.uniform(0.02, 0.04)
    foot = rng.uniform(0.5, 0.8)
    waist = rng.uniform(0.45, 0.65)
    hangs = chance(rng, 0.15)
    # bowl: outline (n, 2) of (radius, height), outside up and inside down
    shape = np.diag([1.0, long, 1.0])
    lower = [(foot * half, 0.0), (waist * half, 0.35 * level)]
    upper = [(0.8 * half, 0.65 * level), (half, 0.93 * level), (half, level)]
    profile = lower + upper
    start = 1 if hangs else 0
    bottom = [(0.35 * half, 0.45 * level), (0, 0.42 * level)]
    hollow = [(r - rim, z) for r, z in reversed(upper)] + bottom
    outline = [(0, profile[start][1]), *profile[start:], *hollow]
    a.add("base", moved(lathe(outline, int(pick(rng, (16, 24, 32)))), (0, 0, 0), shape))
    # mount of the seat, seat and lid
    back = long * half
    a.add("base", box((1.5 * half, 0.09, 0.35 * level), (0, back - 0.01, 0.82 * level), rng))
    pivot = np.array([0, back - 0.02, level + 0.012])
    flat = rng.uniform(0.012, 0.025)
    _toilet_seat(a, rng, half, long, level, flat, pivot)
    # wall plate or tank
    if hangs:
        a.add("base", slab((2.4 * half, 0.02, 0.7), (0, back + 0.045, level), 0.0, "y"))
    else:
        _tank(a, rng, half, back + 0.02, level)
    return a.build()


def _toilet_seat(
    a: Assembly,
    rng: np.random.Generator,
    half: float,
    long: float,
    level: float,
    flat: float,
    pivot: FloatArray,
) -> None:
    """Seat, a ring or a horseshoe, and the lid above it; both turn up about the same axis."""
    # seat
    oval = circle(half + 0.006, 28) * [1.0, long]
    hole = oval * rng.uniform(0.6, 0.72)
    if chance(rng, 0.7):
        seat = ring(oval, hole, flat, "z", (0, 0, level + 0.002 + flat / 2))
    else:  # horseshoe, open at the front
        t = np.linspace(-np.pi / 2 + 0.35, 1.5 * np.pi - 0.35, 24)
        middle = 0.5 * (1 + hole[0, 0] / oval[0, 0]) * (half + 0.006)
        height = np.full(24, level + 0.002 + flat / 2)
        path = np.column_stack([middle * np.cos(t), long * middle * np.sin(t), height])
        seat = sweep(path, rectangle((oval - hole)[0, 0], flat, 0.3 * flat))
    # lid, flat or domed
    z = level + flat + 0.004
    thin = rng.uniform(0.008, 0.02)
    if chance(rng, 0.5):
        lid = extrude(oval, thin, "z", (0, 0, z + thin / 2))
    else:
        dome = lathe([(0, 0), (half + 0.006, 0), (half, thin), (0, 1.8 * thin)], 28)
        lid = moved(dome, (0, 0, z), np.diag([1.0, long, 1.0]))
    # both parts with two hinge tabs
    for link, part, lift in (("seat", seat, 0.0), ("lid", lid, flat + 0.003)):
        a.add(link, part)
        x = 0.35 * half if link == "seat" else 0.55 * half
        for s in (-1, 1):
            at = (s * x, pivot[1] - 0.02, pivot[2] + lift - 0.003)
            a.add(link, box((0.16 * half, 0.07, 0.01), at, bevel=0.2))
    a.add("base", cylinder(0.007, 1.4 * half, "x", pivot, 10))
    a.hinge("base", "seat", pivot, "-x", 0.0, rng.uniform(1.6, 1.75))
    a.hinge("base", "lid", pivot, "-x", 0.0, rng.uniform(1.75, 1.95))


def _tank(a: Assembly, rng: np.random.Generator, half: float, back: float, level: float) -> None:
    """Tank behind the seat, with a lever on its front, a button on its top or neither."""
    w = rng.uniform(0.34, 0.48)
    d = rng.uniform(0.14, 0.2)
    h = rng.uniform(0.28, 0.4)
    z = level * rng.uniform(0.9, 1.0)
    y = back + 0.06 + d / 2
    a.add(
        "base",
        box((w, d, h), (0, y, z + h / 2), rng),
        box((w + 0.02, d + 0.015, 0.025), (0, y, z + h + 0.0125), rng),
    )
    a.add("base", box((1.2 * half, d + 0.1, 0.1), (0, back + d / 2, z - 0.05)))
    # flush control
    form = pick(rng, ("lever", "button", "none"))
    if form == "lever":
        at = np.array([pick(rng, (-0.35, 0.35)) * w, y - d / 2, z + 0.85 * h])
        inward = -np.sign(at[0])
        end = at + np.array([inward * 0.08, -0.02, -0.005])
        stem = cylinder(0.012, 0.02, "y", at - (0, 0.008, 0), 12)
        arm = tube([at - (0, 0.015, 0), end], [0.007, 0.009], 8)
        a.add("flush", stem, arm, sphere(0.009, end, 8))
        a.hinge("base", "flush", at, "y" if inward > 0 else "-y", 0.0, rng.uniform(0.4, 0.8))
    elif form == "button":
        a.add("flush", cylinder(rng.uniform(0.018, 0.03), 0.016, "z", (0, y, z + h + 0.025), 18))
        a.slide("base", "flush", "-z", 0.0, 0.008)
