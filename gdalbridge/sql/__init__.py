"""Queries, expressions over columns, statistics, and counts for plots, computed by DuckDB."""
