"""Scenes and sentences that the choreographer is trained on."""
