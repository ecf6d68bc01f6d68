"""Mutation testing: small faults planted one at a time, and the share that quick tests notice."""
