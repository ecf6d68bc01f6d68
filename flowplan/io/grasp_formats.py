"""Grasps of other planners, read and written in their own files and frames.

All of them describe a grasp by a pose and a width, but in different frames. Relative to the tool
frame used here (origin between the pads, z approaches, y closes):

    here               z approaches   y closes   origin between the pads
    GraspNetAPI        x approaches   y closes   origin `depth` behind the fingertips
    GraspGen, isaac    z approaches   x closes   origin at the gripper's base; poses relative to the
                                                 object
    Contact-GraspNet   z approaches   x closes   origin at the gripper's base; poses relative to the
                                                 camera (OpenCV convention)

An adapter consists of one frame, one file format, and the reference frame of the file's poses.
Readers trust nothing: no pickle, and a file that is truncated, misshapen or not finite is refused
in a line that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import inverse, matrix_from_quat_wxyz, pose, quat_wxyz_from_matrix
from flowplan.grasp.candidates import ContactCandidates, best_first
from flowplan.io.documents import (
    check_suffix,
    document_text,
    read_archive,
    read_array,
    read_document,
)
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import atomic_write

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

Z_APPROACH_X_CLOSE = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""Axes (3, 3) of a frame that approaches along z and closes along x, in the tool frame."""
X_APPROACH_Y_CLOSE = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Axes (3, 3) of a frame that approaches along x and closes along y, in the tool frame."""
PANDA_BASE_TO_PADS = 0.1034
"""Distance from the base of the Panda hand to between its pads, meters: the gripper depth of
GraspGen and Contact-GraspNet."""


class GraspAdapter(Protocol):
    """A file format for grasps."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps in a file, in the world and tool frames used here, best first.

        Raises:
            ValueError: Naming the file and the field.
        """
        ...

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write grasps and pinches; these formats cannot store pushes.

        Raises:
            ValueError: If `grasps` contains a push, or the suffix is not the format's.
        """
        ...


@dataclass(frozen=True)
class GraspNetAdapter:
    """GraspNetAPI: a .npy with rows of 17 numbers.

    score, width, height, depth, rotation (9, row by row), translation (3), object id.
    """

    finger_depth: float
    """Distance of the fingertips past the tool's origin, meters: `Gripper.finger_depth`."""
    X_world_reference: FloatArray = field(default_factory=pose)
    """(4, 4) pose of the reference frame of the file's grasps, such as the camera."""
    height: float = 0.02
    """Finger thickness written to the file, meters; ignored on reading."""
    depth: float = 0.02
    """Distance from a grasp's origin to the fingertips, meters, when writing; rows that are read
    have their own."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps in a GraspNetAPI array file."""
        return self.decode(read_array(path), str(path))

    def decode(self, rows: NDArray[Any], name: str = "rows") -> ContactCandidates:
        """Grasps in a GraspNetAPI array (G, 17), such as GraspGroup.grasp_group_array."""
        if np.shape(rows) == (0, 17):
            return _grasps(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0))
        table = checks.array(
            name,
            rows,
            ("G", 17),
            hint="rows of score, width, height, depth, R (9), t (3), object id",
        )
        # Columns of a row.
        score, width, depth = table[:, 0], table[:, 1], table[:, 3]  # (G,)
        # Poses of the other frame, then of the tool, whose origin lies between the pads.
        R = _rotations(f"{name}[:, 4:13]", table[:, 4:13].reshape(-1, 3, 3))
        X_reference_other = pose(R, table[:, 13:16])  # (G, 4, 4)
        X_other_tool = inverse(_frame(X_APPROACH_Y_CLOSE, depth - self.finger_depth))
        X_world_tool = self.X_world_reference @ X_reference_other @ X_other_tool
        return _grasps(X_world_tool, _widths(f"{name}[:, 1]", width), score)

    def encode(self, grasps: ContactCandidates) -> FloatArray:
        """The array (G, 17) of GraspNetAPI's GraspGroup."""
        _only_grasps(grasps)
        X_tool_other = _frame(X_APPROACH_Y_CLOSE, np.array(self.depth - self.finger_depth))
        X = inverse(self.X_world_reference) @ grasps.X_world_tool @ X_tool_other
        columns = [
            grasps.score[:, None],
            grasps.width[:, None],
            np.tile([self.height, self.depth], (len(grasps), 1)),
            X[:, :3, :3].reshape(-1, 9),
            X[:, :3, 3],
            grasps.object_id[:, None],
        ]
        return np.concatenate(columns, axis=1)

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write a .npy that `GraspGroup().from_npy` reads."""
        check_suffix(path, ".npy")
        rows = self.encode(grasps)
        with atomic_write(path) as file:
            np.save(file, rows, allow_pickle=False)


@dataclass(frozen=True)
class ContactGraspNetAdapter:
    """Contact-GraspNet: a .npz of pred_grasps_cam (G, 4, 4), scores and gripper_openings (G,)."""

    X_world_reference: FloatArray = field(default_factory=pose)
    """(4, 4) X_world_camera of the depth image, OpenCV convention."""
    base_to_pads: float = PANDA_BASE_TO_PADS
    """Distance from the gripper's base to between its pads, meters."""
    max_width: float = 0.08
    """Opening if the file has no gripper_openings, meters."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps in an .npz of plain arrays.

        The network's own script saves pickled dictionaries with one entry per segment. Pickle runs
        code when it is read: save the entries of one segment as arrays of the same names instead.
        """
        arrays = read_archive(path)
        for key in ("pred_grasps_cam", "scores"):
            if key not in arrays:
                raise ValueError(
                    f"{path}: has no array {key}; it has {', '.join(sorted(arrays)) or 'none'}"
                )
        if not np.size(arrays["scores"]):
            return _grasps(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0))
        # Poses, scores and openings; files without openings get the widest.
        X = checks.array(f"{path}: pred_grasps_cam", arrays["pred_grasps_cam"], ("G", 4, 4))
        score = checks.array(f"{path}: scores", arrays["scores"], (len(X),))
        width = arrays.get("gripper_openings", np.full(len(X), self.max_width))
        width = checks.array(f"{path}: gripper_openings", width, (len(X),))
        width = _widths(f"{path}: gripper_openings", width)

        # From the gripper's base in the camera's frame to the tool in the world.
        R = _rotations(f"{path}: pred_grasps_cam", X[:, :3, :3])
        X = pose(R, X[:, :3, 3])
        frame = inverse(_frame(Z_APPROACH_X_CLOSE, np.array(self.base_to_pads)))
        return _grasps(self.X_world_reference @ X @ frame, width, score)

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write an .npz of plain arrays."""
        check_suffix(path, ".npz")
        _only_grasps(grasps)
        X_tool_other = _frame(Z_APPROACH_X_CLOSE, np.array(self.base_to_pads))
        X = inverse(self.X_world_reference) @ grasps.X_world_tool @ X_tool_other
        with atomic_write(path) as file:
            np.savez(file, pred_grasps_cam=X, scores=grasps.score, gripper_openings=grasps.width)


@dataclass(frozen=True)
class IsaacGraspAdapter:
    """isaac_grasp 1.0, as GraspGen and Isaac Sim write it: YAML, or JSON with the same fields."""

    gripper: Gripper
    """Gripper of the robot, which relates finger openings and joint positions."""
    X_world_reference: FloatArray = field(default_factory=pose)
    """(4, 4) X_world_object: the file's poses are relative to the object."""
    X_tool_gripper: FloatArray = field(
        default_factory=lambda: _frame(Z_APPROACH_X_CLOSE, np.array(PANDA_BASE_TO_PADS))
    )
    """(4, 4) pose of the file's gripper frame in the tool frame. Defaults to that of the Panda hand
    in GraspGen."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps in an isaac_grasp file; the opening is that of the pre-grasp if there is one."""
        document = read_document(path)
        if document.get("format") != "isaac_grasp":
            raise ValueError(
                f"{path}: format: expected isaac_grasp, got {document.get('format')!r}"
            )
        if str(document.get("format_version")) not in ("1.0", "1"):
            raise ValueError(
                f"{path}: format_version: expected 1.0, got {document.get('format_version')!r}"
            )
        entries = document.get("grasps")
        if not isinstance(entries, Mapping):
            raise ValueError(f"{path}: grasps: expected named grasps, got {type(entries).__name__}")
        if not entries:
            return _grasps(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0))
        # Pose, opening and confidence of each named grasp.
        rows = [self._entry(f"{path}: grasps.{name}", value) for name, value in entries.items()]
        X = np.stack([row[0] for row in rows])  # (G, 4, 4)
        width, score = np.array([row[1:] for row in rows]).T
        return _grasps(self.X_world_reference @ X @ inverse(self.X_tool_gripper), width, score)

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write all grasps; their closed joint positions are those of touching fingers."""
        _only_grasps(grasps)
        X = inverse(self.X_world_reference) @ grasps.X_world_tool @ self.X_tool_gripper
        quat = quat_wxyz_from_matrix(X[:, :3, :3])  # (G, 4)
        entries = {
            f"grasp_{i}": {
                "confidence": float(grasps.score[i]),
                "position": X[i, :3, 3].tolist(),
                "orientation": {"w": float(quat[i, 0]), "xyz": quat[i, 1:].tolist()},
                "cspace_position": self.gripper.joint_positions(0.0),
                "pregrasp_cspace_position": self.gripper.joint_positions(float(grasps.width[i])),
            }
            for i in range(len(grasps))
        }
        document = {"format": "isaac_grasp", "format_version": 1.0, "grasps": entries}
        text = document_text(path, document)
        with atomic_write(path) as file:
            file.write(text.encode())

    def _entry(self, where: str, value: Any) -> tuple[FloatArray, float, float]:
        """Pose of the file's gripper frame (4, 4), opening (m) and confidence of one grasp."""
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected its fields, got {type(value).__name__}")
        for key in ("confidence", "position", "orientation"):
            if key not in value:
                raise ValueError(
                    f"{where}: has no {key}; it has {', '.join(map(str, value)) or 'nothing'}"
                )
        # A unit quaternion, w first.
        turn = value["orientation"]
        if not isinstance(turn, Mapping) or set(turn) != {"w", "xyz"}:
            raise ValueError(f"{where}.orientation: expected w and xyz, got {turn!r}")
        xyz = checks.array(f"{where}.orientation.xyz", turn["xyz"], (3,))
        quat = np.concatenate([checks.array(f"{where}.orientation.w", [turn["w"]], (1,)), xyz])
        length = np.linalg.norm(quat)
        if abs(length - 1) > 1e-2:
            raise ValueError(
                f"{where}.orientation: expected a unit quaternion, got length {length:.3g}"
            )
        # Position, confidence and opening.
        position = checks.array(f"{where}.position", value["position"], (3,))
        confidence = checks.array(f"{where}.confidence", [value["confidence"]], (1,))[0]
        return (
            pose(matrix_from_quat_wxyz(quat), position),
            self._width(where, value),
            float(confidence),
        )

    def _width(self, where: str, value: Mapping[str, Any]) -> float:
        """Opening in the pre-grasp, else in the grasp, at the first known joint, meters."""
        for key in ("pregrasp_cspace_position", "cspace_position"):
            joints = value.get(key) or {}
            if not isinstance(joints, Mapping):
                raise ValueError(
                    f"{where}.{key}: expected joint positions by name, got {type(joints).__name__}"
                )
            for column, name in enumerate(self.gripper.joints):
                if name in joints:
                    # The opening at this joint position, from the gripper's table.
                    q = checks.array(f"{where}.{key}.{name}", [joints[name]], (1,))[0]
                    table = self.gripper.table_joints[:, column]
                    _require_near(f"{where}.{key}.{name}", float(q), table)
                    order = np.argsort(table)  # some fingers open with falling joint positions
                    return float(np.interp(q, table[order], self.gripper.table_width[order]))
        return self.gripper.max_width


def _frame(axes: FloatArray, behind: FloatArray) -> FloatArray:
    """X_tool_other (..., 4, 4) of a frame with some axes (3, 3), its origin `behind` (...,) meters
    behind the pads."""
    offset = -np.asarray(behind, float)[..., None]
    return pose(axes, offset * np.array([0.0, 0.0, 1.0]))


def _require_near(name: str, q: float, table: FloatArray) -> None:
    """Refuse a joint position that lies far outside of a gripper's table, in another unit.

    Files round, and other hands open a little wider: a quarter of the range is let pass.
    """
    low, high = float(table.min()), float(table.max())
    if not low - 0.25 * (high - low) <= q <= high + 0.25 * (high - low):
        raise ValueError(
            f"{name}: got {q:g}, expected {low:g} to {high:g}, the limits of the gripper's table; "
            "convert to meters or radians, or name the gripper that the file is for"
        )


def _grasps(X: FloatArray, width: FloatArray, score: FloatArray) -> ContactCandidates:
    return best_first(X, width, score, "grasp", 0)


def _rotations(name: str, R: FloatArray) -> FloatArray:
    """Rotations (G, 3, 3) stored in single precision, orthonormalized."""
    gram = np.swapaxes(R, -1, -2) @ R  # (G, 3, 3)
    error = np.abs(gram - np.eye(3)).max()
    det = np.linalg.det(R).min()
    if error > 1e-2 or det < 0:
        raise ValueError(
            f"{name}: expected rotations, got |R^T R - I| = {error:.2g}, det >= {det:.2g}"
        )
    # The nearest rotations: the orthogonal factor of a singular value decomposition.
    U, _, Vt = np.linalg.svd(R)
    return U @ Vt


def _widths(name: str, width: FloatArray) -> FloatArray:
    if width.min() < 0 or width.max() > 1:
        raise ValueError(
            f"{name}: expected meters in [0, 1], got [{width.min():g}, {width.max():g}]; "
            "convert to meters"
        )
    return width


def _only_grasps(grasps: ContactCandidates) -> None:
    """Refuse pushes."""
    pushes = sum(kind == "push" for kind in grasps.kind)
    if pushes:
        raise ValueError(
            f"grasps: {pushes} of {len(grasps)} are pushes, which this format cannot store; "
            "remove them"
        )
