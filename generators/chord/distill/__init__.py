"""Distilling a motion from a video model: CHORD's loop."""
