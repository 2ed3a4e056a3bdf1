"""Rasters with their tables: bake, copy, move, remove."""
