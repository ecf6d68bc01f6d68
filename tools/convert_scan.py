"""A textured scan to a small PyBullet asset: decimated visual mesh, re-baked texture, convex pieces
for collision.

The scan keeps its size and its frame (z up, standing on z = 0). Quadric decimation loses texture
coordinates, so the small mesh gets a new atlas (xatlas), each texel colored from the nearest point
of the scan. Collision is CoACD's approximate convex decomposition (Wei et al., "Approximate Convex
Decomposition for 3D Meshes with Collision-Aware Concavity and Tree Search", SIGGRAPH 2022), one
named object per piece in one OBJ: hollow things stay hollow.

The scans under `assets/` were made from the Google Scanned Objects models that LIBERO redistributes
by

    python -m tools.convert_scan SCAN.obj SCAN.png OUT/NAME --mass 0.17

with the masses that their URDF files state (frypan: --pieces 64 --concavity 0.015; basket: --pieces
32 --concavity 0.04). Needs `pip install xatlas coacd`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import trimesh
import tyro
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from flowplan.utils.open3d_loader import open3d


@dataclass(frozen=True)
class ScanOptions:
    """Options of the conversion."""

    mesh: Annotated[Path, tyro.conf.Positional]
    """OBJ file with texture coordinates, meters."""
    texture: Annotated[Path, tyro.conf.Positional]
    """Color image."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write into; its last part names the asset."""
    mass: float
    """Mass of the real object, kg."""
    faces: int = 4000
    """Triangles of the visual mesh."""
    pixels: int = 512
    """Width and height of the baked texture."""
    pieces: int = 48
    """Largest number of convex pieces of the collision mesh."""
    concavity: float = 0.02
    """CoACD's threshold: smaller follows the surface more closely with more pieces."""


def convert(options: ScanOptions) -> Path:
    """Write NAME.urdf, visual.obj, visual.mtl, texture.jpg and collision.obj; return the URDF's
    path."""
    scan = trimesh.load_mesh(options.mesh, process=False)
    if not isinstance(scan.visual, trimesh.visual.TextureVisuals):
        raise ValueError(
            f"ScanOptions.mesh: {options.mesh.name} has no texture coordinates; export them with "
            "the OBJ"
        )
    surface = trimesh.Trimesh(scan.vertices, scan.faces)
    # Drop floating specks.
    parts = surface.split(only_watertight=False)
    surface = max(parts, key=lambda part: len(part.faces))
    options.out.mkdir(parents=True, exist_ok=True)
    small = _decimate(surface, options.faces)
    _write_visual(small, scan, options)
    pieces = _convex_pieces(_decimate(surface, 6000), options)
    _write_obj(options.out / "collision.obj", pieces)
    return _write_urdf(pieces, options)


def _decimate(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    if len(mesh.faces) <= faces:
        return mesh
    o3d = open3d()
    legacy = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces)
    ).simplify_quadric_decimation(faces)
    return trimesh.Trimesh(np.asarray(legacy.vertices), np.asarray(legacy.triangles))


def _write_visual(mesh: trimesh.Trimesh, scan: trimesh.Trimesh, options: ScanOptions) -> None:
    import xatlas

    origin, faces, uv = xatlas.parametrize(mesh.vertices, mesh.faces)
    vertices, faces = mesh.vertices[origin], faces.astype(np.int64)
    image, filled = _bake(vertices, faces, uv, scan, options)
    # Spread the colors over the gaps of the atlas, so that no seam shows at any resolution.
    nearest = ndimage.distance_transform_edt(~filled, return_distances=False, return_indices=True)
    Image.fromarray(image[tuple(nearest)]).save(options.out / "texture.jpg", quality=88)
    lines = ["mtllib visual.mtl", "usemtl scan"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices]
    lines += [f"vt {u:.4f} {v:.4f}" for u, v in uv]
    lines += ["f " + " ".join(f"{i}/{i}" for i in face) for face in faces + 1]
    (options.out / "visual.obj").write_text("\n".join(lines) + "\n")
    (options.out / "visual.mtl").write_text("newmtl scan\nKd 1 1 1\nmap_Kd texture.jpg\n")


def _bake(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    uv: NDArray[np.float64],
    scan: trimesh.Trimesh,
    options: ScanOptions,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colors (P, P, 3) of the new atlas, and mask (P, P) of the texels covered by triangles."""
    P = options.pixels
    points, rows, columns = [], [], []
    for face in faces:
        corners = uv[face] * [P, -P] + [0, P]  # texture v points up, image rows down
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        T = np.column_stack([corners[1] - corners[0], corners[2] - corners[0]])
        if abs(np.linalg.det(T)) < 1e-12:
            continue
        # Barycentric coordinates of the texels' centers.
        st = np.linalg.solve(T, np.stack([x.ravel() + 0.5, y.ravel() + 0.5]) - corners[0][:, None])
        bary = np.stack([1 - st.sum(0), *st], axis=-1)
        inside = bary.min(-1) > -1e-6
        points.append(bary[inside] @ vertices[face])
        rows.append(y.ravel()[inside])
        columns.append(x.ravel()[inside])
    row, column = np.concatenate(rows), np.concatenate(columns)
    # Colors of the texels inside the image.
    keep = (row >= 0) & (row < P) & (column >= 0) & (column < P)
    image, filled = np.zeros((P, P, 3), np.uint8), np.zeros((P, P), bool)
    image[row[keep], column[keep]] = _colors(np.concatenate(points)[keep], scan, options.texture)
    filled[row[keep], column[keep]] = True
    return image, filled


def _colors(points: NDArray[np.float64], scan: trimesh.Trimesh, texture: Path) -> NDArray[np.uint8]:
    """Colors (N, 3) of the scan at its surface points nearest to `points` (N, 3)."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(scan.vertices.astype(np.float32)),
        o3d.core.Tensor(scan.faces.astype(np.uint32)),
    )
    hit = scene.compute_closest_points(o3d.core.Tensor(points.astype(np.float32)))
    corners = scan.faces[hit["primitive_ids"].numpy()]
    u, v = hit["primitive_uvs"].numpy().T
    scan_uv: NDArray[np.float64] = scan.visual.uv  # type: ignore[union-attr]
    uv = np.einsum("nk,nkc->nc", np.stack([1 - u - v, u, v], axis=-1), scan_uv[corners])  # (N, 2)
    pixels = np.asarray(Image.open(texture).convert("RGB"))
    high, wide = pixels.shape[:2]
    row = np.clip((1 - uv[:, 1]) * high, 0, high - 1).astype(int)
    column = np.clip(uv[:, 0] * wide, 0, wide - 1).astype(int)
    return pixels[row, column]


def _convex_pieces(mesh: trimesh.Trimesh, options: ScanOptions) -> list[trimesh.Trimesh]:
    import coacd

    coacd.set_log_level("error")
    parts = coacd.run_coacd(
        coacd.Mesh(mesh.vertices, mesh.faces),
        threshold=options.concavity,
        max_convex_hull=options.pieces,
        decimate=True,
        max_ch_vertex=48,
        seed=0,
    )
    return [trimesh.convex.convex_hull(vertices) for vertices, _ in parts]


def _write_obj(path: Path, pieces: list[trimesh.Trimesh]) -> None:
    lines, first = [], 1
    for i, piece in enumerate(pieces):
        lines += [f"o piece_{i}"]
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in piece.vertices]
        lines += ["f " + " ".join(map(str, face)) for face in piece.faces + first]
        first += len(piece.vertices)
    path.write_text("\n".join(lines) + "\n")


def _write_urdf(pieces: list[trimesh.Trimesh], options: ScanOptions) -> Path:
    """One link; mass spread evenly over the convex pieces."""
    volume = sum(piece.volume for piece in pieces)
    center = np.sum([piece.volume * piece.center_mass for piece in pieces], axis=0) / volume
    inertia = np.zeros((3, 3))
    for piece in pieces:
        d = piece.center_mass - center
        # Parallel axes.
        shift = d @ d * np.eye(3) - np.outer(d, d)  # (3, 3)
        inertia += piece.moment_inertia + piece.volume * shift
    inertia *= options.mass / volume
    name = options.out.name
    robot = ET.Element("robot", name=name)
    link = ET.SubElement(robot, "link", name=name)
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "origin", xyz=" ".join(f"{v:.5f}" for v in center), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=f"{options.mass:g}")
    entries: dict[str, Any] = {
        f"i{'xyz'[a]}{'xyz'[b]}": inertia[a, b] for a in range(3) for b in range(a, 3)
    }
    ET.SubElement(inertial, "inertia", {key: f"{value:.4g}" for key, value in entries.items()})
    for tag in ("visual", "collision"):
        geometry = ET.SubElement(ET.SubElement(link, tag), "geometry")
        ET.SubElement(geometry, "mesh", filename=f"{tag}.obj")
    ET.indent(robot)
    path = options.out / f"{name}.urdf"
    path.write_text(ET.tostring(robot, encoding="unicode") + "\n")
    return path


if __name__ == "__main__":
    convert(tyro.cli(ScanOptions))
