"""Meshes: reading, repairing, simplifying, convex decomposition."""
