"""Which tables a raster has: names, listing, merged columns, provenance."""
