"""The sidecar as part of the raster's own attribute table."""
