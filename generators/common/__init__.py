"""Shared by several generators: network blocks, training loop, weights files, mesh driving."""
