"""Expressions over columns and statistics of columns."""
