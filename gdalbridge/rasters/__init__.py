"""Rasters with their tables: build, zonal, paint, sample, select, bake, copy, move and remove."""
