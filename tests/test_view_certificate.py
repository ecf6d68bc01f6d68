"""The certificate on the page and in the live view: phases, least clearance, joints, report; and
the robot where it stood."""

import base64
import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import trimesh
import viser
from browser import CHROMIUM, chromium, wait_for
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flowplan.geometry import inverse, pose, rotation_about
from flowplan.io import npz
from flowplan.laws import Rigid
from flowplan.planner import Plan, PlanOptions, plan
from flowplan.report import feasibility
from flowplan.robot import load_robot
from flowplan.scene import Action, Scene, SceneObject
from flowplan.trajectory import Phase
from flowplan.viz import clearance, panel
from flowplan.viz.draw import ViewOptions, draw
from flowplan.viz.page import write_page
from flowplan.viz.run import Run, read_run
from flowplan.viz.server import refusal
from flowplan.viz.viewer import serve
from generators.kinematic import kinematic

BASE = rotation_about([0.2, -0.1, 0.0], [0, 0, 1], 0.7) @ pose(None, [0.3, 0.2, 0.0])
"""A base that stands elsewhere and turned."""


def moved_scene():
    """A brick beside a wall, in front of a robot that stands at BASE, and its way."""
    brick = SceneObject(
        "brick", trimesh.creation.box([0.05, 0.08, 0.06]), BASE @ pose(None, [0.5, -0.1, 0.03])
    )
    wall = SceneObject(
        "wall", trimesh.creation.box([0.02, 0.3, 0.3]), BASE @ pose(None, [0.62, 0.0, 0.15])
    )
    scene = Scene((brick,), 0.0, (wall,))
    targets = brick.vertices_world + BASE[:3, :3] @ [0.0, 0.2, 0.0]
    action = Action("brick", brick.vertices_world, targets, duration=3.0)
    return scene, kinematic([Rigid("brick", 0.08)])(scene, action)[0]


def own_robot(folder):
    """A robot file of one's own: the Panda with slower joints, and joints of other names."""
    source = Path(str(resources.files("robot_configs")))
    shutil.copytree(source / "panda", folder / "panda")
    for file in ("panda.toml", *(str(p.relative_to(folder)) for p in folder.rglob("*.urdf"))):
        text = (source if file == "panda.toml" else folder).joinpath(file).read_text()
        text = text.replace("panda_joint", "axis_").replace('name = "panda"', 'name = "mine"')
        text = text.replace("velocity = [2.1750, 2.1750", "velocity = [1.0, 1.0")
        (folder / file.replace("panda.toml", "mine.toml")).write_text(text)
    return load_robot(folder / "mine.toml", BASE)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Scene, motion, the robot of one's own at BASE, and a plan as fast as its limits allow."""
    scene, motion = moved_scene()
    robot = own_robot(tmp_path_factory.mktemp("robot"))
    result = plan(scene, motion, robot, options=PlanOptions(timing="fast"))
    assert isinstance(result, Plan), result.reason
    return scene, motion, robot, result


@pytest.fixture
def folder(planned, tmp_path):
    """The run's folder."""
    scene, motion, _, result = planned
    for name, record in (("scene", scene), ("motion", motion), ("plan", result)):
        npz.save(tmp_path / f"{name}.npz", record)
    return tmp_path


@contextmanager
def drawn(run):
    server = viser.ViserServer(host="127.0.0.1", port=0)
    try:
        yield server.scene.get_handle_by_name, draw(server, run, ViewOptions())
    finally:
        server.stop()


def test_a_robot_of_ones_own_is_drawn_where_it_stood(planned, folder):
    _, _, robot, result = planned
    run = read_run(folder)
    assert run.robot.name == "mine"
    assert run.notes == ()
    np.testing.assert_array_equal(run.robot.velocity, robot.velocity)
    with drawn(run) as (node, show):
        show(0.0)
        np.testing.assert_allclose(
            node(f"/robot/{robot.base_link}").position, BASE[:3, 3], atol=1e-6
        )
        # At the contact the tool is where the contact is.
        q = result.trajectory
        t = float(q.times[q.phase == Phase.GRIP][0])
        show(t)
        X = robot.fk(q.at(t)[None], float(q.grip[0]))[0, robot.link_names.index(robot.tool_link)]
        np.testing.assert_allclose(node(f"/robot/{robot.tool_link}").position, X[:3, 3], atol=1e-4)
        contact = result.contact.X_world_tool[0]
        assert np.linalg.norm((X @ robot.X_link_tool)[:3, 3] - contact[:3, 3]) < 5e-3


def test_a_robot_whose_file_is_gone_is_said_to_be_missing(planned, folder):
    _, _, robot, result = planned
    gone = replace(result, mounting=replace(result.mounting, file=str(folder / "gone.toml")))
    npz.save(folder / "plan.npz", gone)
    run = read_run(folder)
    assert run.robot is None
    assert run.trajectory is None
    (note,) = run.notes
    assert re.search(r"not drawn\. mine: .*gone\.toml.*--robot", note)
    assert "gone.toml" in write_page(folder / "page.html", run).read_text()
    # Named by hand, it is drawn.
    assert read_run(folder, robot).trajectory is not None
    # A file of the joints of a robot of this project: that one, and a note.
    panda = replace(gone.trajectory, joint_names=load_robot("panda").joint_names)
    npz.save(folder / "plan.npz", replace(gone, trajectory=panda))
    run = read_run(folder)
    assert run.robot.name == "panda"
    np.testing.assert_array_equal(run.robot.X_world_base, BASE)
    assert "this project's panda" in run.notes[0]


def test_the_object_is_in_the_hand_at_every_time_of_a_fast_plan(planned, folder):
    _, motion, robot, result = planned
    run = read_run(folder)
    q = result.trajectory
    held = q.times[q.phase == Phase.MANIPULATE]
    # The flow's clock is not even: the middle of the manipulation is not that of the flow.
    even = np.interp(held, [held[0], held[-1]], [0.0, motion.times[-1]])
    clock = np.array([run.flow_time(t) for t in held])
    assert np.abs(clock - even).max() > 0.05
    assert (np.diff(clock) >= 0).all()
    assert clock[[0, -1]] == pytest.approx([0.0, motion.times[-1]], abs=1e-6)
    assert run.flow_time(0.0) == 0.0
    assert run.flow_time(float(q.times[-1])) == pytest.approx(motion.times[-1])
    with drawn(run) as (node, show):
        brick = node("/objects/brick")
        seen = []
        for t in held[:: len(held) // 8]:
            show(float(t))
            X_world_brick = np.eye(4)
            X_world_brick[:3, :3] = viser.transforms.SO3(brick.wxyz).as_matrix()
            X_world_brick[:3, 3] = brick.position
            X_world_tool = robot.tool_pose(q.at(float(t))[None])[0]
            seen.append(inverse(X_world_tool) @ X_world_brick)
        # It does not move in the hand.
        assert np.abs(np.array(seen) - seen[0]).max() < 4e-3
    with pytest.raises(ValueError, match=r"Run\.flow_times: expected one for each"):
        replace(run, flow_times=np.zeros(3))


def test_the_least_clearance_is_marked_where_and_when(planned, folder):
    result = planned[3]
    found = result.certificate
    assert len(found.closest) == 2
    run = read_run(folder)
    closest = clearance.closest(run)
    # Two bodies of the page are as far apart there as the validator's.
    assert closest.distance == pytest.approx(found.clearance, abs=5e-4)
    assert np.linalg.norm(np.subtract(*closest.points)) == pytest.approx(closest.distance)
    with drawn(run) as (node, _):
        line = np.asarray(node("/least clearance/line").points).reshape(2, 3)
        np.testing.assert_allclose(line, closest.points, atol=1e-6)
        assert node("/least clearance/label").text == f"{1e3 * found.clearance:.1f} mm"
    page = write_page(folder / "page.html", run).read_text()
    # The tick is at its share of the player's time bar, which has a pause of a second at its end.
    share = 100 * found.worst_time / (run.duration + 1.0)
    assert f'left:{share:.3f}%;background:{panel.MARK}"' in page
    assert f"{1e3 * found.clearance:.1f} mm at {found.worst_time:.2f} s, " in page
    for changed in (replace(found, closest=()), replace(found, closest=("ghost", "wall"))):
        with drawn(replace(run, certificate=changed)) as (node, _):
            assert node("/least clearance/line") is None


def test_closest_points_of_boxes_are_those_of_their_faces_edges_and_corners():
    a = trimesh.creation.box([2.0, 2.0, 2.0])
    for offset, distance in (
        ([3.0, 0.3, 0.2], 1.0),
        ([3.0, 3.0, 0.0], np.sqrt(2)),
        ([3.0, 3.0, 3.0], np.sqrt(3)),
    ):
        b = trimesh.creation.box([2.0, 2.0, 2.0], transform=pose(None, offset))
        found = clearance.closest_points(a, b)
        assert found.distance == pytest.approx(distance)
        on_a, on_b = found.points
        assert np.abs(on_a).max() == pytest.approx(1.0)
        assert np.abs(on_b - offset).max() == pytest.approx(1.0)


def test_phases_fill_the_bar_in_order(planned):
    q = planned[3].trajectory
    spans = panel.phase_spans(q)
    assert [s.phase for s in spans] == list(Phase)
    assert (spans[0].start, spans[-1].end) == (0.0, q.times[-1])
    for span, following in pairwise(spans):
        assert span.end == following.start == q.times[q.phase == following.phase][0]


def test_joints_are_plotted_between_their_limits(planned, folder):
    scene, motion, robot, result = planned
    run = Run.of_plan(scene, motion, result, robot)
    plots = panel.joint_plots(run, 10.0)
    lines = [
        np.array([pair.split(",") for pair in text.split()], float)
        for text in re.findall(r'<polyline points="([^"]*)"', plots)
    ]
    limits = [float(y) for y in re.findall(r'y1="([\d.]+)" y2="\1" stroke="#c33"', plots)]
    J, q = len(robot.joint_names), result.trajectory
    assert len(lines) == 2 * J
    upper, lower = limits[1::2], limits[0::2]  # pixels grow downwards
    values = np.concatenate([q.q.T, q.qd.T])
    bounds = np.stack(
        [
            np.concatenate([robot.lower, -robot.velocity]),
            np.concatenate([robot.upper, robot.velocity]),
        ]
    )
    for row, line in enumerate(lines):
        assert line[[0, -1], 0] == pytest.approx([0.0, 300 * q.times[-1] / 10.0], abs=0.06)
        # Pixels back to values by the two dashed lines.
        scale = (bounds[1, row] - bounds[0, row]) / (upper[row] - lower[row])
        back = bounds[0, row] + (line[:, 1] - lower[row]) * scale
        at = np.interp(line[:, 0] / 300 * 10.0, q.times, values[row])
        assert np.abs(back - at).max() < 0.03 * (bounds[1, row] - bounds[0, row])
    assert plots.count(" rad/s; limits") == plots.count(" rad; limits") == J
    assert panel.joint_plots(Run(scene), 1.0) == ""


def test_report_and_panels_are_on_the_page_and_in_the_live_view(planned, folder):
    result = planned[3]
    run = read_run(folder)
    assert run.report == feasibility(result)
    page = write_page(folder / "page.html", run).read_text()
    assert "certified by the independent validator" in page
    assert page.count('class="flowplan-now"') == 2
    with serve(run, port=0) as viewer:
        content = [m.props.content for m in html_messages(viewer.server)]
        text = "".join(content)
    for part in ("approach", "certified by the independent validator", "<polyline"):
        assert part in text, part


def html_messages(server):
    """Messages of HTML elements that a client gets when it connects."""
    buffer = server._websock_server._broadcast_buffer
    return [m for m in buffer.message_from_id.values() if type(m).__name__ == "GuiHtmlMessage"]


def test_a_run_without_a_plan_shows_the_reasons(folder):
    (folder / "plan.npz").unlink()
    (folder / "feasibility.txt").write_text("NO PLAN. rank: <out> of reach\n")
    run = read_run(folder)
    page = write_page(folder / "page.html", run).read_text()
    assert "NO PLAN. rank: &lt;out&gt; of reach" in page
    assert "flowplan-phases" not in page


@pytest.mark.parametrize(
    ("host", "headers", "refused"),
    [
        ("127.0.0.1", {"Host": "127.0.0.1:8080"}, ""),
        ("127.0.0.1", {"Host": "localhost:8080", "Origin": "http://localhost:8080"}, ""),
        ("127.0.0.1", {"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, ""),
        ("0.0.0.0", {"Host": "192.168.1.7:8080", "Origin": "http://192.168.1.7:8080"}, ""),
        ("robot.lab", {"Host": "robot.lab:8080", "Origin": "http://robot.lab:8080"}, ""),
        ("127.0.0.1", {}, "Host"),
        ("127.0.0.1", {"Host": "evil.example:8080"}, "Host"),
        ("127.0.0.1", {"Host": "localhost.evil.example"}, "Host"),
        ("0.0.0.0", {"Host": "evil.example", "Origin": "http://evil.example"}, "Host"),
        ("0.0.0.0", {"Host": ""}, "Host"),
        ("127.0.0.1", {"Host": "127.0.0.1:8080", "Origin": "http://evil.example"}, "Origin"),
        ("127.0.0.1", {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:9999"}, "Origin"),
        ("127.0.0.1", {"Host": "127.0.0.1:8080", "Origin": "null"}, "Origin"),
    ],
)
def test_requests_of_other_sites_are_refused(host, headers, refused):
    reason = refusal(host, headers)
    assert reason.startswith(refused)
    assert bool(reason) == bool(refused)


def test_the_live_view_accepts_its_own_page_and_no_other():
    scene = Scene((SceneObject("box", trimesh.creation.box([0.1] * 3)),))
    with serve(Run(scene), port=0) as viewer:
        port = viewer.server.get_port()

        def joined(origin=None, host=None):
            headers = {} if origin is None else {"Origin": origin}
            address = f"ws://{host or '127.0.0.1'}:{port}"
            subprotocol = f"viser-v{viser.__version__}"
            with connect(
                address,
                additional_headers=headers,
                subprotocols=[subprotocol],
                compression=None,
            ) as socket:
                return len(socket.recv(timeout=20)) > 0

        assert joined(f"http://127.0.0.1:{port}")
        assert joined(f"http://localhost:{port}", "localhost")
        assert joined()
        for origin in ("http://evil.example", "null", f"http://localhost:{port}"):
            with pytest.raises(InvalidStatus, match="403"):
                joined(origin)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_a_browser_shows_phases_above_the_time_bar_and_lines_that_follow_it(folder):
    page = write_page(folder / "page.html", read_run(folder), ViewOptions(rate=5))
    with chromium() as tab:
        for domain in ("Page", "Runtime"):
            tab.call(f"{domain}.enable")
        tab.call("Page.navigate", url=page.as_uri())

        def value(script):
            found = tab.call("Runtime.evaluate", expression=script, returnByValue=True)
            return found.get("result", {}).get("value")

        def boxes():
            return json.loads(
                value(
                    "JSON.stringify(['#flowplan-phases', '.mantine-Slider-root'].map(name => {"
                    "const e = document.querySelector(name); if (!e) return null;"
                    "const b = e.getBoundingClientRect(); return [b.left, b.right, b.top, b.bottom]"
                    "}))"
                )
                or "[null, null]"
            )

        # The bar is as wide as the player's, and above it.
        wait_for(lambda: boxes()[1] and np.allclose(boxes()[0][:2], boxes()[1][:2], atol=2))
        phases, slider = boxes()
        assert phases[3] <= slider[2]
        value("document.querySelectorAll('details').forEach(d => d.open = true)")
        # The lines stand at the time of the slider, as a share of the plots' width.
        wait_for(
            lambda: (
                value(
                    "(() => { const t = document.querySelector('[role=slider]');"
                    "const n = document.querySelector('.flowplan-now');"
                    "const share = t.getAttribute('aria-valuenow') / t.getAttribute('aria-valuemax');"
                    "return share > 0.02 && Math.abs(n.getAttribute('x1') - 300 * share) < 3 })()"
                )
                is True
            )
        )
        shot = tab.call("Page.captureScreenshot", format="png")["data"]
        assert len(base64.b64decode(shot)) > 10_000
