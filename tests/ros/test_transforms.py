"""Camera poses from tf2, which is not among the wheels: a stand-in with its documented names."""

import sys
import types

import numpy as np
import pytest
from flowplan_ros.transforms import TfPoses
from geometry_msgs.msg import TransformStamped
from std_msgs.msg import Header

from flowplan.geometry import pose

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def transform(monkeypatch):
    """The transform that the stand-in of tf2_ros answers with."""
    answer = TransformStamped()

    class TransformException(Exception):
        pass

    class Buffer:
        def lookup_transform(self, target, source, stamp):
            if (target, source) != ("world", "camera_optical"):
                raise TransformException(f"{source} is not known")
            return answer

    class TransformListener:
        def __init__(self, buffer, node):
            pass

        def unregister(self):
            pass

    module = types.ModuleType("tf2_ros")
    for kind in (TransformException, Buffer, TransformListener):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return answer.transform


def test_a_transform_is_the_pose(transform):
    transform.translation.x = 0.5
    poses = TfPoses(None, "world")
    X = poses("camera", Header(frame_id="camera_optical"))
    np.testing.assert_allclose(X, pose(translation=[0.5, 0, 0]), atol=1e-12)
    with pytest.raises(ValueError, match="camera: no transform from 'other' to 'world'"):
        poses("camera", Header(frame_id="other"))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("part", ["translation", "rotation"])
def test_a_transform_without_numbers_is_refused(transform, part, value):
    getattr(transform, part).z = value
    with pytest.raises(ValueError, match="camera: transform"):
        TfPoses(None, "world")("camera", Header(frame_id="camera_optical"))
