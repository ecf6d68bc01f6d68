"""Experiments with NeuROK."""
