"""Gaussians and the cameras that look at them."""
