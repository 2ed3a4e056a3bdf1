"""The table in files of other formats."""
