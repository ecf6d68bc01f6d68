"""PartNet-Mobility's folders and other URDFs: against closed forms, and PyBullet's reader on files nobody here wrote."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import trimesh

from flowplan.geometry import matrix_from_quat_xyzw, pose, rotation_about, transform
from generators.data.objects.partnet import (
    Assets,
    read_articulated,
    read_category,
    read_partnet,
    read_split,
)

MOBILITY = """<?xml version="1.0" ?>
<robot name="partnet_cabinet">
	<link name="base"/>
	<link name="link_0">
		<visual name="door-1"><origin xyz="0.4 0 -0.5"/>
			<geometry><mesh filename="textured_objs/original-1.obj"/></geometry></visual>
		<visual name="handle-2"><origin xyz="0.4 0 -0.5"/>
			<geometry><mesh filename="textured_objs/original-2.obj"/></geometry></visual>
		<collision><origin xyz="0.4 0 -0.5"/>
			<geometry><mesh filename="textured_objs/original-1.obj"/></geometry></collision>
	</link>
	<joint name="joint_0" type="revolute"><origin xyz="-0.4 0 0.5"/><axis xyz="0 -1 0"/>
		<child link="link_0"/><parent link="link_2"/><limit lower="0" upper="1.5"/></joint>
	<link name="link_1"><visual name="knob-3">
		<geometry><mesh filename="textured_objs/original-3.obj"/></geometry></visual></link>
	<joint name="joint_1" type="continuous"><origin xyz="0 0.2 0.5"/><axis xyz="0 0 1"/>
		<child link="link_1"/><parent link="link_1_helper"/></joint>
	<link name="link_1_helper"/>
	<joint name="joint_3" type="prismatic"><origin xyz="0 0 0"/><axis xyz="0 0 2"/>
		<child link="link_1_helper"/><parent link="link_2"/><limit lower="-0.1" upper="-0.02"/></joint>
	<link name="link_2"><visual name="frame-4">
		<geometry><mesh filename="textured_objs/original-4.obj"/></geometry></visual></link>
	<joint name="joint_2" type="fixed"><origin rpy="1.570796326794897 0 -1.570796326794897" xyz="0 0 0"/>
		<child link="link_2"/><parent link="base"/></joint>
</robot>
"""


def box(extents, center):
    return trimesh.creation.box(extents, pose(None, center))


PARTS = {
    1: box([0.8, 0.8, 0.02], [0, 0, 0.5]),
    2: box([0.02, 0.1, 0.05], [0.3, 0, 0.53]),
    3: box([0.05, 0.05, 0.05], [0, 0, 0]),
    4: box([0.8, 0.8, 1.0], [0, 0, 0]),
}


def write(root, name="45427", text=MOBILITY):
    folder = root / name
    (folder / "textured_objs").mkdir(parents=True)
    for i, mesh in PARTS.items():
        mesh.export(folder / "textured_objs" / f"original-{i}.obj")
    (folder / "mobility.urdf").write_text(text)
    return folder


def test_a_folder_becomes_an_object_with_its_visual_meshes(tmp_path):
    folder = write(tmp_path)
    cabinet = read_partnet(folder)
    assert cabinet.name == "45427"
    assert set(cabinet.links) == {"base", "link_0", "link_1", "link_1_helper", "link_2"}
    assert len(cabinet.links["base"].faces) == len(cabinet.links["link_1_helper"].faces) == 0
    assert len(cabinet.links["link_0"].vertices) == 16  # door and handle, not their hull
    free = {j.name: (j.kind, j.lower, j.upper) for j in cabinet.free}
    assert free["joint_0"] == ("revolute", 0, 1.5)
    assert free["joint_1"] == ("revolute", -np.pi, np.pi)
    assert free["joint_3"] == ("prismatic", -0.1, -0.02)
    # y up and facing +z in the meshes; z up and facing... +x after the base's fixed joint: roll, then yaw.
    turn = rotation_about([0, 0, 0], [0, 0, 1], -np.pi / 2) @ rotation_about(
        [0, 0, 0], [1, 0, 0], np.pi / 2
    )
    q = np.array(
        [{"joint_0": 0.7, "joint_1": -2.0, "joint_3": -0.05}[j.name] for j in cabinet.free]
    )
    found = dict(zip(cabinet.links, cabinet.link_poses(q[None])[0], strict=True))
    door = turn @ rotation_about([-0.4, 0, 0.5], [0, -1, 0], 0.7)
    parts = np.concatenate([transform(door, PARTS[i].vertices) for i in (1, 2)])
    moved = transform(found["link_0"], cabinet.links["link_0"].vertices)
    np.testing.assert_allclose(np.sort(moved, 0), np.sort(parts, 0), atol=1e-6)
    knob = turn @ pose(None, [0, 0.2, 0.45]) @ rotation_about([0, 0, 0], [0, 0, 1], -2.0)
    np.testing.assert_allclose(found["link_1"], knob, atol=1e-9)


def test_the_category_is_optional(tmp_path):
    folder = write(tmp_path)
    assert read_category(folder) == ""
    (folder / "meta.json").write_text('{"model_cat": "StorageFurniture", "anno_id": "45427"}')
    assert read_category(folder) == "StorageFurniture"
    for broken in ("{", "[]", '{"model_cat": 3}'):
        (folder / "meta.json").write_text(broken)
        assert read_category(folder) == ""


BROKEN = {
    "no_mesh": (lambda f: (f / "textured_objs/original-3.obj").unlink(), "original-3.obj: no such file"),
    "no_urdf": (lambda f: (f / "mobility.urdf").unlink(), "expected mobility.urdf in it"),
    "empty_mesh": (lambda f: (f / "textured_objs/original-2.obj").write_text("v 0 0 0\n"), "original-2.obj"),
    "nan": (lambda f: (f / "textured_objs/original-4.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"), "finite"),
    "cut_off": (lambda f: (f / "mobility.urdf").write_text(MOBILITY[:900]), "syntax error"),
    "limits": (lambda f: _edit(f, 'upper="1.5"', 'upper="-1"'), "joint 'joint_0': limit lower=0 is above upper=-1"),
    "infinite": (lambda f: _edit(f, 'upper="1.5"', 'upper="inf"'), "expected 1 finite number"),
    "no_limit": (lambda f: _edit(f, '<limit lower="-0.1" upper="-0.02"/>', ""), r"joint_3: limits \[-inf, inf\]"),
    "two_roots": (lambda f: _edit(f, '<parent link="base"/>', '<parent link="link_0"/>'), "tree|loop"),
    "static": (lambda f: _edit(f, 'upper="1.5"', 'upper="0"', "continuous", "fixed", '"-0.1"', '"-0.02"'), "no joint moves"),
}  # fmt: skip


def _edit(folder, *pairs):
    text = MOBILITY
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    (folder / "mobility.urdf").write_text(text)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_corrupt_asset_is_refused_in_one_line(fault, tmp_path):
    folder = write(tmp_path)
    damage, says = BROKEN[fault]
    damage(folder)
    with pytest.raises(ValueError, match=says) as refusal:
        read_partnet(folder)
    assert "45427" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_split_is_read_and_corrupt_assets_are_counted(tmp_path):
    for name in ("1", "2", "3"):
        write(tmp_path, name)
    BROKEN["no_mesh"][0](tmp_path / "2")
    (tmp_path / "train.txt").write_text("# the paper's\n1\n\n2  # corrupt\n3\n4\n")
    assets = Assets(tmp_path, read_split(tmp_path / "train.txt"))
    for _ in range(2):  # reading again counts anew
        assert [o.name for o in assets] == ["1", "3"]
        assert set(assets.refused) == {"2", "4"}
    assert "original-3.obj: no such file" in assets.refused["2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no object"),
        ("1\n2\n1\n", "1 listed more than once"),
        ("../1\n", "name of one folder"),
        ("a b\n", "one"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(text, says, tmp_path):
    (tmp_path / "split.txt").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_split(tmp_path / "split.txt")


def test_mimic_joints_and_primitive_shapes(tmp_path):
    (tmp_path / "bin.urdf").write_text(
        """<robot name="bin"><link name="can"><visual><geometry><cylinder radius="0.1" length="0.3"/></geometry></visual>
        </link><link name="lid"><collision><geometry><box size="0.2 0.2 0.01"/></geometry></collision></link>
        <link name="pedal"><visual><geometry><sphere radius="0.02"/></geometry></visual></link>
        <joint name="hinge" type="revolute"><parent link="can"/><child link="lid"/><axis xyz="1 0 0"/>
        <limit lower="0" upper="1.6"/><mimic joint="press" multiplier="-4" offset="0.1"/></joint>
        <joint name="press" type="revolute"><parent link="can"/><child link="pedal"/><axis xyz="1 0 0"/>
        <limit lower="-0.4" upper="0"/></joint></robot>"""
    )
    trash = read_articulated(tmp_path / "bin.urdf")
    assert trash.name == "bin"
    assert [j.name for j in trash.free] == ["press"]
    assert len(trash.links["lid"].faces) == 12
    np.testing.assert_allclose(trash.joint_positions([[-0.3]]), [[1.3, -0.3]])


DATA = Path(__file__).parents[1] / "sim_envs" / "assets"
FOREIGN = ["cartpole.urdf", "r2d2.urdf", "pr2_gripper.urdf", "kuka_iiwa/model.urdf", "xarm/xarm6_robot.urdf",
           "cube_rotate.urdf", "quadruped/minitaur.urdf", "a1/a1.urdf", "pendulum5.urdf",
           DATA / "laptop/laptop.urdf", DATA / "drawer/drawer.urdf", DATA / "faucet/faucet.urdf"]  # fmt: skip


@pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None, reason="PyBullet's models are not installed"
)
def test_links_lie_where_pybullet_has_them():
    import pybullet
    import pybullet_data

    client = pybullet.connect(pybullet.DIRECT)
    rng, moving = np.random.default_rng(0), 0
    try:
        for name in FOREIGN:
            path = Path(pybullet_data.getDataPath()) / name  # `name` itself where that is absolute
            obj = read_articulated(path)
            body = pybullet.loadURDF(str(path), useFixedBase=True, physicsClientId=client)
            q = obj.sample(rng, 1)
            position = dict(
                zip([j.name for j in obj.joints], obj.joint_positions(q)[0], strict=True)
            )
            index = {}
            for i in range(pybullet.getNumJoints(body, physicsClientId=client)):
                info = pybullet.getJointInfo(body, i, physicsClientId=client)
                index[info[12].decode()] = i
                pybullet.resetJointState(
                    body, i, position[info[1].decode()], physicsClientId=client
                )
            poses = dict(zip(obj.links, obj.link_poses(q)[0], strict=True))
            # A body of PyBullet's is placed by its root's center of mass, so poses are compared with the first link's.
            first = next(iter(index))
            X_ours_theirs = None
            for link, i in index.items():
                state = pybullet.getLinkState(
                    body, i, computeForwardKinematics=True, physicsClientId=client
                )
                X = pose(matrix_from_quat_xyzw(state[5]), state[4])
                if link == first:
                    X_ours_theirs = poses[link] @ np.linalg.inv(X)
                np.testing.assert_allclose(
                    X_ours_theirs @ X, poses[link], atol=1e-5, err_msg=f"{name}: {link}"
                )
            moving += len(obj.free)
    finally:
        pybullet.disconnect(client)
    assert moving >= 40
