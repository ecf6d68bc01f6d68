"""The vendored models: they load, stand, hold, yield, and are the same to the eye and to the
touch."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import trimesh

from flowplan.geometry import pose, rotation_about, transform
from flowplan.robot.urdf import read_urdf
from flowplan.scan.urdf import link_mesh
from sim_envs.assets import (
    ARTICULATED,
    CLOTH,
    FOLDER,
    METAWORLD,
    SCANNED,
    collision_pieces,
    metaworld_urdfs,
    surface_points,
    urdf_path,
)
from sim_envs.world import World
from tools.make_models import make_cloth, make_lamp

SIZES = {  # meters, of the real things
    "ramekin": (0.089, 0.089, 0.043),
    "black_bowl": (0.160, 0.159, 0.075),
    "white_bowl": (0.170, 0.166, 0.071),
    "plate": (0.274, 0.274, 0.033),
    "frypan": (0.356, 0.204, 0.055),
    "basket": (0.173, 0.162, 0.148),
}
HOLLOW = ("ramekin", "black_bowl", "white_bowl", "basket")
# Where a hand pushes: joint, its position, link, point in it, direction in it, newtons it bears,
# newtons it yields to.
PUSHES = [
    ("laptop", "lid_joint", 0.0, "lid", (0, 0.016, 0.23), (0, -1, 0), 1.2, 3.5),
    ("laptop", "lid_joint", 1.0, "lid", (0, 0.016, 0.23), (0, -1, 0), 0.4, 3.5),
    ("desk_lamp", "elbow", 0.0, "head", (0, 0, 0.015), (0, 0, -1), 3.0, 7.0),
    ("desk_lamp", "elbow", 0.6, "upper_arm", (0.2266, 0, 0.1057), (0.56, 0, -0.83), 2.0, 8.0),
    ("drawer", "drawer_joint", 0.0, "drawer", (0, -0.15, 0), (0, -1, 0), 1.2, 4.0),
    ("faucet", "handle_joint", 0.0, "handle", (0, -0.14, 0), (1, 0, 0), 1.0, 4.0),
    ("door", "door_joint", 0.0, "door", (0.381, -0.12, 0), (0, -1, 0), 0.8, 4.0),
    ("lever", "lever_joint", 0.0, "lever", (0, -0.2, 0), (0, 0, -1), 1.5, 8.0),
    ("handle_press", "handle_joint", 0.0, "handle", (0, -0.166, 0), (0, 0, -1), 1.0, 6.0),
    ("window", "sash_joint", 0.1, "sash", (0, -0.05, 0), (0, 0, 1), 10.0, 20.0),
]
SLIDING = ("drawer", "handle_press", "window")
STANDING = ("laptop", "desk_lamp")
# Models with principal axes of inertia along which PyBullet's boxes of them do not lie flat.
SLANTED = ("door", "door_lock", "handle_press", "window", "coffee_machine")


def test_everything_is_small_and_attributed():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) < 6e6
    told = (FOLDER / "ATTRIBUTION.md").read_text()
    for folder in FOLDER.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"`{folder.name}`" in told, folder.name


@pytest.mark.parametrize("name", SCANNED)
def test_scans_have_their_real_size_and_stand_still(name):
    visual = trimesh.load_mesh(FOLDER / name / "visual.obj", process=False)
    np.testing.assert_allclose(visual.extents, SIZES[name], atol=0.002)
    with World() as world:
        body = world.load(urdf_path(name), pose(None, [0.5, 0, 0.003]), name=name)
        world.settle()
        X = world.link_pose(body)
        assert abs(X[2, 3]) < 0.003
        assert X[2, 2] > np.cos(np.radians(3))
        for _ in range(120):
            world.step()
        assert np.abs(world.link_pose(body) - X).max() < 1e-3


@pytest.mark.parametrize("name", SCANNED)
def test_scans_collide_where_they_are_seen(name):
    seen = surface_points(urdf_path(name), 400)[name]
    inside = np.max([_depth(piece, seen) for piece in collision_pieces(name)], axis=0)
    assert (
        np.percentile(inside, 5) > -0.002
    )  # hardly any of the seen surface lies clear of all pieces
    assert inside.min() > -0.008
    assert np.percentile(inside, 90) < 0.008  # and hardly any is buried in one


def _depth(piece, points):
    """Depth (P,) of points below the faces of a convex piece, negative outside (a bound there)."""
    return -((points[:, None] - piece.triangles_center) * piece.face_normals).sum(-1).max(1)


@pytest.mark.parametrize("name", HOLLOW)
def test_hollow_things_are_hollow(name):
    with World() as world:
        body = world.load(urdf_path(name), name=name, fixed=True)
        world.bullet.performCollisionDetection()
        (hit,) = world.bullet.rayTest([0.0, 0.0, 0.5], [0.0, 0.0, -0.1])
        assert hit[0] == body
        assert hit[3][2] < 0.4 * SIZES[name][2]


@pytest.mark.parametrize(
    ("name", "joint", "at", "link", "point", "direction", "bears", "yields"), PUSHES
)
def test_joints_hold_and_yield(name, joint, at, link, point, direction, bears, yields):
    def moved(force):
        with World() as world:
            body = world.load(urdf_path(name), name=name, fixed=name not in STANDING)
            world.set_joint_positions(body, {joint: at})
            index = world.link_index(body, link)
            for _ in range(60):
                X = world.link_pose(body, link)
                push = force * X[:3, :3] @ direction
                where = transform(X, np.array([point], float))[0]
                world.bullet.applyExternalForce(
                    body, index, push.tolist(), where.tolist(), world.bullet.WORLD_FRAME
                )
                world.step()
            return abs(world.joint_positions(body)[joint] - at)

    free = 0.02 if name in SLIDING else 0.1
    assert moved(0.0) < 0.003
    assert moved(bears) < 0.05 * free + 0.003
    assert moved(yields) > free


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("laptop", {"lid_joint": (0.0, 1.57)}),
        ("drawer", {"drawer_joint": (-0.16, 0.0)}),
        ("faucet", {"handle_joint": (-1.57, 1.57)}),
        ("door", {"door_joint": (-2.0, 0.0)}),
        ("door_lock", {"lock_joint": (0.0, 1.57)}),
        ("dial", {"knob_joint": (-3.14, 3.14)}),
        ("handle_press", {"handle_joint": (-0.1, 0.0)}),
        ("lever", {"lever_joint": (0.0, 1.57)}),
        ("window", {"sash_joint": (0.0, 0.2)}),
        ("window_horizontal", {"sash_joint": (0.0, 0.2)}),
        ("button_box", {"button_joint": (-0.06, 0.0)}),
        ("coffee_machine", {"button_joint": (0.0, 0.03)}),
        ("hammer_block", {"nail_joint": (0.0, 0.1)}),
        ("desk_lamp", {"shoulder": (-0.6, 0.6), "elbow": (-0.5, 1.1), "neck": (-0.8, 0.8)}),
    ],
)
def test_joint_limits(name, limits):
    with World() as world:
        body = world.load(urdf_path(name), name=name)
        for joint, bounds in limits.items():
            info = world.bullet.getJointInfo(body, world.joint_index(body, joint))
            assert info[8:10] == pytest.approx(bounds)
        assert set(world.joint_positions(body)) == set(limits)


@pytest.mark.parametrize("name", [name for name in ARTICULATED if name not in SLANTED])
def test_seen_and_touched_surfaces_have_the_same_bounds(name):
    with World() as world:
        body = world.load(urdf_path(name), name=name, fixed=True)
        for link, points in surface_points(urdf_path(name), 2000).items():
            world.bullet.performCollisionDetection()
            seen = transform(world.link_pose(body, link), points)
            touched = np.array(world.bullet.getAABB(body, world.link_index(body, link)))
            # PyBullet's boxes are a little generous.
            assert np.abs([seen.min(0) - touched[0], seen.max(0) - touched[1]]).max() < 0.025


@pytest.mark.parametrize("name", METAWORLD)
def test_articulated_models_are_solid_where_they_are_seen(name):
    urdf = read_urdf(urdf_path(name))
    for link in urdf.links:
        seen, touched = (link_mesh(urdf, link, kind) for kind in ("visual", "collision"))
        if seen is not None:  # the handle press has feet
            assert np.abs(seen.bounds - touched.bounds).max() < (
                0.032 if name == "handle_press" else 0.02
            )


@pytest.mark.parametrize("name", METAWORLD)
def test_articulated_models_stand_on_the_table_and_move(name):
    path = metaworld_urdfs()[name]
    seen = surface_points(path, 300)
    with World() as world:
        body = world.load(path, name=name, fixed=True)
        (joint,) = world.joint_positions(body)
        lower, upper = world.bullet.getJointInfo(body, world.joint_index(body, joint))[8:10]
        poses = []
        for position in (0.0, lower, (lower + upper) / 2, upper):
            world.set_joint_positions(body, {joint: position})
            poses.append(
                {
                    link: transform(world.link_pose(body, link), points)
                    for link, points in seen.items()
                }
            )
    assert -1e-3 < min(points[:, 2].min() for points in poses[0].values()) < 0.03
    assert min(points[:, 2].min() for pose in poses for points in pose.values()) > -0.005
    assert sum(np.abs(poses[1][link] - poses[2][link]).max() > 0.01 for link in seen) == 1


def test_surface_points_are_in_the_link_frame():
    points = surface_points(urdf_path("laptop"), 500)
    assert points["lid"].shape == (500, 3)
    assert np.abs(points["lid"][:, 2] - 0.12).max() < 0.14  # the lid stands on its hinge
    assert points["base"][:, 2].max() < 0.03


def test_unknown_model():
    with pytest.raises(ValueError, match="'teapot', expected one of ramekin"):
        urdf_path("teapot")


def test_own_models_are_what_their_script_makes(tmp_path):
    lamp = make_lamp(tmp_path / "desk_lamp")
    assert lamp.read_text() == urdf_path("desk_lamp").read_text()
    assert make_cloth(tmp_path / "cloth.obj").read_text() == CLOTH.read_text()
    sheet = trimesh.load_mesh(CLOTH, process=False)
    assert len(sheet.vertices) == 121
    assert sheet.face_normals[:, 2].min() > 0.99
    assert sheet.area == pytest.approx(0.09)


MJCF = """
<mujoco>
  <compiler angle="radian" eulerseq="zyx"/>
  <worldbody>
    <body name="anything"><geom type="box" size="1 1 1" pos="3 0 0"/></body>
    <body pos="0.3 0.2 0.1">
      <body name="post" pos="0 0.1 0.2" euler="0.5 0 0">
        <geom type="box" size="0.05 0.05 0.2" density="500"/>
        <body name="arm" pos="0.05 0 0.1" euler="0.3 1.5707963267948966 0.2">
          <joint type="hinge" axis="0 0.6 0.8" range="-1 2"/>
          <geom type="capsule" size="0.02 0.1" pos="0.1 0 0" euler="0 1.2 0"/>
          <geom type="sphere" size="0.03" pos="0.1 0.1 0" contype="0" conaffinity="0"/>
          <body name="plug" pos="0.2 0 0">
            <joint type="slide" axis="1 0 0" range="0 0.1"/>
            <geom type="cylinder" size="0.02 0.01"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def convert(tmp_path):
    pytest.importorskip("mujoco")
    from tools.convert_mjcf import ConvertOptions
    from tools.convert_mjcf import convert as run

    def made(text=MJCF, **fields):
        (tmp_path / "model.xml").write_text(text)
        defaults = {"body": "arm", "links": ("post", "arm", "plug"), "masses": (1.0, 0.5, 0.1)}
        return run(ConvertOptions(tmp_path / "model.xml", tmp_path / "out", **(defaults | fields)))

    return made


def test_converted_model_moves_like_the_original(convert, tmp_path):
    import mujoco

    path = convert(friction=0.2, scale=0.5)
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "model.xml"))
    data = mujoco.MjData(model)
    data.qpos[:] = 0.7, 0.05
    mujoco.mj_forward(model, data)
    X = {
        n: pose(data.body(n).xmat.reshape(3, 3), data.body(n).xpos) for n in ("post", "arm", "plug")
    }
    com = {n: data.body(n).xipos for n in X}
    with World() as world:
        body = world.load(path, rotation_about([0, 0, 0], [0, 0, 1], 0.5), name="model", fixed=True)
        world.set_joint_positions(body, {"arm_joint": 0.7, "plug_joint": 0.025})
        for name, made in world.link_poses(body).items():
            expected = X[name][:3, 3] - X["post"][:3, 3]
            bottom = [0, 0, 0.2] if name != "post" else [0, 0, 0]
            np.testing.assert_allclose(made[:3, 3], 0.5 * (expected + bottom), atol=1e-5)
            np.testing.assert_allclose(made[:3, :3], X[name][:3, :3], atol=1e-5)
        index = world.link_index(body, "plug")
        mass, _, inertia = world.bullet.getDynamicsInfo(body, index)[:3]
        assert mass == pytest.approx(0.1)
        np.testing.assert_allclose(
            sorted(inertia),
            sorted(model.body_inertia[-1] * 0.25 * 0.1 / model.body_mass[-1]),
            rtol=1e-3,
        )
        state = world.bullet.getLinkState(body, index, computeForwardKinematics=True)
        np.testing.assert_allclose(
            state[0], 0.5 * (com["plug"] - X["post"][:3, 3] + [0, 0, 0.2]), atol=1e-5
        )


def test_converted_capsule_and_visual(convert):
    links = {link.attrib["name"]: link for link in ET.parse(convert()).getroot().findall("link")}
    assert [e.tag for e in links["arm"].iterfind("collision/geometry/*")] == [
        "cylinder",
        "sphere",
        "sphere",
    ]
    assert [e.tag for e in links["arm"].iterfind("visual/geometry/*")] == ["sphere"]


def test_stand_lifts_the_model(convert):
    points = {
        e.attrib["xyz"]
        for e in ET.parse(convert(stand=0.1)).getroot().iterfind("link/collision/origin")
    }
    assert {"0 0 0.3", "0 0 0.05"} <= points


KNOB = """
<mujoco>
  <worldbody>
    <body pos="0 0 1">
      <body name="knob" pos="0.2 0 0">
        <joint name="turn" type="hinge" axis="0 0 1" range="-1 1"/>
        <geom type="cylinder" size="0.05 0.02" contype="0" conaffinity="1"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize("name", ["knob", "turn"])
def test_what_moves_gets_a_base(convert, name):
    path = convert(KNOB, body=name, links=("base", "knob"), masses=(1.0, 0.1), stand=0.04)
    with World() as world:
        body = world.load(path, name="model", fixed=True)
        np.testing.assert_allclose(world.link_pose(body, "knob")[:3, 3], [0.2, 0, 0.06], atol=1e-6)
        mass, _, inertia = world.bullet.getDynamicsInfo(body, -1)[:3]
        np.testing.assert_allclose(inertia, mass / 12 * np.array([0.0116, 0.0116, 0.02]), rtol=1e-3)
    blocks = [
        e.attrib["size"] for e in ET.parse(path).getroot().iterfind("link/collision/geometry/box")
    ]
    assert blocks == ["0.1 0.1 0.04"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"body": ""}, "ConvertOptions.body: got '', expected one of"),
        ({"body": "leg"}, "ConvertOptions.body: got 'leg', expected one of .*post, arm"),
        ({"masses": (1.0,)}, "ConvertOptions.masses: expected 3 entries"),
        (
            {"text": MJCF.replace('range="0 0.1"', 'range="0 0.1" pos="0 0 0.1"')},
            "plug: expected a limited hinge or slide",
        ),
        (
            {"text": MJCF.replace('type="slide"', 'type="ball"')},
            "plug: expected a limited hinge or slide",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(convert, fields, message):
    with pytest.raises(ValueError, match=message):
        convert(**fields)
