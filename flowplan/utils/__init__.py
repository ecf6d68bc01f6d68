"""Helpers without a subject of their own: argument checks, TOML tables, statistics, loading Open3D."""
