"""Data that generators learn from: procedural objects, recorded clips, pose pairs."""
