"""CHORD: motion of several objects from a sentence, distilled from a video model.

Lyu et al. 2026, Choreographing a World of Dynamic Objects (arXiv 2601.04194).
"""
