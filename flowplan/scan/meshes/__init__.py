"""Meshes: reading, repair, simplification, convex decomposition."""
