"""The launch files start what exists, with parameters that exist; and what reads them refuses what
it does not know."""

import math
import re
from pathlib import Path

import pytest
import yaml
from launch_reader import LaunchNode, parameters_for, read_launch, share
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.parameter import parameter_value_to_python

BRINGUP = share("flowplan_bringup")
LAUNCH = sorted((BRINGUP / "launch").glob("*.launch.xml"))
ROBOTS = sorted((BRINGUP / "config" / "robots").glob("*.yaml"))
OURS = {"use_sim_time", "start_type_description_service"}  # rclpy's own are left to it


def launched(name, **arguments):
    return {
        node.name: node
        for node in read_launch(BRINGUP / "launch" / f"{name}.launch.xml", arguments)
    }


def declared(ros, node):
    """Value and description of every parameter of a running node, rclpy's own left out."""
    names = ros.call(ListParameters, f"{node}/list_parameters", timeout=60).result.names
    names = [n for n in names if n not in OURS and not n.startswith("qos_overrides")]
    values = ros.call(
        GetParameters, f"{node}/get_parameters", GetParameters.Request(names=names)
    ).values
    words = ros.call(
        DescribeParameters, f"{node}/describe_parameters", DescribeParameters.Request(names=names)
    )
    plain = {name: python_value(value) for name, value in zip(names, values, strict=True)}
    return plain, dict(zip(names, words.descriptors, strict=True))


def python_value(message):
    value = parameter_value_to_python(message)
    return value if isinstance(value, bool | int | float | str) else list(value)


def same(a, b):
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def start(ros, node: LaunchNode):
    from conftest import command

    argv = command(node.package, node.executable) + node.ros_arguments(ros.folder)
    return ros.spawn(argv, node.name)


def test_both_launch_files_start_the_same_nodes():
    robot, demo = launched("robot"), launched("demo")
    assert set(robot) == {
        "scan_node",
        "flow_node",
        "plan_node",
        "executor_node",
        "lifecycle_manager",
    }
    assert set(demo) == {*robot, "sim_node"}
    assert all(node.respawn for name, node in robot.items() if name != "lifecycle_manager")
    assert "rviz2" in launched("robot", rviz="true")
    assert [p for p in launched("robot", rviz="true")["rviz2"].arguments if p.endswith(".rviz")]


def test_a_robot_is_safe_unless_it_is_told_otherwise():
    values = launched("robot")["executor_node"].values()
    assert (values["dry_run"], values["confirm"], values["velocity_scaling"]) == (True, True, 0.2)
    values = launched("robot", dry_run="false", velocity_scaling="0.5")["executor_node"].values()
    assert (values["dry_run"], values["velocity_scaling"]) == (False, 0.5)


def test_arguments_arrive_where_they_are_meant():
    nodes = launched(
        "robot", robot="ur5e", generator="neurok", use_sim_time="true", settings=str(ROBOTS[-1])
    )
    assert (
        nodes["plan_node"].values()["robot"] == nodes["executor_node"].values()["robot"] == "ur5e"
    )
    assert nodes["flow_node"].values()["generator"] == "neurok"
    assert all(node.values()["use_sim_time"] is True for node in nodes.values())
    demo = launched("demo", task="pick_place", seed="3")
    assert (demo["sim_node"].values()["task"], demo["sim_node"].values()["seed"]) == (
        "pick_place",
        3,
    )


def test_every_parameter_is_declared_described_and_in_its_file(ros):
    """Defaults in the files are the nodes' own, names and types are right, for what the launch
    files set as well."""
    nodes = launched("demo")
    for name, node in nodes.items():
        bare = LaunchNode(
            node.package, node.executable, name, "", parameters=({"autostart": False},)
        )
        start(
            ros,
            bare
            if name == "lifecycle_manager"
            else LaunchNode(node.package, node.executable, name, ""),
        )
    for name in nodes:
        values, words = declared(ros, name)
        if name == "lifecycle_manager":
            values["autostart"] = True
        file = parameters_for(BRINGUP / "config" / f"{name}.yaml", name)
        assert set(file) == set(values), f"{name}.yaml: {set(file) ^ set(values)}"
        wrong = {n: (file[n], values[n]) for n in file if not same(values[n], file[n])}
        assert not wrong, f"{name}.yaml, and the node's own: {wrong}"
        assert all(words[n].description for n in values), f"{name}: a parameter has no description"
        numbers = [
            n for n, v in values.items() if isinstance(v, float | int) and not isinstance(v, bool)
        ]
        free = {
            n for n in numbers if not words[n].floating_point_range and not words[n].integer_range
        }
        free -= {
            "gripper_open_position",
            "gripper_closed_position",
            "scan.support_height",
        }  # of any gripper, any table
        assert not free, f"{name}: {free} have no range"
        for settings in ROBOTS:
            given = parameters_for(settings, name)
            assert set(given) <= set(values), f"{settings.name}, {name}: {set(given) - set(values)}"
            assert all(type(given[n]) is type(values[n]) for n in given), f"{settings.name}, {name}"
        given = nodes[name].values()
        given.pop("use_sim_time")
        assert {n: type(v) for n, v in given.items()} == {n: type(values[n]) for n in given}, name


def test_files_reach_the_nodes(ros):
    """What the launch file says is what the running node has, wildcards in the files' node names
    included."""
    for name in ("scan_node", "executor_node"):
        node = launched("demo", dry_run="true")[name]
        start(ros, node)
        values, _ = declared(ros, name)
        expected = {n: v for n, v in node.values().items() if n != "use_sim_time"}
        assert all(same(values[n], expected[n]) for n in expected)
    assert values["dry_run"] is True


def test_rviz_looks_at_topics_that_exist():
    config = yaml.safe_load((BRINGUP / "rviz" / "flowplan.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    topics = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert topics == {
        "/scene/points",
        "/executor_node/preview",
        "/executor_node/flow",
        "/executor_node/ghost",
    }


BAD = {
    "an element": ("<launch><group/></launch>", "<group> does not belong there"),
    "an attribute": (
        '<launch><node pkg="a" exec="b" launch-prefix="gdb"/></launch>',
        "launch-prefix",
    ),
    "a missing attribute": ('<launch><node pkg="a"/></launch>', "lacks attribute 'exec'"),
    "a substitution": (
        '<launch><node pkg="a" exec="$(env HOME)"/></launch>',
        "$(env HOME): unknown",
    ),
    "a nested substitution": ('<launch><node pkg="a" exec="$(var $(var x))"/></launch>', "unknown"),
    "an unknown argument": (
        '<launch><node pkg="a" exec="$(var x)"/></launch>',
        "$(var x): unknown",
    ),
    "an argument later": (
        '<launch><node pkg="a" exec="$(var x)"/><arg name="x" default="1" description="d"/></launch>',
        "$(var x): unknown",
    ),
    "an argument nobody gives": (
        '<launch><arg name="x" description="d"/></launch>',
        "has no default",
    ),
    "an argument without words": (
        '<launch><arg name="x" default="1"/></launch>',
        "lacks a description",
    ),
    "a parameter file": (
        '<launch><node pkg="a" exec="b"><param from="none.yaml"/></node></launch>',
        "no such file",
    ),
    "half a parameter": (
        '<launch><node pkg="a" exec="b"><param name="x"/></node></launch>',
        "expected from, or name",
    ),
    "a package": (
        '<launch><include file="$(find-pkg-share no_such_package)/x.xml"/></launch>',
        "no such package",
    ),
    "a condition": (
        '<launch><node pkg="a" exec="b" if="perhaps"/></launch>',
        "expected true or false",
    ),
    "text": ("<launch>hello</launch>", "text is not in the subset"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_outside_of_the_subset_is_refused(case, tmp_path):
    text, words = BAD[case]
    path = tmp_path / "bad.launch.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        read_launch(path)


def test_an_argument_that_a_file_does_not_have_is_refused():
    with pytest.raises(ValueError, match="no argument 'robt'"):
        launched("robot", robt="panda")


@pytest.mark.parametrize(
    "text", ["executor_node: {ros__parameters: {a: 1}}", "/**: {parameters: {a: 1}}"]
)
def test_a_parameter_file_of_another_shape_is_refused(text, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="ros__parameters"):
        parameters_for(path, "executor_node")


@pytest.mark.parametrize("path", LAUNCH, ids=lambda p: p.name)
def test_ros_itself_reads_them(path):
    """Where a ROS distribution is there. The registry's package `launch` is something else."""
    pytest.importorskip("launch_xml")
    from launch.frontend import Parser

    entity, parser = Parser.load(str(path))
    description = parser.parse_description(entity)
    assert {a.name for a in description.get_launch_arguments()} >= {
        "generator",
        "optimizer",
        "dry_run",
    }


def test_nothing_is_named_that_is_not_installed():
    setup = {
        p: (Path(__file__).parents[2] / "ros_nodes" / p / "setup.py").read_text()
        for p in ("flowplan_ros", "flowplan_sim_hw")
    }
    for node in launched("demo").values():
        assert re.search(rf"\b{node.executable}\b", setup[node.package]), (
            f"{node.package} installs no {node.executable}"
        )


def test_parameter_files_say_what_the_options_say(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "ros_nodes")
    import write_config

    for node in write_config.NODES:
        written = (write_config.CONFIG / f"{node}.yaml").read_text()
        assert written == write_config.text(node), f"{node}.yaml: run ros_nodes/write_config.py"
