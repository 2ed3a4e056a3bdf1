"""Copies between a raster's own table and a sidecar."""
