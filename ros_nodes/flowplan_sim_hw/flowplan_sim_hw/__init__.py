"""Simulated robot with the ROS 2 interfaces of a real one."""
