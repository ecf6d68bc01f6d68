"""Paths in joint space: to and from the contact, time parameterization, and the five phases put together."""
