"""Inverse kinematics and drags in the space of states."""
