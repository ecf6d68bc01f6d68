"""Small objects of a desk: staplers, eyeglasses and USB sticks with a cap."""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import chance, pick
from generators.data.objects.primitives import (
    box,
    cylinder,
    extrude,
    mirrored,
    moved,
    rectangle,
    ring,
    rounded_box,
    shell_box,
    slab,
    turned,
)
from generators.data.objects.sweeps import rounded_path, sweep, tube

Piece = trimesh.Trimesh


def stapler(rng: np.random.Generator) -> ArticulatedObject:
    """Stapler: a base and an arm hinged at the rear; on some the cover of the arm opens for
    loading. The nose is at -y."""
    a = Assembly("stapler", rng)
    length = rng.uniform(0.08, 0.22)
    width = rng.uniform(0.015, 0.04)
    foot = rng.uniform(0.004, 0.012)
    gap = rng.uniform(0.006, 0.014)
    tall = rng.uniform(0.008, 0.02)
    wide = width * rng.uniform(1.0, 1.7)
    # base plate and anvil
    if chance(rng, 0.7):
        corner = rng.uniform(0.1, 0.49) * wide
        a.add("base", slab((wide, length, foot), (0, 0, foot / 2), corner, bevel=0.2 * foot))
    else:
        a.add("base", box((wide, length, foot), (0, 0, foot / 2), rng))
    anvil = (0.5 * width, 0.12 * length, 0.003)
    a.add("base", slab(anvil, (0, -0.42 * length, foot), 0.1 * width))
    # two cheeks with the pin of the arm
    back = 0.5 * length - 0.09 * length
    pivot = np.array([0, 0.41 * length, foot + gap + 0.3 * tall])
    cheek = (0.1 * width, 0.16 * length, pivot[2] + 0.3 * tall)
    a.add("base", *(box(cheek, (s * 0.47 * width, back, cheek[2] / 2)) for s in (-1, 1)))
    a.add("base", cylinder(0.25 * tall, 1.15 * width, "x", pivot, 10))
    # arm: a channel for staples and its cover, raised by the rest angle
    rest = rng.uniform(0.0, 0.1)
    reach = pivot[1] + 0.5 * length - rng.uniform(-0.02, 0.06) * length
    loads = chance(rng, 0.6)
    size = (0.75 * width, reach, 0.6 * tall)
    middle = (0, pivot[1] - reach / 2, pivot[2])
    channel = shell_box(size, 0.1 * width, middle) if loads else box(size, middle)
    a.add("arm", turned(channel, "x", -rest, pivot))
    for p in _stapler_cover(rng, width, reach, tall):
        piece = moved(p, pivot + np.array([0, 0, 0.32 * tall]))
        a.add("cover" if loads else "arm", turned(piece, "x", -rest, pivot))
    a.hinge("base", "arm", pivot, "-x", -rest - gap / reach, rng.uniform(0.3, 1.6))
    if loads:
        a.hinge("arm", "cover", pivot, "-x", 0.0, rng.uniform(0.8, 1.8))
    return a.build()


def _stapler_cover(
    rng: np.random.Generator, width: float, reach: float, tall: float
) -> list[Piece]:
    """Cover, straight or curved, from the pivot (origin) to the nose at -y and z = 0."""
    # outline (20, 2) of the side, (y, z)
    s = np.linspace(0, 1, 10)
    bow = rng.uniform(-0.3, 1.0) * tall
    nose = rng.uniform(0.5, 1.1)
    straight = tall * np.interp(s, (0, 0.06, 0.85, 1), (0.5, 1.0, nose, 0.6 * nose))
    top = straight + bow * np.sin(np.pi * s)
    y = 0.03 * reach - 1.05 * reach * s
    lower = np.column_stack([y, 0 * s])
    upper = np.column_stack([y, np.maximum(top, 0.2 * tall)])
    side = np.concatenate([lower, upper[::-1]])
    pieces = [extrude(side, 0.92 * width, "x")]
    # thumb pad
    if chance(rng, 0.5):
        pad = (0.8 * width, 0.25 * reach, 0.3 * tall)
        at = (0, -0.72 * reach, float(np.interp(0.72, s, top)))
        pieces.append(rounded_box(pad, at, 0.1 * tall))
    return pieces


# Eyeglasses


def eyeglasses(rng: np.random.Generator) -> ArticulatedObject:
    """Eyeglasses: a front that faces -y and two temples that fold behind it; open at 0."""
    a = Assembly("eyeglasses", rng, "front")
    w, h = rng.uniform(0.02, 0.032), rng.uniform(0.013, 0.027)  # half sizes of a lens
    bridge = rng.uniform(0.012, 0.024)
    bar = rng.uniform(0.0008, 0.0035)
    outline = _lens(rng, w, h)
    rim = pick(rng, ("full", "half", "none"), (6, 1, 1))
    glass = chance(rng, 0.6) or rim != "full"
    # two lenses with a full, half or no rim
    for s in (-1, 1):
        pieces = []
        loop = np.column_stack([outline[:, 0], 0 * outline[:, 0], outline[:, 1]])
        if rim == "full":
            section = rectangle(2 * bar, 2.5 * bar, 0.5 * bar, 1)
            pieces.append(sweep(loop, section, up="y", closed=True))
        elif rim == "half":
            upper = outline[:, 1] > -0.2 * h
            first = int(np.argmax(upper & ~np.roll(upper, 1)))
            pieces.append(tube(np.roll(loop, -first, axis=0)[: upper.sum()], bar, 6))
        if glass:
            pieces.append(extrude(outline[:, ::-1], 0.0015, "y"))
        center = np.array([bridge / 2 + w, 0, 0])
        pieces = [moved(p, center) for p in pieces]
        a.add("front", *(mirrored(p, "x") if s < 0 else p for p in pieces))
    # bridge
    level = rng.uniform(0.0, 0.6) * h
    x = bridge / 2 + (0.12 if rim != "none" else 0.2) * w
    top = (0, -0.002, level + rng.uniform(0.1, 0.5) * h)
    arch = rounded_path([(-x, 0, level), top, (x, 0, level)], 0.3 * bridge)
    a.add("front", tube(arch, max(1.2 * bar, 0.001), 8))
    # temples and their lugs, one side drawn and mirrored
    edge = bridge / 2 + 2 * w
    high = rng.uniform(0.1, 0.7) * h
    reach = np.array([edge + rng.uniform(0.001, 0.006), 0.006, high])
    path = _temple(rng, reach, bar)
    thick = max(rng.uniform(0.8, 1.4) * bar, 0.001)
    round_bar = chance(rng, 0.4)
    tall = rng.uniform(1.5, 5.0)
    if round_bar:
        section = rectangle(2 * thick, 2 * thick, 0.8 * thick)
    else:
        section = rectangle(1.6 * thick, tall * thick)
    fold = rng.uniform(1.45, 1.62)
    for s, side in ((-1, "left"), (1, "right")):
        inner = np.array([edge - (0.25 if rim != "none" else 0.4) * w, 0, high])
        lug = tube(np.stack([inner, reach * (1, 0, 1), reach]), 1.1 * thick, 8)
        temple = sweep(path, section)
        a.add("front", mirrored(lug, "x") if s < 0 else lug)
        a.add(side, mirrored(temple, "x") if s < 0 else temple)
        a.hinge("front", side, reach * (s, 1, 1), (0, 0, s), -rng.uniform(0.0, 0.15), fold)
    return a.build()


def _lens(rng: np.random.Generator, w: float, h: float) -> FloatArray:
    """Outline (m, 2) of a lens of half sizes w, h (m): an oval or a rounded rectangle, narrower at
    the bottom."""
    # superellipse
    t = np.linspace(0, 2 * np.pi, int(pick(rng, (12, 16, 24))), endpoint=False)
    power = rng.uniform(0.35, 1.0)
    x, z = (np.sign(f) * np.abs(f) ** power for f in (np.cos(t), np.sin(t)))
    return np.column_stack([w * x * (1 + rng.uniform(0.0, 0.2) * (z - 1)), h * z])


def _temple(rng: np.random.Generator, hinge: FloatArray, bar: float) -> FloatArray:
    """Centerline (n, 3) of the right temple from its hinge to the rear, straight or bent down
    behind the ear."""
    # The length is proportional to the width of the front, so that folded temples fit behind it.
    long, behind = hinge[0] * rng.uniform((1.3, 0.3), (1.7, 0.5))
    drop = rng.uniform(0.0, 0.045)
    ear = hinge + np.array([0, long, 0])
    end = hinge + np.array([-0.004, long + behind, -drop])
    return rounded_path([hinge, ear, end], 0.02, 6)


# USB sticks


def usb_cap(rng: np.random.Generator) -> ArticulatedObject:
    """USB stick with its plug toward -y, and a cap that pulls off, a cap that flips open, or a
    swivel bracket."""
    a = Assembly("usb_cap", rng, "stick")
    width = rng.uniform(0.014, 0.026)
    tall = rng.uniform(0.006, 0.012)
    length = rng.uniform(0.025, 0.05)
    # plug of the standard size, or smaller on a small stick
    shrink = min(1.0, 1.3 * tall / 0.0075, width / 0.0135)
    plug = np.array([0.012, rng.uniform(0.011, 0.019), 0.0045]) * shrink
    a.add("stick", *_usb_stick(rng, width, tall, length, plug))
    form = pick(rng, ("pull", "flip", "swivel"), (3, 2, 3))
    if form == "swivel":
        _swivel_bracket(a, rng, width, tall, length, plug[1])
        return a.build()
    # cap over the plug
    deep = plug[1] + rng.uniform(0.001, 0.008)
    wall = 0.08 * tall
    end = deep - plug[1] - 0.0005
    middle = (0, -deep / 2 - 0.0002, 0)
    a.add("cap", shell_box((width, deep, tall), wall, middle, open_to="+y", floor=end))
    # grip ridges
    if chance(rng, 0.4):
        grip = 0.1 * tall
        for t in (0.3, 0.5, 0.7):
            a.add("cap", box((0.6 * width, grip, grip), (0, -deep * t, tall / 2)))
    # joint, with a hinge pin on a cap that flips
    if form == "pull":
        a.slide("stick", "cap", "-y", 0.0, deep * rng.uniform(1.1, 2.0))
    else:
        pivot = (0, 0, tall / 2) if chance(rng, 0.6) else (width / 2, 0, 0)
        on_top = pivot[0] == 0
        long, along = (0.6 * width, "x") if on_top else (0.6 * tall, "z")
        a.add("stick", cylinder(0.12 * tall, long, along, pivot, 8))
        a.hinge("stick", "cap", pivot, "-x" if on_top else "z", 0.0, rng.uniform(1.6, 3.0))
    return a.build()


def _usb_stick(
    rng: np.random.Generator, width: float, tall: float, length: float, plug: FloatArray
) -> list[Piece]:
    """Body with a plug of extents `plug` (3,) at -y, and on some an eyelet at the rear."""
    if chance(rng, 0.5):
        corner = rng.uniform(0.1, 0.45) * width
        bevel = rng.uniform(0, 0.3) * tall
        body = slab((width, length, tall), (0, length / 2, 0), corner, bevel=bevel)
    else:
        body = box((width, length, tall), (0, length / 2, 0), rng, bevel=0.45)
    # metal shell and the tongue with the contacts
    metal = shell_box(plug, 0.0004, (0, -plug[1] / 2, 0), open_to="-y")
    size = (0.85 * plug[0], 0.9 * plug[1], 0.35 * plug[2])
    tongue = box(size, (0, -0.48 * plug[1], -0.2 * plug[2]))
    pieces = [body, metal, tongue]
    if chance(rng, 0.4):
        eye = 0.35 * tall
        outer = (4 * eye, 3 * eye, eye)
        inner = (2.4 * eye, 1.4 * eye, 0.6 * eye)
        eyelet = ring(rectangle(*outer), rectangle(*inner), eye, "z", (0, length + eye, 0))
        pieces.append(eyelet)
    return pieces


def _swivel_bracket(
    a: Assembly, rng: np.random.Generator, width: float, tall: float, length: float, plug: float
) -> None:
    """Bent plate around the stick that covers the plug and turns about a pin at the rear of the
    stick."""
    thick = rng.uniform(0.0006, 0.0015)
    gap = 0.0004
    pivot = np.array([0, length - 0.5 * width, 0])
    long = pivot[1] + plug + 0.002
    corner = 0.3 * width if chance(rng, 0.5) else 0.0
    plate = (0.96 * width, long + 0.45 * width, thick)
    # plates above and below the stick, with pins
    for s in (-1, 1):
        z = s * (tall / 2 + gap + thick / 2)
        a.add("bracket", slab(plate, (0, pivot[1] + 0.45 * width - plate[1] / 2, z), corner))
        a.add("bracket", cylinder(0.2 * width, 1.6 * thick, "z", (*pivot[:2], z), 14))
    # connection of the plates in front of the plug
    front = (0.96 * width, thick, tall + 2 * gap + 2 * thick)
    a.add("bracket", box(front, (0, pivot[1] - long, 0)))
    limits = pick(rng, ((-np.pi, np.pi), (0.0, np.pi), (-np.pi, 0.0)))
    a.hinge("stick", "bracket", pivot, "z", *limits)
