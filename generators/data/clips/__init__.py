"""Recorded and simulated animations as training data."""
