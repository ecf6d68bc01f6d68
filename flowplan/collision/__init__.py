"""Collision models for planning: distance fields, sphere covers, geometry of each phase."""
