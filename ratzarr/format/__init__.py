"""The on-disk format: names, dtypes, documents, limits. Nothing here does I/O."""
