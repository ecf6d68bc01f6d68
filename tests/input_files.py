"""Input files as people have them, for the tests of the readers."""

import json
import warnings

import numpy as np
import pytest
import trimesh
from PIL import Image

from flowplan.scan import read_frames

HEIGHT, WIDTH = 24, 32
IDENTITY = np.eye(4)
CAMERA = {"w": WIDTH, "h": HEIGHT, "fl_x": 30, "fl_y": 30, "cx": 16, "cy": 12}


def refused(call, *words):
    """The one line of the ValueError that a call ends in, which holds one of the words."""
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert not words or any(word in message.lower() for word in words), message
    return message


def warned(call):
    """The warnings of a call, in one text."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return " | ".join(str(w.message) for w in found)


def wedge():
    """A mesh without symmetry, extents 0.325 x 0.2 x 0.3 m."""
    a = trimesh.creation.box([0.1, 0.2, 0.3]).apply_translation([0.05, 0.1, 0.15])
    b = trimesh.creation.box([0.05, 0.05, 0.05]).apply_translation([0.3, 0.025, 0.025])
    return trimesh.util.concatenate([a, b])


def depth_image(path, millimeters):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH), millimeters, np.uint16)).save(path)


def _depth_images(folder, names):
    """Images of which number i is 1000 + 10 i mm deep."""
    for i, name in enumerate(names):
        depth_image(folder / "depth" / name, 1000 + 10 * i)


def _by_columns(width, height, focal):
    K = [focal, 0, 0, 0, focal, 0, width / 2 - 0.5, height / 2 - 0.5, 1]
    return {"width": width, "height": height, "intrinsic_matrix": K}


def open3d_folder(folder, names, width=WIDTH, height=HEIGHT, focal=30.0):
    """Frames whose camera i stands at x = i, in a camera_trajectory.json."""
    _depth_images(folder, names)
    camera = _by_columns(width, height, focal)
    poses = [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, -i, 0, 0, 1] for i in range(len(names))]
    parameters = [{"extrinsic": pose, "intrinsic": camera} for pose in poses]
    (folder / "camera_trajectory.json").write_text(json.dumps({"parameters": parameters}))
    return folder


def redwood_folder(folder, names, width=WIDTH, height=HEIGHT, focal=30.0):
    """Frames whose camera i stands at x = i, in a trajectory.log."""
    _depth_images(folder, names)
    (folder / "intrinsic.json").write_text(json.dumps(_by_columns(width, height, focal)))
    text = [f"{i} {i} {i + 1}\n1 0 0 {i}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n" for i in range(len(names))]
    (folder / "trajectory.log").write_text("".join(text))
    return folder


def nerfstudio_folder(folder, camera, frame=None, poses=(IDENTITY,)):
    """Frames 1 m deep in a transforms.json."""
    rows = []
    for i, X in enumerate(poses):
        depth_image(folder / f"depth/{i}.png", 1000)
        row = {"depth_file_path": f"depth/{i}.png", "transform_matrix": X.tolist()}
        rows.append({**row, **(frame or {})})
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": rows}))
    return folder


def paired(folder):
    """The camera's x in m and the depth in mm of every frame."""
    return [
        (round(float(f.X_world_camera[0, 3])), round(1000 * float(f.depth[0, 0])))
        for f in read_frames(folder)
    ]


def size_seen(frame):
    """Width and height in m of the wall that a frame shows."""
    return np.ptp(frame.points_world[..., :2], axis=(0, 1))


BOX = '<box size="0.1 0.1 0.1"/>'
LIMIT = '<limit lower="0" upper="0.5" effort="1" velocity="1"/>'


def urdf(path, body, head='<robot name="r">'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{body}</robot>")
    return path


def link(name, shape=BOX, tag="visual"):
    return f'<link name="{name}"><{tag}><geometry>{shape}</geometry></{tag}></link>'


def joint(name, parent, child, extra="", kind="prismatic", limit=LIMIT):
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<axis xyz="0 0 1"/>{limit}{extra}</joint>'
    )
