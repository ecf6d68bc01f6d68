"""The kinematic states of one object: a reduced latent space and its derivatives."""
