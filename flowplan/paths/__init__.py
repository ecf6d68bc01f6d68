"""Paths in joint space: to and from the contact, time parameterization, assembly of the phases."""
