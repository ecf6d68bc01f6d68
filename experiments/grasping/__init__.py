"""Benchmarks of grasp proposal: speed, and the share of grasps that survive a shake test."""
