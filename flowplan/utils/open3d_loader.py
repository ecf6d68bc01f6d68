"""Open3D, imported on first use, also on machines without libusb.

Open3D's binary links libusb-1.0 (for depth cameras, which are not used here), which a minimal
Debian lacks. The `libusb-package` wheel carries the library; loading it for the whole process
before `import open3d` satisfies the linker without root.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np


@functools.cache
def open3d() -> Any:
    """The `open3d` module.

    Raises:
        ImportError: If Open3D is missing or its shared libraries do not load; one line that says
            what to install.
    """
    try:
        import libusb_package

        library = libusb_package.get_library_path()
        if library is not None:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, OSError):
        pass  # the system may have its own libusb; if it does not, the import below says so
    try:
        import open3d as module
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ImportError(
            f"open3d: could not be imported ({reason}); run `pip install flowplan`, which brings "
            "open3d-cpu and libusb"
        ) from None
    module.utility.set_verbosity_level(module.utility.VerbosityLevel.Error)
    return module


def surface_scene(*surfaces: tuple[Any, Any]) -> Any:
    """The open3d.t.geometry.RaycastingScene of surfaces in one frame, for rays and distances.

    Args:
        surfaces: Vertices (V, 3) in meters and faces (F, 3) each; their geometry ids are their
            positions, from 0.
    """
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    for vertices, faces in surfaces:
        scene.add_triangles(
            o3d.core.Tensor(np.asarray(vertices, np.float32)),
            o3d.core.Tensor(np.asarray(faces, np.uint32)),
        )
    return scene
