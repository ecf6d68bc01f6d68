"""Experiments with CHORD."""
