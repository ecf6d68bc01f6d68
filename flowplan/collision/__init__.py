"""Collision models of the planner: distance fields, sphere covers, and the geometry of each phase."""
