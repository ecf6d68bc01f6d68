"""Benchmarks of grasp proposals."""
