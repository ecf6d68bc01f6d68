"""Independent validation: continuous collision checking on exact geometry, and joint limits.

This room may use the robot, trajectory and utils only: what it says does not rest on the code that it checks.
"""
