"""Options that several nodes share, and those of the executor that are no intervals."""

import numpy as np
import pytest
from flowplan_ros.executor_node import ExecutorNodeOptions
from flowplan_ros.placed_robot import PlacedRobotOptions
from flowplan_ros.plan_node import PlanNodeOptions

NAN, INF = float("nan"), float("inf")


def test_the_base_stands_where_the_options_say():
    half = np.sqrt(0.5)
    options = PlanNodeOptions(base_position=(1.0, 2.0, 3.0), base_quat_xyzw=(0.0, 0.0, half, half))
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(options.X_world_base, expected, atol=1e-12)


@pytest.mark.parametrize("kind", [PlacedRobotOptions, PlanNodeOptions, ExecutorNodeOptions])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_position", (0.0, NAN, 0.0)),
        ("base_position", (INF, 0.0, 0.0)),
        ("base_quat_xyzw", (0.0, 0.0, 0.0, NAN)),
        ("base_quat_xyzw", (0.0, 0.0, 0.0, 0.99)),
        ("base_quat_xyzw", (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_a_base_that_stands_nowhere_is_refused(kind, field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        kind(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gripper_open_position", INF),
        ("gripper_open_position", 0.0),
        ("gripper_closed_position", NAN),
        ("gripper_closed_position", -INF),
    ],
)
def test_a_gripper_needs_two_positions(field, value):
    with pytest.raises(ValueError, match=r"^gripper_(open|closed)_position: "):
        ExecutorNodeOptions(**{field: value})


@pytest.mark.parametrize("value", [NAN, INF, 0.0])
def test_executor_options_keep_their_bounds(value):
    with pytest.raises(ValueError, match="max_age"):
        ExecutorNodeOptions(max_age=value)
