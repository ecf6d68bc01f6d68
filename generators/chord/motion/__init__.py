"""Motion of objects by few control points, and what keeps it smooth and rigid."""
