"""Shared helpers: argument checks, option bounds, TOML tables, files, records, statistics."""
