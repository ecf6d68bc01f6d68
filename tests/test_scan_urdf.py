"""Articulated things from URDF files."""

import numpy as np
import pytest
import trimesh

from flowplan.geometry import pose, rotation_about
from flowplan.scan import load_urdf

LAPTOP = """<robot name="laptop">
  <link name="base"><visual><geometry><box size="0.3 0.2 0.02"/></geometry></visual></link>
  <link name="lid">
    <visual><origin xyz="0 -0.1 0"/><geometry>
      <mesh filename="{mesh}" scale="1 1 0.5"/></geometry></visual>
    <collision><geometry><sphere radius="0.05"/></geometry></collision></link>
  <link name="knob"><collision><origin rpy="1.5707963267948966 0 0"/>
    <geometry><cylinder radius="0.01" length="0.04"/></geometry></collision></link>
  <link name="nothing"/>
  <joint name="hinge" type="revolute"><parent link="base"/><child link="lid"/>
    <origin xyz="0 0.1 0.01"/><axis xyz="2 0 0"/><limit lower="-1.6" upper="0" effort="1" velocity="1"/></joint>
  <joint name="turn" type="continuous"><parent link="lid"/><child link="knob"/>
    <origin xyz="0 -0.1 0" rpy="0.4 0 0.3"/><axis xyz="0 0 1"/><mimic joint="hinge" multiplier="-2" offset="0.1"/></joint>
  <joint name="fixed" type="fixed"><parent link="base"/><child link="nothing"/></joint>
</robot>"""


def write(tmp_path, text=LAPTOP, mesh="lid.stl"):
    trimesh.creation.box([0.3, 0.2, 0.02]).export(tmp_path / "lid.stl")
    path = tmp_path / "laptop.urdf"
    path.write_text(text.replace("{mesh}", mesh))
    return path


def test_links_are_objects_posed_by_the_joints(tmp_path):
    X_world_base = pose(translation=[0.5, 0, 0])
    base, lid, knob = load_urdf(
        write(tmp_path), {"hinge": -0.5}, X_world_base=X_world_base, links=True
    )
    assert [o.name for o in (base, lid, knob)] == ["laptop/base", "laptop/lid", "laptop/knob"]
    assert np.allclose(base.X_world_object, X_world_base)
    expected = (
        X_world_base @ pose(translation=[0, 0.1, 0.01]) @ rotation_about([0, 0, 0], [1, 0, 0], -0.5)
    )
    assert np.allclose(lid.X_world_object, expected)
    assert np.allclose(lid.mesh.extents, [0.3, 0.2, 0.01])
    assert np.allclose(lid.mesh.bounds.mean(0), [0, -0.1, 0], atol=1e-9)
    # The knob mimics the hinge, 0.1 - 2 q, after its own roll and then yaw about fixed axes.
    yaw, roll = rotation_about([0, 0, 0], [0, 0, 1], 0.3), rotation_about([0, 0, 0], [1, 0, 0], 0.4)
    turned = (
        expected
        @ pose(translation=[0, -0.1, 0])
        @ yaw
        @ roll
        @ rotation_about([0, 0, 0], [0, 0, 1], 1.1)
    )
    assert np.allclose(knob.X_world_object, turned)
    assert np.allclose(knob.mesh.extents, [0.02, 0.04, 0.02], atol=1e-4)  # rolled on its side


def test_a_urdf_is_one_object_with_its_articulation(tmp_path):
    path, base = write(tmp_path), pose(translation=[0.5, 0, 0])
    (laptop,) = load_urdf(path, {"hinge": -0.5}, X_world_base=base)
    split = load_urdf(path, {"hinge": -0.5}, X_world_base=base, links=True)
    assert laptop.name == "laptop"
    # The same surface, in the same place.
    together = np.concatenate([o.vertices_world for o in split])
    assert np.allclose(laptop.vertices_world, together)
    parts = laptop.articulation
    assert parts.parts == ("base", "lid", "nothing", "knob")
    assert parts.movable == ("hinge",)
    assert parts.joint("hinge").position == -0.5
    assert parts.joint("turn").position == pytest.approx(1.1)
    # Other positions of the joints are those that the reader gives.
    moved = laptop.at({"hinge": -1.2})
    (other,) = load_urdf(path, {"hinge": -1.2}, X_world_base=base)
    assert np.allclose(moved.vertices_world, other.vertices_world)
    for a, b in zip(moved.articulation.joints, other.articulation.joints, strict=True):
        assert np.allclose(a.axis, b.axis)
        assert np.allclose(a.point, b.point)
        assert a.position == pytest.approx(b.position)


def test_joints_start_at_zero_or_the_nearest_limit(tmp_path):
    text = LAPTOP.replace('upper="0"', 'upper="-0.2"')
    lid = load_urdf(write(tmp_path, text), links=True)[1]
    assert np.allclose(
        lid.X_world_object[:3, :3], rotation_about([0, 0, 0], [1, 0, 0], -0.2)[:3, :3]
    )


def test_collision_shapes_on_request(tmp_path):
    base, lid, knob = load_urdf(write(tmp_path), geometry="collision", name="notebook", links=True)
    assert lid.name == "notebook/lid"
    assert np.allclose(lid.mesh.extents, 0.1, atol=1e-3)
    assert np.allclose(
        base.mesh.extents, [0.3, 0.2, 0.02]
    )  # it has no collision shape, so the visual one


def test_package_paths_are_found_above_the_file(tmp_path):
    folder = tmp_path / "laptop_description" / "urdf"
    (folder.parent / "meshes").mkdir(parents=True)
    folder.mkdir()
    path = write(folder, mesh="package://laptop_description/meshes/lid.stl")
    (folder / "lid.stl").rename(folder.parent / "meshes" / "lid.stl")
    assert np.allclose(load_urdf(path, links=True)[1].mesh.extents, [0.3, 0.2, 0.01])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            '<parent link="base"/><child link="lid"/>',
            '<parent link="base"/><child link="top"/>',
            "child link 'top' does not exist",
        ),
        ('<child link="lid"/>', "", "joint 'hinge': <child> is missing"),
        ('type="revolute"', 'type="spherical"', "joint 'hinge': type 'spherical' is not supported"),
        (
            'axis xyz="2 0 0"',
            'axis xyz="0 0 0"',
            "joint 'hinge': axis is zero, expected a direction",
        ),
        (
            'axis xyz="2 0 0"',
            'axis xyz="2 0"',
            "axis xyz='2 0', expected 3 finite numbers",
        ),
        ('size="0.3 0.2 0.02"', 'size="0.3 x 0.02"', "expected 3 finite numbers"),
        ('size="0.3 0.2 0.02"', 'size="0.3 0 0.02"', "box size"),
        ('radius="0.01"', 'radius="-1"', "cylinder radius"),
        ('<link name="nothing"/>', '<link name="lid"/>', "two <link> elements have the same name"),
        (
            '<link name="nothing"/>',
            '<link name="nothing"/><link name="alone"/>',
            "one root, got roots",
        ),
        ('mimic joint="hinge"', 'mimic joint="door"', "mimic: got 'door'"),
        ("{mesh}", "lid.dae", "lid.dae: not one of"),
        ("{mesh}", "none.stl", "none.stl: no such file"),
        ("{mesh}", "package://other/lid.stl", "no folder 'other'"),
        ("</robot>", "", "not well-formed XML"),
        (
            "<robot ",
            '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><robot ',
            "document types and entities",
        ),
        ("robot", "model", "expected a <robot> element"),
        ("<sphere ", "<capsule ", "capsule"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, before, after, words):
    assert before in LAPTOP
    kind = "collision" if "sphere" in before else "visual"
    with pytest.raises(ValueError, match=words) as error:
        load_urdf(write(tmp_path, LAPTOP.replace(before, after)), geometry=kind)
    assert "\n" not in str(error.value)


def test_a_doctype_is_found_in_any_encoding(tmp_path):
    path = tmp_path / "a.urdf"
    path.write_bytes(
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE r><robot name="a"/>'.encode("utf-16")
    )
    with pytest.raises(ValueError, match="document types and entities"):
        load_urdf(path)


def test_joint_positions_are_checked(tmp_path):
    with pytest.raises(ValueError, match="'hinge' at 2, expected -1.6 to 0; angles are in radians"):
        load_urdf(write(tmp_path), {"hinge": 2.0})
    with pytest.raises(ValueError, match="joints: got 'door', expected one of hinge"):
        load_urdf(write(tmp_path), {"door": 0.0})
    with pytest.raises(ValueError, match="no such file"):
        load_urdf(tmp_path / "none.urdf")


def test_a_loop_of_links_is_refused(tmp_path):
    text = LAPTOP.replace(
        '<parent link="base"/><child link="lid"/>', '<parent link="knob"/><child link="lid"/>'
    )
    with pytest.raises(ValueError, match="form a loop"):
        load_urdf(write(tmp_path, text))
