"""NeuROK: from a static mesh and an action to motion, through a learned space of the object's kinematic states."""
