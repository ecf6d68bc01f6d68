"""Procedural articulated objects: many families, each with random proportions, parts, details,
axes and limits."""
