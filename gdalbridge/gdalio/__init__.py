"""The only importer of GDAL: datasets, attribute tables, types."""
