"""What the other tests stand on: domains that are alone, processes that end, waits that say what
went wrong."""

import os
import socket
import sys

import conftest
import pytest

# Says that it is ready, with a child that ignores ctrl-C.
STUBBORN_CHILD = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(600)
"""
TALKER = """
import rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("talker")
publisher = node.create_publisher(String, "talk", 10)
node.create_timer(0.02, lambda: publisher.publish(String(data="here")))
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
"""


def test_domains_are_fresh():
    with conftest.fresh_domain() as first, conftest.fresh_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, 102))


def test_a_domain_with_an_orphan_is_passed_over(monkeypatch):
    monkeypatch.setattr(conftest, "DOMAINS", range(90, 92))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as orphan:
        orphan.bind(("127.0.0.1", 7400 + 250 * 90 + 10))
        for _ in range(2):
            with conftest.fresh_domain() as domain:
                assert domain == 91


def test_a_process_is_heard_and_stops(ros):
    from std_msgs.msg import String

    heard = ros.subscribe(String, "talk")
    talker = ros.spawn([sys.executable, "-c", TALKER], "talker")
    assert ros.wait_for(lambda: heard, what="a message")[0].data == "here"
    assert talker.stop() == 0


def test_a_death_is_reported_with_its_last_words(ros):
    ros.spawn([sys.executable, "-c", "raise SystemExit('no robot')"], "broken")
    with pytest.raises(
        AssertionError, match=r"0-broken ended with status 1 while waiting for Godot(?s:.*)no robot"
    ):
        ros.wait_for(lambda: False, what="Godot")


def test_a_wait_ends(ros):
    with pytest.raises(AssertionError, match=r"Godot: not within 0.1 s"):
        ros.wait_for(lambda: False, 0.1, "Godot")


def test_a_child_left_behind_is_an_error_and_is_killed(ros):
    process = ros.spawn([sys.executable, "-c", STUBBORN_CHILD], "parent")
    ros.wait_for(lambda: "ready" in process.output(), what="the child")
    with pytest.raises(AssertionError, match="0-parent or a child of it did not end within 0.5 s"):
        process.stop(0.5)
    process.kill()
    assert not process.group_alive()


def test_an_executable_that_is_not_installed_is_named(tmp_path, monkeypatch):
    (tmp_path / "lib" / "some_package").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}{os.pathsep}{tmp_path / 'other'}")
    with pytest.raises(AssertionError, match="package some_package installs no executable ghost"):
        conftest.command("some_package", "ghost")
    assert conftest.command("source_package", "node")[1:] == ["-m", "source_package.node"]
