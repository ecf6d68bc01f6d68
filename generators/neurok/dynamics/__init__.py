"""Lagrangian dynamics in the latent space."""
