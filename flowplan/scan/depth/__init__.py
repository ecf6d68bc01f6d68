"""Depth images to objects: reading frames, fusing, segmenting."""
