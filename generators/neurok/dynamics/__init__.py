"""Lagrangian dynamics in the space of states."""
