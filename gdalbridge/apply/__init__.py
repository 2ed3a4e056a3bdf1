"""Scripts over a table, block by block."""
