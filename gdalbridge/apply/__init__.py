"""Apply a user's function to a table, block by block."""
