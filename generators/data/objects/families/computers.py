"""Laptops: a flat body with keys, and a lid with a screen that turns about the rear edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import chance, feet
from generators.data.objects.primitives import box, cylinder, slab


def laptop(rng: np.random.Generator) -> ArticulatedObject:
    """Laptop, thin or thick; the lid opens from 0 (closed) to between 100 and 180 degrees."""
    a = Assembly("laptop", rng)
    # width, depth and height of the body, thickness of the lid
    w = rng.uniform(0.24, 0.42)
    d = w * rng.uniform(0.58, 0.85)
    h = rng.uniform(0.010, 0.030) if chance(rng, 0.65) else rng.uniform(0.03, 0.065)
    t = min(rng.uniform(0.004, 0.014) if chance(rng, 0.7) else rng.uniform(0.012, 0.028), 0.9 * h)
    corner = rng.uniform(0.0, 0.025) if chance(rng, 0.7) else 0.0
    gap = rng.uniform(0.0, 0.002)

    # body with keyboard and feet
    a.add(
        "base",
        slab((w, d, h), (0, 0, -h / 2), corner, "z", bevel=rng.uniform(0, 0.3) * min(h, 0.02)),
    )
    a.add("base", *_keyboard(rng, w, d))
    if chance(rng, 0.6):
        a.add("base", *feet(rng, 0.9 * w, 0.85 * d, rng.uniform(0.001, 0.004), -h, "round"))
    if h > 0.02 and chance(rng, 0.5):  # battery or dock at the rear
        a.add(
            "base", box((w * rng.uniform(0.4, 0.8), 0.02, h * 0.6), (0, d / 2 + 0.005, -h * 0.55))
        )

    # lid
    inset = rng.uniform(0.0, 0.03) if chance(rng, 0.4) else 0.0
    lid_w = w - inset
    lid_d = d - rng.uniform(0, 0.06) * d
    rear = d / 2 - rng.uniform(0, 0.05) * d
    front = max(rear - lid_d, -d / 2)
    lid_d = rear - front
    middle = (rear + front) / 2
    z = gap + t / 2
    a.add(
        "lid",
        slab(
            (lid_w, lid_d, t), (0, middle, z), min(corner, 0.02), "z", bevel=rng.uniform(0, 0.3) * t
        ),
    )
    if chance(rng, 0.6):  # screen
        bezel = rng.uniform(0.006, 0.03)
        a.add(
            "lid", box((lid_w - 2 * bezel, lid_d - 2.5 * bezel, 0.0015), (0, middle, gap + 0.0002))
        )
    if chance(rng, 0.3):  # logo
        a.add(
            "lid", cylinder(lid_d * rng.uniform(0.05, 0.12), 0.002, "z", (0, middle, gap + t), 16)
        )
    a.add("lid", *_hinges(rng, lid_w, rear, gap))
    upper = rng.uniform(1.8, 2.5) if chance(rng, 0.85) else rng.uniform(2.5, np.pi)
    a.hinge("base", "lid", (0, rear, gap), "-x", 0.0, upper)
    return a.build()


def _keyboard(rng: np.random.Generator, w: float, d: float) -> list[trimesh.Trimesh]:
    """Rows of keys or one key area, and a touch pad, nearly flush with the body's top (z = 0)."""
    pieces = []
    key_w = w * rng.uniform(0.8, 0.94)
    key_d = d * rng.uniform(0.38, 0.5)
    y = d * rng.uniform(0.08, 0.2)
    if chance(rng, 0.5):
        rows = int(rng.integers(4, 7))
        columns = int(rng.integers(8, 14))
        px, py = key_w / columns, key_d / rows
        x0 = -key_w / 2 + px / 2
        y0 = y - key_d / 2 + py / 2
        key = (px * 0.82, py * 0.82, 0.002)
        pieces += [
            box(key, (x0 + i * px, y0 + j * py, 0.0)) for i in range(columns) for j in range(rows)
        ]
    elif chance(rng, 0.7):
        pieces.append(box((key_w, key_d, 0.002), (0, y, 0)))
    if chance(rng, 0.75):
        pad = (w * rng.uniform(0.2, 0.4), d * rng.uniform(0.15, 0.28), 0.001)
        pieces.append(
            box(pad, (w * rng.uniform(-0.1, 0.1), -d / 2 + pad[1] * rng.uniform(0.6, 0.8), 0))
        )
    return pieces


def _hinges(rng: np.random.Generator, w: float, y: float, z: float) -> list[trimesh.Trimesh]:
    """One long barrel or two short ones on the hinge axis."""
    r = rng.uniform(0.003, 0.006)
    if chance(rng, 0.5):
        return [cylinder(r, w * rng.uniform(0.5, 0.9), "x", (0, y, z), 12)]
    x = w * rng.uniform(0.25, 0.42)
    length = w * rng.uniform(0.06, 0.16)
    return [cylinder(r, length, "x", (s * x, y, z), 12) for s in (-1, 1)]


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {"laptop": laptop}
