"""Experiments and benchmarks that measure generators, planner and simulator together."""
