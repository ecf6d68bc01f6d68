"""The shake test of a grasp: a floating hand closes on an object, lifts it, and shakes it on every axis.

The hand is the robot's own: its links, cut out of the robot's URDF, on six joints (three slides and three turns about
the tool's origin) that move as told whatever they carry. The object stands on the table; friction alone holds it. The
idea is that of Eppner et al. (ISRR 2019), the shakes are harder: 5 cm at 4 Hz (3.2 g) along each axis of the tool, then
45 degrees at 1 Hz about each.

Objects are five of the vendored scans (fingers cannot get under the rim of the sixth, the plate, where it lies) and
what PyBullet itself brings: a mug, a duck and every 250th of its thousand random shapes. Each is made of convex
pieces; grasps are proposed on the union of these, which is what the simulator collides. Masses are drawn anew for
every trial, since what 30 N can hold at 3 g is light.

| verdict | means |
|---|---|
| held | never lost, and moved in the hand by less than `slip_distance` and `slip_angle` since the fingers closed |
| slip | never lost, but moved by more |
| drop | lost between closing and the end |
| miss | the fingers closed on nothing |
| collide | the hand ran into the object or the table before it closed |
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pybullet_data
import trimesh

from flowplan.geometry import angle_between, exp_so3, inverse, pose, rpy_from_matrix
from flowplan.grasp import ContactCandidates
from flowplan.grasp.antipodal import antipodal_pairs
from flowplan.grasp.candidates import best_first
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.propose import GraspOptions, propose_grasps
from flowplan.grasp.surface import object_cloud
from flowplan.motion import Progress, silent
from flowplan.robot import Robot, load_robot
from flowplan.robot.gripper import Gripper
from flowplan.robot.urdf import Joint, read_urdf
from flowplan.robot.urdf_xml import read_xml
from flowplan.scene import Scene, SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.records import record
from flowplan.utils.stats import wilson
from sim_envs.arm import Arm
from sim_envs.assets import SCANNED, urdf_path
from sim_envs.camera import OnStep
from sim_envs.world import TABLE, World

VERDICTS = ("held", "slip", "drop", "miss", "collide")

_BROUGHT = Path(pybullet_data.getDataPath())
OBJECTS: dict[str, tuple[Path, float]] = {
    **{
        name: (urdf_path(name).parent / "collision.obj", 1.0) for name in SCANNED if name != "plate"
    },
    "mug": (_BROUGHT / "objects" / "mug_col.obj", 1.0),
    "duck": (_BROUGHT / "duck_vhacd.obj", 0.05),
    **{
        f"random_{i}": (_BROUGHT / "random_urdfs" / i / f"{i}.obj", 0.015)
        for i in ("000", "250", "500", "750")
    },
}
"""Mesh of convex pieces, and metres to its unit, by name."""

GraspArm = Callable[[SceneObject, Scene, Gripper, int], ContactCandidates]
"""A way to choose grasps: (object, scene, gripper, seed) -> grasps, of which the first is tried."""


@dataclass(frozen=True)
class ShakeOptions:
    """How hard it is."""

    force: float = 30.0
    """Newtons between the pads."""
    friction: tuple[float, float] = (0.5, 0.9)
    """Range of the coefficient between pads and object, from what the proposer trusts upwards."""
    mass: tuple[float, float] = (0.05, 0.25)
    """Range of the object's mass, kilograms."""
    distance: float = 0.05
    """Metres to either side, along each axis of the tool."""
    distance_rate: float = 4.0
    """Hertz."""
    angle: float = np.pi / 4
    """Radians to either side, about each axis of the tool."""
    angle_rate: float = 1.0
    """Hertz."""
    lift: float = 0.35
    """Metres, straight up, before shaking."""
    approach: float = 0.06
    """Metres along the tool's z, with open fingers."""
    slip_distance: float = 0.02
    """Metres that a held object may have moved in the hand."""
    slip_angle: float = 0.5
    """Radians that it may have turned."""
    bump_distance: float = 0.01
    """Metres that an object may move before the fingers close."""
    bump_force: float = 10.0
    """Newtons that the hand may press on the table with."""

    def __post_init__(self) -> None:
        for name in ("force", "distance_rate", "angle_rate", "lift", "slip_distance", "slip_angle"):
            checks.positive(f"ShakeOptions.{name}", getattr(self, name))
        for name in ("distance", "angle", "approach", "bump_distance", "bump_force"):
            checks.positive(f"ShakeOptions.{name}", getattr(self, name), zero=True)
        for name in ("friction", "mass"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(
                    f"ShakeOptions.{name}: expected 0 <= low <= high, got {low:g}, {high:g}"
                )


@dataclass(frozen=True)
class Shake:
    """What came of one trial.

    Attributes:
        verdict: one of VERDICTS.
        distance: metres the object moved in the hand since the fingers closed; -1 where it was not held to the end.
        angle: radians it turned in the hand; -1 likewise.
        friction, mass: what was drawn; kilograms.
    """

    verdict: str
    distance: float
    angle: float
    friction: float
    mass: float


@dataclass(frozen=True, eq=False)
class ShakeObject:
    """A rigid thing made of convex pieces.

    Attributes:
        name: for the log.
        mesh: union of the pieces, link frame, metres.
        urdf_path: of one link with these pieces, of 1 kg spread evenly.
    """

    name: str
    mesh: trimesh.Trimesh
    urdf_path: Path


def convex_object(name: str, obj_path: Path, folder: Path, *, scale: float = 1.0) -> ShakeObject:
    """The convex hulls of an OBJ's connected parts as one body, whose URDF is written to `folder`.

    Args:
        name: also of the file.
        obj_path: mesh in file units.
        folder: must outlive the object.
        scale: metres to a file unit.
    """
    parts = trimesh.load_mesh(obj_path, process=False).split(only_watertight=False)
    hulls = [trimesh.convex.convex_hull(scale * np.asarray(part.vertices)) for part in parts]
    mesh = trimesh.boolean.union(hulls)
    first, lines = 1, []
    for i, hull in enumerate(hulls):
        lines += [f"o piece_{i}", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in hull.vertices)]
        lines += ["f " + " ".join(map(str, face)) for face in hull.faces + first]
        first += len(hull.vertices)
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    centre, inertia = mesh.center_mass, mesh.moment_inertia / mesh.volume
    shape = f'<geometry><mesh filename="{name}.obj"/></geometry>'
    urdf_path = folder / f"{name}.urdf"
    urdf_path.write_text(
        f'<robot name="{name}"><link name="{name}"><inertial><origin xyz="{centre[0]} {centre[1]} {centre[2]}"/>'
        f'<mass value="1"/><inertia ixx="{inertia[0, 0]}" iyy="{inertia[1, 1]}" izz="{inertia[2, 2]}" '
        f'ixy="{inertia[0, 1]}" ixz="{inertia[0, 2]}" iyz="{inertia[1, 2]}"/></inertial>'
        f"<visual>{shape}</visual><collision>{shape}</collision></link></robot>"
    )
    return ShakeObject(name, mesh, urdf_path)


def shake_objects(folder: Path, names: Sequence[str]) -> tuple[ShakeObject, ...]:
    """Objects of the benchmark by name, their files written to `folder`."""
    for name in names:
        checks.choice("objects", name, list(OBJECTS))
    return tuple(
        convex_object(name, path, folder, scale=scale)
        for name in names
        for path, scale in [OBJECTS[name]]
    )


def floating_hand(robot: Robot, folder: Path) -> Robot:
    """The robot's hand on six joints that carry its tool frame; at zero that frame is X_world_base.

    Its URDF is written to `folder`, which must outlive it. It is for the simulator: it has no collision spheres.
    """
    urdf = read_urdf(robot.urdf_path)
    hand = {robot.tool_link}
    for joint in urdf.joints:
        if joint.parent in hand:
            hand.add(joint.child)
    tree = read_xml(robot.urdf_path)
    out = ET.Element("robot", name="hand")
    for material in tree.findall("material"):
        out.append(material)
    for link in tree.findall("link"):
        if link.get("name") in hand:
            for mesh in link.iter("mesh"):
                mesh.set(
                    "filename",
                    str((Path(robot.urdf_path).parent / mesh.attrib["filename"]).resolve()),
                )
            out.append(link)
    for element in tree.findall("joint"):
        parent = element.find("parent")
        if parent is not None and parent.get("link") in hand:
            out.append(element)
    names = tuple(f"gantry_{kind}_{axis}" for kind in ("slide", "turn") for axis in "xyz")
    joints = _add_gantry(out, names, robot)
    path = folder / "hand.urdf"
    ET.ElementTree(out).write(path)
    six = np.zeros(6)
    return replace(
        robot,
        name=f"{robot.name}_hand",
        urdf_path=path,
        base_link="gantry_base",
        joint_names=names,
        lower=six - 10,
        upper=six + 10,
        velocity=six + 100,
        acceleration=six + 1000,
        jerk=six + 1e5,
        home=six,
        link_names=(
            "gantry_base",
            *(j.child for j in joints),
            *(j.child for j in robot.gripper.tree),
        ),
        sphere_link=np.zeros(0, np.int64),
        sphere_center=np.zeros((0, 3)),
        sphere_radius=np.zeros(0),
        self_pairs=np.zeros((0, 2), np.int64),
        joints=(*joints, *robot.gripper.tree),
    )


def _add_gantry(out: ET.Element, names: tuple[str, ...], robot: Robot) -> tuple[Joint, ...]:
    """Append the gantry's links and joints to a URDF, and return the joints."""
    ET.SubElement(out, "link", name="gantry_base")
    joints, parent = [], "gantry_base"
    for i, name in enumerate(names):
        kind, axis = ("prismatic", "revolute")[i // 3], np.eye(3)[i % 3]
        _add_link(out, f"{name}_link")
        element = ET.SubElement(out, "joint", name=name, type=kind)
        ET.SubElement(element, "parent", link=parent)
        ET.SubElement(element, "child", link=f"{name}_link")
        ET.SubElement(element, "axis", xyz=" ".join(f"{a:g}" for a in axis))
        ET.SubElement(element, "limit", lower="-10", upper="10", effort="1e6", velocity="100")
        joints.append(Joint(name, kind, parent, f"{name}_link", pose(), axis, -10.0, 10.0))
        parent = f"{name}_link"
    X_tool_link = inverse(robot.X_link_tool)
    element = ET.SubElement(out, "joint", name="gantry_hand", type="fixed")
    ET.SubElement(element, "parent", link=parent)
    ET.SubElement(element, "child", link=robot.tool_link)
    xyz, rpy = X_tool_link[:3, 3], rpy_from_matrix(X_tool_link[:3, :3])
    ET.SubElement(
        element,
        "origin",
        xyz=" ".join(f"{v:.12g}" for v in xyz),
        rpy=" ".join(f"{v:.12g}" for v in rpy),
    )
    joints.append(
        Joint(
            "gantry_hand", "fixed", parent, robot.tool_link, X_tool_link, np.array([1.0, 0.0, 0.0])
        )
    )
    return tuple(joints)


def _add_link(out: ET.Element, name: str) -> None:
    inertial = ET.SubElement(ET.SubElement(out, "link", name=name), "inertial")
    ET.SubElement(inertial, "mass", value="1")
    ET.SubElement(
        inertial, "inertia", ixx="0.01", iyy="0.01", izz="0.01", ixy="0", ixz="0", iyz="0"
    )


def shake_trial(
    hand: Robot,
    thing: ShakeObject,
    X_world_object: FloatArray,
    X_world_tool: FloatArray,
    width: float,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
    options: ShakeOptions = ShakeOptions(),
) -> Shake:
    """Grasp, lift and shake once.

    Args:
        hand: from `floating_hand`.
        thing: what to hold.
        X_world_object: (4, 4) where it rests on the table.
        X_world_tool: (4, 4) the grasp.
        width: metres the fingers are apart before closing.
        seed: of friction and mass.
        on_step: called after every step, such as a `sim_envs.camera.Recorder`.
        options: see ShakeOptions.
    """
    rng = np.random.default_rng(seed)
    friction, mass = float(rng.uniform(*options.friction)), float(rng.uniform(*options.mass))
    hand = replace(
        hand, X_world_base=X_world_tool, gripper=replace(hand.gripper, force=options.force)
    )
    with World() as world:
        arm = Arm.add(world, hand)
        body = world.load(
            thing.urdf_path, X_world_object, name="object", friction=friction, mass_scale=mass
        )
        verdict, distance, angle = _Trial(world, arm, body, width, on_step, options).run()
    return Shake(verdict, distance, angle, friction, mass)


class _Trial:
    """One trial as it goes on."""

    def __init__(
        self,
        world: World,
        arm: Arm,
        body: int,
        width: float,
        on_step: OnStep | None,
        options: ShakeOptions,
    ) -> None:
        self.world, self.arm, self.body, self.width = world, arm, body, width
        self.on_step, self.options = on_step, options
        self.rate = world.options.rate

    def run(self) -> tuple[str, float, float]:
        """Verdict, and the object's motion in the hand."""
        options = self.options
        back = np.array([0, 0, -options.approach, 0, 0, 0])
        self.arm.reset(back, self.width)
        start = self.world.link_pose(self.body)[:3, 3]
        for q, qd in self._line(back, np.zeros(6), 0.5):
            self._step(q, qd, self.width)
            if self._table_force() > options.bump_force:
                return "collide", -1.0, -1.0
        if np.linalg.norm(self.world.link_pose(self.body)[:3, 3] - start) > options.bump_distance:
            return "collide", -1.0, -1.0
        for _ in range(round(0.6 * self.rate)):
            self._step(np.zeros(6), np.zeros(6), 0.0)
        if len(self._touching()) < 2:
            return "miss", -1.0, -1.0
        X_tool_object = self._in_hand()
        up = np.concatenate(
            [self.arm.robot.X_world_base[:3, :3].T @ [0, 0, options.lift], np.zeros(3)]
        )
        lost = 0
        for q, qd in self._motions(up):
            self._step(q, qd, 0.0)
            lost = 0 if self._touching() else lost + 1
            if lost > 0.1 * self.rate:
                return "drop", -1.0, -1.0
        moved = self._in_hand()
        distance = float(np.linalg.norm(moved[:3, 3] - X_tool_object[:3, 3]))
        angle = float(angle_between(moved[:3, :3], X_tool_object[:3, :3]))
        slipped = distance > options.slip_distance or angle > options.slip_angle
        return "slip" if slipped else "held", distance, angle

    def _motions(self, up: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Lift, shake along and about every axis, and hold still."""
        options = self.options
        yield from self._line(np.zeros(6), up, 0.8)
        for axis in range(6):
            size, hertz, seconds = (
                (options.distance, options.distance_rate, 1.25)
                if axis < 3
                else (options.angle, options.angle_rate, 2.0)
            )
            yield from self._shake(up, axis, size, hertz, seconds)
        yield from self._line(up, up, 0.3)

    def _line(
        self, a: FloatArray, b: FloatArray, seconds: float
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        s = np.linspace(0, 1, round(seconds * self.rate) + 1)[:, None]
        yield from self._play(a + (10 * s**3 - 15 * s**4 + 6 * s**5) * (b - a))

    def _shake(
        self, around: FloatArray, axis: int, size: float, hertz: float, seconds: float
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """A sine that swells and fades within a quarter of a second."""
        t = np.arange(round(seconds * self.rate) + 1) / self.rate
        swell = np.clip(np.minimum(t, seconds - t) / 0.25, 0, 1)
        swell = swell * swell * (3 - 2 * swell)
        yield from self._play(
            around + (size * swell * np.sin(2 * np.pi * hertz * t))[:, None] * np.eye(6)[axis]
        )

    def _play(self, path: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        yield from zip(path[:-1], np.diff(path, axis=0) * self.rate, strict=True)

    def _step(self, q: FloatArray, qd: FloatArray, width: float) -> None:
        self.arm.command(q, qd, width)
        self.world.step()
        if self.on_step is not None:
            self.on_step(self.world)

    def _in_hand(self) -> FloatArray:
        return inverse(self.arm.X_world_tool()) @ self.world.link_pose(self.body)

    def _table_force(self) -> float:
        return sum(c.force for c in self.arm.contacts() if c.body == TABLE)

    def _touching(self) -> set[int]:
        """The sides of the hand that touch the object."""
        sides = self.arm.finger_sides
        return {
            sides[c.link]
            for c in self.arm.contacts()
            if c.body == "object" and c.link in sides and c.force > 0.05
        }


def ranked(obj: SceneObject, scene: Scene, gripper: Gripper, seed: int) -> ContactCandidates:
    """The arm under test: the library's proposals, best first."""
    return propose_grasps(obj, scene, gripper, seed=seed)


def random_antipodal(
    obj: SceneObject, scene: Scene, gripper: Gripper, seed: int
) -> ContactCandidates:
    """The arm beside it: any antipodal pair that fits, from any side on which the open hand runs into nothing."""
    rng = np.random.default_rng(seed)
    options = GraspOptions()
    cloud = object_cloud(obj, gripper, rng)
    pairs = antipodal_pairs(obj, cloud, rng, samples=options.samples, friction=options.friction)
    pairs = pairs.select(pairs.width < gripper.max_width - 2 * options.clearance)
    pairs = pairs.select(rng.permutation(len(pairs))[:2000])
    y = (pairs.second - pairs.first) / pairs.width[:, None]
    z = np.cross(y, rng.normal(size=y.shape))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    X = pose(np.stack([np.cross(y, z), y, z], axis=-1), 0.5 * (pairs.first + pairs.second))
    width = np.minimum(pairs.width + 2 * options.opening, gripper.max_width)
    boxes = gripper_boxes(gripper, width)
    free = clear_of_points(X, boxes.approached(options.approach), cloud.points)
    if scene.support_height is not None:
        free &= lowest_point(X, boxes) > scene.support_height + options.clearance
    return best_first(
        X[free], width[free], np.zeros(int(free.sum())), "grasp", scene.index(obj.name)
    )


ARMS: dict[str, GraspArm] = {"ranked": ranked, "random": random_antipodal}
"""By name: what `bench_shake` compares."""


def bench_shake(
    objects: Sequence[str] = tuple(OBJECTS),
    arms: Mapping[str, GraspArm] = ARMS,
    *,
    n: int = 10,
    robot: str = "panda",
    seed: int = 0,
    progress: Progress = silent,
    options: ShakeOptions = ShakeOptions(),
) -> list[dict[str, Any]]:
    """Share of grasps that are held, over objects, poses, friction and mass, with Wilson intervals at 95 %.

    Args:
        objects: names in OBJECTS.
        arms: ways to choose a grasp, by name. Trial i of an object is the same for all of them.
        n: trials of each object and arm.
        robot: whose hand.
        seed: of every random choice.
        progress: called before each trial.
        options: see ShakeOptions.

    Returns:
        JSON records `grasp/shake/<arm>` (held), `.../low95`, `.../high95` and one for each other verdict. An arm that
        proposes nothing has missed.
    """
    verdicts: dict[str, list[str]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as folder:
        hand = floating_hand(load_robot(robot), Path(folder))
        things = shake_objects(Path(folder), objects)
        for i, trial in np.ndindex(len(things), n):
            progress((i * n + trial) / (len(things) * n), f"{things[i].name} {trial + 1}/{n}")
            key = int(np.random.SeedSequence((seed, i, trial)).generate_state(1)[0])
            obj = resting(things[i], key)
            for arm, choose in arms.items():
                grasps = choose(obj, Scene((obj,)), hand.gripper, key)
                verdicts[arm].append(_first_verdict(hand, things[i], obj, grasps, key, options))
    return [entry for arm, seen in verdicts.items() for entry in _records(arm, seen)]


def _first_verdict(
    hand: Robot,
    thing: ShakeObject,
    obj: SceneObject,
    grasps: ContactCandidates,
    seed: int,
    options: ShakeOptions,
) -> str:
    if not len(grasps):
        return "miss"
    X, width = grasps.X_world_tool[0], float(grasps.width[0])
    return shake_trial(
        hand, thing, obj.X_world_object, X, width, seed=seed, options=options
    ).verdict


def _records(arm: str, verdicts: Sequence[str]) -> list[dict[str, Any]]:
    total = len(verdicts)
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    low, high = wilson(counts["held"], total)
    key = f"grasp/shake/{arm}"
    values = [
        (key, counts["held"] / total, "up"),
        (f"{key}/low95", low, "up"),
        (f"{key}/high95", high, "up"),
    ]
    values += [(f"{key}/{verdict}", counts[verdict] / total, "down") for verdict in VERDICTS[1:]]
    return [
        record(key, value, "share", direction, total, decimals=4)
        for key, value, direction in values
    ]


def resting(thing: ShakeObject, seed: int) -> SceneObject:
    """A thing as it comes to rest on the table, turned at random about the vertical."""
    yaw = np.random.default_rng(seed).uniform(-np.pi, np.pi)
    X = pose(exp_so3([0, 0, yaw]), [0, 0, 0.002 - thing.mesh.bounds[0, 2]])
    with World() as world:
        body = world.load(thing.urdf_path, X, name=thing.name, mass_scale=0.15)
        world.settle(4.0)
        return SceneObject(thing.name, thing.mesh, world.link_pose(body))
