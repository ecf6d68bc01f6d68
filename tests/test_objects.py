"""Procedural articulated objects: the pieces they are made of, every family, and the URDF of
each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flowplan.geometry import exp_so3, matrix_from_quat_wxyz, pose, transform
from flowplan.robot.urdf import Joint, read_urdf
from flowplan.robot.urdf_meshes import collision_hulls
from generators.data.objects import primitives as shapes
from generators.data.objects import remeshing, sweeps
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.export import write_urdf
from generators.data.objects.families import FAMILIES, HELD_OUT, make
from generators.data.objects.parts import HANDLES, OPENS, handle

NAMES = sorted(FAMILIES)
SEEDS = range(4)
OBJECTS = {(name, seed): make(name, seed) for name in NAMES for seed in SEEDS}


def piece_volumes(mesh: trimesh.Trimesh) -> np.ndarray:
    """Signed volume of every connected piece of a mesh, m^3."""
    ends = mesh.edges
    graph = coo_matrix((np.ones(len(ends)), tuple(ends.T)), shape=[len(mesh.vertices)] * 2)
    count, label = connected_components(graph, directed=False)
    # About a vertex of the piece itself, so that rounding does not grow with the distance from the
    # origin.
    first = np.zeros(count, int)
    first[label[::-1]] = np.arange(len(label))[::-1]
    of_face = label[mesh.faces[:, 0]]
    a, b, c = (mesh.vertices[mesh.faces[:, i]] - mesh.vertices[first[of_face]] for i in range(3))
    return np.bincount(of_face, np.einsum("ij,ij->i", a, np.cross(b, c)) / 6, count)


PIECES = {
    "box": (shapes.box((1, 2, 3), (1, 0, -1)), (1, 2, 3), 6.0),
    "rounded box": (shapes.rounded_box((1, 2, 3), (0, 0, 0), 0.001, 2), (1, 2, 3), 6.0),
    "shell to -y": (shapes.shell_box((1, 2, 3), 0.1, open_to="-y"), (1, 2, 3), 6 - 0.8 * 1.9 * 2.8),
    "shell to z": (shapes.shell_box((1, 2, 3), 0.1, floor=0.3), (1, 2, 3), 6 - 0.8 * 1.8 * 2.7),
    "shell to x": (shapes.shell_box((1, 2, 3), 0.1, open_to="x"), (1, 2, 3), 6 - 0.9 * 1.8 * 2.8),
    "frame": (shapes.frame_box((1, 2, 3), 0.1, along="y"), (1, 2, 3), 6 - 0.8 * 2 * 2.8),
    "slab": (shapes.slab((1, 2, 3), axis="y"), (1, 2, 3), 6.0),
    "cylinder": (shapes.cylinder(1, 3, "x", sections=400), (3, 2, 2), 3 * np.pi),
    "pipe": (shapes.pipe(1, 0.5, 3, "y", sections=400), (2, 3, 2), 0.75 * 3 * np.pi),
    "cone": (
        shapes.lathe([(0, 0), (1, 0), (0.5, 1), (0, 2)], 400),
        (2, 2, 2),
        np.pi * (1.75 / 3 + 0.25 / 3),
    ),
    "cup": (shapes.cup([(1, 0), (1, 2)], 0.1, 400), (2, 2, 2), np.pi * (2 - 0.81 * 1.9)),
    "sphere": (shapes.sphere((1, 2, 3), sections=200), (2, 4, 6), 8 * np.pi),
    "bent bar": (
        sweeps.sweep([(0, 0, 0), (1, 0, 0), (1, 0, 1)], shapes.rectangle(0.1, 0.2)),
        (1.1, 0.1, 1.1),
        0.04,
    ),
    "loop": (
        sweeps.sweep(
            [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], shapes.rectangle(0.1, 0.2), closed=True
        ),
        (1.1, 1.1, 0.2),
        0.08,
    ),
    "arch": (
        shapes.band(
            [(1, 0), (1, 1), (-1, 1), (-1, 0)],
            [(0.9, 0), (0.9, 0.9), (-0.9, 0.9), (-0.9, 0)],
            3,
            "z",
        ),
        (2, 1, 3),
        (2 - 1.62) * 3,
    ),
}


@pytest.mark.parametrize("name", PIECES)
def test_pieces_are_closed_and_have_their_size_and_volume(name):
    mesh, extents, volume = PIECES[name]
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    np.testing.assert_allclose(mesh.extents, extents, atol=2e-3)
    assert mesh.volume == pytest.approx(volume, rel=1e-3)


def test_pointed_is_a_rotation_onto_the_axis():
    rod = shapes.box((0.1, 0.2, 1), (0, 0, 0.5))
    for axis in ("x", "-x", "y", "-y", "z", "-z", (1, 2, -3)):
        mesh = shapes.pointed(rod, axis)
        assert mesh.volume == pytest.approx(0.02)
        np.testing.assert_allclose(mesh.center_mass, 0.5 * shapes.direction(axis), atol=1e-12)


@pytest.mark.parametrize("name", PIECES)
def test_splitting_edges_keeps_the_surface(name):
    mesh = PIECES[name][0]
    longest = 0.3 * float(mesh.extents.max())
    rng = np.random.default_rng(0)
    vertices, faces = remeshing.split_edges(mesh.vertices, mesh.faces, longest, rng, 100_000)
    split = trimesh.Trimesh(vertices, faces, process=False)
    assert split.is_watertight
    assert split.edges_unique_length.max() <= longest
    assert split.volume == pytest.approx(mesh.volume, rel=1e-9)
    assert split.area == pytest.approx(mesh.area, rel=1e-9)


def test_remesh_never_exceeds_its_budget_and_varies():
    mesh = shapes.box((1, 1, 1))
    counts = {
        len(remeshing.remesh(mesh, np.random.default_rng(s), most_faces=300).faces)
        for s in range(20)
    }
    assert len(counts) > 3
    assert max(counts) <= 300


@pytest.mark.parametrize("kind", HANDLES)
def test_handles_stand_on_their_face(kind):
    mesh = handle(np.random.default_rng(1), kind, 0.2, (1, 2, 3), "-y", "z", reach=0.05)
    assert mesh.bounds[1, 1] == pytest.approx(
        2.0, abs=0.012
    )  # a bar's round ends may reach a little into the face
    assert 2 - mesh.bounds[0, 1] == pytest.approx(0.05, abs=0.015)
    assert mesh.extents[2] >= mesh.extents[0] - 1e-9


def test_doors_open_to_the_front():
    points = {"left": (1, 0, 0), "right": (-1, 0, 0), "bottom": (0, 0, 1), "top": (0, 0, -1)}
    for side, free in points.items():
        assert (exp_so3(0.1 * shapes.direction(OPENS[side])) @ free)[1] < 0


def test_assembly_places_links_by_their_joints():
    a = Assembly("crane", np.random.default_rng(0))
    a.add("base", shapes.box((1, 1, 1), (5, 5, 5)))
    a.add("arm", shapes.box((1, 0.1, 0.1), (5.5, 5, 5)))
    a.add("tip", shapes.box((0.1, 0.1, 0.1), (6, 5, 5)))
    a.add("cap", shapes.box((0.1, 0.1, 0.1), (6, 5, 5.1)))
    a.hinge("base", "arm", (5, 5, 5), "-y", 0, 2)
    a.slide("arm", "tip", "x", 0, 1, name="reach")
    a.fix("tip", "cap")
    a.follow("reach", "arm_joint", 0.5)
    obj = a.build()
    assert [j.name for j in obj.free] == ["arm_joint"]
    np.testing.assert_allclose(
        obj.posed([0.0]).bounds, [[-0.775, -0.5, 0], [0.775, 0.5, 1]], atol=1e-12
    )
    X = obj.link_poses([[np.pi / 2]])[0]
    arm = np.array([-0.275, 0, 0.5])
    # The tip was 1 m along x from the hinge; it now is 1 m above it, and half of pi / 2 further
    # out.
    np.testing.assert_allclose(X[2, :3, 3], arm + np.array([0, 0, 1 + np.pi / 4]), atol=1e-12)
    np.testing.assert_allclose(X[3, :3, 3], arm + np.array([-0.1, 0, 1 + np.pi / 4]), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_stands_and_has_a_sensible_size(name):
    for seed in SEEDS:
        obj = OBJECTS[name, seed]
        assert obj.name == name
        home = obj.posed(np.zeros(len(obj.free)))
        assert np.isfinite(home.vertices).all()
        assert abs(home.bounds[0, 2]) < 1e-6 or home.bounds[0, 2] > 0
        assert 0.02 <= home.extents.max() <= (4.0 if name in ("seesaw", "swing") else 2.5)
        assert 1 <= len(obj.free) <= 16
        assert (obj.lower <= 0).all()
        assert (obj.upper >= 0).all()
        assert (obj.upper - obj.lower > 1e-3).all()
        assert len(home.faces) < 40_000


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_made_of_closed_pieces(name):
    for seed in SEEDS:
        for link, mesh in OBJECTS[name, seed].links.items():
            if len(mesh.faces):
                assert mesh.is_watertight, (seed, link)
                assert mesh.is_winding_consistent, (seed, link)
                assert piece_volumes(mesh).min() > 0, (seed, link)


@pytest.mark.parametrize("name", NAMES)
def test_every_joint_moves_its_links_and_no_other(name):
    for seed in SEEDS:
        obj = OBJECTS[name, seed]
        home = obj.link_poses(np.zeros((1, len(obj.free))))[0]
        followers = {
            j.name: {j.name} | {n for n, m in obj.mimic.items() if m.joint == j.name}
            for j in obj.free
        }
        for i, joint in enumerate(obj.free):
            q = np.zeros(len(obj.free))
            q[i] = joint.upper if joint.upper > -joint.lower else joint.lower
            X = obj.link_poses(q[None])[0]
            moving: set[str] = set()
            for j in obj.joints:
                if j.name in followers[joint.name] or j.parent in moving:
                    moving.add(j.child)
            for k, (link, mesh) in enumerate(obj.links.items()):
                shift = np.abs(
                    transform(X[k], mesh.vertices) - transform(home[k], mesh.vertices)
                ).max(initial=0.0)
                if link not in moving:
                    assert shift == 0, (seed, joint.name, link)
                elif link == joint.child and len(mesh.faces):
                    assert shift > 1e-3, (seed, joint.name, link)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_one_object_and_another_seed_another(name):
    first, again, other = OBJECTS[name, 0], make(name, 0), OBJECTS[name, 1]
    assert list(first.links) == list(again.links)
    for link in first.links:
        np.testing.assert_array_equal(first.links[link].vertices, again.links[link].vertices)
        np.testing.assert_array_equal(first.links[link].faces, again.links[link].faces)
    boxes = [o.posed(np.zeros(len(o.free))).extents for o in (first, other)]
    assert np.abs(boxes[0] - boxes[1]).max() > 1e-3


def test_families_are_known_by_name():
    assert {"laptop", "desk_lamp", "drawer_cabinet", "hinged_box"} <= set(FAMILIES)
    assert set(HELD_OUT) <= set(FAMILIES)
    with pytest.raises(ValueError, match="family: expected one of .*laptop.*, got 'lapdog'"):
        make("lapdog", 0)


@pytest.mark.parametrize("name", NAMES)
def test_urdf_keeps_the_tree_and_the_poses(name, tmp_path: Path):
    obj = OBJECTS[name, 1]
    urdf = read_urdf(write_urdf(obj, tmp_path))
    assert set(urdf.links) == set(obj.links)
    read = {j.name: j for j in urdf.joints}
    hulls = collision_hulls(urdf)
    meshes = {link: hulls.get(link, trimesh.Trimesh()) for link in urdf.links}
    back = ArticulatedObject(name, meshes, urdf.joints)
    for j in obj.joints:
        assert (read[j.name].kind, read[j.name].parent, read[j.name].child) == (
            j.kind,
            j.parent,
            j.child,
        )
        if j.kind != "fixed":
            assert (read[j.name].lower, read[j.name].upper) == (j.lower, j.upper)
    q = obj.sample(np.random.default_rng(0), 3)
    positions = dict(zip([j.name for j in obj.joints], obj.joint_positions(q).T, strict=True))
    X = back.link_poses(np.stack([positions[j.name] for j in back.free], axis=1))
    where = [list(back.links).index(link) for link in obj.links]
    np.testing.assert_allclose(X[:, where], obj.link_poses(q), atol=1e-9)


@pytest.fixture(scope="module")
def bullet():
    pybullet = pytest.importorskip("pybullet")
    client = pybullet.connect(pybullet.DIRECT)
    yield pybullet
    pybullet.disconnect(client)


def bullet_disagreement(pybullet, obj: ArticulatedObject, path: Path) -> float:
    """Largest entry by which link poses in PyBullet differ from `link_poses` at a random
    configuration."""
    body = pybullet.loadURDF(str(path), useFixedBase=True)
    q = obj.sample(np.random.default_rng(0), 1)
    positions = dict(zip([j.name for j in obj.joints], obj.joint_positions(q)[0], strict=True))
    X = dict(zip(obj.links, obj.link_poses(q)[0], strict=True))
    links = {}
    for i in range(pybullet.getNumJoints(body)):
        info = pybullet.getJointInfo(body, i)
        links[i] = info[12].decode()
        pybullet.resetJointState(body, i, positions[info[1].decode()])
    assert len(links) == len(obj.joints)
    worst = 0.0
    for i, link in links.items():
        state = pybullet.getLinkState(body, i, computeForwardKinematics=True)
        R = matrix_from_quat_wxyz(np.roll(state[5], 1))
        worst = max(worst, float(np.abs(pose(R, state[4]) - X[link]).max()))
    pybullet.removeBody(body)
    return worst


@pytest.mark.parametrize("name", NAMES)
def test_urdf_loads_in_pybullet_with_the_same_poses(name, tmp_path: Path, bullet):
    obj = OBJECTS[name, 2]
    assert bullet_disagreement(bullet, obj, write_urdf(obj, tmp_path)) < 1e-6


def test_urdf_keeps_turned_frames_mimics_and_links_without_a_mesh(tmp_path: Path, bullet):
    rng = np.random.default_rng(0)
    links = {
        "root": shapes.box((1, 1, 1)),
        "arm one": shapes.box((1, 1, 1)),
        "bare": trimesh.Trimesh(),
        "tip": shapes.box((1, 1, 1)),
    }
    # The second is at URDF's singularity, a pitch of 90 degrees, with a roll besides.
    turns = [
        exp_so3(rng.normal(size=3)),
        exp_so3(np.array([0, np.pi / 2, 0])) @ exp_so3(np.array([0.4, 0, 0])),
        np.eye(3),
    ]
    names, kinds = list(links), ("revolute", "prismatic", "fixed")
    joints = [
        Joint(
            f"j{i}",
            kinds[i],
            names[i],
            names[i + 1],
            pose(turns[i], rng.normal(size=3)),
            np.eye(3)[i],
            -1.0,
            1.0,
        )
        for i in range(3)
    ]
    obj = ArticulatedObject("chain", links, tuple(joints))
    path = write_urdf(obj, tmp_path)
    assert bullet_disagreement(bullet, obj, path) < 1e-6
    assert set(collision_hulls(read_urdf(path))) == {"root", "arm one", "tip"}
