"""Experiments and benchmarks: everything that measures generators, planner and simulator together."""
