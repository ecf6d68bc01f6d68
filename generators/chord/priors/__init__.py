"""Video models that CHORD can distill from."""
