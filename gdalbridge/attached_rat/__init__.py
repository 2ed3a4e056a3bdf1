"""The sidecar as part of the raster's own attribute table.

A package named ``attach`` would hide the function ``gdalbridge.attach``.
"""
