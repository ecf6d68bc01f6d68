"""Runs in the browser: a self-contained page, or a live view."""
