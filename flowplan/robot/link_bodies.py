"""Links and collision spheres as constants in the moving frames of `flowplan.robot.kinematics`.

Body 0 is the base and body j + 1 follows arm joint j. A link is fixed in the body that carries it,
once the gripper's opening is given, and so are its spheres. `Chain.place` multiplies the bodies'
poses with columns of homogeneous vectors: each column has its vector in the four rows of its body,
and zeros elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import transform
from flowplan.robot.kinematics import tree_poses
from flowplan.robot.urdf import Joint
from flowplan.utils.checks import FloatArray


class OpeningConstants(NamedTuple):
    """Constant columns at one gripper opening.

    Attributes:
        links: (4 (J + 1), 4 L) the four columns of each link's pose.
        spheres: (4 (J + 1), K) homogeneous sphere centers, meters.
    """

    links: FloatArray
    spheres: FloatArray


class LinkBodies:
    """The body that carries each link, and the links' poses in it.

    Args:
        joints: the tree's joints, parents before children.
        arm: names of the J arm joints, base to tip.
        base: the root link.
    """

    def __init__(self, joints: Sequence[Joint], arm: Sequence[str], base: str) -> None:
        # Bodies: the base, and the child of each arm joint.
        self.count = len(arm) + 1
        by_name = {j.name: j for j in joints}
        self._roots = [base, *(by_name[name].child for name in arm)]
        self._still = [j for j in joints if j.name not in arm]
        self.index = {base: 0}
        for joint in joints:
            if joint.name in arm:
                self.index[joint.child] = list(arm).index(joint.name) + 1
            else:
                self.index[joint.child] = self.index[joint.parent]

    def link_poses(self, positions: Mapping[str, float]) -> dict[str, FloatArray]:
        """X_body_link (4, 4) of every link, with the other joints at `positions` (rad or m)."""
        poses: dict[str, FloatArray] = {}
        for root in self._roots:
            poses |= tree_poses(self._still, root, positions)
        return poses

    def constants(
        self,
        links: Sequence[str],
        positions: Mapping[str, float],
        sphere_link: NDArray[np.int64],
        sphere_center: FloatArray,
    ) -> OpeningConstants:
        """The columns of all links and spheres.

        Args:
            links: names of the L links, in the order of the columns.
            positions: of the joints that are not the arm's, rad or m.
            sphere_link: (K,) indices in `links`.
            sphere_center: (K, 3) link frame, meters.
        """
        X_body_link = self.link_poses(positions)
        rows = 4 * self.count
        columns = np.zeros((rows, len(links), 4))
        spheres = np.zeros((rows, len(sphere_link)))
        for i, link in enumerate(links):
            # The four rows of the body that carries the link.
            first = 4 * self.index[link]
            columns[first : first + 4, i] = X_body_link[link]
            # Its spheres, as homogeneous columns.
            on_link = sphere_link == i
            centers = transform(X_body_link[link], sphere_center[on_link])
            spheres[first : first + 3, on_link] = centers.T
            spheres[first + 3, on_link] = 1.0
        return OpeningConstants(columns.reshape(rows, -1), spheres)
