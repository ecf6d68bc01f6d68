"""Inverse kinematics and dragging in the latent space."""
