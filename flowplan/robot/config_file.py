"""Robot files: one TOML file per robot, each table checked against the URDF that the file names.

`robot_configs/NAME.toml` names the URDF, the arm's joints and their limits, the tool frame, the
gripper's opening table and the collision spheres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import matrix_from_rpy, pose
from flowplan.robot.gripper import Gripper
from flowplan.robot.kinematics import tree_poses
from flowplan.robot.robot import Robot
from flowplan.robot.urdf import Joint, Urdf, read_urdf
from flowplan.robot.urdf_meshes import collision_hulls
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import inside
from flowplan.utils.toml_table import Table

TABLES = ["name", "urdf", "base_link", "arm", "tool", "gripper", "spheres", "self_collision"]
LIMITS = ["lower", "upper", "velocity", "acceleration", "jerk", "home"]
GRIPPER = [
    "max_width",
    "force",
    "finger_links",
    "hand_links",
    "finger_depth",
    "pad_size",
    "opening",
    "boxes",
]


def load_robot(
    name_or_path: str | Path,
    X_world_base: FloatArray | None = None,
    *,
    allow_outside: bool = False,
) -> Robot:
    """Read a robot file and the URDF that it names.

    Args:
        name_or_path: a robot of this project ("panda", "ur5e"), or the path of a .toml file.
        X_world_base: (4, 4) pose of its base. Defaults to the world's origin.
        allow_outside: the URDF may lie outside of the robot file's folder, and meshes outside of
            the URDF's folder and its package.

    Raises:
        ValueError: one line that names the file, the field, the value and the valid ones.
    """
    path = _robot_file(name_or_path)
    file = Table.read(path, TABLES)
    source = inside(path.parent, file.text("urdf"), f"{path}: urdf", allow_outside=allow_outside)
    urdf = read_urdf(source, allow_outside=allow_outside)
    _refuse_capsules(urdf)
    if file.one_of("base_link", urdf.links) != urdf.root:
        raise file.error(
            "base_link",
            f"got {file.text('base_link')!r}, expected the root of the URDF, {urdf.root!r}",
        )
    # Tables in the order in which they refer to each other.
    arm = read_arm(file, urdf)
    tool_link, X_link_tool = read_tool(file, urdf, arm["joint_names"])
    gripper = read_gripper(file, urdf, arm["joint_names"], tool_link, X_link_tool)
    link, spheres = read_spheres(file, urdf)
    # Pairs that self-collision checks leave out: the file's, and rigid ones.
    listed = file.table("self_collision", ["ignore"]).pairs("ignore", urdf.links)
    ignored = listed | rigid_pairs(urdf, arm["joint_names"])
    return Robot(
        name=file.text("name"),
        urdf_path=urdf.path,
        base_link=urdf.root,
        **arm,
        link_names=urdf.links,
        tool_link=tool_link,
        X_link_tool=X_link_tool,
        X_world_base=pose() if X_world_base is None else X_world_base,
        gripper=gripper,
        sphere_link=link,
        sphere_center=spheres[:, :3],
        sphere_radius=spheres[:, 3],
        self_pairs=self_pairs(urdf, link, ignored),
        collision_meshes=collision_hulls(urdf),
        ignored_link_pairs=ignored,
        joints=urdf.joints,
        file=path,
    )


def _refuse_capsules(urdf: Urdf) -> None:
    """Refuse capsules that a robot collides with: pinocchio's reader drops links that have one."""
    for link in urdf.links:
        for shape in urdf.shapes(link, "collision"):
            if shape.kind == "capsule":
                raise ValueError(
                    f"{shape.where}: <capsule> is read for scenes, not for robots; "
                    "replace it by a cylinder and two spheres"
                )


def _robot_file(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return path
    folder = Path(str(resources.files("robot_configs")))
    known = sorted(p.stem for p in folder.glob("*.toml"))
    checks.choice("robot", str(name_or_path), [*known, "or the path of a .toml file"])
    return folder / f"{name_or_path}.toml"


class Arm(TypedDict):
    """The fields of a Robot that `[arm]` gives."""

    joint_names: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray
    home: FloatArray


def read_arm(file: Table, urdf: Urdf) -> Arm:
    """`[arm]`: the joints, base to tip, and their limits, within the URDF's position limits."""
    table = file.table("arm", ["joints", *LIMITS])
    # Joints of the URDF, base to tip, and a number each per limit.
    movable = {j.name: j for j in urdf.joints if j.kind != "fixed"}
    names = table.names("joints", list(movable))
    if not names:
        raise table.error(
            "joints", f"expected at least one joint of the URDF: {', '.join(movable)}"
        )
    _check_order(table, urdf, movable, names)
    value = {key: table.numbers(key, (len(names),)) for key in LIMITS}
    for key in ("velocity", "acceleration", "jerk"):
        if (value[key] <= 0).any():
            raise table.error(key, f"expected positive limits, got {value[key].tolist()}")
    for i, name in enumerate(names):
        lower, upper, home = (float(value[key][i]) for key in ("lower", "upper", "home"))
        if lower >= upper:
            raise table.error(
                "lower", f"{name!r}: lower {lower:g} is not below upper {upper:g}; swap them"
            )
        if not lower <= home <= upper:
            raise table.error("home", f"{name!r}: {home:g} is outside [{lower:g}, {upper:g}]")
        joint = movable[name]
        if lower < joint.lower - 1e-6 or upper > joint.upper + 1e-6:
            raise table.error(
                "lower" if lower < joint.lower else "upper",
                f"{name!r}: [{lower:g}, {upper:g}] is wider than the URDF's "
                f"[{joint.lower:g}, {joint.upper:g}]; correct whichever is not the maker's",
            )
    return {"joint_names": names, **value}  # type: ignore[typeddict-item]


def _check_order(
    table: Table, urdf: Urdf, movable: Mapping[str, Joint], names: Sequence[str]
) -> None:
    """Refuse joints that do not follow from each other, up to fixed joints between them."""
    reached = {urdf.root}
    for name in names:
        # All links that the base, or the joint before, carries.
        for joint in urdf.joints:
            if joint.parent in reached and joint.name not in names:
                reached.add(joint.child)
        if movable[name].parent not in reached:
            raise table.error(
                "joints",
                f"{name!r} does not follow from the joint before it; list them base to tip",
            )
        reached = {movable[name].child}


def read_tool(file: Table, urdf: Urdf, arm: tuple[str, ...]) -> tuple[str, FloatArray]:
    """`[tool]`: a link fixed to the last arm joint, and X_link_tool (4, 4)."""
    table = file.table("tool", ["link", "xyz", "rpy"])
    # Links that the last arm joint carries without another joint between.
    carried = [next(j.child for j in urdf.joints if j.name == arm[-1])]
    for joint in urdf.joints:
        if joint.parent in carried and joint.kind == "fixed":
            carried.append(joint.child)
    link = table.one_of("link", carried)
    return link, pose(matrix_from_rpy(table.numbers("rpy", (3,))), table.numbers("xyz", (3,)))


def read_gripper(
    file: Table, urdf: Urdf, arm: tuple[str, ...], tool_link: str, X_link_tool: FloatArray
) -> Gripper:
    """`[gripper]`: its links lie below the tool's; every joint that is not the arm's is its own."""
    table = file.table("gripper", GRIPPER)
    # Links below the tool link, and joints that are not the arm's.
    below = tree_poses(urdf.joints, tool_link, {})
    links = [link for link in urdf.links if link in below]
    movable = [j for j in urdf.joints if j.kind != "fixed" and j.name not in arm]
    max_width = table.number("max_width")
    width, positions, pad_z = _read_opening(table, movable, max_width)
    fingers = table.names("finger_links", links)
    if len(fingers) != 2:
        raise table.error(
            "finger_links", f"expected two links, the tool's +y side first, got {len(fingers)}"
        )
    boxes = table.tables("boxes", ["link", "center", "size"], ["rpy"])
    if not boxes:
        raise table.error("boxes", "expected at least one box, got none")
    return Gripper(
        max_width=max_width,
        force=table.number("force"),
        joints=tuple(j.name for j in movable),
        table_width=width,
        table_joints=positions,
        table_pad_z=pad_z,
        finger_links=fingers,
        hand_links=table.names("hand_links", links),
        finger_depth=table.number("finger_depth"),
        pad_size=table.numbers("pad_size", (2,)),
        box_link=tuple(box.one_of("link", links) for box in boxes),
        X_link_box=np.stack([_box_pose(box) for box in boxes]),
        box_size=np.stack([box.numbers("size", (3,)) for box in boxes]),
        tree=tuple(j for j in urdf.joints if j.parent in below),
        tool_link=tool_link,
        X_link_tool=X_link_tool,
    )


def _box_pose(box: Table) -> FloatArray:
    rpy = box.numbers("rpy", (3,), default=np.zeros(3))
    return pose(matrix_from_rpy(rpy), box.numbers("center", (3,)))


def _read_opening(
    gripper: Table, movable: list[Joint], max_width: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`[gripper.opening]`: openings (W,), joint positions (W, n) and z (W,) of the pads' center."""
    table = gripper.table("opening", ["width", "joints"], ["pad_z"])
    width = table.numbers("width", ("W",))
    if width[0] != 0 or width[-1] != max_width or (np.diff(width) <= 0).any():
        raise table.error(
            "width",
            f"expected ascending openings from 0 to max_width {max_width:g}, got {width.tolist()}",
        )
    if not movable:
        raise table.error(
            "joints",
            "expected joints that open the gripper, but the URDF has none beside the arm's",
        )
    joints = table.table("joints", [j.name for j in movable])
    # Positions of each joint at every opening, within the URDF's limits.
    columns = []
    for joint in movable:
        column = joints.numbers(joint.name, (len(width),))
        low, high = float(column.min()), float(column.max())
        if low < joint.lower - 1e-9 or high > joint.upper + 1e-9:
            limits = f"[{joint.lower:g}, {joint.upper:g}]"
            raise joints.error(
                joint.name, f"[{low:g}, {high:g}] leaves the limits of the URDF, {limits}"
            )
        columns.append(column)
    pad_z = table.numbers("pad_z", (len(width),), default=np.zeros(len(width)))
    return width, np.stack(columns, axis=-1), pad_z


def read_spheres(file: Table, urdf: Urdf) -> tuple[NDArray[np.int64], FloatArray]:
    """`[spheres]`: link indices (K,) and x, y, z, radius (K, 4), in the URDF's link order."""
    table = file.table("spheres", [], urdf.links)
    link, spheres = [], []
    for index, name in enumerate(urdf.links):
        if name not in table:
            continue
        rows = table.numbers(name, ("K", 4))
        if (rows[:, 3] <= 0).any():
            raise table.error(
                name, f"expected positive radii in the fourth column, got {rows[:, 3].tolist()}"
            )
        link.append(np.full(len(rows), index))
        spheres.append(rows)
    if not spheres:
        raise file.error(
            "spheres", "expected [x, y, z, radius] rows for at least one link, got none"
        )
    return np.concatenate(link), np.concatenate(spheres)


def rigid_pairs(urdf: Urdf, arm: tuple[str, ...]) -> frozenset[frozenset[str]]:
    """Pairs of links with no arm joint between them, whose distance the arm does not change."""
    # The arm joint, or the root, that each link is fixed to.
    carrier = {urdf.root: urdf.root}
    for joint in urdf.joints:
        carrier[joint.child] = joint.name if joint.name in arm else carrier[joint.parent]
    pairs = combinations(urdf.links, 2)
    return frozenset(frozenset((a, b)) for a, b in pairs if carrier[a] == carrier[b])


def self_pairs(
    urdf: Urdf, link: NDArray[np.int64], ignored: frozenset[frozenset[str]]
) -> NDArray[np.int64]:
    """Index pairs (P, 2) of the spheres that self-collision checks compare.

    Args:
        urdf: names of the links.
        link: (K,) link index of each sphere.
        ignored: pairs of links that are left out.
    """
    names = [urdf.links[i] for i in link]
    # All pairs of spheres, without those of one link or of an ignored pair.
    a, b = np.triu_indices(len(link), 1)  # (K (K - 1) / 2,) each
    named = ((names[i], names[j]) for i, j in zip(a, b, strict=True))
    keep = [one != other and frozenset((one, other)) not in ignored for one, other in named]
    return np.stack([a[keep], b[keep]], axis=-1)
