"""The simulated robot in its own cameras' images: the scan without it is that of the task alone."""

import numpy as np
from flowplan_msgs.msg import ErrorCode
from flowplan_msgs.srv import Scan
from flowplan_ros import conversions
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters

from flowplan.robot import load_robot

CAMERAS = [f"camera_{i}" for i in range(8)]
ARM = load_robot("panda")


def sizes(response):
    assert response.error_code == ErrorCode.SUCCESS, response.error_msg
    scene = conversions.scene_from_msg(response.scene)
    return [np.ptp(o.vertices_world, axis=0) for o in scene.objects]


def near_the_arm(response):
    """Least distance of any scanned vertex from the robot's spheres at rest, meters."""
    scene = conversions.scene_from_msg(response.scene)
    vertices = np.concatenate([o.vertices_world for o in scene.objects])  # (V, 3)
    centers = ARM.spheres(ARM.home[None])[0]  # (K, 3)
    apart = np.linalg.norm(vertices[:, None] - centers, axis=-1) - ARM.sphere_radius
    return float(apart.min())


def test_the_simulated_robot_is_seen_and_removed(ros):
    ros.start("sim_node", {"camera.robot": True}, package="flowplan_sim_hw")
    ros.start(
        "scan_node",
        {
            "cameras": CAMERAS,
            "image_timeout": 60.0,
            "scan.support_height": 0.0,
            "arm.state_gap": 0.5,
        },
    )
    ros.activate("scan_node")

    def scan():
        return ros.call(Scan, "scan", Scan.Request(), 150.0)

    without = scan()
    value = Parameter(name="arm.remove", value=ParameterValue(type=1, bool_value=False))
    request = SetParameters.Request(parameters=[value])
    assert ros.call(SetParameters, "scan_node/set_parameters", request).results[0].successful
    seen = scan()
    # The laptop alone, and with it what stands at the origin.
    assert len(sizes(without)) == 1
    assert sizes(without)[0].max() < 0.5
    assert near_the_arm(without) > 0.01
    assert near_the_arm(seen) < 0.01
