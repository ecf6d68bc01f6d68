"""Clips of cloth in the wind, simulated (NeuROK, appendix D.3): a hung sheet or a shirt held at its
shoulders.

The timeline is the paper's: a gust, a rest in which the cloth settles, a gust from elsewhere, a
rest. MuJoCo's flexible bodies carry the sheet as point masses whose edges keep their lengths; two
forces are added to its gravity. Wind of velocity u presses on every triangle along its normal, and
being relative it also damps,

    f = 1/2 rho A |(u - v) . n| ((u - v) . n) n,

and bending resists with the discrete bi-Laplacian of an inextensible sheet, -k L^T L (x + tau v)
(Bergou et al. 2006). The layers of a shirt do not meet: where the wind presses one through the
other, they pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array

from flowplan.utils.checks import FloatArray, choice
from generators.data.clips.clip import Clip

KINDS = ("sheet", "shirt")
AIR = 1.2
"""Density, kg/m^3."""
TIME_STEP = 0.004
SETTLE = 0.6
"""Seconds that the cloth hangs before the clip begins."""


@dataclass(frozen=True)
class ClothOptions:
    """Length and resolution of a clip; its shape, cloth and winds come from the seed."""

    frames: int = 40
    """Frames of the clip, evenly spaced over it."""
    phase: float = 0.9
    """Seconds of each gust and of each rest."""
    cells: int = 20
    """Cells of the grid along the longer side."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 2), ("cells", 4)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"ClothOptions.{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if not 0.1 <= self.phase <= 10:
            raise ValueError(f"ClothOptions.phase: expected 0.1 to 10 seconds, got {self.phase}")


@dataclass(frozen=True, eq=False)
class Garment:
    """A cloth before it is hung.

    Attributes:
        vertices: (V, 3) meters, z up.
        faces: (f, 3).
        pins: (P,) vertices that are held.
    """

    vertices: FloatArray
    faces: NDArray[np.int64]
    pins: NDArray[np.int64]


def cloth_clip(kind: str, seed: int, options: ClothOptions = ClothOptions()) -> Clip:
    """A simulated clip, z up, meters, the same for the same seed.

    Args:
        kind: "sheet" or "shirt".

    Raises:
        ImportError: without MuJoCo.
    """
    choice("kind", kind, KINDS)
    rng = np.random.default_rng([KINDS.index(kind), seed])
    garment = (sheet if kind == "sheet" else shirt)(rng, options.cells)
    return Clip(f"{kind}/{seed}", _simulate(garment, rng, options), garment.faces)


def sheet(rng: np.random.Generator, cells: int) -> Garment:
    """A rectangle that hangs from its upper edge, from points along it, or as a flag from its
    side."""
    width, height = rng.uniform(0.4, 1.0, 2)
    cell = max(width, height) / cells
    nx, nz = (max(2, round(side / cell)) + 1 for side in (width, height))
    x, z = np.meshgrid(np.linspace(0, width, nx), np.linspace(0, -height, nz), indexing="ij")
    grid = np.arange(nx * nz).reshape(nx, nz)
    held = rng.choice(["edge", "points", "flag"])
    if held == "edge":
        pins = grid[:, 0]
    elif held == "flag":
        pins = grid[0]
    else:
        pins = grid[np.unique(np.linspace(0, nx - 1, rng.integers(2, 5)).round().astype(int)), 0]
    vertices = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], 1)
    return Garment(vertices, _split(grid, np.ones((nx - 1, nz - 1), bool), rng), pins)


def shirt(rng: np.random.Generator, cells: int) -> Garment:
    """Front and back in the outline of a T, sewn along shoulders, sleeves and sides; neck, cuffs
    and hem are open."""
    body, length = rng.uniform(0.4, 0.56), rng.uniform(0.55, 0.75)
    arm, sleeve, neck = rng.uniform(0.1, 0.3), rng.uniform(0.15, 0.22), rng.uniform(0.07, 0.1)
    cell = max(body + 2 * arm, length) / cells
    half, out = (max(1, round(side / cell)) for side in (body / 2, arm))
    down, deep, open_half = (max(1, round(side / cell)) for side in (length, sleeve, neck))
    nx, nz = 2 * (half + out) + 1, down + 1
    column = np.abs(np.arange(nx - 1) + 0.5 - (half + out))  # of a cell, in cells from the middle
    inside = (column[:, None] < half) | (np.arange(down) < deep)
    used = np.zeros((nx, nz), bool)
    for dx in (0, 1):
        for dz in (0, 1):
            used[dx : nx - 1 + dx, dz : nz - 1 + dz] |= inside
    around = sum(
        np.pad(inside, 1)[dx : dx + nx, dz : dz + nz].astype(int) for dx in (0, 1) for dz in (0, 1)
    )
    x, z = np.meshgrid(np.arange(nx) - (half + out), np.arange(nz), indexing="ij")
    opening = (z == down) & (np.abs(x) < half)  # hem, cuffs, neck: their ends are sewn
    opening |= (np.abs(x) == half + out) & (z > 0) & (z < deep)
    opening |= (z == 0) & (np.abs(x) < open_half)
    sewn = used & (around < 4) & ~opening
    front = np.cumsum(used).reshape(nx, nz) - 1
    back = np.where(sewn, front, front.max() + np.cumsum(used & ~sewn).reshape(nx, nz))
    seam = np.stack([x[sewn], z[sewn]], 1)
    vertices = np.zeros((back.max() + 1, 3))
    for layer, side in ((front, -1.0), (back, 1.0)):
        near = np.linalg.norm(np.stack([x[used], z[used]], 1)[:, None] - seam, axis=-1).min(1)
        depth = 0.35 * half * np.sqrt(1 - (1 - np.minimum(near / half, 1)) ** 2)
        vertices[layer[used]] = cell * np.stack([x[used], side * depth, -z[used]], 1)
    shoulders = sewn & (z == 0) & (np.abs(x) < max(half, open_half + 1))
    front_faces = _split(front, inside, rng)
    back_faces = _split(back, inside, rng)[:, ::-1]
    return Garment(vertices, np.concatenate([front_faces, back_faces]), front[shoulders])


def _split(
    grid: NDArray[np.int64], inside: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Two triangles to every cell that is `inside`, cut along either diagonal."""
    a, b, c, d = (k[inside] for k in (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]))
    either = rng.random(len(a)) < 0.5
    first = np.where(either, np.stack([a, c, b]), np.stack([a, d, b]))
    second = np.where(either, np.stack([a, d, c]), np.stack([b, d, c]))
    return np.concatenate([first.T, second.T])


def _simulate(garment: Garment, rng: np.random.Generator, options: ClothOptions) -> FloatArray:
    """(F, V, 3) from rest through two gusts."""
    try:
        import mujoco  # optional, and slow to load
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise ImportError(
            f"mujoco: could not be imported ({reason}); run `pip install mujoco`"
        ) from None
    area = np.linalg.norm(_normals(garment.vertices, garment.faces), axis=1).sum()
    model = mujoco.MjModel.from_xml_string(_mjcf(garment, float(rng.uniform(0.12, 0.3) * area)))
    data = mujoco.MjData(model)
    # A vertex that is held belongs to the world; any other is a body with one slide along each
    # axis.
    body = np.asarray(model.flex_vertbodyid)
    free = np.flatnonzero(body > 0)
    dofs = np.asarray(model.body_dofadr)[body[free]][:, None] + np.arange(3)
    laplacian = _laplacian(garment)
    stiffness, wind = rng.uniform(0.005, 0.04), _Winds(rng, options.phase)
    velocity = np.zeros_like(garment.vertices)
    times = SETTLE + np.linspace(0, 4 * options.phase, options.frames)
    frames: list[FloatArray] = []
    while len(frames) < options.frames:
        mujoco.mj_kinematics(model, data)
        mujoco.mj_flex(model, data)
        x = np.array(data.flexvert_xpos)
        if data.time >= times[len(frames)] - TIME_STEP / 2:
            frames.append(x)
        velocity[free] = data.qvel[dofs]
        force = _pressure(x, velocity, garment.faces, wind(data.time - SETTLE, x))
        force -= stiffness * (laplacian.T @ (laplacian @ (x + 0.02 * velocity)))
        data.qfrc_applied[dofs] = force[free]
        mujoco.mj_step(model, data)
    return np.stack(frames)


def _mjcf(garment: Garment, mass: float) -> str:
    def text(numbers: Any) -> str:
        return " ".join(f"{v:.9g}" for v in np.ravel(numbers))

    return f"""<mujoco>
      <option timestep="{TIME_STEP}" solver="CG" tolerance="1e-6" integrator="implicitfast"/>
      <worldbody><flexcomp name="cloth" type="direct" dim="2" mass="{mass:.9g}" radius="0.002"
        point="{text(garment.vertices)}" element="{text(garment.faces)}">
        <contact selfcollide="none"/><edge equality="true" solref="0.008 1" damping="0.01"/>
        <pin id="{text(garment.pins)}"/>
      </flexcomp></worldbody></mujoco>"""


def _normals(x: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """(f, 3) normals as long as the triangles are large."""
    a, b, c = (x[faces[:, k]] for k in range(3))
    return 0.5 * np.cross(b - a, c - a)


def _pressure(
    x: FloatArray, v: FloatArray, faces: NDArray[np.int64], wind: FloatArray
) -> FloatArray:
    """(V, 3) N on every vertex, a third of that on each of its triangles."""
    normal = _normals(x, faces)
    area = np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    across = ((wind - v)[faces].mean(1) * normal).sum(1, keepdims=True) / area
    force = 0.5 * AIR * np.abs(across) * across * normal / 3
    out = np.empty_like(x)
    for i in range(3):
        out[:, i] = np.bincount(faces.ravel(), np.repeat(force[:, i], 3), len(x))
    return out


def _laplacian(garment: Garment) -> csr_array:
    """(V, V) difference of a vertex from the mean of its neighbors; none on the rim, which bends
    freely.

    With weights (cot a + cot b) / 2 of an edge's opposite angles it vanishes on a flat sheet
    however that is meshed.
    """
    x, faces, count = garment.vertices, garment.faces, len(garment.vertices)
    weights, rows, columns = [], [], []
    for k in range(3):
        tip, i, j = (faces[:, (k + n) % 3] for n in range(3))
        u, v = x[i] - x[tip], x[j] - x[tip]
        cotangent = (u * v).sum(1) / np.linalg.norm(np.cross(u, v), axis=1)
        weights += [cotangent / 2, cotangent / 2]
        rows += [i, j]
        columns += [j, i]
    at = (np.concatenate(rows), np.concatenate(columns))
    edges = coo_array((np.concatenate(weights), at), (count, count)).tocsr()
    sides = coo_array((np.ones(len(at[0])), at), (count, count)).tocsr().tocoo()
    inner = np.ones(count)
    inner[sides.row[sides.data == 1]] = 0.0  # an inner edge has a face on either side
    share = np.divide(inner, np.asarray(edges.sum(1)).ravel(), out=np.zeros(count), where=inner > 0)
    return csr_array(diags_array(inner) - diags_array(share) @ edges)


class _Winds:
    """Two gusts from random directions, each followed by a calm of the same length."""

    def __init__(self, rng: np.random.Generator, phase: float) -> None:
        self._phase = phase
        angle = rng.uniform(0, 2 * np.pi, 2)
        rise = rng.uniform(-0.2, 0.5, 2)
        self._velocity = rng.uniform(1.5, 4.5, (2, 1)) * np.stack(
            [np.cos(angle), np.sin(angle), rise], 1
        )
        self._wave = rng.normal(size=(2, 3)) * 6.0  # 1/m: eddies of about a meter
        self._beat = rng.uniform(4.0, 12.0, 2)  # rad/s

    def __call__(self, t: float, x: FloatArray) -> FloatArray:
        """(V, 3) m/s at time t and the points x."""
        gust, within = divmod(t / self._phase, 2)
        if t < 0 or gust > 1 or within > 1:
            return np.zeros_like(x)
        g = int(gust)
        swell = np.sin(np.pi * within) ** 2
        eddy = 1 + 0.4 * np.sin(x @ self._wave[g] + self._beat[g] * t)
        return swell * eddy[:, None] * self._velocity[g]
