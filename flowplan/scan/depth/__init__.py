"""Depth images to objects: reading frames, fusion, segmentation."""
