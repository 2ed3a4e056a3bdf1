"""Bake, copy, move and remove rasters together with their tables."""
