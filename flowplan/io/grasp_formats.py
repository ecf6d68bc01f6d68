"""Grasps of other planners, read and written in their own files and frames.

Everybody agrees that a grasp is a pose and a width, and nobody on the frame. Seen from the tool frame used here (origin
between the pads, z approaches, y closes):

    here               z approaches   y closes   origin between the pads
    GraspNetAPI        x approaches   y closes   origin `depth` behind the fingertips; 17 numbers to a row
    GraspGen, isaac    z approaches   x closes   origin at the gripper's base; poses relative to the object
    Contact-GraspNet   z approaches   x closes   origin at the gripper's base; poses in the camera's OpenCV frame

An adapter is one frame, one file format, and where the file's poses are measured from. Readers take nothing on trust:
no pickle, and a file that is cut short, misshapen or not finite is refused in a line that names the field.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import inverse, matrix_from_quat_wxyz, pose, quat_wxyz_from_matrix
from flowplan.grasp.candidates import ContactCandidates, best_first
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
"""Metres from the base of the Panda hand to between its pads: GraspGen's and Contact-GraspNet's gripper depth."""


class GraspAdapter(Protocol):
    """One way of writing grasps down."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps of a file, in the world and tool frames used here, best first.

        Raises:
            ValueError: naming the file and the field.
        """
        ...

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write grasps and pinches; these formats have no place for pushes.

        Raises:
            ValueError: when `grasps` holds a push, or the path's suffix is not the format's.
        """
        ...


@dataclass(frozen=True)
class GraspNetAdapter:
    """GraspNetAPI: a .npy of rows score, width, height, depth, rotation (9, row by row), translation (3), object id."""

    finger_depth: float
    """Metres that the fingertips reach past the tool's origin: `Gripper.finger_depth`."""
    X_world_reference: FloatArray = field(default_factory=pose)
    """(4, 4) pose of the frame that the file's grasps are in, such as the camera's."""
    height: float = 0.02
    """Metres of finger thickness written to the file; reading ignores it."""
    depth: float = 0.02
    """Metres from the file's grasp origin to the fingertips that is written; reading takes each row's own."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps of a GraspNetAPI array file."""
        return self.decode(_numpy_file(path), str(path))

    def decode(self, rows: NDArray[Any], name: str = "rows") -> ContactCandidates:
        """Grasps of a GraspNetAPI array (G, 17), such as GraspGroup.grasp_group_array."""
        if np.shape(rows) == (0, 17):
            return _grasps(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0))
        table = checks.array(
            name,
            rows,
            ("G", 17),
            hint="rows of score, width, height, depth, R (9), t (3), object id",
        )
        X = pose(_rotations(f"{name}[:, 4:13]", table[:, 4:13].reshape(-1, 3, 3)), table[:, 13:16])
        X_other_tool = inverse(_frame(X_APPROACH_Y_CLOSE, table[:, 3] - self.finger_depth))
        return _grasps(
            self.X_world_reference @ X @ X_other_tool,
            _widths(f"{name}[:, 1]", table[:, 1]),
            table[:, 0],
        )

    def encode(self, grasps: ContactCandidates) -> FloatArray:
        """The array (G, 17) that GraspNetAPI's GraspGroup is made of."""
        _only_grasps(grasps)
        X_tool_other = _frame(X_APPROACH_Y_CLOSE, np.array(self.depth - self.finger_depth))
        X = inverse(self.X_world_reference) @ grasps.X_world_tool @ X_tool_other
        size = np.tile([self.height, self.depth], (len(grasps), 1))
        head = np.concatenate([grasps.score[:, None], grasps.width[:, None], size], axis=1)
        return np.concatenate(
            [head, X[:, :3, :3].reshape(-1, 9), X[:, :3, 3], grasps.object_id[:, None]], axis=1
        )

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write a .npy that `GraspGroup().from_npy` reads."""
        _suffix(path, ".npy")
        rows = self.encode(grasps)
        with atomic_write(path) as file:
            np.save(file, rows, allow_pickle=False)


@dataclass(frozen=True)
class ContactGraspNetAdapter:
    """Contact-GraspNet: a .npz of pred_grasps_cam (G, 4, 4), scores (G,) and gripper_openings (G,)."""

    X_world_reference: FloatArray = field(default_factory=pose)
    """(4, 4) X_world_camera (OpenCV convention) of the depth image."""
    base_to_pads: float = PANDA_BASE_TO_PADS
    """Metres from the gripper's base to between its pads."""
    max_width: float = 0.08
    """Metres of opening, where the file has no gripper_openings."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps of an .npz of plain arrays.

        The network's own script saves one entry per segment in pickled dictionaries; save those of one segment as
        arrays under the same names instead: pickle runs code when it is read.
        """
        arrays = _numpy_archive(path)
        for key in ("pred_grasps_cam", "scores"):
            if key not in arrays:
                raise ValueError(
                    f"{path}: has no array {key}; it has {', '.join(sorted(arrays)) or 'none'}"
                )
        if not np.size(arrays["scores"]):
            return _grasps(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0))
        X = checks.array(f"{path}: pred_grasps_cam", arrays["pred_grasps_cam"], ("G", 4, 4))
        score = checks.array(f"{path}: scores", arrays["scores"], (len(X),))
        width = arrays.get("gripper_openings", np.full(len(X), self.max_width))
        width = _widths(
            f"{path}: gripper_openings", checks.array(f"{path}: gripper_openings", width, (len(X),))
        )
        X = pose(_rotations(f"{path}: pred_grasps_cam", X[:, :3, :3]), X[:, :3, 3])
        frame = inverse(_frame(Z_APPROACH_X_CLOSE, np.array(self.base_to_pads)))
        return _grasps(self.X_world_reference @ X @ frame, width, score)

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write an .npz of plain arrays."""
        _suffix(path, ".npz")
        _only_grasps(grasps)
        X_tool_other = _frame(Z_APPROACH_X_CLOSE, np.array(self.base_to_pads))
        X = inverse(self.X_world_reference) @ grasps.X_world_tool @ X_tool_other
        with atomic_write(path) as file:
            np.savez(file, pred_grasps_cam=X, scores=grasps.score, gripper_openings=grasps.width)


@dataclass(frozen=True)
class IsaacGraspAdapter:
    """isaac_grasp 1.0, as GraspGen and Isaac Sim write it: YAML, or the same fields in JSON by the file's suffix."""

    gripper: Gripper
    """Of the robot: translates finger openings to joint positions and back."""
    X_world_reference: FloatArray = field(default_factory=pose)
    """(4, 4) X_world_object: the file's poses are relative to the object."""
    X_tool_gripper: FloatArray = field(
        default_factory=lambda: _frame(Z_APPROACH_X_CLOSE, np.array(PANDA_BASE_TO_PADS))
    )
    """(4, 4) the frame that the file calls the gripper's, in the tool frame; GraspGen's of the Panda hand."""

    def read(self, path: str | Path) -> ContactCandidates:
        """Grasps of an isaac_grasp file; the opening is that of the pre-grasp where it is given."""
        document = _document(path)
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
        rows = [self._entry(f"{path}: grasps.{name}", value) for name, value in entries.items()]
        X = np.stack([row[0] for row in rows])
        width, score = np.array([row[1:] for row in rows]).T
        return _grasps(self.X_world_reference @ X @ inverse(self.X_tool_gripper), width, score)

    def write(self, path: str | Path, grasps: ContactCandidates) -> None:
        """Write all grasps; the object is taken to be closed on where the fingers meet (position 0)."""
        _only_grasps(grasps)
        X = inverse(self.X_world_reference) @ grasps.X_world_tool @ self.X_tool_gripper
        quat = quat_wxyz_from_matrix(X[:, :3, :3])
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
        text = _dumper(path)(document)
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
        turn = value["orientation"]
        if not isinstance(turn, Mapping) or set(turn) != {"w", "xyz"}:
            raise ValueError(f"{where}.orientation: expected w and xyz, got {turn!r}")
        xyz = checks.array(f"{where}.orientation.xyz", turn["xyz"], (3,))
        quat = np.concatenate([checks.array(f"{where}.orientation.w", [turn["w"]], (1,)), xyz])
        if abs(np.linalg.norm(quat) - 1) > 1e-2:
            raise ValueError(
                f"{where}.orientation: expected a unit quaternion, got length {np.linalg.norm(quat):.3g}"
            )
        position = checks.array(f"{where}.position", value["position"], (3,))
        confidence = checks.array(f"{where}.confidence", [value["confidence"]], (1,))[0]
        return (
            pose(matrix_from_quat_wxyz(quat), position),
            self._width(where, value),
            float(confidence),
        )

    def _width(self, where: str, value: Mapping[str, Any]) -> float:
        """Opening (m) of the first of the gripper's joints that the pre-grasp, or else the grasp, names."""
        for key in ("pregrasp_cspace_position", "cspace_position"):
            joints = value.get(key) or {}
            if not isinstance(joints, Mapping):
                raise ValueError(
                    f"{where}.{key}: expected joint positions by name, got {type(joints).__name__}"
                )
            for column, name in enumerate(self.gripper.joints):
                if name in joints:
                    q = checks.array(f"{where}.{key}.{name}", [joints[name]], (1,))[0]
                    table = self.gripper.table_joints[:, column]
                    order = np.argsort(table)  # some fingers open with falling joint positions
                    return float(np.interp(q, table[order], self.gripper.table_width[order]))
        return self.gripper.max_width


def _frame(axes: FloatArray, behind: FloatArray) -> FloatArray:
    """X_tool_other (..., 4, 4) of a frame with `axes` (3, 3), its origin `behind` (...,) metres before the pads."""
    return pose(axes, -np.asarray(behind, float)[..., None] * np.array([0.0, 0.0, 1.0]))


def _grasps(X: FloatArray, width: FloatArray, score: FloatArray) -> ContactCandidates:
    return best_first(X, width, score, "grasp", 0)


def _rotations(name: str, R: FloatArray) -> FloatArray:
    """Rotations (G, 3, 3) as stored in single precision, made orthonormal again."""
    error = np.abs(np.swapaxes(R, -1, -2) @ R - np.eye(3)).max()
    if error > 1e-2 or np.linalg.det(R).min() < 0:
        raise ValueError(
            f"{name}: expected rotations, got |R^T R - I| = {error:.2g}, det >= {np.linalg.det(R).min():.2g}"
        )
    U, _, Vt = np.linalg.svd(R)
    return U @ Vt


def _widths(name: str, width: FloatArray) -> FloatArray:
    if width.min() < 0 or width.max() > 1:
        raise ValueError(
            f"{name}: expected metres in [0, 1], got [{width.min():g}, {width.max():g}]; convert to metres"
        )
    return width


def _only_grasps(grasps: ContactCandidates) -> None:
    pushes = sum(kind == "push" for kind in grasps.kind)
    if pushes:
        raise ValueError(
            f"grasps: {pushes} of {len(grasps)} are pushes, which this format has no place for; drop them"
        )


def _suffix(path: str | Path, *valid: str) -> str:
    suffix = Path(path).suffix.lower()
    checks.choice(f"{path}: suffix", suffix, valid)
    return suffix


def _numpy_file(path: str | Path) -> NDArray[Any]:
    value = _load_numpy(path, ".npy")
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{path}: expected one array, got an archive")
    return value


def _numpy_archive(path: str | Path) -> dict[str, NDArray[Any]]:
    value = _load_numpy(path, ".npz")
    if isinstance(value, np.ndarray):
        raise ValueError(f"{path}: expected an archive of named arrays, got one array")
    with value:
        return {key: _unpickled(path, partial(value.__getitem__, key)) for key in value.files}


def _load_numpy(path: str | Path, suffix: str) -> Any:
    _suffix(path, suffix)
    return _unpickled(path, lambda: np.load(path, allow_pickle=False))


def _unpickled(path: str | Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"{path}: not a whole numpy file ({type(error).__name__}); write it again"
        ) from None
    except ValueError as error:
        pickled = "pickle" in str(error) or "Object arrays" in str(error)
        what = (
            "holds pickled objects, which run code when read; save plain arrays"
            if pickled
            else "not a numpy file"
        )
        raise ValueError(f"{path}: {what}") from None


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise ValueError(
            "isaac_grasp in YAML needs PyYAML: pip install pyyaml, or use a .json file"
        ) from None
    return yaml


def _document(path: str | Path) -> Mapping[str, Any]:
    """The fields of a .yaml, .yml or .json file."""
    suffix = _suffix(path, ".yaml", ".yml", ".json")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text ({type(error).__name__})") from None
    try:
        if suffix == ".json":
            value = json.loads(text)
        else:
            yaml = _yaml()
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(" ".join(str(error).split())) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid {suffix[1:]}: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected named fields, got {type(value).__name__}")
    return value


def _dumper(path: str | Path) -> Callable[[Mapping[str, Any]], str]:
    if _suffix(path, ".yaml", ".yml", ".json") == ".json":
        return lambda document: json.dumps(document, indent=1)
    yaml = _yaml()
    return lambda document: yaml.safe_dump(document, sort_keys=False, default_flow_style=None)
