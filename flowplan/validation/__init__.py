"""Independent validation: continuous collision checking on exact geometry, and joint limits.

This package uses only robot, trajectory and utils, so that its results do not depend on the code
that they check.
"""
