"""Replay of a plan by code of its own: neither flowplan nor pinocchio nor coal is used.

Kinematics are read from the robot's files here, distances are those of points a millimeter apart to
triangles, and limits are differences of the positions that are executed.
"""
