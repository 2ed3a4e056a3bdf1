"""A raster together with its tables: build, zonal, paint, sample, select, bake, copy, move."""
