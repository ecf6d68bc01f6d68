"""The page and the live view: contents, playback, and a picture in a browser."""

import base64
import os
import re
from contextlib import contextmanager
from urllib.request import urlopen

import msgspec
import numpy as np
import pytest
import trimesh
import viser
import zstandard
from browser import CHROMIUM, chromium, wait_for

from flowplan.geometry import exp_so3, pose, quat_wxyz_from_matrix, rotation_about, transform
from flowplan.grasp import ContactCandidates
from flowplan.io import npz
from flowplan.laws import Hinge, Rigid
from flowplan.motion import sample_flow
from flowplan.robot import load_robot
from flowplan.rollout import Rollout
from flowplan.scene import Action, Scene, SceneObject
from flowplan.trajectory import Trajectory
from flowplan.viz.draw import ViewOptions, draw
from flowplan.viz.page import write_page
from flowplan.viz.run import Run, read_run
from flowplan.viz.viewer import serve
from generators.kinematic import kinematic

PANDA = load_robot("panda")
BOX = trimesh.creation.box([0.1, 0.1, 0.1])


def a_run(**changed):
    """A carried box, a chest, a wall, contacts, and an arm that moves for three seconds."""
    lid = trimesh.creation.box([0.2, 0.2, 0.01]).subdivide()
    box = trimesh.util.concatenate(
        lid, trimesh.creation.box([0.2, 0.2, 0.1], transform=pose(None, [0, 0, -0.06]))
    )
    scene = Scene(
        (
            SceneObject("can", BOX, pose(None, [0.5, -0.2, 0.05])),
            SceneObject("chest", box, pose(None, [0.5, 0.2, 0.11])),
        ),
        0.0,
        (SceneObject("wall", BOX, pose(None, [0.8, 0.0, 0.05])),),
    )
    handles = scene.objects[0].vertices_world
    motion = kinematic([Rigid("can", 0.1)])(
        scene, Action("can", handles, handles + np.array([0.0, 0.1, 0.0]))
    )[0]
    G, S = 6, 31
    X = pose(exp_so3([np.pi, 0, 0]), np.linspace([0.45, -0.2, 0.1], [0.55, -0.2, 0.1], G))
    candidates = ContactCandidates(
        X, np.full(G, 0.06), np.linspace(1, 0, G), ("grasp",) * 3 + ("push",) * 3
    )
    q = PANDA.home + np.linspace(0, 0.3, S)[:, None]
    phase = np.repeat([0, 1, 2, 3, 4], [10, 2, 11, 2, 6])
    zeros = np.zeros(S)
    trajectory = Trajectory(
        PANDA.joint_names,
        np.linspace(0, 3, S),
        q,
        0 * q,
        0 * q,
        np.linspace(0.08, 0.02, S),
        phase,
        *[zeros] * 3,
    )
    run = {
        "scene": scene,
        "motion": motion,
        "flow": sample_flow(scene, motion, points_per_object=100),
        "candidates": candidates,
        "chosen": candidates.select([1]),
        "robot": PANDA,
        "trajectory": trajectory,
        "rollout": Rollout(
            [0, 3.0],
            PANDA.joint_names,
            q[[0, -1]],
            np.arange(24.0).reshape(2, 4, 3) / 50,
            "success",
            {},
        ),
        "title": "carry <a> can",
    }
    return Run(**(run | changed))


@contextmanager
def drawn(run):
    """The nodes of a drawn run by name, and its `show`."""
    server = viser.ViserServer(host="127.0.0.1", port=0)
    try:
        show = draw(server, run, ViewOptions())
        yield server.scene.get_handle_by_name, show
    finally:
        server.stop()


def test_everything_is_where_the_records_place_it():
    run = a_run()
    with drawn(run) as (node, show):
        for t in (0.0, 1.55, 3.0):
            show(t)
            X = PANDA.fk(
                run.trajectory.at(t)[None], float(np.round(np.interp(t, [0, 3], [0.08, 0.02]), 4))
            )[0]
            for name, X_world_link in zip(PANDA.link_names, X, strict=True):
                np.testing.assert_allclose(
                    node(f"/robot/{name}").position, X_world_link[:3, 3], atol=2e-6
                )
                wxyz = quat_wxyz_from_matrix(X_world_link[:3, :3])
                np.testing.assert_allclose(np.abs(wxyz @ node(f"/robot/{name}").wxyz), 1, atol=1e-6)
            can = node("/objects/can")
            moved = np.asarray(can.vertices) + can.position  # it does not rotate
            at = run.flow_time(t)
            expected = [
                np.interp(at, run.motion.times, run.motion.vertices[0][:, i, j])
                for i in range(8)
                for j in range(3)
            ]
            np.testing.assert_allclose(moved.ravel(), expected, atol=1e-5)
        # The flow runs while the robot manipulates: from 1.2 s to 2.2 s.
        assert [run.flow_time(t) for t in (0.0, 1.2, 1.7, 2.2, 3.0)] == pytest.approx(
            [0, 0, 1, 2, 2]
        )
        for name in ("/contacts", "/contact chosen"):
            show(1.1)
            assert node(name).visible
            show(1.3)
            assert not node(name).visible
        for name in (
            "/obstacles/wall",
            "/support",
            "/flow/tracks",
            "/flow/points",
            "/measured",
            "/robot path",
        ):
            assert node(name) is not None, name


def test_deforming_objects_are_moved_by_their_vertices():
    run = a_run()
    chest = run.scene.objects[1]
    lid = np.arange(len(chest.mesh.vertices)) < len(chest.mesh.vertices) - 8
    law = Hinge(
        "chest", [0.6, 0.2, 0.11], [0, 1, 0], chest.vertices_world[lid], chest.vertices_world[~lid]
    )
    handles = chest.vertices_world[lid]
    action = Action(
        "chest", handles, transform(rotation_about(law.axis_point, law.axis, 1.0), handles)
    )
    motion = kinematic([law])(run.scene, action)[0]
    with drawn(a_run(motion=motion, flow=None)) as (node, show):
        for t, frame in ((0.0, 0), (1.7, 20), (2.9, 40), (0.0, 0)):  # backwards too
            show(t)
            np.testing.assert_allclose(
                node("/objects/chest").vertices, motion.vertices[1][frame], atol=6e-5
            )


@pytest.mark.parametrize(
    "missing",
    [
        {"motion": None, "flow": None},
        {"flow": None, "candidates": None, "chosen": None},
        {"trajectory": None},
        {"trajectory": None, "rollout": None},
        {"robot": None, "trajectory": None, "rollout": None},
    ],
    ids=lambda m: "no " + ", ".join(m),
)
def test_stages_that_did_not_happen_are_left_out(missing):
    run = a_run(**missing)
    with drawn(run) as (_, show):
        for t in (0.0, run.duration):
            show(t)
    alone = Run(Scene((), None))
    assert alone.duration == 0.0
    with drawn(alone) as (_, show):
        show(0.0)


def test_a_run_that_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"Run\.robot: expected the robot of the trajectory"):
        a_run(robot=None)
    with pytest.raises(
        ValueError, match=r"Run\.trajectory: expected joints .* of ur5e, got panda_joint1"
    ):
        a_run(robot=load_robot("ur5e"))
    with pytest.raises(
        ValueError, match=r"Run\.rollout: expected joints .* of ur5e, got panda_joint1"
    ):
        a_run(robot=load_robot("ur5e"), trajectory=None)
    with pytest.raises(ValueError, match=r"motion\.vertices: expected \[8\] vertices"):
        a_run(scene=Scene((SceneObject("can", BOX),)))
    with pytest.raises(ValueError, match=r"ViewOptions\.rate: expected 0.1 to 240, got 0"):
        ViewOptions(rate=0)


def recording(page):
    """The recording for viser's client: duration and [(time, message)]."""
    data = base64.b64decode(re.search(r'__VISER_EMBED_DATA__="([^"]*)"', page).group(1))
    plain = zstandard.ZstdDecompressor().decompress(
        data[8:], max_output_size=int.from_bytes(data[:8], "little")
    )
    size = int.from_bytes(plain[:8], "little")
    content = msgspec.msgpack.decode(plain[8 : 8 + size])
    return content["durationSeconds"], content["messages"]


def test_the_page_is_one_file_with_the_whole_timeline(tmp_path):
    run = a_run()
    path = write_page(tmp_path / "run.html", run, ViewOptions(rate=10))
    page = path.read_text()
    assert len(page) < 15e6
    assert set(re.findall(r'https?://[^\s"\'`)]+', page)) <= {
        "http://www.w3.org/2000/svg"
    }  # a namespace, not an address
    assert "<title>carry &lt;a&gt; can</title>" in page
    assert "object as measured (success)" in page
    duration, messages = recording(page)
    assert duration == pytest.approx(run.duration + 1.0)
    times = [t for t, _ in messages]
    assert times == sorted(times)
    assert len({round(t, 3) for t in times}) == 31
    # The player loops: the start must state where everything that moves starts.
    restarted = {m["name"] for t, m in messages if t == 0 and m["type"] == "SceneNodeUpdateMessage"}
    assert {"/flow/points", "/measured"} <= restarted
    moved = {m["name"] for t, m in messages if t > 0 and "name" in m}
    assert {"/objects/can", "/flow/points", "/measured", "/contacts", "/robot/panda_link7"} <= moved
    assert not {"/objects/chest", "/obstacles/wall", "/robot/panda_link0"} & moved
    assert os.listdir(tmp_path) == ["run.html"]


def test_a_page_that_would_be_too_large_is_coarser_or_refused(tmp_path):
    run = a_run()
    fine = write_page(tmp_path / "fine.html", run).stat().st_size
    coarse = write_page(tmp_path / "coarse.html", run, ViewOptions(max_bytes=fine - 1))
    assert coarse.stat().st_size < fine
    with pytest.raises(ValueError, match=r"refused\.html: the page would have .* MB, ViewOptions"):
        write_page(tmp_path / "refused.html", run, ViewOptions(max_bytes=1000))
    with pytest.raises(ValueError, match=r"expected a name that ends in \.html"):
        write_page(tmp_path / "run.htm", run)
    assert sorted(os.listdir(tmp_path)) == ["coarse.html", "fine.html"]


def test_a_folder_is_read_as_far_as_the_run_came(tmp_path):
    run = a_run()
    with pytest.raises(ValueError, match=r"scene\.npz: Scene: no such file"):
        read_run(tmp_path)
    npz.save(tmp_path / "scene.npz", run.scene)
    assert read_run(tmp_path).motion is None
    for name in ("motion", "flow", "candidates", "rollout"):
        npz.save(tmp_path / f"{name}.npz", getattr(run, name))
    read = read_run(tmp_path)
    assert read.title == tmp_path.name
    assert read.robot.name == "panda"
    assert len(read.candidates) == len(run.candidates)
    assert read.duration == 3.0
    (tmp_path / "candidates.npz").rename(tmp_path / "grasps.npz")  # the name in earlier runs
    assert len(read_run(tmp_path).candidates) == len(run.candidates)


def test_the_live_view_serves_and_moves():
    run = a_run()
    with serve(run, port=0) as viewer:
        with urlopen(f"http://127.0.0.1:{viewer.server.get_port()}") as answer:
            assert b"<html" in answer.read()
        can = viewer.server.scene.get_handle_by_name("/objects/can")
        viewer.show(3.0)
        np.testing.assert_allclose(can.position, [0, 0.1, 0], atol=1e-6)
        viewer.show(0.0)
        viewer.play(seconds=0.3)
        assert viewer.time > 0


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_shows_the_scene_and_it_moves(tmp_path):
    page = write_page(tmp_path / "run.html", a_run(rollout=None, candidates=None))
    with chromium() as tab:
        for domain in ("Network", "Page"):
            tab.call(f"{domain}.enable")
        tab.call("Page.navigate", url=page.as_uri())

        def scene():  # right of viser's note on software rendering, above the timeline
            return tab.picture()[20:-60, 300:]

        def complete():  # all has faded in: orange chest, blue can, nearly black joints
            red, _, blue = np.moveaxis(scene(), -1, 0)
            return (
                (red - blue > 60).sum() > 500
                and (blue - red > 40).sum() > 30
                and (red + blue < 100).sum() > 20
            )

        wait_for(complete)
        first = scene()
        assert np.mean(first > 250) < 0.9  # it fills the view
        wait_for(lambda: (np.abs(scene() - first).max(-1) > 50).mean() > 0.005)
        assert [
            url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))
        ] == []
