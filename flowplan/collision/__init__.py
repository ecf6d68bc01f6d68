"""Obstacles as the planner sees them: distance fields, sphere covers, and the geometry of each phase."""
