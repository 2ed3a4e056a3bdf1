"""A GDAL vector driver for tables: a stub in the client's Python, and a helper process in ours."""
