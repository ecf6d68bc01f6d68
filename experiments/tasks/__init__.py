"""Simulated manipulation tasks, run and evaluated."""
